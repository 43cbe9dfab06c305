"""Label issues and pseudo-labels from anyone's predictions: the decisions of a run, whatever the form of the input."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from pseudokit import find_label_issues, select_pseudo_labels
from pseudokit.config.keys import Pseudo
from pseudokit.config.types import UserError
from pseudokit.data.dataset import Dataset
from pseudokit.labels import arrays, out_of_fold, posterior
from pseudokit.labels.decide import decide_labels
from tests.conftest import run_cold
from tests.labels.test_noise import K, pair, uniform, world
from tests.test_laws import rounds_of

NAMES = np.array([f"class {k}" for k in range(K)], object)


@pytest.fixture(scope="module")
def noisy():
    """(probabilities, truth, given labels) with 20 % of the labels wrong."""
    return world(uniform(0.2), sharpness=3, n=900)


@pytest.mark.parametrize("matrix", [uniform(0.2), pair(0.3)], ids=["uniform", "pair"])
def test_they_are_the_decisions_of_a_run_on_the_same_probabilities(matrix, tmp_path):
    probs, _, labels = world(matrix, n=900)
    log_probs = np.log(np.maximum(probs, 1e-12)).astype(np.float32)
    ids = np.array([f"{i:05d}" for i in range(len(labels))], object)
    empty = np.full(len(labels), "", object)
    result = rounds_of(
        tmp_path,
        "denoise",
        Dataset(ids, empty, empty, labels, empty, tuple(NAMES)),
        fit=lambda where, rows, targets: SimpleNamespace(hash=where),
        predict=lambda model, rows: log_probs[rows],
        policy=Pseudo(rounds=1, folds=3),
    )
    info = json.loads((tmp_path / "round_1" / "round.json").read_text())
    issues = find_label_issues(labels, probs, folds=result.predicted.predicted_by)
    assert issues.p_wrong.to_numpy() == pytest.approx(result.decisions.p_wrong, abs=1e-5)
    assert issues.decision.tolist() == result.decisions.decision.tolist()
    assert {"relabel", "soften", "keep"} <= {*issues.decision}
    relabeled = (issues.decision == "relabel").to_numpy()
    assert (issues.suggested_label[relabeled] == result.label[relabeled]).all()
    for key in ("noise_type", "estimated_rate", "estimated_rate_interval"):
        assert issues.attrs[key] == pytest.approx(info[key], abs=1e-5)


def test_wrong_labels_rank_first_and_get_the_right_one_suggested(noisy):
    probs, truth, labels = noisy
    issues = find_label_issues(labels, probs)
    wrong = truth != labels
    assert average_precision_score(wrong, issues.p_wrong) > 0.8
    assert wrong[issues["rank"] <= 50].all()
    assert (issues.suggested_label[issues.is_issue] == truth[issues.is_issue]).mean() > 0.6
    assert issues.attrs["estimated_rate"] == pytest.approx(wrong.mean(), abs=0.03)


def test_many_rows_are_judged_as_few_are(monkeypatch):
    """Of many rows the noise is counted on a part of them, and the rest is computed in float32."""
    probs, _, labels = world(uniform(0.2), sharpness=5, n=6_000)
    labels[::10] = -1
    expected = find_label_issues(labels, probs)
    for module in (arrays, out_of_fold, posterior):
        monkeypatch.setattr(module, "MAX_EXACT_ROWS", 4_000)
    issues = find_label_issues(labels, probs)
    assert issues.attrs["noise_type"] == expected.attrs["noise_type"]
    assert issues.attrs["estimated_rate"] == pytest.approx(0.2, abs=0.03)
    assert issues.p_wrong.corr(expected.p_wrong) > 0.99
    assert (issues.is_issue == expected.is_issue).mean() > 0.98
    assert (issues["rank"].isna() == (labels < 0)).all()
    assert not issues.p_wrong.equals(expected.p_wrong)


def test_the_form_of_labels_and_predictions_changes_nothing(noisy, tmp_path):
    probs, _, labels = noisy
    np.save(tmp_path / "probs.npy", probs)
    table = pd.DataFrame(probs, columns=NAMES)
    stored = np.load(tmp_path / "probs.npy", mmap_mode="r")
    expected = find_label_issues(labels, probs)
    for given, predictions in [
        (labels, {"pred_probs": [probs]}),
        (labels.astype(float), {"logits": np.log(np.maximum(probs, 1e-12)) - 3}),
        (labels, {"pred_probs": stored}),
        (NAMES[labels], {"pred_probs": probs}),
        (NAMES[labels].tolist(), {"pred_probs": table[NAMES[::-1]]}),
        (pd.Series(NAMES[labels]), {"pred_probs": table.sample(frac=1, random_state=0)}),
        (NAMES[::-1][labels], {"pred_probs": probs, "classes": NAMES[::-1]}),
    ]:
        issues = find_label_issues(given, **predictions)
        np.testing.assert_allclose(issues.p_wrong, expected.p_wrong, rtol=1e-3, atol=1e-6)
        assert (issues.decision == expected.decision).all()
        names = {*np.asarray(given)}
        assert {*issues.suggested_label} <= names  # as they were written


def test_the_order_of_rows_changes_nothing(noisy):
    probs, _, labels = noisy
    ids = [f"image {i}" for i in range(len(labels))]
    table, series = pd.DataFrame(probs, ids), pd.Series(labels, ids)
    expected = find_label_issues(series, table)
    mixed = find_label_issues(series.sample(frac=1, random_state=0), table)
    mixed = mixed.loc[ids]
    np.testing.assert_allclose(mixed.p_wrong, expected.p_wrong, rtol=1e-3, atol=1e-6)
    assert (mixed.decision == expected.decision).all()
    assert (mixed.suggested_label == expected.suggested_label).all()


def test_a_better_second_teacher_helps_and_the_same_one_again_says_the_same(noisy):
    probs, truth, labels = noisy
    logits = np.log(probs) + 2 * np.random.default_rng(0).normal(size=probs.shape)
    weak = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    one = find_label_issues(labels, weak)
    again = find_label_issues(labels, [weak, weak, weak])
    np.testing.assert_allclose(again.p_wrong, one.p_wrong, rtol=1e-3)
    assert (again.decision == one.decision).all()
    both = find_label_issues(labels, [weak, probs])
    scores = [average_precision_score(truth != labels, table.p_wrong) for table in (one, both)]
    assert scores[1] > scores[0]


def test_rows_without_a_label_are_left(noisy):
    probs, _, labels = noisy
    some = pd.Series(NAMES[labels], dtype=object).where(np.arange(len(labels)) % 3 > 0)
    issues = find_label_issues(some, probs, classes=NAMES)
    unlabeled = some.isna()
    assert (issues.decision[unlabeled] == "leave").all()
    assert issues.p_wrong.isna().equals(unlabeled)
    assert not issues.is_issue[unlabeled].any()
    assert sorted(issues["rank"].dropna()) == [*range(1, (~unlabeled).sum() + 1)]


def test_predictions_that_know_nothing_change_no_label_and_are_told(noisy):
    probs, _, labels = noisy
    with pytest.warns(UserWarning, match="."):
        issues = find_label_issues(labels, np.roll(probs, 7, axis=0))
    assert list(issues.attrs) == ["problem"]
    assert not issues.is_issue.any()
    assert (issues.suggested_label == labels).all()


def test_each_of_several_labels_a_row_is_judged():
    rng = np.random.default_rng(0)
    truth = (rng.random((3000, 3)) < [0.2, 0.5, 0.7]).astype(float)
    yes = np.clip(truth * 0.9 + 0.05 + rng.normal(size=truth.shape) * 0.02, 0, 1)
    labels = np.where(rng.random(truth.shape) < 0.05, 1 - truth, truth)
    labels[::5, 1] = np.nan
    table = pd.DataFrame(labels, columns=["cat", "dog", "owl"])
    issues = find_label_issues(
        table, pd.DataFrame(yes, columns=["owl", "cat", "dog"])[table.columns]
    )
    assert issues.attrs["noise_by_class"].keys() == {"cat", "dog", "owl"}
    issues = find_label_issues(table, yes)
    wrong = ((labels != truth) & ~np.isnan(labels)).any(1)
    assert (issues.is_issue == wrong).mean() > 0.99
    answers = np.stack(
        [["cat" in row, "dog" in row, "owl" in row] for row in issues.suggested_label]
    )
    assert (answers == truth).mean() > 0.99


@over(data=st.data())
@settings(max_examples=12, deadline=None)
def test_wild_input_gives_a_table_that_means_what_it_says(data):
    k = data.draw(st.integers(2, 5))
    n = data.draw(st.integers(1, 40))
    labels = np.array(data.draw(st.lists(st.integers(-1, k - 1), min_size=n, max_size=n)))
    labels[0] = max(labels[0], 0)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    probs = rng.dirichlet(np.full(k, data.draw(st.sampled_from([0.01, 0.3, 5.0]))), n)
    if data.draw(st.booleans()):
        probs = np.eye(k)[probs.argmax(1)]
    with np.errstate(all="raise", under="ignore"):
        issues = find_label_issues(labels, data.draw(st.sampled_from([probs, [probs, probs]])))
    labeled = labels >= 0
    assert issues.p_wrong[labeled].between(0, 1).all()
    assert issues.suggested_label.between(0, k - 1).all()
    assert sorted(issues["rank"][labeled]) == [*range(1, labeled.sum() + 1)]
    assert {*issues.decision} <= {
        "keep",
        "relabel",
        "soften",
        "downweight",
        "drop",
        "review",
        "leave",
    }


PROBS = np.full((4, 2), 0.5)
WRONG = {
    "nothing": ([0, 1, 0, 1], {}),
    "both": ([0, 1, 0, 1], {"pred_probs": PROBS, "logits": PROBS}),
    "fewer labels": ([0, 1, 0], {"pred_probs": PROBS}),
    "other rows": ([0, 1, 0, 1], {"pred_probs": [PROBS, PROBS[:3]]}),
    "other columns": ([0, 1, 0, 1], {"pred_probs": [PROBS, PROBS[:, [0, 0, 1]] / 1.5]}),
    "no label": ([-1, -1, None, -1], {"pred_probs": PROBS}),
    "no fold": ([0, 1, 0, 1], {"pred_probs": PROBS, "folds": [0, 0, 1, None]}),
    "fold without labels": ([0, 1, 0, -1], {"pred_probs": PROBS, "folds": [0, 0, 0, 1]}),
    "few folds": ([0, 1, 0, 1], {"pred_probs": PROBS, "folds": [0, 1, 0]}),
    "precision": ([0, 1, 0, 1], {"pred_probs": PROBS, "relabel_precision": 2}),
    "action": ([0, 1, 0, 1], {"pred_probs": PROBS, "uncertain_labels": "burn"}),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_error(case):
    labels, options = WRONG[case]
    with pytest.raises(UserError) as error:
        find_label_issues(labels, **options)
    assert isinstance(error.value, ValueError)
    assert "\n" not in str(error.value)


def test_confident_rows_get_pseudo_labels(noisy):
    probs, _, _ = noisy
    table = pd.DataFrame(probs, columns=NAMES)
    best = probs.argmax(1)
    confidence = probs.max(1)
    chosen = {how: select_pseudo_labels(table, targets=how) for how in ("hard", "weighted", "soft")}
    accepted = confidence >= 0.95
    for how, pseudo in chosen.items():
        assert (pseudo.labels[accepted] == NAMES[best[accepted]]).all()
        assert pd.isna(pseudo.labels[~accepted]).all()
        assert (pseudo.weights > 0).tolist() == accepted.tolist()
        assert (pseudo.targets.sum(1) > 0.99).tolist() == accepted.tolist()
        assert (pseudo.reason == "above_cutoff").tolist() == accepted.tolist()
        assert pseudo.targets[accepted].argmax(1).tolist() == best[accepted].tolist(), how
    assert chosen["weighted"].weights[accepted] == pytest.approx(confidence[accepted], rel=1e-4)
    assert chosen["soft"].targets[accepted] == pytest.approx(probs[accepted], abs=1e-5)
    assert {*np.unique(chosen["hard"].targets)} == {0, 1}


def test_pseudo_labels_are_as_good_as_asked_for(noisy):
    probs, truth, _ = noisy
    half = len(probs) // 2
    proof = {"labels": truth[:half], "pred_probs_labeled": probs[:half]}
    loose, strict = (
        select_pseudo_labels(probs[half:], min_precision=precision, **proof).labels
        for precision in (0.8, 0.95)
    )
    for labels, precision in ((loose, 0.8), (strict, 0.95)):
        right = labels == truth[half:]
        assert right[labels >= 0].mean() >= precision
    assert (loose >= 0).sum() > (strict >= 0).sum() > 50
    few = select_pseudo_labels(probs, cutoff=0, top_fraction=0.1).labels
    assert (few >= 0).mean() == pytest.approx(0.1, abs=0.01)
    adaptive = select_pseudo_labels(logits=np.log(probs + 1e-12), cutoff="adaptive")
    assert adaptive.confidence[adaptive.labels >= 0].min() < 0.95


@pytest.mark.parametrize(
    "options",
    [
        {"cutoff": "no rule"},
        {"cutoff": -1},
        {"targets": "firm"},
        {"top_fraction": 2},
        {"min_precision": 0.9},
        {"min_precision": 0.9, "labels": [0, 1]},
        {"min_precision": 0.9, "labels": [0], "pred_probs_labeled": PROBS},
        {"classes": ["a"]},
        {"pred_probs": [PROBS, PROBS]},
        {
            "min_precision": 0.9,
            "labels": [0, 1],
            "pred_probs_labeled": PROBS[:2],
            "multi_label": True,
        },
        {"min_precision": 0.9, "labels": [0, 1], "pred_probs_labeled": np.full((2, 3), 1 / 3)},
    ],
    ids=str,
)
def test_wrong_rules_are_refused(options):
    with pytest.raises(UserError):
        select_pseudo_labels(**{"pred_probs": PROBS} | options)


def test_importing_them_imports_nothing_heavy():
    code = (
        "import sys; from pseudokit import find_label_issues, select_pseudo_labels; "
        "sys.exit(bool({'torch', 'timm', 'cv2', 'sklearn'} & {*sys.modules}))"
    )
    assert run_cold("-c", code).returncode == 0


def test_columns_are_matched_with_the_classes_by_name_when_pseudo_labels_are_selected():
    probs = pd.DataFrame({"cat": [0.97, 0.02], "dog": [0.03, 0.98]})
    in_order = select_pseudo_labels(probs)
    turned = select_pseudo_labels(probs, classes=["dog", "cat"])
    assert list(in_order.labels) == list(turned.labels) == ["cat", "dog"]
    assert (turned.targets == in_order.targets[:, ::-1]).all()


def test_of_several_labels_a_row_each_class_gets_the_answers_of_a_run():
    rng = np.random.default_rng(0)
    truth = (rng.random((400, 3)) < [0.2, 0.5, 0.7]).astype(int)
    logits = rng.normal(3 * (2 * truth - 1), 1.5)
    yes = 1 / (1 + np.exp(-logits))
    table = pd.DataFrame(yes, columns=["cat", "dog", "owl"])
    given_labels = np.full(truth.shape, -1)
    log_probs = np.log(np.stack([1 - yes, yes], -1))
    for cutoff in (0.9, "adaptive"):
        pseudo = select_pseudo_labels(table, multi_label=True, cutoff=cutoff)
        decisions = decide_labels(log_probs, given_labels, "augment", Pseudo(cutoff=cutoff))
        assert (pseudo.labels == decisions.label).all()
        assert (pseudo.targets == decisions.targets()).all()
        assert (pseudo.reason == decisions.each("reason")).all()
    answered = pseudo.labels >= 0
    assert {*pseudo.labels.ravel()} == {-1, 0, 1}
    assert (pseudo.weights == answered).all()
    by_logits = select_pseudo_labels(
        logits=logits, multi_label=True, cutoff=cutoff, targets="weighted"
    )
    assert (by_logits.labels == pseudo.labels).all()
    assert by_logits.weights[answered] == pytest.approx(pseudo.confidence[answered], abs=1e-5)
    soft = select_pseudo_labels(table, multi_label=True, cutoff=cutoff, targets="soft")
    assert soft.targets == pytest.approx(np.where(answered, yes, -1), abs=1e-5)
    # labels (L, C) say that there are several a row
    proved = select_pseudo_labels(
        yes[200:], min_precision=0.97, labels=truth[:200], pred_probs_labeled=yes[:200]
    ).labels
    assert (proved == truth[200:])[proved >= 0].mean() > 0.95
    assert 0.3 < (proved >= 0).mean() < 1


def test_rank_does_not_depend_on_the_order_of_rows_with_equal_scores(noisy):
    probs, _, labels = noisy
    labels = pd.Series(labels)
    # They say nothing, so that p_wrong is 0 everywhere.
    table = pd.DataFrame(np.roll(probs, 7, axis=0))
    with pytest.warns(UserWarning, match="chance"):
        issues = find_label_issues(labels, table)
    with pytest.warns(UserWarning, match="chance"):
        mixed = find_label_issues(labels.sample(frac=1, random_state=0), table)
    ids = labels.index
    assert (issues.p_wrong == 0).all()
    assert (mixed["rank"][ids] == issues["rank"]).all()
    self_confidence = pd.Series(table.to_numpy()[ids, labels])
    assert self_confidence[issues["rank"] <= 100].max() < 0.05
