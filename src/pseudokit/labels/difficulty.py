"""Noise that people make: wrong labels are more frequent on images that are hard to tell. Arrays in, arrays out.

The model: the true class of row i is drawn from q_i ∝ p_i^sharpness, where p_i are held-out probabilities. Its given
label is wrong at a rate that depends on how confident q_i is. A wrong label is drawn from the confusions of the class,
or from what else the image looks like. Everything is estimated by expectation maximization (Dempster, Laird & Rubin
1977). Class-conditional noise, where one matrix holds for all rows of a class, is in noise.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .arrays import TINY, normalize, soften

BINS = 8
"""Bins of equally many rows by confidence, each with an error rate of its own."""
PSEUDO_COUNTS = 200
"""Rows at the overall rate that are added to every bin: a bin of few rows stays near the overall rate."""
LOOKS_LIKE_POWER = 0.7
"""A wrong label drawn by the image follows p to this power; 0.5 to 1 were about as good (docs/log.md)."""
MAX_STEPS = 80
MIN_LOG_LIKELIHOOD_GAIN = 1e-6
"""EM ends when a step raises the mean log-likelihood of a row by less."""
MAX_FIT_ROWS, MAX_SEARCH_ROWS = 50_000, 20_000
"""Rows for the estimate, and for each trial of the search for the sharpness. More do not change its second digit."""
MAX_FIT_CELLS = 5_000_000
"""Probabilities in memory at once; with many classes fewer rows are used."""
SHARPNESS_BOUNDS = (0.7, 6.0)
SEARCH_STEPS = 12
"""How often the range of the sharpness is halved."""
RATE_CORRECTION, RATE_CORRECTION_BOUNDS = 1.6, (0.9, 2.2)
"""The true rate of wrong labels is about this many times the likeliest one, see estimate_difficulty_noise, and it was
between these: judges that know all there is to know need no correction."""
MIN_ROWS = 1_000
"""With fewer labeled rows, noise by difficulty cannot be told from noise of the class."""
PREFERRED_Z = -2.0
"""Noise by difficulty, which is what people make, is named unless another model is ahead by more standard errors than
this. Of noise drawn by class the others were 2.8 to 250 ahead (30,000 rows), of people's labels 0.4 behind to 3.7."""


@dataclass(frozen=True)
class DifficultyNoise:
    """An estimate of this noise.

    sharpness: exponent of p. edges: (BINS - 1,) confidences between the bins. rates: (BINS,) share of wrong labels.
    confusions: (K, K) which wrong label a true class gets, rows sum to 1, zero diagonal. by_image: share of the wrong
    labels that follow the image instead. estimated_rate: of wrong labels.
    """

    sharpness: float
    edges: np.ndarray
    rates: np.ndarray
    confusions: np.ndarray
    by_image: float
    estimated_rate: float

    def likelihood(self, truth: np.ndarray, given_labels: np.ndarray) -> np.ndarray:
        """(M, K) probability of the given label (M,) if class k were true; truth: (M, K) is q."""
        rate = self.rates[self._bins(truth)]
        wrong = (1 - self.by_image) * self.confusions.T[given_labels] + self.by_image * self._looks_like(
            truth, given_labels
        )
        likelihood = rate[:, None] * wrong
        likelihood[np.arange(len(given_labels)), given_labels] = 1 - rate
        return likelihood

    def _bins(self, truth: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.edges, truth.max(1))

    def _looks_like(self, truth: np.ndarray, given_labels: np.ndarray) -> np.ndarray:
        """(M, K) how likely the given label is among the other classes that the image looks like."""
        looks = soften(truth, self.sharpness / LOOKS_LIKE_POWER)
        likelihood = looks[np.arange(len(given_labels)), given_labels][:, None] / np.maximum(1 - looks, TINY)
        likelihood[np.arange(len(given_labels)), given_labels] = 0
        return likelihood


