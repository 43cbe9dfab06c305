"""Labels are changed where the estimated precision allows; the policy says what becomes of the others."""

import numpy as np
import pytest

from pseudokit.config.keys import Pseudo
from pseudokit.labels.decide import (
    CLASS_FLOOR,
    MIN_REPAIRED_SHARE,
    decide_labels,
    precision_cutoffs,
)
from pseudokit.labels.posterior import Posterior

from .test_noise import MATRICES, K, N, logs_of, uniform, world


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("precision", [0.9, 0.99])
def test_changed_labels_have_the_precision_that_was_asked_for(name, precision):
    q, truth, given_labels = world(MATRICES[name], sharpness=6)
    d = decide_labels(logs_of(q), given_labels, "denoise", Pseudo(relabel_precision=precision))
    changed = d.decision == "relabel"
    assert changed.sum() > 500
    assert (given_labels != truth)[changed].mean() > precision - 0.005
    for k in range(K):
        into = changed & (d.label == k)
        assert into.sum() < 50 or (d.label == truth)[into].mean() > precision - 0.02


def test_a_higher_precision_changes_fewer_labels_and_a_part_of_the_same():
    q, _, given_labels = world(uniform(0.2), sharpness=4)
    changed = [
        set(
            np.flatnonzero(
                decide_labels(
                    logs_of(q), given_labels, "denoise", Pseudo(relabel_precision=p)
                ).decision
                == "relabel"
            )
        )
        for p in (0.8, 0.95, 0.999)
    ]
    assert changed[2] < changed[1] < changed[0]


def test_nothing_is_relabeled_where_hardly_any_wrong_label_could_be():
    shares = []
    for sharpness in (1, 1.5, 2, 2.5, 3, 4, 6):
        q, _, given_labels = world(uniform(0.2), sharpness)
        d = decide_labels(logs_of(q), given_labels, "denoise", Pseudo())
        shares.append((d.decision == "relabel").sum() / d.p_wrong.sum())
    assert shares[0] == 0
    assert shares[-1] > 0.2
    assert all(share == 0 or share >= MIN_REPAIRED_SHARE for share in shares)


def test_the_lowest_cutoff_that_reaches_the_precision_is_taken():
    q, given_labels = (
        np.array([[0.9, 0.1], [0.98, 0.02], [0.6, 0.4], [0.3, 0.7]]),
        np.array([1, 1, 1, 1]),
    )
    believed = Posterior(np.log(q), given_labels).summary()
    # Errors: 2 %, 6 %, 17 %; 6.5 % are used.
    cutoffs = precision_cutoffs(believed, precision=0.87)
    assert cutoffs[0] == pytest.approx(0.9)
    assert np.isinf(cutoffs[1:]).all()


@pytest.mark.parametrize("action", ["keep", "drop", "review", "downweight", "soften"])
def test_doubtful_labels_become_what_the_policy_says(action):
    q, truth, given_labels = world(uniform(0.2), sharpness=5)
    d = decide_labels(logs_of(q), given_labels, "denoise", Pseudo(uncertain_labels=action))
    assert set(d.decision) == {"keep", "relabel", action}
    rows, targets = d.decision == action, d.targets()
    if action == "soften":
        assert -np.log(targets[np.arange(N), truth] + 1e-9)[rows].mean() < 1.2, (
            "what is learned is a fair guess"
        )
        assert (d.weight[rows] == d.posterior(np.flatnonzero(rows)).max(1)).all()
    if action == "downweight":
        assert (d.label[rows] == given_labels[rows]).all()
        assert (targets[rows].sum(1) < 1).all()
    if action == "drop":
        assert ((d.label == -1) == rows).all()


def test_models_that_can_correct_next_to_nothing_teach_no_probabilities():
    q, _, given_labels = world(uniform(0.1), sharpness=2)
    d = decide_labels(logs_of(q), given_labels, "denoise", Pseudo())
    assert set(d.decision) == {"keep", "downweight"}
    assert (d.label == given_labels).all()
    asked = decide_labels(logs_of(q), given_labels, "denoise", Pseudo(uncertain_labels="soften"))
    assert set(asked.decision) == {"keep", "soften"}


def test_in_joint_mode_a_label_issue_never_teaches():
    q, _, given_labels = world(uniform(0.2), sharpness=2)
    given_labels[::3] = -1
    d = decide_labels(logs_of(q), given_labels, "joint", Pseudo())
    label_issues = (d.p_wrong > 0.5) & (d.decision != "relabel")
    assert label_issues.sum() > 100
    assert (d.label[label_issues] == -1).all()


@pytest.mark.parametrize(("power", "action"), [(1, "downweight"), (4, "soften")])
def test_where_noise_lies_on_hard_rows_nothing_is_relabeled_and_label_issues_teach_less(
    power, action
):
    q, truth, _ = world(uniform(0.2), sharpness=4)
    hard = q.max(1) < np.quantile(q.max(1), 0.2)
    q = q**power / (q**power).sum(1, keepdims=True)
    given_labels = np.where(hard & (truth == q.argmax(1)), np.argsort(q, axis=1)[:, -2], truth)
    d = decide_labels(logs_of(q), given_labels, "denoise", Pseudo())
    assert d.noise == "look-alike"
    assert set(d.decision) == {"keep", action}
    label_issues = d.decision == action
    assert (given_labels != truth)[label_issues].mean() > 2 * (given_labels != truth).mean()
    if action == "downweight":
        assert (d.label == given_labels).all()
        assert np.allclose(d.weight[label_issues], 1 - d.p_wrong[label_issues])
    else:
        # What is taught is more certain than the estimate, and the same class.
        taught = d.targets()[label_issues]
        assert np.allclose(taught.max(1), d.weight[label_issues])
        assert (taught.argmax(1) == d.predicted[label_issues]).all()
        assert (taught.max(1) > d.confidence[label_issues]).all()
        # Rounds are compared by the estimate: sharper probabilities would outvote another round's.
        believed = d.posterior(np.flatnonzero(label_issues))
        assert np.allclose(believed.max(1), d.confidence[label_issues])
    assert set(
        decide_labels(
            logs_of(q), given_labels, "denoise", Pseudo(uncertain_labels="review")
        ).decision
    ) == {
        "keep",
        "review",
    }


def test_a_rare_class_is_never_drained():
    q, _, given_labels = world(uniform(0.2), sharpness=6)
    rare = np.flatnonzero(given_labels == 0)[:20]
    rows = np.concatenate([rare, np.flatnonzero((given_labels > 0) & (q.argmax(1) > 0))])
    q, given_labels = q[rows], given_labels[rows]
    # All of it is judged to be another class.
    q[:20] = np.roll(q[:20], 1, axis=1) * 0.01 + 0.99 * np.eye(K)[1]
    d = decide_labels(logs_of(q), given_labels, "denoise", Pseudo())
    assert (d.label[:20] == 0).sum() >= CLASS_FLOOR * 20
    assert (d.reason[:20] == "class_floor").any()


def test_clean_labels_are_left_alone_and_the_strangest_are_listed():
    q, truth, _ = world(uniform(0.2), sharpness=100)
    d = decide_labels(logs_of(q), truth, "denoise", Pseudo())
    assert d.noise == "none"
    assert set(d.decision) == {"keep", "review"}
    assert (d.label == truth).all()
    assert 0 < (d.decision == "review").mean() < 0.02
