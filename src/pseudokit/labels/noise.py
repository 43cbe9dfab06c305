"""Noise of the class: a matrix T[true, given] that all rows of a class share. Arrays in, arrays out.

The model: the true class of row i is drawn from q_i, its given label from T[true].
"""

from dataclasses import replace

import numpy as np
from numpy import ndarray

from .arrays import MIN_PROBABILITY, by_class, most_confident
from .posterior import Posterior, PosteriorSummary

ANCHOR_FRACTION = 0.2
MIN_ANCHORS = 20
"""Of the rows of each predicted class, the most confident ones, whose prediction is taken for the truth."""
MAX_RATE_PROBABILITIES = 200_000
RATE_ROWS = (1_000, 10_000)
"""Probabilities on which each draw of the rate is computed, and the fewest and the most rows that they come from."""
MAX_DRAWS = 200
MIN_DRAWS = 20
MAX_DRAWN_CELLS = 20_000_000
"""Draws of the noise matrix; with hundreds of classes fewer, so that all draws fit into 160 MB."""
RATE_MODEL_SD = 0.02
"""Sd of the estimated rate, relative to it, by which the model of the noise is off (benchmarks/noise.py)."""
UNIFORM_SPREAD = 0.5
"""The noise is called uniform where the squared spread of its cells around their mean is below this share of it."""
PAIR_FRACTION = 0.75
"""The noise is called pair noise where this share of the wrong labels of a class is one other class."""
MIN_ANCHOR_RATIO = 0.25
MIN_DISAGREEMENT = 0.02
"""Noise of the class shows on the anchors at least this share of the disagreement that all rows show. Less than 2 % of
disagreement is not called noise."""
OF_THE_CLASS = ("uniform", "pair", "class-dependent")
"""Types of noise that T describes."""
LOOK_ALIKE = "look-alike"
"""The type of noise that follows what images look like, so that no model of it helps."""
DIFFICULTY = "difficulty"
"""The type of noise that difficulty.py describes."""
VOTES = "votes"
"""Not a type that is found: each annotator has confusions of their own, see annotators.py."""
EXPLAINED = (*OF_THE_CLASS, DIFFICULTY, VOTES)
"""With all other types the given label is no evidence, and nothing is relabeled unasked."""
CONFIDENT_FRACTION = 0.4
MAX_AREA = 0.55
MIN_AREA_Z = 3.0
"""Noise of the class is in doubt where, among the most confident rows of a predicted class, a contradicted one is less
confident than another with a probability above MAX_AREA, by so many standard errors. It was up to 0.536 with noise of
the class, 0.556 to 0.65 with noise that follows the images (docs/log.md)."""


def estimate_noise(
    predicted: PosteriorSummary, k: int, follows_images: bool = False
) -> tuple[ndarray, str]:
    """T[true, given] (K, K), how often each true class was given each label, and its type, see _noise_type.

    k: number of classes; follows_images: known before, see calibration.py.
    """
    given_labels = predicted.given_labels
    counts = anchor_counts(predicted.best, predicted.confidence, given_labels, k)
    disagreement = predicted.contradicted[given_labels >= 0].mean()
    noise = LOOK_ALIKE if follows_images else _noise_type(counts, disagreement)
    return shrink(counts), noise


def mean_matrix(posterior: Posterior) -> ndarray:
    """T[true, given] (K, K), the mean over the labeled rows: which labels each true class was given."""
    k = posterior.log_probs.shape[1]
    counts = np.zeros((k, k))
    for rows, probs in posterior.blocks(np.flatnonzero(posterior.given_labels >= 0)):
        counts += probs.T @ np.eye(k)[posterior.given_labels[rows]]
    return counts / np.maximum(counts.sum(1, keepdims=True), MIN_PROBABILITY)


def anchor_counts(
    predicted: ndarray, confidence: ndarray, given_labels: ndarray, k: int
) -> ndarray:
    """(K, K) counts [predicted, given] of the most confident rows of each predicted class.

    Among them a label that disagrees is wrong. Among all rows it may be the prediction, and the counts would show the
    model's confusions as noise (anchor points: Liu & Tao 2016; Patrini et al. 2017).
    """
    labeled = np.flatnonzero(given_labels >= 0)
    counts = np.zeros((k, k))
    for c, positions in enumerate(by_class(predicted[labeled], k)):
        rows = labeled[positions]
        n = max(MIN_ANCHORS, int(ANCHOR_FRACTION * len(rows)))
        anchors = rows[most_confident(confidence[rows], n)]
        counts[c] = np.bincount(given_labels[anchors], minlength=k)
    return counts


def shrink(counts: ndarray) -> ndarray:
    """T[true, given] (K, K), rows sum to 1, from counts: each cell as far from the mean of all as chance allows.

    James–Stein: T = mean + between / (between + chance) · (share - mean), where `between` is the variance of the wrong
    cells beyond chance. Where hardly any is left, the noise is uniform, all wrong classes alike at one rate.
    """
    shares, mean, chance, spread = _wrong_cells(counts)
    between = spread * mean**2
    kept_share = between / (between + chance)
    if between <= UNIFORM_SPREAD * mean**2:
        kept_share[:] = 0
    cells = np.maximum(mean + kept_share * (shares - mean), MIN_PROBABILITY)
    np.fill_diagonal(cells, 0)
    p_right = np.maximum(1 - cells.sum(1), 1 / len(counts))
    matrix = cells + np.diag(p_right)
    return matrix / matrix.sum(1, keepdims=True)


