"""Predict with the models of a run: their average, in the classes and the image format that they were trained with.

python predict.py --run runs/NAME                                            its data.test
python predict.py --run runs/NAME --data test.csv --submission sample_submission.csv
"""

from pathlib import Path

from src.command import Parser, main
from src.run import log
from src.values import UserError


def arguments(argv=None):
    parser = Parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run folder")
    parser.add_argument("--data", help="CSV or folder of images (default: data.test of the run)")
    parser.add_argument("--out", type=Path, help="default: predictions.csv in the run folder")
    parser.add_argument("--submission", type=Path, help="sample_submission.csv: also write submission.csv beside --out")
    parser.add_argument("--tta", type=int, help="views of each image, itself and others (default: predict.views)")
    return parser.parse_args(argv)


def run_script(argv=None) -> None:
    args = arguments(argv)

    from src.inference import load_models, open_finished, predict_files, read_targets
    from src.run import write_csv
    from src.submission import predictions_table, submission

    config = open_finished(args.run)
    models = load_models(args.run)
    targets = read_targets(config, args.data)
    probs = predict_files(models, targets.path.to_numpy(object), config, args.tta)
    classes = models[0].format.classes
    table = predictions_table(targets.id.to_numpy(object), targets.path.to_numpy(object), probs, classes)
    out = args.out or args.run / "predictions.csv"
    filled = submission(args.submission, table, classes) if args.submission else None
    try:
        write_csv(out, table)
        log.info(f"{len(table):,} predictions, average of {len(models)} model(s): {out}")
        if filled is not None:
            write_csv(out.with_name("submission.csv"), filled)
            log.info(f"submission: {out.with_name('submission.csv')}")
    except OSError as error:
        raise UserError(f"--out {out} cannot be written ({error.strerror}); choose another file") from None


if __name__ == "__main__":
    main(run_script)
