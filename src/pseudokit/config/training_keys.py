"""The sections `train` and `pseudo` of the configuration: how networks are trained, and how rows are decided."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .types import Augmentation, Count, Seconds, Section, Share


class Train(Section):
    epochs: Annotated[float, Field(gt=0)] = 6
    """Passes over the rows that are learned."""
    min_steps: Annotated[int, Field(ge=0)] = 0
    """A floor under the number of steps, so that a handful of labels is learned long enough."""
    batch_size: Count = 128
    lr: Annotated[float, Field(gt=0)] = 6e-3
    """Peak learning rate."""
    schedule: Literal["onecycle", "cosine", "constant"] = "onecycle"
    optimizer: str = "adamw"
    """Any timm optimizer."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rate of each layer relative to the one above it; < 1 spares a pretrained body."""
    linear_probe_first: bool = False
    """Begin with the best head on the pretrained body as it is, in seconds, and not with a random one."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the averaged weights that are kept; 0 = keep the last weights."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip_grad: Annotated[float, Field(gt=0)] | None = None
    """Largest gradient norm."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced = loss weights inverse to the class counts."""
    augment: Augmentation = "auto"
    """Whole-batch, for small images: gentle; affine; elastic; cutout; strong; written, the hardest, also with thicker
    and thinner strokes, for a handful of labels. albumentations: small; photo; gentle and strong above 64 px. auto =
    affine up to 64 px, photo above; or a list such as [{Affine: {rotate: [-10, 10], p: 1.0}}]."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of mixup: every batch is mixed with itself, labels too. With `cutmix`, each batch draws one of the two."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of cutmix: a patch of another image, and its share of the label."""
    min_labeled_fraction: Share = 0.0
    """Least share of every batch that given labels have; the others are pseudo-labels. 0 = as they come."""
    consistency_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of a term of the student that wants the same answer for a `weak` and a `strong` view of the pool images
    that have no pseudo-label; 0 = off. Wants small batches and many steps."""
    consistency_teacher_weight: Share = 0.0
    """How much the held-out judges have a say in that answer: 0 = none, 1 = as much as the student. Good ones, of
    thousands of labels or with `pseudo.label_propagation`, keep it from confirming its own mistakes; others hand on
    theirs."""
    unlabeled_ratio: Annotated[float, Field(gt=0)] = 4.0
    """Pool images a step of that term, as a multiple of `batch_size`."""
    strong_augment: Augmentation = "strong"
    """The view of that term that learns the answer."""
    amp_dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto = bf16 where the hardware computes it, fp16 on older GPUs, otherwise fp32; on a CPU fp32 too for
    MobileNet, EfficientNet and the like, which lose time by bf16."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    num_workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that augment photos ahead of time; what they make does not depend on their number. Default: 0 on the
    CPU, for a GPU one less than the cores, at most 8. Small images are augmented as whole batches, by the device."""
    checkpoint_every: Annotated[Seconds, Field(ge=0)] = 5
    """Seconds of training between two checkpoints of a network; more where writing one takes over 2 % of that. 0 =
    after every step. No byte of the result depends on it."""


class Pseudo(Section):
    rounds: Annotated[int, Field(ge=0)] = 2
    """Rounds of teacher → decisions → new labels; 0 = plain supervised training."""
    folds: Annotated[int, Field(ge=2)] = 2
    """Models a round; each judges the fold that it did not learn."""
    tta: Annotated[int, Field(ge=1)] = 1
    """Views of a sample that a judge averages: the image itself, the others drawn from predict.augment."""
    relabel_precision: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Labels are changed where the estimated precision of the changes reaches this, class by class."""
    uncertain_labels: Literal["keep", "drop", "review", "downweight", "soften"] | None = None
    """What becomes of a given label that is neither certainly right nor replaced. soften = learn the probabilities of
    its classes; downweight = learn it as far as it may be right; review = learn it, and list it for your eyes.
    Default: soften; downweight where the noise lies on look-alikes (see noise_type in round.json) and judges are not
    clear about it. In joint mode drop: a label issue never teaches. Review where there is hardly any noise, or where
    `relabel_cutoff` decides."""
    relabel_cutoff: Annotated[float, Field(ge=0)] | None = None
    """Plain confidence from which a given label is changed, in place of the noise model and `relabel_precision`; 0.9 is
    the cutoff of the article, above 1 changes no label. Default: the noise model decides."""
    cutoff: Annotated[float, Field(ge=0)] | None = None
    """Confidence from which an unlabeled image receives a pseudo-label; above 1 gives none. Default: 0.95. With
    `min_precision` the cutoffs that it finds decide, but none is below this."""
    min_precision: Annotated[float, Field(gt=0, lt=1)] | None = None
    """In place of a cutoff on the pool: for each class the lowest one at which the out-of-fold precision is at least
    this with 95 % confidence. Few labels bound it loosely."""
    top_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """A curriculum: of the rows that are predicted as a class at most this share, the surest, reached in equal steps
    over the rounds. Assumes nothing about how many rows of a class the pool has."""
    top_fraction_start: Share = 0.0
    """No round takes a smaller share: where the first judges are good already, small steps teach only what is easy."""
    label_propagation: Annotated[float, Field(ge=0)] | Literal["auto"] = 0.0
    """How much the labels of the images that look most alike count beside a judge's own answer, as a power: 0 = not,
    2 = twice as much as a judge. For a handful of labels and small images, or any with `model.freeze_backbone`
    (augment). auto = what was best for heads on frozen photos: 4 below 8 labels a class, 2 below 16, else 0."""
    distribution_alignment: bool = False
    """Align the mean prediction over the pool with the class shares of the given labels."""
    targets: Literal["hard", "weighted", "soft"] = "hard"
    """What a pseudo-label teaches: its class; its class, as far as the confidence goes; or the probabilities."""
    leak_free_folds: bool | None = None
    """Whether the models of fold k learn only pseudo-labels from teachers that never saw the labels of fold k, so that
    out-of-fold scores stay honest in every round (augment). A round whose gain is within noise then ends the rounds.
    Costs about half as much again from the second round on. Default: where `min_precision` chooses cutoffs by
    out-of-fold scores."""
    audit_size: Annotated[int, Field(ge=0)] = 0
    """Draw this many labeled rows for a person to judge: the queue `audit` of review.html (denoise, joint). Once
    judged, they tell the noise rate, the precision of the flags and the error of the estimate. 0 = none."""
    train_baseline: bool = True
    """Also train the student's recipe and step budget without any change of labels, to compare with."""
