"""Best and worst images: the surest right and the surest wrong predictions on rows that nothing had learned."""

from __future__ import annotations

from typing import Any

import pandas as pd

from .sentences import compared

SHOWN = 12
"""Images a group."""


def gallery(data: dict[str, Any], n: int = SHOWN) -> list[dict[str, Any]]:
    """Groups {"title", "about", "rows"} of at most n rows with id, path, label, predicted and confidence."""
    rows, who = predictions(data)
    if rows is None:
        return []
    hit = rows["label"] == rows["predicted"]
    worst = {"title": "Worst: wrong, and most confident", "rows": surest_wrong(rows[~hit], n)}
    worst["about"] = f"{(~hit).sum():,} of {len(rows):,} are wrong ({who})."
    best = {"title": "Best: right, and most confident, of every class in turn", "rows": surest_right(rows[hit], n)}
    best["about"] = f"{hit.sum():,} of {len(rows):,} are right."
    found = [group | {"rows": with_paths(group["rows"], data["samples"])} for group in (worst, best)]
    return [group for group in found if group["rows"]]


def predictions(data: dict[str, Any]) -> tuple[pd.DataFrame | None, str]:
    """(id, role, label, predicted, confidence) of the scored rows that carry the headline, else of held-out ones.

    Held-out rows are compared with the truth where it is known, else with the given label.
    """
    scored, decisions = data["scored"], data["decisions"]
    split, arm, _ = compared(data["metrics"].get("scores") or {})
    if scored is not None and arm:
        own = (scored["arm"] == arm) & (scored["split"] == split) & (scored["label"] != "")
        return scored[own], f"the {arm} on {split}"
    if decisions is None:
        return None, ""
    rows = decisions[decisions["given_label"] != ""]
    rows = rows.assign(label=rows["truth"].fillna(rows["given_label"]))
    against = "the truth, where it is known" if rows["truth"].notna().any() else "given labels, which may be wrong too"
    return rows, f"held-out models against {against}"


def surest_wrong(rows: pd.DataFrame, n: int) -> pd.DataFrame:
    """The n most confident rows; among equals the first."""
    return rows.sort_values("confidence", ascending=False, kind="stable").head(n)


def surest_right(rows: pd.DataFrame, n: int) -> pd.DataFrame:
    """The most confident row of each class, then the second of each, until there are n."""
    falling = rows.sort_values("confidence", ascending=False, kind="stable")
    turn = falling.groupby("label").cumcount()
    return falling.loc[turn.sort_values(kind="stable").index].head(n)


def with_paths(rows: pd.DataFrame, dataset: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Rows as dicts with the path of their image; an id may stand in several roles."""
    keys = ["id", "split"]
    named = None if dataset is None else dataset[dataset["id"].isin(rows["id"])].drop_duplicates(keys)
    known = {} if named is None else named.set_index(keys)["path"].to_dict()
    table = rows[[*keys, "label", "predicted", "confidence"]].to_dict("records")
    return [row | {"path": known.get((row["id"], row["split"]), "")} for row in table]
