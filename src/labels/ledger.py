"""The ledger: every decision of every round with its reason and the hash of the model that judged.

Also the tables that people open: suspects.csv, pseudo_labels.csv, labels.csv.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ..cells import read_csv
from ..data.samples import Samples
from ..run import hash_of, read_json, write_csv, write_json, write_npy
from ..values import UserError
from .belief import Said
from .difficulty import rate_interval
from .noise import DIFFICULTY, anchor_counts, bootstrap
from .selection import Decisions
from .sets import differ, has_label, likeliest, names, right


@dataclass(frozen=True)
class Verdict:
    """Held-out log-probabilities (N, K) or (N, C, 2) float32, and for each row the hash of the weights that judged it.

    votes: uint8 of that shape, how many judges predicted each class; chains: stacked, what the models of each fold say
    by themselves, NaN where they judged nothing; models: of this round, hash → the fold that it did not
    learn, and by which models it was taught; calibration: what it came to.
    """

    log_probs: np.ndarray
    judge: np.ndarray
    votes: np.ndarray | None = None
    chains: np.ndarray | None = None
    models: dict[str, dict] = field(default_factory=dict)
    calibration: dict = field(default_factory=dict)

    @property
    def likeliest_rate(self) -> float | None:
        """See judging.calibrated."""
        return self.calibration.get("likeliest_rate")

    @property
    def agreement(self) -> np.ndarray | float:
        """(N,) or (N, C) share of the judges that predict the class of the verdict."""
        if self.votes is None:
            return 1.0
        at = np.take_along_axis(self.votes, likeliest(self.log_probs)[..., None], -1)[..., 0]
        return at / np.maximum(self.votes.sum(-1, dtype=np.int64), 1)


FILES = ("logits.npy", "votes.npy", "chains.npy", "ids.csv", "decisions.csv")
BACK = "bring it back, choose another name= or start over with --fresh"


class Ledger:
    """The rounds in a run folder. round.json is written last: a round without it has not happened."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def recall(self, number: int, samples: Samples, made_from: dict[str, str] | None = None) -> Verdict | None:
        """The verdict of a finished round, so that a resumed run does not train it again.

        made_from: what it must have been made from, see record.

        Raises:
            UserError: it was made from something else, or its files are not those that it wrote.
        """
        folder = self.folder / f"round_{number}"
        if not (folder / "round.json").exists():
            return None
        self._refuse_mixed(number, made_from)
        table = read_csv(folder / "decisions.csv", usecols=["id", "model"])
        assert list(table.id) == list(samples.id), f"{folder} was judged on other samples"
        arrays = {name: np.load(file, mmap_mode="r") if (file := folder / f"{name}.npy").exists() else None
                  for name in ("logits", "votes", "chains")}  # fmt: skip
        about = read_json(folder / "round.json")
        calibration = {"likeliest_rate": about.get("likeliest_rate")}
        logits, judge = arrays.pop("logits"), table.model.to_numpy(object)
        return Verdict(logits, judge, models=about.get("models", {}), calibration=calibration, **arrays)

    def record(self, number: int, samples: Samples, verdict: Verdict, decisions: Decisions, **facts) -> None:
        """Write logits, ids, decisions and the summary of one round; a recalled round keeps its files.

        facts: also made_from, {what: hash}; the round before is added, and `files`, the hash of what is written.
        """
        folder = self.folder / f"round_{number}"
        if (folder / "round.json").exists():
            return
        write_npy(folder / "logits.npy", verdict.log_probs)
        for name in ("votes", "chains"):
            if (array := getattr(verdict, name)) is not None:
                write_npy(folder / f"{name}.npy", array)
        write_csv(folder / "ids.csv", pd.DataFrame({"id": samples.id, "role": samples.role}))
        write_csv(folder / "decisions.csv", decisions_table(decisions, samples, verdict.judge))
        made = {"made_from": facts.pop("made_from", {}) | self._before(number),
                "files": {name: hash_of(folder / name) for name in FILES if (folder / name).exists()}}  # fmt: skip
        write_json(folder / "round.json", {"round": number} | facts | summary(decisions, samples, verdict) | made)

    def _before(self, number: int) -> dict[str, str]:
        """Hash of the summary of the round before, if there is one; what it took in time is no part of it."""
        file = self.folder / f"round_{number - 1}" / "round.json"
        return {file.parent.name: hash_of(read_json(file) | {"seconds": None})} if file.exists() else {}

    def _refuse_mixed(self, number: int, made_from: dict[str, str] | None) -> None:
        folder = self.folder / f"round_{number}"
        about = read_json(folder / "round.json")
        now = {} if made_from is None else made_from | self._before(number)
        wrong = [what for what, digest in about.get("made_from", {}).items() if now.get(what, digest) != digest]
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


