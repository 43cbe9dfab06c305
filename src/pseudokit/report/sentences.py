"""What a run achieved, in a few sentences for the top of report.html and for the terminal. Reads metrics.json only."""

import pandas as pd

from ..labels.decisions import NOTHING_LEARNED
from ..labels.noise import OF_THE_CLASS
from .load_run import scored_model
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
    "votes": "Votes and images are weighed together; each annotator has confusions of their own.",
    "look-alike": "Wrong labels lie where images look like the class that they were given, and get rarer where models "
    "are confident, so nothing is relabeled. Decide by hand in review.html, or set pseudo.uncertain_labels=review to "
    "keep these labels.",
}
STOP = {
    "": "Go on labeling.",
    "few_errors": "Enough is labeled: hardly an error is left.",
    "no_gain": "Twice in a row the choice found no more errors than chance: end here, or label random images.",
}


def headline(metrics: dict) -> list[str]:
    """The answer to the question of the run first, what is not known last."""
    sentences = [write(metrics) for part, write in SENTENCES if part in metrics]
    return [sentence for sentence in sentences if sentence]


def result_sentence(metrics: dict) -> str:
    """What the student gains on the baseline; without a baseline, its accuracy; "" where nothing is scored."""
    if difference := metrics.get("difference"):
        verdict = "made no clear difference"
        if difference["low"] > 0:
            verdict = "helped"
        elif difference["high"] < 0:
            verdict = "hurt"
        return (
            f"{METHODS[metrics['mode']]} {verdict}: student − baseline {points(difference, 'gain')} "
            f"on {difference['n']:,} {difference['split']} images."
        )
    split, model = scored_model(metrics["scores"])
    if not split:
        return ""
    scores = metrics["scores"][model][split]
    return (
        f"The {model} is right on {percent(scores['accuracy'])} of {scores['n']:,} {split} images "
        f"(95 % interval {accuracy_interval(scores)})."
    )


def points(values: dict[str, float], key: str) -> str:
    """`+0.85 points (95 % interval +0.51 to +1.19)`"""
    value, low, high = 100 * values[key], 100 * values["low"], 100 * values["high"]
    return f"{value:+.2f} points (95 % interval {low:+.2f} to {high:+.2f})"


def outside_sentence(metrics: dict) -> str:
    """What speaks against predictions from outside being held out."""
    warnings = metrics["predictions"].get("warnings", [])
    return " ".join(f"Warning: {warning}." for warning in warnings)


def unknown_sentence(metrics: dict) -> str:
    """That nothing shows whether the run helped, and what would."""
    if result_sentence(metrics):
        return ""
    if "predictions" in metrics and not metrics["predictions"]["student"]:
        return "No model was trained: predictions from outside judge the given labels."
    return (
        "Whether the run helped is not known, as no image was kept apart for scoring: give labeled images as data.test "
        "or data.val."
    )


def issues_sentence(metrics: dict) -> str:
    """How many given labels are probably wrong, and what became of them."""
    noise = metrics["noise"]
    if metrics["reason"] == NOTHING_LEARNED:
        return "The models are no better than chance, so nothing is known of the given labels."
    text = f"{noise['issues']:,} of {noise['labels']:,} given labels are probably wrong"
    if noise["uncertain"]:
        text += f", and {noise['uncertain']:,} more are uncertain"
    decided = [f"{n:,} {DECISIONS[name]}" for name, n in noise["decided"].items()]
    return f"{text}: {', '.join(decided)}." if decided else f"{text}."


def noise_sentence(metrics: dict) -> str:
    """The estimated share of wrong labels, what kind of noise it is, and the truth where it is known."""
    noise = metrics["noise"]
    if metrics["reason"] == NOTHING_LEARNED:
        return ""
    text = f"Estimated share of wrong labels: {percent(noise['estimated_rate'])}"
    if interval := noise.get("estimated_rate_interval"):
        text += f" (95 % interval {between(*interval)})"
    text += "."
    if noise["type"] in NOISE_TYPES:
        text += f" {NOISE_TYPES[noise['type']]}"
    if noise["type"] in OF_THE_CLASS and noise["difficulty_z"] is not None:
        text += (
            " This explains the given labels better than more wrong labels on hard images would."
        )
    if precision := noise.get("average_precision"):
        text += f" The truth is known: wrong labels went from {percent(noise['injected_rate'])} to "
        text += f"{percent(noise['residual_rate'])}, found with an average precision of {precision:.4f}."
    return text


def pseudo_label_sentence(metrics: dict) -> str:
    """How many unlabeled images got a pseudo-label, and how many of these are right where the truth is known."""
    unlabeled = metrics["unlabeled"]
    text = f"{unlabeled['pseudo_labels']:,} of {unlabeled['n']:,} unlabeled images "
    text += f"({percent(unlabeled['coverage'])}) got a pseudo-label"
    if "accuracy" in unlabeled:
        text += f"; {percent(unlabeled['accuracy'])} of these are right"
    elif held_out := unlabeled.get("out_of_fold"):
        text += f"; about {percent(held_out['precision'])} of these are right (95 % interval "
        text += f"{between(held_out['low'], held_out['high'])}), as of {held_out['n']:,} given labels that are "
        text += "predicted out of fold with such confidence"
    return f"{text}."


