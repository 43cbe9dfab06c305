"""Other people's predictions in a run: they decide as the kit's own would, and are told where they are not held out."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from pseudokit.api import predict, run_command
from pseudokit.config.keys import Config, Pseudo
from pseudokit.config.load import load_config
from pseudokit.config.types import UserError
from pseudokit.data.dataset import load_dataset
from pseudokit.data.folds import make_folds
from pseudokit.labels import arrays
from pseudokit.labels.out_of_fold import FoldPredictions, OutsidePredictions, average_models
from pseudokit.pipeline import run_rounds
from pseudokit.round_store import MemoryStore, RoundStore
from pseudokit.run_folder.corrections import new_decisions, revert, store_corrections
from pseudokit.run_folder.evaluate import write_tables
from pseudokit.run_folder.folder import DEFAULT_CONFIG, Run, reopen_run
from pseudokit.run_folder.outside import read_outside, refuse_idle_predictions
from pseudokit.run_folder.prepare import make_job_runner, prepare
from pseudokit.run_folder.reselect import reselect
from pseudokit.self_training import SelfTrainingContext, self_train
from pseudokit.system.files import seed_of

CLASSES = ["ant", "bee", "cat"]
N = 300
POLICY = Pseudo(rounds=1, folds=3)


class Table:
    """300 rows of a table in three clouds, 15 % of whose labels are wrong, and a classifier's held-out predictions."""

    def __init__(self, folder: Path):
        rng = np.random.default_rng(0)
        self.truth = np.arange(N) % 3
        self.x = np.eye(3)[self.truth] * 2 + rng.normal(size=(N, 3)) * 0.6
        is_wrong = rng.random(N) < 0.15
        self.labels = np.where(is_wrong, (self.truth + 1) % 3, self.truth)
        self.ids = np.array([f"row {i:03d}" for i in range(N)], object)
        self.folder = folder
        rows = {"id": self.ids, "label": np.take(CLASSES, self.labels), "group": self.ids}
        pd.DataFrame(rows).to_csv(folder / "train.csv", index=False)
        self.folds = make_folds(self.labels, np.arange(N), 3, seed_of(0, 1, "folds"))
        self.log_probs = np.empty((N, 3))
        for fold in range(3):
            self.log_probs[self.folds == fold] = self.predict(self.fit("", self.folds != fold))[
                self.folds == fold
            ]

    def fit(self, where, rows, targets=None) -> SimpleNamespace:
        model = LogisticRegression().fit(self.x[rows], self.labels[rows])
        return SimpleNamespace(model=model, hash=where)

    def fit_rows(self, order: np.ndarray):
        """fit for a data set whose rows are these ones of the table."""
        return lambda where, rows, targets: self.fit(where, order[rows])

    def predict(self, fitted, rows=slice(None)):
        return fitted.model.predict_log_proba(self.x[rows])

    def write(self, probs: np.ndarray, name: str = "oof.csv", order=slice(None), **columns) -> str:
        table = pd.DataFrame(probs, columns=CLASSES).assign(id=self.ids, **columns)
        table.iloc[order].to_csv(self.folder / name, index=False)
        return str(self.folder / name)

    def keys(self, **keys) -> list[str]:
        keys = {"data.train": self.folder / "train.csv", "out": self.folder / "runs", **keys}
        return [f"{key}={value}" for key, value in keys.items()]

    def rounds(self, name: str, file: str, **predictions):
        """Read, check and decide, without the pages: the run folder."""
        keys = self.keys(name=name, **{"predictions.labeled": file, **predictions})
        run = Run(self.folder / name, "denoise", load_config(DEFAULT_CONFIG, keys))
        prepared = prepare(run)
        run_rounds(run, prepared, make_job_runner(run, prepared))
        return run.path, prepared


def decide(run: Run) -> dict:
    """The rounds of a run and its tables, without pages: what metrics.json holds."""
    prepared = prepare(run)
    result = run_rounds(run, prepared, make_job_runner(run, prepared))
    return write_tables(run, prepared, result)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return Table(tmp_path_factory.mktemp("outside"))


@pytest.fixture(scope="module")
def run(table):
    file = table.write(np.exp(table.log_probs), fold=table.folds)
    keys = {"name": "whole", "predictions.labeled": file, "predictions.fold_col": "fold"}
    return run_command("denoise", table.keys(**keys))


def decisions(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "round_1" / "decisions.csv", keep_default_na=False)


