"""Linear heads on embeddings: all that learns where the backbone is frozen."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy import ndarray
from torch import Tensor, nn

from ..config.types import UserError
from ..data.encoding import has_label
from ..data.folds import make_folds
from .losses import BinaryCrossEntropy, CrossEntropy, loss_kind
from .models import TrainedModel

PRIORS = (3000.0, 1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0)
"""Inverse variances of a weight that are tried, from the strongest on: each begins where the one before it ended. Clean
labels choose 3 to 30 of them, labels a fifth of which are wrong 300 to 1000."""
DEFAULT_PRIOR = 30.0
"""Where the labels are too few to choose by."""
MIN_PSEUDO_LABEL_PRIOR = 600.0
"""Where pseudo-labels are learned: they agree with each other more than with the truth (docs/log.md)."""
MIN_COUNCIL_PSEUDO_LABEL_PRIOR = 50.0
"""… of a council: most of them are other networks' word, which errs on other images (docs/log.md)."""
GIVEN_LABEL_WEIGHT = 10.0
"""How many times as much a given label counts as a pseudo-label (docs/log.md), where the run changes no given label."""
MAX_LABELS_FOR_FIVE_FOLDS = 300
"""Up to so many labels, the prior is chosen on five held-out parts of them; beyond, on three."""
MAX_ROWS_FOR_PRIOR = 3000
"""Rows that the prior is chosen on, so that this takes seconds."""
MAX_LBFGS_STEPS = 100
"""Each may try several step lengths."""


def linear_classifier(network: nn.Module) -> nn.Linear:
    """The last layer of a timm model.

    Raises:
        UserError: it is not a linear one.
    """
    last = network.get_classifier()
    if not isinstance(last, nn.Linear):
        raise UserError(
            f"model.freeze_backbone=true needs a linear last layer, and that of {type(network).__name__} is a "
            f"{type(last).__name__}; choose another model.name"
        )
    return last


def alike_features(embeddings: ndarray) -> ndarray:
    """(N, D) embeddings around their mean, of unit length: the features of neighbor_graph."""
    x = embeddings - embeddings.mean(0)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.maximum(length, 1e-6)


@torch.inference_mode()
def head_log_probs(model: TrainedModel, embeddings: ndarray) -> ndarray:
    """(n, D) embeddings → float32 log-probabilities, see predict.log_probs."""
    head = linear_classifier(model.network)
    x = torch.from_numpy(np.asarray(embeddings, np.float32))  # from the file into memory
    logits = head(x.to(head.weight))
    return loss_kind(model.spec.multi_label).log_probs(logits).cpu().numpy()


def fit_head(
    embeddings: ndarray,
    labels: ndarray,
    k: int,
    multi_label: bool,
    given_labels: ndarray,
    n_networks: int = 1,
    prior: float | None = None,
) -> tuple[nn.Linear, pd.DataFrame]:
    """Logistic regression on embeddings with a normal prior on the weights, by L-BFGS.

    The loss is convex: there is one best head, whatever the seed. All units have one scale, because one that hardly
    varies among a handful of labeled rows would be far out of scale elsewhere. In the end the weights absorb it.

    Args:
        embeddings: (n, D) float32.
        labels: (n,) classes or (n, K) soft targets; several labels an image: (n, K), -1 = unknown.
        given_labels: by which the prior is chosen, in the form of labels; -1 = a row that has a pseudo-label.
        n_networks: how many of them gave those pseudo-labels.
        prior: chosen already; None = it is chosen here, which takes most of the time.

    Returns:
        The head, and its history with the prior.
    """
    start = time.monotonic()
    criterion = loss_kind(multi_label)()
    mean = embeddings.mean(0)
    scale = np.float32(np.sqrt(embeddings.var(0).mean()) or 1)
    x = torch.from_numpy((embeddings - mean) / scale)
    is_given = has_label(given_labels)
    targets = torch.from_numpy(criterion.targets(labels))
    if given_labels.ndim == 2 and not multi_label:
        given_labels = given_labels.argmax(1)
    min_prior = 0.0
    if (has_label(labels) & ~is_given).any():
        is_council = n_networks > 1
        min_prior = MIN_COUNCIL_PSEUDO_LABEL_PRIOR if is_council else MIN_PSEUDO_LABEL_PRIOR
        if not multi_label:
            targets = _favor_given(targets, given_labels, is_given, k)
    if prior is None:
        prior = _choose_prior(x[is_given], given_labels[is_given], k, criterion, min_prior)
    prior = max(prior, min_prior)
    head = _zero_head(x.shape[1], k)
    losses = _fit(head, x, lambda logits: _loss(criterion, logits, targets), prior / len(x))
    with torch.no_grad():
        head.weight /= scale
        head.bias -= head.weight @ torch.from_numpy(mean)
    history = pd.DataFrame(
        {
            "epoch": np.arange(1, len(losses) + 1),
            "loss": losses,
            "lr": 1.0,
            "seconds": round(time.monotonic() - start, 3),
            "skipped": 0,
            "prior": prior,
        }
    )
    return head, history


