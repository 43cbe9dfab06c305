"""The command lines of train.py, pseudo.py and predict.py, and how they end."""

import argparse
import gc
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .api import apply, export, predict, run_command
from .config.keys import EXPORT_FORMATS
from .config.reference import find_keys
from .config.types import UserError
from .run_folder.folder import DEFAULT_CONFIG
from .system.distributed import dismiss, is_surplus, leave, rank
from .system.faults import Interrupted, fault, handle_signals
from .system.files import show_log

NEW_OBJECTS = 100_000
"""After so many Python looks for garbage. After 700, its default, that takes longer than to read a million rows."""
TRAIN = """Plain supervised training: a model a fold (out-of-fold scores in oof.csv), and one of all labeled rows.

    python train.py                                                  the built-in digits
    python train.py data.train=train.csv data.image_dir=images data.image_suffix=.jpg name=base
    python train.py --check data.train=train.csv                     check data, weights, disk and time first
    python train.py --keys augment                                   the config keys about a word

Run again to go on where it stopped; --fresh starts over.
"""
PSEUDO = """Self-training: a teacher predicts images it has not learned, confident predictions become labels, a student
learns them.

    python pseudo.py FOLDER_OR_CSV                          what is there, and a command for it; --yes runs it
    python pseudo.py --init NAME FOLDER_OR_CSV                       the same as a config file with comments
    python pseudo.py --mode augment                                  pseudo-labels for unlabeled images (digits)
    python pseudo.py --mode denoise data.train=train.csv             wrong labels found and repaired
    python pseudo.py --mode joint data.train=a.csv data.unlabeled=b.csv   both at once
    python pseudo.py --mode augment --check data.train=train.csv     check data, weights, disk and time first
    python pseudo.py --mode augment --forecast data.train=train.csv  what pseudo-labels will add, and by which policy
    python pseudo.py --mode select --run runs/NAME pseudo.cutoff=0.8 decide again from stored predictions, in seconds
    python pseudo.py --mode suggest --run runs/NAME --n 100          which unlabeled images to label next
    python pseudo.py --mode apply --run runs/NAME --corrections c.csv    human decisions; the student again
    python pseudo.py --mode apply --labels-only --run runs/NAME --corrections c.csv    the tables alone, at once
    python pseudo.py --mode apply --run runs/NAME --revert           the last of those files taken back
    python pseudo.py --serve --run runs/NAME                         review in the browser, saved as you decide
    python pseudo.py --mode export --run runs/NAME --format table    your own table with its labels repaired; or folder
                                      (<class>/<image>), soft (probabilities and weights), onnx (the student)
    python pseudo.py --keys cutoff                                   the config keys about a word

Run again to go on where it stopped; --fresh starts over.
"""
PREDICT = """Predict with the models of a run, or with the average of several runs, in the classes of training.

    python predict.py --run runs/NAME                                            its data.test
    python predict.py --run runs/NAME --data test.csv --submission sample_submission.csv
    python predict.py --run runs/A --run runs/B --weights 2,1 --data test.csv    the first counts twice
"""
OF_TRAINING = ("mode", "config", "fresh", "check", "overrides")
OF_PLAN = ("init", "yes", "check", "overrides")
OPTIONS = {
    "augment": (*OF_TRAINING, "forecast"),
    "denoise": OF_TRAINING,
    "joint": OF_TRAINING,
    "select": ("mode", "run", "overrides"),
    "suggest": ("mode", "run", "n"),
    "apply": ("mode", "run", "corrections", "revert", "labels_only"),
    "export": ("mode", "run", "format", "out", "copy"),
    "serve": ("mode", "run", "port"),
}
"""The modes of pseudo.py, three that train and those that work on a run that is there, and the options of each."""

HOW_TO_RUN = "time      add --check to this command to read everything and learn how long it takes, --yes to run it"
"""The last line of a plan."""


