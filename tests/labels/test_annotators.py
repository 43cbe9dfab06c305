"""Annotators and the truth, estimated from votes alone and from votes and images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudokit.config.keys import Pseudo
from pseudokit.data.votes import collect_votes
from pseudokit.labels.annotators import annotators_table, dawid_skene, estimate_vote_noise
from pseudokit.labels.decide import decide_labels

CLASSES = ("a", "b", "c", "d")
K = len(CLASSES)
ACCURACIES = {"ann": 0.95, "bob": 0.8, "cy": 0.6}


def confusions_of(accuracies, rng):
    """Each annotator errs toward some classes more than others."""
    matrices = {}
    for name, accuracy in accuracies.items():
        wrong = rng.dirichlet(np.ones(K), K) * (1 - np.eye(K))
        wrong /= wrong.sum(1, keepdims=True)
        matrices[name] = accuracy * np.eye(K) + (1 - accuracy) * wrong
    return matrices


def draw(n=3000, seed=0, accuracies=ACCURACIES, missing=0.0):
    """True classes, the confusions, and rows of votes as they are read."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, K, n)
    matrices = confusions_of(accuracies, rng)
    rows = []
    for c in truth:
        votes = [
            (name, CLASSES[rng.choice(K, p=matrix[c])], 1.0)
            for name, matrix in matrices.items()
            if rng.random() >= missing
        ]
        rows.append(tuple(votes))
    return truth, matrices, rows


def images(truth, accuracy=0.85, seed=1):
    """Log-probabilities of a model that is calibrated and errs independently of the annotators."""
    rng = np.random.default_rng(seed)
    matrix = accuracy * np.eye(K) + (1 - accuracy) / (K - 1) * (1 - np.eye(K))
    seen = np.array([rng.choice(K, p=matrix[c]) for c in truth])
    return np.log(matrix[seen])


@settings(max_examples=5, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    accuracies=st.lists(st.floats(0.65, 0.95), min_size=3, max_size=5),
    missing=st.sampled_from([0.0, 0.3]),
)
def test_em_recovers_annotators_who_err_independently(seed, accuracies, missing):
    named = {f"r{i}": accuracy for i, accuracy in enumerate(accuracies)}
    # of 4,000 rows, one draw in sixty had a correlation above the bound by chance
    truth, matrices, rows = draw(12_000, seed, named, missing)
    rows = [votes or (("r0", CLASSES[c], 1.0),) for votes, c in zip(rows, truth, strict=True)]
    noise = estimate_vote_noise(images(truth), collect_votes(rows, CLASSES))
    assert noise.correlation < 0.08
    for estimated, matrix in zip(noise.confusions, matrices.values(), strict=True):
        assert abs(estimated - matrix).max() < 0.12


def test_votes_and_images_together_beat_both():
    truth, _, rows = draw()
    votes = collect_votes(rows, CLASSES)
    log_probs = images(truth)
    by_votes, _ = dawid_skene(votes)
    given_labels = by_votes.argmax(1)
    decisions = decide_labels(log_probs, given_labels, "denoise", Pseudo(), votes=votes)
    errors = (decisions.label != truth).mean()
    assert errors < 0.7 * min((given_labels != truth).mean(), (decisions.predicted != truth).mean())
    # calibrated: p_wrong says how many given labels are wrong, and targets are soft where the truth is uncertain
    assert decisions.p_wrong.mean() == pytest.approx((given_labels != truth).mean(), abs=0.01)
    assert decisions.soft.any()
    assert decisions.targets().sum(1) == pytest.approx(np.ones(len(truth)), abs=1e-5)


def test_weak_annotators_count_less_and_the_table_knows_them():
    truth, _, rows = draw()
    votes = collect_votes(rows, CLASSES)
    by_votes, _ = dawid_skene(votes)
    majority = votes.totals().argmax(1)
    assert (by_votes.argmax(1) != truth).mean() < 0.8 * (majority != truth).mean()
    table = annotators_table(votes, by_votes, CLASSES).set_index("annotator")
    for name, accuracy in ACCURACIES.items():
        row = table.loc[name]
        assert row.accuracy_low < row.accuracy < row.accuracy_high
        assert abs(row.accuracy - accuracy) < 0.03
        assert row.votes == len(truth)
    assert table.agreement.is_monotonic_decreasing


def test_people_who_err_together_count_less_than_their_number():
    """Two who copy a third on hard images are no three opinions, which the images tell."""
    truth, _, _ = draw()
    rng = np.random.default_rng(2)
    hard = rng.random(len(truth)) < 0.3
    rows = []
    for c, is_hard in zip(truth, hard, strict=True):
        shared = rng.integers(0, K)
        votes = [shared if is_hard and rng.random() < 0.9 else c for _ in range(3)]
        rows.append(tuple((f"r{i}", CLASSES[vote], 1.0) for i, vote in enumerate(votes)))
    votes = collect_votes(rows, CLASSES)
    noise = estimate_vote_noise(images(truth), votes)
    assert noise.correlation > 0.3


def test_order_of_annotators_and_rows_changes_nothing():
    truth, _, rows = draw(400, missing=0.3)
    truth, rows = truth[[bool(r) for r in rows]], [r for r in rows if r]
    log_probs = images(truth)
    votes = collect_votes(rows, CLASSES)
    before, _ = dawid_skene(votes)
    turned = collect_votes([tuple(reversed(r)) for r in rows], CLASSES)
    assert (dawid_skene(turned)[0] == before).all()
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = votes.take(order)
    assert dawid_skene(shuffled)[0] == pytest.approx(before[order], abs=1e-9)
    confusions = estimate_vote_noise(log_probs, votes).confusions
    again = estimate_vote_noise(log_probs[order], shuffled).confusions
    assert again == pytest.approx(confusions, abs=1e-3)


@pytest.mark.parametrize(("people", "accuracy"), [(3, 0.7), (9, 0.6)])
def test_shares_count_as_the_votes_that_they_stand_for(people, accuracy):
    """Nobody says how many; a share of 1 is more than the vote of one who errs often."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, K, 800)
    seen = np.where(
        rng.random((800, people)) < accuracy, truth[:, None], rng.integers(0, K, (800, people))
    )
    counts = np.stack([(seen == c).sum(1) for c in range(K)], 1)
    log_probs = images(truth)
    errors = []
    for table in (counts, counts / people):
        rows = [tuple(zip([""] * K, CLASSES, row, strict=True)) for row in table]
        votes = collect_votes(rows, CLASSES)
        given_labels = table.argmax(1)
        decisions = decide_labels(log_probs, given_labels, "denoise", Pseudo(), votes=votes)
        errors.append((decisions.label != truth).mean())
    by_counts, by_shares = errors
    assert by_counts <= (counts.argmax(1) != truth).mean() + 0.005
    assert by_shares == pytest.approx(by_counts, abs=0.02)
