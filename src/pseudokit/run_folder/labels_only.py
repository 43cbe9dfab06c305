"""--mode apply --labels-only: human decisions in the tables; the student stays as it is."""

import pandas as pd

from ..config.types import UserError
from ..data.csv_text import read_csv
from ..report.metrics_log import write_metrics
from ..report.report import write_report
from ..system.files import log, read_json, write_json
from .corrections import decided, store_corrections, with_corrections
from .evaluate import write_label_tables
from .folder import Run
from .reselect import recall_result

TRUTHS = ("injected.csv", "hidden.csv")
"""Tables of an experiment: labels that were flipped or hidden."""


def apply_to_labels(run: Run, corrections: pd.DataFrame | None) -> None:
    """Put decisions in force and write the tables and the report anew; the student stays as it is.

    Args:
        corrections: see new_decisions; None: those in force, where an earlier process was stopped.

    Raises:
        UserError: the run does not tell the weights of its rows.
    """
    with run.stage("labels"):
        dataset, result = recall_result(run)
        if run.config.data.weight_col and dataset.weight is None:
            raise UserError(
                f"{run.path / 'samples.csv'} has no weights (data.weight_col); leave --labels-only out"
            )
        if corrections is not None:
            store_corrections(run, corrections, labels_only=run.trains)
        result = with_corrections(run, dataset, result)
        files = {name: run.path / name for name in TRUTHS}
        truths = {name: read_csv(file) for name, file in files.items() if file.exists()}
        metrics = read_json(run.path / "metrics.json")
        metrics |= write_label_tables(run, dataset, result, truths)
        write_json(run.path / "metrics.json", metrics)
        write_metrics(run.path)
        write_report(run.path, redraw=False)
    run.write_status("done", "done", metrics["reason"])
    student = "; the student is that of before and has not learned them" if run.trains else ""
    log.info(f"{len(decided(run.path)):,} human decisions in {run.path / 'labels.csv'}{student}")
