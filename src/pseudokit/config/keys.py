"""Every key of the configuration with its type, its default and what it means; `train` and `pseudo`:
training_keys.py."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, field_validator, model_validator

from .training_keys import Pseudo, Train
from .types import Augmentation, Bytes, Count, Folders, Name, Names, Seconds, Section, Share

VERSION = 3
"""Of the keys and of the run folder. Those before it had other names for both, and are refused."""
EXPORT_FORMATS = ("table", "folder", "soft", "onnx")
"""What --mode export writes, see run_folder/export.py."""
USES_UNLABELED = ("augment", "joint")
"""Modes in which unlabeled images may get a pseudo-label."""
STUDENTS = ("student", "baseline")
"""The models that are trained at the end by one recipe, and their folders."""


def member_folder(where: str, member: int) -> str:
    """The folder of one network of a council: `student`, then `student/model_2` and so on."""
    return f"{where}/model_{member + 1}" if member else where


def split_folder(where: str) -> tuple[str, int]:
    """What a network is trained for, and which member of a council it is: `student/model_2` → (`student`, 1)."""
    match = re.fullmatch(r"(.+)/model_(\d+)", where)
    return (match[1], int(match[2]) - 1) if match else (where, 0)


class Data(Section):
    train: str | None = None
    """Labeled images: a table (CSV or parquet), or a folder `<class>/<file>`. Rows with an empty label are unlabeled
    images. Default: the built-in digits (5,000 MNIST images that come with a package). `mnist` = all of MNIST,
    downloaded once."""
    unlabeled: str | None = None
    """Unlabeled images: a table, or a folder of any depth."""
    val: str | None = None
    """Labeled images used only to score."""
    trusted: str | None = None
    """Labels checked by hand: never changed, never learned, used only to score."""
    test: str | None = None
    """Images to predict. If they have labels, they are scored once at the end."""
    submission: str | None = None
    """sample_submission.csv. A run then ends with its submission.csv for the rows of `data.test`."""
    submission_positive: str | None = None
    """The class whose probability a single column of the submission holds. Default: the class that the column is named
    by (`cat`, `p_cat`, `is_cat`), else the positive one of two by its name (1, true, yes, not normal), else the one
    that sorts last. predict.py reads it in config.yaml of the run."""
    image_dir: Folders | None = None
    """Image file = image_dir / (id + suffix), or any image below that folder whose name is the id. Several folders:
    `[a, b]`. Folders of their own for some data sets, where ids repeat: `{train: a, test: b}`; the others have that of
    train. Default: the folder of the table."""
    image_suffix: str = ""
    """Appended to the id of a row, for example `.jpg`. If it is left out, images are found by their name."""
    id_col: str | None = None
    """Column of the id. Default: the first of id, image_id, image, filename, path."""
    label_col: str | Names = "label"
    """Column of the class name. Or several columns, `[cat, dog]`; `labels_are` says what they hold."""
    unlabeled_values: list[str] | None = None
    """What stands in label columns, or names a class folder, where there is no label: `[-1, unknown]`, in any case.
    Such names are refused as classes until this says what they are; `[]` = all of them are classes. An empty label
    always means none."""
    labels_are: Literal["one_hot", "votes", "counts", "probabilities"] = "one_hot"
    """What several columns hold. one_hot = a column for each class: the one with a 1 names it. votes = a column for
    each annotator: the class name, empty or -1 where there is no vote; how good each annotator is, is estimated (Dawid
    and Skene 1979). counts = a column for each class (`cat`, `votes_cat` or `cat_vote`): how many voted for it.
    probabilities = the same with shares that sum to 1. Uncertain labels are learned as probabilities. A row without any
    vote is unlabeled. A table of val, trusted or test without these columns may have a column `label`."""
    weight_col: str | None = None
    """Column of how much the label of a row counts: a number above 0, divided by the largest. Default: all alike."""
    multi_label: bool = False
    """true = an image may have several classes, or none, and each class is a yes-or-no question. Labels are names with
    `label_sep` between them, or one-hot columns (an empty cell: not known)."""
    label_sep: Annotated[str, Field(min_length=1)] = " "
    """Stands between the names of several labels. An image of no class is written `(none)`."""
    group_col: str | None = None
    """Rows with the same value stay in one fold: patients, scenes, videos."""
    size: Annotated[int, Field(ge=8, le=4096)] | None = None
    """Side in pixels to which images are resized. Default: that of the images, at most 128."""
    channels: Literal[1, 3] | None = None
    """1 = gray, 3 = RGB. Default: 1 if all images are gray."""
    cache: str | None = None
    """Folder for decoded images, which later runs and other processes read in place of the files; built-in images are
    written there too. Default: images stay in memory, or in data/cache if they would take more than `memory`."""
    memory: Annotated[Bytes, Field(gt=0)] | None = None
    """Most that decoded images may take of the memory. More of them lie in a file that is read as needed, with the same
    result. Default: half of the memory that is free."""
    allow_outside_files: bool = False
    """true = images may lie outside of `image_dir`, by `..`, an absolute path or a link. Only for tables that you
    trust."""
    bad_images: Literal["refuse", "skip"] = "refuse"
    """What to do with an image that cannot be read, is damaged inside, or has more than 100 million pixels."""
    learn_from_test: Literal["never", "same_file", "copies"] = "same_file"
    """Whether images that are only scored may get a pseudo-label. same_file = a file that is in data.unlabeled and in
    data.test may; other copies of rows of val, trusted or test may not. copies = those may, too, and data.test may name
    files of data.train. never = a file in both is an error, for competitions that forbid learning from test images."""


class Simulate(Section):
    """For experiments only: labels are hidden or corrupted on purpose, and scored against the truth."""

    keep_labels: Count | None = None
    """Keep this many given labels (class-balanced); the other rows become unlabeled images."""
    noise: Literal["symmetric", "pairflip"] | list[list[Share]] | None = None
    """Corrupt given labels. symmetric = to any other class; pairflip = to the next class; or a matrix
    T[true, given] of your own, in the order of the sorted class names."""
    noise_rate: Share = 0.1
    """Fraction of the labeled set that is flipped; a flipped label always differs from the true one. A matrix of your
    own has its own rates."""


class Model(Section):
    name: str | Names = "test_resnet"
    """Any timm model. test_resnet is timm's smallest ResNet (0.37 M parameters), right for small images on a CPU.
    Several are a council: `[a, b, c]`. Each predicts every fold, and the mean of their probabilities counts, by weights
    fitted out of fold. Student and baseline are councils too."""
    checkpoint: str | Names | None = None
    """Pretrained weights: a .safetensors or .pth file; `python -m pseudokit.weights NAME` writes one. Default: random
    weights. Of a council one file a model, in the
    order of the names: `[x, y, z]`."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Passed to timm.create_model, for example {drop_rate: 0.2}. Pixels are normalized as the model
    was pretrained; {pretrained_cfg_overlay: {mean: [0.5], std: [0.5]}} changes that."""
    freeze_backbone: bool = False
    """Embed every image once with the pretrained network. All folds and rounds then learn linear heads on these
    embeddings, in seconds. Of `train`, only amp_dtype and device matter then. A student with another `student.name` is
    trained as a whole."""

    @field_validator("name", "checkpoint")
    @classmethod
    def _one_is_no_list(cls, value: str | list[str] | None) -> str | list[str] | None:
        return value[0] if isinstance(value, list) and len(value) == 1 else value

    @model_validator(mode="after")
    def _has_a_file_each(self) -> Model:
        names, files = as_list(self.name), as_list(self.checkpoint)
        if self.checkpoint and len(names) != len(files):
            raise ValueError(
                f"checkpoint has {len(files)} files for {len(names)} models; give one for each name"
            )
        return self

    @property
    def members(self) -> list[Model]:
        """The single models of a council; of one that is no council itself."""
        names = as_list(self.name)
        files = as_list(self.checkpoint or [None] * len(names))
        return [
            self.model_copy(update={"name": name, "checkpoint": file})
            for name, file in zip(names, files, strict=True)
        ]


def as_list(value: Any) -> list:
    return value if isinstance(value, list) else [value]


class Student(Section):
    name: str | None = None
    """Another timm model for the student, larger than the teachers (Noisy Student). Default: `model.name`. With it a
    council teaches a single student, which is trained as a whole."""
    checkpoint: str | None = None
    """Pretrained weights of the student. Default: those of `model` if the name is the same."""
    augment: Augmentation | None = None
    """Augmentation of the student. Default: `train.augment`. A student with many images wants a milder one than
    teachers with a handful of labels."""


class Predict(Section):
    arm: Literal["student", "baseline", "both"] | None = None
    """Which model predicts after pseudo.py: the student, the baseline (which learned the given labels alone), or the
    mean of both. Default: the one that is better beyond noise on `data.val` and `data.trusted`; both if neither is; the
    student if no such row is scored. Rows of `data.test` never choose. predict.py --arm outranks it."""
    tta: Count = 1
    """Views of an image that scores and predictions average: the image itself, and others drawn from `augment`.
    predict.py --tta outranks it."""
    augment: Augmentation | None = None
    """Augmentation of these views, and of those that teachers average (pseudo.tta). Default: `train.augment`. Milder
    views are better where training needs strong ones."""


def _split_commas(value: Any) -> Any:
    """`a,b` → [a, b]; a number alone is a list of one."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return [value] if isinstance(value, int | float) else value


