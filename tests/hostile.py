"""Hostile input by name: what a stranger might send to read, write or run what is none of its business.

A case does what its name says in a folder and returns nothing, or what was let in. Shared as tests/wild/common.py is.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from pseudokit.config.keys import Data, Model
from pseudokit.config.load import load_config
from pseudokit.config.types import UserError
from pseudokit.data.csv_text import escape_formulas, read_csv, unescape_formulas
from pseudokit.data.images import load_images
from pseudokit.data.tables import read_split
from pseudokit.report.label_studio import interface
from pseudokit.report.report import write_report
from pseudokit.report.review import write_review
from pseudokit.system.files import write_csv
from pseudokit.training.models import create_model, load_model, save_model
from tests import naming
from tests.conftest import ROOT
from tests.report.browser import open_browser
from tests.report.fake_run import make_run
from tests.wild.common import limited

PWN = "window.__pwned=1"
NAMES = [
    f"<script>{PWN}</script>",
    f'"><img src=x onerror={PWN}>',
    f"</script><svg onload={PWN}>",
    "=1+1",
    "javascript:alert(1)",
]
FORMULAS = ['=cmd|"/C calc"!A0', "+1+cmd", "-1+cmd", "@SUM(A1)", "\t=1+1", "＝1+1", "'=1+1", "''-x"]
PLAIN = ["-1", "+5", "-1.5e3", "007", "a=b", "-", "=", "@", "'", "'a", "NA", ""]
WATCH = """import os, sys
def watch(event, args):
    if event == "socket.bind" and args[1][0] in ("::1", "127.0.0.1"):
        return  # urllib3 asks so whether there is IPv6; it reaches nobody
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.bind"):
        if not isinstance(args[-1], (str, bytes)):  # a path is a socket of this machine
            open(os.environ["SEEN"], "a").write(f"{event} {args!r}\\n")
            raise RuntimeError("no network here")
sys.addaudithook(watch)
"""
"""Forbids sockets in every process that finds it, and writes down who wanted one."""
ASKS = "import socket; exec('try: socket.create_connection((\"asked at last\", 9))\\nexcept RuntimeError: pass')"


def refused(action: Callable[[], object], *parts: object) -> str:
    """What was let in: nothing, where the action is refused with a line that names all parts."""
    try:
        got = action()
    except UserError as error:
        line = str(error)
        is_right = naming.names(line, *parts) and naming.is_one_line(line)
        return "" if is_right else f"refused, but by: {line}"
    return f"it went through: {got!r}"[:200]


# ---- files that lie elsewhere


def secret(folder: Path) -> Path:
    """An image that is none of the data's business, outside of folder/images."""
    (folder / "images" / "a").mkdir(parents=True)
    (folder / "private").mkdir()
    for file in (folder / "private" / "s.png", folder / "images" / "a" / "x.png"):
        cv2.imwrite(str(file), np.zeros((9, 9), np.uint8))
    return folder / "private" / "s.png"


def by_id(name: str, **data) -> Callable[[Path], str]:
    """A table that names the secret; {} in name is the folder."""

    def case(folder: Path) -> str:
        secret(folder)
        write_csv(folder / "t.csv", pd.DataFrame({"id": [name.format(folder)], "label": ["a"]}))
        config = Data(train=str(folder / "t.csv"), image_dir=str(folder / "images"), **data)
        return refused(lambda: read_split(config, "train"), "data.allow_outside_files")

    return case


def by_link(link: str, target: str, source: str = "images") -> Callable[[Path], str]:
    """A folder of images, in which a link leads out; source: a folder, or a table that names the link's image."""

    def case(folder: Path) -> str:
        secret(folder)
        (folder / "images" / link).symlink_to(folder / target)
        write_csv(folder / "t.csv", pd.DataFrame({"id": [source], "label": ["a"]}))
        train = folder / (source if source == "images" else "t.csv")
        data = Data(train=str(train), image_dir=str(folder / "images"))
        return refused(lambda: read_split(data, "train"), "data.allow_outside_files")

    return case


