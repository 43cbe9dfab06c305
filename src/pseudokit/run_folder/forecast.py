"""--forecast: what pseudo-labels are likely to add, before a run.

A part of the given labels is hidden, the loop runs on the others, and the hidden rows judge student and baseline; again
and again. The gains are then extrapolated to the labels that there are, and to twice as many.
"""

from dataclasses import dataclass, field, replace
from logging import LogRecord
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy import ndarray
from torch import nn

from ..config.keys import Pseudo
from ..config.load import load_config
from ..config.types import UserError
from ..data.folds import make_folds
from ..labels.metrics import gain
from ..round_store import MemoryStore
from ..self_training import SelfTrainingContext, SelfTrainingResult, self_train
from ..system.faults import held
from ..system.files import hash_of, log, seed_of, show_log
from ..system.progress import progress
from ..training.linear_probe import fit_head
from ..training.models import TrainedModel
from ..training.trainer import JobRunner, TrainJob
from .folder import Run, find_config, new_run
from .prepare import PreparedData, make_job_runner, prepare

POLICIES = {
    "as configured": "",
    "most confident 80 %": "pseudo.targets=hard pseudo.power=1 pseudo.trim=0 pseudo.cutoff=0 "
    "pseudo.top_fraction=0.8",
    "soft labels for all": "pseudo.targets=soft pseudo.cutoff=0 pseudo.top_fraction=null",
    "label propagation": "pseudo.label_propagation=2",
    "no label propagation": "pseudo.label_propagation=0",
}
"""What is compared, and the keys of each."""
PARTS = (2, 4)
"""Into how many parts the labels are divided: halves, then quarters. Each part is hidden once."""
MAX_LABELS_FOR_QUARTERS = 500
"""With more labels halves alone, which are judges enough; quarters would take minutes."""
MAX_UNLABELED = 1000
"""Unlabeled images that take part; more would take minutes."""
PROXY_STEPS = 160
"""Of a network that has no pretrained weights: enough to see a gain on small images, in a minute or two."""
MIN_LABELS_PER_CLASS = 4
"""Half of them are hidden, and a teacher learns half of the others."""

PRIOR_MEAN, PRIOR_SD = 0.025, 0.05
"""Of a gain, in standard deviations of the change of one row (about a third where one row in ten changes). Set by hand
at twice this scale, and halved by benchmarks/forecast.py; no other constant was fitted."""
RUN_SD = 0.04
"""Of single runs around their mean, in the same unit."""
DOUBLING_SD = 0.05
"""How far the gain goes from where it is expected when the labels are doubled, in the same unit."""
KEPT = 0.7
"""Share of the gain that is left then."""
SHARED = 0.5
"""Of the variance of the judges: an image is as hard when it is hidden again."""
Z_80 = 1.2816
MIN_GAIN = 0.005
"""Less than half a point is no gain to expect."""


def expected_gain(gains: ndarray, learned: ndarray, row_sd: float, n: int, target: int) -> ndarray:
    """The gain that one run with `target` labels will measure: mean, and the ends of the 80 % interval.

    The mean of the measured gains, extrapolated to n labels, is shrunk toward a normal prior in units of row_sd (as in
    empirical Bayes): few labels judge badly, and then the prior decides. The interval holds the chance of the judges
    and that of the run, and the extrapolation.

    Args:
        gains: (T,) student − baseline, each over all n labeled rows while they were hidden.
        learned: (T,) how many labels were learned.
        row_sd: standard deviation of the change of one row.
        n: how many labels there are.
        target: of the run that is forecast.
    """
    doublings = np.log2(n / learned)
    kept = KEPT**doublings
    of_judges = (1 - SHARED) / n
    variances = kept**2 * (of_judges + RUN_SD**2 + (DOUBLING_SD * doublings) ** 2)
    weights = 1 / variances / np.sum(1 / variances)
    measured = weights @ (kept * gains) / row_sd
    variance = (weights @ kept) ** 2 * SHARED / n + 1 / np.sum(1 / variances)
    trust = PRIOR_SD**2 / (PRIOR_SD**2 + variance)
    mean = trust * measured + (1 - trust) * PRIOR_MEAN
    ahead = np.log2(target / n)
    left = KEPT**ahead
    sd = np.sqrt(left**2 * trust * variance + RUN_SD**2 + (DOUBLING_SD * ahead) ** 2)
    return row_sd * (left * mean + Z_80 * sd * np.array([0, -1, 1]))


def forecast_gains(runs: pd.DataFrame, n: int) -> dict[str, list[ndarray]]:
    """Policy → what n labels and twice as many will gain (mean, low, high), best first. runs: see Simulation.runs."""
    gains = {}
    for policy, part in runs.groupby("policy", sort=False):
        # One row more, as by chance none may have changed.
        row_sd = np.sqrt(n * (part.error**2).mean() + 1 / n)
        of_part = part.gain, part.learned, row_sd, n
        gains[policy] = [expected_gain(*of_part, target) for target in (n, 2 * n)]
    best_first = sorted(gains, key=lambda policy: -gains[policy][0][0])
    return {policy: gains[policy] for policy in best_first}


