"""Every key of the configuration with its type, its default and what it means; `train` and `pseudo`:
training_keys.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from .training_keys import Pseudo, Train
from .types import Augmentation, Count, Name, Names, Seconds, Section, Share

VERSION = 3
"""Of the keys and of the run folder. Those before it had other names for both, and are refused."""
STUDENTS = ("student", "baseline")
"""The arms that are trained at the end, by one recipe."""


class Data(Section):
    train: str | None = None
    """Labeled set: a table (CSV or parquet), or a folder `<class>/<file>`. Rows with an empty label belong to the
    pool."""
    unlabeled: str | None = None
    """Unlabeled samples: a table, or a folder of any nesting."""
    val: str | None = None
    """Labeled samples used only to score."""
    trusted: str | None = None
    """Labeled samples checked by hand: never relabeled, never learned, used only to score."""
    test: str | None = None
    """Samples to predict; scored once at the end where they carry labels."""
    submission: str | None = None
    """sample_submission.csv: a run then ends with its submission.csv, for the rows of `data.test`."""
    image_dir: str | Names | None = None
    """Image file = image_dir / (id + suffix), or wherever below it an image has the name of the id. Several folders:
    `[a, b]`. Default: the folder of the table."""
    image_suffix: str = ""
    """Appended to the id of a row, for example `.jpg`. Where it is left out images are found by their name alone."""
    id_col: str | None = None
    """Default: the first of id, image_id, image, filename, path."""
    label_col: str | Names = "label"
    """Column with the class name; or the columns of a one-hot table, `[cat, dog]`: the one with a 1 names the class."""
    multi_label: bool = False
    """true = an image may have several classes, or none: each is a question of its own. Labels are names with
    `label_sep` between them, or one-hot columns with any number of ones (an empty cell: not known)."""
    label_sep: Annotated[str, Field(min_length=1)] = " "
    """What stands between the names of a multi-label. No class at all is written `(none)`."""
    group_col: str | None = None
    """Rows with the same group never straddle folds."""
    size: Annotated[int, Field(ge=8, le=4096)] | None = None
    """Side in pixels to which images are resized. Default: that of the images, at most 128."""
    channels: Literal[1, 3] | None = None
    """1 = grey, 3 = RGB. Default: 1 where the first images are all grey."""
    cache: str | None = None
    """Folder for decoded images, which later runs and other processes read in place of the files; built-in images are
    written there too. Default: images stay in memory, or in data/cache if they would take half of it."""
    allow_outside_files: bool = False
    """Whether images may lie outside of `image_dir`, or of the folder: by `..` or an absolute path in an id, or by a
    link. The folder that is named may itself be a link."""
    bad_images: Literal["refuse", "skip"] = "refuse"
    """What to do when an image cannot be read, or has more than 100 million pixels."""
    learn_from_test: Literal["never", "same_file", "copies"] = "same_file"
    """Whether images that are only scored may get a pseudo-label. same_file = a file that is in data.unlabeled and in
    data.test may; other copies of rows of val, trusted or test may not. copies = those may, too. never = a file in both
    is an error, for competitions that forbid learning from test images."""


class Simulate(Section):
    """For experiments only: labels are hidden or corrupted on purpose, and scored against the truth."""

    keep_labels: Count | None = None
    """Keep this many given labels (class-balanced) and move the other rows to the unlabeled images."""
    noise: Literal["symmetric", "pairflip", "matrix"] | list[list[Share]] | None = None
    """Corrupt given labels. symmetric = to any other class; pairflip = to the next class; matrix = by a random matrix;
    or a matrix T[true, given] of your own, in the order of the sorted class names."""
    noise_rate: Share = 0.1
    """Fraction of the labeled set that is flipped; a flipped label always differs from the true one. A matrix of your
    own has its own rates."""


class Model(Section):
    name: str = "test_resnet"
    """Any timm model. test_resnet is timm's 0.37 M parameter ResNet: right for small images on a CPU."""
    checkpoint: str | None = None
    """Pretrained weights: a .safetensors or .pth file. Default: random weights."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Passed to timm.create_model, for example {drop_rate: 0.2}. Pixels are normalized as the model
    was pretrained; {pretrained_cfg_overlay: {mean: [0.5], std: [0.5]}} changes that."""
    freeze_backbone: bool = False
    """Embed every image once with the pretrained network. All folds and rounds then learn linear heads on these
    embeddings, in seconds. Of `train`, only amp_dtype and device matter then. A student with another `student.name` is
    trained as a whole."""


class Student(Section):
    name: str | None = None
    """Any timm model, larger than the teachers' for a noisy student (Xie et al. 2020). Default: `model.name`."""
    checkpoint: str | None = None
    """Its pretrained weights; those of `model` where the name is the same."""
    augment: Augmentation | None = None
    """Its augmentation. Default: `train.augment`; a student of a large pool wants a milder one than teachers of a
    handful of labels."""


