"""Best and worst images: the most confident right and wrong predictions on images that no model had learned."""

import pandas as pd

from .load_run import scored_model

IMAGES_PER_GROUP = 12
"""Two rows of a laptop's screen."""


def gallery(data: dict) -> list[tuple[str, str, pd.DataFrame]]:
    """Groups of a title, a line about it, and a table with id, path, label, predicted and confidence."""
    rows, source = predicted_rows(data)
    if rows.empty:
        return []
    rows = rows.sort_values("confidence", ascending=False, kind="stable")
    is_right = rows.label == rows.predicted
    wrong = rows[~is_right]
    right = rows[is_right]
    # the most confident of each class, then the second of each, …
    turn = right.groupby("label").cumcount().sort_values(kind="stable")
    groups = [
        (
            "Worst: wrong, and most confident",
            f"{len(wrong):,} of {len(rows):,} are wrong ({source}).",
            wrong[:IMAGES_PER_GROUP],
        ),
        (
            "Best: right, and most confident, of every class in turn",
            f"{len(right):,} of {len(rows):,} are right.",
            right.loc[turn.index[:IMAGES_PER_GROUP]],
        ),
    ]
    return [group for group in groups if len(group[-1])]


def predicted_rows(data: dict) -> tuple[pd.DataFrame, str]:
    """Rows (id, path, label, predicted, confidence) that show what the run can do, and who predicted what.

    The scored rows that carry the headline, or else out-of-fold rows. These are compared with the truth where it
    is known, else with the given label.
    """
    scored, decisions = data["scored"], data["decisions"]
    split, arm = scored_model(data["metrics"]["scores"])
    if scored is not None and arm:
        rows = scored[(scored.arm == arm) & (scored.split == split)]
        return rows[rows.label != ""], f"the {arm} on {split}"
    if decisions is None:
        return pd.DataFrame(), ""
    rows = decisions[decisions.given_label != ""]
    rows = rows.assign(label=rows.truth.fillna(rows.given_label))
    return rows, "out of fold, against the truth where it is known, else against given labels"
