"""Label sets: every class of an image is a question of its own, decided like a label of two classes, no and yes.

Labels are (N, C) of yes = 1, no = 0 and unknown = -1, log-probabilities (N, C, 2), see data/encoding.py. What is
written for K classes then holds for each class by itself; here its parts are put together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..data.encoding import has_label
from .arrays import Array
from .decisions import Decisions
from .out_of_fold import FoldPredictions
from .posterior import Posterior

ORDER = ("relabel", "drop", "soften", "downweight", "review", "keep", "accept", "leave")
"""The decision on an image is the first of these that one of its classes has."""
ARRAYS = (
    "predicted",
    "confidence",
    "self_confidence",
    "p_wrong",
    "decision",
    "label",
    "reason",
    "weight",
    "soft",
)


class LabelSetDecisions(Decisions):
    """Decisions on images, from those on each of their classes; predicted and label are (N, C)."""

    def each(self, name: str) -> Array:
        return np.stack([getattr(question, name) for question in self.questions], 1)

    def targets(self) -> Array:
        """(N, C) float32 probability of yes that is learned, -1 = unknown. A label counts for less near 0.5."""
        return np.stack([_targets_of_class(question) for question in self.questions], 1)

    def believed_labels(self, other: Decisions) -> Array:
        pairs = zip(self.questions, other.questions, strict=True)
        return np.stack([one.believed_labels(two) for one, two in pairs], 1)


def _targets_of_class(question: Decisions) -> Array:
    weight = np.maximum(question.weight, 0.5)  # less would say the opposite
    p_yes = np.where(question.label == 1, weight, 1 - weight)
    for rows, probs in question.posterior.blocks(np.flatnonzero(question.soft)):
        p_yes[rows] = probs[:, 1]
    return np.where(question.label < 0, -1, p_yes).astype(np.float32)


def decide_images(questions: list[Decisions], log_probs: Array, given_labels: Array) -> Decisions:
    """The decisions on images from those on each class.

    confidence: of the least certain answer, of unlabeled images among those that were accepted; p_wrong: that any of
    the given answers is wrong, as if they were independent; decision and reason: of the class that ORDER puts first,
    the least certain one.
    """
    each = {
        name: np.stack([getattr(question, name) for question in questions], 1) for name in ARRAYS
    }
    answered = given_labels >= 0
    labeled = has_label(given_labels)

    counts = answered | (~labeled[:, None] & (each["decision"] == "accept"))
    counts |= ~counts.any(1, keepdims=True)
    confidence = np.where(counts, each["confidence"], np.inf).min(1)
    self_confidence = np.where(answered, each["self_confidence"], np.inf).min(1)
    p_right = np.where(answered, 1 - each["p_wrong"], 1).prod(1)

    rank = np.select([each["decision"] == name for name in ORDER], range(len(ORDER)))
    rank[~answered & labeled[:, None]] = len(
        ORDER
    )  # an image is decided by what was given, if anything was
    first = (rank + each["confidence"] / 2).argmin(1)
    rows = np.arange(len(given_labels))
    return LabelSetDecisions(
        predicted=each["predicted"],
        confidence=confidence,
        self_confidence=np.where(labeled, self_confidence, np.nan),
        p_wrong=np.where(labeled, 1 - p_right, np.nan),
        decision=each["decision"][rows, first],
        label=each["label"],
        reason=each["reason"][rows, first],
        weight=each["weight"].min(1),
        soft=each["soft"].any(1),
        posterior=Posterior(log_probs, given_labels),
        questions=tuple(questions),
    )


def calibrate_each_class(
    calibrate: Callable, models: list[FoldPredictions], given_labels: Array, learned_labels: Array
) -> tuple[list[FoldPredictions], dict]:
    """calibration.calibrate_models for every class by itself."""
    log_probs = [np.empty_like(model.log_probs, np.float64) for model in models]
    temperatures = []
    for c in range(given_labels.shape[1]):
        of_class = [replace(model, log_probs=model.log_probs[:, c]) for model in models]
        calibrated, facts = calibrate(of_class, given_labels[:, c], learned_labels[:, c])
        for logs, model in zip(log_probs, calibrated, strict=True):
            logs[:, c] = model.log_probs
        temperatures += facts["temperatures"]
    calibrated = [
        replace(model, log_probs=logs) for model, logs in zip(models, log_probs, strict=True)
    ]
    return calibrated, {"temperatures": temperatures}
