"""A small finished run folder, written by hand over real digits, and a reader of pages."""

import json
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits

from pseudokit.labels.metrics import expected, paired_arms
from pseudokit.report import load_run
from pseudokit.report.metrics_log import write_metrics
from pseudokit.report.tables import count_issues, label_issues_table

N = 200
REASONS = {
    "keep": "agrees",
    "relabel": "another_class_reaches_precision",
    "drop": "wrong_but_no_replacement",
    "accept": "above_cutoff",
    "leave": "below_cutoff",
}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><b>",
    "$\\frac{$",
    "NA",
]


def write_csv(file, /, **columns):
    pd.DataFrame(columns).to_csv(file, index=False)


def make_run(run, mode, names=tuple("0123456789"), id_of="{:04d}".format):
    """A finished run over 200 real digits.

    denoise: 10 % of the given labels are flipped; augment: 150 are unlabeled; train: neither.
    Two folds: even rows and odd ones. Out-of-fold predictions are the truth.
    """
    digits = load_digits()
    (run / "images").mkdir(parents=True)
    ids = [id_of(i) for i in range(N)]
    paths = [str(run / "images" / f"{i}.png") for i in range(N)]
    for path, image in zip(paths, digits.images, strict=False):
        cv2.imwrite(path, (image * 15).astype(np.uint8))
    classes = list(names)
    clean = np.array(classes, object)[digits.target[:N] % len(classes)]
    given_labels, split = clean.copy(), np.full(N, "train", object)
    if mode == "augment":
        split[50:], given_labels[50:] = "unlabeled", ""
        write_csv(run / "hidden.csv", id=ids[50:], clean=clean[50:])
    elif mode == "denoise":
        given_labels[::10] = [classes[(classes.index(c) + 1) % len(classes)] for c in clean[::10]]
        write_csv(run / "injected.csv", id=ids, clean=clean, given_label=given_labels)
    tests = [id_of(i) for i in range(N, 2 * N)]  # the same images, as rows that are only scored
    write_csv(
        run / "samples.csv",
        id=ids + tests,
        path=paths + paths,
        split=[*split, *["test"] * N],
        given_label=[*given_labels, *clean],
        group="",
    )
    table = {
        "tests": tests,
        "id": ids,
        "path": paths,
        "split": split,
        "given_label": given_labels,
        "clean": clean,
    }
    infos = [
        write_round(run, number, mode, classes, table)
        for number in ((1,) if mode == "train" else (1, 2))
    ]
    write_results(run, mode, infos, table)
    write_metrics(run)
    return run


def write_round(run, number, mode, classes, t):
    folder = run / f"round_{number}"
    folder.mkdir()
    confidence = np.linspace(0.5, 0.999, N)[::-1].round(6)
    certain = confidence >= 0.8
    if mode == "augment":
        unlabeled = t["split"] == "unlabeled"
        decision = np.where(unlabeled, np.where(certain, "accept", "leave"), "keep")
        label = np.where(unlabeled & ~certain, "", t["clean"])
    else:
        decision = np.where(
            t["clean"] == t["given_label"], "keep", np.where(certain, "relabel", "drop")
        )
        label = np.where(decision == "drop", "", t["clean"])
    write_csv(
        folder / "decisions.csv",
        id=t["id"],
        split=t["split"],
        given_label=t["given_label"],
        predicted=t["clean"],
        confidence=confidence,
        self_confidence=1 - confidence,
        p_wrong=np.where(t["clean"] == t["given_label"], confidence / 1.9, confidence - 0.1),
        decision=decision,
        label=label,
        reason=[REASONS[d] for d in decision],
        model=[
            "+".join(
                f"r{r}f{f}"
                for r in range(1, number + 1)
                for f in ((0, 1) if split == "unlabeled" else (i % 2,))
            )
            for i, split in enumerate(t["split"])
        ],
    )
    near = -((np.array(classes, object)[:, None] != t["clean"]).T * (1 + confidence[:, None]))
    np.save(
        folder / "log_probs.npy",
        (near - np.log(np.exp(near.astype(float)).sum(1, keepdims=True))).astype(np.float32),
    )
    write_csv(folder / "ids.csv", id=t["id"], split=t["split"])
    for fold in (0, 1):
        (folder / f"fold_{fold}").mkdir()
        (folder / f"fold_{fold}" / "model.json").write_text(
            json.dumps({"hash": f"r{number}f{fold}"})
        )
        loss = [1.0, 0.5 / (number + fold)]
        write_csv(
            folder / f"fold_{fold}" / "history.csv", epoch=[1, 2], loss=loss, lr=0.1, seconds=1.0
        )
    k = len(classes)
    info = {
        "round": number,
        "classes": classes,
        "decisions": {d: int((decision == d).sum()) for d in sorted(set(decision.tolist()))},
        "changed": 30 - 10 * number,
        "coverage": None,
        "oof_accuracy": 0.9,
        "estimated_rate": 0.101 if mode == "denoise" else None,
        "noise_matrix": None if mode != "denoise" else (np.eye(k) * 0.9 + 0.1 / k).tolist(),
        "cutoff": 0.8,
        "seconds": 1.5,
        "models": {f"r{number}f{fold}": {"fold": fold, "teachers": []} for fold in (0, 1)},
    }
    (folder / "round.json").write_text(json.dumps(info))
    return info


