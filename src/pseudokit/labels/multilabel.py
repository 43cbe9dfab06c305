"""Label sets: every class of an image is a question of its own, decided like a label of two classes, no and yes.

Labels are (N, C) of yes = 1, no = 0 and unknown = -1, log-probabilities (N, C, 2), see data/encoding.py. What is
written for K classes then holds for each class by itself; here its parts are put together.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy import ndarray

from ..data.encoding import has_label
from .decisions import DECISIONS, Decisions
from .posterior import Posterior


def _stack(questions: Sequence[Decisions], name: str) -> ndarray:
    """(N, C) one of the arrays of Decisions, a column a class."""
    return np.stack([getattr(question, name) for question in questions], 1)


class LabelSetDecisions(Decisions):
    """Decisions on images, from those on each of their classes; predicted and label are (N, C)."""

    def each(self, name: str) -> ndarray:
        return _stack(self.questions, name)

    def targets(self) -> ndarray:
        """(N, C) float32 probability of yes that is learned, -1 = unknown. A label counts for less near 0.5."""
        return np.stack([_targets_of_class(question) for question in self.questions], 1)

    def soft_pseudo_counts(self) -> ndarray:
        return np.array([question.soft_pseudo_counts()[1] for question in self.questions])

    def believed_labels(self, other: Decisions) -> ndarray:
        pairs = zip(self.questions, other.questions, strict=True)
        return np.stack([one.believed_labels(two) for one, two in pairs], 1)

    def keep_given(self, problem: str) -> Decisions:
        questions = [question.keep_given(problem) for question in self.questions]
        posterior = self.posterior
        decisions = decide_images(questions, posterior.log_probs, posterior.given_labels)
        return replace(decisions, problem=problem)


def _targets_of_class(question: Decisions) -> ndarray:
    weight = np.maximum(question.weight, 0.5)  # less would say the opposite
    p_yes = np.where(question.label == 1, weight, 1 - weight)
    for rows, probs in question.taught.blocks(np.flatnonzero(question.soft)):
        p_yes[rows] = probs[:, 1]
    return np.where(question.label < 0, -1, p_yes).astype(np.float32)


def decide_images(
    questions: list[Decisions], log_probs: ndarray, given_labels: ndarray
) -> Decisions:
    """The decisions on images from those on each class.

    confidence: of the least certain answer, of unlabeled images among those that were accepted; p_wrong: that any of
    the given answers is wrong, as if they were independent; decision and reason: of the class that DECISIONS puts
    first, the least certain one.
    """
    decision = _stack(questions, "decision")
    confidence = _stack(questions, "confidence")
    answered = given_labels >= 0
    labeled = has_label(given_labels)

    counts = answered | (~labeled[:, None] & (decision == "accept"))
    counts |= ~counts.any(1, keepdims=True)
    p_right = np.nanprod(1 - _stack(questions, "p_wrong"), 1)

    rank = np.select([decision == name for name in DECISIONS], range(len(DECISIONS)))
    # an image is decided by what was given, if anything was
    rank[~answered & labeled[:, None]] = len(DECISIONS)
    first = (rank + confidence / 2).argmin(1)
    rows = np.arange(len(given_labels))
    return LabelSetDecisions(
        predicted=_stack(questions, "predicted"),
        confidence=np.where(counts, confidence, np.inf).min(1),
        self_confidence=np.fmin.reduce(_stack(questions, "self_confidence"), axis=1),
        p_wrong=np.where(labeled, 1 - p_right, np.nan),
        decision=decision[rows, first],
        label=_stack(questions, "label"),
        reason=_stack(questions, "reason")[rows, first],
        weight=_stack(questions, "weight").min(1),
        soft=_stack(questions, "soft").any(1),
        posterior=Posterior(log_probs, given_labels),
        questions=tuple(questions),
    )
