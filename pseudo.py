"""Self-training: a teacher judges held-out rows, confident judgements become labels, a student learns them.

    python pseudo.py --mode augment                                  pseudo-labels for a pool (built-in digits)
    python pseudo.py --mode denoise data.train=train.csv             wrong labels found and repaired
    python pseudo.py --mode joint data.train=a.csv data.pool=b.csv   both at once
    python pseudo.py --mode select --run runs/NAME pseudo.cutoff=0.8 decide again from stored predictions, in seconds
    python pseudo.py --mode apply --run runs/NAME --corrections corrections.csv    human decisions; the student again
    python pseudo.py --mode apply --run runs/NAME --revert           the last of those files taken back

Run again to go on where it stopped; --fresh starts over.
"""

from src.command import main, parse
from src.run import open_run, reopen_run


def run_script(argv=None) -> None:
    args = parse(__doc__, argv, modes=("augment", "denoise", "joint", "select", "apply"))
    if args.mode == "select":
        from src.reselect import reselect

        return reselect(args.run, args.overrides)
    if args.mode == "apply":
        from src.corrections import new_decisions, revert, store_corrections

        run = reopen_run(args.run)
        if args.revert:
            return revert(run)
        corrections = new_decisions(run, args.corrections)
    else:
        run, corrections = open_run(args, args.mode), None
    if corrections is None and run.finished():
        return None

    from src.learner import make_learner
    from src.workflow import prepare, publish, run_rounds, train_arms

    material = prepare(run)
    if corrections is not None:
        store_corrections(run, corrections)
    learner = make_learner(run, material)
    outcome = run_rounds(run, material, learner)
    arms = train_arms(run, material, outcome, learner)
    publish(run, material, outcome, arms, learner)


if __name__ == "__main__":
    main(run_script)
