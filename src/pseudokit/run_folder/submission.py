"""Predictions as a competition wants them: in the columns and the row order of its sample_submission.csv."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy import ndarray

from ..config.types import UserError
from ..data.csv_text import read_csv
from ..data.encoding import class_scores, label_scores, names


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
    is_number = np.isfinite(scores).all(axis=1)
    if not is_number.all():
        first_id = targets.id[~is_number].iloc[0]
        raise UserError(
            f"the prediction of {first_id} is no number; train again with a lower train.lr"
        )
    # of a label set, the confidence in its least certain answer
    confidence = label_scores(probs, answers).reshape(len(probs), -1).min(axis=1)
    return targets.assign(label=names(answers, classes), confidence=confidence).join(scores)


def fill_submission(sample: Path, predictions: pd.DataFrame) -> pd.DataFrame:
    """Fill sample_submission.csv, in its row order.

    It asks for a label column; or for one probability column a class; or, of two classes, for one column with the
    probability of the second, where the sample has numbers there that are no class. Its first column holds ids: those
    of the predictions, or the same file names without folder or suffix.

    Args:
        predictions: see predictions_table.

    Raises:
        UserError: the file is missing, an id has no prediction or several, or its columns fit none of these forms.
    """
    if not sample.is_file():
        raise UserError(f"--submission {sample} does not exist")
    table = read_csv(sample)
    if len(table.columns) < 2 or table.empty:
        raise UserError(f"{sample} needs rows, a column of ids and one or more to be filled")
    ids = table.iloc[:, 0]
    columns = table.columns[1:]
    repeated = ids[ids.duplicated()]
    if len(repeated):
        raise UserError(f"{sample}: id {repeated.iloc[0]!r} stands twice; keep one row")
    rows = predictions.set_index(_matching_ids(predictions.id, ids)).reindex(ids)
    missing = ids[rows.label.isna().to_numpy()]
    if len(missing):
        raise UserError(
            f"{sample}: {len(missing)} of its ids have no prediction, for example {missing.iloc[0]!r}; "
            "give --data with all of its images"
        )
    probs = rows.filter(regex="^p_").rename(columns=lambda name: name[2:])
    classes = list(probs)
    if len(columns) == 1:
        cells = table[columns[0]]
        are_shares = pd.to_numeric(cells, errors="coerce").between(0, 1).all()
        asks_share = len(classes) == 2 and are_shares and not cells.isin(classes).all()
        values = probs[classes[1]] if asks_share else rows.label
        return table.assign(**{columns[0]: values.to_numpy()})
    if {*columns} != {*classes}:
        raise UserError(
            f"{sample}: its columns {', '.join(columns)} are neither one label nor the classes "
            f"{', '.join(classes)}; rename them"
        )
    return pd.concat([ids, probs[columns].reset_index(drop=True)], axis=1)


def _matching_ids(ids: pd.Series, wanted: pd.Series) -> pd.Series:
    """The form of the ids (as they are, file name, file name without suffix) that names most of the wanted ones."""
    file_names = ids.str.rsplit("/", n=1).str[-1]
    stems = file_names.str.replace(r"\.\w+$", "", regex=True)
    forms = [form for form in (ids, file_names, stems) if form.is_unique]
    return max(forms, key=lambda form: wanted.isin(form).sum())
