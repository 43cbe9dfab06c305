"""How good each annotator is, and what votes and image say together. Arrays in, arrays out.

Dawid and Skene (1979, Maximum likelihood estimation of observer error-rates using the EM algorithm, Applied Statistics
28): annotator r has confusions C_r[true, vote]; the truth and the confusions are estimated in turn. With the
out-of-fold probabilities q of an image

    P(true = k | image, votes) ∝ (q_k^sharpness · (Π_r C_r[k, vote_r])^own)^all

where own = all = 1 if images and votes err independently. But people err together on hard images, and models err there,
too. With a correlation ρ of the errors, n votes are worth n · own of them, own = 1 / (1 + (n - 1) ρ) (the design effect
of Kish 1965), and the image is one voter more: all = 1 / (1 + n ρ). Of shares nobody knows how many votes they are: of
VOTES_OF_SHARES the number with which image and votes predict each other best.
"""

from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np
import pandas as pd
from numpy import ndarray
from scipy.sparse import csr_array

from ..data.dataset import Dataset
from ..data.votes import Votes
from .arrays import MIN_PROBABILITY, normalize, normalize_log

SHARED_VOTES = 5.0
"""Votes of the average annotator that are added to each class of each one: who voted rarely stays near the average."""
MAX_STEPS = 100
MAX_JOINT_STEPS = 20
MIN_CHANGE = 1e-5
"""EM ends when the probabilities of a row change by less in the mean."""
MAX_FIT_ROWS = 50_000
MAX_FIT_PROBABILITIES = 5_000_000
"""Rows, and rows times classes, that confusions are estimated on together with the images."""
MAX_POWER_ROWS = 20_000
"""Rows that sharpness and correlation are fitted on; more do not change their second digit."""
CORRELATION_SD = 0.2
"""Sd of the prior of the correlation, around 0: where no image has two votes, nothing else tells it."""
SHARPNESS_BOUNDS = (0.1, 10.0)
VOTES_OF_SHARES = (1, 2, 4, 8, 16)
"""For how many votes the shares of a row may stand. Taken for one vote, they would hardly count against an image."""
RATE_MODEL_SD = 0.03
"""Sd by which the estimated share of an annotator's wrong votes is off, relative to it, beyond the chance of the rows
(benchmarks/votes.py)."""


@dataclass(frozen=True)
class VoteNoise:
    """An estimate of the annotators, and the votes that it weighs."""

    votes: Votes
    confusions: ndarray
    """(A, K, K) C[annotator, true, vote], rows sum to 1."""
    sharpness: float
    correlation: float
    agreement: float
    """Mean log of how much likelier images and votes are together than alone, see _fit_powers."""

    def joint(self, truth: ndarray, rows: ndarray) -> ndarray:
        """(M, K) to which the posterior is proportional; truth: (M, K) is q^sharpness; rows: (M,) row numbers."""
        return _weigh(truth, self.votes.counts[rows], self.confusions, self.correlation)


def estimate_confusions(counts: csr_array, truth: ndarray) -> ndarray:
    """(A, K, K) C[annotator, true, vote] from counts (N, A · K), see Votes, and P(true) (N, K): the M step."""
    voted = _votes_by_truth(counts, truth)
    everyone = voted.sum(0) + 1 / truth.shape[1]  # no confusion is impossible
    voted = voted + SHARED_VOTES * normalize(everyone)
    return voted / voted.sum(2, keepdims=True)


def _votes_by_truth(counts: csr_array, truth: ndarray) -> ndarray:
    """(A, K, K) how often each annotator gave each true class each vote."""
    k = truth.shape[1]
    by_vote = counts.T @ truth
    return by_vote.reshape(-1, k, k).transpose(0, 2, 1)


def _log_likelihood(counts: csr_array, confusions: ndarray) -> ndarray:
    """(N, K) log P(votes of the row | true = k), if annotators err independently."""
    k = confusions.shape[1]
    return counts @ np.log(confusions).transpose(0, 2, 1).reshape(-1, k)


