"""Training curves, fold by fold. Brings matplotlib, as plots.py does."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from .figures import SEQUENCE, new_figure, percent_axis, styled

DASHES = ("-", "--", ":", "-.")


@styled
def losses(history: dict[str, list[pd.DataFrame]], folds: dict[str, dict[int, tuple[int, float]]]) -> Figure:
    """Training loss: a panel a round with a line a model, one for baseline and student. Tables: epoch, loss, fold.

    folds: round → fold → (rows, agreement) of what the fold's model judged, for the legend.
    """
    rounds = {name: tables for name, tables in history.items() if name.startswith("round")}
    panels = {name: [(_fold_name(t, folds.get(name, {})), t) for t in tables] for name, tables in rounds.items()}
    arms = [(name, table) for name, tables in history.items() if name not in rounds for table in tables]
    panels |= {" and ".join(name for name, _ in arms): arms} if arms else {}
    height = 2 + 0.1 * max(map(len, panels.values()))  # of a panel: its legend grows with the folds
    figure, axes = new_figure("Training loss", 0.7 + height * len(panels), len(panels))
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        _loss_lines(axis, lines)
        axis.set(title=title, ylabel="loss")
    return figure


def _fold_name(table: pd.DataFrame, scores: dict[int, tuple[int, float]]) -> str:
    fold = table["fold"].iloc[0]
    n, share = scores.get(fold, (0, 0))
    return f"fold {fold}: {100 * share:.1f} % of {n:,}" if n else f"fold {fold}"


def _loss_lines(axis, lines: list[tuple[str, pd.DataFrame]]) -> None:
    """A color a name; names beyond the colors, and a second model of a name, have other dashes."""
    ends = [table["epoch"].iloc[-1] for _, table in lines]
    relative = max(ends) > 3 * min(ends)  # few rows take many epochs: comparable only as shares of all
    names, drawn = list(dict.fromkeys(name for name, _ in lines)), []
    turns = -(-len(names) // len(SEQUENCE))
    for name, table in lines:
        turn, color = divmod(names.index(name), len(SEQUENCE))
        label = f"{name.partition(':')[0]}, other half" if name in drawn else name
        dashes = DASHES[(turn + turns * drawn.count(name)) % len(DASHES)]
        x = table["epoch"] / table["epoch"].iloc[-1] if relative else table["epoch"]
        mark = "." if len(table) < 20 else None
        axis.plot(x, table["loss"], dashes, color=SEQUENCE[color], marker=mark, label=label)
        drawn.append(name)
    axis.set_xlabel("share of the epochs" if relative else "epoch")
    if relative:
        percent_axis(axis.xaxis, 5)
    axis.legend(ncols=1 + (len(lines) > 4), fontsize=10 if len(lines) <= 4 else 9)
