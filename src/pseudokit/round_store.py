"""What every round predicted and decided: on disk, in `round_R/` of a run folder, or in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd
from numpy import ndarray

from .config.types import UserError
from .data.csv_text import read_csv
from .data.dataset import Dataset
from .data.encoding import has_label, is_correct, names
from .labels.decisions import Decisions
from .labels.difficulty import rate_interval
from .labels.noise import DIFFICULTY, LOOK_ALIKE, VOTES, bootstrap_rate
from .labels.out_of_fold import OutOfFoldPredictions
from .system.files import hash_of, log, read_json, write_csv, write_json, write_npy

RECALLED = (
    "likeliest_rate",
    "class_noise_in_doubt",
    "member_weights",
    "member_accuracies",
    "file_weights",
)
"""What later rounds and the final models take from what calibration came to."""
BACK = "bring it back, choose another name= or start over with --fresh"


@dataclass
class RoundStore:
    """The rounds in a run folder. round.json is written last: a round without it has not happened."""

    folder: Path

    def recall(self, number: int, dataset: Dataset) -> OutOfFoldPredictions | None:
        """The predictions of a finished round, so that a resumed run does not train it again; None if it is not there.

        Raises:
            UserError: a file of the round is not the one that was written, or it has other samples than the dataset.
        """
        folder = self.folder / f"round_{number}"
        if not (folder / "round.json").exists():
            return None
        info = read_json(folder / "round.json", "files", "models")
        for name, file_hash in info["files"].items():
            if not (folder / name).exists() or hash_of(folder / name) != file_hash:
                raise UserError(f"{folder / name} is not the file that round.json names; {BACK}")
        table = read_csv(folder / "decisions.csv", usecols=["id", "model"])
        if list(table.id) != list(dataset.id):
            raise UserError(f"{folder / 'decisions.csv'} has other samples than this run; {BACK}")
        chains = None
        if "chains.npy" in info["files"]:
            chains = np.load(folder / "chains.npy", mmap_mode="r")
        return OutOfFoldPredictions(
            np.load(folder / "log_probs.npy", mmap_mode="r"),
            table.model.to_numpy(object),
            chains,
            info["models"],
            {key: info.get(key) for key in RECALLED},
        )

    def record(
        self,
        number: int,
        dataset: Dataset,
        predicted: OutOfFoldPredictions,
        decisions: Decisions,
        **facts,
    ) -> None:
        """Write predictions, decisions and the summary of one round; a recalled round keeps its files.

        Args:
            facts: what else round.json is to say.
        """
        folder = self.folder / f"round_{number}"
        if (folder / "round.json").exists():
            return
        table = decisions_table(decisions, dataset, predicted.predicted_by)
        write_npy(folder / "log_probs.npy", predicted.log_probs)
        write_csv(folder / "ids.csv", table[["id", "split"]])
        write_csv(folder / "decisions.csv", table)
        files = ["log_probs.npy", "ids.csv", "decisions.csv"]
        if predicted.chains is not None:
            write_npy(folder / "chains.npy", predicted.chains)
            files.append("chains.npy")
        info = {"round": number, **facts, **summary(decisions, dataset, predicted)}
        info["files"] = {name: hash_of(folder / name) for name in files}
        write_json(folder / "round.json", info)
        agreement = {"out-of-fold agreement": f"{info['oof_accuracy']:.2%}"}
        line = pd.DataFrame([{"round": number} | info["decisions"] | agreement])
        log.info(f"labels by decision:\n{line.to_string(index=False)}")

    def rounds(self) -> list[dict]:
        """round.json of every finished round, in order."""
        files = self.folder.glob("round_*/round.json")
        return sorted(
            (read_json(file, "round", "classes") for file in files), key=itemgetter("round")
        )


@dataclass
class MemoryStore:
    """The rounds of one call of Python, which is not resumed."""

    rounds: list[dict] = field(default_factory=list)
    """What round.json would hold of each."""
    predicted: OutOfFoldPredictions | None = None
    decisions: Decisions | None = None
    """Of the last round."""

    def recall(self, number: int, dataset: Dataset) -> None:
        """No round is there before it is trained."""

    def record(
        self,
        number: int,
        dataset: Dataset,
        predicted: OutOfFoldPredictions,
        decisions: Decisions,
        **facts,
    ) -> None:
        """See RoundStore.record."""
        self.rounds.append({"round": number, **facts, **summary(decisions, dataset, predicted)})
        self.predicted = predicted
        self.decisions = decisions


def model_folders(run: Path, number: int) -> list[Path]:
    """The folder of each model of a round that is trained."""
    return sorted(file.parent for file in run.glob(f"round_{number}/fold_*/model.json"))


def summary(decisions: Decisions, dataset: Dataset, predicted: OutOfFoldPredictions) -> dict:
    """What a round came to, in a few numbers; reads no truth."""
    given_labels = dataset.given_labels
    labeled = has_label(given_labels)
    hits = is_correct(predicted.log_probs[labeled].argmax(-1), given_labels[labeled])
    info = {
        "classes": list(dataset.classes),
        "decisions": pd.Series(np.asarray(decisions.decision))
        .value_counts()
        .sort_index()
        .to_dict(),
        "coverage": None if labeled.all() else float((decisions.label[~labeled] >= 0).mean()),
        "oof_accuracy": float(hits.mean()),
        "models": predicted.models,
        **predicted.calibration,
    }
    if decisions.questions:
        labels = np.concatenate([given_labels, decisions.predicted, decisions.label])
        label_sets = sorted({*names(labels, dataset.classes)} - {""})
        info |= {"multi_label": True, "label_sets": label_sets}
    return info | noise_summary(decisions, given_labels, dataset.classes, predicted.likeliest_rate)


def _noise_by_class(decisions: Decisions, all_labels: ndarray, classes: Sequence[str]) -> dict:
    """The noise of label sets (N, C), class by class.

    estimated_rate: of all answers; extra: of the images without a class the share that was given it; missing: of
    those with it the share that was not.
    """
    by_class = {}
    columns = zip(classes, decisions.questions, all_labels.T, strict=True)
    for name, question, given_labels in columns:
        noise = noise_summary(question, given_labels, ("no", "yes"))
        if not noise:
            return {}
        (_, extra), (missing, _) = noise["noise_matrix"]
        by_class[name] = {
            "rate": noise["estimated_rate"],
            "type": noise["noise_type"],
            "extra": extra,
            "missing": missing,
        }
    rates = [noise["rate"] for noise in by_class.values()]
    n_answers = (all_labels >= 0).sum(0)
    rate = float(np.average(rates, weights=n_answers))
    return {"estimated_rate": rate, "noise_by_class": by_class}


def noise_summary(
    decisions: Decisions,
    given_labels: ndarray,
    classes: Sequence[str],
    likeliest_rate: float | None = None,
) -> dict:
    """The noise matrix, its type, the rate and its interval; empty where given labels are not judged for noise."""
    if decisions.questions:
        return _noise_by_class(decisions, given_labels, classes)
    if decisions.matrix is None:
        return {}
    rate = decisions.p_wrong[given_labels >= 0].mean()
    # Nothing bounds the rate of look-alike noise, and that of votes is told by annotator.
    interval = None
    if decisions.noise == DIFFICULTY:
        interval = rate_interval(likeliest_rate)
    elif decisions.noise not in (LOOK_ALIKE, VOTES):
        rate, *interval = bootstrap_rate(
            decisions.posterior, decisions.predicted, decisions.confidence
        )
    info = {
        "noise_type": decisions.noise,
        "noise_matrix": _rounded(decisions.matrix),
        "estimated_rate": float(rate),
    }
    if decisions.noise == VOTES:
        info["vote_correlation"] = _rounded(decisions.posterior.votes.correlation)
    if interval:
        info["estimated_rate_interval"] = _rounded(interval)
    return info


def _rounded(values) -> list:
    return np.round(values, 6).tolist()


def decisions_table(
    decisions: Decisions, dataset: Dataset, predicted_by: ndarray | str
) -> pd.DataFrame:
    """As decisions.csv holds them: one row a judged sample, class names, empty where there is no label."""
    return dataset.table()[["id", "split", "given_label"]].assign(
        predicted=names(decisions.predicted, dataset.classes),
        confidence=decisions.confidence,
        self_confidence=decisions.self_confidence,
        p_wrong=decisions.p_wrong,
        decision=np.asarray(decisions.decision),
        label=names(decisions.label, dataset.classes),
        reason=np.asarray(decisions.reason),
        model=predicted_by,
    )