def _combine(
    log_truth: ndarray, counts: csr_array, evidence: ndarray, correlation: float
) -> ndarray:
    """(N, K) the posterior, see the formula above. evidence: log-likelihoods of the votes."""
    n_votes = counts.sum(1)[:, None]
    votes = evidence * _own_power(n_votes, correlation)
    return np.exp(normalize_log((log_truth + votes) / (1 + correlation * n_votes)))


def _own_power(n_votes: ndarray, correlation: float) -> ndarray:
    return 1 / (1 + correlation * np.maximum(n_votes - 1, 0))


def dawid_skene(votes: Votes) -> tuple[ndarray, ndarray]:
    """P(true class) (N, K) from the votes alone, and the confusions (A, K, K). Every row has a vote."""
    counts = votes.counts
    truth = normalize(votes.totals())
    for _ in range(MAX_STEPS):
        confusions = estimate_confusions(counts, truth)
        new = _weigh(truth.mean(0), counts, confusions)
        change = np.abs(new - truth).mean()
        truth = new
        if change < MIN_CHANGE:
            break
    return truth, confusions


def _weigh(
    truth: ndarray, counts: csr_array, confusions: ndarray, correlation: float = 0.0
) -> ndarray:
    """(N, K) P(true class) by votes and what is known without them (N, K), or the shares of the classes (K,)."""
    log_truth = np.log(np.maximum(truth, MIN_PROBABILITY))
    return _combine(log_truth, counts, _log_likelihood(counts, confusions), correlation)


def label_by_votes(dataset: Dataset) -> Dataset:
    """The dataset with the likeliest class by Dawid and Skene as given label, and soft labels.

    The confusions are those of data.train alone, also where votes on scored rows give the label. Where nobody knows who
    voted, soft labels are the shares of the votes. No change without votes.
    """
    if dataset.votes is None:
        return dataset
    learned = np.flatnonzero((dataset.split == "train") & (dataset.given_labels >= 0))
    truth, confusions = dawid_skene(dataset.votes.take(learned))
    rows = np.flatnonzero(dataset.votes.counts.sum(1))
    votes = dataset.votes.take(rows)
    by_annotators = _weigh(truth.mean(0), votes.counts, confusions)
    soft = by_annotators if votes.annotators else normalize(votes.totals())
    soft_labels = np.eye(len(dataset.classes))[dataset.given_labels]
    soft_labels[rows] = soft
    given_labels = dataset.given_labels.copy()
    # Equal shares of votes: the class that is more often meant
    given_labels[rows] = (soft + MIN_CHANGE * by_annotators).argmax(1)
    return replace(dataset, given_labels=given_labels, soft_labels=soft_labels)


def estimate_vote_noise(log_probs: ndarray, votes: Votes) -> VoteNoise:
    """Confusions, sharpness and correlation from out-of-fold log-probabilities (N, K) and the votes."""
    noises = []
    for number in VOTES_OF_SHARES if votes.are_shares else (1,):
        noises.append(_estimate(log_probs, replace(votes, counts=number * votes.counts)))
    return max(noises, key=attrgetter("agreement"))


