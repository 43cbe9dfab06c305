"""--mode export: what a finished run came to, in the forms that other programs read."""

import os
import shutil
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from numpy import ndarray

from ..config.keys import EXPORT_FORMATS, Data
from ..config.load import with_changes
from ..config.types import UserError
from ..data.csv_text import read_csv
from ..data.dataset import Dataset, own_form
from ..data.edit_table import edit_table
from ..data.encoding import class_scores, has_label, labels_among, names, parse, separator
from ..data.find_images import IMAGE_SUFFIXES
from ..data.tables import PARQUET_SUFFIXES, read_cells, read_ids, read_labels
from ..labels.decide import REPAIRS
from ..report.sentences import listed
from ..self_training import SelfTrainingResult
from ..system.files import atomic_write, hash_of, log
from .corrections import with_corrections
from .folder import Run, read_status, run_classes, run_config, run_mode
from .reselect import judged_samples, recall_result

N_CHECKED_IMAGES = 16
"""At least so many, if there are, on which an ONNX file has to predict what the kit does."""
MIN_WEIGHT = 1e-30
"""A weight of 0 divides nothing."""


def export(path: Path, form: str, out: Path | None = None, copy: bool = False) -> Path:
    """Write what a finished run came to.

    Args:
        path: the run folder; nothing else in it is changed.
        form: one of EXPORT_FORMATS.
        out: file, or folder of images; default: in `export/` of the run.
        copy: images are copied, where links to them are the default.

    Returns:
        What was written.

    Raises:
        UserError: the run is not finished, does not have that form, or out would overwrite what is not ours.
    """
    if form not in EXPORT_FORMATS:
        raise UserError(f"--format {form} is none of {', '.join(EXPORT_FORMATS)}")
    if copy and form != "folder":
        raise UserError(f"--format {form} takes no --copy; leave it out")
    config = run_config(path)  # first: it says where there is no run
    run = Run(path, run_mode(path), config)
    status = read_status(path)
    is_decided = status["state"] == "done" or status["reason"] == "time_budget"
    if not is_decided or not (path / "labels.csv").is_file():
        raise UserError(f"--run {path} is not finished; run its last command again to go on")
    data = config.data
    names = {
        "table": Path(data.train or "").name,
        "folder": "folder",
        "soft": "pseudo_labels_soft" + (".parquet" if find_spec("pyarrow") else ".csv"),
        "onnx": "student.onnx",
    }
    out = out or path / "export" / names[form]
    inputs = [
        data.train,
        data.unlabeled,
        data.val,
        data.trusted,
        data.test,
        data.submission,
    ]
    there = filter(os.path.exists, filter(None, inputs))
    if out.exists() and any(map(out.samefile, there)):
        raise UserError(f"--out {out} is an input of this run; choose another place")
    if form == "folder":
        export_folder(run, out, copy)
    else:
        contents = {"table": table_content, "soft": soft_content, "onnx": onnx_content}
        atomic_write(out, contents[form](run, out))
    log.info(f"written: {out}")
    return out


def _read_labels(run: Run) -> pd.DataFrame:
    return read_csv(run.path / "labels.csv")


# ---- the user's table


def table_content(run: Run, out: Path) -> bytes:
    """data.train with the labels that the student learned; all other cells, rows and bytes are as they were.

    Of a softened label the likeliest class is written. Rows whose label was dropped are left out.

    Raises:
        UserError: the run learned from a folder or from votes, or the table is not the one that the run has read.
    """
    data = run.config.data
    source = Path(data.train or "")
    if data.labels_are != "one_hot" or not source.is_file():
        raise UserError(
            f"--format table: data.train={data.train} holds votes, or is no table here; go to the folder of that run, "
            f"or use --format folder or soft, or the columns id and label of {run.path / 'labels.csv'}"
        )
    classes = run_classes(run.path)
    table = read_cells(source)
    ids = read_ids(table, data, source)
    given = _given_labels(table, classes, data, source)
    _check_unchanged(run, ids, given)

    learned = _read_labels(run).set_index("id")
    label = learned.label.reindex(ids).set_axis(table.index)  # NaN: the run decided nothing
    is_left_out = label == ""
    is_changed = label.notna() & (label != given) & ~is_left_out
    cells = _cells_of(table[is_changed], label[is_changed], classes, data)
    table.update(pd.DataFrame(cells))
    log.info(
        f"{source}: {is_changed.sum():,} of {len(table):,} labels are written anew; {is_left_out.sum():,} rows whose "
        "label was dropped are left out"
    )
    not_here = (learned.source == "pseudo") & ~learned.index.isin(ids)
    if not_here.any():
        log.info(
            f"{not_here.sum():,} pseudo-labels of data.unlabeled={data.unlabeled} have no row here; see "
            f"{run.path / 'pseudo_labels.csv'}"
        )
    return edit_table(source, table[~is_left_out], out)