def write_scored(run, t):
    """scored.csv; returns the scores of metrics.json and the difference."""
    tables, scores, rng = [], {}, np.random.default_rng(0)
    for arm, wrong in {"teacher": 25, "baseline": 30, "student": 20}.items():
        predicted = np.where(np.arange(N) < wrong, np.roll(t["clean"], 1), t["clean"])
        accuracy = float((predicted == t["clean"]).mean())
        scores[arm] = {"test": {"n": N, "accuracy": accuracy, "log_loss": 0.05, "macro_f1": 0.98}}
        columns = {
            "arm": arm,
            "split": "test",
            "id": t["tests"],
            "label": t["clean"],
            "predicted": predicted,
        }
        tables.append(pd.DataFrame(columns).assign(confidence=0.5 + rng.permutation(N) / 400))
    scored = pd.concat(tables)
    scored.to_csv(run / "scored.csv", index=False)
    gain = paired_arms(scored, ("test",))
    return scores, {"split": "test"} | {key: gain[key] for key in ("n", "gain", "low", "high")}


def write_results(run, mode, infos, t):
    """label_issues.csv or pseudo_labels.csv, metrics.json and the small files."""
    columns = "id given_label predicted confidence p_wrong decision label"
    last = load_run.read_table(run / f"round_{len(infos)}" / "decisions.csv", columns)
    last = last.assign(path=t["path"])
    scores, difference = write_scored(run, t)
    if mode == "train":
        del scores["baseline"]
    labeled = int((t["given_label"] != "").sum())
    agreement = 0.9 if mode == "denoise" else 1.0
    metrics = {
        "mode": mode,
        "reason": "max_rounds",
        "round": len(infos),
        "scores": scores,
        "oof": {"n": labeled, "accuracy": agreement, "interval": expected(agreement, labeled, N)},
        "rounds": infos,
        "seconds": {"decode": 1, "fit": 9, "total": 10},
    }
    if mode != "train":
        metrics["difference"] = difference
    if mode == "augment":
        taken = last[last["decision"] == "accept"].assign(round=2)
        taken[["id", "path", "label", "confidence", "round"]].to_csv(
            run / "pseudo_labels.csv", index=False
        )
        metrics["unlabeled"] = {
            "n": 150,
            "pseudo_labels": len(taken),
            "coverage": len(taken) / 150,
            "accuracy": 0.9876,
            "cutoff": 0.8,
        }
        odd = last.assign(split=t["split"], reason=["blurred", *["dark"] * (N - 1)], spreads=4.0)
        odd.to_csv(run / "odd_images.csv", index=False)
        last[:3].to_csv(run / "why.csv", index=False)
        np.save(run / "why.npy", np.eye(3)[:, None].repeat(3, axis=1))
    elif mode == "denoise":
        issues = label_issues_table(last)
        issues.to_csv(run / "label_issues.csv", index=False)
        metrics["noise"] = count_issues(issues) | {
            "n": N,
            "estimated_rate": 0.1012,
            "estimated_rate_interval": [0.09, 0.12],
            "type": "pair",
            "difficulty_z": None,
            "injected_rate": 0.1,
            "residual_rate": 0.0034,
            "average_precision": 0.9987,
            "precision_at": {"100": 0.97},
        }
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "status.json").write_text('{"state": "done", "stage": "done", "reason": "max_rounds"}')
    env = {"python": "3.11", "packages": {"torch": "2.14"}, "site": "https://example.org/x"}
    (run / "env.json").write_text(json.dumps(env))
    told = f"data.train=x.csv: {N} rows, separated by ',', such as {t['id'][0]}"
    (run / "inputs.json").write_text(json.dumps({"taken_for": [told]}))
    columns = ["cluster", "id", "path", "split", "given_label", "kind", "conflict"]
    pd.DataFrame(columns=columns).to_csv(run / "duplicates.csv", index=False)
    (run / "config.yaml").write_text("name: x\ntrain: {lr: 0.006}\n")


class Tags(HTMLParser):
    """Every tag with its attributes, and the text outside of <style> and <script>."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.inside = [], "", None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag if tag in ("style", "script") else None

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        self.text += "" if self.inside else data.replace("\xa0", " ")


def embedded(page):
    text = re.search(r'<script type="application/json" id="content">(.*?)</script>', page, re.S)[1]
    return json.loads(text)
