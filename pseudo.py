"""Self-training: a teacher judges held-out rows, confident judgements become labels, a student learns them.

    python pseudo.py --mode augment                                  pseudo-labels for a pool (built-in digits)
    python pseudo.py --mode denoise data.train=train.csv             wrong labels found and repaired
    python pseudo.py --mode joint data.train=a.csv data.pool=b.csv   both at once

Run again to go on where it stopped; --fresh starts over.
"""

from src.run import main, open_run, parse


def run_script(argv=None) -> None:
    args, config = parse(__doc__, argv, mode=["augment", "denoise", "joint"])
    run = open_run(config, args.mode, args.config, args.fresh)
    if run.finished():
        return

    from src.workflow import learner, prepare, publish, run_rounds, train_arms

    material = prepare(run)
    fit, predict = learner(run, material)
    outcome = run_rounds(run, material, fit, predict)
    arms = train_arms(run, material, outcome, fit)
    publish(run, material, outcome, arms, predict)


if __name__ == "__main__":
    main(run_script)
