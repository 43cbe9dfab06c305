"""Predictions as a competition wants them: in the columns and the row order of its sample_submission.csv."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..config.types import UserError
from ..data.csv_text import read_csv
from ..data.encoding import names, own, yes


def predictions_table(
    targets: pd.DataFrame, probs: np.ndarray, answers: np.ndarray, classes: list[str]
) -> pd.DataFrame:
    """id, path (those of targets), label, confidence and one column `p_<class>` a class, from probabilities and the
    labels that are answered, see data/encoding.py.

    Raises:
        UserError: a probability is not a number.
    """
    bad = ~np.isfinite(probs).reshape(len(probs), -1).all(1)
    if bad.any():
        row = bad.argmax()
        raise UserError(f"the prediction of {targets.id.iloc[row]} is no number; train again with a lower train.lr")
    sure = own(probs, answers).reshape(len(probs), -1).min(1)
    head = {"id": targets.id, "path": targets.path, "label": names(answers, classes), "confidence": sure}
    return pd.DataFrame(head | {f"p_{name}": yes(probs)[:, k] for k, name in enumerate(classes)})


def submission(sample: Path, predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Fill sample_submission.csv, in its row order: a label column; one probability column a class; or, of two
    classes, one column with the probability of the second, where the sample has numbers there that are no class.

    Its first column holds ids: those of the predictions, or the same file names without folder or suffix.

    Raises:
        UserError: the file is missing, an id has no prediction or several, or its columns fit none of these forms.
    """
    if not sample.is_file():
        raise UserError(f"--submission {sample} does not exist")
    table = read_csv(sample)
    if len(table.columns) < 2 or table.empty:
        raise UserError(f"{sample} needs rows, a column of ids and one or more to be filled")
    id_col, *columns = table.columns
    if table[id_col].duplicated().any():
        raise UserError(
            f"{sample}: id {table[id_col][table[id_col].duplicated()].iloc[0]!r} stands twice; keep one row"
        )
    rows = predictions.set_index(_matching_keys(predictions.id, table[id_col])).reindex(table[id_col])
    missing = table[id_col][rows.label.isna().to_numpy()]
    if len(missing):
        raise UserError(
            f"{sample}: {len(missing)} of its ids have no prediction, for example {missing.iloc[0]!r}; "
            "give --data with all of its images"
        )
    if len(columns) == 1:
        wanted = f"p_{classes[1]}" if len(classes) == 2 and _are_probabilities(table[columns[0]], classes) else "label"
        return table.assign(**{columns[0]: rows[wanted].to_numpy()})
    if set(columns) != set(classes):
        raise UserError(
            f"{sample}: its columns {', '.join(columns)} are neither one label nor the classes "
            f"{', '.join(classes)}; rename them"
        )
    return table.assign(**{name: rows[f"p_{name}"].to_numpy() for name in columns})


def _are_probabilities(column: pd.Series, classes: list[str]) -> bool:
    values = pd.to_numeric(column, errors="coerce")
    return bool(values.between(0, 1).all() and not column.isin(classes).all())


def _matching_keys(ids: pd.Series, wanted: pd.Series) -> pd.Series:
    """The form of the ids (as they are, file name, file name without suffix) that names most of the wanted ones."""
    names = ids.str.rsplit("/", n=1).str[-1]
    forms = [form for form in (ids, names, names.str.replace(r"\.\w+$", "", regex=True)) if form.is_unique]
    return max(forms, key=lambda form: wanted.isin(form).sum())
