"""Which unlabeled rows receive a pseudo-label: each rule does what its name says, alone and with the others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudokit.config.keys import Pseudo
from pseudokit.config.types import UserError
from pseudokit.labels.decide import decide_labels
from pseudokit.labels.posterior import Posterior, align
from pseudokit.labels.pseudo_labels import (
    CUTOFF_RULES,
    check_cutoff,
    cutoffs_by_precision,
    drift,
    lower_bound,
    select_pseudo_labels,
)

K = 3


def rows(*pairs):
    """(M, K) probabilities from (class, confidence); the rest is shared by the other classes."""
    probs = np.array([np.full(K, (1 - c) / (K - 1)) for _, c in pairs])
    probs[np.arange(len(pairs)), [k for k, _ in pairs]] = [c for _, c in pairs]
    return probs


RIGHT = rows(*[(k, 0.99) for k in range(K)] * 10), np.tile(np.arange(K), 10)
"""Ten labeled rows a class, all of them predicted as they are labeled."""


def select(unlabeled, policy, labeled=RIGHT, refused=None, progress=1.0):
    """(accepted, reason) of unlabeled rows with these probabilities (M, K), beside labeled ones."""
    probs = np.concatenate([unlabeled, labeled[0]])
    given_labels = np.concatenate([np.full(len(unlabeled), -1), labeled[1]])
    reasons = np.full(len(probs), "", object)
    if refused is not None:
        reasons[: len(unlabeled)] = refused
    posterior = Posterior(np.log(np.maximum(probs, 1e-300)), given_labels)
    taken, reason = select_pseudo_labels(posterior, posterior.summary(), policy, reasons, progress)
    assert not taken[len(unlabeled) :].any(), "labeled rows receive none"
    return taken[: len(unlabeled)], reason[: len(unlabeled)]


def accepted(unlabeled, progress=1.0, **policy):
    return select(unlabeled, Pseudo(**policy), progress=progress)[0]


UNLABELED = rows((0, 0.99), (0, 0.9), (0, 0.8), (1, 0.97), (1, 0.6), (2, 0.5))


def test_a_cutoff_decides_alone_by_default_and_0_95_is_the_default():
    assert accepted(UNLABELED).tolist() == [1, 0, 0, 1, 0, 0]
    assert accepted(UNLABELED, cutoff=0.8).tolist() == [1, 1, 1, 1, 0, 0]
    assert accepted(UNLABELED, cutoff=0.55, relabel_cutoff=0.9).tolist() == [1, 1, 1, 1, 1, 0]


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_adaptive_cutoffs_are_those_of_the_paper(seed, n):
    unlabeled = np.random.default_rng(seed).dirichlet([3, 1, 0.3], n)
    mean = unlabeled.mean(0)
    cutoffs = unlabeled.max(1).mean() * mean / mean.max()
    # a value on its cutoff may round to either side
    margin = unlabeled.max(1) - cutoffs[unlabeled.argmax(1)]
    taken = accepted(unlabeled, cutoff="adaptive")
    assert (taken == (margin >= 0))[np.abs(margin) > 1e-9].all()


def test_an_adaptive_cutoff_needs_no_unlabeled_row_and_stands_beside_a_precision():
    assert accepted(np.empty((0, K)), cutoff="adaptive").shape == (0,)
    unlabeled = rows((0, 0.9), (0, 0.7), (1, 0.7))
    proof = rows(*[(k, 0.5) for k in range(K)] * 10), RIGHT[1]
    taken = {
        cutoff: select(unlabeled, Pseudo(cutoff=cutoff, min_precision=0.5), proof)[0].tolist()
        for cutoff in (None, "adaptive", 0.8)
    }
    assert taken == {None: [1, 1, 1], "adaptive": [1, 0, 1], 0.8: [1, 0, 0]}


def test_a_cutoff_that_is_neither_a_number_nor_a_rule_is_refused():
    with pytest.raises(UserError, match=r"pseudo\.cutoff"):
        check_cutoff(Pseudo(cutoff="mean"))
    for cutoff in (None, 0.9, *CUTOFF_RULES):
        check_cutoff(Pseudo(cutoff=cutoff))


def test_a_growing_share_takes_the_surest_of_each_class():
    unlabeled = rows(*[(k, 0.6 + 0.01 * i) for k in range(K) for i in range(30)])
    for progress, each in ((0.5, 6), (1.0, 12)):
        taken = accepted(unlabeled, cutoff=0, top_fraction=0.4, progress=progress)
        confidence = unlabeled.max(1)
        for k in range(K):
            of_class = unlabeled.argmax(1) == k
            assert (of_class & taken).sum() == each
            assert confidence[of_class & taken].min() > confidence[of_class & ~taken].max()


@pytest.mark.parametrize(("start", "each"), [(0.0, 6), (0.3, 9), (0.9, 12)])
def test_no_round_takes_less_than_the_share_to_start_from_and_none_more_than_the_last(start, each):
    unlabeled = rows(*[(k, 0.6 + 0.01 * i) for k in range(K) for i in range(30)])
    taken = accepted(unlabeled, cutoff=0, top_fraction=0.4, top_fraction_start=start, progress=0.5)
    assert np.bincount(unlabeled.argmax(1)[taken]).tolist() == [each] * K


def test_a_rare_class_gives_its_own_share_only():
    unlabeled = rows(
        *[(0, 0.6 + 0.001 * i) for i in range(100)], *[(1, 0.6 + 0.01 * i) for i in range(10)]
    )
    taken = accepted(unlabeled, cutoff=0, top_fraction=0.7)
    assert [int((taken & (unlabeled.argmax(1) == k)).sum()) for k in range(K)] == [70, 7, 0]


def test_a_refused_row_receives_nothing_by_any_rule():
    refused = np.array(["copy", "", "", "copy", "", "copy"], object)
    taken, reason = select(UNLABELED, Pseudo(cutoff=0), refused=refused)
    assert taken.tolist() == [0, 1, 1, 0, 1, 0]
    assert reason[[0, 3, 5]].tolist() == ["copy"] * 3


def test_the_bound_is_the_exact_one():
    assert lower_bound(np.array([10]), np.array([10]))[0] == pytest.approx(0.05 ** (1 / 10))
    assert lower_bound(np.array([0]), np.array([7]))[0] == 0
    assert lower_bound(np.array([95]), np.array([100]))[0] == pytest.approx(0.8976, abs=1e-3)


@given(st.integers(1, 500), st.floats(0.5, 0.999))
def test_n_right_labels_prove_just_enough_for_a_cutoff_or_for_none(n, precision):
    cutoffs = cutoffs_by_precision(
        np.zeros(n, int), np.full(n, 0.9), np.zeros(n, int), 1, precision
    )
    assert np.isfinite(cutoffs[0]) == (0.05 ** (1 / n) >= precision), "one-sided, without an error"


def test_by_precision_the_cutoff_is_the_lowest_whose_bound_reaches_it():
    confidence = np.linspace(1, 0.5, 400)
    labels, predicted = np.zeros(400, int), np.zeros(400, int)
    labels[200:] = 1  # everything below 0.75 is wrong
    cutoff = cutoffs_by_precision(predicted, confidence, labels, 2, 0.95)[0]
    n = (confidence >= cutoff).sum()
    bounds = lower_bound(np.array([200, 200]), np.array([n, n + 1]))
    assert n > 200, "some wrong ones are borne by 200 right ones"
    assert bounds[0] >= 0.95 > bounds[1]


def test_few_labels_share_their_bound_and_too_few_give_none():
    predicted = np.repeat(np.arange(10), 10)
    confidence = np.tile(np.linspace(0.9, 1, 10), 10)
    alone = cutoffs_by_precision(predicted, confidence, predicted, 10, 0.95)
    assert np.allclose(alone, 0.9), "ten right rows bound a class at 0.74 only, a hundred at 0.97"
    assert np.isinf(
        cutoffs_by_precision(predicted[:10], confidence[:10], predicted[:10], 10, 0.95)
    ).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.6, 0.98))
def test_what_passes_by_precision_has_it_where_labels_are_a_fair_sample(seed, precision):
    """The bound holds in 95 % of draws for one class; a far wider margin is left here, over many draws it is exact."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.3, 1, 4000)
    right = rng.random(4000) < confidence
    labels, predicted = np.where(right, 0, 1), np.zeros(4000, int)
    cutoff = cutoffs_by_precision(predicted[:800], confidence[:800], labels[:800], 2, precision)[0]
    above = confidence[800:] >= cutoff
    if above.sum() > 100:
        assert right[800:][above].mean() > precision - 0.05


