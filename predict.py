"""Predict with the models of a run, or of several: their average, in the classes and the image format of training.

python predict.py --run runs/NAME                                            its data.test
python predict.py --run runs/NAME --data test.csv --submission sample_submission.csv
python predict.py --run runs/A --run runs/B --weights oof --data test.csv    weighted by what fits out-of-fold rows best
"""

from pathlib import Path

from src.command import Parser, main


def arguments(argv=None):
    parser = Parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, action="append", help="run folder; again for an ensemble")
    parser.add_argument("--weights", help="of several runs: oof, or a number a run as 2,1 (default: all alike)")
    parser.add_argument("--data", help="CSV or folder of images (default: data.test of the first run)")
    parser.add_argument("--out", type=Path, help="default: predictions.csv in the first run's folder")
    parser.add_argument("--submission", type=Path, help="sample_submission.csv: also write submission.csv beside --out")
    parser.add_argument("--tta", type=int, help="views of each image, itself and others (default: predict.views)")
    parser.add_argument("--arm", choices=["student", "baseline", "both"], help="default: predict.arm, by the evidence")
    parser.add_argument("--check", action="store_true", help="look whether all is there and fits; predict nothing")
    return parser.parse_args(argv)


def run_script(argv=None) -> None:
    args = arguments(argv)
    if args.check:
        from src.check import check_prediction

        return check_prediction(args.run, args.data, args.submission, args.arm)

    from src.api import predict

    predict(args.run, args.data, args.out, args.submission, tta=args.tta, weights=args.weights, arm=args.arm)


if __name__ == "__main__":
    main(run_script)
