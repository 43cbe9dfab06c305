"""Plain supervised training: a model a fold (out-of-fold scores in oof.csv), and one of all labelled rows.

    python train.py                                                  the built-in digits
    python train.py data.train=train.csv data.image_dir=images data.suffix=.jpg name=base
    python train.py --check data.train=train.csv                     a look at data, folds, weights, disk and time first

Run again to go on where it stopped; --fresh starts over.
"""

from src.api import train
from src.command import main, parse


def run_script(argv=None) -> None:
    args = parse(__doc__, argv)
    if args.check:
        from src.check import check

        return check(args.config, args.overrides, "train")
    train(args.overrides, args.config, args.fresh)


if __name__ == "__main__":
    main(run_script)
