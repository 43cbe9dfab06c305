"""Noise that people make: wrong labels are more frequent on images that are hard to tell. Arrays in, arrays out.

The model: the true class of row i is drawn from q_i ∝ p_i^sharpness, where p_i are out-of-fold probabilities. Its given
label is wrong at a rate that depends on how confident q_i is. A wrong label is drawn from the confusions of the class,
or from what else the image looks like. Everything is estimated by expectation maximization (Dempster, Laird & Rubin
1977). Class-conditional noise, where one matrix holds for all rows of a class, is in noise.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from .arrays import MIN_PROBABILITY, normalize, soften

BINS = 8
"""Bins of equally many rows by confidence, each with an error rate of its own."""
PSEUDO_COUNTS = 200
"""Rows at the overall rate that are added to every bin: a bin of few rows stays near the overall rate."""
LOOKS_LIKE_POWER = 0.7
"""A wrong label drawn by the image follows p to this power; 0.5 to 1 were about as good (docs/log.md)."""
MAX_EM_STEPS = 80
MIN_LOG_LIKELIHOOD_GAIN = 1e-6
"""EM ends when a step raises the mean log-likelihood of a row by less."""
MAX_FIT_ROWS = 50_000
MAX_SEARCH_ROWS = 20_000
"""Rows for the estimate, and for each trial of the search for the sharpness. More do not change its second digit."""
MAX_FIT_PROBABILITIES = 5_000_000
"""Probabilities in memory at once; with many classes fewer rows are used."""
SHARPNESS_BOUNDS = (0.7, 6.0)
SEARCH_STEPS = 12
"""How often the range of the sharpness is halved."""
RATE_CORRECTION = 1.6
RATE_CORRECTION_BOUNDS = (0.9, 2.2)
"""The true rate of wrong labels is about this many times the likeliest one, see estimate_difficulty_noise, and it was
between these: models that know all there is to know need no correction."""
MIN_ROWS = 1_000
"""With fewer labeled rows, noise by difficulty cannot be told from noise of the class."""
PREFERRED_Z = -2.0
"""Noise by difficulty, which is what people make, is named unless another model is ahead by more standard errors than
this. Of noise drawn by class the others were 2.8 to 250 ahead (30,000 rows), of people's labels 3.7 behind to 4.4."""
LOOK_ALIKE_LEAD = 0.04
"""Noise is called look-alike, which gives up on most label issues, only if that is ahead by so many more standard
deviations of a row. Of noise drawn that way it was 0.27 to 2.4 ahead, of noise drawn by the probabilities of a weak
model 0.06, of people's labels at most 0.02 (docs/log.md)."""


@dataclass(frozen=True)
class DifficultyNoise:
    """An estimate of this noise.

    P(given = j | true = k, image) = 1 - rate for j = k, else rate · ((1 - by_image) · confusions[k, j] + by_image ·
    looks_like[j]), where the rate is that of the bin of the image's confidence.
    """

    sharpness: float
    """Exponent of the probabilities p."""
    edges: ndarray
    """(BINS - 1,) confidences between the bins."""
    rates: ndarray
    """(BINS,) share of wrong labels in each bin."""
    confusions: ndarray
    """(K, K) which wrong label a true class gets; rows sum to 1, the diagonal is zero."""
    by_image: float
    """Share of the wrong labels that follow the image instead of the confusions."""
    estimated_rate: float
    """Share of all given labels that are wrong."""

    def likelihood(self, truth: ndarray, given_labels: ndarray) -> ndarray:
        """(M, K) probability of the given label (M,) if class k were true; truth: (M, K) is q."""
        rate = self.rates[np.searchsorted(self.edges, truth.max(1))]
        by_confusion = (1 - self.by_image) * self.confusions.T[given_labels]
        wrong = by_confusion + self.by_image * _looks_like(truth, given_labels, self.sharpness)
        likelihood = rate[:, None] * wrong
        likelihood[np.arange(len(given_labels)), given_labels] = 1 - rate
        return likelihood

    def log_likelihood(self, probs: ndarray, given_labels: ndarray) -> ndarray:
        """(M,) log-probability of each given label (M,); probs: (M, K) is p."""
        truth = soften(probs, 1 / self.sharpness)
        return np.log((truth * self.likelihood(truth, given_labels)).sum(1))


