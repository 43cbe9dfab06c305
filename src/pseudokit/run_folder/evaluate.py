"""What a run came to: scores of its arms, the tables that people open, metrics.json."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..data.csv_text import escape_formulas
from ..data.dataset import SCORED_SPLITS, USES_POOL, Dataset
from ..data.encoding import confidence, has_label, likeliest, names, parse, right
from ..labels.decide import REPAIRS
from ..labels.decisions import Decisions
from ..labels.metrics import confirmed, expected, noise_scores, of_classes, paired_arms, pool_scores, score
from ..labels.pseudo_labels import lowest_cutoff
from ..labels.thresholds import tuned
from ..report.tables import label_issues_table, labels_table, oof_table, pseudo_labels_table
from ..round_store import RoundStore, model_files
from ..self_training import SelfTrainingResult
from ..system.files import log, write_csv, write_json, write_npy
from ..training.models import TrainedModel, load_model
from .audit import audit
from .corrections import applied, decided
from .folder import Run

if TYPE_CHECKING:
    from .prepare import PreparedData

MANY = 100
"""Classes of which no list of scores is written."""


def score_arms(prepared: PreparedData, arms: dict[str, list[TrainedModel]], predict) -> tuple[dict, pd.DataFrame]:
    """{arm: {role: scores}} on valid, trusted and test, and the single predictions (as scored.csv holds them)."""
    scores: dict[str, dict] = {}
    tables = []
    for arm, models in arms.items():
        for split in SCORED_SPLITS:
            rows = np.flatnonzero(prepared.dataset.split == split)
            if len(rows):
                logs = np.log(np.mean([np.exp(predict(model, rows)) for model in models], axis=0) + 1e-30)
                scores.setdefault(arm, {})[split] = score(
                    logs, prepared.dataset.given_labels[rows], prepared.dataset.classes
                )
                tables.append(_scored(arm, split, prepared.dataset.take(rows), logs))
    columns = ["arm", "split", "id", "label", "predicted", "confidence"]
    return scores, pd.concat(tables) if tables else pd.DataFrame(columns=columns)


def _scored(arm: str, split: str, dataset: Dataset, logs: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "arm": arm,
            "split": split,
            "id": dataset.id,
            "label": names(dataset.given_labels, dataset.classes),
            "predicted": names(likeliest(logs), dataset.classes),
            "confidence": confidence(logs),
        }
    )


def difference(scored: pd.DataFrame) -> dict | None:
    """What the student gains on the baseline (in accuracy, with its paired 95 % interval) in the most trustworthy
    role that is scored; None without a baseline, or where nothing is scored."""
    for split in reversed(SCORED_SPLITS):
        if gain := paired_arms(scored, (split,), "baseline"):
            return {"split": split} | {key: gain[key] for key in ("n", "gain", "low", "high")}
    return None


def score_trusted(run: Run, prepared: PreparedData, predict) -> dict | None:
    """Whether the rounds helped where labels were checked by hand: the last round's teachers against the first's.

    The recipe is the same, only the labels that they learned differ. None without trusted samples or a second round.
    Warns when the held-out predictions agree more with the given labels than in the first round, and the trusted
    samples do not confirm it: then the rounds agree with themselves.
    """
    rows, rounds = np.flatnonzero(prepared.dataset.split == "trusted"), len(RoundStore(run.path).rounds())
    if not len(rows) or rounds < 2:
        return None
    truth, labeled = prepared.dataset.given_labels[rows], has_label(prepared.judged.given_labels)
    ends = [run.path / f"round_{number}" for number in (1, rounds)]
    teachers = [[load_model(file.parent) for file in model_files(run.path, number)] for number in (1, rounds)]
    hits = [
        right(likeliest(np.mean([np.exp(predict(model, rows)) for model in end], axis=0)), truth) for end in teachers
    ]
    given_labels = prepared.judged.given_labels[labeled]
    agree = [right(likeliest(np.load(end / "log_probs.npy")[labeled]), given_labels) for end in ends]
    found = {"n": len(rows)} | confirmed(hits, agree)
    if found["warning"]:
        log.info(
            "warning: out-of-fold agreement rises from round to round, trusted samples do not confirm it: "
            "the rounds agree with themselves; look at review.html, or use fewer rounds"
        )
    return found


def write_results(run: Run, prepared: PreparedData, result: SelfTrainingResult, found: dict) -> None:
    """The tables that people open, and metrics.json. Only here is the truth of an experiment looked at."""
    judged, decisions, store = prepared.judged, result.decisions, RoundStore(run.path)
    write_csv(run.path / "labels.csv", labels_table(result, judged))
    metrics = {"mode": run.mode, "reason": result.reason, "round": result.round} | found
    metrics["rounds"] = store.rounds()
    labeled, pool, clean = judged.given_labels >= 0, ~has_label(judged.given_labels), _clean(prepared)
    if run.mode in REPAIRS and decisions:
        write_csv(run.path / "label_issues.csv", escape_formulas(label_issues_table(decisions, judged)))
        known = clean[labeled] if "injected.csv" in prepared.truths else None
        given_labels, label = judged.given_labels[labeled], result.label[labeled]
        soft = decisions.each("soft")[labeled]
        metrics["noise"] = noise_scores(decisions.each("p_wrong")[labeled], given_labels, label, known, soft)
        info = store.rounds()[result.round - 1]
        found = {key: info[key] for key in ("estimated_rate", "estimated_rate_interval") if info[key] is not None}
        z = store.rounds()[0].get("difficulty_z")  # the first round has chosen
        metrics["noise"] |= found | {"type": info["noise_type"], "difficulty_z": z}
        if run.config.pseudo.audit_size:
            metrics["audit"] = audit(run, judged, decisions)
    if run.mode in USES_POOL and decisions:
        write_csv(run.path / "pseudo_labels.csv", pseudo_labels_table(decisions, judged, result.round))
        known = clean[pool] if "hidden.csv" in prepared.truths else None
        cutoff = lowest_cutoff(decisions.confidence[decisions.decision == "accept"], run.config.pseudo)
        metrics["unlabeled"] = pool_scores(result.label[pool], known) | {"cutoff": cutoff}
    if decisions:
        metrics |= _out_of_fold(run, prepared, decisions)
    if steps := applied(run.path):
        metrics["human"] = {"files": len(steps)} | decided(run.path).action.value_counts().sort_index().to_dict()
    write_json(run.path / "metrics.json", metrics)


def _out_of_fold(run: Run, prepared: PreparedData, decisions: Decisions) -> dict:
    """Write oof.csv, oof_log_probs.npy (its log-probabilities, row by row) and, where answers are tuned,
    thresholds.json."""
    judged, metric = prepared.judged, run.config.metric
    rows, classes = np.flatnonzero(has_label(judged.given_labels)), judged.classes
    logs, labels = np.asarray(decisions.posterior.log_probs[rows], np.float32), judged.given_labels[rows]
    write_csv(run.path / "oof.csv", oof_table(decisions, judged))
    write_npy(run.path / "oof_log_probs.npy", logs)
    found = score(logs, labels, classes)
    tested = 0 if run.mode in REPAIRS else prepared.tested  # labels that may be wrong promise nothing of a test set
    found |= {"interval": expected(found["accuracy"], len(rows), tested)}
    rule = tuned(metric, logs, labels, classes) if metric else None
    if rule:
        write_json(run.path / "thresholds.json", rule)
        found["tuned"] = {"before": rule["before"], "after": rule["after"]}
    return {"oof": found} | ({"oof_classes": of_classes(logs, labels, classes)} if len(classes) <= MANY else {})


def _clean(prepared: PreparedData) -> np.ndarray:
    """True labels of the judged samples where an experiment knows them, else the given ones."""
    dataset = prepared.judged
    truth = {i: clean for table in prepared.truths.values() for i, clean in zip(table.id, table.clean, strict=True)}
    texts = [
        truth.get(i, given_labels)
        for i, given_labels in zip(dataset.id, names(dataset.given_labels, dataset.classes), strict=True)
    ]
    return parse(texts, dataset.classes, dataset.given_labels.ndim == 2)