def _wrong_cells(counts: ndarray) -> tuple[ndarray, float, float]:
    """Statistics of the cells of T off the diagonal, from counts (K, K).

    The share of each cell (K, K), the mean of all; the variance of each cell by chance (K, 1); and `spread`, their
    variance beyond chance relative to the squared mean: 0 = uniform noise.
    """
    rows = np.maximum(counts.sum(1, keepdims=True), MIN_PROBABILITY)
    shares = counts / rows
    # a class that is never predicted has no anchors
    used = ~np.eye(len(counts), dtype=bool) & (rows > 0.5)
    mean = max(shares[used].mean(), MIN_PROBABILITY)
    chance = mean / rows
    variance = (shares - mean) ** 2
    beyond_chance = (variance - chance)[used].mean()
    return shares, mean, chance, max(0, beyond_chance) / mean**2


def _noise_type(counts: ndarray, disagreement: float) -> str:
    """What the noise looks like: `none`, `look-alike`, `pair`, `uniform` or `class-dependent`.

    Where the anchors show hardly any of the disagreement that all rows show, it lies on rows that the models find hard:
    similar classes, wrongly labeled or only hard to tell (`none` where it is little). Else it is noise of the class:
    pair = nearly all wrong labels of a class are one other class; uniform = all other classes alike.

    counts: of anchor_counts; disagreement: share of all given labels that are not what is predicted.
    """
    on_anchors = 1 - np.trace(counts) / counts.sum()
    if on_anchors < MIN_ANCHOR_RATIO * disagreement or disagreement == 0:
        return "none" if disagreement < MIN_DISAGREEMENT else LOOK_ALIKE
    *_, spread = _wrong_cells(counts)
    if spread < UNIFORM_SPREAD:
        return "uniform"
    wrong = counts - np.diag(counts.diagonal())
    return "pair" if wrong.max(1).sum() > PAIR_FRACTION * wrong.sum() else "class-dependent"


def avoids_confident_rows(predicted: PosteriorSummary, k: int) -> bool:
    """Whether wrong labels are rarer the more confident the models are, which noise of the class does not do.

    The area under the ROC curve by which confidence tells contradicted labels (Mann & Whitney 1947), among the most
    confident rows of each predicted class, where nearly all contradicted labels are wrong ones.
    """
    labeled = np.flatnonzero(predicted.given_labels >= 0)
    confidence = predicted.confidence[labeled]
    contradicted = predicted.contradicted[labeled]
    excess = pairs = variance = 0.0
    for rows in by_class(predicted.best[labeled], k):
        n = int(CONFIDENT_FRACTION * len(rows))
        confident = rows[most_confident(confidence[rows], n)]
        ranks = 1 + np.flatnonzero(contradicted[confident])  # 1 is the most confident row
        n_pairs = len(ranks) * (n - len(ranks))
        excess += (ranks - (n + 1) / 2).sum()
        pairs += n_pairs
        variance += n_pairs * (n + 1) / 12
    area = 0.5 + excess / max(pairs, 1)
    return bool(area > MAX_AREA and excess > MIN_AREA_Z * np.sqrt(variance))


def deconvolve(probs: ndarray, matrix: ndarray, steps: int = 10) -> ndarray:
    """(N, K) probabilities of the given label → (N, K) probabilities q of the true class, with probs ≈ q · T.

    A model that learned noisy labels predicts the noise too. Richardson–Lucy (Richardson 1972, Lucy 1974) undoes it and
    keeps q a distribution: q ← q · ((probs / (q · T)) · Tᵀ), normalized.
    """

    def product(rows: ndarray, matrix: ndarray) -> ndarray:  # in the memory order of the rows
        return rows @ matrix if probs.flags.c_contiguous else (matrix.T @ rows.T).T

    q = probs.copy("K")
    for _ in range(steps):
        q *= product(probs / np.maximum(product(q, matrix), MIN_PROBABILITY), matrix.T)
        q /= q.sum(1, keepdims=True)
    return q


def bootstrap_rate(posterior: Posterior, predicted: ndarray, confidence: ndarray) -> ndarray:
    """The rate of wrong labels, and the ends of its 95 % interval, (3,) (percentile bootstrap, Efron 1979).

    The anchors of each class are drawn anew, see anchor_counts. The rate moves with the matrix, on a part of the rows,
    with the chance of each row to be wrong or not, and with what the model is off.
    """
    k = posterior.log_probs.shape[1]
    drawn = posterior.sample_rows()
    posterior = posterior.sample()
    counts = anchor_counts(predicted[drawn], confidence[drawn], posterior.given_labels, k)
    rng = np.random.default_rng(0)
    draws = min(MAX_DRAWS, max(MIN_DRAWS, MAX_DRAWN_CELLS // k**2))
    totals = counts.sum(1).astype(int)
    shares = counts / np.maximum(totals, 1)[:, None]
    matrices = [shrink(rng.multinomial(totals, shares)) for _ in range(draws)]

    labeled = np.flatnonzero(posterior.given_labels >= 0)
    p_wrong = replace(posterior, matrix=shrink(counts)).summary().p_wrong[labeled]
    part = rng.permutation(len(labeled))[: np.clip(MAX_RATE_PROBABILITIES // k, *RATE_ROWS)]
    rows = labeled[part]
    some = Posterior(posterior.log_probs[rows], posterior.given_labels[rows])
    rates = [replace(some, matrix=matrix).summary().p_wrong.mean() for matrix in matrices]

    rate = p_wrong.mean()
    variance = (p_wrong * (1 - p_wrong)).sum()
    chance = np.sqrt(variance) / len(labeled)
    error = np.hypot(chance, RATE_MODEL_SD * rate)
    of_part = p_wrong[part].mean()
    rates = np.array(rates) + rate - of_part + error * rng.normal(size=draws)
    ends = np.clip(np.quantile(rates, (0.025, 0.975)), 0, 1)
    return np.array([rate, *ends])