def _estimate(log_probs: ndarray, votes: Votes) -> VoteNoise:
    """The truth starts as the shares of the votes. Then confusions, the two powers and the truth follow each other."""
    max_rows = min(MAX_FIT_ROWS, MAX_FIT_PROBABILITIES // votes.k)
    voted = np.flatnonzero(votes.counts.sum(1))
    rows = np.sort(np.random.default_rng(0).permutation(voted)[:max_rows])
    some = votes.take(rows)
    counts = some.counts
    logs = normalize_log(np.maximum(log_probs[rows].astype(float), np.log(MIN_PROBABILITY)))
    truth = normalize(some.totals())
    powers = 1.0, CORRELATION_SD
    for _ in range(MAX_JOINT_STEPS):
        confusions = estimate_confusions(counts, truth)
        evidence = _log_likelihood(counts, confusions)
        *powers, agreement = _fit_powers(logs, counts, evidence, truth.mean(0), powers)
        sharpness, correlation = powers
        new = _combine(normalize_log(sharpness * logs), counts, evidence, correlation)
        change = np.abs(new - truth).mean()
        truth = new
        if change < 10 * MIN_CHANGE:
            break
    return VoteNoise(votes, confusions, *powers, agreement)


def _fit_powers(
    logs: ndarray,
    counts: csr_array,
    evidence: ndarray,
    prior: ndarray,
    start: tuple[float, float],
) -> tuple[float, float, float]:
    """The sharpness and the correlation with which image and votes predict each other best, and how well.

    If the two are independent given the class, P(image, votes) / (P(image) P(votes)) = Σ_k q_k w_k / π_k, where w are
    the probabilities by the votes alone. So the mean of its log is the higher the better both are calibrated: votes
    that agree on a wrong class too often, by what the images say of it, get a higher correlation.

    logs: (N, K) out-of-fold log-probabilities; evidence: (N, K) log-likelihoods of the votes; prior: (K,) shares of the
    classes; start: where the search begins, so that it stays with one optimum.
    """
    from scipy.optimize import minimize

    some = slice(MAX_POWER_ROWS)
    logs = logs[some]
    evidence = evidence[some]
    n_votes = counts[some].sum(1)[:, None]
    log_prior = np.log(np.maximum(prior, MIN_PROBABILITY))

    def loss(x: ndarray) -> float:
        """x = (log sharpness, correlation)"""
        log_q = normalize_log(np.exp(x[0]) * logs)
        log_w = normalize_log(log_prior + _own_power(n_votes, x[1]) * evidence)
        log_mean = np.log(np.exp(log_q).mean(0))
        ratio = np.logaddexp.reduce(log_q + log_w - log_mean, axis=1)
        penalty = (x[1] / CORRELATION_SD) ** 2 / 2 / len(logs)
        return penalty - ratio.mean()

    bounds = [np.log(SHARPNESS_BOUNDS), (0.0, 1.0)]
    x = [np.log(start[0]), start[1]]
    best = minimize(loss, x, method="L-BFGS-B", bounds=bounds)
    log_sharpness, correlation = best.x.tolist()
    return float(np.exp(log_sharpness)), correlation, -float(best.fun)


def annotators_table(votes: Votes, truth: ndarray, classes: tuple[str, ...]) -> pd.DataFrame:
    """As annotators.csv holds it: one row an annotator.

    agreement: how often others who saw the same image voted the same. accuracy: estimated, with the ends of its 95 %
    interval. confusion: the most frequent one, and the share of that true class that got it.

    truth: (N, K) P(true class) of the rows of votes.
    """
    voted = _votes_by_truth(votes.counts, truth)
    beside = _votes_by_truth(votes.counts, votes.totals())  # the votes of all on the same images
    rows = []
    for name, by_truth, by_vote in zip(votes.annotators, voted, beside, strict=True):
        n = round(by_truth.sum())
        n_pairs = by_vote.sum() - n  # a vote is no pair with itself
        accuracy = np.trace(by_truth) / n
        chance = np.sqrt(accuracy * (1 - accuracy) / n)
        error = 1.96 * np.hypot(chance, RATE_MODEL_SD * (1 - accuracy))
        wrong = by_truth * (1 - np.eye(votes.k))
        true, vote = np.unravel_index(wrong.argmax(), wrong.shape)
        row = {
            "annotator": name,
            "votes": n,
            "agreement": (np.trace(by_vote) - n) / n_pairs if n_pairs else np.nan,
            "accuracy": accuracy,
            "accuracy_low": max(accuracy - error, 0.0),
            "accuracy_high": min(accuracy + error, 1.0),
            "confusion": f"{classes[true]} → {classes[vote]}",
            "confusion_rate": wrong[true, vote] / by_truth[true].sum(),
        }
        rows.append(row)
    return pd.DataFrame(rows)