def estimate_difficulty_noise(
    log_probs: np.ndarray, given_labels: np.ndarray, likeliest_rate: float
) -> DifficultyNoise:
    """The noise, sharpened until its rate is RATE_CORRECTION times likeliest_rate, see compare.

    The likeliest rate is too low: part of what a model cannot tell is noise that it has learned, and the likelihood
    takes all of it for ignorance. On nine sets of labels from people, with weak judges and with strong ones, the true
    rate was 1.4 to 2.1 times as high (benchmarks/human_noise.py).
    """
    probs, given_labels = sample_rows(log_probs, given_labels)
    few, labels = probs[:MAX_SEARCH_ROWS], given_labels[:MAX_SEARCH_ROWS]
    low, high = np.log(SHARPNESS_BOUNDS)
    for _ in range(SEARCH_STEPS):  # the rate rises with the sharpness
        middle = (low + high) / 2
        too_low = fit(few, labels, np.exp(middle)).estimated_rate < RATE_CORRECTION * likeliest_rate
        low, high = (middle, high) if too_low else (low, middle)
    return fit(probs, given_labels, np.exp(low))


def sample_rows(log_probs: np.ndarray, given_labels: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(M, K) probabilities and (M,) labels of labeled rows, at most MAX_FIT_ROWS, drawn at random."""
    rows = fit_rows(given_labels, log_probs.shape[1], seed)
    return normalize(np.exp(log_probs[rows].astype(np.float64))), given_labels[rows]


def fit_rows(given_labels: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """The row numbers of sample_rows, in order."""
    known = np.flatnonzero(given_labels >= 0)
    most = min(MAX_FIT_ROWS, max(MIN_ROWS, MAX_FIT_CELLS // k))
    return np.sort(np.random.default_rng(seed).permutation(known)[:most])


def find_likeliest_sharpness(probs: np.ndarray, given_labels: np.ndarray) -> float:
    """The exponent under which the given labels (M,) are most likely, where no wrong label follows the image."""
    probs, given_labels = probs[:MAX_SEARCH_ROWS], given_labels[:MAX_SEARCH_ROWS]
    return _likeliest(
        lambda sharpness: log_likelihood(fit(probs, given_labels, sharpness, by_image=0.0), probs, given_labels)
    )


def _likeliest(log_likelihood_at: Callable[[float], np.ndarray]) -> float:
    from scipy.optimize import minimize_scalar

    bounds = np.log(SHARPNESS_BOUNDS)
    found = minimize_scalar(
        lambda log_sharpness: -log_likelihood_at(np.exp(log_sharpness)).mean(),
        bounds=bounds,
        method="bounded",
        options={"xatol": 0.02},
    )
    return float(np.exp(found.x))


def log_likelihood(noise: DifficultyNoise, probs: np.ndarray, given_labels: np.ndarray) -> np.ndarray:
    """(M,) log-probability of each given label."""
    truth = soften(probs, 1 / noise.sharpness)
    return np.log((truth * noise.likelihood(truth, given_labels)).sum(1))


def fit(
    probs: np.ndarray, given_labels: np.ndarray, sharpness: float, by_image: float | None = None
) -> DifficultyNoise:
    """Rates, confusions and by_image (or that one as it is given) by EM for one sharpness.

    probs: (M, K); given: (M,) class index.
    """
    m, k = probs.shape
    rows, one_hot = np.arange(m), np.eye(k)[given_labels]
    truth = soften(probs, 1 / sharpness)
    edges = np.quantile(truth.max(1), np.arange(1, BINS) / BINS)
    confusions = (1 - np.eye(k)) / (k - 1)
    share = 0.5 if by_image is None else by_image
    noise = DifficultyNoise(sharpness, edges, np.full(BINS, 0.1), confusions, share, 0.1)
    bins, looks_like, right = noise._bins(truth), noise._looks_like(truth, given_labels), truth[rows, given_labels]
    before = -np.inf
    for _ in range(MAX_STEPS):
        rate = noise.rates[bins]
        confused = truth * noise.confusions.T[given_labels] * ((1 - noise.by_image) * rate)[:, None]
        by_looks = (truth * looks_like).sum(1) * noise.by_image * rate
        by_class = confused.sum(1)
        total = right * (1 - rate) + by_class + by_looks
        wrong = (by_class + by_looks) / total
        counts = (confused / total[:, None]).T @ one_hot + 1  # one more of each: no cell is impossible
        np.fill_diagonal(counts, 0)
        in_bin = np.bincount(bins, minlength=BINS)
        rates = (np.bincount(bins, wrong, BINS) + PSEUDO_COUNTS * wrong.mean()) / (in_bin + PSEUDO_COUNTS)
        share = (by_looks / total).sum() / max(wrong.sum(), TINY) if by_image is None else by_image
        noise = replace(noise, rates=rates, confusions=normalize(counts), by_image=share, estimated_rate=wrong.mean())
        now = np.log(total).mean()
        if now - before < MIN_LOG_LIKELIHOOD_GAIN:
            break
        before = now
    return noise


def compare(
    log_probs: np.ndarray, given_labels: np.ndarray, other: np.ndarray, other_parameters: int
) -> tuple[float, float]:
    """By how many standard errors noise by difficulty explains the given labels better than another model of noise,
    and better than no noise at all; and the rate of wrong labels under which it explains them best.

    The smaller of two tests of Vuong (1989) for models that are not nested, with his correction by the number of
    parameters (Akaike). Without noise, the probabilities themselves are what the given labels follow, at the likeliest
    temperature. Wrong labels that follow the image are left out: with them, a model of any noise could be imitated.

    log_probs: (N, K) as the models give them; other: (N,) log-likelihood of each given label under the other model.
    """
    rows = fit_rows(given_labels, log_probs.shape[1])
    k, n = log_probs.shape[1], len(rows)
    if k < 3 or n < MIN_ROWS or k * (k - 1) >= n:
        return -np.inf, np.nan
    probs, given_labels = sample_rows(log_probs, given_labels)
    noise = fit(probs, given_labels, find_likeliest_sharpness(probs, given_labels), by_image=0.0)
    found, parameters = log_likelihood(noise, probs, given_labels), k * (k - 1) + BINS + 1

    def plain(sharpness: float) -> np.ndarray:
        return np.log(soften(probs, 1 / sharpness)[np.arange(n), given_labels])

    none = plain(_likeliest(plain))
    z = min(vuong(found, other[rows], parameters - other_parameters), vuong(found, none, parameters - 1))
    return z, float(noise.estimated_rate)


def vuong(first: np.ndarray, second: np.ndarray, more_parameters: int) -> float:
    """By how many standard errors the first model is ahead of the second, by the log-likelihoods of each row (n,)."""
    ahead = first - second
    return float((ahead.sum() - more_parameters) / max(np.sqrt(len(ahead)) * ahead.std(), TINY))


def matrix_of(noise: DifficultyNoise, log_probs: np.ndarray, given_labels: np.ndarray) -> np.ndarray:
    """T[true, given] (K, K), the mean over rows: which labels each true class was given."""
    probs, given_labels = sample_rows(log_probs, given_labels)
    truth = soften(probs, 1 / noise.sharpness)
    posterior = normalize(truth * noise.likelihood(truth, given_labels))
    counts = posterior.T @ np.eye(probs.shape[1])[given_labels]
    return counts / np.maximum(counts.sum(1, keepdims=True), TINY)


def rate_interval(likeliest_rate: float) -> tuple[float, float]:
    """Between which rates of wrong labels the truth is to be expected, see estimate_difficulty_noise.

    What is uncertain is what the model could not tell, not the chance of the rows.
    """
    low, high = RATE_CORRECTION_BOUNDS
    return low * likeliest_rate, min(high * likeliest_rate, 1.0)