class Predict(Section):
    arm: Literal["student", "baseline", "both"] | None = None
    """Which network of a run of pseudo.py predicts: the student, the one that learned the given labels alone (folder
    `baseline`), or the mean of both. Default: the one whose accuracy is ahead beyond noise on the rows of `data.val`
    and `data.trusted`, both where neither is, the student where no such row is scored. Rows of `data.test` never
    choose. predict.py --arm outranks it."""
    tta: Count = 1
    """Views of a sample that scores and predictions average: the image itself, the others drawn from `augment`.
    predict.py --tta outranks it."""
    augment: Augmentation | None = None
    """Also of the views that judges average (pseudo.tta). Default: `train.augment`; milder views cost less of what is
    known."""


class Wandb(Section):
    mode: Literal["disabled", "offline", "online"] = "disabled"
    """offline writes into the run folder, for `wandb sync`; online needs a `wandb login` beforehand, never asks for
    one, and loses nothing where the server cannot be reached: metrics.jsonl has the same. The project is that of the
    environment variable WANDB_PROJECT, else pseudo-label."""


class Config(Section):
    version: Annotated[int, Field(ge=1)] = VERSION
    """Of this file and of the run folder in which it lies; any other is refused."""
    name: Name | None = None
    """Name of the run folder. Default: name of the config file and mode."""
    out: str = "runs"
    """Folder of the run folders."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seeds folds, weights, augmentation, data order, and what `simulate` hides or flips."""
    time_budget: Annotated[Seconds, Field(gt=0)] | None = None
    """For example 8.5h. Epochs, rounds and folds are planned against it after a short probe; no network is begun that
    would not end in time; scores, pages and the submission are written from what is finished, and the same command
    goes on."""
    metric: Literal["accuracy", "log_loss", "macro_f1", "auc", "map", "kappa", "top5"] | None = None
    """The score that counts. Rounds end where it falls beyond noise, out of fold (denoise and joint: on the labels that
    both rounds believe in, and accuracy for log_loss); for macro_f1 and kappa the answers of predict.py are tuned on
    out-of-fold rows. auc, map: the mean over the classes. kappa: quadratic, of classes that
    are numbers. Default: accuracy, and log_loss to end fold-safe rounds."""
    data: Data = Data()
    simulate: Simulate = Simulate()
    model: Model = Model()
    student: Student = Student()
    train: Train = Train()
    pseudo: Pseudo = Pseudo()
    predict: Predict = Predict()
    wandb: Wandb = Wandb()

    @field_validator("version")
    @classmethod
    def _is_known(cls, version: int) -> int:
        if version != VERSION:
            other = "newer" if version > VERSION else "older"
            raise ValueError(f"this kit reads version {VERSION}; use the {other} kit that wrote it, or start a new run")
        return version

    @model_validator(mode="after")
    def _rules_hold(self) -> Config:
        if self.predict.arm in ("baseline", "both") and not self.pseudo.train_baseline:
            raise ValueError(
                f"predict.arm={self.predict.arm} needs the baseline that pseudo.train_baseline=false leaves out; "
                "leave one of the two out"
            )
        if self.model.freeze_backbone:
            self._may_freeze()
        return self

    def _may_freeze(self) -> None:
        student = self.model_of("student").freeze_backbone
        faults = {
            "a network of random weights knows nothing; give model.checkpoint": not self.model.checkpoint,
            "each image is embedded once; leave pseudo.tta out": self.pseudo.tta > 1,
            "each image is embedded once; leave predict.tta out": student and self.predict.tta > 1,
            "a head has no strong view to learn; leave train.consistency_weight out": student
            and self.train.consistency_weight,
        }
        if said := [fault for fault, there in faults.items() if there]:
            raise ValueError(f"model.freeze_backbone=true: {said[0]}")

    def model_of(self, arm: str) -> Model:
        """The model of a teacher (`round_R/fold_F`), or that of `student` and `baseline`."""
        own = self.student
        if arm not in STUDENTS:
            return self.model
        base = self.model if own.name in (None, self.model.name) else Model(name=own.name)
        return base.model_copy(update={"checkpoint": own.checkpoint or base.checkpoint})

    @property
    def view(self) -> Augmentation:
        """What the further views of a prediction are drawn from."""
        return self.train.augment if self.predict.augment is None else self.predict.augment

    def train_of(self, arm: str) -> Train:
        """How a teacher is trained, or `student` and `baseline`."""
        own = self.student.augment if arm in STUDENTS else None
        return self.train if own is None else self.train.model_copy(update={"augment": own})