def _given_labels(table: pd.DataFrame, classes: list[str], data: Data, source: Path) -> pd.Series:
    """The labels of the table as this kit writes them."""
    labels = own_form(read_labels(table, data, "train", source)["label"], classes, data)
    labels = pd.Series(labels, table.index)
    if data.multi_label:
        is_known = labels.isin(labels_among(labels, classes, multi_label=True))
        labels[is_known] = names(parse(labels[is_known], classes, multi_label=True), classes)
    return labels


def _check_unchanged(run: Run, ids: pd.Series, given: pd.Series) -> None:
    """Refuse a table whose labels are no longer those that the run has read, or has changed on purpose (simulate)."""
    simulate = run.config.simulate
    if simulate.noise or simulate.keep_labels:
        return
    samples = judged_samples(run).set_index("id")
    before = samples.given_label.reindex(ids).set_axis(ids.index)
    is_skipped = before.isna()
    if run.config.data.bad_images != "skip":
        is_skipped &= given == ""
    differs = (before != given) & ~is_skipped
    if differs.any():
        raise UserError(
            f"data.train={run.config.data.train}: {ids[differs].iloc[0]} and {differs.sum() - 1:,} other rows do not "
            "have the label that this run has read; bring the table back"
        )


def _cells_of(
    table: pd.DataFrame, labels: pd.Series, classes: list[str], data: Data
) -> dict[str, pd.Series]:
    """The label columns of these rows with these labels, in the form of the table: names, label sets or one-hot."""
    if isinstance(data.label_col, str):
        if data.multi_label:
            sign = separator(classes)
            labels = labels.str.split(sign, regex=False).str.join(data.label_sep)
        return {data.label_col: labels}
    answers = parse(labels, classes, data.multi_label)
    if not data.multi_label:
        answers = np.eye(len(classes), dtype=int)[answers]
    columns = {}
    no_answer = "-1" if data.multi_label else "0"
    for name in data.label_col:
        old = pd.to_numeric(table[name].replace("", no_answer))
        new = np.zeros(len(table), int)
        if name in classes:
            new = answers[:, classes.index(name)]
        texts = np.array(["0", "1", ""], object)[new]
        columns[name] = table[name].where(old == new, texts)
    return columns


# ---- a folder of images


def export_folder(run: Run, out: Path, copy: bool) -> None:
    """`<class>/<image>` for every row that has a label now: links to the images, or copies.

    Raises:
        UserError: an image may have several classes, a class name is no folder name, an image is missing, or out is
            there already.
    """
    if run.config.data.multi_label:
        raise UserError("--format folder: an image of this run may have several classes; use table")
    if os.path.lexists(out):
        raise UserError(f"--out {out} is there already; remove it or choose another folder")
    rows = _read_labels(run).query("label != ''")
    _refuse_names(rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f"{out.name}.") as part:
        images = Path(part, "images")
        for name in rows.label.unique():
            (images / name).mkdir(parents=True)
        for label, path, name in zip(rows.label, rows.path, _file_names(rows), strict=True):
            place = images / label / name
            if copy:
                shutil.copy2(path, place)
            else:
                place.symlink_to(os.path.abspath(path))
        os.replace(images, out)
    log.info(f"{len(rows):,} images: {listed(rows.source.value_counts())}")
    if not copy:
        log.info("links lead out of it: read it here with data.allow_outside_files=true")


def _refuse_names(rows: pd.DataFrame) -> None:
    """Refuse classes and images that a reader of folders would not find."""
    for name in rows.label.unique():
        if name.startswith(".") or {"/", os.sep} & {*name}:
            raise UserError(f"--format folder: class {name!r} is no folder name; use table or soft")
    for path in rows.path:
        if not (os.path.isfile(path) and path.lower().endswith(IMAGE_SUFFIXES)):
            raise UserError(
                f"--format folder: {path} is not there, or has no suffix of an image; go to the folder in which the "
                "run was made, or use table or soft"
            )