def test_a_table_without_images_is_repaired_without_training(table, run):
    names = {file.name for file in run.iterdir()}
    made = (
        "label_issues.csv labels.csv report.html review.html label_studio.json metrics.json round_1"
    )
    assert names >= set(made.split())
    assert not names & {"student", "baseline"}
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    labels = pd.read_csv(run / "labels.csv").set_index("id").label[table.ids]
    truth = np.take(CLASSES, table.truth)
    assert (labels == truth).mean() > (np.take(CLASSES, table.labels) == truth).mean() + 0.1
    assert json.loads((run / "metrics.json").read_text())["predictions"]["warnings"] == []


def test_a_finished_run_is_done_and_has_no_model_to_predict_with(table, run):
    report = (run / "report.html").stat().st_mtime_ns
    keys = {"predictions.labeled": table.folder / "oof.csv", "predictions.fold_col": "fold"}
    run_command("denoise", table.keys(name="whole", **keys))
    assert (run / "report.html").stat().st_mtime_ns == report
    with pytest.raises(UserError, match=r"predictions\.labeled"):
        predict([run], data=str(table.folder / "train.csv"))


def test_another_policy_decides_again_and_a_person_has_the_last_word(run):
    reselect(run, ["pseudo.relabel_cutoff=0.5"])
    assert (pd.read_csv(run / "selected.csv").decision == "relabel").any()
    before = pd.read_csv(run / "labels.csv")
    row = before.iloc[0]
    other = next(name for name in CLASSES if name != row.label)
    line = {"id": row.id, "given_label": row.given_label, "action": "relabel", "label": other}
    pd.DataFrame([line]).to_csv(run.parent / "corrections.csv", index=False)
    with reopen_run(run) as opened:  # as apply does, but without pages
        store_corrections(opened, new_decisions(opened, run.parent / "corrections.csv"))
        decide(opened)
    after = pd.read_csv(run / "labels.csv")
    assert (after.label != before.label).sum() == 1
    assert after.iloc[0][["label", "source"]].tolist() == [other, "human"]
    with reopen_run(run) as opened:
        revert(opened)
        decide(opened)
    assert pd.read_csv(run / "labels.csv").equals(before)


def test_predictions_decide_as_those_of_the_kits_own_teachers_do(table, run, tmp_path):
    """The same models, once as fit and predict of the loop and once as a file of what they said."""
    config = load_config(run / "config.yaml", [])
    context = SelfTrainingContext(
        load_dataset(config.data),
        table.fit,
        table.predict,
        POLICY,
        RoundStore(tmp_path),
        mode="denoise",
        clusters=np.arange(N),
    )
    self_train(context)
    own, outside = decisions(tmp_path), decisions(run)
    for column in ("id", "predicted", "decision", "label"):
        assert (own[column] == outside[column]).all()
    assert np.allclose(own.p_wrong, outside.p_wrong, atol=1e-4)
    assert {*own.decision} > {"keep"}


def test_the_order_of_rows_and_columns_changes_nothing(table):
    probs = np.exp(table.log_probs)
    order = np.random.default_rng(1).permutation(N)
    first, _ = table.rounds("a", table.write(probs, "a.csv", fold=table.folds))
    other, _ = table.rounds("b", table.write(probs, "b.csv", order, fold=table.folds))
    np.save(table.folder / "c.npy", probs[order])
    (table.folder / "c.txt").write_text("\n".join(table.ids[order]))
    ids = {"predictions.ids": table.folder / "c.txt"}
    array, _ = table.rounds("c", str(table.folder / "c.npy"), **ids)
    for name in ("log_probs.npy", "ids.csv", "decisions.csv"):
        content = (first / "round_1" / name).read_bytes()
        assert content == (other / "round_1" / name).read_bytes()
        assert content == (array / "round_1" / name).read_bytes()


@pytest.mark.parametrize("fault", ["missing", "nan", "logits", "sum"])
def test_what_is_no_prediction_of_every_row_is_refused_before_anything_is_written(table, fault):
    probs = np.exp(table.log_probs)
    rows = slice(None)
    if fault == "missing":
        rows = slice(1, None)
    elif fault == "logits":
        probs = table.log_probs + 1
    else:
        probs[0] = {"nan": np.nan, "sum": 0.9}[fault]
    file = table.write(probs, f"{fault}.csv", rows)
    with pytest.raises(UserError, match=f"{fault}.csv.*row 000"):
        table.rounds(fault, file)
    assert {path.name for path in (table.folder / fault).iterdir()} == {"status.json"}


