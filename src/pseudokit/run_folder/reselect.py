"""Decide again from stored predictions with another policy: no training, no inference, no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..config.keys import Config, Pseudo
from ..config.load import differences, load_config
from ..config.types import UserError
from ..data.csv_text import read_csv, unescape_formulas
from ..data.dataset import Dataset
from ..data.duplicates import refused_reasons
from ..data.encoding import classes_of, has_label, parse
from ..labels.decide import decide_labels
from ..labels.decisions import Decisions
from ..labels.pseudo_labels import lower_bound
from ..round_store import RoundStore, decisions_table
from ..system.files import log, read_json, write_csv

TRAINS = ("rounds", "folds", "tta", "label_propagation", "leak_free_folds", "audit_size", "train_baseline")
"""Keys of `pseudo` that stored predictions cannot be decided by: they are of training or of the rounds."""
CUTOFFS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)


def reselect(run: Path, overrides: list[str]) -> None:
    """Write selected.csv (as decisions.csv) for the last round under the run's config plus overrides; print a table.

    Raises:
        UserError: there is no finished round, or an override is wrong.
    """
    if not (run / "config.yaml").is_file():
        raise UserError(f"--run {run} is no run folder; train.py and pseudo.py make one under runs/")
    rounds = RoundStore(run).rounds()
    if not rounds:
        raise UserError(f"--run {run} has no finished round yet; run its command again to go on")
    config, mode = _redecided(run / "config.yaml", overrides), read_json(run / "status.json", "mode")["mode"]
    classes, number = tuple(rounds[-1]["classes"]), rounds[-1]["round"]
    dataset = _judged(run, number, classes, rounds[-1].get("multi_label", False))
    stored = RoundStore(run).recall(number, dataset)
    copies = run / "duplicates.csv"
    refused = refused_reasons(unescape_formulas(read_csv(copies)), dataset.id, config.data) if copies.exists() else ""
    decisions = decide_labels(
        stored.log_probs,
        dataset.given_labels,
        mode,
        config.pseudo,
        refused=refused,
        likeliest_rate=stored.likeliest_rate,
    )
    write_csv(run / "selected.csv", decisions_table(decisions, dataset, stored.judge))
    kinds, counts = np.unique(decisions.decision.astype(str), return_counts=True)
    log.info(cutoff_table(dataset, decisions).to_string(index=False))
    summary = ", ".join(f"{n:,} {kind}" for kind, n in zip(kinds, counts, strict=True))
    log.info(f"round {number}, {mode}: {summary}; {run / 'selected.csv'}")


def _redecided(file: Path, overrides: list[str]) -> Config:
    """The config of a run with overrides that its stored predictions can be decided by."""
    config = load_config(file, overrides)
    decides = {f"pseudo.{key}" for key in Pseudo.model_fields if key not in TRAINS} | {"data.learn_from_test"}
    changes = differences(load_config(file, []), config)
    idle = [change for change in changes if change.partition(":")[0] not in decides]
    if idle:
        raise UserError(
            f"--mode select decides stored predictions again, on which {'; '.join(idle)} has no effect; "
            "leave it out, or make a new run with another name"
        )
    return config


def cutoff_table(dataset: Dataset, decisions: Decisions) -> pd.DataFrame:
    """cutoff → coverage of the rows that a cutoff decides, their estimated precision, and classes without any.

    The rows are the pool where there is one, else the labeled set. Precision is estimated from the labeled rows
    above the cutoff: the share whose held-out prediction agrees with the given label, and its lower 95 % bound. Of
    label sets all of this is of single answers.
    """
    labeled, confidence, predicted = dataset.given_labels >= 0, decisions.each("confidence"), decisions.predicted
    pool = ~labeled & ~has_label(dataset.given_labels).reshape(-1, *[1] * (labeled.ndim - 1))
    rows = pool if pool.any() else labeled
    agrees = predicted == dataset.given_labels
    table = []
    for cutoff in CUTOFFS:
        above, known = rows & (confidence >= cutoff), labeled & (confidence >= cutoff)
        n = int(known.sum())
        precision = f"{agrees[known].mean():.4f}" if n else "–"
        bound = f"{lower_bound(agrees[known].sum(), n):.4f}" if n else "–"
        lost = set(dataset.classes) - {dataset.classes[k] for k in classes_of(np.where(above, predicted, -1))}
        coverage = f"{above.sum() / rows.sum():.3f}"
        table.append((cutoff, coverage, precision, bound, n, ", ".join(sorted(lost)) or "–"))
    names = ["cutoff", "coverage", "estimated precision", "at least", "from n", "classes lost"]
    return pd.DataFrame(table, columns=names)


def _judged(run: Path, number: int, classes: tuple[str, ...], multi_label: bool) -> Dataset:
    """The judged samples of a round, in the order of its logits."""
    table = read_csv(run / f"round_{number}" / "decisions.csv", usecols=["id", "split", "given_label"])
    empty = np.full(len(table), "", object)
    given_labels = parse(table.given_label, classes, multi_label)
    return Dataset(table.id.to_numpy(object), empty, table.split.to_numpy(object), given_labels, empty, classes)
