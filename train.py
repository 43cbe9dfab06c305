"""Plain supervised training: a model a fold (out-of-fold scores in oof.csv), and one of all labelled rows.

    python train.py                                                  the built-in digits
    python train.py data.train=train.csv data.image_dir=images data.suffix=.jpg name=base

Run again to go on where it stopped; --fresh starts over.
"""

from src.command import main, parse
from src.run import open_run


def run_script(argv=None) -> None:
    args = parse(__doc__, argv)
    run = open_run(args, "train")
    if run.finished():
        return

    from src.learner import make_learner
    from src.workflow import prepare, publish, run_rounds, train_arms

    material = prepare(run)
    learner = make_learner(run, material)
    outcome = run_rounds(run, material, learner)
    arms = train_arms(run, material, outcome, learner)
    publish(run, material, outcome, arms, learner)


if __name__ == "__main__":
    main(run_script)