def test_groups_that_straddle_folds_are_told(table):
    text = (table.folder / "train.csv").read_text().replace("row 001\n", "row 000\n")
    (table.folder / "grouped.csv").write_text(text)
    folds = table.folds.copy()
    folds[:2] = 0, 1
    file = table.write(np.exp(table.log_probs), "straddling.csv", fold=folds)
    keys = {"data.train": table.folder / "grouped.csv", "data.group_col": "group"}
    _, prepared = table.rounds("straddling", file, **keys, **{"predictions.fold_col": "fold"})
    [warning] = prepared.outside.facts["warnings"]
    assert "row 000" in warning
    assert "row 001" in warning


def test_predictions_of_rows_that_the_model_learned_are_told(tmp_path):
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(1000, 5)), rng.integers(0, 3, 1000)
    pd.DataFrame({"id": range(1000), "label": labels}).to_csv(tmp_path / "train.csv", index=False)
    probs = RandomForestClassifier(30, random_state=0).fit(x, labels).predict_proba(x)
    pd.DataFrame(probs).assign(id=range(1000)).to_csv(tmp_path / "oof.csv", index=False)
    config = Config(
        data={"train": str(tmp_path / "train.csv")},
        predictions={"labeled": str(tmp_path / "oof.csv")},
    )
    outside = read_outside(config, load_dataset(config.data), np.arange(1000))
    assert len(outside.facts["warnings"]) == 1


@pytest.mark.parametrize("weights", [None, [3], [3, 0], [1, 3]])
def test_other_teachers_speak_of_unlabeled_rows_beside_the_kits_own(table, tmp_path, weights):
    """Of all but row 4, which is a copy of a labeled one: those teachers may have learned its label."""
    rows = pd.read_csv(table.folder / "train.csv")
    unlabeled = np.arange(N) % 5 == 4
    rows.label = rows.label.mask(unlabeled, "")
    rows.to_csv(tmp_path / "train.csv", index=False)
    clusters = np.arange(N)
    clusters[4] = 0
    others = np.roll(np.exp(table.log_probs), 1, axis=1)
    file = table.write(others, "others.csv")
    config = Config(
        data={"train": str(tmp_path / "train.csv")},
        predictions={"unlabeled": file, "weights": weights},
    )
    dataset = load_dataset(config.data)
    order = pd.Index(table.ids).get_indexer(dataset.id)
    clusters = clusters[order]
    outside = read_outside(config, dataset, clusters)
    context = SelfTrainingContext(
        dataset,
        table.fit_rows(order),
        lambda model, rows: table.predict(model, order[rows]),
        POLICY,
        RoundStore(tmp_path / "run"),
        mode="augment",
        clusters=clusters,
        outside=outside,
    )
    both = np.exp(self_train(context).predicted.log_probs)
    alone = SelfTrainingContext(
        **{**vars(context), "outside": OutsidePredictions(), "store": RoundStore(tmp_path)}
    )
    own = np.exp(self_train(alone).predicted.log_probs)
    share = {None: 0.5, 1: 0.75}.get(weights and len(weights))
    if share is None:
        share = weights[0] / sum(weights)
    counts = (dataset.given_labels < 0) & (dataset.id != "row 004")
    mean = np.where(counts[:, None], (1 - share) * own + share * others[order], own)
    assert np.allclose(both, mean, atol=1e-5)


def test_with_both_kinds_of_files_no_teacher_is_trained(table, tmp_path):
    rows = pd.read_csv(table.folder / "train.csv")
    rows.label = rows.label.mask(np.arange(N) % 5 == 4, "")
    rows.to_csv(tmp_path / "train.csv", index=False)
    file = table.write(np.exp(table.log_probs), "all.csv")
    config = Config(
        data={"train": str(tmp_path / "train.csv")},
        predictions={"labeled": file, "unlabeled": file},
    )
    dataset = load_dataset(config.data)
    for mode in ("augment", "joint"):
        outside = read_outside(config, dataset, np.arange(N))
        context = SelfTrainingContext(
            dataset,
            None,
            None,
            Pseudo(rounds=1, cutoff=0.6),
            RoundStore(tmp_path / mode),
            mode=mode,
            clusters=np.arange(N),
            outside=outside,
        )
        label = self_train(context).label
        accepted = (dataset.given_labels < 0) & (label >= 0)
        truth = table.truth[pd.Index(table.ids).get_indexer(dataset.id)]
        assert accepted.sum() > 20
        assert (label == truth)[accepted].mean() > 0.95


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """2,500 rows, every fifth without a label, and two files that have all of them: a teacher's, and noise."""
    folder = tmp_path_factory.mktemp("teachers")
    rng = np.random.default_rng(0)
    n = 2500
    truth = rng.integers(0, 3, n)
    probs = {"good": 0.75 * np.eye(3)[truth] + 0.25 / 3, "noise": rng.dirichlet(np.ones(3), n)}
    labels = np.where(rng.random(n) < 0.15, (truth + 1) % 3, truth)
    labels = np.where(np.arange(n) % 5 == 4, "", np.take(CLASSES, labels))
    folds = np.where(labels == "", "", np.arange(n) % 3)
    rows = pd.DataFrame({"id": np.arange(n), "label": labels, "group": np.arange(n)})
    rows.to_csv(folder / "train.csv", index=False)
    for name, table in probs.items():
        table = pd.DataFrame(table, columns=CLASSES).assign(id=np.arange(n), fold=folds)
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


