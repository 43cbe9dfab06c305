"""Decisions on label sets: every question, an image and a class, is decided like a label of two classes."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..config.keys import Pseudo
from ..data.encoding import has_label
from .decide import Decisions, decide_labels, keep_given
from .posterior import Posterior
from .sanity import learned_nothing

FIRST = ("relabel", "drop", "soften", "downweight", "review", "keep", "accept", "leave")
"""The decision on an image is the first of these that one of its questions has."""


def decide_single_or_multilabel(
    log_probs: np.ndarray,
    given_labels: np.ndarray,
    mode: str,
    policy: Pseudo,
    *,
    refused: np.ndarray | str = "",
    progress: float = 1.0,
    likeliest_rate: float | None = None,
) -> Decisions:
    """See decide_labels, which it is where an image has one class; of label sets, with (N, C, 2) log-probabilities,
    (N, C) given labels, every class has cutoffs, noise and decisions of its own."""
    decide = partial(decide_labels, mode=mode, policy=policy, refused=refused, progress=progress)
    if given_labels.ndim == 1:
        d = decide(log_probs, given_labels, likeliest_rate=likeliest_rate)
        return keep_given(d, given_labels) if learned_nothing(d.predicted, given_labels, log_probs.shape[1]) else d
    asked = [decide(log_probs[:, c], given_labels[:, c]) for c in range(given_labels.shape[1])]
    return _of_images(asked, log_probs, given_labels)


def _of_images(asked: list[Decisions], log_probs: np.ndarray, given_labels: np.ndarray) -> Decisions:
    """What decisions on its questions come to for an image.

    confidence: of its least sure answer, in the pool of those that were accepted; p_wrong: that any of its given
    answers is wrong, as if they were independent; reason: of the question that FIRST puts first, and is least sure.
    """
    each = {
        name: np.stack([getattr(one, name) for one in asked], 1)
        for name in (
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
    }
    known, labeled, rows = given_labels >= 0, has_label(given_labels), np.arange(len(given_labels))
    counts = known | (~labeled[:, None] & (each["decision"] == "accept"))
    counts |= ~counts.any(1, keepdims=True)
    confidence = np.where(counts, each["confidence"], np.inf).min(1)
    place = {word: rank for rank, word in enumerate(FIRST)}
    rank = np.vectorize(place.__getitem__, otypes=[int])(each["decision"])
    rank[~known & labeled[:, None]] = len(FIRST)  # an image is decided by what was given, if anything was
    at = (rank + each["confidence"] / 2).argmin(1)
    own = np.where(known, each["self_confidence"], np.inf).min(1)
    wrong = 1 - np.prod(np.where(known, 1 - each["p_wrong"], 1), axis=1)
    return Decisions(
        predicted=each["predicted"],
        confidence=confidence,
        self_confidence=np.where(labeled, own, np.nan),
        p_wrong=np.where(labeled, wrong, np.nan),
        decision=each["decision"][rows, at],
        label=each["label"],
        reason=each["reason"][rows, at],
        weight=each["weight"].min(1),
        soft=each["soft"].any(1),
        posterior=Posterior(log_probs, given_labels),
        matrix=None,
        noise=None,
        questions=tuple(asked),
    )
