"""Every key of the configuration with its type, its default and what it means."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .values import Augmentation, Count, Name, Seconds, Section, Share

STUDENTS = ("student", "control")
"""The arms that are trained at the end, by one recipe."""


class Data(Section):
    train: str | None = None
    """Labelled set: a table (CSV or parquet), or a folder `<class>/<file>`. Rows with an empty label belong to the
    pool."""
    pool: str | None = None
    """Unlabelled samples: a table, or a folder of any nesting."""
    valid: str | None = None
    """Labelled samples used only to score."""
    trusted: str | None = None
    """Labelled samples checked by hand: never relabelled, never learned, used only to score."""
    test: str | None = None
    """Samples to predict; scored once at the end where they carry labels."""
    submission: str | None = None
    """sample_submission.csv: a run then ends with its submission.csv, for the rows of `data.test`."""
    builtin: Literal["digits", "mnist"] = "digits"
    """What is used when no `data.train` is given: 5,000 digits that a package ships, or MNIST by download."""
    root: str = "data"
    """Where a built-in set is written as images."""
    image_dir: str | list[str] | None = None
    """Image file = image_dir / (id + suffix), or wherever below it an image has the name of the id. Several folders:
    `[a, b]`. Default: the folder of the table."""
    suffix: str = ""
    """Appended to the id of a row, for example `.jpg`. Where it is left out images are found by their name alone."""
    id_col: str | None = None
    """Default: the first of id, image_id, image, filename, path."""
    label_col: str | list[str] = "label"
    """Column with the class name; or the columns of a one-hot table, `[cat, dog]`: the one with a 1 names the class."""
    group_col: str | None = None
    """Rows with the same group never straddle folds."""
    size: Annotated[int, Field(ge=8, le=4096)] | None = None
    """Side in pixels to which images are resized. Default: that of the images, at most 128."""
    channels: Literal[1, 3] | None = None
    """1 = grey, 3 = RGB. Default: 1 where the first images are all grey."""
    cache: str | None = None
    """Folder of decoded images, which later runs and other processes read in place of the files. Default: memory; above
    half of what is free, `root`/cache."""
    on_bad_image: Literal["refuse", "skip"] = "refuse"
    """What to do when an image cannot be read."""
    overlap: Literal["refuse", "allow"] = "refuse"
    """Whether a pool row that is a copy of a row in valid, trusted or test may receive a pseudo-label. The same file in
    data.pool and data.test (pool = test set) always may."""


class Rules(Section):
    pool_may_include_test: bool = True
    """false where a competition forbids to learn from its test images: then a pool row that is the file of a test row
    is an error, and one that is a copy of a test row never receives a pseudo-label."""


class Hide(Section):
    keep: Count | None = None
    """For experiments: keep this many given labels (class-balanced) and move the others to the pool."""
    seed: int = 0
    """Which labels are kept."""


class Inject(Section):
    kind: Literal["uniform", "pair", "matrix"] | None = None
    """For experiments: corrupt given labels on purpose. pair = to the next class; matrix = class-dependent."""
    rate: Share = 0.1
    """Share of the labelled set that is flipped; a flipped label always differs from the true one."""
    seed: int = 0
    """Which labels are flipped, and to what."""
    matrix: list[list[Share]] | None = None
    """T[true, given] for kind=matrix, in the order of the sorted class names; default: a random one at `rate`."""


class Model(Section):
    name: str = "test_resnet"
    """Any timm model. test_resnet is timm's 0.37 M parameter ResNet: right for small images on a CPU."""
    weights: str | None = None
    """Pretrained weights: a .safetensors or .pth file. Default: random weights."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Passed to timm.create_model, for example {drop_rate: 0.2, drop_path_rate: 0.1}."""
    freeze: bool = False
    """Embed every image once with the pretrained network; all folds and rounds learn linear heads on that, in seconds.
    The keys of `train` then say nothing but precision and device."""


class Student(Section):
    name: str | None = None
    """Any timm model, larger than the teachers' for a noisy student (Xie et al. 2020). Default: `model.name`."""
    weights: str | None = None
    """Its pretrained weights; those of `model` where the name is the same."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Added to model.kwargs where the name is the same: {drop_path_rate: 0.1} makes the student alone noisy."""
    freeze: bool | None = None
    """false = trained as a whole, on labels that come from frozen teachers. Default: as they are."""
    augment: Augmentation | None = None
    """Its augmentation. Default: `train.augment`; a student of a large pool wants a milder one than teachers of a
    handful of labels."""


