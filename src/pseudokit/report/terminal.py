"""What a run came to, in a few lines for the terminal: `python -m pseudokit.report.terminal RUN_FOLDER …`"""

from __future__ import annotations

import sys
from pathlib import Path

from ..system.files import read_json
from .sentences import audit_sentence, difference_text, expected_sentence, trusted_sentence

ARMS = ("teacher", "baseline", "student")


def summary(run: Path) -> str:
    """Before → after, accuracy of teacher, baseline and student, and where to look. Reads metrics.json only."""
    metrics = read_json(run / "metrics.json")
    title = f"{metrics['mode']} · {run.name}"
    lines = ["", title, "─" * max(62, len(title))]
    lines += _noise_lines(metrics.get("noise")) + _pool_lines(metrics.get("unlabeled"))
    parts = {"oof": expected_sentence, "trusted": trusted_sentence, "audit": audit_sentence}
    said = (sentence(metrics.get(part) or {}) for part, sentence in parts.items())
    lines += filter(None, said)
    scores = metrics["scores"]
    splits = [split for split in ("val", "trusted", "test") if any(split in arm for arm in scores.values())]
    if splits:
        lines.append(f"{'accuracy':26}" + "".join(f"{arm:>12}" for arm in ARMS if arm in scores))
    for split in splits:
        n = next(arm[split]["n"] for arm in scores.values() if split in arm)
        values = "".join(f"{scores[arm][split]['accuracy']:>12.2%}" for arm in ARMS if arm in scores)
        lines.append(f"  {split} (n = {n:,})".ljust(26) + values)
    if difference := metrics.get("difference"):
        lines.append(f"{'student − baseline':26}{difference_text(difference)}")
    agreement = ", ".join(f"{r['oof_accuracy']:.2%}" for r in metrics["rounds"]) or "–"
    ended = f"ended by {metrics['reason']} after {len(metrics['rounds'])} round(s)"
    lines.append(f"{'held-out agreement':26}{agreement}; {ended}")
    lines.append(f"{metrics['seconds']['total']:.0f} s · report {run / 'report.html'} · review {run / 'review.html'}")
    return "\n".join(lines)


def _noise_lines(noise: dict | None) -> list[str]:
    if not noise:
        return []
    done = f"{noise['relabeled']:,} relabeled, {noise.get('softened', 0):,} softened, {noise['dropped']:,} dropped"
    done += f" of {noise['n']:,}"
    kind = f" ({noise['type']} noise)" if noise.get("type") not in (None, "none") else ""
    lines = [f"{'labels':26}{done}; estimated wrong {noise['estimated_rate']:.2%}{kind}"]
    if "injected_rate" in noise:
        before, after = noise["injected_rate"], noise["residual_rate"]
        precision = f", average precision {noise['average_precision']:.4f}" if noise["average_precision"] else ""
        lines.append(f"{'wrong labels (truth)':26}{before:.2%} → {after:.2%}{precision}")
    return lines


def _pool_lines(pool: dict | None) -> list[str]:
    if not pool:
        return []
    right = f", {pool['accuracy']:.2%} of them right (truth)" if "accuracy" in pool else ""
    share = f"{pool['coverage']:.1%}"
    return [f"{'pseudo-labels':26}{pool['pseudo_labels']:,} of {pool['n']:,} ({share} coverage){right}"]


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        print(summary(Path(folder)))
