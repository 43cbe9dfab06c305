"""What a run says in sentences. Pure: from what `read_run` returns to text."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ..labels.metrics import paired_arms, share_interval
from ..labels.noise import OF_THE_CLASS
from .summary import ARMS, SPLITS, between, duration, percent, show

WHAT = {"denoise": "Repairing labels", "augment": "Pseudo-labels", "joint": "Repair and pseudo-labels"}
REASONS = {
    "no_change": "hardly a label changed any more",
    "max_rounds": "all rounds were run",
    "no_gain": "a further round brought no gain",
    "learned_nothing": "held-out predictions were no better than chance, so that no label was changed",
    "collapse": "the pseudo-labels fell on hardly any class",
    "time_budget": "the time budget was spent",
}
FATES = {
    "relabel": "relabeled",
    "soften": "softened",
    "downweight": "down-weighted",
    "drop": "dropped",
    "review": "to review",
}
NOISE = {
    "uniform": "The noise looks uniform: all wrong classes about alike.",
    "pair": "The noise looks like pair noise: most wrong labels of a class are one other class.",
    "class-dependent": "The noise depends on the class.",
    "difficulty": "The noise depends on the image: harder images have more wrong labels, as is usual of people. This "
    "explains the given labels better than noise that depends on the class alone.",
    "look-alike": "It lies on images that the models find hard, where statistics cannot tell a wrong label from a hard "
    "image: such labels are softened, or weigh less. Look at the review page, or set "
    "pseudo.uncertain_labels=review to keep them.",
}


def headline(data: dict[str, Any]) -> list[str]:
    """What the run achieved, in a few sentences, the shortest answer first: did it help, labels, pool, audit."""
    metrics, counts = data["metrics"], data["decisive"].get("decisions") or {}
    scores, mode = metrics.get("scores") or {}, metrics.get("mode", "")
    sentences = [
        *(score_sentences(scores, data["scored"], mode) or [unscored_sentence(mode)]),
        "" if scores and mode != "train" else held_out_sentence(data),
        expected_sentence(metrics.get("oof") or {}),
        given_sentence(counts, metrics.get("noise") or {}),
        pool_sentence(counts, metrics.get("unlabeled") or {}),
        trusted_sentence(metrics.get("trusted") or {}),
        audit_sentence(metrics.get("audit") or {}),
    ]
    return [s for s in sentences if s] or ["This run has no scores yet."]


def score_sentences(scores: dict, scored: pd.DataFrame | None, mode: str) -> list[str]:
    """Did it help: the student against the baseline (or the teacher) on the most trustworthy rows scored."""
    split, arm, base = compared(scores)
    if not arm:
        return []
    found, n = accuracies(scores, split), scores[arm][split].get("n")
    said = f"The {arm} scores {percent(found[arm])} on {show('n', n)} {split} samples"
    if not base:
        _, low, high = share_interval(found[arm], n).values()
        return [f"{said} (95 % interval {100 * low:.2f} to {percent(high)})."]
    against = f"{100 * (found[arm] - found[base]):+.2f} points against the {base} ({percent(found[base])}"
    gain = paired(scored, split, base)
    if gain is None:
        return [f"{said}, {against})."]
    against += f"; 95 % interval {100 * gain['low']:+.2f} to {100 * gain['high']:+.2f})."
    against += f" The student alone is right on {gain['won']:,} of them, the {base} alone on {gain['lost']:,}."
    if mode not in WHAT:  # plain training promised nothing
        return [f"{said}.", f"That is {against}"]
    predicted = "helped" if gain["low"] > 0 else "hurt" if gain["high"] < 0 else "made no clear difference"
    return [f"{WHAT[mode]} {predicted}.", f"{said}, {against}"]


def compared(scores: dict) -> tuple[str, str, str]:
    """(role, arm, what the arm is compared with): the most trustworthy role that was scored; "" where there is none."""
    split = next((split for split in SPLITS if accuracies(scores, split)), "")
    arm = next(reversed(accuracies(scores, split)), "")
    others = accuracies(scores, split) if arm == "student" else ()
    return split, arm, next((name for name in ("baseline", "teacher") if name in others), "")


def accuracies(scores: dict[str, dict], split: str) -> dict[str, float]:
    """arm → accuracy on a role, for the arms that have one."""
    values = {arm: scores.get(arm, {}).get(split, {}).get("accuracy") for arm in ARMS}
    return {arm: value for arm, value in values.items() if value is not None}


def paired(scored: pd.DataFrame | None, split: str, base: str) -> dict[str, float] | None:
    """The student's gain over `base` on the rows that both judged, its 95 % interval (shares), rows won and lost."""
    return None if scored is None else paired_arms(scored, (split,), base)


