"""Predictions as a competition wants them: in the columns and the row order of its sample_submission.csv."""

import re
from collections.abc import Sequence
from itertools import product
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd
from numpy import ndarray

from ..config.keys import Config
from ..config.types import UserError
from ..data.csv_text import read_csv
from ..data.dataset import Dataset
from ..data.encoding import class_scores, label_scores, names, parse, separator
from ..data.spelling import TRUTH, WHOLE_NUMBER, plain_form, respell
from ..labels.metrics import OF_ANSWERS
from ..system.files import log

BETWEEN_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])|[^\w.-]|_")
OF_IDS = re.compile("id|image|file|path", re.IGNORECASE)
"""In the name of a column of ids; labels may look like ids."""
BESIDE_CLASS = re.compile("p|prob(a|ability)?|pred(iction|icted)?|target|label|class|score|is|has")
"""A word that stands beside a class in the name of its column."""
NEGATIVE = re.compile(
    r"(no|not|non|without|n|neg|negative|normal|healthy|benign|absent|control"
    r"|un(infected|affected|damaged|cracked|broken|marked))\b"
)
"""How the name of a class begins that says that nothing is there."""


def predictions_table(
    targets: pd.DataFrame, probs: ndarray, answers: ndarray, classes: Sequence[str]
) -> pd.DataFrame:
    """The table of predictions.csv: id, path, label, confidence and one column `p_<class>` a class.

    Args:
        targets: columns id and path. probs: probabilities. answers: the labels to give, see data/encoding.py.

    Raises:
        UserError: a probability is not a number.
    """
    columns = [f"p_{name}" for name in classes]
    scores = pd.DataFrame(class_scores(probs), targets.index, columns)
    for name in targets.id[~np.isfinite(scores).all(axis=1)]:
        raise UserError(f"the prediction of {name} is no number; train again with a lower train.lr")
    # of a label set, the confidence in its least certain answer
    confidence = label_scores(probs, answers).reshape(len(probs), -1).min(axis=1)
    return targets.assign(label=names(answers, classes), confidence=confidence).join(scores)


def fill_submission(
    sample: Path, predictions: pd.DataFrame, config: Config | None = None
) -> pd.DataFrame:
    """Fill sample_submission.csv, in its row order, and say what it was taken to ask for.

    One column holds ids: those of the predictions, or the same file names without folder or suffix, or without leading
    zeros. The others are a column for each class, or a single one. The column of a class gets its probability, or 1 and
    0. A single column that is named by no class gets the label, or is that of the positive class.

    Args:
        predictions: see predictions_table.
        config: its metric decides between probabilities and answers. Where it has none, the cells of the sample do.

    Raises:
        UserError: the file is missing, an id has no prediction or several, or its columns fit none of these forms.
    """
    config = config or Config()
    table = read_sample(sample)
    id_column, rows = _find_ids(table, predictions.id)
    ids = table[id_column]
    is_known = rows >= 0
    is_twice = ids.duplicated() | pd.Series(rows).duplicated() & is_known
    for name in ids[is_twice]:
        raise UserError(f"{sample}: id {name!r} stands twice; keep one row")
    for name in ids[~is_known]:
        raise UserError(
            f"{sample}: {(~is_known).sum()} of its ids have no prediction, for example {name!r}; give --data with all "
            "of its images"
        )
    predictions = predictions.iloc[rows].reset_index(drop=True)
    classes = [name[2:] for name in predictions if name.startswith("p_")]
    asked = table.drop(columns=id_column)
    class_of, asks_answers = _read_columns(sample, asked, classes, config)
    labels = parse(predictions.label, classes, config.data.multi_label)
    for column, name in class_of.items():
        values, known, kind = predictions.label, classes, "the label"
        if name and asks_answers:
            k = classes.index(name)
            has_class = labels[:, k] if labels.ndim == 2 else labels == k
            values = pd.Series(has_class.astype(int)).map(str)
            known, kind = ["0", "1"], "1 or 0 for"
        elif name:
            values, kind = predictions[f"p_{name}"], "the probability of"
        elif config.data.multi_label and isinstance(config.data.label_col, str):
            values = values.str.replace(separator(classes), config.data.label_sep, regex=False)
        if asks_answers:
            values = values.replace(_as_in_sample(known, asked[column]))
        table[column] = values
    table.attrs["taken_for"] = f"submission: {column!r} gets {kind} {name or ''}".rstrip()
    return table


def read_sample(sample: Path) -> pd.DataFrame:
    """The table of a sample_submission.csv. Raises UserError where it is none."""
    if not sample.is_file():
        raise UserError(f"--submission {sample} does not exist")
    table = read_csv(sample)
    if len(table.columns) < 2 or table.empty:
        raise UserError(f"{sample} needs rows, a column of ids and one or more to be filled")
    return table


def fill_blank(
    sample: Path, ids: pd.Series | ndarray, classes: Sequence[str], config: Config
) -> pd.DataFrame:
    """The sample filled with predictions that say nothing: what does not fit is refused before there are any."""
    probs = {f"p_{name}": 0.5 for name in classes}
    predictions = pd.DataFrame({"id": ids, "label": classes[0]} | probs)
    filled = fill_submission(sample, predictions, config)
    log.info(filled.attrs["taken_for"])
    return filled