def judged_by(folder: Path, mode: str = "augment", clusters=None, own: float = 1 / 3, **keys):
    """The data set, and what a round predicts; teachers that are trained know nothing."""
    keys = {
        key: [str(folder / f"{name}.csv") for name in value] if isinstance(value, tuple) else value
        for key, value in keys.items()
    }
    config = Config(data={"train": str(folder / "train.csv")}, predictions=keys)
    refuse_idle_predictions(config, mode, trains=True)
    dataset = load_dataset(config.data)
    clusters = np.arange(len(dataset)) if clusters is None else clusters
    outside = read_outside(config, dataset, clusters)
    context = SelfTrainingContext(
        dataset,
        lambda where, rows, targets: SimpleNamespace(hash=where),
        lambda model, rows: np.full((len(rows), 3), np.log(own)),
        POLICY,
        MemoryStore(),
        mode=mode,
        clusters=clusters,
        outside=outside,
    )
    self_train(context)
    return dataset, context.store.predicted


@pytest.mark.parametrize("mode", ["augment", "joint"])
def test_fitted_weights_tell_a_teacher_from_noise_whatever_their_order(teachers, mode):
    both = {}
    for names in (("good", "noise"), ("noise", "good")):
        keys = {"labeled": names, "unlabeled": names, "weights": "fit"}
        dataset, predicted = judged_by(teachers, mode, **keys)
        weights = dict(zip(names, predicted.calibration["member_weights"], strict=True))
        assert weights["noise"] < 0.1
        both[names] = predicted.log_probs
        unlabeled = dataset.given_labels < 0
        ids = dataset.id[unlabeled].astype(int)
        mean = sum(
            weight * pd.read_csv(teachers / f"{name}.csv", index_col="id")[CLASSES].loc[ids]
            for name, weight in weights.items()
        )
        assert np.exp(predicted.log_probs)[unlabeled] == pytest.approx(mean, abs=1e-5)
    assert both["good", "noise"] == pytest.approx(both["noise", "good"], abs=1e-4)


def test_metrics_have_the_fitted_weights(teachers, tmp_path):
    keys = {
        "data.train": teachers / "train.csv",
        "predictions.labeled": f"{teachers}/good.csv,{teachers}/noise.csv",
        "predictions.weights": "fit",
    }
    keys = [f"{key}={value}" for key, value in keys.items()]
    run = Run(tmp_path, "denoise", load_config(DEFAULT_CONFIG, keys))
    good, noise = decide(run)["predictions"]["weights"]
    assert good > 0.85
    assert noise == pytest.approx(1 - good)


@pytest.mark.parametrize(
    "keys",
    [
        {"labeled": ("good",)},
        {"labeled": ("good", "noise"), "unlabeled": ("good",)},
        {"unlabeled": ("good", "noise")},
    ],
    ids=str,
)
def test_weights_are_not_fitted_where_nothing_allows_it(teachers, keys):
    with pytest.raises(UserError, match=r"predictions\.weights=fit"):
        judged_by(teachers, "augment" if "unlabeled" in keys else "denoise", weights="fit", **keys)


