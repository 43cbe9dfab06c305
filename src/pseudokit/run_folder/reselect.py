"""--mode select: decide again from stored predictions with another policy. No training, no inference, no torch."""

from pathlib import Path

import pandas as pd

from ..config.keys import Config
from ..config.load import differences
from ..config.types import UserError
from ..data.csv_text import read_csv, unescape_formulas
from ..data.dataset import LEARNED_SPLITS, Dataset
from ..data.duplicates import refused_reasons
from ..data.encoding import has_label, names
from ..data.votes import read_votes_file
from ..labels.decide import decide_labels
from ..labels.decisions import Decisions
from ..labels.out_of_fold import OutOfFoldPredictions
from ..labels.pseudo_labels import check_cutoff, lower_bound
from ..report.sentences import listed
from ..round_store import RoundStore, decisions_table
from ..self_training import SelfTrainingResult
from ..system.files import log, read_json, write_csv
from .corrections import decided
from .folder import Run, planned_changes, run_classes, run_config, run_mode
from .outside import COPY_OF_LABELED

DECIDES = {
    "data.learn_from_test",
    "pseudo.relabel_precision",
    "pseudo.uncertain_labels",
    "pseudo.relabel_cutoff",
    "pseudo.cutoff",
    "pseudo.min_precision",
    "pseudo.top_fraction",
    "pseudo.top_fraction_start",
    "pseudo.distribution_alignment",
}
"""Keys by which stored predictions are decided. All others are of training or of the rounds."""
CUTOFFS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)


def reselect(run: Path, overrides: list[str]) -> None:
    """Write selected.csv (as decisions.csv) for the last round under the run's config plus overrides; print a table.

    Raises:
        UserError: there is no finished round, or an override is wrong or decides nothing here.
    """
    config = run_config(run, overrides)
    decides = set(DECIDES)
    if config.data.learn_from_test == "never":
        # It refuses files that data.test has too, and stored predictions do not tell which these are.
        decides.remove("data.learn_from_test")
    if idle := differences(run_config(run), config, decides):
        raise UserError(
            f"--mode select decides stored predictions again, on which {'; '.join(idle)} has no effect; "
            "leave it out, or make a new run with another name"
        )
    check_cutoff(config.pseudo)
    mode = run_mode(run)
    rounds = RoundStore(run).rounds()
    if not rounds:
        raise UserError(f"--run {run} has no finished round yet; run its command again to go on")
    number = rounds[-1]["round"]
    dataset, predicted, decisions = decide_again(run, config, number)
    table = decisions_table(decisions, dataset, predicted.predicted_by)
    write_csv(run / "selected.csv", table)
    cutoffs = cutoff_table(dataset, decisions)
    log.info(cutoffs.to_string(index=False, float_format="{:.4g}".format, na_rep="–"))
    counts = table.decision.value_counts().sort_index()
    log.info(f"round {number}, {mode}: {listed(counts)}; {run / 'selected.csv'}")


def decide_again(
    run: Path, config: Config, number: int, progress: float = 1.0
) -> tuple[Dataset, OutOfFoldPredictions, Decisions]:
    """The rows of a finished round, their stored predictions, and what becomes of them under this config.

    Args:
        progress: see decide_labels.
    """
    folder = run / f"round_{number}"
    classes = tuple(read_json(folder / "round.json", "classes")["classes"])
    judged = read_csv(folder / "decisions.csv").assign(path="", group="")
    dataset = Dataset.from_table(judged, classes, config.data.multi_label)
    predicted = RoundStore(run).recall(number, dataset)
    copies = unescape_formulas(read_csv(run / "duplicates.csv"))
    refused = refused_reasons(copies, dataset.id, config.data)
    is_copy = (judged.reason == COPY_OF_LABELED).to_numpy()  # which duplicates.csv does not tell
    refused[is_copy & (refused == "")] = COPY_OF_LABELED
    decisions = decide_labels(
        predicted.log_probs,
        dataset.given_labels,
        run_mode(run),
        config.pseudo,
        refused=refused,
        progress=progress,
        likeliest_rate=predicted.likeliest_rate,
        votes=read_votes_file(run / "votes.npz"),
    )
    return dataset, predicted, decisions


def cutoff_table(dataset: Dataset, decisions: Decisions) -> pd.DataFrame:
    """What a plain cutoff would come to: the share of rows that it decides, and how many of those are right.

    The rows are the unlabeled ones, else the labeled ones. Precision is estimated from the labeled rows above the
    cutoff: the share whose out-of-fold prediction agrees with the given label, and its lower 95 % bound. Of label sets
    all of this is of single answers.
    """
    confidence = decisions.each("confidence")
    labeled = dataset.given_labels >= 0
    unlabeled = ~has_label(dataset.given_labels)
    decided = confidence[unlabeled] if unlabeled.any() else confidence[labeled]
    agrees = pd.Series((decisions.predicted == dataset.given_labels)[labeled])
    rows = []
    for cutoff in CUTOFFS:
        hits = agrees[confidence[labeled] >= cutoff]
        bound = lower_bound(hits.sum(), len(hits))
        coverage = (decided >= cutoff).mean()
        rows.append((cutoff, coverage, hits.mean(), bound, len(hits)))
    return pd.DataFrame(
        rows, columns=["cutoff", "coverage", "estimated precision", "at least", "from n"]
    )


def recall_result(run: Run) -> tuple[Dataset, SelfTrainingResult]:
    """What the rounds came to, decided again from the predictions of the round that counts; nothing is trained.

    Raises:
        UserError: but for human decisions, labels.csv is something else.
    """
    config = run.config
    classes = tuple(run_classes(run.path))
    dataset = Dataset.from_table(judged_samples(run), classes, config.data.multi_label)
    result = SelfTrainingResult(dataset.given_labels)
    number = read_json(run.path / "metrics.json", "round")["round"]
    if number:
        rounds = planned_changes(run.path).get("pseudo.rounds", config.pseudo.rounds)
        # Teachers from outside say the same in every round.
        progress = 1.0 if config.predictions.labeled else number / rounds
        _, _, decisions = decide_again(run.path, config, number, progress)
        result = SelfTrainingResult(decisions.label, decisions, number)
    file = run.path / "labels.csv"
    written = read_csv(file).set_index("id")
    human = (written.source == "human") | written.index.isin(decided(run.path).id)
    label = pd.Series(names(result.label, dataset.classes), dataset.id)
    if not label[written.index].where(~human, written.label).equals(written.label):
        raise UserError(
            f"{file} is not what the stored predictions come to; train again with --fresh"
        )
    return dataset, result


def judged_samples(run: Run) -> pd.DataFrame:
    """The rows of samples.csv that are learned from or predicted out of fold."""
    samples = read_csv(run.path / "samples.csv")
    return samples[samples.split.isin(LEARNED_SPLITS)]
