"""The laws of the loop, with a nearest-centroid classifier in place of a network."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import ndarray
from sklearn.datasets import load_digits

from pseudokit.config.keys import Pseudo
from pseudokit.data.dataset import Dataset
from pseudokit.labels.decide import CLASS_FLOOR, decide_labels
from pseudokit.round_store import RoundStore
from pseudokit.self_training import SelfTrainingContext, self_train

MODES = ["augment", "denoise", "joint"]


@dataclass
class Centroids:
    means: ndarray
    learned: ndarray
    hash: str


class Teacher:
    """Nearest centroid over pixels; notes what every model learned and judged."""

    def __init__(self, x, k):
        self.x, self.k, self.fits, self.judged = x, k, {}, []

    def fit(self, where, rows, labels):
        targets = labels if labels.ndim == 2 else np.eye(self.k)[labels]
        total = targets.sum(0)[:, None]
        means = np.where(total > 0, targets.T @ self.x[rows] / np.maximum(total, 1e-9), 99)
        self.fits[where] = (rows, labels)
        return Centroids(means, rows, where)

    def predict(self, model, rows):
        self.judged.append((model, rows))
        distance = ((self.x[rows][:, None] - model.means) ** 2).sum(2)
        logits = -distance / 20
        return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def digits(n=600, labeled=400, flipped=0.1, seed=0):
    """Real 8×8 digits as Samples: `labeled` of them with a label, `flipped` of those wrong; (samples, x, clean)."""
    data = load_digits()
    rng = np.random.default_rng(seed)
    clean = data.target[:n]
    given_ = clean.copy()
    flips = rng.choice(labeled, int(flipped * labeled), replace=False)
    given_[flips] = (given_[flips] + rng.integers(1, 10, len(flips))) % 10
    given_[labeled:] = -1
    ids = np.array([f"{i:05d}" for i in range(n)], object)
    split = np.where(given_ >= 0, "train", "unlabeled").astype(object)
    empty = np.full(n, "", object)
    return Dataset(ids, empty, split, given_, empty, tuple("0123456789")), data.data[:n] / 4, clean


def rounds_of(folder, mode, dataset, fit, predict, policy, clusters=None, **options):
    """self_train with its rounds kept in a folder."""
    clusters = np.arange(len(dataset)) if clusters is None else clusters
    store = RoundStore(folder)
    return self_train(
        SelfTrainingContext(
            dataset, fit, predict, policy, store, mode=mode, clusters=clusters, **options
        )
    )


def train(
    tmp_path, mode="denoise", dataset=None, x=None, policy=None, seed=0, clusters=None, **kwargs
):
    if dataset is None:
        dataset, x, _ = digits()
    if mode == "denoise":  # rows without a label are not judged in this mode
        x, dataset = x[dataset.given_labels >= 0], dataset.take(dataset.given_labels >= 0)
    teacher = Teacher(x, 10)
    policy = policy or Pseudo(rounds=3, folds=3, relabel_cutoff=0.6, cutoff=0.6)
    result = rounds_of(
        tmp_path, mode, dataset, teacher.fit, teacher.predict, policy, clusters, seed=seed, **kwargs
    )
    return result, teacher, dataset


@pytest.mark.parametrize("mode", MODES)
def test_no_row_is_judged_by_a_model_that_learned_a_label_for_it(tmp_path, mode):
    _, teacher, _ = train(tmp_path, mode)
    assert "round_2/fold_0" in teacher.fits, "the rule matters once pseudo-labels are learned"
    for model, rows in teacher.judged:
        assert not set(model.learned) & set(rows)


def test_a_second_opinion_hears_what_a_judge_learned_and_multiplies_what_it_says(tmp_path):
    dataset, x, clean = digits()
    options = {"dataset": dataset, "x": x, "policy": Pseudo(rounds=2, folds=3, cutoff=0.9)}

    def knows(fold_job):
        assert not set(fold_job.learned) & set(fold_job.judged)
        assert len(fold_job.targets) == len(fold_job.learned)
        return 50.0 * np.eye(10)[clean[fold_job.judged]]

    informed, _, _ = train(tmp_path / "told", "augment", second=knows, **options)
    unlabeled = dataset.given_labels < 0
    np.testing.assert_array_equal(informed.label[unlabeled], clean[unlabeled])
    np.testing.assert_allclose(
        informed.decisions.posterior(np.arange(len(dataset))).sum(1), 1, rtol=1e-4
    )
    alone, _, _ = train(tmp_path / "alone", "augment", **options)
    assert (alone.label[unlabeled] != clean[unlabeled]).any(), "models alone do not know it all"
    even, _, _ = train(
        tmp_path / "even",
        "augment",
        second=lambda fold_job: np.zeros((len(fold_job.judged), 10)),
        **options,
    )
    np.testing.assert_array_equal(even.label, alone.label)


@pytest.mark.parametrize("mode", MODES)
def test_each_labeled_row_is_judged_once_a_round_and_every_other_row_by_all(tmp_path, mode):
    policy = Pseudo(rounds=2, folds=4, relabel_cutoff=0.6, cutoff=0.6)
    _, teacher, dataset = train(tmp_path, mode, policy=policy)
    for number in (1, 2):
        rows_of = [
            rows for model, rows in teacher.judged if model.hash.startswith(f"round_{number}/")
        ]
        times = Counter(np.concatenate(rows_of).tolist())
        learned = set(
            np.concatenate(
                [
                    rows
                    for where, (rows, _) in teacher.fits.items()
                    if where.startswith(f"round_{number}/")
                ]
            )
        )
        assert all(times[i] == (1 if i in learned else 4) for i in range(len(dataset)))


def test_in_leak_free_rounds_a_label_is_predicted_once_and_an_unlabeled_row_once_by_each_fold(
    tmp_path,
):
    policy = Pseudo(rounds=2, folds=4, cutoff=0.3, leak_free_folds=True)
    _, teacher, dataset = train(tmp_path, "augment", policy=policy)
    for number in (1, 2):
        rows_of = [
            rows for model, rows in teacher.judged if model.hash.startswith(f"round_{number}/")
        ]
        assert len(rows_of) == (4 if number == 1 else 8)
        times = Counter(np.concatenate(rows_of).tolist())
        assert all(
            times[i] == (1 if given_ >= 0 else 4) for i, given_ in enumerate(dataset.given_labels)
        )
    folds = {}
    for model, rows in teacher.judged:
        if labeled := set(rows[dataset.given_labels[rows] >= 0]):
            folds.setdefault(int(model.hash.split("fold_")[1]) % 4, []).append(labeled)
    assert all(first == second for first, second in folds.values()), (
        "the folds of given labels stay the same"
    )


@pytest.mark.parametrize("shape", [{}, {"targets": "soft", "power": 2}])
def test_leak_free_models_learn_nothing_that_comes_from_the_labels_of_their_fold(
    tmp_path, monkeypatch, shape
):
    """Other labels in fold 0 change no model of fold 0, in any round."""
    monkeypatch.setattr("pseudokit.self_training.NOISE_OF_GAIN", -np.inf)  # all rounds are run
    # Folds are stratified by labels otherwise.
    dealt = np.where(np.arange(600) < 200, np.arange(600) % 4, -1)
    monkeypatch.setattr("pseudokit.self_training.make_folds", lambda *_: dealt)
    pairs = []
    for name, shift in (("a", 0), ("b", 1)):
        dataset, x, _ = digits(labeled=200, flipped=0)
        policy = Pseudo(rounds=3, folds=4, cutoff=0.3, leak_free_folds=True, **shape)
        teacher = Teacher(x, 10)
        if shift:
            changed = dataset.given_labels.copy()
            # As many of each class: the prior stays.
            changed[0:200:4] = np.roll(changed[0:200:4], 1)
            dataset = replace(dataset, given_labels=changed)
        rounds_of(tmp_path / name, "augment", dataset, teacher.fit, teacher.predict, policy)
        pairs.append((dataset, teacher))
    a, b = (teacher.fits for _, teacher in pairs)
    assert a.keys() == b.keys()
    of_fold_0 = [w for w in a if int(w.split("fold_")[1]) % 4 == 0]
    assert {w.split("/")[0] for w in of_fold_0} == {"round_1", "round_2", "round_3"}
    same = {w: all(np.array_equal(*pair) for pair in zip(a[w], b[w], strict=True)) for w in a}
    assert all(same[w] for w in of_fold_0)
    assert not all(same.values()), "the other folds learned the changed labels"


@pytest.mark.parametrize("leak_free", [False, True])
def test_teachers_of_the_second_round_learn_the_shapes_of_the_first(tmp_path, leak_free):
    policy = Pseudo(folds=4, cutoff=0, targets="soft", trim=0.2, leak_free_folds=leak_free)
    _, teacher, dataset = train(tmp_path, "augment", policy=policy)
    assert teacher.fits["round_1/fold_0"][1].ndim == 1
    rows, targets = teacher.fits["round_2/fold_0"]
    given_labels = dataset.given_labels[rows]
    labeled = given_labels >= 0
    assert np.allclose(targets.sum(1), 1)
    assert (targets[~labeled] < 0.99).any()
    assert (targets[~labeled][targets[~labeled] > 0] >= 0.2).all()
    assert (targets[labeled, given_labels[labeled]] == 1).all()


@pytest.mark.parametrize(
    ("targets", "collapses"), [("hard", True), ("weighted", True), ("soft", False)]
)
def test_pseudo_labels_collapse_where_what_they_teach_does(tmp_path, targets, collapses):
    """All unlabeled rows are most of all one class, but teach all of them."""
    dataset, _, clean = digits(labeled=300, flipped=0)
    teacher = Teacher(np.zeros((len(dataset), 1)), 10)

    def predict(model, rows):
        probs = np.where(rows[:, None] < 300, np.eye(10)[clean[rows]] + 0.01, 0.08)
        probs[rows >= 300, 0] = 0.28
        return np.log(probs / probs.sum(1, keepdims=True))

    policy = Pseudo(rounds=1, cutoff=0, targets=targets)
    result = rounds_of(tmp_path, "augment", dataset, teacher.fit, predict, policy)
    assert (result.reason == "collapse") == collapses


@pytest.mark.parametrize(
    ("mode", "chosen", "safe"),
    [
        ("augment", {"min_precision": 0.5}, True),
        ("augment", {}, False),
        ("joint", {"min_precision": 0.5}, False),
        ("augment", {"min_precision": 0.5, "leak_free_folds": False}, False),
    ],
)
def test_rounds_are_leak_free_where_out_of_fold_scores_choose(
    tmp_path, mode, chosen, safe, monkeypatch
):
    # All rounds are run.
    monkeypatch.setattr("pseudokit.self_training.NOISE_OF_GAIN", -np.inf if safe else np.inf)
    _, teacher, _ = train(tmp_path, mode, policy=Pseudo(rounds=2, folds=3, **chosen))
    assert ("round_2/fold_3" in teacher.fits) == safe, "two models a fold"


def test_pseudo_labels_that_collapse_end_the_rounds_and_are_not_learned(tmp_path):
    dataset, x, _ = digits(labeled=200, flipped=0)
    teacher = Teacher(x, 10)

    def one_class(model, rows):
        """Right on labeled rows; all unlabeled ones in class 3."""
        logs = teacher.predict(model, rows)
        logs[dataset.given_labels[rows] < 0] = np.log([0.001] * 3 + [0.991] + [0.001] * 6)
        return logs

    result = rounds_of(tmp_path, "augment", dataset, teacher.fit, one_class, Pseudo(rounds=3))
    assert (result.reason, result.round) == ("collapse", 0)
    assert (result.label == dataset.given_labels).all()
    assert RoundStore(tmp_path).rounds()[0]["collapsed"]


@pytest.mark.parametrize(
    ("safe", "shift", "expected"),
    [
        (True, 1, ("no_gain", 1)),
        (True, 0, ("no_gain", 1)),
        (False, 1, ("no_gain", 1)),
        (False, 0, ("no_change", 2)),
    ],
)
def test_a_loss_ends_the_rounds_and_where_they_are_leak_free_a_gain_within_noise_too(
    tmp_path, safe, shift, expected
):
    """From the second round on teachers say what those of the first said, or the next class."""
    dataset, x, _ = digits(labeled=200, flipped=0)
    teacher = Teacher(x, 10)
    first = {}

    def the_same(where, rows, labels):
        model = teacher.fit(where, rows, labels)
        means = first.setdefault(int(where.split("fold_")[1]) % 3, model.means)
        return replace(
            model, means=means if where.startswith("round_1") else np.roll(means, shift, axis=0)
        )

    policy = Pseudo(rounds=3, folds=3, cutoff=0.2, leak_free_folds=safe)
    dealt = np.where(np.arange(600) < 200, np.arange(600) % 3, -1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pseudokit.self_training.make_folds", lambda *_: dealt)
        result = rounds_of(tmp_path, "augment", dataset, the_same, teacher.predict, policy)
    assert (result.reason, result.round) == expected


@pytest.mark.parametrize("mode", MODES)
def test_no_row_is_judged_by_a_model_that_learned_a_copy_of_it(tmp_path, mode):
    """Copies among labeled rows, among unlabeled ones and across the two, in every round."""
    clusters = np.arange(600)
    clusters[100:200] //= 2
    clusters[400:460] = np.arange(60)
    clusters[460:520] //= 3
    clusters = clusters[: 400 if mode == "denoise" else 600]
    _, teacher, _ = train(tmp_path, mode, clusters=clusters)
    assert "round_2/fold_0" in teacher.fits, (
        "by then pseudo-labels and dropped labels have copies too"
    )
    for model, rows in teacher.judged:
        assert not set(clusters[model.learned]) & set(clusters[rows])
    times = Counter(
        np.concatenate(
            [rows for m, rows in teacher.judged if m.hash.startswith("round_1/")]
        ).tolist()
    )
    expected = [3 if i >= 460 else 1 for i in range(len(clusters))]
    assert [times[i] for i in range(len(clusters))] == expected


def test_a_refused_row_is_left_with_its_reason_and_never_learned(tmp_path):
    dataset, x, _ = digits(labeled=200, flipped=0)
    refused = np.full(600, "", object)
    refused[200:300] = "duplicate_of_test"
    policy = Pseudo(rounds=2, folds=3, cutoff=0.3)
    free, _, _ = train(tmp_path / "free", "augment", dataset, x, policy)
    result, teacher, _ = train(tmp_path / "refused", "augment", dataset, x, policy, refused=refused)
    assert (free.label[200:300] >= 0).mean() > 0.5, "they would have received one"
    assert (result.label[200:300] == -1).all()
    assert (result.label[300:] >= 0).mean() > 0.5
    assert set(result.decisions.decision[200:300]) == {"leave"}
    assert set(result.decisions.reason[200:300]) == {"duplicate_of_test"}
    assert not {i for rows, _ in teacher.fits.values() for i in rows} & set(range(200, 300))


def test_no_rounds_is_plain_supervised_training(tmp_path):
    result, teacher, dataset = train(tmp_path, policy=Pseudo(rounds=0))
    assert (result.label == dataset.given_labels).all()
    assert result.round == 0
    assert not teacher.fits


@pytest.mark.parametrize("mode", MODES)
def test_a_cutoff_above_one_changes_no_label(tmp_path, mode):
    result, _, dataset = train(tmp_path, mode, policy=Pseudo(relabel_cutoff=1.01, cutoff=1.01))
    assert (result.label == dataset.given_labels).all()
    assert result.reason == "no_change"


@pytest.mark.parametrize("mode", MODES)
def test_the_order_of_the_input_rows_changes_no_decision(tmp_path, mode, csv_data):
    """Rows are shuffled in the file; `load_dataset` puts them in canonical order."""
    import pandas as pd

    from pseudokit.config.keys import Data
    from pseudokit.data.dataset import load_dataset

    folder, _ = csv_data
    decided = []
    for seed in (None, 1, 2):
        for split in ("train", "unlabeled"):
            table = pd.read_csv(folder / f"{split}.csv", dtype=str)
            table = table if seed is None else table.sample(frac=1, random_state=seed)
            table.to_csv(folder / f"{split}_shuffled.csv", index=False)
        data = Data(
            train=str(folder / "train_shuffled.csv"),
            unlabeled=str(folder / "unlabeled_shuffled.csv"),
        )
        dataset = load_dataset(data)
        x = load_digits().data[[int(i) for i in dataset.id]] / 4
        result, _, judged = train(tmp_path / str(seed), mode, dataset, x)
        decided.append(dict(zip(judged.id, result.label, strict=True)))
    assert decided[0] == decided[1] == decided[2]


def test_same_seed_same_bytes_and_other_seed_other_folds(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tmp_path / name, "joint", seed=seed)

    def read(name, file):
        return (tmp_path / name / "round_1" / file).read_bytes()

    for file in ("log_probs.npy", "ids.csv", "decisions.csv"):
        assert read("a", file) == read("b", file)
    assert read("a", "log_probs.npy") != read("c", "log_probs.npy")


def test_every_round_has_new_folds_and_decides_from_the_given_labels(tmp_path):
    result, teacher, dataset = train(tmp_path, "denoise")
    first, second = (set(teacher.fits[f"round_{r}/fold_0"][0]) for r in (1, 2))
    assert len(first & second) < 0.8 * len(first), "two thirds by chance"
    again = decide_labels(
        np.load(tmp_path / f"round_{result.round}" / "log_probs.npy"),
        dataset.given_labels,
        "denoise",
        Pseudo(relabel_cutoff=0.6),
    )
    assert (again.label == result.label).all()


def _learned(folder, number, dataset):
    """The labels that the models of a round learned: the decisions of the round before."""
    import pandas as pd

    if number == 1:
        return dataset.given_labels
    table = pd.read_csv(
        folder / f"round_{number - 1}" / "decisions.csv", dtype=str, keep_default_na=False
    )
    return table.label.map({str(k): k for k in range(10)} | {"": -1}).to_numpy()


def test_noise_falls_and_what_was_right_mostly_stays_right(tmp_path):
    dataset, x, clean = digits(n=1500, labeled=1500)
    result, _, _ = train(tmp_path, "denoise", dataset, x, policy=Pseudo(rounds=3, folds=5))
    before, after = dataset.given_labels != clean, (result.label != clean) & (result.label >= 0)
    assert after.mean() < 0.35 * before.mean()
    assert (after & ~before).mean() < 0.02


def test_pseudo_labels_are_mostly_right_and_given_labels_stand(tmp_path):
    dataset, x, clean = digits(labeled=200, flipped=0)
    result, _, _ = train(tmp_path, "augment", dataset, x, policy=Pseudo(rounds=2, cutoff=0.6))
    unlabeled = dataset.given_labels < 0
    taken = unlabeled & (result.label >= 0)
    assert taken.sum() > 0.5 * unlabeled.sum()
    assert (result.label[taken] == clean[taken]).mean() > 0.93
    assert (result.label[~unlabeled] == dataset.given_labels[~unlabeled]).all()


def test_in_joint_mode_dropped_labels_do_not_teach_unlabeled_images(tmp_path):
    dataset, x, _ = digits()
    _, teacher, _ = train(tmp_path, "joint", dataset, x)
    table = _learned(tmp_path, 2, dataset)
    for fold in range(3):
        rows, labels = teacher.fits[f"round_2/fold_{fold}"]
        assert (table[rows] == labels).all()
        assert (labels >= 0).all()


def test_rounds_end_with_a_named_reason(tmp_path):
    assert train(tmp_path / "a", policy=Pseudo(rounds=1, folds=3))[0].reason == "max_rounds"
    ended, _, _ = train(tmp_path / "b", time_for_round=lambda number, seconds: seconds == 0)
    assert (ended.reason, ended.round) == ("time_budget", 1)


def test_a_round_that_makes_teachers_worse_is_not_returned(tmp_path):
    """no_gain: the second round's teachers are spoiled; the first round's labels come back."""
    dataset, x, _ = digits(labeled=600, flipped=0.1)
    teacher = Teacher(x, 10)

    def spoiled(where, rows, labels):
        model = teacher.fit(where, rows, labels)
        return (
            replace(model, means=np.roll(model.means, 1, axis=0))
            if where.startswith("round_2")
            else model
        )

    policy = Pseudo(rounds=3, folds=3)
    result = rounds_of(tmp_path, "denoise", dataset, spoiled, teacher.predict, policy)
    assert (result.reason, result.round) == ("no_gain", 1)
    assert (result.label == _learned(tmp_path, 2, dataset)).all()


@pytest.mark.parametrize("mode", ["denoise", "joint"])
@pytest.mark.parametrize("metric", [None, "log_loss", "macro_f1"])
def test_a_round_that_sees_through_wrong_labels_is_not_ended_for_contradicting_them(
    tmp_path, mode, metric
):
    """The first models lean toward most wrong labels, and away from some right ones; the later ones know the truth.
    So they agree with fewer labels."""
    dataset, x, clean = digits(labeled=600, flipped=0.2)
    teacher, rows = Teacher(x, 10), np.arange(600)
    lean = np.where(rows % 8 == 0, (clean + 1) % 10, clean)
    lean = np.where((dataset.given_labels != clean) & (rows % 4 > 0), dataset.given_labels, lean)

    def knows(model, rows):
        probs = np.eye(10)[clean[rows]]
        if model.hash.startswith("round_1"):
            probs = 0.45 * probs + 0.55 * np.eye(10)[lean[rows]]
        return np.log(0.95 * probs + 0.005)

    policy = Pseudo(rounds=3, folds=3, relabel_cutoff=0.9)
    result = rounds_of(tmp_path, mode, dataset, teacher.fit, knows, policy, metric=metric)
    agreement = [facts["oof_accuracy"] for facts in RoundStore(tmp_path).rounds()]
    assert agreement[1] < agreement[0] - 0.02
    assert result.round == len(agreement) > 1
    assert result.reason != "no_gain"


def test_a_repair_that_runs_out_of_time_reports_its_last_round_where_that_is_as_good_within_noise(
    tmp_path,
):
    """The second models are wrong about two rows more than the first."""
    dataset, x, clean = digits(labeled=600, flipped=0.1)
    teacher, times = Teacher(x, 10), iter([True, False])

    def knows(model, rows):
        probs = 0.9 * np.eye(10)[clean[rows]] + 0.01
        if model.hash.startswith("round_2"):
            probs[rows < 2] = 0.999 * np.eye(10)[(clean[rows[rows < 2]] + 1) % 10] + 0.0001
        return np.log(probs)

    policy = Pseudo(rounds=3, folds=3, relabel_cutoff=0.8)
    result = rounds_of(
        tmp_path,
        "denoise",
        dataset,
        teacher.fit,
        knows,
        policy,
        time_for_round=lambda number, seconds: next(times),
    )
    first, second = (facts["oof_accuracy"] for facts in RoundStore(tmp_path).rounds())
    assert second < first
    assert (result.reason, result.round) == ("time_budget", 2)


@pytest.mark.parametrize(("mode", "rounds"), [("denoise", 2), ("joint", 2), ("augment", 1)])
def test_labels_that_do_not_change_end_the_rounds_but_not_the_first_one_of_a_repair(
    tmp_path, mode, rounds, monkeypatch
):
    monkeypatch.setattr("pseudokit.self_training.MIN_CHANGED_FRACTION", 1)
    result, _, _ = train(tmp_path, mode, policy=Pseudo(rounds=4, folds=3))
    assert (result.reason, result.round) == ("no_change", rounds)


def test_a_recalled_round_is_neither_trained_nor_written_again(tmp_path):
    first, _, _ = train(tmp_path, "joint")
    stamp = (tmp_path / "round_1" / "decisions.csv").stat().st_mtime_ns
    second, teacher, _ = train(tmp_path, "joint")
    assert not teacher.fits
    assert (first.label == second.label).all()
    assert first.reason == second.reason
    assert (tmp_path / "round_1" / "decisions.csv").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("policy", [{"leak_free_folds": True}, {"top_fraction": 0.9}])
def test_rounds_that_go_on_from_the_ledger_come_to_the_same_bytes(tmp_path, policy, monkeypatch):
    """One run of three rounds, and one that stopped after two."""
    # A gain, no loss: all rounds are run.
    always = -np.inf if "leak_free_folds" in policy else np.inf
    monkeypatch.setattr("pseudokit.self_training.NOISE_OF_GAIN", always)
    dataset, x, _ = digits(labeled=200, flipped=0)
    policy = {"folds": 3, "rounds": 3, "cutoff": 0.3} | policy
    train(tmp_path / "whole", "augment", dataset, x, Pseudo(**policy))
    stopped = iter([True, False])  # asked before the second and the third
    train(
        tmp_path / "stopped",
        "augment",
        dataset,
        x,
        Pseudo(**policy),
        time_for_round=lambda number, seconds: next(stopped),
    )
    assert not (tmp_path / "stopped" / "round_3").exists()
    _, teacher, _ = train(tmp_path / "stopped", "augment", dataset, x, Pseudo(**policy))
    assert {where.split("/")[0] for where in teacher.fits} == {"round_3"}
    for file in ("log_probs.npy", "decisions.csv"):
        whole, went_on = (
            (tmp_path / name / "round_3" / file).read_bytes() for name in ("whole", "stopped")
        )
        assert whole == went_on


@st.composite
def judged(draw):
    """Wild held-out probabilities and labels: sharp, flat, tied and with tiny classes."""
    k, n = draw(st.integers(2, 6)), draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = rng.normal(size=(n, k)) * draw(st.sampled_from([0, 0.1, 1, 10, 100]))
    labels = rng.integers(-1, k, n)
    labels[0] = 0
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True), labels


policies = st.builds(
    Pseudo,
    relabel_cutoff=st.one_of(st.none(), st.floats(0, 1)),
    relabel_precision=st.floats(0.5, 1),
    uncertain_labels=st.sampled_from([None, "keep", "drop", "review", "downweight", "soften"]),
    cutoff=st.one_of(st.none(), st.floats(0, 1.5)),
)


@settings(max_examples=300, deadline=None)
@given(judged(), policies, st.sampled_from(MODES))
def test_selection_never_empties_a_class(case, policy, mode):
    logs, labels = case
    decided = decide_labels(logs, labels, mode, policy)
    for k in np.unique(labels[labels >= 0]):
        assert (decided.label == k).sum() >= CLASS_FLOOR * (labels == k).sum() > 0


@settings(max_examples=300, deadline=None)
@given(judged(), policies, st.sampled_from(MODES))
def test_decisions_mean_what_they_say(case, policy, mode):
    logs, labels = case
    d = decide_labels(logs, labels, mode, policy)
    unlabeled = labels < 0
    allowed = (
        {"keep"}
        if mode == "augment"
        else {"keep", "relabel", "drop", "review", "downweight", "soften"}
    )
    assert set(d.decision[~unlabeled]) <= allowed
    assert set(d.decision[unlabeled]) <= ({"leave"} if mode == "denoise" else {"accept", "leave"})
    for decision, label in {
        "keep": labels,
        "review": labels,
        "downweight": labels,
        "accept": d.predicted,
    }.items():
        rows = d.decision == decision
        assert (d.label[rows] == label[rows]).all()
    assert (d.predicted[~unlabeled] == logs.argmax(1)[~unlabeled]).all()
    assert (d.label[np.isin(d.decision, ["drop", "leave"])] == -1).all()
    relabeled = d.decision == "relabel"
    assert ((d.label != labels) & (d.label >= 0))[relabeled].all()
    assert policy.relabel_cutoff is None or (d.label == d.predicted)[relabeled].all()
    assert (d.weight[~np.isin(d.decision, ["soften", "downweight"])] == 1).all()
    targets = d.targets()
    learned = d.label >= 0
    hard = learned & (d.weight == 1)
    as_targets = targets if targets.ndim == 2 else np.eye(logs.shape[1])[targets]
    at_label = as_targets[np.arange(len(labels)), d.label]
    assert (at_label >= as_targets.max(1) - 1e-6)[hard | (d.decision == "soften")].all()
    assert np.allclose(as_targets[learned & (d.decision != "downweight")].sum(1), 1)
    assert np.allclose(
        as_targets[d.decision == "downweight"].sum(1), 1 - d.p_wrong[d.decision == "downweight"]
    )
    assert np.isfinite(d.p_wrong[~unlabeled]).all()
    assert ((d.p_wrong[~unlabeled] >= 0) & (d.p_wrong[~unlabeled] <= 1 + 1e-9)).all()


@settings(max_examples=100, deadline=None)
@given(judged(), st.sampled_from(MODES))
def test_no_probability_beats_a_cutoff_above_one(case, mode):
    logs, labels = case
    decided = decide_labels(logs, labels, mode, Pseudo(relabel_cutoff=1.0001, cutoff=1.0001))
    assert (decided.label == labels).all()