def _looks_like(truth: ndarray, given_labels: ndarray, sharpness: float) -> ndarray:
    """(M, K) how likely the given label (M,) is among the classes other than k that the image looks like."""
    rows = np.arange(len(given_labels))
    looks = soften(truth, sharpness / LOOKS_LIKE_POWER)
    likelihood = looks[rows, given_labels][:, None] / np.maximum(1 - looks, MIN_PROBABILITY)
    likelihood[rows, given_labels] = 0
    return likelihood


def estimate_difficulty_noise(
    log_probs: ndarray, given_labels: ndarray, likeliest_rate: float
) -> tuple[DifficultyNoise, ndarray]:
    """The noise, sharpened until its rate is RATE_CORRECTION times likeliest_rate, see compare.

    The likeliest rate is too low: part of what a model cannot tell is noise that it has learned, and the likelihood
    takes all of it for ignorance. On nine sets of labels from people, with weak models and with strong ones, the true
    rate was 1.4 to 2.1 times as high (benchmarks/human_noise.py).

    Returns:
        The noise; T[true, given] (K, K), the mean over rows: which labels each true class was given.
    """
    _, probs, labels = _sample_rows(log_probs, given_labels)
    low, high = np.log(SHARPNESS_BOUNDS)
    for _ in range(SEARCH_STEPS):  # bisection: the rate rises with the sharpness
        middle = (low + high) / 2
        rate = fit(probs[:MAX_SEARCH_ROWS], labels[:MAX_SEARCH_ROWS], np.exp(middle)).estimated_rate
        if rate < RATE_CORRECTION * likeliest_rate:
            low = middle
        else:
            high = middle
    noise = fit(probs, labels, np.exp(low))
    truth = soften(probs, 1 / noise.sharpness)
    posterior = normalize(truth * noise.likelihood(truth, labels))
    counts = posterior.T @ np.eye(probs.shape[1])[labels]
    return noise, counts / np.maximum(counts.sum(1, keepdims=True), MIN_PROBABILITY)