class Train(Section):
    epochs: Annotated[float, Field(gt=0)] = 6
    """Passes over the rows that are learned."""
    min_steps: Annotated[int, Field(ge=0)] = 0
    """A floor under the number of steps, so that a handful of labels is learned long enough."""
    batch_size: Count = 128
    lr: Annotated[float, Field(gt=0)] = 6e-3
    """Peak learning rate."""
    schedule: Literal["onecycle", "cosine", "constant"] = "onecycle"
    warmup: Share = 0.25
    """Share of the steps in which the learning rate rises."""
    optimizer: str = "adamw"
    """Any timm optimizer."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rate of each layer relative to the one above it; < 1 spares a pretrained body."""
    head_first: bool = False
    """Begin with the best head on the pretrained body as it is, in seconds, and not with a random one."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
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
    labelled_share: Share = 0.0
    """Least share of every batch that given labels have; the others are pseudo-labels. 0 = as they come."""
    cooldown: Share = 0.0
    """Share of the steps, the last ones, in which given labels alone are learned."""
    consistency: Annotated[float, Field(ge=0)] = 0.0
    """Weight of a term of the student that wants the same answer for a `weak` and a `strong` view of the pool images
    that have no pseudo-label; 0 = off. Wants small batches and many steps."""
    consistency_prior: Share = 0.0
    """How much the held-out judges have a say in that answer: 0 = none, 1 = as much as the student. Good ones, of
    thousands of labels or with `pseudo.graph`, keep it from confirming its own mistakes; others hand on theirs."""
    consistency_ratio: Annotated[float, Field(gt=0)] = 4.0
    """Pool images a step of that term, as a multiple of `batch_size`."""
    weak: Augmentation = "gentle"
    """The view of that term that is answered."""
    strong: Augmentation = "strong"
    """The view of that term that learns the answer."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto = bf16 where the hardware computes it, fp16 on older GPUs, otherwise fp32; on a CPU fp32 too for
    MobileNet, EfficientNet and the like, which lose time by bf16."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that augment photos ahead of time; what they make does not depend on their number. Default: 0 on the
    CPU, for a GPU one less than the cores, at most 8. Small images are augmented as whole batches, by the device."""


class Pseudo(Section):
    rounds: Annotated[int, Field(ge=0)] = 2
    """Rounds of teacher → decisions → new labels; 0 = plain supervised training."""
    folds: Annotated[int, Field(ge=2)] = 2
    """Models a round; each judges the fold that it did not learn."""
    views: Annotated[int, Field(ge=1)] = 1
    """Views of a sample that a judge averages: the image itself, the others drawn from predict.augment."""
    policy: Literal["posterior", "cutoff"] = "posterior"
    """How given labels are judged: by the noise-corrected posterior, or by the plain confidence of the article."""
    precision: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Labels are changed where the estimated precision of the changes reaches this, class by class; see `cutoff`."""
    doubtful: Literal["keep", "drop", "review", "downweight", "soften"] | None = None
    """What becomes of a given label that is neither certainly right nor replaced. soften = learn the probabilities of
    its classes; downweight = learn it as far as it may be right; review = learn it, and list it for your eyes.
    Default: soften where the noise is of the class, drop where it lies on look-alikes (see noise_type in round.json)
    and in joint mode, where a suspect never teaches; review where there is hardly any, or where a `cutoff` decides."""
    cutoff: Annotated[float, Field(ge=0)] | None = None
    """Lowest confidence that decides, in place of `precision`; above 1 changes no label. Default: none for the
    posterior, 0.9 for policy=cutoff, 0.95 on the pool."""
    pool_cutoff: Annotated[float, Field(ge=0)] | None = None
    """Lowest confidence that gives a pool sample a pseudo-label, where it should differ from `cutoff`."""
    pool_precision: Annotated[float, Field(gt=0, lt=1)] | None = None
    """In place of a cutoff on the pool: for each class the lowest one at which the out-of-fold precision is at least
    this with 95 % confidence. Few labels bound it loosely."""
    pool_agreement: Share = 0.0
    """Least share of the judges (folds, rounds) that predict the class of a pseudo-label."""
    pool_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """A curriculum: of the rows that are predicted as a class at most this share, the surest, reached in equal steps
    over the rounds. Assumes nothing about how many rows of a class the pool has."""
    pool_share_from: Share = 0.0
    """No round takes a smaller share: where the first judges are good already, small steps teach only what is easy."""
    pool_floor: Share = 0.0
    """A class below this share of its expected rows receives its surest ones from below the cutoff."""
    pool_quota: Annotated[float, Field(gt=0)] | None = None
    """Most rows of a class, as a multiple of its share of the given labels."""
    graph: Annotated[float, Field(ge=0)] = 0.0
    """How much the labels of the images that look most alike count beside a judge's own answer, as a power: 0 = not,
    2 = twice as much as a judge. For a handful of labels and small images, or any with `model.freeze` (augment)."""
    pool_align: bool = False
    """Align the mean prediction over the pool with the class shares of the given labels."""
    pool_targets: Literal["hard", "weighted", "soft"] = "hard"
    """What a pseudo-label teaches: its class; its class, as far as the confidence goes; or the probabilities."""
    pool_temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of soft pseudo-labels; below 1 they are sharper."""
    pool_calibrate: bool = False
    """Fit one temperature on the out-of-fold predictions of the labelled rows before the pool is decided (augment)."""
    fold_safe: bool | None = None
    """Whether the models of fold k learn only pseudo-labels from teachers that never saw the labels of fold k, so that
    out-of-fold scores stay honest in every round (augment). A round whose gain is within noise then ends the rounds.
    Costs about half as much again from the second round on. Default: where `pool_precision` or `pool_calibrate` choose
    by out-of-fold scores."""
    min_change: Share = 0.0005
    """Stop with `no_change` when a smaller share of the labels changed."""
    audit: Annotated[int, Field(ge=0)] = 0
    """Draw this many labelled rows for a person to judge: the queue `audit` of review.html (denoise, joint). Once
    judged, they tell the noise rate, the precision of the flags and the error of the estimate. 0 = none."""
    control: bool = True
    """Also train the student's recipe and step budget without any change of labels, to compare with."""