class Parser(argparse.ArgumentParser):
    """A wrong argument is one line like any other wrong input."""

    def error(self, message: str):
        raise UserError(f"{message}; see {self.prog} --help")


class ShowKeys(argparse.Action):
    """--keys: print the config keys and end, whatever else is asked for."""

    def __call__(self, parser, namespace, word, option_string=None):
        print(find_keys(word), end="")
        parser.exit()


def train_command(argv: list[str] | None = None) -> None:
    """What `python train.py` does."""
    _train_or_check("train", _training_parser(TRAIN).parse_intermixed_args(argv))


def pseudo_command(argv: list[str] | None = None) -> None:
    """What `python pseudo.py` does."""
    args = _pseudo_arguments(argv)
    if args.mode is None:
        _plan(args)
    elif args.mode == "select":
        from .run_folder.reselect import reselect

        reselect(args.run, args.overrides)
    elif args.mode == "suggest":
        from .run_folder.suggest import suggest

        suggest(args.run, args.n)
    elif args.mode == "apply":
        apply(args.run, args.corrections, args.labels_only)
    elif args.mode == "export":
        export(args.run, args.format, args.out, copy=args.copy)
    elif args.mode == "serve":
        from .run_folder.serve import serve

        serve(args.run, args.port)
    elif args.forecast:
        from .run_folder.forecast import forecast

        forecast(args.config, args.overrides)
    else:
        _train_or_check(args.mode, args)


def _plan(args: argparse.Namespace) -> None:
    """Without a mode: say what is there and how to begin, and do it if that is asked for."""
    from .run_folder.plan import make_plan, write_config

    keys = [word for word in args.overrides if "=" in word]
    places = [word for word in args.overrides if "=" not in word]
    if len(places) > 1:
        raise UserError(f"{' and '.join(places)}: give one folder or table; see --help")
    plan = make_plan("".join(places), keys)
    if args.init:
        plan = write_config(plan, args.init)
    is_run = args.yes or args.check
    lines = plan.lines if is_run else [*plan.lines, HOW_TO_RUN]
    print(*lines, "", plan.command(), "", sep="\n", flush=True)
    if is_run:
        args.config, args.overrides, args.fresh = Path(plan.config), plan.overrides, False
        _train_or_check(plan.mode, args)


def predict_command(argv: list[str] | None = None) -> None:
    """What `python predict.py` does."""
    predict(**vars(_predict_parser().parse_args(argv)))


def _train_or_check(mode: str, args: argparse.Namespace) -> None:
    if args.check:
        from .run_folder.preflight import check

        check(args.config, args.overrides, mode)
    else:
        run_command(mode, args.overrides, args.config, args.fresh)


def _training_parser(text: str) -> Parser:
    parser = Parser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--config",
        type=Path,
        default=DEFAULT_CONFIG,
        help="YAML file (default: configs/default.yaml)",
    )
    add("--fresh", action="store_true", help="start over: empty the run folder first")
    add(
        "--check",
        action="store_true",
        help="check data, weights and disk, time a few steps, keep no model",
    )
    add(
        "--keys",
        action=ShowKeys,
        nargs="?",
        const="",
        metavar="WORD",
        help="show the config keys about a word",
    )
    add("overrides", nargs="*", metavar="key=value", help="for example train.lr=1e-3 name=exp7")
    return parser


