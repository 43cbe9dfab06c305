"""The command line of the scripts, and how they end."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from .guard import fault, handle_signals
from .processes import dismiss, leave, rank
from .run import DEFAULT_CONFIG, OutOfTime, log, show_log
from .values import UserError


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
    except OutOfTime:
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


def _follow() -> None:
    from .stock import follow_stock

    follow_stock()
