"""self_train on rows of any kind with scikit-learn estimators."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from pseudokit import self_train
from pseudokit.config.types import UserError
from tests.conftest import ROOT

MODES = ["denoise", "augment", "joint"]
DIGITS = load_digits(return_X_y=True)


def digits(n=600, flipped=0.2, unlabeled=0, seed=0):
    """(X, y, clean): the first rows of the digits; the last `unlabeled` have no label."""
    X, clean = DIGITS
    X, clean = X[:n] / 16, clean[:n]
    rng = np.random.default_rng(seed)
    step = np.where(rng.random(n) < flipped, rng.integers(1, 10, n), 0)
    y = (clean + step) % 10
    y[n - unlabeled :] = -1
    return X, y, clean


class Spy(ClassifierMixin, BaseEstimator):
    """Gaussian naive Bayes that notes the rows and weights of every fit, and the rows of every prediction."""

    log: list = []  # noqa: RUF012  shared by all clones

    def fit(self, X, y, sample_weight=None):
        self.model_ = GaussianNB(var_smoothing=0.1).fit(X, y, sample_weight)
        self.classes_ = self.model_.classes_
        self.learned_ = X
        weights = np.ones(len(X)) if sample_weight is None else sample_weight
        self.log.append(("fit", X, y, weights))
        return self

    def predict_proba(self, X):
        self.log.append(("predict", X, self.learned_))
        return self.model_.predict_proba(X)


@pytest.fixture
def spy():
    Spy.log.clear()
    return Spy()


@pytest.mark.parametrize("mode", MODES)
def test_no_model_predicts_a_row_that_it_learned_or_a_copy_or_one_of_its_group(spy, mode):
    X, y, _ = digits(300, unlabeled=0 if mode == "denoise" else 100)
    X[:20] = X[100:120]  # copies among labeled rows, and across
    X[20:40] = X[280:]
    groups = np.where(np.arange(300) % 3 == 0, np.arange(300) // 30, np.nan)
    group_of = {row.tobytes(): group for row, group in zip(X, groups, strict=True)}
    policy = {} if mode == "denoise" else {"cutoff": 0.5}
    self_train(X, y, spy, mode=mode, groups=groups, folds=3, **policy)
    predictions = [entry[1:] for entry in spy.log if entry[0] == "predict"]
    assert len(predictions) == 6
    for judged, learned in predictions:
        keys = [{row.tobytes() for row in rows} for rows in (judged, learned)]
        assert not keys[0] & keys[1]
        in_groups = [{group_of[key] for key in part if group_of[key] >= 0} for part in keys]
        assert not in_groups[0] & in_groups[1]
    for number in range(2):
        times = sum(len(judged) for judged, _ in predictions[3 * number : 3 * number + 3])
        assert times >= 300, "every row is predicted in every round"


@pytest.mark.parametrize("mode", MODES)
def test_the_order_of_the_rows_changes_nothing_and_the_same_seed_gives_the_same(mode):
    X, y, _ = digits(300, unlabeled=0 if mode == "denoise" else 100)
    groups = np.arange(300) // 2

    def run(order, seed=0):
        result = self_train(
            X[order],
            y[order],
            GaussianNB(var_smoothing=0.1),
            mode=mode,
            groups=groups[order],
            folds=3,
            random_state=seed,
        )
        back = np.argsort(order)
        return result.labels[back], result.weights[back], result.oof_probs[back]

    first = run(np.arange(300))
    shuffled = run(np.random.default_rng(1).permutation(300))
    for one, other in zip(first, shuffled, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (run(np.arange(300), seed=1)[2] != first[2]).any()


def test_wrong_labels_are_repaired_and_the_student_is_no_worse():
    X, y, clean = digits(1797)
    train = np.arange(1797) < 1000
    estimator = LogisticRegression(C=0.3, max_iter=300)
    result = self_train(X[train], y[train], estimator)
    wrong = y[train] != clean[train]
    assert (result.labels != clean[train]).mean() < 0.5 * wrong.mean()
    scores = [
        model.score(X[~train], clean[~train]) for model in (result.estimator, result.baseline)
    ]
    assert scores[0] >= scores[1]
    is_issue = result.issues.is_issue.to_numpy()
    assert wrong[is_issue].mean() > 0.9
    assert (result.issues.suggested_label == clean[train])[is_issue].mean() > 0.8
    assert (result.oof_probs.argmax(1) == clean[train]).mean() > 0.85
    assert result.rounds[-1]["noise_type"] == "uniform"


def test_augment_learns_unlabeled_rows_of_either_kind():
    X, _, clean = digits(900, flipped=0)
    X = 16 * X
    names = np.array([f"n{k}" for k in range(10)], object)[clean]
    y = list(names[:100]) + [None] * 100
    result = self_train(
        X[:200],
        y,
        LogisticRegression(max_iter=300),
        mode="augment",
        X_unlabeled=X[200:700],
    )
    assert (result.labels[:100] == names[:100]).all()
    assert list(result.pseudo_labels.index) == list(range(100, 700))
    assert list(result.issues.index) == list(range(100))
    accepted = result.pseudo_labels.weight > 0
    assert accepted[:100].any()
    assert accepted[100:].any()
    right = result.pseudo_labels.label == names[100:700]
    assert right[accepted].mean() > 0.9
    assert result.pseudo_labels.label[~accepted].isna().all()
    scores = [m.score(X[700:], names[700:]) for m in (result.estimator, result.baseline)]
    assert scores[0] > scores[1]


def test_weights_and_soft_targets_reach_the_estimator_also_at_the_end_of_a_pipeline(spy):
    X, y, _ = digits(300)
    self_train(X, y, make_pipeline(StandardScaler(), spy), folds=3, uncertain_labels="soften")
    learned = [entry for entry in spy.log if entry[0] == "fit"]
    student, baseline = learned[-2:]
    assert (baseline[3] == 1).all()
    assert len(baseline[1]) == 300
    assert len(student[1]) > 300, "a soft label is a row a class"
    rows, position = np.unique(student[1], axis=0, return_inverse=True)
    totals = np.bincount(position.ravel(), student[3])
    np.testing.assert_allclose(totals[: len(rows)], 1, atol=0.01)


def test_an_estimator_without_weights_learns_the_likeliest_class():
    X, y, clean = digits(300)
    result = self_train(X, y, KNeighborsClassifier(10), folds=3, uncertain_labels="soften")
    assert (result.weights < 1).any()
    assert (result.labels != clean).mean() < (y != clean).mean()


def test_tables_texts_and_sparse_matrices_are_rows_as_well():
    X, y, _ = digits(300)
    by_array = self_train(X, y, GaussianNB(var_smoothing=0.1), folds=3)
    table = pd.DataFrame(X, index=[f"id{i}" for i in range(300)]).add_prefix("pixel_")
    by_table = self_train(table, pd.Series(y, table.index), GaussianNB(var_smoothing=0.1), folds=3)
    assert list(by_table.issues.index) == list(table.index)
    assert (by_table.labels == by_array.labels).mean() > 0.95
    assert by_table.estimator.feature_names_in_[0] == "pixel_0"

    words = [" ".join(f"w{column}" for column in np.flatnonzero(row > 0.5)) for row in X]
    texts = self_train(words, y, make_pipeline(CountVectorizer(), MultinomialNB()), folds=3)
    matrix = CountVectorizer().fit_transform(words)
    counted = self_train(matrix, y, MultinomialNB(), folds=3)
    assert (texts.labels == counted.labels).mean() > 0.9
    assert sparse.issparse(matrix)


def test_functions_take_the_place_of_an_estimator():
    X, y, _ = digits(300)
    seen = []

    def fit(rows, labels, weights):
        seen.append((len(rows), len(labels), len(weights)))
        return GaussianNB(var_smoothing=0.1).fit(rows, labels, weights)

    by_functions = self_train(
        X, y, fit=fit, predict=lambda model, rows: model.predict_proba(rows), folds=3
    )
    by_estimator = self_train(X, y, GaussianNB(var_smoothing=0.1), folds=3)
    np.testing.assert_array_equal(by_functions.labels, by_estimator.labels)
    assert len(seen) == 8, "three folds, two rounds, student and baseline"


def test_a_class_that_no_model_can_have_learned_keeps_its_column():
    """Whose model lacks a class gives it no probability."""
    X, y, _ = digits(300, flipped=0)

    def fit(rows, labels, weights):
        return GaussianNB(var_smoothing=0.1).fit(rows[labels != 3], labels[labels != 3])

    result = self_train(
        X,
        y,
        fit=fit,
        predict=lambda model, rows: model.predict_proba(rows),
        folds=3,
        relabel_cutoff=2,
    )
    assert result.oof_probs.shape == (300, 10)
    assert (result.oof_probs.argmax(1) != 3).all()


def test_labels_without_sense_stay_as_given():
    X, y, _ = digits(300)
    y = np.random.default_rng(0).permutation(y)
    with pytest.warns(UserWarning, match="chance"):
        result = self_train(X, y, GaussianNB(var_smoothing=0.1), folds=3)
    assert result.reason == "learned_nothing"
    np.testing.assert_array_equal(result.labels, y)
    assert not result.issues.is_issue.any()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mode": "denoize"}, "denoize"),
        ({"estimator": None}, "estimator"),
        ({"estimator": GaussianNB}, "GaussianNB()"),
        ({"estimator": LinearSVC()}, "LinearSVC"),
        ({"fit": len}, "fit="),
        ({"mode": "augment"}, "X_unlabeled"),
        ({"mode": "joint", "X_unlabeled": np.zeros((5, 3))}, "X_unlabeled"),
        ({"cutoff": 0.9}, "cutoff"),
        ({"relabel_cutof": 0.9}, "relabel_cutof"),
        ({"tta": 4}, "tta"),
        ({"rounds": 0}, "rounds"),
        ({"folds": 1}, "folds"),
        ({"groups": [1, 2]}, "groups"),
        ({"groups": np.zeros(100)}, "folds"),
        ({"y": np.zeros(100)}, "y"),
        ({"y": np.zeros(99)}, "99"),
        ({"y": np.zeros((100, 3))}, "0=1"),
        ({"estimator": MultiOutputClassifier(GaussianNB())}, "MultiOutputClassifier"),
        ({"X": 3}, "X"),
    ],
)
def test_wrong_arguments_are_named_before_any_fit(change, named):
    X, y, _ = digits(100)
    arguments = {"X": X, "y": y, "estimator": GaussianNB(), "folds": 2} | change
    with pytest.raises(UserError) as raised:
        self_train(**arguments)
    assert named in str(raised.value)


def label_sets(n=400, flipped=0.0, unlabeled=0):
    """(X, y, clean): several labels a row, of two classes that are easy to see and one that is not."""
    rng = np.random.default_rng(0)
    clean = (rng.random((n, 3)) < [0.2, 0.4, 0.6]).astype(int)
    X = clean * [4, 4, 3] + rng.normal(size=(n, 3))
    y = np.where(rng.random(clean.shape) < flipped, 1 - clean, clean).astype(float)
    y[n - unlabeled :] = np.nan
    return X, y, clean


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(5, max_depth=3),
        KNeighborsClassifier(10),
        OneVsRestClassifier(GaussianNB()),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_of_several_labels_a_row_the_wrong_answers_are_repaired(estimator):
    X, y, clean = label_sets(flipped=0.12)
    y[7, 1] = np.nan
    table = pd.DataFrame(y, columns=["cat", "dog", "owl"])
    result = self_train(X, table, estimator, folds=2)
    known = ~np.isnan(y)
    errors = [(labels != clean)[known].mean(0) for labels in (y, result.labels)]
    assert errors[1] < 0.5 * errors[0]
    assert result.labels[7, 1] == -1
    assert (result.weights > 0).tolist() == (result.labels >= 0).tolist()
    assert list(result.classes) == list(table.columns)
    assert result.issues.is_issue[((y != clean) & known).any(1)].mean() > 0.6
    assert (result.oof_probs.round() == clean).mean() > 0.85
    assert (result.estimator.predict(X) == clean).mean() > 0.85
    assert len(result.baseline.predict_proba(X)) == 3


def test_of_several_labels_a_row_only_sure_answers_are_given_and_unknown_ones_teach_nothing(spy):
    X, y, clean = label_sets(unlabeled=200)
    y[3, :2] = np.nan
    result = self_train(X, y, spy, mode="augment", folds=2, rounds=1, cutoff=0.9)
    known = ~np.isnan(y)
    assert (result.labels[known] == y[known]).all()
    new = result.labels[200:]
    sure = np.abs(result.oof_probs[200:] - 0.5) >= 0.4
    assert ((new >= 0) == sure).all()
    assert 0.5 < sure.mean() < 1
    assert (new == clean[200:])[sure].mean() > 0.9
    assert list(result.pseudo_labels.index) == [*range(200, 400)]
    assert np.stack(result.pseudo_labels.label).tolist() == new.tolist()
    # teachers of two folds, student and baseline; a model a class, which learns the known answers alone
    fits = [entry for entry in spy.log if entry[0] == "fit"]
    assert [len(entry[1]) for entry in fits[6:9]] == (result.labels >= 0).sum(0).tolist()
    assert [len(entry[1]) for entry in fits[9:]] == known.sum(0).tolist()
    for _, judged, learned in (entry for entry in spy.log if entry[0] == "predict"):
        assert not {row.tobytes() for row in judged} & {row.tobytes() for row in learned}
    order = np.random.default_rng(1).permutation(400)
    shuffled = self_train(X[order], y[order], spy, mode="augment", folds=2, rounds=1, cutoff=0.9)
    assert (shuffled.labels == result.labels[order]).all()


def test_a_cutoff_above_one_changes_no_answer():
    X, y, _ = label_sets(flipped=0.1)
    kept = self_train(X, y, GaussianNB(), folds=2, rounds=1, relabel_cutoff=1.1)
    assert (kept.labels == y).all()
    y[200:] = np.nan
    kept = self_train(X, y, GaussianNB(), mode="augment", folds=2, rounds=1, cutoff=1.1)
    assert (kept.labels[:200] == y[:200]).all()
    assert (kept.labels[200:] == -1).all()


def test_a_class_without_a_row_for_every_fold_is_named():
    X, y, _ = label_sets(60)
    y[:, 0] = np.arange(60) < 2
    one_group = np.maximum(np.arange(60), 1)
    for groups, named in ((one_group, "0=1"), (None, "'0'")):
        with pytest.raises(UserError, match=named):
            self_train(X, y, GaussianNB(), folds=2, groups=groups)


def test_pseudo_labels_that_collapse_leave_the_labels_as_given():
    """One class takes all pseudo-labels, so that nothing is learned from them."""
    X, y, _ = label_sets(unlabeled=300)
    X[100:] = [4, -2, -1]
    X[100:] += np.random.default_rng(0).normal(scale=0.1, size=(300, 3))
    with pytest.warns(UserWarning, match="few classes"):
        result = self_train(X, y, GaussianNB(), mode="augment", folds=2, rounds=1)
    assert result.reason == "collapse"
    assert (result.labels[:100] == y[:100]).all()
    assert (result.labels[100:] == -1).all()
    assert (result.issues.decision == "keep").all()


def test_torch_is_not_needed():
    program = """
import sys
import numpy as np
from sklearn.naive_bayes import GaussianNB
from pseudokit import self_train
x = np.random.default_rng(0).normal(size=(80, 2)) + np.repeat([[0], [3]], 40, axis=0)
self_train(x, np.repeat(["a", "b"], 40), GaussianNB(), rounds=1)
assert "torch" not in sys.modules
"""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=ROOT / "src", check=True, timeout=60
    )