@dataclass(frozen=True)
class Simulation:
    """Runs of the loop on labels that are hidden in part; nothing is written.

    features: (N, D) of all rows, on which heads are fitted; None = networks are trained for a few steps. prior: of all
    heads; None = each chooses its own, as in a run.
    """

    runner: JobRunner
    data: PreparedData
    features: ndarray | None
    prior: float | None
    models: dict[str, Any] = field(default_factory=dict, init=False)
    """Policies share their first teachers."""

    def fit(self, where: str, rows: ndarray, targets: ndarray) -> nn.Linear | TrainedModel:
        """See SelfTrainingContext.fit."""
        key = hash_of(rows, targets)
        if key not in self.models:
            given_labels, k = self.data.judged.given_labels[rows], len(self.data.judged.classes)
            if self.features is None:
                job = TrainJob(where, rows, targets, steps=PROXY_STEPS)
                model, _ = self.runner.trainer.train(job)
            else:
                x = self.features[rows]
                model, _ = fit_head(x, targets, k, False, given_labels, prior=self.prior)
            model.hash = key
            self.models[key] = model
        return self.models[key]

    @torch.inference_mode()
    def predict(self, model: nn.Linear | TrainedModel, rows: ndarray) -> ndarray:
        """See SelfTrainingContext.predict."""
        if self.features is None:
            return self.runner.predict(model, rows)
        return model(torch.from_numpy(self.features[rows])).log_softmax(1).numpy()

    def arms(self, hidden: ndarray, judges: ndarray, policies: dict[Pseudo, str]) -> list[ndarray]:
        """Log-probabilities (len(judges), K) of the baseline, and of the student of each policy.

        hidden: (N,) bool, rows whose label nobody sees. They get no pseudo-label either: they judge.
        """
        data, config = self.data, self.runner.trainer.config
        given_labels = np.where(hidden, -1, data.judged.given_labels)
        dataset = replace(data.judged, given_labels=given_labels)
        results = [SelfTrainingResult(given_labels)]
        for policy in policies:
            context = SelfTrainingContext(
                dataset,
                self.fit,
                self.predict,
                policy,
                MemoryStore(),
                "augment",
                data.clusters,
                refused=np.where(hidden, "judge", data.refused),
                seed=config.seed,
                metric=config.metric,
                second=self.runner.second_opinion(policy.label_propagation),
            )
            results.append(self_train(context))
        log_probs = []
        for result in results:
            rows = np.flatnonzero(result.label >= 0)
            student = self.fit("student", rows, result.targets(dataset)[rows])
            log_probs.append(self.predict(student, judges))
        return log_probs

    def runs(self, policies: dict[Pseudo, str]) -> pd.DataFrame:
        """Columns policy, learned (how many labels), gain, and its standard error."""
        config, dataset = self.runner.trainer.config, self.data.judged
        labeled = np.flatnonzero(dataset.given_labels >= 0)
        n, labels = len(labeled), dataset.given_labels[labeled]
        has_time = self.features is not None and n <= MAX_LABELS_FOR_QUARTERS
        parts = PARTS if has_time else PARTS[:1]
        rows = []
        for number, n_parts in enumerate(parts):
            seed = seed_of(config.seed, number, "forecast")
            part = make_folds(dataset.given_labels, self.data.clusters, n_parts, seed)
            log_probs = np.empty((1 + len(policies), n, len(dataset.classes)))
            for hidden in range(n_parts):
                judged = part[labeled] == hidden
                turn = sum(parts[:number]) + hidden + 1
                with progress.part(f"forecast {turn} of {sum(parts)}"):
                    log_probs[:, judged] = self.arms(part == hidden, labeled[judged], policies)
            for name, student in zip(policies.values(), log_probs[1:], strict=True):
                metric = config.metric or "accuracy"
                change = gain(metric, log_probs[0], student, labels, dataset.classes)
                rows.append((name, n - n / n_parts, *change))
        return pd.DataFrame(rows, columns=["policy", "learned", "gain", "error"])


