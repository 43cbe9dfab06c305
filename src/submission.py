"""Predictions as a competition wants them: in the columns and the row order of its sample_submission.csv."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from .run import read_csv
from .values import UserError


def predictions_table(ids: np.ndarray, paths: np.ndarray, probs: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """id, path, label, confidence and one column `p_<class>` a class, from (N, K) probabilities."""
    named = np.array(classes, object)
    head = {"id": ids, "path": paths, "label": named[probs.argmax(1)], "confidence": probs.max(1)}
    return pd.DataFrame(head | {f"p_{name}": probs[:, k] for k, name in enumerate(classes)})


def submission(sample: Path, predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Fill sample_submission.csv: a label column, or one probability column a class.

    Its first column holds ids: those of the predictions, or the same file names without folder or suffix.

    Raises:
        UserError: the file is missing, an id has no prediction or several, or its columns fit neither form.
    """
    if not sample.is_file():
        raise UserError(f"--submission {sample} does not exist")
    table = read_csv(sample)
    id_col, *columns = table.columns
    if table[id_col].duplicated().any():
        raise UserError(
            f"{sample}: id {table[id_col][table[id_col].duplicated()].iloc[0]!r} stands twice; keep one row"
        )
    rows = predictions.set_index(_matching_keys(predictions.id, table[id_col])).reindex(table[id_col])
    missing = table[id_col][rows.label.isna().to_numpy()]
    if len(missing):
        raise UserError(f"{sample}: {len(missing)} of its ids have no prediction, for example {missing.iloc[0]!r}; "
                        "give --data with all of its images")  # fmt: skip
    if len(columns) == 1:
        return table.assign(**{columns[0]: rows.label.to_numpy()})
    if set(columns) != set(classes):
        raise UserError(f"{sample}: its columns {', '.join(columns)} are neither one label nor the classes "
                        f"{', '.join(classes)}; rename them")  # fmt: skip
    return table.assign(**{name: rows[f"p_{name}"].to_numpy() for name in columns})


def _matching_keys(ids: pd.Series, wanted: pd.Series) -> pd.Series:
    """The form of the ids (as they are, file name, file name without suffix) that names most of the wanted ones."""
    names = ids.str.rsplit("/", n=1).str[-1]
    forms = [form for form in (ids, names, names.str.replace(r"\.\w+$", "", regex=True)) if form.is_unique]
    return max(forms, key=lambda form: wanted.isin(form).sum())