def assert_fold_safe(rounds: list[dict]) -> None:
    """Nothing that a model learned came from a teacher that saw the given labels of the model's own fold.

    rounds: round.json of each. The folds of given labels are the same in all of them, so it is enough that every
    teacher, and by induction every teacher of a teacher, left out the same fold.
    """
    folds = {judge: about["fold"] for info in rounds for judge, about in info["models"].items()}
    for info in rounds:
        for judge, about in info["models"].items():
            wrong = [teacher for teacher in about["taught_by"] if folds[teacher] != about["fold"]]
            assert not wrong, f"round {info['round']}: model {judge} learned from {wrong}, which saw its fold's labels"


def refuse_changed_samples(folder: Path, samples: Samples) -> None:
    """What finished rounds judged must still be what the data says.

    Raises:
        UserError: rows were added, removed or given another label since samples.csv was written.
    """
    if not Ledger(folder).rounds() or not (folder / "samples.csv").exists():
        return
    tables = read_csv(folder / "samples.csv"), samples.table()
    before, now = (set(table[["id", "role", "given"]].itertuples(index=False, name=None)) for table in tables)
    changed = sorted({row[0] for row in before ^ now if row[1] in ("train", "pool")})
    if changed:
        what = f"{len(changed):,} rows of the data are not as this run judged them ({changed[0]!r}, …)"
        raise UserError(f"{folder / 'samples.csv'}: {what}; bring them back, choose another name= or add --fresh")


def summary(decisions: Decisions, samples: Samples, verdict: Verdict) -> dict:
    """What a round came to, in a few numbers; reads no truth."""
    labelled = has_label(samples.given)
    kinds, counts = np.unique(decisions.decision.astype(str), return_counts=True)
    hits = right(likeliest(verdict.log_probs[labelled]), samples.given[labelled])
    about = {
        "classes": list(samples.classes),
        "decisions": dict(zip(kinds.tolist(), counts.tolist(), strict=True)),
        "coverage": float((decisions.label[~labelled] >= 0).mean()) if (~labelled).any() else None,
        "oof_accuracy": float(hits.mean()),
        "models": verdict.models,
    }
    if decisions.questions:
        shown = [set(names(said, samples.classes)) for said in (samples.given, decisions.predicted, decisions.label)]
        about |= {"multi_label": True, "label_sets": sorted(set().union(*shown) - {""})}
        return about | verdict.calibration | _noise_by_class(decisions, samples)
    return about | verdict.calibration | _noise_summary(decisions, samples.given, verdict.likeliest_rate)


def _noise_by_class(d: Decisions, samples: Samples) -> dict:
    """The noise of label sets, question by question. estimated_rate: of all answers; extra: of the images without a
    class the share that was given it; missing: of those with it the share that was not."""
    found = {name: _noise_summary(asked, samples.given[:, c])
             for c, (name, asked) in enumerate(zip(samples.classes, d.questions, strict=True))}  # fmt: skip
    about = dict.fromkeys(["estimated_rate", "estimated_rate_interval", "noise_type", "noise_matrix"])
    if d.questions[0].matrix is None:
        return about
    by_class = {name: {"rate": noise["estimated_rate"], "type": noise["noise_type"],
                       "extra": noise["noise_matrix"][0][1], "missing": noise["noise_matrix"][1][0]}
                for name, noise in found.items()}  # fmt: skip
    rates, known = [noise["rate"] for noise in by_class.values()], (samples.given >= 0).sum(0)
    return about | {"estimated_rate": float(np.average(rates, weights=known)), "noise_by_class": by_class}