def circle(folder: Path) -> str:
    secret(folder)
    (folder / "images" / "a" / "again").symlink_to(folder / "images")
    (folder / "images" / "b").mkdir()
    (folder / "images" / "b" / "other").symlink_to(folder / "images" / "a")
    (folder / "images" / "a" / "other").symlink_to(folder / "images" / "b")
    table = read_split(Data(train=str(folder / "images")), "train")
    ids = ["images/a/x.png", "images/b/other/x.png"]  # the second by a link that is no circle
    return "" if list(table.id) == ids else f"{len(table)} rows of one image"


def unreadable(data: Data, name: str) -> str:
    """What would be waited for, or would never end, is an image that cannot be read."""
    paths = read_split(data, "train").path.to_numpy(object)
    with limited(10):
        return refused(lambda: load_images(paths, data), name, "data.bad_images")


def pipe(folder: Path) -> str:
    secret(folder)
    os.mkfifo(folder / "images" / "a" / "p.png")
    return unreadable(Data(train=str(folder / "images")), "p.png")


def device(folder: Path) -> str:
    secret(folder)
    (folder / "images" / "a" / "z.png").symlink_to("/dev/zero")
    return unreadable(Data(train=str(folder / "images"), allow_outside_files=True), "z.png")


def allowed_by_name(folder: Path) -> str:
    """What the key allows is read, and the folder that is named may be a link."""
    hidden = secret(folder)
    (folder / "images" / "a" / "x.png").unlink()
    (folder / "images" / "a" / "l.png").symlink_to(hidden)
    (folder / "linked").symlink_to(folder / "images")
    table = read_split(Data(train=str(folder / "linked"), allow_outside_files=True), "train")
    return (
        ""
        if load_images(table.path.to_numpy(object), Data(size=8, channels=1))[1].all()
        else "not read"
    )


def name_of_run(folder: Path) -> str:
    (folder / "c.yaml").write_text("name: ../../x\n")
    return refused(lambda: load_config(folder / "c.yaml", []), "c.yaml", "name")


# ---- code in data


class Payload:
    """Makes a folder when it is unpickled by a loader that runs what it reads."""

    def __init__(self, mark: Path):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def weights(file: str, how: str, model: str = "test_resnet") -> Callable[[Path], str]:
    def case(folder: Path) -> str:
        path, payload = folder / file, Payload(folder / "it_ran")
        if how == "zip":
            torch.save({"state_dict": {"conv1.0.weight": torch.zeros(1)}, "extra": payload}, path)
        elif how == "array":
            np.savez(path, a=np.array([payload], object))
        else:
            path.write_bytes(pickle.dumps(payload, protocol=2))
        message = refused(
            lambda: create_model(Model(name=model, checkpoint=str(path)), ("a", "b"), 32, 3),
            "model.checkpoint",
        )
        return "its code ran" if (folder / "it_ran").exists() else message

    return case


def fetching(name: str) -> Callable[[Path], str]:
    config = Model(kwargs={name: "x"})
    return lambda folder: refused(
        lambda: create_model(config, ("a", "b"), 32, 3), "model.kwargs", name
    )


def model_of_a_stranger(**changed) -> Callable[[Path], str]:
    """The model.json of a run folder names what would be fetched."""

    def case(folder: Path) -> str:
        save_model(folder / "student", *create_model(Model(), ("a", "b"), 32, 1))
        about = json.loads((folder / "student" / "model.json").read_text())
        (folder / "student" / "model.json").write_text(json.dumps(about | changed))
        return refused(lambda: load_model(folder / "student"), "model.json")

    return case


