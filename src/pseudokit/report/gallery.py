"""Best and worst images: the most confident right and wrong predictions on images that no model had learned."""

from __future__ import annotations

from typing import Any

import pandas as pd

from .load_run import scored_model

IMAGES_PER_GROUP = 12
"""Two rows of a laptop's screen."""


def gallery(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Groups {"title", "about", "rows"}. A row has id, path, label, predicted and confidence."""
    rows, source = predicted_rows(data)
    if rows.empty:
        return []
    rows = rows.sort_values("confidence", ascending=False, kind="stable")
    is_right = rows["label"] == rows["predicted"]
    wrong = rows[~is_right]
    right = rows[is_right]
    # the most confident of each class, then the second of each, …
    turn = right.groupby("label").cumcount().sort_values(kind="stable")
    groups = [
        {
            "title": "Worst: wrong, and most confident",
            "about": f"{len(wrong):,} of {len(rows):,} are wrong ({source}).",
            "rows": _with_paths(wrong, data["samples"]),
        },
        {
            "title": "Best: right, and most confident, of every class in turn",
            "about": f"{len(right):,} of {len(rows):,} are right.",
            "rows": _with_paths(right.loc[turn.index], data["samples"]),
        },
    ]
    return [group for group in groups if group["rows"]]


def predicted_rows(data: dict[str, Any]) -> tuple[pd.DataFrame, str]:
    """Rows (id, split, label, predicted, confidence) that show what the run can do, and who predicted what.

    The scored rows that carry the headline, or else out-of-fold rows. These are compared with the truth where it
    is known, else with the given label.
    """
    scored, decisions = data["scored"], data["decisions"]
    split, arm = scored_model(data["metrics"].get("scores") or {})
    if scored is not None and arm:
        is_shown = (scored["arm"] == arm) & (scored["split"] == split) & (scored["label"] != "")
        return scored[is_shown], f"the {arm} on {split}"
    if decisions is None:
        return pd.DataFrame(), ""
    rows = decisions[decisions["given_label"] != ""]
    rows = rows.assign(label=rows["truth"].fillna(rows["given_label"]))
    labels = (
        "the truth, where it is known"
        if rows["truth"].notna().any()
        else "given labels, which may be wrong too"
    )
    return rows, f"out-of-fold predictions against {labels}"


def _with_paths(rows: pd.DataFrame, samples: pd.DataFrame) -> list[dict[str, Any]]:
    """The first rows as dicts, with the path of their image. An id may stand in several splits."""
    rows = rows.head(IMAGES_PER_GROUP)[["id", "split", "label", "predicted", "confidence"]]
    paths = samples[["id", "split", "path"]].drop_duplicates(["id", "split"])
    return rows.merge(paths, how="left", on=["id", "split"]).to_dict("records")