def test_alignment_moves_the_mean_towards_the_labels_and_keeps_distributions():
    rng = np.random.default_rng(0)
    unlabeled = rng.dirichlet([3, 1, 0.3], 2000)
    prior = np.array([0.2, 0.3, 0.5])
    aligned = align(Posterior(np.log(unlabeled), np.full(2000, -1)), prior)(np.arange(2000))
    assert np.allclose(aligned.sum(1), 1)
    assert np.abs(aligned.mean(0) - prior).sum() < 0.5 * np.abs(unlabeled.mean(0) - prior).sum()


def test_drift_is_the_share_that_would_have_to_change_class_and_collapse_is_told_from_it():
    labels = np.full(10, 5)
    assert drift(labels, labels) == {"drift": 0, "collapsed": False}
    one = drift(50 * np.eye(10)[0], labels)
    assert one["drift"] == pytest.approx(0.9)
    assert one["collapsed"]
    assert not drift(10 * np.eye(10)[0], labels)["collapsed"], "ten are too few to tell"
    tenfold = np.geomspace(10, 100, 10).astype(int)
    assert drift(tenfold, labels)["drift"] > 0.2
    assert not drift(tenfold, labels)["collapsed"], (
        "unlabeled images whose classes are imbalanced 1:10 are no collapse"
    )
    assert drift(np.zeros(10), labels) == {"drift": 0, "collapsed": False}