def yaml_that_runs(folder: Path) -> str:
    (folder / "c.yaml").write_text(f"name: !!python/object/apply:os.mkdir ['{folder}/it_ran']\n")
    message = refused(lambda: load_config(folder / "c.yaml", []), "c.yaml", "YAML")
    typed = refused(
        lambda: load_config(
            ROOT / "configs" / "default.yaml",
            [f"model.kwargs=!!python/object/apply:os.mkdir ['{folder}/it_ran']"],
        ),
        "model.kwargs",
    )
    return "its code ran" if (folder / "it_ran").exists() else message or typed


# ---- names that are markup, formulas or orders to a terminal


def page(name: str) -> Callable[[Path], str]:
    """The page of a run whose ids, classes and name are markup, in a browser."""

    def case(folder: Path) -> str:
        run = make_run(
            folder / "x",
            "denoise",
            names=NAMES,
            id_of=(f"<svg onload={PWN}>" + "{}\"'`${{1}}").format,
        )
        file = {"report.html": write_report, "review.html": write_review}[name](run)
        wanted = []
        with open_browser() as browser:
            shown = browser.new_page()
            shown.on("dialog", lambda dialog: wanted.append(dialog.message))
            shown.on(
                "request",
                lambda r: r.url.startswith(("file:", "data:", "blob:")) or wanted.append(r.url),
            )
            shown.goto(file.as_uri())
            shown.evaluate(
                "document.querySelectorAll('details').forEach((node) => { node.open = true; })"
            )
            shown.wait_for_timeout(300)
            ran = shown.evaluate("window.__pwned")
            strange = shown.locator(
                "svg, img:not([src^='data:image/']), [onerror], [onload]"
            ).count()
        return (
            "" if not ran and not strange and not wanted else f"{ran}, {strange} elements, {wanted}"
        )

    return case


def formulas(folder: Path) -> str:
    """No cell of a table for people runs, and each reads back as it was; what is no formula is written as it is."""
    table = pd.DataFrame({"id": FORMULAS + PLAIN, "p_wrong": 0.5})
    write_csv(folder / "label_issues.csv", escape_formulas(table))
    written = read_csv(folder / "label_issues.csv").id
    runs = [cell for cell in written[: len(FORMULAS)] if not cell.startswith("'")]
    changed = [
        cell for cell, plain in zip(written[len(FORMULAS) :], PLAIN, strict=True) if cell != plain
    ]
    return (
        ""
        if not runs
        and not changed
        and list(unescape_formulas(read_csv(folder / "label_issues.csv")).id) == list(table.id)
        else (f"{runs} run, {changed} changed")
    )


def interface_of_markup(folder: Path) -> str:
    read = [node.get("value") for node in ElementTree.fromstring(interface(NAMES)).iter("Choice")]
    return "" if read[: len(NAMES)] == NAMES else f"choices {read}"


def terminal(folder: Path) -> str:
    """Colors, titles and lines that a name would draw on a terminal."""
    (folder / "t.csv").write_text("id,label\n000,a\n\x1b]0;owned\x07\x1b[2J,b\n")
    try:
        read_split(Data(train=str(folder / "t.csv")), "train")
    except UserError as error:
        return "" if str(error).isprintable() else "it reaches the terminal"
    return "it went through"


# ---- what a run sends and keeps


SECRET = "hunter2-is-my-token"