def make_simulation(run: Run, prepared: PreparedData) -> Simulation:
    """Of all labeled images and some of the others: heads on embeddings where there is a checkpoint, else networks."""
    model = run.config.model.members[0]
    model = model.model_copy(update={"freeze_backbone": bool(model.checkpoint)})
    run.config = run.config.model_copy(update={"model": model})
    labels = prepared.judged.given_labels
    unlabeled = np.random.default_rng(run.config.seed).permutation(np.flatnonzero(labels < 0))
    rows = np.union1d(np.flatnonzero(labels >= 0), unlabeled[:MAX_UNLABELED])
    judged = prepared.judged.take(rows)
    data = replace(
        prepared,
        dataset=judged,
        judged=judged,
        pixels=prepared.pixels[rows],
        clusters=prepared.clusters[rows],
        refused=prepared.refused[rows],
        input_hash=hash_of(prepared.input_hash, rows),
    )
    runner = make_job_runner(run, data)
    if not model.checkpoint:
        trainer = replace(runner.trainer, folder=None)  # without checkpoints
        return Simulation(JobRunner(trainer, runner.time_for), data, None, None)
    (features,) = runner.trainer.embeddings.values()
    labeled = judged.given_labels >= 0
    labels = judged.given_labels[labeled]
    _, history = fit_head(features[labeled], labels, len(judged.classes), False, labels)
    return Simulation(runner, data, features, history.prior[0])


def find_policies(config_file: Path, overrides: list[str]) -> dict[Pseudo, str]:
    """The section `pseudo` of each policy, and its name; those that are the same count once."""
    policies = {}
    for name, keys in POLICIES.items():
        config = load_config(find_config(config_file), [*overrides, *keys.split()])
        policies.setdefault(config.pseudo, name)
    return policies


def best_policy(gains: dict[str, list[ndarray]]) -> str:
    """The first one, if it is better than the configured one by a quarter of the interval: a smaller lead is luck."""
    first, configured = next(iter(gains)), next(iter(POLICIES))
    mean, low, high = gains[configured][0]
    return first if gains[first][0][0] > mean + (high - low) / 4 else configured


def describe(gains: dict[str, list[ndarray]], n: int, metric: str) -> str:
    """The table as people read it, and what to do."""
    lines = [
        f"Gain of pseudo-labels over labels alone, in points of {metric} (80 % interval):",
        f"{'':<22}{f'{n:,} labels (now)':>24}{f'{2 * n:,} labels':>24}",
    ]
    for policy, intervals in gains.items():
        cells = ["{:+.1f} ({:+.1f} to {:+.1f})".format(*100 * row) for row in intervals]
        lines.append("{:<22}{:>24}{:>24}".format(policy, *cells))
    best = best_policy(gains)
    mean, low, _ = gains[best][0]
    verdict = "No gain to expect: label more, or take a better pretrained network."
    if mean >= MIN_GAIN:
        chance = "will help" if low > 0 else "may help, but this is not sure"
        verdict = f"Pseudo-labels {chance}. Best: {best}\n    {POLICIES[best]}"
    return "\n".join([*lines, verdict.rstrip()])


def forecast(config_file: Path, overrides: list[str]) -> None:
    """Print what pseudo-labels are likely to add. Tables and embeddings stay in OUT/NAME-check, as those of --check.

    Raises:
        UserError: as the run would; or labels or teachers are none that can be hidden.
    """
    show_log()
    run = new_run(config_file, overrides, "augment")
    config = run.config
    if config.data.multi_label or config.predictions.unlabeled or config.teachers:
        raise UserError(
            "--forecast knows one class an image and the kit's own teachers; leave it out, or data.multi_label, "
            "predictions.unlabeled and teachers"
        )
    run.path = run.path.with_name(f"{run.path.name}-check")
    with held(run.path), progress.shown():
        prepared = prepare(run)
        judged = prepared.judged
        labels = pd.Series(judged.given_labels)[judged.given_labels >= 0]
        clusters = pd.Series(prepared.clusters).groupby(labels).nunique()
        if clusters.min() < MIN_LABELS_PER_CLASS:
            run.write_status("done", "forecast")
            log.info(
                f"forecast: too few labels to tell. Class {judged.classes[int(clusters.idxmin())]!r} has "
                f"{clusters.min()}, and half of them are hidden; label {MIN_LABELS_PER_CLASS} or more of each"
            )
            return
        simulation = make_simulation(run, prepared)
        model = run.config.model
        way = f"linear heads on frozen embeddings by {model.name}"
        if not model.checkpoint:
            way = f"{model.name}, trained for {PROXY_STEPS} steps in one round"
            overrides = [*overrides, "pseudo.rounds=1"]
        is_same = model.checkpoint and model == config.model and not config.student.name
        log.info(f"forecast by {way}{'' if is_same else ', a proxy for the run'}")
        log.addFilter(_is_no_warning)
        with run.stage("forecast"):
            runs = simulation.runs(find_policies(config_file, overrides))
        log.removeFilter(_is_no_warning)
        n = len(labels)
        log.info(describe(forecast_gains(runs, n), n, config.metric or "accuracy"))
        run.write_status("done", "forecast")


def _is_no_warning(record: LogRecord) -> bool:
    """Warnings of simulated runs are not about the run that is forecast."""
    return not record.getMessage().startswith("warning")