Files = Annotated[Names, BeforeValidator(_split_commas)]
Weights = Annotated[
    list[Annotated[float, Field(ge=0)]], Field(min_length=1), BeforeValidator(_split_commas)
]


FIT = "fit"
"""In place of numbers: the weights are fitted."""


class Predictions(Section):
    """Probabilities that other people's models predict, as files: one row an image, one column a class."""

    labeled: Files | None = None
    """Out-of-fold probabilities of the labeled rows, in place of teachers: `oof.csv`, `.parquet` or `.npy`. Columns:
    id, and each class by its name or as p_<class>; of several labels an image the probability of yes. Rows are matched
    by id. Mode denoise then trains nothing and reads no image. Modes augment and joint need `predictions.unlabeled`
    too, and train the student alone. Several files, `a.csv,b.csv`, are averaged where they have the same row. Give what
    the models said, not calibrated: the run calibrates. Log-probabilities are recognized. Of a run, give
    `oof_log_probs.npy` in its folder, with ids from oof.csv: it is calibrated already, and known for that."""
    unlabeled: Files | None = None
    """Probabilities of the unlabeled rows by other teachers (augment, joint); each file has all of them. In every round
    the mean of these files and of the kit's own teachers counts. Labeled rows of a file are left out, unless
    `predictions.fold_col` proves that they are held out."""
    weights: Literal["fit"] | Weights | None = None
    """A number above 0 for each of the files, `2,1`. One more is that of the kit's own teachers together: 1 if it is
    left out; 0 = they do not count where the files do. fit = those that minimize the log loss of the mean on labeled
    rows that all files predict, held out; metrics.json has them. With both keys the files must be of the same teachers,
    in the same order. Default: all alike."""
    ids: Files | None = None
    """Which row of a .npy is which id: a .txt of one id a line, or a table with the column of ids. One file for every
    .npy, or one for each, first those of `predictions.labeled`. The columns of a .npy are the sorted classes."""
    fold_col: str | None = None
    """Column that names the fold of each row: the model that predicted it learned the other folds. It stands in the
    files, or in those of `predictions.ids`; in those of `predictions.unlabeled` where they have it, empty for unlabeled
    rows. Folds of `predictions.labeled` are calibrated one by one, and it is checked that groups and copies do not
    straddle them."""