def gauge(data: dict[str, Any]) -> dict[str, Any] | None:
    """Where gain, interval and zero lie on a scale of 0 to 100 with zero in its middle; None without a comparison."""
    split, _, base = compared(data["metrics"].get("scores") or {})
    gain = paired(data["scored"], split, base) if base else None
    most = 1.1 * max(abs(gain["low"]), abs(gain["high"])) if gain else 0
    if not most:
        return None
    at = {key: round(50 + 50 * gain[key] / most, 1) for key in ("low", "gain", "high")}
    return at | {"base": base, "width": round(at["high"] - at["low"], 1)}


def expected_sentence(oof: dict[str, Any]) -> str:
    """What out-of-fold rows promise of the test set, and what tuned answers gain on them."""
    about, tuned = oof.get("interval") or {}, oof.get("tuned")
    text = ""
    if about.get("test_n"):
        text = (
            f"Out of fold {percent(oof['accuracy'])} are right; of the {about['test_n']:,} test samples expect "
            f"{100 * about['test_low']:.2f} to {percent(about['test_high'])}."
        )
    if tuned:
        text += f" Tuned answers: {tuned['before']:.4f} → {tuned['after']:.4f}, on rows that they were not tuned on."
    return text.strip()


def unscored_sentence(mode: str) -> str:
    """Said in place of the scores where a run that wants to help has none."""
    if mode not in WHAT:
        return ""
    return "Whether it helped is not known: no row with a label was kept apart for scoring (data.test, data.val)."


def difference_text(found: dict[str, Any]) -> str:
    """`+0.85 points (95 % interval +0.51 to +1.19; test, n = 10,000)`: the student against the baseline."""
    gain, low, high = (f"{100 * found[key]:+.2f}" for key in ("gain", "low", "high"))
    within = "; within noise" if found["low"] <= 0 <= found["high"] else ""
    return f"{gain} points (95 % interval {low} to {high}; {found['split']}, n = {found['n']:,}){within}"


def held_out_sentence(data: dict[str, Any]) -> str:
    """How far models that had not learned them agree with the given labels."""
    share, decisions = data["decisive"].get("oof_accuracy"), data["decisions"]
    n = 0 if decisions is None else int((decisions["given_label"] != "").sum())
    if share is None or not n:
        return ""
    _, low, high = share_interval(share, n).values()
    return (
        f"Models that had not learned them agree with {percent(share)} of the {n:,} given labels "
        f"(95 % interval {100 * low:.2f} to {percent(high)})."
    )


def given_sentence(counts: dict[str, int], noise: dict[str, Any]) -> str:
    """How many given labels were found suspect, their fate, and what is left where the truth is known."""
    fates = {word: n for name, word in FATES.items() if (n := counts.get(name, 0))}
    label_issues = sum(fates.values())
    if not label_issues and noise.get("estimated_rate") is None:
        return ""
    said = ", ".join(f"{n:,} {word}" for word, n in fates.items()) or "none"
    total = label_issues + counts.get("keep", 0)
    text = f"Of {total:,} given labels {label_issues:,} were found wrong or doubtful: {said}."
    if noise.get("estimated_rate") is not None:
        text += f" The estimated rate of wrong labels is {percent(noise['estimated_rate'])}"
        low, high = noise.get("estimated_rate_interval") or (None, None)
        text += "." if low is None else f" (95 % interval {100 * low:.2f} to {percent(high)})."
        text += f" {NOISE[noise['type']]}" if noise.get("type") in NOISE else ""
        if noise.get("type") in OF_THE_CLASS and noise.get("difficulty_z") is not None:
            text += " That explains the given labels better than wrong labels on hard images would."
    before, after = noise.get("injected_rate"), noise.get("residual_rate")
    if before is not None and after is not None:
        verb = "fell" if after < before else "went"
        text += f" The truth is known: wrong labels {verb} from {percent(before)} to {percent(after)}"
        ap = noise.get("average_precision")
        text += "." if ap is None else f", found with an average precision of {ap:.4f}."
    return text


