"""What a round changed and why, as tables. Pure: from decisions as `read_decisions` returns them to rows of text."""

from __future__ import annotations

from typing import Any

import pandas as pd

from .summary import percent

MOST = 12
"""Rows of a table of classes or of pairs of classes; what is left is one row more."""
DONE = {
    "keep": "kept",
    "relabel": "relabeled",
    "soften": "softened: probabilities are learned",
    "downweight": "down-weighted: counts for less",
    "drop": "dropped: not learned",
    "review": "kept, to be reviewed",
    "accept": "pseudo-label",
    "leave": "left without a label",
}
WHY = {
    "given_stands": "given labels stand in this mode",
    "agrees": "nothing speaks against the given label",
    "another_class_reaches_precision": "another class is as sure as pseudo.relabel_precision asks",
    "another_class_above_cutoff": "the confidence in another class reaches the cutoff",
    "wrong_but_no_replacement": "surely wrong, but no other class is sure",
    "doubtful": "in doubt: neither surely right nor surely another class",
    "above_cutoff": "the confidence reaches the cutoff",
    "below_cutoff": "the confidence is below the cutoff",
    "beyond_share": "not among the surest of its class (pseudo.top_fraction)",
    "class_floor": "or its class would lose more than half of its labels",
}
TRUTH = "right: which share of the labels is then the true one; known as labels were changed or hidden on purpose."


def changes(data: dict[str, Any]) -> dict[str, Any]:
    """{"notes", "tables"} of the round that decided; both empty where nothing was to be changed."""
    decisions, metrics = data["decisions"], data["metrics"]
    if decisions is None or metrics.get("mode") == "train":
        return {"notes": [], "tables": []}
    made = [reasons_table(decisions), flows_table(decisions), pseudo_table(decisions)]
    notes = [
        unused_note(metrics),
        human_note(metrics.get("human") or {}),
        TRUTH if decisions["truth"].notna().any() else "",
    ]
    return {"notes": [n for n in notes if n], "tables": [table for table in made if table["rows"]]}


def unused_note(metrics: dict[str, Any]) -> str:
    """Said where the rounds came to nothing that was learned."""
    if metrics.get("round") != 0:
        return ""
    return "Nothing of this was learned: the student had the labels as they were given."


def human_note(human: dict[str, int]) -> str:
    """How many decisions of a person stand above those of the tables."""
    counts = {name: n for name, n in human.items() if name != "files"}
    if not counts:
        return ""
    listed = ", ".join(f"{n:,} {name}" for name, n in counts.items())
    return f"A person decided on {sum(counts.values()):,} rows ({listed}); that stands above what the tables say."


def why(reason: str) -> str:
    """A reason of decisions.csv in plain words."""
    if reason.startswith("duplicate_of_"):
        return f"a copy of a row in {reason.removeprefix('duplicate_of_')}, which is only scored (data.learn_from_test)"
    return WHY.get(reason, reason.replace("_", " "))


def reasons_table(decisions: pd.DataFrame) -> dict[str, Any]:
    """One row for each decision and reason, of given labels and then of the pool, most frequent first.

    The counts sum to the judged rows. Where the truth is known: the share of labels that are right then.
    """
    kinds = decisions["given_label"].ne("").map({True: "given", False: "unlabeled"})
    sizes, known = kinds.value_counts(), decisions["truth"].notna().any()
    groups = [(*key, part) for key, part in decisions.groupby([kinds, "decision", "reason"])]
    rows, bars = [], []
    for kind, decision, reason, part in sorted(groups, key=lambda group: (group[0], -len(group[3]))):
        cells = [DONE.get(decision, decision), why(reason), f"{len(part):,}"]
        rows.append([*cells, *([right(part)] if known else [])])
        bars.append(len(part) / sizes[kind])
    header = ["decision", "why", "rows", *(["right"] if known else [])]
    return {"title": "Every judged row", "names": 2, "header": header, "rows": rows, "bars": bars}


def right(part: pd.DataFrame) -> str:
    """Share of labels that are the true ones, among rows with a label whose truth is known."""
    known = part[(part["label"] != "") & part["truth"].notna()]
    return percent((known["label"] == known["truth"]).mean()) if len(known) else "–"


def flows_table(decisions: pd.DataFrame, most: int = MOST) -> dict[str, Any]:
    """Which classes relabeled rows went from and to: the largest flows first, all others in one row."""
    turned = decisions[decisions["decision"] == "relabel"]
    table = tally(turned, ["given_label", "label"], most, "pairs of classes")
    return table | {
        "title": "Relabeled: from which class to which",
        "header": ["given_label", "→ learned", *table["header"]],
    }


def pseudo_table(decisions: pd.DataFrame, most: int = MOST) -> dict[str, Any]:
    """How many pseudo-labels each class received: most first, all others in one row."""
    taken = decisions[decisions["decision"] == "accept"]
    table = tally(taken, ["label"], most, "classes")
    return table | {"title": "Pseudo-labels by class", "header": ["class", *table["header"]]}


def tally(rows: pd.DataFrame, columns: list[str], most: int, what: str) -> dict[str, Any]:
    """{"names", "header", "rows", "bars"}: rows counted by columns, those of the smaller counts together."""
    group = rows.groupby(columns).ngroup()
    place = group.map(group.value_counts().sort_index().rank(method="first", ascending=False)).clip(upper=most + 1)
    known, cells, counts = rows["truth"].notna().any(), [], []
    for at, part in rows.groupby(place):
        names = [part[name].iloc[0] for name in columns]
        if at > most:
            names = [f"{group.nunique() - most:,} other {what}", *[""] * (len(columns) - 1)]
        cells.append([*names, f"{len(part):,}", *([right(part)] if known else [])])
        counts.append(len(part))
    header, bars = ["rows", *(["right"] if known else [])], [n / counts[0] for n in counts]
    bars[most:] = [0.0] * len(bars[most:])  # the others are no flow of their own
    return {"names": len(columns), "header": header, "rows": cells, "bars": bars}
