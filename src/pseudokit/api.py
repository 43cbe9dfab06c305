"""What the scripts do, as functions for a notebook: run, apply, export, predict. Heavy imports come when used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config.keys import Config
from .config.load import as_typed
from .config.types import UserError
from .run_folder.folder import DEFAULT_CONFIG, open_run, reopen_run
from .system.files import hash_of, show_log, write_csv
from .system.progress import progress

if TYPE_CHECKING:
    import pandas as pd

    Source = str | Path | pd.DataFrame | None

MODES = ("train", "augment", "denoise", "joint")
"""Those that train."""


def run(
    mode: str,
    *,
    train: Source = None,
    unlabeled: Source = None,
    val: Source = None,
    trusted: Source = None,
    test: Source = None,
    config: Mapping[str, Any] | None = None,
    base: str | Path = DEFAULT_CONFIG,
    fresh: bool = False,
) -> Path:
    """What train.py does, and pseudo.py in the modes that train. The same call again goes on where it stopped.

    Args:
        mode: train (plain supervised training), augment, denoise or joint.
        train, unlabeled, val, trusted, test: a file, a folder, or a table with the columns that the file would have;
            the images of a table are looked for in `data.image_dir`, by default in the working folder.
        config: keys and values, as {"train.lr": 1e-3}; docs/config.md lists them.
        base: YAML file that the other keys come from, or the name of one that comes with the kit.
        fresh: empty the run folder first.

    Returns:
        The run folder.

    Raises:
        UserError: the input is wrong; the message says how to mend it.
    """
    if mode not in MODES:
        raise UserError(f"mode {mode!r} is none of {', '.join(MODES)}")
    sources = {
        "train": train,
        "unlabeled": unlabeled,
        "val": val,
        "trusted": trusted,
        "test": test,
    }
    keys = dict(config or {})
    for split, source in sources.items():
        if source is None:
            continue
        if not isinstance(source, str | Path):
            # Its content gives it a name, so that the same table is the same file.
            name = f"{hash_of(source.to_csv(index=False))}.csv"
            file = Path(keys.get("out", Config().out)) / "tables" / name
            write_csv(file, source)
            source = file
            keys.setdefault("data.image_dir", Path.cwd())
        keys[f"data.{split}"] = source
    overrides = [f"{key}={as_typed(value)}" for key, value in keys.items()]
    return run_command(mode, overrides, base, fresh)


def run_command(
    mode: str,
    overrides: Sequence[str] = (),
    config: str | Path = DEFAULT_CONFIG,
    fresh: bool = False,
) -> Path:
    """`run` with everything said by `a.b=value`, as on the command line; returns the run folder."""
    show_log()
    with open_run(Path(config), list(overrides), mode, fresh) as run:
        if not run.finished():
            from .pipeline import run_pipeline

            run_pipeline(run)
        return run.path


def apply(path: Path, corrections: Path | None, labels_only: bool = False) -> None:
    """Human decisions on top of a finished run, whose student is trained again; None takes the last of them back.

    labels_only: the tables are repaired, and the student stays.
    """
    show_log()
    with reopen_run(path) as run:
        from .run_folder.corrections import new_decisions, revert

        decisions = None
        if corrections is None:
            revert(run)
        else:
            decisions = new_decisions(run, corrections, labels_only)
            if decisions is None and run.finished():
                return
        if labels_only:
            from .run_folder.labels_only import apply_to_labels

            apply_to_labels(run, decisions)
        else:
            from .pipeline import run_pipeline

            run_pipeline(run, decisions)


def export(
    run: str | Path, form: str, out: str | Path | None = None, *, copy: bool = False
) -> Path:
    """What a finished run came to, for other programs, as `--mode export` of pseudo.py writes it.

    Args:
        run: the run folder.
        form: table = your data.train with its labels repaired; folder = `<class>/<image>`; soft = what each row teaches
            as probabilities with a weight; onnx = the student.
        out: the file, or the folder of images; default: in `export/` of the run.
        copy: of a folder: the images themselves, where links to them are the default.

    Returns:
        What was written.

    Raises:
        UserError: the run is not finished, or does not have that form; the message says how to mend it.
    """
    from .run_folder.export import export as write

    show_log()
    return write(Path(run), form, Path(out) if out else None, copy)


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
    from .run_folder.predict_runs import open_all, predict_runs, write_predictions

    show_log()
    with progress.shown():
        finished, targets = open_all([*map(Path, runs)], data, submission, weights, arm)
        first = finished[0]
        table = predict_runs(finished, targets, tta, weights)
    out = Path(out or first.path / "predictions.csv")
    try:
        write_predictions(out, table, submission, first.config)
        return table
    except OSError as error:
        raise UserError(
            f"--out {out} cannot be written ({error.strerror}); choose another file"
        ) from None
