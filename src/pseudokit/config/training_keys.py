"""The sections `train` and `pseudo` of the configuration: how networks are trained, and how rows are decided."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from .types import Augmentation, Count, PositiveShare, Seconds, Section, Share, ShareBelowOne


class Train(Section):
    epochs: PositiveFloat = 6
    """Passes over the rows that are learned."""
    min_steps: NonNegativeInt = 0
    """Least number of steps. A handful of labels needs hundreds of steps, however few rows there are."""
    batch_size: Count = 128
    """Images in a step."""
    accumulate: Count = 1
    """Parts in which a batch is worked through one after the other, to save memory. The result is that of the whole
    batch up to rounding; but batch norms take mean and variance from each part. Where a GPU runs out of memory, the
    parts are halved until they fit."""
    lr: PositiveFloat = 6e-3
    """Peak learning rate."""
    schedule: Literal["onecycle", "cosine", "constant"] = "onecycle"
    """How the learning rate moves after it has risen during a quarter of the steps: falls to zero (onecycle, cosine),
    or stays."""
    optimizer: str = "adamw"
    """Any timm optimizer."""
    weight_decay: NonNegativeFloat = 0.05
    """Pull of the weights toward zero."""
    layer_decay: PositiveShare = 1.0
    """Learning rate of a layer relative to the layer above it. Below 1 the lower layers of a pretrained model change
    less."""
    linear_probe_first: bool = False
    """Start a pretrained model with the best linear head on its backbone, which takes seconds, and not with a random
    head (LP-FT)."""
    ema_decay: ShareBelowOne = 0.0
    """Decay of an exponential moving average of the weights, which is then kept. 0 = keep the last weights."""
    label_smoothing: ShareBelowOne = 0.0
    """Share of each label that is spread over all classes."""
    clip_grad: PositiveFloat | None = None
    """Largest gradient norm. Empty = no limit."""
    loss: str = "cross_entropy"
    """What training minimizes: cross_entropy; balanced_cross_entropy = with weights inverse to the class counts, for
    rare classes; or a loss that you added to training/losses.py."""
    augment: Augmentation = "auto"
    """How images are varied. For small images, whole batches at once: gentle, affine, elastic, cutout, strong; written
    = the strongest, also with thicker and thinner strokes, for a handful of drawn or written images. By albumentations:
    small, photo, and gentle or strong above 64 px. auto = affine up to 64 px, photo above. Or a list such as [{Affine:
    {rotate: [-10, 10], p: 1.0}}]."""
    mixup: NonNegativeFloat = 0.0
    """Alpha of mixup: each image is mixed with another of its batch, and so are their labels. With `cutmix`, each batch
    draws one of the two."""
    cutmix: NonNegativeFloat = 0.0
    """Alpha of cutmix: a patch of each image comes from another one, which adds its share to the label."""
    unlabeled_per_batch: PositiveFloat | None = None
    """Pseudo-labeled images for each labeled one in every batch: 3 = a quarter of each batch has given labels. Use it
    where a few given labels would drown among many pseudo-labels. It is rounded to whole images, at least one of each.
    Default: as they come."""
    consistency_weight: NonNegativeFloat = 0.0
    """Weight of the consistency term (FixMatch): the student learns to answer the same for a weak and a strong view of
    unlabeled images without a pseudo-label. 0 = off. It needs small batches and many steps. With
    `pseudo.label_propagation` the teachers share in that answer: they are better than the student at first."""
    unlabeled_ratio: PositiveFloat = 4.0
    """Unlabeled images a step for that term, as a multiple of `batch_size`."""
    strong_augment: Augmentation = "strong"
    """The view of that term that learns the answer. The answer comes from the `gentle` view."""
    amp_dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number type of the computation. auto = bf16 where the hardware has it, fp16 on older GPUs, otherwise fp32. On a
    CPU also fp32 for MobileNet, EfficientNet and the like, which bf16 slows down."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """What trains and predicts. auto = a GPU where there is one."""
    compile: bool = False
    """true = compile the training step by torch.compile. It takes about a minute for each kind of network, once a
    process. For long trainings on a GPU; on a CPU it does not pay."""
    num_workers: NonNegativeInt | None = None
    """Processes that augment photos ahead of time. The images do not depend on their number. Default: 0 on a CPU; for a
    GPU one less than the cores, at most 8. Small images are augmented as whole batches on the device."""
    checkpoint_every: Annotated[Seconds, Field(ge=0)] = 5
    """Seconds between two checkpoints of a network in training; more if writing one takes over 2 % of that time. 0 =
    after every step. The result does not depend on it."""


class Pseudo(Section):
    rounds: NonNegativeInt = 2
    """Rounds of: train teachers, decide, take the new labels. 0 = plain supervised training."""
    folds: Annotated[int, Field(ge=2)] = 2
    """Teachers a round. Each predicts the fold whose labels it did not learn. Use 5 with fewer than a few hundred
    labels."""
    tta: Count = 1
    """Views of an image that a teacher averages: the image itself, and others drawn from predict.augment."""
    relabel_precision: PositiveShare = 0.99
    """A given label is changed while at least this share of the changes of its class is estimated to be right."""
    uncertain_labels: Literal["keep", "drop", "review", "downweight", "soften"] | None = None
    """What to do with a given label that is probably wrong but has no confident replacement. soften = learn the
    probabilities of the classes; downweight = learn it with the probability that it is right as weight; review = learn
    it, and list it for you; drop = do not learn it. Default: soften. downweight if the wrong labels lie on images that
    models cannot tell apart (`noise_type` in round.json) and the models are not certain, or if noise is by class but
    next to nothing can be relabeled. drop in joint mode. review if there is hardly any noise, or with
    `relabel_cutoff`."""
    relabel_cutoff: NonNegativeFloat | None = None
    """Change a given label by the plain confidence of the models, from this value on, as in the article. It replaces
    the noise model and `relabel_precision`. Above 1 no label changes."""
    cutoff: Annotated[NonNegativeFloat | str | None, Field(union_mode="left_to_right")] = None
    """An unlabeled image gets a pseudo-label from this confidence on. Above 1 none does. Default: 0.95. adaptive = each
    class has its own, which follows the mean confidence and how likely the class is (FreeMatch). With `min_precision`
    it is the lowest cutoff that may be chosen."""
    min_precision: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Choose the cutoff of each class by out-of-fold rows: the lowest one whose precision is at least this with 95 %
    confidence. Below about 300 labels this bound is loose; prefer `top_fraction`."""
    top_fraction: PositiveShare | None = None
    """Keep at most this share of the images that are predicted as a class, the most confident first. The share grows in
    equal steps over the rounds (Curriculum Labeling). It does not assume that the unlabeled images have the class
    shares of the labels."""
    top_fraction_start: Share = 0.0
    """Least share in any round. Raise it where the first teachers are good already: small steps then teach only what is
    easy."""
    label_propagation: NonNegativeFloat | Literal["auto"] = 0.0
    """How much labels propagated over a graph of similar images count, as a power: 0 = not, 2 = twice as much as the
    teacher. For a handful of labels and small images, or with `model.freeze_backbone` (mode augment). auto = what was
    best for frozen photos: 4 below 8 labels a class, 2 below 16, otherwise 0."""
    distribution_alignment: bool = False
    """Scale the mean prediction of the unlabeled images to the class shares of the given labels (ReMixMatch). Only if
    the unlabeled images do have these shares."""
    targets: Literal["hard", "weighted", "soft"] = "hard"
    """What a pseudo-label teaches: hard = its class; weighted = its class, with the confidence as weight; soft = the
    probabilities. With `pseudo.cutoff=0` every unlabeled image teaches its probabilities."""
    power: PositiveFloat = 1.0
    """Exponent of the probabilities that soft pseudo-labels teach, the inverse of a temperature: 2 = sharper, 0.5 =
    flatter, 1 = as they are."""
    trim: ShareBelowOne = 0.0
    """Probabilities of soft pseudo-labels below it become 0, after `power`; the others are scaled to 1. The likeliest
    class always stays."""
    leak_free_folds: bool | None = None
    """Keep out-of-fold scores honest over several rounds: the models of fold k learn pseudo-labels only from teachers
    that never saw the labels of fold k (mode augment). Costs about half as much again from the second round on.
    Default: on with `min_precision`, which chooses by these scores."""
    audit_size: NonNegativeInt = 0
    """Draw this many labeled rows for a person to judge, in the queue `audit` of review.html (denoise, joint). Once
    judged, they tell the noise rate and the precision of the flags with intervals. 0 = none."""
    train_baseline: bool = True
    """Also train the student's recipe and number of steps on the given labels alone, to see what the changed labels
    were worth."""
