"""What a run says in words and tables. Pure: from what `read_run` returns to sentences and rows of text."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.duplicates import count_duplicates
from ..labels.metrics import paired_gain

ROLES = ("test", "trusted", "valid")  # the first that was scored carries the headline
ARMS = ("teacher", "control", "student")
WHAT = {"denoise": "Repairing labels", "augment": "Pseudo-labels", "joint": "Repair and pseudo-labels"}
REASONS = {
    "no_change": "hardly a label changed any more",
    "max_rounds": "all rounds were run",
    "no_gain": "a further round brought no gain",
    "collapse": "the pseudo-labels fell on hardly any class",
    "time_budget": "the time budget was spent",
}
FATES = {"relabel": "relabelled", "soften": "softened", "downweight": "down-weighted", "drop": "dropped",
         "review": "to review"}  # fmt: skip
NOISE = {
    "uniform": "The noise looks uniform: all wrong classes about alike.",
    "pair": "The noise looks like pair noise: most wrong labels of a class are one other class.",
    "class-dependent": "The noise depends on the class.",
    "look-alike": "It lies on images that the models find hard, where statistics cannot tell a wrong label from a hard "
    "image: look at the review page, or set pseudo.doubtful=review to keep these labels.",
}
WORDS = {"oof_accuracy": "out-of-fold accuracy", "macro_f1": "macro F1", "pseudo_labels": "pseudo-labels"}


def percent(share: float) -> str:
    return f"{100 * share:.2f}\N{NO-BREAK SPACE}%"


def show(key: str, value: Any) -> str:
    """A value of metrics.json as text; the key says which unit it has."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    if key.endswith(("accuracy", "coverage", "rate")):
        return percent(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if key == "seconds" else f"{value:.4g}" if "cutoff" in key else f"{value:.4f}"


def word(key: str) -> str:
    return WORDS.get(key, key.replace("_", " "))


def headline(data: dict[str, Any]) -> list[str]:
    """What the run achieved, in a few sentences: scores, given labels, pool, trusted, audit."""
    metrics, counts = data["metrics"], data["decisive"].get("decisions") or {}
    sentences = [
        score_sentence(metrics.get("scores") or {}, data["scored"], metrics.get("mode", "")),
        given_sentence(counts, metrics.get("noise") or {}),
        pool_sentence(counts, metrics.get("pool") or {}),
        trusted_sentence(metrics.get("trusted") or {}),
        audit_sentence(metrics.get("audit") or {}),
    ]
    return [s for s in sentences if s] or ["This run has no scores yet."]


def score_sentence(scores: dict, scored: pd.DataFrame | None, mode: str) -> str:
    """Did it help: the student against the control (or the teacher) on the most trustworthy rows scored."""
    role = next((role for role in ROLES if accuracies(scores, role)), "")
    found = accuracies(scores, role)
    if not found:
        return ""
    arm = list(found)[-1]
    said = f"the {arm} scores {percent(found[arm])} on {show('n', scores[arm][role].get('n'))} {role} samples"
    base = next((name for name in ("control", "teacher") if name in found and name != arm), None)
    if arm != "student" or base is None:
        return f"T{said[1:]}."
    against = f"{100 * (found[arm] - found[base]):+.2f} points against the {base} ({percent(found[base])}"
    interval = paired_interval(scored, role, base)
    if interval is None:
        return f"T{said[1:]}, {against})."
    against += f"; 95 % interval {interval[0]:+.2f} to {interval[1]:+.2f}"
    if mode not in WHAT:  # plain training promised nothing
        return f"T{said[1:]}, {against})."
    verdict = "helped" if interval[0] > 0 else "hurt" if interval[1] < 0 else "made no clear difference"
    return f"{WHAT[mode]} {verdict}: {said}, {against})."


def accuracies(scores: dict[str, dict], role: str) -> dict[str, float]:
    """arm → accuracy on a role, for the arms that have one."""
    values = {arm: scores.get(arm, {}).get(role, {}).get("accuracy") for arm in ARMS}
    return {arm: value for arm, value in values.items() if value is not None}


def paired_interval(scored: pd.DataFrame | None, role: str, base: str) -> tuple[float, float] | None:
    """95 % interval of the student's gain over `base` in points, from the rows that both judged."""
    if scored is None:
        return None
    rows = scored[(scored["role"] == role) & (scored["label"] != "")]
    hits = (rows["label"] == rows["predicted"]).astype(float).set_axis(rows["id"])
    student, other = (hits[(rows["arm"] == arm).to_numpy()] for arm in ("student", base))
    both = student.index.intersection(other.index)
    if not len(both):
        return None
    gain = paired_gain(other[both].to_numpy(), student[both].to_numpy())
    return 100 * gain["low"], 100 * gain["high"]


def given_sentence(counts: dict[str, int], noise: dict[str, Any]) -> str:
    """How many given labels were found suspect, their fate, and what is left where the truth is known."""
    fates = {word: n for name, word in FATES.items() if (n := counts.get(name, 0))}
    suspects = sum(fates.values())
    if not suspects and noise.get("estimated_rate") is None:
        return ""
    said = ", ".join(f"{n:,} {word}" for word, n in fates.items()) or "none"
    text = f"Of {suspects + counts.get('keep', 0):,} given labels {suspects:,} were found wrong or doubtful: {said}."
    if noise.get("estimated_rate") is not None:
        text += f" The estimated rate of wrong labels is {percent(noise['estimated_rate'])}"
        low, high = noise.get("estimated_rate_interval") or (None, None)
        text += "." if low is None else f" (95 % interval {100 * low:.2f} to {percent(high)})."
        text += f" {NOISE[noise['type']]}" if noise.get("type") in NOISE else ""
    before, after = noise.get("injected_rate"), noise.get("residual_rate")
    if before is not None and after is not None:
        verb = "fell" if after < before else "went"
        text += f" The truth is known: wrong labels {verb} from {percent(before)} to {percent(after)}"
        ap = noise.get("average_precision")
        text += "." if ap is None else f", found with an average precision of {ap:.4f}."
    return text


def pool_sentence(counts: dict[str, int], pool: dict[str, Any]) -> str:
    """How much of the pool was labelled, and how well where the truth is known."""
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
        text += (" Warning: out-of-fold agreement with the given labels rose meanwhile, and the trusted samples do not "
                 "confirm it: the rounds agree with themselves.")  # fmt: skip
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
        parts += [f"{percent(rate['value'])} of the given labels are wrong ({_between(rate)})"]
    if flags:
        parts += [f"{percent(flags['value'])} of the flags are right ({_between(flags)})"]
    if error:
        span = f"{100 * error['low']:+.2f} to {100 * error['high']:+.2f}"
        parts += [f"the estimated rate is off by {100 * error['value']:+.2f} points ({span})"]
    part = "" if reviewed == n else "; a part of the sample tells this only if chance chose it"
    return f"Audit, {reviewed:,} of {n:,} rows judged, 95 % intervals: {', '.join(parts) or 'too few yet'}{part}."


def _between(interval: dict[str, float]) -> str:
    return f"{percent(interval['low'])} to {percent(interval['high'])}"


def facts(data: dict[str, Any]) -> str:
    """The small line below the headline."""
    metrics, rounds = data["metrics"], len(data["rounds"])
    seconds = metrics.get("seconds") or {}
    reason = metrics.get("reason") or data["status"].get("reason") or ""
    parts = [f"mode {metrics['mode']}" if metrics.get("mode") else "", f"{rounds} round{'s' * (rounds != 1)}"]
    parts += [f"ended with {reason}: {REASONS[reason]}" if reason in REASONS else reason]
    parts += [f"{seconds.get('total', sum(seconds.values())):,.0f} s" if seconds else ""]
    return " · ".join(part for part in parts if part)


def warning(status: dict[str, Any]) -> str:
    """Said on top of the page when the run did not come to its end."""
    if status.get("state", "done") in ("done", "running"):  # running: the report is a stage of the run itself
        return ""
    where = f"{status['state']} at {status.get('stage', 'an unknown stage')}"
    return f"This run is not complete: {where}. {status.get('reason', '')}"


def tables(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Tables {"title", "names", "header", "rows"} of what the run has; the first `names` columns are text."""
    metrics = data["metrics"]
    made = [
        scores_table(metrics.get("scores") or {}),
        facts_table("Given labels", metrics.get("noise") or {}),
        facts_table("Pool", metrics.get("pool") or {}),
        rounds_table(data["rounds"]),
        samples_table(data["samples"]),
        duplicates_counts(data["duplicates"]),
    ]
    return [table for table in made if table["rows"]]


def scores_table(scores: dict[str, dict[str, dict]]) -> dict[str, Any]:
    found = [(role, arm, scores[arm][role]) for role in ROLES for arm in ARMS if role in scores.get(arm, {})]
    keys = list(dict.fromkeys(key for *_, values in found for key in values))
    rows = [[role, arm, *(show(key, v.get(key)) for key in keys), _between(spread(v["accuracy"], v["n"]))]
            for role, arm, v in found]  # fmt: skip
    header = ["role", "arm", *map(word, keys), "accuracy, 95 % interval"]
    return {"title": "Scores", "names": 2, "header": header, "rows": rows}


def spread(share: float, n: int) -> dict[str, float]:
    """Standard error and 95 % interval (Wilson 1927) of a share of n rows: se, low, high."""
    z, variance = 1.96, share * (1 - share) / n
    centre, half = share + z**2 / (2 * n), z * math.sqrt(variance + (z / (2 * n)) ** 2)
    low, high = ((centre + side) / (1 + z**2 / n) for side in (-half, half))
    return {"se": math.sqrt(variance), "low": low, "high": high}


def facts_table(title: str, values: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for key, value in values.items():
        nested = value.items() if isinstance(value, dict) else ()
        parts = [[f"{word(key)} {part}", show(key, v)] for part, v in nested]
        rows += parts or [[word(key), show(key, value)]]
    return {"title": title, "names": 1, "header": ["measure", "value"], "rows": rows}


def rounds_table(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """One row a round: how many of each decision, then its other numbers."""
    kinds = list(dict.fromkeys(kind for info in rounds for kind in info.get("decisions") or {}))
    skip = ("round", "decisions", "classes", "temperatures", "estimated_rate_interval", "noise_matrix",
            "noise_matrix_low", "noise_matrix_high", "models", "reliability")  # fmt: skip
    keys = dict.fromkeys(k for info in rounds for k, v in info.items() if k not in skip and v is not None)
    rows = []
    for info in rounds:
        counts = [show(kind, (info.get("decisions") or {}).get(kind, 0)) for kind in kinds]
        rows.append([show("round", info.get("round")), *counts, *(show(key, info.get(key)) for key in keys)])
    return {"title": "Rounds", "names": 0, "header": ["round", *kinds, *map(word, keys)], "rows": rows}


def samples_table(samples: pd.DataFrame | None) -> dict[str, Any]:
    groups = () if samples is None else (samples["given"] != "").groupby(samples["role"], sort=False)
    rows = [[role, f"{len(has):,}", f"{has.sum():,}"] for role, has in groups]
    return {"title": "Samples", "names": 1, "header": ["role", "n", "with a given label"], "rows": rows}


def duplicates_counts(duplicates: pd.DataFrame | None) -> dict[str, Any]:
    counts = {} if duplicates is None or duplicates.empty else count_duplicates(duplicates)
    return facts_table("Duplicates", counts)


def disagreeing(duplicates: pd.DataFrame | None, n: int = 20, most: int = 6) -> list[dict[str, Any]]:
    """The first n clusters of copies whose labels differ: {"labels", "about", "rows"}, rows with id, path, role, given.

    Of a large cluster `most` rows are returned, at first one of each label.
    """
    if duplicates is None:
        return []
    shown = []
    for _, rows in list(duplicates[duplicates["conflict"] == "True"].groupby("cluster", sort=False))[:n]:
        labels = dict.fromkeys(rows["given"][rows["given"] != ""])
        turn = rows.groupby("given").cumcount().where(rows["given"] != "", len(rows))
        first = rows.loc[turn.sort_values(kind="stable").index[:most]]
        about = f"{rows['kind'].iloc[0]} · {len(rows):,} rows"
        shown.append({"labels": " | ".join(labels), "about": about, "rows": first.to_dict("records")})
    return shown


def costs(seconds: dict[str, float]) -> list[dict[str, Any]]:
    """Stages {"name", "seconds", "share"} for bars; share is relative to the longest."""
    stages = {word(name): float(value) for name, value in seconds.items() if name != "total"}
    top = max(stages.values(), default=0) or 1
    return [{"name": k, "seconds": show("seconds", v), "share": v / top} for k, v in stages.items()]


def command(run: Path, mode: str) -> str:
    """The command that does this run again under another name."""
    script = "train.py" if mode == "train" else f"pseudo.py --mode {mode or 'denoise'}"
    config, name = str(run / "config.yaml"), f"name={run.resolve().name}-again"
    return f"python {script} --config {shlex.quote(config)} {shlex.quote(name)}"