def check_submission(dataset: Dataset, config: Config) -> list[str]:
    """Fill the sample, if there is one, with predictions that say nothing: what does not fit is refused now.

    Returns:
        What it was taken for, in a sentence; none without a sample.

    Raises:
        UserError: see fill_submission; or there is no data.test.
    """
    if not config.data.submission:
        return []
    ids = dataset.id[dataset.split == "test"]
    if not len(ids):
        raise UserError("data.submission needs data.test, the images that it lists")
    filled = fill_blank(Path(config.data.submission), ids, dataset.classes, config)
    log.info(f"submission: {len(filled):,} rows, all of them rows of data.test")
    return [filled.attrs["taken_for"]]


def _find_ids(table: pd.DataFrame, ids: pd.Series) -> tuple[str, ndarray]:
    """The column of the sample that names most predictions: as they are, by file name, or by that without suffix. And
    the prediction that each of its cells names, -1 = none."""
    file_names = ids.str.rsplit("/", n=1).str[-1]
    stems = file_names.str.replace(r"\.\w+$", "", regex=True)
    forms = [pd.Index(form) for form in (ids, file_names, stems) if form.is_unique]
    matches = []
    for name, form in product(table, forms):
        rows = form.get_indexer(respell(table[name], form))
        n_named = len({*rows} - {-1})
        rank = n_named, bool(OF_IDS.search(name))
        matches.append((rank, name, rows))
    _, name, rows = max(matches, key=itemgetter(0))
    return name, rows


def _read_columns(
    sample: Path, asked: pd.DataFrame, classes: list[str], config: Config
) -> tuple[dict[str, str | None], bool]:
    """What a sample asks for: column → class, None = the label; and whether it wants answers, not probabilities."""
    metric, positive = config.metric, config.data.submission_positive
    class_of = dict(zip(asked, respell(asked, classes, _bare_name), strict=True))
    cells = asked.melt().value.drop_duplicates()
    cells = cells.str.replace(r"^(\d+),(\d+)$", r"\1.\2", regex=True)  # decimal commas
    numbers = pd.to_numeric(cells.map(plain_form), errors="coerce")
    if len(class_of) > 1:
        if sorted(class_of.values()) != sorted(classes):
            raise UserError(
                f"{sample}: its columns {', '.join(asked)} are neither one label nor the classes "
                f"{', '.join(classes)}; rename them"
            )
        # Probabilities lose nothing where only the likeliest class counts.
        are_answers = numbers.isin([0, 1]) if metric else cells.str.lower().isin(TRUTH)
        return class_of, metric in (None, *OF_ANSWERS) and are_answers.all()
    ((column, name),) = class_of.items()
    name = positive or name
    is_named = name in classes
    if positive and not is_named:
        raise UserError(
            f"data.submission_positive={positive} is no class; choose one of {', '.join(classes)}"
        )
    # A number with a point is rather a probability than a class whose name has none.
    has_point = cells.str.contains(".", regex=False).any()
    shows_class = {*(cells if has_point else respell(cells, classes))} <= {*classes}
    are_numbers = numbers.notna().all()
    holds_label = shows_class or not are_numbers or all(map(WHOLE_NUMBER.fullmatch, classes))
    if is_named and are_numbers:  # 0 and 1 are no classes there: p_0 holds 1 where the label is 0
        shows_class = holds_label = False
    asks_answers = metric in OF_ANSWERS
    if not metric:
        asks_answers = shows_class or not (is_named or numbers.between(0, 1).all())
    if (asks_answers and holds_label) or not (
        is_named or len(classes) <= 2 - config.data.multi_label
    ):
        return {column: None}, True
    if not is_named:
        words = {*_bare_name(column).split()}
        if any(words.issuperset(_bare_name(name).split()) for name in classes):
            raise UserError(
                f"{sample}: column {column!r} may mean {' or '.join(classes)}; set data.submission_positive, "
                "which predict.py reads in config.yaml of the run"
            )
        name = max(classes, key=lambda name: (not NEGATIVE.match(_bare_name(name)), name))
        log.info(
            f"{sample}: column {column!r} is taken for {name!r}; data.submission_positive (in config.yaml of the run) "
            "names another class"
        )
    return {column: name}, asks_answers


def _bare_name(text: str) -> str:
    """The name of a class in the name of a column: `isCat`, `p_cat`, `Cat probability` → `cat`."""
    words = BETWEEN_WORDS.sub(" ", text).casefold().split()
    bare = [word for word in words if not BESIDE_CLASS.fullmatch(word)]
    return plain_form(" ".join(bare or words))


def _as_in_sample(known: list[str], cells: pd.Series) -> dict[str, str]:
    """Known names as the sample writes such ones: 0 for 0.0 or False, 2.0 for 2, 07 for 7, TRUE for True or 1."""
    example = cells.iloc[0]
    forms = {name: plain_form(name) for name in known}
    are_numbers = all(map(WHOLE_NUMBER.fullmatch, forms.values()))
    if cells.isin(known).all() or not are_numbers:
        return {}
    if example.lower() in TRUTH:
        words = {number: word for word, number in TRUTH.items()}
        write = str
        if example.isupper():
            write = str.upper
        elif example.istitle():
            write = str.title
        return {name: write(words.get(form, name)) for name, form in forms.items()}
    if not cells.str.fullmatch(r"-?\d+(\.0+)?").all():
        return {}
    whole, point, decimals = example.partition(".")
    width = len(whole) if whole.startswith("0") else 1
    return {name: form.zfill(width) + point + decimals for name, form in forms.items()}
