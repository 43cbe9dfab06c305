"""The round records: every decision of every round with its reason and the hash of the model that predicted.

Also the tables that people open: label_issues.csv, pseudo_labels.csv, labels.csv.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from .config.types import UserError
from .data.csv_text import read_csv
from .data.dataset import Dataset
from .data.encoding import has_label, likeliest, names, right
from .labels.decisions import Decisions
from .labels.difficulty import rate_interval
from .labels.noise import DIFFICULTY, anchor_counts, bootstrap
from .labels.out_of_fold import OutOfFoldPredictions
from .labels.posterior import PosteriorSummary
from .system.files import hash_of, read_json, write_csv, write_json, write_npy

FILES = ("log_probs.npy", "chains.npy", "ids.csv", "decisions.csv")
BACK = "bring it back, choose another name= or start over with --fresh"


class RoundStore:
    """The rounds in a run folder. round.json is written last: a round without it has not happened."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def recall(
        self, number: int, dataset: Dataset, input_hash: dict[str, str] | None = None
    ) -> OutOfFoldPredictions | None:
        """The predictions of a finished round, so that a resumed run does not train it again.

        made_from: what it must have been made from, see record.

        Raises:
            UserError: it was made from something else, or its files are not those that it wrote.
        """
        folder = self.folder / f"round_{number}"
        if not (folder / "round.json").exists():
            return None
        self._refuse_mixed(number, input_hash)
        table = read_csv(folder / "decisions.csv", usecols=["id", "model"])
        assert list(table.id) == list(dataset.id), f"{folder} was judged on other samples"
        log_probs = np.load(folder / "log_probs.npy", mmap_mode="r")
        chains = np.load(file, mmap_mode="r") if (file := folder / "chains.npy").exists() else None
        about = read_json(folder / "round.json")
        calibration = {"likeliest_rate": about.get("likeliest_rate")}
        judge, models = table.model.to_numpy(object), about.get("models", {})
        return OutOfFoldPredictions(log_probs, judge, chains, models, calibration)

    def record(
        self, number: int, dataset: Dataset, predicted: OutOfFoldPredictions, decisions: Decisions, **facts
    ) -> None:
        """Write logits, ids, decisions and the summary of one round; a recalled round keeps its files.

        facts: also made_from, {what: hash}; the round before is added, and `files`, the hash of what is written.
        """
        folder = self.folder / f"round_{number}"
        if (folder / "round.json").exists():
            return
        write_npy(folder / "log_probs.npy", predicted.log_probs)
        if predicted.chains is not None:
            write_npy(folder / "chains.npy", predicted.chains)
        write_csv(folder / "ids.csv", pd.DataFrame({"id": dataset.id, "split": dataset.split}))
        write_csv(folder / "decisions.csv", decisions_table(decisions, dataset, predicted.judge))
        made = {
            "input_hash": facts.pop("input_hash", {}) | self._before(number),
            "files": {name: hash_of(folder / name) for name in FILES if (folder / name).exists()},
        }
        write_json(folder / "round.json", {"round": number} | facts | summary(decisions, dataset, predicted) | made)

    def _before(self, number: int) -> dict[str, str]:
        """Hash of the summary of the round before, if there is one; what it took in time is no part of it."""
        file = self.folder / f"round_{number - 1}" / "round.json"
        return {file.parent.name: hash_of(read_json(file) | {"seconds": None})} if file.exists() else {}

    def _refuse_mixed(self, number: int, input_hash: dict[str, str] | None) -> None:
        folder = self.folder / f"round_{number}"
        about = read_json(folder / "round.json")
        now = {} if input_hash is None else input_hash | self._before(number)
        wrong = [what for what, digest in about.get("input_hash", {}).items() if now.get(what, digest) != digest]
        if wrong:
            raise UserError(
                f"{folder / 'round.json'} was made from other {', '.join(wrong)} than this run has now; {BACK}"
            )
        for name, digest in about.get("files", {}).items():
            if not (folder / name).exists() or hash_of(folder / name) != digest:
                raise UserError(f"{folder / name} is not the file that round.json names; {BACK}")
        for file in folder.glob("fold_*/model.json"):
            if "models" in about and read_json(file).get("hash") not in about["models"]:
                raise UserError(f"{file} is none of the models that round.json names; {BACK}")

    def rounds(self) -> list[dict]:
        """round.json of every finished round, in order."""
        files = sorted(self.folder.glob("round_*/round.json"), key=lambda f: int(f.parent.name.split("_")[1]))
        return [read_json(file, "round", "classes") for file in files]


def model_files(folder: Path, number: int) -> list[Path]:
    """model.json of each model of a round.

    Raises:
        UserError: there are fewer than its round.json names, so that their mean would be another.
    """
    files, file = sorted(folder.glob(f"round_{number}/fold_*/model.json")), folder / f"round_{number}" / "round.json"
    named = read_json(file).get("models", files) if file.exists() else files
    if len(files) < len(named):
        raise UserError(f"{file} names {len(named)} models, and {len(files)} of them are there; {BACK}")
    return files


def assert_leak_free(rounds: list[dict]) -> None:
    """Nothing that a model learned came from a teacher that saw the given labels of the model's own fold.

    rounds: round.json of each. The folds of given labels are the same in all of them, so it is enough that every
    teacher, and by induction every teacher of a teacher, left out the same fold.
    """
    folds = {judge: about["fold"] for info in rounds for judge, about in info["models"].items()}
    for info in rounds:
        for judge, about in info["models"].items():
            wrong = [teacher for teacher in about["teachers"] if folds[teacher] != about["fold"]]
            assert not wrong, f"round {info['round']}: model {judge} learned from {wrong}, which saw its fold's labels"