def out_of_fold_sentence(metrics: dict) -> str:
    """What out-of-fold rows promise of the test set, and what tuned answers gain on them.

    Where given labels may be wrong, agreement with them promises nothing.
    """
    scores = metrics["oof"]
    interval = scores["interval"]
    text = ""
    if metrics["mode"] in ("train", "augment"):
        text = f"Out of fold, {percent(scores['accuracy'])} of {scores['n']:,} given labels are predicted right "
        text += f"(95 % interval {between(interval['low'], interval['high'])})."
        if "test_n" in interval:
            expected = between(interval["test_low"], interval["test_high"])
            text += f" On the {interval['test_n']:,} test images, expect {expected}."
    if tuned := scores.get("tuned"):
        text += f" Tuned answers: {tuned['before']:.4f} → {tuned['after']:.4f}, on rows that they were not tuned on."
    return text.strip()


def trusted_sentence(metrics: dict) -> str:
    """Whether images checked by hand confirm what the rounds did."""
    trusted = metrics["trusted"]
    text = f"On {trusted['n']:,} trusted images, the teachers of the last round differ from those of the first by "
    text += f"{points(trusted, 'gain')}."
    if trusted["warning"]:
        text += " Warning: agreement with the given labels rose, and the trusted images do not confirm it."
    return text


def audit_sentence(metrics: dict) -> str:
    """What the sample that a person reviewed says of the given labels, the flags and the estimate."""
    audit = metrics["audit"]
    n, reviewed = audit["n"], audit["reviewed"]
    if not reviewed:
        return (
            f"Audit: {n:,} rows are drawn and none is reviewed yet. Choose `audit` in review.html."
        )
    parts = []
    for key, labels in {"noise_rate": "given", "flag_precision": "flagged"}.items():
        if share := audit[key]:
            interval = between(share["low"], share["high"])
            parts.append(f"{percent(share['value'])} of the {labels} labels are wrong ({interval})")
    if error := audit["estimate_error"]:
        parts.append(f"the estimated rate is off by {points(error, 'value')}")
    text = f"Audit, {reviewed:,} of {n:,} rows reviewed, 95 % intervals: {', '.join(parts) or 'too few yet'}."
    if reviewed < n:
        text += " A part of the sample counts only if it was picked at random."
    return text


def round_sentence(metrics: dict) -> str:
    """Whether the rounds changed anything at all."""
    student = metrics.get("predictions", {}).get("student", True)
    if metrics["round"] or metrics["reason"] == "time_budget" or not student:
        return ""  # round 0 for want of time: there is no student
    return "The student learned the given labels: no round changed them."


def time_budget_sentence(metrics: dict) -> str:
    """What the time budget left out: networks, and by its plan keys; how far the rows are judged then."""
    facts = metrics["time_budget"]
    text = ""
    if facts["untrained"]:
        text = f"For want of time, networks are not trained: {listed(facts['untrained'])}."
        if not metrics["round"] and "oof" in metrics:
            oof = metrics["oof"]
            text += f" {oof['n']:,} labeled images are judged so far, and {percent(oof['accuracy'])} of their given "
            text += "labels are predicted."
    if facts["changes"]:
        text += f" The plan of the time budget changed {', '.join(facts['changes'])}."
    return text.strip()


def human_sentence(metrics: dict) -> str:
    """How many decisions of a person were applied."""
    counts = {action: n for action, n in metrics["human"].items() if action != "files"}
    return f"{sum(counts.values()):,} decisions of a person were applied ({listed(counts)})."


def suggested_sentence(metrics: dict) -> str:
    """What labels of suggested images say: the error on the pool, whether the choice beat chance, when to stop."""
    return " ".join(_suggested_by(*item) for item in metrics["suggested"].items())


def _suggested_by(name: str, scores: dict) -> str:
    random, gain = scores["random"], scores["gain"]
    verdict = "beats chance" if gain["low"] > 0 else "is not proved to beat chance"
    return (
        f"Images that {name} suggested have labels now: its teachers are wrong on {percent(random['error'])} of "
        f"{random['n']:,} random unlabeled images (95 % interval {between(random['low'], random['high'])}). Error on "
        f"chosen images − on random ones: {points(gain, 'gain')}; the choice {verdict}. {STOP[scores['stop']]}"
    )


def not_learned_sentence(metrics: dict) -> str:
    """Decisions that the student of today does not know."""
    return (
        f"The student has not learned {metrics['not_learned']:,} of them: its scores are those of before. "
        "--mode apply without --labels-only trains it."
    )


def listed(counts: dict[str, int] | pd.Series) -> str:
    """`1,200 keep, 30 relabel`"""
    return ", ".join(f"{n:,} {name}" for name, n in counts.items())


SENTENCES = (
    ("noise", issues_sentence),
    ("scores", result_sentence),
    ("unlabeled", pseudo_label_sentence),
    ("predictions", outside_sentence),
    ("noise", noise_sentence),
    ("oof", out_of_fold_sentence),
    ("trusted", trusted_sentence),
    ("audit", audit_sentence),
    ("round", round_sentence),
    ("time_budget", time_budget_sentence),
    ("human", human_sentence),
    ("not_learned", not_learned_sentence),
    ("suggested", suggested_sentence),
    ("scores", unknown_sentence),
)
"""Part of metrics.json, and what says it; the order of the page."""


def run_facts(metrics: dict) -> str:
    """The small line below the headline: mode, rounds, why they ended, time."""
    n_rounds = len(metrics["rounds"])
    facts = [f"mode {metrics['mode']}", f"{n_rounds} round{'s' * (n_rounds != 1)}"]
    if metrics["mode"] != "train":
        facts.append(f"ended with {metrics['reason']}: {REASONS[metrics['reason']]}")
    facts.append(duration(metrics["seconds"]["total"]))
    return " · ".join(facts)