def watched(folder: Path, *path: str) -> dict[str, str]:
    """The environment of a process where sockets are forbidden, with a secret in it; path: PYTHONPATH besides."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(WATCH)
    environment = {
        key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"
    }
    environment |= {"PYTHONPATH": os.pathsep.join([str(folder / "site"), *path])}
    environment |= {"SEEN": str(folder / "seen"), "WANDB_API_KEY": SECRET}
    return environment | {"KAGGLE_KEY": SECRET, "HF_TOKEN": SECRET}


def escaped(folder: Path, written: Path) -> str:
    """What watched processes asked for before ASKS, or which of the files that they wrote keeps the secret."""
    seen = (folder / "seen").read_text().splitlines()
    if len(seen) != 1 or "asked at last" not in seen[0]:  # that it would have been seen
        return "; ".join(seen) or "the watch is blind"
    files = [file for file in written.rglob("*") if file.is_file()]
    keeps = [file.name for file in files if SECRET.encode() in file.read_bytes()]
    return f"the secret stands in {keeps}" if keeps or len(files) < 10 else ""


def whole_run(folder: Path) -> str:
    """A run and its predictions where sockets are forbidden, and a secret in the environment."""
    images = folder / "images"
    images.mkdir()
    rng, rows = np.random.default_rng(0), []
    for i in range(60):
        image = rng.integers(0, 99, (16, 16), np.uint8) + (i % 2) * np.uint8(120)
        cv2.imwrite(str(images / f"{i}.png"), image)
        rows.append((f"{i}", ("dark", "light")[i % 2] if i < 40 else ""))
    write_csv(folder / "t.csv", pd.DataFrame(rows, columns=["id", "label"]))
    environment = watched(folder, os.environ["PYTHONPATH"])
    args = [
        f"data.train={folder / 't.csv'}",
        f"data.image_dir={images}",
        f"data.test={folder / 't.csv'}",
        "data.learn_from_test=copies",
        "name=x",
        f"out={folder / 'runs'}",
        "pseudo.rounds=1",
        "train.epochs=1",
        "train.augment=small",
        "train.min_steps=2",
        "pseudo.train_baseline=false",
    ]
    imports = "from pseudokit.api import predict, run_command"
    both = f"{imports}; predict([run_command('augment', {args!r})]); {ASKS}"
    done = subprocess.run(
        [sys.executable, "-c", both], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    return done.stderr[-300:] if done.returncode else escaped(folder, folder / "runs")


def cases() -> dict[str, Callable[[Path], str]]:
    return {
        "an id with ..": by_id("../private/s.png"),
        "an id with .. that leads back in": by_id("a/../a/x.png"),
        "an absolute id": by_id("{}/private/s.png"),
        "an id with .. without a suffix": by_id("../private/s", image_suffix=".png"),
        "an id with .. where images are found by name": by_id("gone/../../private/s"),
        "a linked image, named by an id": by_link("l.png", "private/s.png", "l.png"),
        "a linked image, found by its name": by_link("a/l.png", "private/s.png", "l"),
        "a linked folder, named by an id": by_link("l", "private", "l/s.png"),
        "a linked folder, found by name": by_link("a/l", "private", "s"),
        "a linked image in a folder": by_link("a/l.png", "private/s.png"),
        "a linked folder in a folder": by_link("a/l", "private"),
        "a link in a circle": circle,
        "a pipe named like an image": pipe,
        "a device named like an image": device,
        "what data.allow_outside_files=true names": allowed_by_name,
        "a run named ../../x": name_of_run,
        "code in weights: a pickle": weights("w.pth", "pickle"),
        "code in weights: torch's archive": weights("w.pth", "zip"),
        "code in weights: named .safetensors": weights("w.safetensors", "pickle"),
        "code in weights: an array of objects": weights("w.npz", "array", "test_vit"),
        "weights fetched by model.kwargs": fetching("pretrained"),
        "weights loaded by model.kwargs": fetching("checkpoint_path"),
        "a run folder whose model would be fetched": model_of_a_stranger(
            name="hf-hub:stranger/model"
        ),
        "a run folder whose weights would be fetched": model_of_a_stranger(
            kwargs={"pretrained": True}
        ),
        "code in YAML": yaml_that_runs,
        "markup in report.html, in a browser": page("report.html"),
        "markup in review.html, in a browser": page("review.html"),
        "markup in Label Studio's interface": interface_of_markup,
        "formulas in tables for people": formulas,
        "orders to the terminal in an id": terminal,
        "a whole run without sockets, with secrets around it": whole_run,
    }