def _noise_summary(d: Decisions, given: np.ndarray, likeliest_rate: float | None = None) -> dict:
    """The noise matrix with its name and 95 % intervals, where given labels are judged for noise.

    The rate of look-alike noise is the mean p_wrong, without an interval: nothing bounds it.
    """
    matrix = d.matrix
    if matrix is None:
        return dict.fromkeys(["estimated_rate", "estimated_rate_interval", "noise_type", "noise_matrix"])
    if d.noise == DIFFICULTY:
        return {
            "estimated_rate": float(d.p_wrong[given >= 0].mean()),
            "estimated_rate_interval": np.round(rate_interval(likeliest_rate), 6).tolist(),
            "noise_type": d.noise,
            "noise_rate_by_confidence": d.belief.difficulty.rates.round(6).tolist(),
            "noise_matrix": matrix.round(6).tolist(),
        }
    said = Said(d.predicted, d.confidence, d.self_confidence, d.p_wrong)
    (low, high), (rate, *interval) = bootstrap(d.belief, anchor_counts(said, given, len(matrix)))
    if alike := d.noise == "look-alike":
        rate = d.p_wrong[given >= 0].mean()
    return {
        "estimated_rate": float(rate),
        "estimated_rate_interval": None if alike else np.round(interval, 6).tolist(),
        "noise_type": d.noise,
        "noise_matrix": matrix.round(6).tolist(),
        "noise_matrix_low": low.round(6).tolist(),
        "noise_matrix_high": high.round(6).tolist(),
    }


def decisions_table(d: Decisions, samples: Samples, judge: np.ndarray) -> pd.DataFrame:
    """As decisions.csv holds them: one row a judged sample, class names, empty where there is no label."""
    named = {key: names(value, samples.classes) for key, value in
             {"given": samples.given, "predicted": d.predicted, "label": d.label}.items()}  # fmt: skip
    return pd.DataFrame({
        "id": samples.id, "role": samples.role, "given": named["given"], "predicted": named["predicted"],
        "confidence": d.confidence, "self_confidence": d.self_confidence, "p_wrong": d.p_wrong,
        "decision": d.decision, "label": named["label"], "reason": d.reason, "model": judge,
    })  # fmt: skip


def suspects_table(d: Decisions, samples: Samples) -> pd.DataFrame:
    """As suspects.csv holds them: the labelled set, most suspicious first."""
    rows = np.flatnonzero(has_label(samples.given))
    rows = rows[np.argsort(-d.p_wrong[rows], kind="stable")]
    return pd.DataFrame({
        "rank": np.arange(1, len(rows) + 1), "id": samples.id[rows], "path": samples.path[rows],
        "given": names(samples.given[rows], samples.classes),
        "predicted": names(d.predicted[rows], samples.classes),
        "confidence": d.confidence[rows], "p_wrong": d.p_wrong[rows], "decision": d.decision[rows],
    })  # fmt: skip


def pseudo_labels_table(d: Decisions, samples: Samples, number: int) -> pd.DataFrame:
    """As pseudo_labels.csv holds them: the accepted part of the pool."""
    rows = np.flatnonzero(~has_label(samples.given) & has_label(d.label))
    return pd.DataFrame({
        "id": samples.id[rows], "path": samples.path[rows], "label": names(d.label[rows], samples.classes),
        "confidence": d.confidence[rows], "round": number,
    })  # fmt: skip


def labels_table(outcome, samples: Samples) -> pd.DataFrame:
    """As labels.csv holds them: what the student learned, and the given labels that it did not. outcome: Outcome."""
    label, d, human = outcome.label, outcome.decisions, np.broadcast_to(outcome.human, len(samples))
    given, learned = has_label(samples.given), has_label(label)
    soft = np.zeros(len(samples), bool) if d is None else d.soft
    conditions = [human, ~given, ~learned, soft, differ(label, samples.given)]
    source = np.select(conditions, ["human", "pseudo", "dropped", "softened", "relabelled"], "given")
    rows = np.flatnonzero(given | learned | human)
    confidence = np.full(len(samples), np.nan) if d is None else d.confidence
    weight = np.where(human | (d is None), 1.0, 1.0 if d is None else d.weight)
    return pd.DataFrame({
        "id": samples.id[rows], "path": samples.path[rows],
        "given": names(samples.given[rows], samples.classes), "label": names(label[rows], samples.classes),
        "source": source[rows], "confidence": confidence[rows], "round": outcome.round, "weight": weight[rows],
    })  # fmt: skip


def oof_table(d: Decisions, samples: Samples) -> pd.DataFrame:
    """As oof.csv holds them: out-of-fold predictions of the labelled set, in the order of oof.npy."""
    rows = np.flatnonzero(has_label(samples.given))
    return pd.DataFrame({
        "id": samples.id[rows], "label": names(samples.given[rows], samples.classes),
        "predicted": names(d.predicted[rows], samples.classes), "confidence": d.confidence[rows],
    })  # fmt: skip