class Predict(Section):
    views: Count = 1
    """Views of a sample that scores and predictions average: the image itself, the others drawn from `augment`.
    predict.py --tta outranks it."""
    augment: Augmentation | None = None
    """Also of the views that judges average (pseudo.views). Default: `train.augment`; milder views cost less of what is
    known."""


class Wandb(Section):
    mode: Literal["disabled", "offline", "online"] = "disabled"
    """offline writes into the run folder, for `wandb sync`; online needs a `wandb login` beforehand, never asks for
    one, and loses nothing where the server cannot be reached: metrics.jsonl has the same."""
    project: str = "pseudo-label"


class Config(Section):
    name: Name | None = None
    """Name of the run folder. Default: name of the config file and mode."""
    out: str = "runs"
    """Folder of the run folders."""
    seed: int = 0
    """Seeds folds, weights, augmentation and data order."""
    time_budget: Annotated[Seconds, Field(gt=0)] | None = None
    """For example 8.5h. Epochs, rounds and folds are planned against it after a short probe; no network is begun that
    would not end in time; scores, pages and the submission are written from what is finished, and the same command
    goes on."""
    goal: Literal["accuracy", "log_loss", "macro_f1", "auc", "map", "kappa", "top5"] | None = None
    """The score that counts. Rounds end where it falls beyond noise, out of fold; for macro_f1 and kappa the answers of
    predict.py are tuned on out-of-fold rows. auc, map: the mean over the classes. kappa: quadratic, of classes that
    are numbers. Default: accuracy, and log_loss to end fold-safe rounds."""
    data: Data = Data()
    rules: Rules = Rules()
    hide: Hide = Hide()
    inject: Inject = Inject()
    model: Model = Model()
    student: Student = Student()
    train: Train = Train()
    pseudo: Pseudo = Pseudo()
    predict: Predict = Predict()
    wandb: Wandb = Wandb()

    @model_validator(mode="after")
    def _rules_hold(self) -> Config:
        if self.data.overlap == "allow" and not self.rules.pool_may_include_test:
            raise ValueError("data.overlap=allow lets copies of test rows teach, which "
                             "rules.pool_may_include_test=false forbids; leave one of the two out")  # fmt: skip
        if self.model.freeze:
            self._may_freeze()
        return self

    def _may_freeze(self) -> None:
        student = self.model_of("student").freeze
        faults = {
            "a network of random weights knows nothing; give model.weights": not self.model.weights,
            "each image is embedded once; leave pseudo.views out": self.pseudo.views > 1,
            "each image is embedded once; leave predict.views out": student and self.predict.views > 1,
            "a head has no strong view to learn; leave train.consistency out": student and self.train.consistency,
        }
        if said := [fault for fault, there in faults.items() if there]:
            raise ValueError(f"model.freeze=true: {said[0]}")

    def model_of(self, arm: str) -> Model:
        """The model of a teacher (`round_R/fold_F`), or that of `student` and `control`."""
        own = self.student
        if arm not in STUDENTS:
            return self.model
        base = self.model if own.name in (None, self.model.name) else Model(name=own.name)
        freeze = base.freeze if own.freeze is None else own.freeze
        return base.model_copy(
            update={"weights": own.weights or base.weights, "kwargs": base.kwargs | own.kwargs, "freeze": freeze}
        )

    @property
    def view(self) -> Augmentation:
        """What the further views of a prediction are drawn from."""
        return self.train.augment if self.predict.augment is None else self.predict.augment

    def train_of(self, arm: str) -> Train:
        """How a teacher is trained, or `student` and `control`."""
        own = self.student.augment if arm in STUDENTS else None
        return self.train if own is None else self.train.model_copy(update={"augment": own})