@pytest.mark.parametrize("kind", ["hard", "weighted", "soft"])
def test_what_a_pseudo_label_teaches(kind):
    probs = np.concatenate([rows((0, 0.99), (1, 0.99), (2, 0.99)), UNLABELED])
    given_labels = np.array([0, 1, 2] + [-1] * 6)
    policy = Pseudo(cutoff=0.75, targets=kind)
    decisions = decide_labels(np.log(probs), given_labels, "augment", policy)
    taken = decisions.decision == "accept"
    assert taken[3:].tolist() == [1, 1, 1, 1, 0, 0]
    targets = decisions.targets()
    if kind == "hard":
        assert (targets == decisions.label).all()
        return
    expected = (
        UNLABELED[:4] if kind == "soft" else np.eye(K)[[0, 0, 0, 1]] * UNLABELED[:4].max(1)[:, None]
    )
    assert np.allclose(targets[taken], expected, atol=1e-6)
    assert np.allclose(targets[:3], np.eye(K)), "given labels stand"


@st.composite
def wild(draw):
    k, m, n = draw(st.integers(2, 5)), draw(st.integers(0, 40)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    probs = rng.dirichlet(np.full(k, draw(st.sampled_from([0.01, 1, 100]))), m + n)
    policy = Pseudo(
        cutoff=draw(st.one_of(st.none(), st.floats(0, 1.2), st.sampled_from([*CUTOFF_RULES]))),
        min_precision=draw(st.one_of(st.none(), st.floats(0.5, 0.99))),
        top_fraction=draw(st.one_of(st.none(), st.floats(0.01, 1))),
    )
    return probs[:m], (probs[m:], rng.integers(0, k, n)), policy


@settings(max_examples=300, deadline=None)
@given(wild())
def test_whatever_the_rules_the_order_of_rows_is_kept_and_limits_hold(case):
    unlabeled, labeled, policy = case
    taken, reason = select(unlabeled, policy, labeled)
    predicted, confidence = unlabeled.argmax(1), unlabeled.max(1)
    assert reason.shape == (len(unlabeled),)
    assert ((reason == "above_cutoff") == taken).all()
    counts = np.bincount(predicted[taken], minlength=unlabeled.shape[1])
    if policy.top_fraction is not None:
        assert (
            counts
            <= np.ceil(policy.top_fraction * np.bincount(predicted, minlength=unlabeled.shape[1]))
        ).all()
    for k in range(unlabeled.shape[1]):
        of_class = predicted == k
        if (of_class & taken).any() and (of_class & ~taken).any():
            assert confidence[of_class & taken].min() >= confidence[of_class & ~taken].max() - 1e-12
