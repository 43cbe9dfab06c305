"""What the scripts do, as functions for a notebook: train, pseudo, apply, predict. Heavy imports come when used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .config.types import UserError
from .run_folder.folder import DEFAULT_CONFIG, open_run, reopen_run
from .system.files import show_log

if TYPE_CHECKING:
    import pandas as pd


def train(
    overrides: Sequence[str] = (), config: str | Path = DEFAULT_CONFIG, fresh: bool = False
) -> Path:
    """Plain supervised training, as train.py. The same call again goes on where a run stopped.

    Args:
        overrides: `a.b=value`, as on the command line.
        config: YAML file, or the name of one that comes with the kit.
        fresh: empty the run folder first.

    Returns:
        The run folder.

    Raises:
        UserError: the input is wrong; the message says how to mend it.
    """
    return pseudo("train", overrides, config, fresh)


def pseudo(
    mode: str,
    overrides: Sequence[str] = (),
    config: str | Path = DEFAULT_CONFIG,
    fresh: bool = False,
) -> Path:
    """Self-training in mode augment, denoise or joint, as pseudo.py; returns the run folder. See train."""
    show_log()
    with open_run(Path(config), list(overrides), mode, fresh) as run:
        if not run.finished():
            from .pipeline import run_pipeline

            run_pipeline(run)
        return run.path


def apply(path: Path, corrections: Path | None) -> None:
    """Human decisions on top of a finished run, whose student is trained again; None takes the last of them back."""
    show_log()
    with reopen_run(path) as run:
        from .run_folder.corrections import new_decisions, revert

        decisions = None
        if corrections is None:
            revert(run)
        else:
            decisions = new_decisions(run, corrections)
            if decisions is None and run.finished():
                return
        from .pipeline import run_pipeline

        run_pipeline(run, decisions)


def predict(
    runs: Sequence[str | Path],
    data: str | None = None,
    out: str | Path | None = None,
    submission: str | Path | None = None,
    *,
    tta: int | None = None,
    weights: str | None = None,
    arm: str | None = None,
) -> pd.DataFrame:
    """Predictions of one or several runs, as predict.py; also written to a file.

    Args:
        data: table or folder; default: data.test of the first run.
        out: CSV file; default: predictions.csv in the first run.
        submission: sample_submission.csv, filled beside out.
        tta: views of each image; default: predict.tta.
        weights: of several runs: a number a run, as `2,1`; default: all alike.
        arm: student, baseline or both; default: predict.arm of each run.

    Returns:
        id, path, label, confidence and one column `p_<class>` a class.

    Raises:
        UserError: the input is wrong, or a file cannot be written.
    """
    from .run_folder.predict_runs import (
        open_finished,
        predict_runs,
        read_targets,
        write_predictions,
    )

    show_log()
    finished = [open_finished(Path(run), arm) for run in runs]
    table = predict_runs(finished, read_targets(finished[0].config, data), tta, weights)
    out = Path(out or finished[0].path / "predictions.csv")
    try:
        write_predictions(out, table, submission)
        return table
    except OSError as error:
        raise UserError(
            f"--out {out} cannot be written ({error.strerror}); choose another file"
        ) from None