def _sample_rows(log_probs: ndarray, given_labels: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Labeled rows, at most MAX_FIT_ROWS, drawn at random: row numbers (M,) in order, probabilities (M, K), labels."""
    labeled = np.flatnonzero(given_labels >= 0)
    max_rows = min(MAX_FIT_ROWS, max(MIN_ROWS, MAX_FIT_PROBABILITIES // log_probs.shape[1]))
    rows = np.sort(np.random.default_rng(0).permutation(labeled)[:max_rows])
    probs = normalize(np.exp(log_probs[rows].astype(float)))
    return rows, probs, given_labels[rows]


def fit(
    probs: ndarray,
    given_labels: ndarray,
    sharpness: float,
    by_image: float | None = None,
) -> DifficultyNoise:
    """Rates and confusions by EM for one sharpness; by_image too, where it is not given.

    probs: (M, K); given_labels: (M,) class index.
    """
    m, k = probs.shape
    truth = soften(probs, 1 / sharpness)
    confidence = truth.max(1)
    edges = np.quantile(confidence, np.arange(1, BINS) / BINS)
    bins = np.searchsorted(edges, confidence)
    rows_in_bin = np.bincount(bins, minlength=BINS)
    one_hot = np.eye(k)[given_labels]
    q_of_given = truth[np.arange(m), given_labels]
    looks_like = (truth * _looks_like(truth, given_labels, sharpness)).sum(1)

    rates = np.full(BINS, 0.1)
    confusions = (1 - np.eye(k)) / (k - 1)
    image_share = 0.5 if by_image is None else by_image
    previous = -np.inf
    for _ in range(MAX_EM_STEPS):
        # E step: how each given label (M,) came about: right, by a confusion (M, K), or by what the image looks like
        rate = rates[bins]
        confusion_rate = (1 - image_share) * rate
        by_confusion = truth * confusions.T[given_labels] * confusion_rate[:, None]
        by_looks = looks_like * image_share * rate
        confused = by_confusion.sum(1)
        total = q_of_given * (1 - rate) + confused + by_looks
        wrong = (confused + by_looks) / total
        # M step
        wrong_in_bin = np.bincount(bins, wrong, BINS) + PSEUDO_COUNTS * wrong.mean()
        rates = wrong_in_bin / (rows_in_bin + PSEUDO_COUNTS)
        counts = (by_confusion / total[:, None]).T @ one_hot
        counts += 1  # no confusion is impossible
        np.fill_diagonal(counts, 0)
        confusions = normalize(counts)
        if by_image is None:
            image_share = (by_looks / total).sum() / max(wrong.sum(), MIN_PROBABILITY)
        log_likelihood = np.log(total).mean()
        if log_likelihood - previous < MIN_LOG_LIKELIHOOD_GAIN:
            break
        previous = log_likelihood
    return DifficultyNoise(sharpness, edges, rates, confusions, image_share, wrong.mean())


def compare(
    log_probs: ndarray,
    given_labels: ndarray,
    other: ndarray,
    other_parameters: int,
) -> tuple[float, float]:
    """By how many standard errors noise by difficulty explains the given labels better than another model of noise.

    It must also be better than no noise at all: the smaller of two tests of Vuong (1989) for models that are not
    nested, with his correction by the number of parameters (Akaike). Without noise, the given labels follow the
    probabilities themselves, at the likeliest temperature. Wrong labels that follow the image are left out: with them,
    a model of any noise could be imitated.

    Args:
        log_probs: (N, K) as the models give them.
        other: (N,) log-likelihood of each given label under the other model, which has other_parameters numbers.

    Returns:
        The standard errors, -inf where the rows cannot tell; and the rate of wrong labels under which noise by
        difficulty explains the labels best.
    """
    rows, probs, labels = _sample_rows(log_probs, given_labels)
    n, k = probs.shape
    if k < 3 or n < MIN_ROWS or k * (k - 1) >= n:
        return -np.inf, np.nan
    few_probs = probs[:MAX_SEARCH_ROWS]
    few_labels = labels[:MAX_SEARCH_ROWS]

    def by_difficulty(sharpness: float) -> ndarray:
        noise = fit(few_probs, few_labels, sharpness, by_image=0.0)
        return noise.log_likelihood(few_probs, few_labels)

    def without_noise(sharpness: float) -> ndarray:
        return np.log(soften(probs, 1 / sharpness)[np.arange(n), labels])

    noise = fit(probs, labels, _likeliest_sharpness(by_difficulty), by_image=0.0)
    log_likelihood = noise.log_likelihood(probs, labels)
    no_noise = without_noise(_likeliest_sharpness(without_noise))
    parameters = k * (k - 1) + BINS + 1
    z_other = _vuong(log_likelihood - other[rows], parameters - other_parameters)
    z_no_noise = _vuong(log_likelihood - no_noise, parameters - 1)
    return min(z_other, z_no_noise), float(noise.estimated_rate)


def _likeliest_sharpness(log_likelihood: Callable[[float], ndarray]) -> float:
    """The sharpness with the highest mean of log_likelihood(sharpness)."""
    from scipy.optimize import minimize_scalar

    def loss(log_sharpness: float) -> float:
        return -log_likelihood(np.exp(log_sharpness)).mean()

    bounds = np.log(SHARPNESS_BOUNDS)
    best = minimize_scalar(
        loss,
        bounds=bounds,
        method="bounded",
        options={"xatol": 0.02},
    )
    return float(np.exp(best.x))


def _vuong(ahead: ndarray, more_parameters: int) -> float:
    """By how many standard errors a model is ahead of another: `ahead` (n,) is the lead of its log-likelihoods."""
    error = np.sqrt(len(ahead)) * ahead.std()
    return float((ahead.sum() - more_parameters) / max(error, MIN_PROBABILITY))


def rate_interval(likeliest_rate: float) -> tuple[float, float]:
    """Between which rates of wrong labels the truth is to be expected, see estimate_difficulty_noise.

    What is uncertain is what the model could not tell, not the chance of the rows.
    """
    low, high = RATE_CORRECTION_BOUNDS
    return low * likeliest_rate, min(high * likeliest_rate, 1.0)
