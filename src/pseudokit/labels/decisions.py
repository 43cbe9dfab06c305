"""What becomes of every label: the result of decide_labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy import ndarray

from .posterior import Posterior
from .soft_targets import SoftTargets

DECISIONS = ("relabel", "drop", "soften", "downweight", "review", "keep", "accept", "leave")
"""The decision on an image with several labels is the first of these that one of its classes has."""
NOTHING_LEARNED = "learned_nothing"
"""The reason of all decisions where out-of-fold predictions are no better than chance, see sanity.py."""
REASONS = (
    "",
    "agrees",
    "given_stands",
    "another_class_reaches_precision",
    "another_class_above_cutoff",
    "wrong_but_no_replacement",
    "doubtful",
    "class_floor",
    "above_cutoff",
    "below_cutoff",
    "beyond_share",
    NOTHING_LEARNED,
)
"""Those of this folder; unlabeled rows may be refused for others."""


def one_of_two(which: ndarray, yes: str, no: str, names: tuple[str, ...]) -> pd.Categorical:
    """(N,) `yes` where which (N,) is true, else `no`; it may be set to any of the names."""
    codes = np.where(which, np.int8(names.index(yes)), np.int8(names.index(no)))
    return pd.Categorical.from_codes(codes, names)


@dataclass(frozen=True)
class Decisions:
    """One entry a sample, all (N,); see decisions.csv. Of label sets some are (N, C), see multilabel.py.

    predicted, confidence and self_confidence are those of the out-of-fold probabilities; p_wrong and label come from
    the probability of the true class that the policy forms.
    """

    predicted: ndarray
    confidence: ndarray
    self_confidence: ndarray
    p_wrong: ndarray
    decision: pd.Categorical
    """One of DECISIONS; as all categories, a byte a row."""
    label: ndarray
    """The class index to learn, -1 = none."""
    reason: pd.Categorical
    weight: ndarray
    """1, or less: how much a label counts, which share of a soft target its label has."""
    soft: ndarray
    """Whether `taught` is learned in place of the label."""
    posterior: Posterior
    """Probabilities of the true class."""
    best: ndarray | None = None
    """The likeliest class by them; where models know nothing what is given. Of label sets each class has its own."""
    taught: SoftTargets | None = None
    """What a soft row learns. Of label sets each class has its own."""
    matrix: ndarray | None = None
    """T[true, given] (K, K); None where no given label is judged for noise."""
    noise: str | None = None
    """The type of the noise, see noise.py."""
    problem: str = ""
    """Why the models say nothing about any label, see sanity.py."""
    questions: tuple[Decisions, ...] = ()
    """Of label sets the decisions on each of the C classes."""

    def each(self, name: str) -> ndarray:
        """One of the arrays above; of label sets (N, C), as each class has it."""
        return getattr(self, name)

    def has(self, decision: str) -> ndarray:
        """(N,) which rows have this decision; of label sets for one of the classes at least."""
        is_decided = self.each("decision") == decision
        return is_decided if is_decided.ndim == 1 else is_decided.any(1)

    def targets(self) -> ndarray:
        """What is learned: `label` (N,) where that says it all, else (N, K) targets with soft and weighted rows."""
        if (self.weight == 1).all():
            return self.label
        targets = np.zeros(self.posterior.log_probs.shape, np.float32)
        hard = np.flatnonzero(~self.soft & (self.label >= 0))
        targets[hard, self.label[hard]] = self.weight[hard]
        for rows, probs in self.taught.blocks(np.flatnonzero(self.soft)):
            targets[rows] = probs
        return targets

    def soft_pseudo_counts(self) -> ndarray:
        """(K,) how many pseudo-labels each class has, counted by the probabilities that soft ones teach."""
        unlabeled = self.posterior.given_labels < 0
        return self.taught.total(np.flatnonzero(self.soft & unlabeled))

    def believed_labels(self, other: Decisions) -> ndarray:
        """(N,) the likeliest class by the mean of the probabilities of both; -1 where no label is given."""
        given_labels = self.posterior.given_labels
        labels = np.full(len(given_labels), -1)
        labeled = np.flatnonzero(given_labels >= 0)
        blocks = zip(self.posterior.blocks(labeled), other.posterior.blocks(labeled), strict=True)
        for (rows, probs), (_, other_probs) in blocks:
            labels[rows] = (probs + other_probs).argmax(1)
        return labels

    def keep_given(self, problem: str) -> Decisions:
        """The decisions where models know nothing: every given label stands, none is wrong, nothing is accepted."""
        given_labels = self.posterior.given_labels
        labeled = given_labels >= 0
        n = len(given_labels)
        return replace(
            self,
            decision=one_of_two(labeled, "keep", "leave", DECISIONS),
            reason=one_of_two(labeled, NOTHING_LEARNED, NOTHING_LEARNED, REASONS),
            label=given_labels,
            best=np.where(labeled, given_labels, self.predicted),
            p_wrong=np.where(labeled, 0.0, np.nan),
            weight=np.ones(n),
            soft=np.zeros(n, bool),
            matrix=None,
            noise=None,
            posterior=Posterior(self.posterior.log_probs, given_labels),
            problem=problem,
        )
