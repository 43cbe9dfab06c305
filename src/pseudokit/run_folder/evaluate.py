"""What a run came to: scores of its arms, the tables that people open, metrics.json."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..data.csv_text import escape_formulas
from ..data.dataset import SCORED_ROLES, USES_POOL, Dataset
from ..data.encoding import confidence, has_label, likeliest, names, parse, right
from ..labels.decide import REPAIRS, Decisions
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


def score_arms(material: PreparedData, arms: dict[str, list[TrainedModel]], predict) -> tuple[dict, pd.DataFrame]:
    """{arm: {role: scores}} on valid, trusted and test, and the single predictions (as scored.csv holds them)."""
    scores: dict[str, dict] = {}
    tables = []
    for arm, models in arms.items():
        for role in SCORED_ROLES:
            rows = np.flatnonzero(material.samples.role == role)
            if len(rows):
                logs = np.log(np.mean([np.exp(predict(model, rows)) for model in models], axis=0) + 1e-30)
                scores.setdefault(arm, {})[role] = score(logs, material.samples.given[rows], material.samples.classes)
                tables.append(_scored(arm, role, material.samples.take(rows), logs))
    columns = ["arm", "role", "id", "label", "predicted", "confidence"]
    return scores, pd.concat(tables) if tables else pd.DataFrame(columns=columns)


def _scored(arm: str, role: str, samples: Dataset, logs: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "arm": arm,
            "role": role,
            "id": samples.id,
            "label": names(samples.given, samples.classes),
            "predicted": names(likeliest(logs), samples.classes),
            "confidence": confidence(logs),
        }
    )


def difference(scored: pd.DataFrame) -> dict | None:
    """What the student gains on the control (in accuracy, with its paired 95 % interval) in the most trustworthy
    role that is scored; None without a control, or where nothing is scored."""
    for role in reversed(SCORED_ROLES):
        if gain := paired_arms(scored, (role,), "control"):
            return {"role": role} | {key: gain[key] for key in ("n", "gain", "low", "high")}
    return None


def score_trusted(run: Run, material: PreparedData, predict) -> dict | None:
    """Whether the rounds helped where labels were checked by hand: the last round's teachers against the first's.

    The recipe is the same, only the labels that they learned differ. None without trusted samples or a second round.
    Warns when the held-out predictions agree more with the given labels than in the first round, and the trusted
    samples do not confirm it: then the rounds agree with themselves.
    """
    rows, rounds = np.flatnonzero(material.samples.role == "trusted"), len(RoundStore(run.path).rounds())
    if not len(rows) or rounds < 2:
        return None
    truth, labelled = material.samples.given[rows], has_label(material.judged.given)
    ends = [run.path / f"round_{number}" for number in (1, rounds)]
    teachers = [[load_model(file.parent) for file in model_files(run.path, number)] for number in (1, rounds)]
    hits = [
        right(likeliest(np.mean([np.exp(predict(model, rows)) for model in end], axis=0)), truth) for end in teachers
    ]
    given = material.judged.given[labelled]
    agree = [right(likeliest(np.load(end / "logits.npy")[labelled]), given) for end in ends]
    found = {"n": len(rows)} | confirmed(hits, agree)
    if found["warning"]:
        log.info(
            "warning: out-of-fold agreement rises from round to round, trusted samples do not confirm it: "
            "the rounds agree with themselves; look at review.html, or use fewer rounds"
        )
    return found


def write_results(run: Run, material: PreparedData, outcome: SelfTrainingResult, found: dict) -> None:
    """The tables that people open, and metrics.json. Only here is the truth of an experiment looked at."""
    judged, decisions, ledger = material.judged, outcome.decisions, RoundStore(run.path)
    write_csv(run.path / "labels.csv", labels_table(outcome, judged))
    metrics = {"mode": run.mode, "reason": outcome.reason, "round": outcome.round} | found
    metrics["rounds"] = ledger.rounds()
    labelled, pool, clean = judged.given >= 0, ~has_label(judged.given), _clean(material)
    if run.mode in REPAIRS and decisions:
        write_csv(run.path / "suspects.csv", escape_formulas(label_issues_table(decisions, judged)))
        known = clean[labelled] if "injected.csv" in material.truths else None
        given, label = judged.given[labelled], outcome.label[labelled]
        soft = decisions.each("soft")[labelled]
        metrics["noise"] = noise_scores(decisions.each("p_wrong")[labelled], given, label, known, soft)
        info = ledger.rounds()[outcome.round - 1]
        found = {key: info[key] for key in ("estimated_rate", "estimated_rate_interval") if info[key] is not None}
        z = ledger.rounds()[0].get("difficulty_z")  # the first round has chosen
        metrics["noise"] |= found | {"type": info["noise_type"], "difficulty_z": z}
        if run.config.pseudo.audit_size:
            metrics["audit"] = audit(run, judged, decisions)
    if run.mode in USES_POOL and decisions:
        write_csv(run.path / "pseudo_labels.csv", pseudo_labels_table(decisions, judged, outcome.round))
        known = clean[pool] if "hidden.csv" in material.truths else None
        cutoff = lowest_cutoff(decisions.confidence[decisions.decision == "accept"], run.config.pseudo)
        metrics["unlabeled"] = pool_scores(outcome.label[pool], known) | {"cutoff": cutoff}
    if decisions:
        metrics |= _out_of_fold(run, material, decisions)
    if steps := applied(run.path):
        metrics["human"] = {"files": len(steps)} | decided(run.path).action.value_counts().sort_index().to_dict()
    write_json(run.path / "metrics.json", metrics)


def _out_of_fold(run: Run, material: PreparedData, decisions: Decisions) -> dict:
    """Write oof.csv, oof.npy (its log-probabilities, row by row) and, where answers are tuned, thresholds.json."""
    judged, metric = material.judged, run.config.metric
    rows, classes = np.flatnonzero(has_label(judged.given)), judged.classes
    logs, labels = np.asarray(decisions.belief.log_probs[rows], np.float32), judged.given[rows]
    write_csv(run.path / "oof.csv", oof_table(decisions, judged))
    write_npy(run.path / "oof.npy", logs)
    found = score(logs, labels, classes)
    tested = 0 if run.mode in REPAIRS else material.tested  # labels that may be wrong promise nothing of a test set
    found |= {"interval": expected(found["accuracy"], len(rows), tested)}
    rule = tuned(metric, logs, labels, classes) if metric else None
    if rule:
        write_json(run.path / "thresholds.json", rule)
        found["tuned"] = {"before": rule["before"], "after": rule["after"]}
    return {"oof": found} | ({"oof_classes": of_classes(logs, labels, classes)} if len(classes) <= MANY else {})


def _clean(material: PreparedData) -> np.ndarray:
    """True labels of the judged samples where an experiment knows them, else the given ones."""
    samples = material.judged
    truth = {i: clean for table in material.truths.values() for i, clean in zip(table.id, table.clean, strict=True)}
    texts = [truth.get(i, given) for i, given in zip(samples.id, names(samples.given, samples.classes), strict=True)]
    return parse(texts, samples.classes, samples.given.ndim == 2)
