"""How much each network of a council counts: the weights under which given labels are most likely, out of fold."""

from dataclasses import replace

import numpy as np
from numpy import ndarray

from ..data.encoding import has_label, is_correct
from .arrays import MIN_PROBABILITY
from .calibration import MAX_FIT_ROWS
from .noise import estimate_noise
from .out_of_fold import FoldPredictions, average_models
from .posterior import Posterior

PRIOR_ROWS = 100
"""Equal weights count as much as so many labels: with 100 labels the weights go half of the way to what those say."""
EM_STEPS = 200


def weigh_members(
    models: list[FoldPredictions], given_labels: ndarray, noisy: bool
) -> tuple[list[FoldPredictions], dict]:
    """The predictions of the networks of a council, each with the weight of its member.

    Args:
        given_labels: (N,) class index, -1 = unlabeled; of label sets (N, C). Those of rows that all members predict
            count.
        noisy: given labels may be wrong, and are compared through the noise matrix that all members together estimate.

    Returns:
        Predictions with weights, and what round.json says: the weight of each member, and how often it predicts
        the given labels, out of fold.
    """
    n = len(given_labels)
    given_labels = given_labels.copy()
    given_labels[~predicted_by_all(models, n)] = -1
    labeled = has_label(given_labels)
    matrices = []
    for log_probs, labels in _questions(average_models(models, n).log_probs, given_labels):
        k = log_probs.shape[1]
        matrix = np.eye(k)
        if noisy:
            matrix, _ = estimate_noise(Posterior(log_probs, labels).summary(), k)
        matrices.append(matrix)
    likelihoods = []
    accuracies = []
    for member in range(1 + max(model.member for model in models)):
        of_member = [model for model in models if model.member == member]
        log_probs = average_models(of_member, n).log_probs
        questions = _questions(log_probs, given_labels)
        parts = []
        for (of_question, labels), matrix in zip(questions, matrices, strict=True):
            likelihood = Posterior(of_question, labels, matrix).summary().likelihood
            parts.append(likelihood[labels >= 0])
        likelihoods.append(np.concatenate(parts))
        hits = is_correct(log_probs[labeled].argmax(-1), given_labels[labeled])
        accuracies.append(float(hits.mean()))
    weights = fit_weights(np.stack(likelihoods)).round(6).tolist()
    models = [replace(model, weight=weights[model.member]) for model in models]
    return models, {"member_weights": weights, "member_accuracies": accuracies}


def predicted_by_all(models: list[FoldPredictions], n: int) -> ndarray:
    """(n,) which rows every member predicts."""
    in_all = np.ones(n, bool)
    for member in {model.member for model in models}:
        rows = [model.rows for model in models if model.member == member]
        in_all &= np.isin(np.arange(n), np.concatenate(rows))
    return in_all


def _questions(log_probs: ndarray, given_labels: ndarray) -> list[tuple[ndarray, ndarray]]:
    """Log-probabilities (N, K) and labels (N,); of label sets those of each class."""
    n, *_, k = log_probs.shape
    by_question = log_probs.reshape(n, -1, k).swapaxes(0, 1)
    labels = given_labels.reshape(n, -1).T
    return [*zip(by_question, labels, strict=True)]


def fit_weights(likelihoods: ndarray) -> ndarray:
    """The weights of a mean of probabilities under which labels are most likely; they sum to 1.

    EM for the shares of a mixture (Dempster et al. 1977). It minimizes the log loss of the mean, with a Dirichlet prior
    for equal weights.

    Args:
        likelihoods: (members, n) what each member gives the label of each row.

    Returns:
        (members,) weights.
    """
    n_members, n = likelihoods.shape
    rows = np.random.default_rng(0).permutation(n)[:MAX_FIT_ROWS]
    likelihoods = np.maximum(likelihoods[:, rows], MIN_PROBABILITY)
    weights = np.full(n_members, 1 / n_members)
    for _ in range(EM_STEPS):
        parts = weights[:, None] * likelihoods
        parts /= parts.sum(0)
        weights = parts.sum(1) + PRIOR_ROWS / n_members
        weights /= weights.sum()
    return weights