def _file_names(rows: pd.DataFrame) -> list[str]:
    """The name of each image, with a hash of its id in front where several of a class, or hidden files, have it."""
    files = rows.path.map(os.path.basename)
    same = pd.DataFrame({"label": rows.label, "file": files.str.lower()})  # some disks ignore case
    needs_hash = same.duplicated(keep=False) | files.str.startswith(".")
    return list(files.where(~needs_hash, rows.id.map(hash_of) + "_" + files))


# ---- soft labels


def soft_content(run: Run, out: Path) -> bytes:
    """What every row of train and unlabeled teaches, from stored predictions; parquet, or CSV by the suffix of out.

    Columns id, path, source, weight and one p_<class> a class. The student learned p (a distribution; of label sets the
    probability of yes, NaN where the answer is unknown) with this weight. A row that it did not learn has the weight 0,
    and p is what the models say of it; NaN where they said nothing.

    Raises:
        UserError: labels.csv is not what the stored predictions come to, or they do not tell what was learned; or
            parquet needs a package that is missing.
    """
    data = run.config.data
    if data.weight_col or (data.labels_are != "one_hot" and run.mode not in REPAIRS):
        raise UserError(
            "--format soft: this run learned weights of rows, or soft given labels, which stored predictions do not "
            "tell; use --format folder or table"
        )
    dataset, result = recall_result(run)
    result = with_corrections(run, dataset, result)
    learned = _read_labels(run).set_index("id")
    label = pd.Series(names(result.label, dataset.classes), dataset.id)
    if not label[learned.index].equals(learned.label):
        raise UserError(
            f"{run.path / 'labels.csv'} does not know the human decisions; run the last command again"
        )
    weight, probs = _taught(result, dataset)
    table = pd.DataFrame(probs, columns=dataset.classes).add_prefix("p_")
    source = learned.source.reindex(dataset.id, fill_value="unlabeled").to_numpy()
    columns = {"id": dataset.id, "path": dataset.path, "source": source, "weight": weight}
    table = pd.concat([pd.DataFrame(columns), table], axis=1)
    buffer = BytesIO()
    if out.suffix.lower() not in PARQUET_SUFFIXES:
        table.to_csv(buffer, index=False, float_format="%.6g", lineterminator="\n")
    elif find_spec("pyarrow"):
        table.to_parquet(buffer, index=False)
    else:
        raise UserError(f"--out {out} needs a package: pip install pyarrow, or choose a .csv")
    return buffer.getvalue()


def _taught(result: SelfTrainingResult, dataset: Dataset) -> tuple[ndarray, ndarray]:
    """(N,) weights and (N, K) probabilities, see soft_content."""
    targets = result.targets(dataset)
    weight = has_label(result.label).astype(np.float32)
    if result.label.ndim == 2:
        probs = np.where(targets < 0, np.nan, targets).astype(np.float32)
    else:
        if targets.ndim == 1:
            targets = np.eye(len(dataset.classes), dtype=np.float32)[targets]
        weight *= targets.sum(1)
        probs = targets / np.maximum(weight, MIN_WEIGHT)[:, None]
    idle = np.flatnonzero(weight == 0)
    if result.decisions is None:
        probs[idle] = np.nan
    elif result.label.ndim == 2:
        probs[idle] = class_scores(np.exp(result.decisions.posterior.log_probs[idle]))
    else:
        probs[idle] = result.decisions.posterior(idle)
    return weight, probs


# ---- ONNX


def onnx_content(run: Run, out: Path) -> bytes:
    """The student as an ONNX model, see to_onnx, which has predicted images of the run as the kit does.

    Raises:
        UserError: there is no student, a package is missing, an image is gone, or predictions differ.
    """
    from ..data.images import load_images
    from ..training.models import load_models
    from ..training.onnx_export import to_onnx

    if not run.has_student():
        raise UserError(
            f"--run {run.path} has no student; run its command again to go on, or train one on --format table"
        )
    models = load_models([run.path / "student"])
    spec = models[0].spec
    changes = {
        "data.size": spec.size,
        "data.channels": spec.channels,
        "data.bad_images": "refuse",
        "data.cache": None,
    }
    paths = judged_samples(run).path.to_numpy(object)
    step = max(1, len(paths) // N_CHECKED_IMAGES)
    pixels, _ = load_images(paths[::step], with_changes(run.config, changes).data)
    return to_onnx(models, pixels)
