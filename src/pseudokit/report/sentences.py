"""What a run achieved, in a few sentences for the top of report.html and for the terminal. Reads metrics.json only."""

from __future__ import annotations

from typing import Any

from ..labels.noise import OF_THE_CLASS
from .load_run import decisive_round, scored_model
from .report_tables import DECISIONS, accuracy_interval, between, duration, percent

METHODS = {
    "denoise": "Repairing labels",
    "augment": "Pseudo-labels",
    "joint": "Repair and pseudo-labels",
}
REASONS = {
    "no_change": "hardly a label changed any more",
    "max_rounds": "all rounds were run",
    "no_gain": "a further round brought no gain",
    "learned_nothing": "the models are no better than chance, so no label was changed",
    "collapse": "the pseudo-labels fell on hardly any class",
    "time_budget": "the time budget was spent",
}
NOISE_TYPES = {
    "uniform": "The noise is uniform: all wrong classes are about equally frequent.",
    "pair": "It is pair noise: most wrong labels of a class are one other class.",
    "class-dependent": "How often a label is wrong depends on the class.",
    "difficulty": "Harder images have more wrong labels, as usual where people label. This explains the given labels "
    "better than noise that depends on the class alone.",
    "look-alike": "The noise is on images that no model can tell apart, so nothing is relabeled. Decide by hand in "
    "review.html, or set pseudo.uncertain_labels=review to keep these labels.",
}
DISPUTED = ("relabel", "soften", "downweight", "drop", "review")
"""Decisions on given labels that are probably wrong."""


def headline(metrics: dict[str, Any]) -> list[str]:
    """The shortest answer first: did it help; then labels, pseudo-labels, out of fold, checks by hand."""
    counts = decisive_round(metrics).get("decisions") or {}
    sentences = [
        result_sentence(metrics),
        noise_sentence(metrics.get("noise") or {}, counts),
        pseudo_label_sentence(metrics.get("unlabeled") or {}),
        out_of_fold_sentence(metrics.get("oof") or {}, metrics.get("mode") in ("train", "augment")),
        trusted_sentence(metrics.get("trusted") or {}),
        audit_sentence(metrics.get("audit") or {}),
        human_sentence(metrics),
    ]
    return [sentence for sentence in sentences if sentence]


def result_sentence(metrics: dict[str, Any]) -> str:
    """What the student gains on the baseline; without a baseline, its accuracy."""
    scores = metrics.get("scores") or {}
    mode = metrics.get("mode")
    if difference := metrics.get("difference"):
        text = f"student − baseline {points(difference, 'gain')} on {difference['n']:,} {difference['split']} images."
        verdict = "made no clear difference"
        if difference["low"] > 0:
            verdict = "helped"
        elif difference["high"] < 0:
            verdict = "hurt"
        return f"{METHODS[mode]} {verdict}: {text}" if mode in METHODS else text
    split, model = scored_model(scores)
    if not split:
        return "No image was kept apart for scoring (data.test, data.val), so nothing shows whether the run helped."
    values = scores[model][split]
    text = (
        f"The {model} is right on {percent(values['accuracy'])} of {values['n']:,} {split} images"
    )
    return f"{text} (95 % interval {accuracy_interval(values)})."


def points(values: dict[str, float], key: str) -> str:
    """`+0.85 points (95 % interval +0.51 to +1.19)`"""
    value, low, high = 100 * values[key], 100 * values["low"], 100 * values["high"]
    return f"{value:+.2f} points (95 % interval {low:+.2f} to {high:+.2f})"


def noise_sentence(noise: dict[str, Any], counts: dict[str, int]) -> str:
    """How many given labels are wrong, what kind of noise it is, what was done, and the truth where it is known."""
    if not noise:
        return ""
    text = f"Of {noise['n']:,} given labels, {percent(noise['estimated_rate'])} are estimated to be wrong"
    if interval := noise.get("estimated_rate_interval"):
        text += f" (95 % interval {between(*interval)})"
    disputed = [
        f"{counts[decision]:,} {DECISIONS[decision]}"
        for decision in DISPUTED
        if counts.get(decision)
    ]
    text += f": {', '.join(disputed) or 'none is changed'}."
    if noise.get("type") in NOISE_TYPES:
        text += f" {NOISE_TYPES[noise['type']]}"
    if noise.get("type") in OF_THE_CLASS and noise.get("difficulty_z") is not None:
        text += (
            " This explains the given labels better than more wrong labels on hard images would."
        )
    if noise.get("injected_rate") is not None:
        before, after = percent(noise["injected_rate"]), percent(noise["residual_rate"])
        text += f" The truth is known: wrong labels went from {before} to {after}"
        precision = noise["average_precision"]
        text += (
            "." if precision is None else f", found with an average precision of {precision:.4f}."
        )
    return text


