"""Self-training with any scikit-learn classifier, or with a fit and a predict function: arrays in, a student out.

The loop is the one for images, see self_training.py. torch is not needed.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray
from scipy import sparse

from . import self_training
from .config.keys import USES_UNLABELED, Pseudo
from .config.load import make_policy
from .config.types import UserError
from .data.dataset import Dataset
from .data.encoding import class_scores, counts, has_label
from .data.folds import find_clusters, link_equal
from .label_issues import issues_table
from .labels.inputs import GivenLabels, read_array, read_labels, read_log_probs
from .round_store import MemoryStore
from .self_training import SelfTrainingContext
from .system.files import seed_of

IDLE_KEYS = {
    "denoise": (
        "cutoff",
        "min_precision",
        "top_fraction",
        "top_fraction_start",
        "distribution_alignment",
        "targets",
        "leak_free_folds",
    ),
    "augment": ("relabel_precision", "relabel_cutoff", "uncertain_labels"),
    "joint": ("leak_free_folds",),
}
"""By mode: the keys of the section `pseudo` that decide nothing in it."""
CUTOFF_KEYS = ("cutoff", "min_precision", "top_fraction")
"""What chooses pseudo-labels. Without any of them the cutoff is adaptive: a fixed one of 0.95 suits networks, and many
estimators never are as confident (docs/log.md)."""
IMAGE_KEYS = ("tta", "label_propagation", "audit_size")
"""Keys of that section for images and run folders."""
MIN_WEIGHT = 1e-3
"""A class of a soft target with less weight is not learned: it would cost a row and change nothing."""


@dataclass(frozen=True)
class EstimatorResult:
    """What self_train came to. N rows: those of X, then those of X_unlabeled."""

    labels: ndarray
    """(N,) what the student learned, as y writes it; None where nothing was, -1 where labels are numbers. With several
    labels a row (N, C) of yes = 1, no = 0 and nothing = -1."""
    weights: ndarray
    """(N,) or (N, C) how much each label counted, of a soft label its probability; 0 where nothing was learned."""
    issues: pd.DataFrame
    """The rows with a label, as find_label_issues returns them."""
    pseudo_labels: pd.DataFrame
    """The rows without a label: label (as in `labels`), confidence, weight; with several labels a row the largest."""
    oof_probs: ndarray
    """(N, K) probabilities of models that did not learn the row, the mean over the rounds; (N, C) of yes."""
    classes: ndarray
    """(K,) the class of each column."""
    estimator: Any
    """The student: fitted on `labels`. With several labels a row a fitted MultiOutputClassifier; of fit and predict a
    list of C models."""
    baseline: Any
    """The same estimator fitted on the given labels alone; None with train_baseline=False."""
    reason: str
    """Why the rounds ended: max_rounds, no_change, no_gain, collapse, learned_nothing."""
    rounds: tuple[dict, ...]
    """What round.json holds of each round."""


def self_train(
    X: Any,
    y: Any,
    estimator: Any = None,
    *,
    mode: str = "denoise",
    X_unlabeled: Any = None,
    rounds: int = 2,
    folds: int = 5,
    groups: Any = None,
    random_state: int = 0,
    fit: Callable[[Any, ndarray, ndarray], Any] | None = None,
    predict: Callable[[Any, Any], Any] | None = None,
    **policy: Any,
) -> EstimatorResult:
    """Find and repair wrong labels, or label unlabeled rows, and fit a student on the result.

    No row is predicted by a model that learned a label for it, for an equal row or for a row of its group. The order of
    the rows changes nothing.

    Args:
        X: N rows of whatever the estimator takes: array, DataFrame, sparse matrix, list of texts.
        y: N class names or whole numbers; None, NaN and -1 are no label. With several labels a row (N, C) of 1, 0 and
            NaN: then each class is learned by a model of its own, from the rows whose answer is known.
        estimator: a scikit-learn classifier or pipeline with predict_proba. Every model is a clone with a random_state
            of its own. Uncertain labels are learned as weighted rows, one a class; an estimator whose fit takes no
            sample_weight learns the likeliest class instead.
        mode: `denoise` repairs given labels, `augment` labels unlabeled rows, `joint` does both.
        X_unlabeled: more rows, without a label; for augment and joint.
        rounds: of teachers, each of which learn the labels of the last round.
        folds: teachers a round. Each class needs as many different rows.
        groups: (N,) rows of one group (a patient, a document) are never split over folds; None and NaN = none. With
            X_unlabeled also for its rows.
        random_state: seed of folds and models.
        fit, predict: in place of an estimator: fit(X, y, sample_weight) returns a model, predict(model, X)
            probabilities, a column a class in sorted order, or in that of the model's `classes_`.
        policy: other keys of the section `pseudo` in docs/config.md, such as cutoff=0.9 or relabel_precision=0.95. An
            estimator's confidences may be low, so by default the cutoff is "adaptive".

    Raises:
        UserError: an argument cannot be used; it is a ValueError.
    """
    settings = _read_policy(mode, rounds=rounds, folds=folds, **policy)
    functions = _model_functions(estimator, fit, predict)
    given = read_labels(y)
    X = _join(X, X_unlabeled, given)
    n = X.shape[0]
    labels = np.full((n, *given.indices.shape[1:]), -1)
    labels[: len(given.indices)] = given.indices
    group = _read_groups(groups, n)

    # The loop sees the rows in an order that only depends on them: rows[i] is the row of X that it calls i.
    keys = row_keys(X)
    rows = np.lexsort((*np.atleast_2d(labels.T), keys))
    given = replace(given, indices=labels[rows], ids=None)
    clusters = find_clusters(group[rows], link_equal(keys[rows]))
    _check_labels(given, clusters, mode, settings.folds)
    classes, questions = given.classes, None
    if labels.ndim == 2:
        classes, questions = np.arange(2), given.names
    models = RowModels(X, rows, classes, questions, *functions, random_state)
    # The loop looks at labels alone; ids, groups and splits say nothing to it.
    blank = np.full(n, "", object)
    dataset = Dataset(blank, blank, blank, given.indices, blank, tuple(given.names))
    store = MemoryStore()
    context = SelfTrainingContext(
        dataset,
        models.fit,
        models.predict,
        settings,
        store,
        mode=mode,
        clusters=clusters,
        seed=random_state,
    )
    result = self_training.self_train(context)
    if result.round == 0:
        warnings.warn(f"{_NOTHING_CHANGED[result.reason]}; all labels stay as given", stacklevel=2)

    learned = np.flatnonzero(has_label(result.label))
    student = models.fit("student", learned, result.targets(dataset)[learned]).model
    baseline = None
    if settings.train_baseline:
        labeled = np.flatnonzero(has_label(given.indices))
        baseline = models.fit("student", labeled, given.indices[labeled]).model
    decisions = result.decisions or store.decisions.keep_given(result.reason)
    predicted = result.predicted or store.predicted

    # Back to the order of X
    back = np.argsort(rows)
    index = X.index if _is_table(X) else pd.RangeIndex(n)
    written = np.append(classes, None if classes.dtype == object else -1)
    new_labels = written[result.label][back]
    weights = np.where(result.label >= 0, decisions.each("weight"), 0)[back]
    issues = issues_table(decisions, given, predicted.likeliest_rate).iloc[back].set_index(index)
    pseudo_labels = pd.DataFrame(
        {
            "label": list(new_labels),
            "confidence": decisions.confidence[back],
            "weight": np.atleast_2d(weights.T).max(0),
        },
        index,
    )
    return EstimatorResult(
        labels=new_labels,
        weights=weights,
        issues=issues[has_label(labels)],
        pseudo_labels=pseudo_labels[~has_label(labels)],
        oof_probs=np.exp(class_scores(predicted.log_probs)[back]),
        classes=given.classes,
        estimator=_as_one(student, estimator),
        baseline=_as_one(baseline, estimator),
        reason=result.reason,
        rounds=tuple(store.rounds),
    )


_NOTHING_CHANGED = {
    "learned_nothing": "held-out predictions agree with the labels no better than chance does",
    "collapse": "the pseudo-labels fall on a few classes only",
}


# ---- models


@dataclass
class RowModels:
    """`fit` and `predict` of the loop."""

    X: Any
    rows: ndarray
    """(N,) the row of X of each row of the loop."""
    classes: ndarray
    """What models learn: the classes, or the answers 0 and 1."""
    questions: list[str] | None
    """With several labels a row the C classes, each of which has a model of its own."""
    fit_rows: Callable[[Any, ndarray, ndarray, int], Any]
    """fit_rows(X, y, weights, seed) → model."""
    predict_rows: Callable[[Any, Any], Any]
    """predict_rows(model, X) → probabilities."""
    takes_weights: bool
    random_state: int

    def fit(self, where: str, rows: ndarray, targets: ndarray) -> SimpleNamespace:
        """The model that learns these labels (n,) or soft targets (n, K); the same seed for the same name.

        With several labels a row a list: each model learns the known answers of a class, or how likely yes is. Its hash
        is its name, as nothing is kept.
        """
        seed = seed_of(self.random_state, where)
        if self.questions is None:
            return SimpleNamespace(model=self._fit(rows, targets, seed), hash=where)
        models = []
        for name, answers in zip(self.questions, targets.T, strict=True):
            known = answers >= 0
            p_yes = answers[known]
            if not 0 < p_yes.mean() < 1:
                raise UserError(
                    f"{where}: class {name!r} has the same answer in all rows to learn; add rows, or set fewer folds"
                )
            no_and_yes = np.stack([1 - p_yes, p_yes], 1)
            models.append(self._fit(rows[known], no_and_yes, seed))
        return SimpleNamespace(model=models, hash=where)

    def _fit(self, rows: ndarray, targets: ndarray, seed: int) -> Any:
        labels = targets
        weights = np.ones(len(rows))
        if targets.ndim == 2 and self.takes_weights:
            position, labels = np.nonzero(targets >= MIN_WEIGHT)
            weights = targets[position, labels].astype(float)
            rows = rows[position]
        elif targets.ndim == 2:
            labels = targets.argmax(1)
        return self.fit_rows(self._take(rows), self.classes[labels], weights, seed)

    def predict(self, fitted: SimpleNamespace, rows: ndarray) -> ndarray:
        """(n, K) log-probabilities; a class that the model has not seen has the least one. Answers: (n, C, 2)."""
        X = self._take(rows)
        if self.questions is None:
            return self._predict(fitted.model, X)
        return np.stack([self._predict(model, X) for model in fitted.model], 1)

    def _predict(self, model: Any, X: Any) -> ndarray:
        probs = read_array(self.predict_rows(model, X), "predict")
        n = X.shape[0]
        seen = getattr(model, "classes_", self.classes)
        columns = pd.Index(self.classes).get_indexer(seen)
        if probs.shape != (n, len(seen)) or (columns < 0).any():
            raise UserError(
                f"predict gave the shape {probs.shape} for {n} rows and the classes {[*seen]}; give a column for each "
                "class that was learned"
            )
        of_all_classes = np.zeros((n, len(self.classes)))
        of_all_classes[:, columns] = probs
        return read_log_probs(of_all_classes, name="predict")

    def _take(self, rows: ndarray) -> Any:
        """These rows of X, in the type of X."""
        rows = self.rows[rows]
        return self.X.iloc[rows] if _is_table(self.X) else self.X[rows]


def _model_functions(
    estimator: Any, fit: Callable | None, predict: Callable | None
) -> tuple[Callable, Callable, bool]:
    """fit_rows and predict_rows of RowModels, and whether weights count."""
    n_functions = (fit is not None) + (predict is not None)
    if n_functions != (2 if estimator is None else 0):
        raise UserError("give either estimator=, or both fit= and predict=")
    if estimator is None:
        return lambda X, y, weights, seed: fit(X, y, weights), predict, True
    if isinstance(estimator, type):
        raise UserError(f"estimator is a class; give an object of it: {estimator.__name__}()")
    if not hasattr(estimator, "predict_proba"):
        raise UserError(
            f"{type(estimator).__name__} as it is has no predict_proba; choose a loss with probabilities, or give "
            "CalibratedClassifierCV(estimator)"
        )
    weight_name = _weight_name(estimator)

    def fit_rows(X: Any, y: ndarray, weights: ndarray, seed: int) -> Any:
        options = {weight_name: weights} if weight_name and (weights != 1).any() else {}
        return _clone(estimator, seed).fit(X, y, **options)

    return fit_rows, lambda model, X: model.predict_proba(X), weight_name is not None


def _weight_name(estimator: Any) -> str | None:
    """The argument of fit that takes weights, of a pipeline that of its last step; None where there is none."""
    from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.utils.validation import has_fit_parameter

    name = "sample_weight"
    while isinstance(estimator, Pipeline):
        step, estimator = estimator.steps[-1]
        name = f"{step}__{name}"
    if isinstance(estimator, ClassifierChain | MultiOutputClassifier):
        raise UserError(
            f"{type(estimator).__name__} needs all answers of a row, and some are unknown; give the estimator in it, "
            "of which each class gets one"
        )
    return name if has_fit_parameter(estimator, "sample_weight") else None


def _as_one(model: Any, estimator: Any) -> Any:
    """The estimators of all classes as one; any other model as it is."""
    from sklearn.multioutput import MultiOutputClassifier

    if estimator is None or not isinstance(model, list):
        return model
    whole = MultiOutputClassifier(estimator)
    whole.estimators_ = model
    whole.classes_ = [of_class.classes_ for of_class in model]
    return whole


def _clone(estimator: Any, seed: int) -> Any:
    """The estimator as it was before any fit, with this seed wherever it takes one."""
    from sklearn.base import clone

    copy = clone(estimator)
    names = [name for name in copy.get_params() if name.split("__")[-1] == "random_state"]
    return copy.set_params(**dict.fromkeys(names, seed))


# ---- arguments


def _read_policy(mode: str, **values: Any) -> Pseudo:
    if mode not in IDLE_KEYS:
        raise UserError(f"mode={mode!r} is none of {', '.join(IDLE_KEYS)}")
    for key in values:
        if key in (*IMAGE_KEYS, *IDLE_KEYS[mode]):
            raise UserError(
                f"{key} decides nothing in mode={mode!r}, or needs images; leave it out"
            )
    if mode in USES_UNLABELED and not {*CUTOFF_KEYS} & values.keys():
        values["cutoff"] = "adaptive"
    policy = make_policy(**values)
    if policy.rounds < 1:
        raise UserError("rounds=0 would be a plain fit; give at least 1")
    return policy


def _join(X: Any, X_unlabeled: Any, given: GivenLabels) -> Any:
    """All rows as one table, CSR matrix or array."""
    X = _read_rows(X, "X")
    n = X.shape[0]
    if n != len(given.indices):
        raise UserError(f"X has {n:,} rows, and y has {len(given.indices):,}")
    if _is_table(X) and given.ids is not None and not X.index.equals(given.ids):
        raise UserError(
            "X and y have different indices; bring y into the order of X (y.loc[X.index]), or give y.to_numpy()"
        )
    if X_unlabeled is None:
        return X
    more = _read_rows(X_unlabeled, "X_unlabeled")
    if _form(X) != _form(more):
        raise UserError(
            f"X_unlabeled has {_form(more)}, and X has {_form(X)}; give both the same columns in the same form"
        )
    if _is_table(X):
        return pd.concat([X, more])
    if sparse.issparse(X):
        return sparse.vstack([X, more], "csr")
    return np.concatenate([X, more])


def _read_rows(X: Any, name: str) -> Any:
    if _is_table(X):
        return X
    if sparse.issparse(X):
        return X.tocsr()
    if isinstance(X, list | tuple) and X and isinstance(X[0], str):
        return np.array(X, dtype=object)  # NumPy would give every text the length of the longest
    array = read_array(X, name)
    if array.ndim == 0:
        raise UserError(f"{name} is a single value; give rows")
    return array


def _is_table(X: Any) -> bool:
    return isinstance(X, pd.DataFrame | pd.Series)


def _form(X: Any) -> str:
    """What rows must have in common to stand in one table."""
    columns = [*X.columns] if isinstance(X, pd.DataFrame) else X.shape[1:]
    return f"the form {type(X).__name__} {columns}"


def _read_groups(groups: Any, n: int) -> ndarray:
    """(N,) number of the group as text, "" = none."""
    if groups is None:
        return np.full(n, "", object)
    array = read_array(groups, "groups")
    if array.shape != (n,):
        raise UserError(
            f"groups have the shape {array.shape}; give one for each of the {n:,} rows of X and X_unlabeled"
        )
    codes, different = pd.factorize(array)
    texts = [*map(str, range(len(different))), ""]  # the code of no group is -1
    return np.array(texts, object)[codes]


def _check_labels(given: GivenLabels, clusters: ndarray, mode: str, folds: int) -> None:
    """Refuse what the loop cannot learn: every fold needs a row of every class."""
    labels = given.indices
    if len(given.classes) < 2:
        raise UserError("y has one class, and at least two are needed; -1 means no label")
    if mode in USES_UNLABELED and (labels >= 0).all():
        raise UserError(f"mode={mode!r} needs rows without a label: give X_unlabeled, or -1 in y")
    for c, column in enumerate(np.atleast_2d(labels.T)):
        names = given.names
        if labels.ndim == 2:
            names = [f"{names[c]}=0", f"{names[c]}=1"]
        different = pd.DataFrame({"cluster": clusters, "label": column}).drop_duplicates()
        rows = counts(different.label.to_numpy(), len(names))
        smallest = rows.argmin()
        if rows[smallest] < folds:
            raise UserError(
                f"class {names[smallest]!r} has {rows[smallest]} rows (equal ones and those of a group count once), "
                f"fewer than folds={folds}; add rows, merge the class or set fewer folds"
            )


def row_keys(X: Any) -> ndarray:
    """(N,) uint64, the same for equal rows only, whatever their order."""
    if sparse.issparse(X):
        cells = X.tocoo()
        cells.eliminate_zeros()
        table = pd.DataFrame({"column": cells.col, "value": cells.data})
        keys = np.zeros(X.shape[0], np.uint64)
        np.add.at(keys, cells.row, pd.util.hash_pandas_object(table, index=False))
        return keys
    if not _is_table(X):
        flat = np.ascontiguousarray(X.reshape(len(X), -1))
        if X.dtype.kind in "biuf":
            digests = [hashlib.blake2b(row, digest_size=8).digest() for row in flat]
            return np.frombuffer(b"".join(digests), np.uint64)
        X = pd.DataFrame(flat)
    return pd.util.hash_pandas_object(X, index=False, categorize=False).to_numpy()
