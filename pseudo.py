"""Self-training: a teacher judges held-out rows, confident judgements become labels, a student learns them.

    python pseudo.py --mode augment                                  pseudo-labels for a pool (built-in digits)
    python pseudo.py --mode denoise data.train=train.csv             wrong labels found and repaired
    python pseudo.py --mode joint data.train=a.csv data.pool=b.csv   both at once
    python pseudo.py --mode augment --check data.train=train.csv     a look at data, folds, weights, disk and time first
    python pseudo.py --mode select --run runs/NAME pseudo.cutoff=0.8 decide again from stored predictions, in seconds
    python pseudo.py --mode apply --run runs/NAME --corrections corrections.csv    human decisions; the student again
    python pseudo.py --mode apply --run runs/NAME --revert           the last of those files taken back

Run again to go on where it stopped; --fresh starts over.
"""

from src.api import apply, pseudo
from src.command import main, parse


def run_script(argv=None) -> None:
    args = parse(__doc__, argv, modes=("augment", "denoise", "joint", "select", "apply"))
    if args.mode == "select":
        from src.reselect import reselect

        return reselect(args.run, args.overrides)
    if args.mode == "apply":
        return apply(args.run, None if args.revert else args.corrections)
    if args.check:
        from src.check import check

        return check(args.config, args.overrides, args.mode)
    pseudo(args.mode, args.overrides, args.config, args.fresh)


if __name__ == "__main__":
    main(run_script)
