"""What a run came to: scores of its models, the tables that people open, metrics.json."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy import ndarray

from ..config.keys import USES_UNLABELED
from ..data.csv_text import escape_formulas
from ..data.dataset import SCORED_SPLITS, Dataset
from ..data.encoding import confidence, has_label, is_correct, names, parse
from ..labels.annotators import annotators_table
from ..labels.audit import STRATA, draw_sample, estimate, stratify
from ..labels.decide import REPAIRS
from ..labels.decisions import Decisions
from ..labels.metrics import (
    confirmed,
    expected,
    noise_scores,
    of_classes,
    paired_arms,
    score,
    share_interval,
    unlabeled_scores,
)
from ..labels.noise import VOTES
from ..labels.out_of_fold import OutOfFoldPredictions
from ..labels.pseudo_labels import reported_cutoff
from ..labels.thresholds import tuned
from ..report.tables import count_issues, label_issues_table, labels_table
from ..round_store import RoundStore, decisions_table, model_folders
from ..self_training import SelfTrainingResult
from ..system.files import seed_of, write_csv, write_json, write_npy
from .corrections import applied, decided, not_learned
from .folder import Run
from .suggest import score_suggested

if TYPE_CHECKING:  # they bring torch
    from ..training.models import TrainedModel
    from ..training.predict import Predict
    from .prepare import PreparedData

SCORED_COLUMNS = ["arm", "split", "id", "label", "predicted", "confidence"]
MAX_LISTED_CLASSES = 100
"""With more, metrics.json has no list of scores by class: nobody reads it."""


def score_arms(
    prepared: PreparedData, arms: dict[str, list[TrainedModel]], predict: Predict
) -> tuple[dict, pd.DataFrame]:
    """{arm: {split: scores}} on val, trusted and test, and the single predictions (as scored.csv holds them)."""
    from ..training.predict import mean_probs

    dataset = prepared.dataset
    scores = {}
    tables = []
    for (arm, models), split in product(arms.items(), SCORED_SPLITS):
        rows = np.flatnonzero(dataset.split == split)
        if not len(rows):
            continue
        labels = dataset.given_labels[rows]
        log_probs = np.log(mean_probs(models, rows, predict) + 1e-30)
        scores.setdefault(arm, {})[split] = score(log_probs, labels, dataset.classes)
        columns = {
            "arm": arm,
            "split": split,
            "id": dataset.id[rows],
            "label": names(labels, dataset.classes),
            "predicted": names(log_probs.argmax(-1), dataset.classes),
            "confidence": confidence(log_probs),
        }
        tables.append(pd.DataFrame(columns))
    return scores, pd.concat(tables) if tables else pd.DataFrame(columns=SCORED_COLUMNS)


def difference(scored: pd.DataFrame) -> dict | None:
    """What the student gains on the baseline, with its paired 95 % interval, on the most trustworthy split.

    None without a baseline, or where nothing is scored.
    """
    for split in reversed(SCORED_SPLITS):
        if gain := paired_arms(scored, (split,)):
            return {"split": split} | gain
    return None


def score_trusted(run: Run, prepared: PreparedData, predict: Predict) -> dict | None:
    """Whether the rounds helped where labels were checked by hand: the last round's teachers against the first's.

    The recipe is the same, only the labels that they learned differ. None without trusted samples or a second round.
    Warns when the held-out predictions agree more with the given labels than in the first round, and the trusted
    samples do not confirm it: then the rounds agree with themselves.
    """
    from ..training.models import load_models
    from ..training.predict import mean_probs

    dataset, judged = prepared.dataset, prepared.judged
    rows = np.flatnonzero(dataset.split == "trusted")
    n_rounds = len(RoundStore(run.path).rounds())
    if not len(rows) or n_rounds < 2:
        return None
    labeled = has_label(judged.given_labels)
    trusted_hits, out_of_fold_hits = [], []
    for number in (1, n_rounds):
        teachers = load_models(model_folders(run.path, number))
        answers = mean_probs(teachers, rows, predict).argmax(-1)
        trusted_hits.append(is_correct(answers, dataset.given_labels[rows]))
        log_probs = np.load(run.path / f"round_{number}" / "log_probs.npy")[labeled]
        out_of_fold_hits.append(is_correct(log_probs.argmax(-1), judged.given_labels[labeled]))
    return {"n": len(rows)} | confirmed(trusted_hits, out_of_fold_hits)


def write_tables(run: Run, prepared: PreparedData, result: SelfTrainingResult) -> dict:
    """Write the tables that people open.

    Returns:
        What metrics.json is to hold beside the scores of the models.
    """
    judged, decisions = prepared.judged, result.decisions
    rounds = RoundStore(run.path).rounds()
    metrics = {"mode": run.mode, "reason": result.reason, "round": result.round, "rounds": rounds}
    if prepared.outside.facts:
        facts = metrics["predictions"] = prepared.outside.facts | {"student": run.trains}
        if prepared.outside.fits_weights and rounds:
            key = "member_weights" if prepared.outside.teachers else "file_weights"
            facts["weights"] = rounds[max(result.round, 1) - 1][key]
    metrics |= write_label_tables(run, judged, result, prepared.truths)
    if decisions:
        metrics |= _score_out_of_fold(run, prepared, decisions)
        if judged.votes is not None and judged.votes.annotators:
            metrics["annotators"] = _describe_annotators(run, prepared, decisions)
    elif result.predicted:
        metrics["oof"] = _score_part(prepared, result.predicted)
    return metrics


def write_label_tables(
    run: Run, judged: Dataset, result: SelfTrainingResult, truths: dict[str, pd.DataFrame]
) -> dict:
    """Write the tables of labels. Only here is the truth of an experiment looked at.

    Args:
        truths: see PreparedData.

    Returns:
        What metrics.json says of labels: all that human decisions change without a training.
    """
    metrics, decisions = {}, result.decisions
    write_csv(run.path / "labels.csv", labels_table(result, judged))
    if decisions:
        table = decisions_table(decisions, judged, "").assign(path=judged.path)
        is_given = table.given_label != ""
        labeled = table[is_given]
        if run.mode in REPAIRS:
            issues = label_issues_table(labeled)
            write_csv(run.path / "label_issues.csv", escape_formulas(issues))
            metrics["noise"] = _score_noise(run, judged, result, truths) | count_issues(issues)
            if run.config.pseudo.audit_size:
                metrics["audit"] = _audit(run, labeled)
        if run.mode in USES_UNLABELED:
            accepted = table[~is_given & (table.label != "")].assign(round=result.round)
            columns = ["id", "path", "label", "confidence", "round"]
            write_csv(run.path / "pseudo_labels.csv", accepted[columns])
            clean = _clean_labels(judged, truths.get("hidden.csv"), ~is_given)
            cutoff = reported_cutoff(accepted.confidence, run.config.pseudo)
            metrics["unlabeled"] = unlabeled_scores(result.label[~is_given], clean) | {
                "cutoff": cutoff
            }
            if run.mode not in REPAIRS and (precision := _estimate_precision(accepted, labeled)):
                metrics["unlabeled"]["out_of_fold"] = precision
        oof = labeled[["id", "given_label", "predicted", "confidence"]]
        write_csv(run.path / "oof.csv", oof.rename(columns={"given_label": "label"}))
    of_people = judged.given_labels.copy()
    of_people[result.human] = result.label[result.human]
    if suggested := score_suggested(run.path, judged, of_people):
        metrics["suggested"] = suggested
    if steps := applied(run.path):
        actions = decided(run.path).groupby("action").size().to_dict()
        metrics["human"] = {"files": len(steps)} | actions
        if n := not_learned(run.path):
            metrics["not_learned"] = n
    return metrics


def _estimate_precision(accepted: pd.DataFrame, labeled: pd.DataFrame) -> dict | None:
    """How many given labels are predicted right with at least the confidence that its class asked of pseudo-labels.

    Both: rows of decisions_table. None where there is no such row.
    """
    lowest = accepted.groupby("label").confidence.min()
    alike = labeled[labeled.confidence >= labeled.predicted.map(lowest)]
    if alike.empty:
        return None
    precision = float((alike.predicted == alike.given_label).mean())
    return {"n": len(alike), "precision": precision} | share_interval(precision, len(alike))


def _score_noise(
    run: Run, judged: Dataset, result: SelfTrainingResult, truths: dict[str, pd.DataFrame]
) -> dict:
    """How well wrong labels were found, and what the round that decided says of the noise."""
    given_labels, decisions = judged.given_labels, result.decisions
    rounds = RoundStore(run.path).rounds()
    answered = given_labels >= 0
    scores = noise_scores(
        decisions.each("p_wrong")[answered],
        given_labels[answered],
        result.label[answered],
        _clean_labels(judged, truths.get("injected.csv"), answered),
    )
    decisive = rounds[result.round - 1]
    for key in ("estimated_rate", "estimated_rate_interval"):
        if key in decisive:
            scores[key] = decisive[key]
    # the first round chooses the kind of noise
    return scores | {
        "type": decisive.get("noise_type"),
        "difficulty_z": rounds[0].get("difficulty_z"),
    }


def _describe_annotators(run: Run, prepared: PreparedData, decisions: Decisions) -> list[dict]:
    """Write annotators.csv; its rows."""
    judged = prepared.judged
    rows = np.flatnonzero(judged.given_labels >= 0)
    truth = judged.soft_labels[rows]
    if decisions.noise == VOTES:
        truth = decisions.posterior(rows)
    table = annotators_table(judged.votes.take(rows), truth, judged.classes)
    write_csv(run.path / "annotators.csv", escape_formulas(table))
    return table.replace({np.nan: None}).to_dict("records")


def _audit(run: Run, labeled: pd.DataFrame) -> dict:
    """Write audit.csv, a sample for a person to judge, and return what the rows judged so far say.

    What is measured are the automatic decisions; human ones only say what is true. Sampled rows that a person
    relabeled or dropped were wrong; ambiguous ones are counted, but not as wrong.

    Args:
        labeled: the labeled rows of decisions_table.
    """
    p_wrong = labeled.p_wrong.to_numpy()
    stratum = stratify(p_wrong)
    seed = seed_of(run.config.seed, "audit")
    rows, weights = draw_sample(stratum, run.config.pseudo.audit_size, seed)
    sample = labeled[["id", "path", "given_label"]].iloc[rows].reset_index(drop=True)
    table = sample.assign(stratum=np.array(STRATA)[stratum[rows]], weight=weights)
    write_csv(run.path / "audit.csv", escape_formulas(table))
    actions = sample.id.map(decided(run.path).set_index("id").action).dropna()
    wrong = actions.isin(["relabel", "drop"]).to_numpy()
    n_ambiguous = int((actions == "ambiguous").sum())
    counts = {"n": len(rows), "reviewed": len(actions), "ambiguous": n_ambiguous}
    return counts | estimate(stratum, rows[actions.index], wrong, float(p_wrong.mean()))


def _score_part(prepared: PreparedData, predicted: OutOfFoldPredictions) -> dict:
    """The out-of-fold scores of the rows that were judged before a time budget ended the first round."""
    judged = prepared.judged
    rows = np.flatnonzero(has_label(judged.given_labels) & (predicted.predicted_by != ""))
    scores = score(predicted.log_probs[rows], judged.given_labels[rows], judged.classes)
    return scores | {"interval": expected(scores["accuracy"], len(rows), 0)}


def _score_out_of_fold(run: Run, prepared: PreparedData, decisions: Decisions) -> dict:
    """Write oof_log_probs.npy, and, where answers are tuned, thresholds.json; return the out-of-fold scores."""
    classes = prepared.judged.classes
    rows = np.flatnonzero(has_label(prepared.judged.given_labels))
    labels = prepared.judged.given_labels[rows]
    log_probs = np.asarray(decisions.posterior.log_probs[rows], np.float32)
    write_npy(run.path / "oof_log_probs.npy", log_probs)
    scores = score(log_probs, labels, classes)
    # labels that may be wrong promise nothing of a test set
    n_test = 0 if run.mode in REPAIRS else prepared.tested
    scores["interval"] = expected(scores["accuracy"], len(rows), n_test)
    if rule := tuned(run.config.metric, log_probs, labels, classes):
        write_json(run.path / "thresholds.json", rule)
        scores["tuned"] = {"before": rule["before"], "after": rule["after"]}
    if len(classes) > MAX_LISTED_CLASSES:
        return {"oof": scores}
    return {"oof": scores, "oof_classes": of_classes(log_probs, labels, classes)}


def _clean_labels(judged: Dataset, truth: pd.DataFrame | None, rows: ndarray) -> ndarray | None:
    """True labels of these rows (a mask), where the table of an experiment has them, else the given ones.

    None where there is no such table: then nobody knows.
    """
    if truth is None:
        return None
    texts = judged.table().set_index("id").given_label
    texts.update(truth.set_index("id").clean)
    return parse(texts, judged.classes, judged.given_labels.ndim == 2)[rows]
