"""The command lines of train.py, pseudo.py and predict.py, and how they end."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from .api import apply, predict, pseudo, train
from .config.types import UserError
from .run_folder.folder import DEFAULT_CONFIG
from .system.distributed import dismiss, leave, rank
from .system.faults import fault, handle_signals
from .system.files import TimeBudgetExceeded, log, show_log

TRAIN = """Plain supervised training: a model a fold (out-of-fold scores in oof.csv), and one of all labeled rows.

    python train.py                                                  the built-in digits
    python train.py data.train=train.csv data.image_dir=images data.image_suffix=.jpg name=base
    python train.py --check data.train=train.csv                     a look at data, folds, weights, disk and time first

Run again to go on where it stopped; --fresh starts over.
"""
PSEUDO = """Self-training: a teacher judges held-out rows, confident judgments become labels, a student learns them.

    python pseudo.py --mode augment                                  pseudo-labels for a pool (built-in digits)
    python pseudo.py --mode denoise data.train=train.csv             wrong labels found and repaired
    python pseudo.py --mode joint data.train=a.csv data.unlabeled=b.csv   both at once
    python pseudo.py --mode augment --check data.train=train.csv     a look at data, folds, weights, disk and time first
    python pseudo.py --mode select --run runs/NAME pseudo.cutoff=0.8 decide again from stored predictions, in seconds
    python pseudo.py --mode apply --run runs/NAME --corrections corrections.csv    human decisions; the student again
    python pseudo.py --mode apply --run runs/NAME --revert           the last of those files taken back

Run again to go on where it stopped; --fresh starts over.
"""
PREDICT = """Predict with the models of a run, or with the average of several runs, in the classes of training.

python predict.py --run runs/NAME                                            its data.test
python predict.py --run runs/NAME --data test.csv --submission sample_submission.csv
python predict.py --run runs/A --run runs/B --weights oof --data test.csv    weighted by what fits out-of-fold rows best
"""


class Parser(argparse.ArgumentParser):
    """Shows the script's docstring as help; a wrong argument is one line like any other wrong input."""

    def __init__(self, doc: str):
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str):
        raise UserError(f"{message}; see {self.prog} --help")


def parse(doc: str, argv: list[str] | None = None, modes: tuple[str, ...] = ()) -> argparse.Namespace:
    """The arguments of the scripts that train: [--mode, --run, --corrections, --revert], --config, --fresh, keys."""
    parser = Parser(doc)
    if modes:
        parser.add_argument("--mode", required=True, choices=modes, help="what may change, or what to do with a run")
        parser.add_argument("--run", type=Path, help="run folder (select, apply)")
        parser.add_argument("--corrections", type=Path, help="human decisions: CSV, or Label Studio's JSON (apply)")
        parser.add_argument("--revert", action="store_true", help="take back the last applied corrections (apply)")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="YAML file (default: configs/default.yaml)")
    parser.add_argument("--fresh", action="store_true", help="start over: empty the run folder first")
    parser.add_argument("--check", action="store_true", help="look at data, weights, disk and time; train nothing")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example train.lr=1e-3 name=exp7")
    args = parser.parse_intermixed_args(argv)
    if modes and args.mode in ("select", "apply") and not args.run:
        parser.error(f"--mode {args.mode} needs --run runs/NAME")
    if modes and args.mode == "apply" and bool(args.corrections) == args.revert:
        parser.error("--mode apply needs --corrections FILE.csv or --revert, one of them")
    if modes and args.mode != "apply" and (args.corrections or args.revert):
        parser.error("--corrections and --revert belong to --mode apply")
    if modes and args.mode in ("select", "apply") and (args.check or args.fresh):
        parser.error(f"--check and --fresh belong to the modes that train, not to --mode {args.mode}")
    if modes and args.mode not in ("select", "apply") and args.run:
        parser.error("--run belongs to --mode select and apply; the folder of a new run is name=")
    if modes and args.mode == "apply" and args.overrides:
        parser.error(f"--mode apply takes no keys, as the run has its own; leave {args.overrides[0]} out")
    return args


def _predict_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(PREDICT)
    parser.add_argument("--run", type=Path, required=True, action="append", help="run folder; again for an ensemble")
    parser.add_argument("--weights", help="of several runs: oof, or a number a run as 2,1 (default: all alike)")
    parser.add_argument("--data", help="CSV or folder of images (default: data.test of the first run)")
    parser.add_argument("--out", type=Path, help="default: predictions.csv in the first run's folder")
    parser.add_argument("--submission", type=Path, help="sample_submission.csv: also write submission.csv beside --out")
    parser.add_argument("--tta", type=int, help="views of each image, itself and others (default: predict.tta)")
    parser.add_argument("--arm", choices=["student", "baseline", "both"], help="default: predict.arm, by the evidence")
    parser.add_argument("--check", action="store_true", help="look whether all is there and fits; predict nothing")
    return parser.parse_args(argv)


def train_command(argv: list[str] | None = None) -> None:
    """What `python train.py` does."""
    args = parse(TRAIN, argv)
    if args.check:
        from .run_folder.preflight import check

        return check(args.config, args.overrides, "train")
    train(args.overrides, args.config, args.fresh)


def pseudo_command(argv: list[str] | None = None) -> None:
    """What `python pseudo.py` does."""
    args = parse(PSEUDO, argv, modes=("augment", "denoise", "joint", "select", "apply"))
    if args.mode == "select":
        from .run_folder.reselect import reselect

        return reselect(args.run, args.overrides)
    if args.mode == "apply":
        return apply(args.run, None if args.revert else args.corrections)
    if args.check:
        from .run_folder.preflight import check

        return check(args.config, args.overrides, args.mode)
    pseudo(args.mode, args.overrides, args.config, args.fresh)


def predict_command(argv: list[str] | None = None) -> None:
    """What `python predict.py` does."""
    args = _predict_arguments(argv)
    if args.check:
        from .run_folder.preflight import check_prediction

        return check_prediction(args.run, args.data, args.submission, args.arm)
    predict(args.run, args.data, args.out, args.submission, tta=args.tta, weights=args.weights, arm=args.arm)


def main(run_script: Callable[[], None]) -> None:
    """Run a script's main with the exit codes of the contract: 0 done, 2 wrong input, 130 or 143 stopped by a signal,
    1 a fault of ours, or of the machine (in one line, where we know it).

    The other processes of torchrun train what the script hands out, if it does, until it lets them go.
    """
    handle_signals()
    if not rank():
        show_log()
    try:
        _follow() if rank() else run_script()
        leave() if rank() else dismiss()
    except TimeBudgetExceeded:
        log.info("the time budget ended before the first network; give a larger time_budget, and run it again")
        dismiss()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:
        print(f"stopped ({error}); the same command goes on from here", file=sys.stderr)
        sys.exit(128 + (error.args or [signal.SIGINT])[0])
    except Exception as error:
        if not (line := fault(error)):
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)


def train_main() -> None:
    main(train_command)


def pseudo_main() -> None:
    main(pseudo_command)


def predict_main() -> None:
    main(predict_command)


def _follow() -> None:
    from .training.trainer import run_worker

    run_worker()