def refuse_changed_dataset(folder: Path, dataset: Dataset) -> None:
    """What finished rounds judged must still be what the data says.

    Raises:
        UserError: rows were added, removed or given another label since samples.csv was written.
    """
    if not RoundStore(folder).rounds() or not (folder / "samples.csv").exists():
        return
    tables = read_csv(folder / "samples.csv"), dataset.table()
    before, now = (set(table[["id", "split", "given_label"]].itertuples(index=False, name=None)) for table in tables)
    changed = sorted({row[0] for row in before ^ now if row[1] in ("train", "unlabeled")})
    if changed:
        what = f"{len(changed):,} rows of the data are not as this run judged them ({changed[0]!r}, …)"
        raise UserError(f"{folder / 'samples.csv'}: {what}; bring them back, choose another name= or add --fresh")


def summary(decisions: Decisions, dataset: Dataset, predicted: OutOfFoldPredictions) -> dict:
    """What a round came to, in a few numbers; reads no truth."""
    labeled = has_label(dataset.given_labels)
    kinds, counts = np.unique(decisions.decision.astype(str), return_counts=True)
    hits = right(likeliest(predicted.log_probs[labeled]), dataset.given_labels[labeled])
    about = {
        "classes": list(dataset.classes),
        "decisions": dict(zip(kinds.tolist(), counts.tolist(), strict=True)),
        "coverage": float((decisions.label[~labeled] >= 0).mean()) if (~labeled).any() else None,
        "oof_accuracy": float(hits.mean()),
        "models": predicted.models,
    }
    if decisions.questions:
        shown = [
            set(names(said, dataset.classes)) for said in (dataset.given_labels, decisions.predicted, decisions.label)
        ]
        about |= {"multi_label": True, "label_sets": sorted(set().union(*shown) - {""})}
        return about | predicted.calibration | _noise_by_class(decisions, dataset)
    return about | predicted.calibration | _noise_summary(decisions, dataset.given_labels, predicted.likeliest_rate)


def _noise_by_class(d: Decisions, dataset: Dataset) -> dict:
    """The noise of label sets, question by question. estimated_rate: of all answers; extra: of the images without a
    class the share that was given it; missing: of those with it the share that was not."""
    found = {
        name: _noise_summary(asked, dataset.given_labels[:, c])
        for c, (name, asked) in enumerate(zip(dataset.classes, d.questions, strict=True))
    }
    about = dict.fromkeys(["estimated_rate", "estimated_rate_interval", "noise_type", "noise_matrix"])
    if d.questions[0].matrix is None:
        return about
    by_class = {
        name: {
            "rate": noise["estimated_rate"],
            "type": noise["noise_type"],
            "extra": noise["noise_matrix"][0][1],
            "missing": noise["noise_matrix"][1][0],
        }
        for name, noise in found.items()
    }
    rates, known = [noise["rate"] for noise in by_class.values()], (dataset.given_labels >= 0).sum(0)
    return about | {"estimated_rate": float(np.average(rates, weights=known)), "noise_by_class": by_class}


def _noise_summary(d: Decisions, given_labels: np.ndarray, likeliest_rate: float | None = None) -> dict:
    """The noise matrix with its name and 95 % intervals, where given labels are judged for noise.

    The rate of look-alike noise is the mean p_wrong, without an interval: nothing bounds it.
    """
    matrix = d.matrix
    if matrix is None:
        return dict.fromkeys(["estimated_rate", "estimated_rate_interval", "noise_type", "noise_matrix"])
    if d.noise == DIFFICULTY:
        return {
            "estimated_rate": float(d.p_wrong[given_labels >= 0].mean()),
            "estimated_rate_interval": np.round(rate_interval(likeliest_rate), 6).tolist(),
            "noise_type": d.noise,
            "noise_rate_by_confidence": d.posterior.difficulty.rates.round(6).tolist(),
            "noise_matrix": matrix.round(6).tolist(),
        }
    said = PosteriorSummary(d.predicted, d.confidence, d.self_confidence, d.p_wrong)
    (low, high), (rate, *interval) = bootstrap(d.posterior, anchor_counts(said, given_labels, len(matrix)))
    if alike := d.noise == "look-alike":
        rate = d.p_wrong[given_labels >= 0].mean()
    return {
        "estimated_rate": float(rate),
        "estimated_rate_interval": None if alike else np.round(interval, 6).tolist(),
        "noise_type": d.noise,
        "noise_matrix": matrix.round(6).tolist(),
        "noise_matrix_low": low.round(6).tolist(),
        "noise_matrix_high": high.round(6).tolist(),
    }


def decisions_table(d: Decisions, dataset: Dataset, judge: np.ndarray) -> pd.DataFrame:
    """As decisions.csv holds them: one row a judged sample, class names, empty where there is no label."""
    named = {
        key: names(value, dataset.classes)
        for key, value in {"given_label": dataset.given_labels, "predicted": d.predicted, "label": d.label}.items()
    }
    return pd.DataFrame(
        {
            "id": dataset.id,
            "split": dataset.split,
            "given_label": named["given_label"],
            "predicted": named["predicted"],
            "confidence": d.confidence,
            "self_confidence": d.self_confidence,
            "p_wrong": d.p_wrong,
            "decision": d.decision,
            "label": named["label"],
            "reason": d.reason,
            "model": judge,
        }
    )