def test_labeled_rows_of_other_teachers_count_only_where_folds_prove_them_held_out(
    teachers, caplog
):
    caplog.set_level("INFO")
    logged = {}
    for name, keys in {
        "not known": {},
        "held out": {"fold_col": "fold"},
        "straddling": {"fold_col": "fold", "clusters": np.arange(2500) // 2},
    }.items():
        dataset, predicted = judged_by(teachers, unlabeled=("good",), **keys)
        labeled = dataset.given_labels >= 0
        is_judged = predicted.log_probs[labeled].max(1) > np.log(0.5)
        assert is_judged.all() if name == "held out" else not is_judged.any(), name
        assert (predicted.log_probs[~labeled].max(1) > np.log(0.5)).mean() > 0.4
        [logged[name]] = [line for line in caplog.messages if "good.csv" in line]
        assert "2,000" in logged[name]
        caplog.clear()
    assert len({*logged.values()}) == 3


def test_weights_beside_the_kits_own_teachers_are_fitted_where_folds_prove_rows_held_out(teachers):
    keys = {"unlabeled": ("noise", "good"), "weights": "fit", "fold_col": "fold"}
    _, predicted = judged_by(teachers, **keys)
    noise, good, own = predicted.calibration["file_weights"]
    assert good > 0.85
    assert own + noise == pytest.approx(1 - good, abs=1e-5)


def test_a_mean_is_the_same_in_blocks_of_any_size(monkeypatch):
    rng = np.random.default_rng(0)
    models = []
    for fold in range(3):
        rows = np.flatnonzero(rng.random(40) < 0.5)
        log_probs = np.log(rng.dirichlet(np.ones(4), len(rows)))
        models.append(FoldPredictions(rows, log_probs, str(fold), fold, weight=fold + 1))
    whole = average_models(models, 40)
    monkeypatch.setattr(arrays, "MAX_BLOCK_VALUES", 12)
    blocks = average_models(models, 40)
    assert np.array_equal(whole.log_probs, blocks.log_probs, equal_nan=True)
    assert (whole.predicted_by == blocks.predicted_by).all()
    assert np.isnan(whole.log_probs[whole.predicted_by == ""]).all()
    row = next(i for i, hashes in enumerate(whole.predicted_by) if hashes == "0+1+2")
    parts = [np.exp(model.log_probs[model.rows == row][0]) for model in models]
    assert np.exp(whole.log_probs[row]) == pytest.approx(np.average(parts, 0, [1, 2, 3]))


def test_what_a_run_stored_decides_the_same_again(table, run):
    keys = {"predictions.ids": run / "oof.csv"}
    again, _ = table.rounds("again", str(run / "oof_log_probs.npy"), **keys)
    ids = {"predictions.ids": run / "round_1" / "ids.csv"}
    of_round, _ = table.rounds("stored", str(run / "round_1" / "log_probs.npy"), **ids)
    first = decisions(run)
    for other in (decisions(again), decisions(of_round)):
        for column in ("id", "predicted", "decision", "label"):
            assert (first[column] == other[column]).all()
        assert np.allclose(first.p_wrong, other.p_wrong, atol=1e-5)
    raw = table.write(np.exp(table.log_probs), "raw.csv")
    with pytest.raises(UserError, match=r"raw\.csv"):
        table.rounds("mixed", f"{run / 'oof_log_probs.npy'},{raw}", **keys)


@pytest.mark.parametrize(
    ("mode", "keys"),
    [
        ("train", {"labeled": "x.csv"}),
        ("augment", {"labeled": "x.csv"}),
        ("denoise", {"unlabeled": "x.csv"}),
        ("denoise", {"fold_col": "fold"}),
        ("denoise", {"weights": "1"}),
    ],
)
def test_keys_without_effect_are_refused(table, mode, keys):
    keys = table.keys(**{f"predictions.{key}": value for key, value in keys.items()})
    run = Run(table.folder / "idle", mode, load_config(DEFAULT_CONFIG, keys))
    with pytest.raises(UserError, match=r"predictions\."):
        prepare(run)


def test_many_rows_need_no_image_and_seconds(tmp_path):
    n, k = 20_000, 10
    rng = np.random.default_rng(0)
    labels = rng.integers(0, k, n)
    probs = rng.dirichlet(np.ones(k), n).astype(np.float32)
    probs = 0.3 * probs + 0.7 * np.eye(k, dtype=np.float32)[labels]
    np.save(tmp_path / "oof.npy", probs)
    ids = pd.Series(np.arange(n)).astype(str)
    pd.DataFrame({"id": ids, "label": labels}).to_csv(tmp_path / "train.csv", index=False)
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    config = Config(
        data={"train": str(tmp_path / "train.csv")},
        predictions={"labeled": str(tmp_path / "oof.npy"), "ids": str(tmp_path / "ids.txt")},
    )
    prepared = prepare(Run(tmp_path / "run", "denoise", config))
    assert prepared.pixels.size == 0
    assert sum(len(model.rows) for model in prepared.outside.teachers) == n