def _pseudo_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Raises UserError where an option does not belong to the mode, or one is missing."""
    parser = _training_parser(PSEUDO)
    add = parser.add_argument
    add(
        "--mode",
        choices=OPTIONS,
        help="which labels may change, or what to do with a run; without it: what to begin with",
    )
    add("--yes", action="store_true", help="run the command that is proposed (without --mode)")
    add(
        "--init",
        metavar="NAME",
        help="write NAME.yaml, a config for what is there (without --mode)",
    )
    add("--serve", dest="mode", action="store_const", const="serve", help="review on a server")
    add("--port", type=int, default=0, help="of the server (serve; default: any that is free)")
    add("--run", type=Path, help="run folder (select, suggest, apply, export, serve)")
    add("--n", type=int, default=100, help="how many images (suggest)")
    add("--forecast", action="store_true", help="what pseudo-labels are likely to add (augment)")
    add("--corrections", type=Path, help="human decisions: CSV, or Label Studio's JSON (apply)")
    add("--revert", action="store_true", help="take back the last applied corrections (apply)")
    add("--labels-only", action="store_true", help="repair the tables, train nothing (apply)")
    add("--format", choices=EXPORT_FORMATS, help="what to write (export)")
    add("--out", type=Path, help="where to (export; default: in export/ of the run)")
    add("--copy", action="store_true", help="folder: copy the images, not links to them (export)")
    args = parser.parse_intermixed_args(argv)
    mode = args.mode
    used = OPTIONS.get(mode, OF_PLAN)
    for name, value in vars(args).items():
        if name not in used and value and value != parser.get_default(name):
            option = value[0] if name == "overrides" else f"--{name.replace('_', '-')}"
            chosen = f"--mode {mode}" if mode else "without --mode, this script"
            parser.error(f"{chosen} takes no {option}; leave it out")
    if "run" in used and not args.run:
        parser.error(f"--mode {mode} needs --run runs/NAME")
    if mode == "export" and not args.format:
        parser.error(f"--mode export needs --format, one of {', '.join(EXPORT_FORMATS)}")
    if mode == "apply" and bool(args.corrections) == args.revert:
        parser.error("--mode apply needs --corrections FILE.csv or --revert, one of them")
    if args.labels_only and args.revert:
        parser.error("--revert takes no --labels-only; leave it out")
    return args


def _predict_parser() -> Parser:
    parser = Parser(description=PREDICT, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--run",
        dest="runs",
        required=True,
        action="append",
        help="run folder; again for an ensemble",
    )
    add("--weights", help="of several runs: a number a run, as 2,1 (default: all alike)")
    add("--data", help="CSV or folder of images (default: data.test of the first run)")
    add("--out", help="default: predictions.csv in the first run's folder")
    add("--submission", help="sample_submission.csv: also write submission.csv beside --out")
    add("--tta", type=int, help="views of each image, itself and others (default: predict.tta)")
    add(
        "--arm",
        choices=["student", "baseline", "both"],
        help="default: predict.arm, by the evidence",
    )
    return parser


def main(run_script: Callable[[], None]) -> None:
    """Run a script's command with the exit codes of the contract.

    0 done, 2 wrong input, 130 or 143 stopped by a signal, 1 a fault of ours, or of the machine (in one line, where we
    know it). The other processes of torchrun train what the first one hands out until it lets them go.
    """
    gc.set_threshold(NEW_OBJECTS)
    # timm imports wandb where it is there, which takes half a second; tracking.py has a process of its own.
    sys.modules.setdefault("wandb", None)
    if is_surplus():
        return
    try:
        if rank():
            from .training.trainer import run_worker

            run_worker()
            leave()
        else:
            handle_signals()
            show_log()
            run_script()
            dismiss()
        return
    except UserError as error:
        line, code = f"error: {error}", 2
    except Interrupted as error:
        line, code = f"stopped ({error}); the same command goes on from here", 128 + error.args[0]
    except Exception as error:
        if not fault(error):
            raise
        line, code = f"error: {fault(error)}", 1
    finally:
        gc.freeze()  # else all of them are looked through once more
    print(line, file=sys.stderr)
    sys.exit(code)


train_main = partial(main, train_command)
"""The script pseudokit-train, and train.py."""
pseudo_main = partial(main, pseudo_command)
"""The script pseudokit-pseudo, and pseudo.py."""
predict_main = partial(main, predict_command)
"""The script pseudokit-predict, and predict.py."""