def pseudo_label_sentence(unlabeled: dict[str, Any]) -> str:
    """How many unlabeled images got a pseudo-label, and how many of these are right where the truth is known."""
    if not unlabeled:
        return ""
    text = f"{unlabeled['pseudo_labels']:,} of {unlabeled['n']:,} unlabeled images"
    text += f" ({percent(unlabeled['coverage'])}) got a pseudo-label"
    right = unlabeled.get("accuracy")
    return f"{text}." if right is None else f"{text}; {percent(right)} of these are right."


def out_of_fold_sentence(oof: dict[str, Any], trusts_labels: bool) -> str:
    """What out-of-fold rows promise of the test set, and what tuned answers gain on them.

    trusts_labels: given labels are taken as right. If they may be wrong, agreement with them promises nothing.
    """
    text = ""
    if oof and trusts_labels:
        interval = oof["interval"]
        text = f"Out of fold, {percent(oof['accuracy'])} of {oof['n']:,} given labels are predicted right"
        text += f" (95 % interval {between(interval['low'], interval['high'])})."
        if interval.get("test_n"):
            expected = between(interval["test_low"], interval["test_high"])
            text += f" On the {interval['test_n']:,} test images, expect {expected}."
    if tuned := oof.get("tuned"):
        text += f" Tuned answers: {tuned['before']:.4f} → {tuned['after']:.4f}, on rows that they were not tuned on."
    return text.strip()


def trusted_sentence(trusted: dict[str, Any]) -> str:
    """Whether images checked by hand confirm what the rounds did."""
    if not trusted:
        return ""
    text = f"On {trusted['n']:,} trusted images, the teachers of the last round differ from those of the first by "
    text += f"{points(trusted, 'gain')}."
    if trusted["warning"]:
        text += " Warning: agreement with the given labels rose, and the trusted images do not confirm it."
    return text


def audit_sentence(audit: dict[str, Any]) -> str:
    """What the sample that a person reviewed says of the given labels, the flags and the estimate."""
    if not audit:
        return ""
    n, reviewed = audit["n"], audit["reviewed"]
    if not reviewed:
        return (
            f"Audit: {n:,} rows are drawn and none is reviewed yet. Choose `audit` in review.html."
        )
    shares = {
        "noise_rate": "of the given labels are wrong",
        "flag_precision": "of the flagged labels are wrong",
    }
    parts = []
    for key, text in shares.items():
        if share := audit[key]:
            parts.append(
                f"{percent(share['value'])} {text} ({between(share['low'], share['high'])})"
            )
    if error := audit["estimate_error"]:
        parts.append(f"the estimated rate is off by {points(error, 'value')}")
    text = f"Audit, {reviewed:,} of {n:,} rows reviewed, 95 % intervals: {', '.join(parts) or 'too few yet'}."
    return (
        text
        if reviewed == n
        else f"{text} A part of the sample counts only if it was picked at random."
    )


def human_sentence(metrics: dict[str, Any]) -> str:
    """How many decisions of a person were applied, and whether the rounds changed anything at all."""
    text = ""
    if metrics.get("round") == 0:
        text = "The student learned the given labels: no round changed them. "
    human = {action: n for action, n in (metrics.get("human") or {}).items() if action != "files"}
    if human:
        listed = ", ".join(f"{n:,} {action}" for action, n in human.items())
        text += f"{sum(human.values()):,} decisions of a person were applied ({listed})."
    return text.strip()


def run_facts(metrics: dict[str, Any], status: dict[str, Any]) -> str:
    """The small line below the headline: mode, rounds, why they ended, time."""
    rounds = len(metrics.get("rounds") or [])
    reason = metrics.get("reason") or status.get("reason") or ""
    seconds = metrics.get("seconds") or {}
    parts = [
        f"mode {metrics['mode']}" if metrics.get("mode") else "",
        f"{rounds} round{'s' * (rounds != 1)}",
    ]
    if reason and metrics.get("mode") != "train":
        parts.append(f"ended with {reason}: {REASONS[reason]}" if reason in REASONS else reason)
    if seconds:
        parts.append(duration(seconds.get("total", sum(seconds.values()))))
    return " · ".join(part for part in parts if part)


def warning(status: dict[str, Any]) -> str:
    """Shown on top of the page when the run did not come to its end."""
    if status.get("state", "done") in (
        "done",
        "running",
    ):  # running: the report is a stage of the run itself
        return ""
    stage = status.get("stage", "an unknown stage")
    return f"This run is not complete: {status['state']} at {stage}. {status.get('reason', '')}"