def pool_sentence(counts: dict[str, int], pool: dict[str, Any]) -> str:
    """How much of the pool was labeled, and how well where the truth is known."""
    accepted = counts.get("accept", 0)
    n = accepted + counts.get("leave", 0) or pool.get("n", 0)
    if not n:
        return ""
    right = "" if pool.get("accuracy") is None else f", {percent(pool['accuracy'])} of them right"
    return f"{accepted:,} of {n:,} pool samples ({percent(accepted / n)}) received a pseudo-label{right}."


def trusted_sentence(trusted: dict[str, Any]) -> str:
    """Whether samples checked by hand confirm what the rounds did."""
    if not trusted:
        return ""
    low, high = 100 * trusted["low"], 100 * trusted["high"]
    before, after = percent(trusted["before"]), percent(trusted["after"])
    text = f"On {trusted['n']:,} trusted samples the teachers went from {before} in the first round to {after} in the "
    text += f"last (95 % interval {low:+.2f} to {high:+.2f} points)."
    if trusted["warning"]:
        text += (
            " Warning: out-of-fold agreement with the given labels rose meanwhile, and the trusted samples do not "
            "confirm it: the rounds agree with themselves."
        )
    return text


def audit_sentence(audit: dict[str, Any]) -> str:
    """What the judged sample says of the given labels, the flags and the estimate, with 95 % intervals."""
    if not audit:
        return ""
    n, reviewed = audit["n"], audit["reviewed"]
    if not reviewed:
        return f"Audit: {n:,} rows are drawn and none is judged yet; choose `audit` in review.html."
    rate, flags, error = (audit[key] for key in ("noise_rate", "flag_precision", "estimate_error"))
    parts = []
    if rate:
        parts += [f"{percent(rate['value'])} of the given labels are wrong ({between(rate)})"]
    if flags:
        parts += [f"{percent(flags['value'])} of the flags are right ({between(flags)})"]
    if error:
        span = f"{100 * error['low']:+.2f} to {100 * error['high']:+.2f}"
        parts += [f"the estimated rate is off by {100 * error['value']:+.2f} points ({span})"]
    part = "" if reviewed == n else "; a part of the sample tells this only if chance chose it"
    return f"Audit, {reviewed:,} of {n:,} rows judged, 95 % intervals: {', '.join(parts) or 'too few yet'}{part}."


def facts(data: dict[str, Any]) -> str:
    """The small line below the headline."""
    metrics, rounds = data["metrics"], len(data["rounds"])
    seconds = metrics.get("seconds") or {}
    reason = metrics.get("reason") or data["status"].get("reason") or ""
    parts = [f"mode {metrics['mode']}" if metrics.get("mode") else "", f"{rounds} round{'s' * (rounds != 1)}"]
    if (metrics.get("mode"), reason) != ("train", "no_change"):  # it judges once, and never changes a label
        parts += [f"ended with {reason}: {REASONS[reason]}" if reason in REASONS else reason]
    parts += [duration(seconds.get("total", sum(seconds.values()))) if seconds else ""]
    return " · ".join(part for part in parts if part)


def warning(status: dict[str, Any]) -> str:
    """Said on top of the page when the run did not come to its end."""
    if status.get("state", "done") in ("done", "running"):  # running: the report is a stage of the run itself
        return ""
    where = f"{status['state']} at {status.get('stage', 'an unknown stage')}"
    return f"This run is not complete: {where}. {status.get('reason', '')}"