class Wandb(Section):
    mode: Literal["disabled", "offline", "online"] = "disabled"
    """offline = write into the run folder, for `wandb sync` later. online = send; run `wandb login` first. Nothing is
    lost if the server cannot be reached: metrics.jsonl has the same. The environment variable WANDB_PROJECT names the
    project (default pseudo-label)."""


class Config(Section):
    version: Annotated[int, Field(ge=1)] = VERSION
    """Of this file and of the run folder in which it lies; any other is refused."""
    name: Name | None = None
    """Name of the run folder. Default: name of the config file and mode."""
    out: str = "runs"
    """Folder of the run folders."""
    seed: NonNegativeInt = 0
    """Seeds folds, weights, augmentation, data order, and what `simulate` hides or flips."""
    time_budget: Annotated[Seconds, Field(gt=0)] | None = None
    """Time that the run may take, for example 8.5h. After a short probe, epochs, rounds and folds are planned to fit.
    No network is started that would not end in time. What is finished is scored and reported, and the same command goes
    on."""
    tensorboard: bool = False
    """true = loss, learning rate and accuracy on data.val of every network that is trained as a whole, while it trains:
    `tensorboard --logdir runs/NAME/tensorboard`. It needs the package: `pip install tensorboard`."""
    metric: Literal["accuracy", "log_loss", "macro_f1", "auc", "map", "kappa", "top5"] | None = None
    """The score that counts. Rounds end when it falls beyond noise, out of fold. For macro_f1 and kappa the answers are
    tuned on out-of-fold rows. auc, map: the mean over the classes. kappa: quadratic, for classes that are numbers.
    Default: accuracy (log_loss decides when leak-free rounds end)."""
    teachers: Files | None = None
    """Folders of finished runs, `[runs/a, runs/b]`, whose fold models judge beside those of this run. They have
    the same classes; their images may be of another size. No row is judged by a model that learned a label for it, or
    for a copy of it. Weights are fitted out of fold, as in a council (`model.name`); metrics.json has them."""
    data: Data = Data()
    simulate: Simulate = Simulate()
    model: Model = Model()
    student: Student = Student()
    train: Train = Train()
    pseudo: Pseudo = Pseudo()
    predict: Predict = Predict()
    predictions: Predictions = Predictions()
    wandb: Wandb = Wandb()

    @field_validator("version")
    @classmethod
    def _is_known(cls, version: int) -> int:
        if version != VERSION:
            raise ValueError(
                f"this kit reads version {VERSION}; use the kit that wrote it, or start a new run"
            )
        return version

    @model_validator(mode="after")
    def _rules_hold(self) -> Config:
        model, pseudo, multi_label = self.model, self.pseudo, self.data.multi_label
        consistency = self.train.consistency_weight
        students = self.models_of("student")
        frozen_student = students[0].freeze_backbone
        needs_baseline = self.predict.arm in ("baseline", "both")
        frozen = "model.freeze_backbone=true"
        votes = self.data.labels_are != "one_hot"
        one_class = "is for one class an image, and data.multi_label=true; leave it out"
        faults = {
            f"predict.arm={self.predict.arm} needs the baseline that pseudo.train_baseline=false leaves out; "
            "leave one of the two out": needs_baseline and not pseudo.train_baseline,
            f"{frozen}: a network of random weights knows nothing; give model.checkpoint (python -m pseudokit.weights "
            f"{model.name} writes one)": (model.freeze_backbone and not model.checkpoint),
            f"{frozen}: each image is embedded once; leave pseudo.tta out": (
                model.freeze_backbone and pseudo.tta > 1
            ),
            f"{frozen}: each image is embedded once; leave predict.tta out": (
                frozen_student and self.predict.tta > 1
            ),
            f"{frozen}: a head has no strong view to learn; leave train.consistency_weight out": (
                frozen_student and consistency
            ),
            f"{frozen}: a head is fitted by cross-entropy; leave train.loss out": (
                frozen_student and self.train.loss != "cross_entropy"
            ),
            "student.checkpoint is one file for several students (model.name); give student.name too": (
                len(students) > 1 and self.student.checkpoint
            ),
            "pseudo.power and pseudo.trim shape soft pseudo-labels; set pseudo.targets=soft, or leave them out": (
                pseudo.targets != "soft" and (pseudo.power != 1 or pseudo.trim > 0)
            ),
            "train.accumulate is more than train.batch_size, the number of images; lower it": (
                self.train.accumulate > self.train.batch_size
            ),
            "train.unlabeled_per_batch needs train.batch_size=2 or more; raise it, or leave one of the two out": (
                self.train.unlabeled_per_batch is not None and self.train.batch_size < 2
            ),
            f"pseudo.label_propagation {one_class}": multi_label and pseudo.label_propagation,
            f"train.consistency_weight {one_class}": multi_label and consistency,
            f"data.labels_are={self.data.labels_are} {one_class}": multi_label and votes,
            f"data.weight_col {one_class}": multi_label and self.data.weight_col,
            "simulate hides and flips plain labels: leave it out, or data.labels_are and data.weight_col": (
                (votes or self.data.weight_col)
                and (self.simulate.keep_labels or self.simulate.noise)
            ),
        }
        for fault, is_there in faults.items():
            if is_there:
                raise ValueError(fault)
        return self

    def models_of(self, arm: str) -> list[Model]:
        """The models of a teacher (`round_R/fold_F`), or those of `student` and `baseline`: several in a council."""
        models = self.model.members
        name, checkpoint = self.student.name, self.student.checkpoint
        if arm in STUDENTS and name:
            models = models if name == self.model.name else [Model(name=name)]
        if arm in STUDENTS and checkpoint:
            models = [model.model_copy(update={"checkpoint": checkpoint}) for model in models]
        return models

    def model_of(self, where: str) -> Model:
        """The model that is trained in this folder."""
        arm, member = split_folder(where)
        return self.models_of(arm)[member]

    @property
    def view(self) -> Augmentation:
        """What the further views of a prediction are drawn from."""
        return self.train.augment if self.predict.augment is None else self.predict.augment

    def train_of(self, where: str) -> Train:
        """How a teacher is trained, or `student` and `baseline`."""
        augment = self.student.augment
        arm, _ = split_folder(where)
        if arm not in STUDENTS or augment is None:
            return self.train
        return self.train.model_copy(update={"augment": augment})