def _favor_given(targets: Tensor, given_labels: ndarray, is_given: ndarray, k: int) -> Tensor:
    """The targets, where all given labels are kept as (n, K) with more weight for these.

    targets: (n,) classes, or (n, K) soft. given_labels: (n,) classes.
    """
    probs = targets if targets.ndim == 2 else F.one_hot(targets, k).float()
    given = torch.from_numpy(given_labels[is_given]).long()
    if not torch.equal(probs[is_given], F.one_hot(given, k).float()):
        return targets
    weights = np.where(is_given, GIVEN_LABEL_WEIGHT, 1).astype(np.float32)
    return probs * torch.from_numpy(weights)[:, None]


def _zero_head(units: int, k: int) -> nn.Linear:
    head = nn.Linear(units, k)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _loss(criterion: CrossEntropy, logits: Tensor, targets: Tensor) -> Tensor:
    """The mean loss of rows. Several labels an image are as many problems, each of which has the prior."""
    n_problems = logits.shape[1] if isinstance(criterion, BinaryCrossEntropy) else 1
    return n_problems * criterion(logits, targets)


def _fit(
    head: nn.Linear, x: Tensor, loss: Callable[[Tensor], Tensor], weight_decay: float
) -> list[float]:
    """Bring a head to the least loss and weight decay, from where it is. Returns the losses on the way.

    loss: of the logits of x.
    """
    optimizer = torch.optim.LBFGS(
        head.parameters(), max_iter=MAX_LBFGS_STEPS, line_search_fn="strong_wolfe"
    )
    losses = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(head(x)) + weight_decay / 2 * head.weight.square().sum()
        value.backward()
        losses.append(value.item())
        return value

    optimizer.step(closure)
    return losses


def _choose_prior(
    x: Tensor, given_labels: ndarray, k: int, criterion: CrossEntropy, min_prior: float
) -> float:
    """The prior under which heads that did not learn some of the given labels predict those best, by log loss.

    No row takes part that the final head does not learn. The heads of all splits are fitted at once, as one of
    several times k classes. Priors far below min_prior are not tried.
    """
    order = np.random.default_rng(0).permutation(len(x))
    rows = np.sort(order[:MAX_ROWS_FOR_PRIOR])
    x, given_labels = x[rows], given_labels[rows]
    splits = _splits(given_labels)
    if not splits:
        return DEFAULT_PRIOR
    if 2 * len(x) < x.shape[1]:
        x = torch.linalg.qr(x.T).R.T  # the same rows in as many coordinates as there are rows
    learned, held_out = torch.from_numpy(np.array(splits)).permute(1, 2, 0)
    targets = torch.from_numpy(criterion.targets(given_labels))
    heads = _zero_head(x.shape[1], len(splits) * k)

    def loss_of(mask: Tensor, logits: Tensor) -> Tensor:
        """Of each row under the heads that a mask (n, splits) names."""
        logits = logits.view(*mask.shape, k)
        return _loss(criterion, logits[mask], targets[mask.nonzero()[:, 0]])

    best_prior, best_loss = DEFAULT_PRIOR, np.inf
    for prior in PRIORS:
        weight_decay = prior / int(learned.sum())
        _fit(heads, x, partial(loss_of, learned), weight_decay)
        with torch.no_grad():
            loss = float(loss_of(held_out, heads(x)))
        if loss >= best_loss:  # weaker ones are worse still
            break
        best_prior, best_loss = prior, loss
        if prior <= min_prior:
            break
    return best_prior


def _splits(given_labels: ndarray) -> list[tuple[ndarray, ndarray]]:
    """(learned, held out) masks. No row is held out of a class that the others lack: no head could know it."""
    if given_labels.dtype.kind == "f":  # soft answers to several questions: by the most certain yes
        given_labels = given_labels.argmax(1)
    n = len(given_labels)
    folds = 5 if n <= MAX_LABELS_FOR_FIVE_FOLDS else 3
    if n < 2 * folds:
        return []
    fold_of_row = make_folds(given_labels, np.arange(n), folds, seed=0)
    splits = []
    for fold in range(folds):
        learned = fold_of_row != fold
        held_out = ~learned
        if given_labels.ndim == 1:
            held_out &= np.isin(given_labels, given_labels[learned])
        if held_out.any():
            splits.append((learned, held_out))
    return splits
