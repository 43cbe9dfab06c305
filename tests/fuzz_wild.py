"""Random wild input of seven kinds. Each case is written from a meaning that the generator knows.

Where the kit goes on, what it uses equals that meaning; what has none, or several, is refused.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import unicodedata
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from pseudokit import cli
from pseudokit.config.keys import Config, Data
from pseudokit.config.load import KEYS, load_config
from pseudokit.config.types import UserError
from pseudokit.data.dataset import load_dataset
from pseudokit.data.encoding import names
from pseudokit.data.images import load_images
from pseudokit.data.tables import read_split
from pseudokit.run_folder.corrections import read_corrections
from pseudokit.run_folder.folder import Run
from pseudokit.run_folder.submission import fill_submission, predictions_table
from pseudokit.system.files import write_json
from tests.naming import is_one_line
from tests.wild.common import saved

REFUSED = "refused"
"""What a case returns where the kit refuses its input in one line, and what it means where that is right."""


def pick(rng: np.random.Generator, options: Any) -> Any:
    options = list(options)
    return options[rng.integers(len(options))]


def some(rng: np.random.Generator, options: Any, low: int, high: int) -> list:
    """low … high different ones, in any order."""
    options = list(options)
    n = min(int(rng.integers(low, high + 1)), len(options))
    return [options[i] for i in rng.permutation(len(options))[:n]]


def judge(read: Callable[[], Any], meant: Any, context: Any, may_refuse: bool = False) -> str:
    """`read` gives what was meant, or refuses: what is meant to be refused, or where may_refuse says so."""
    try:
        got = read()
    except UserError as error:
        if not is_one_line(str(error)):
            return f"more than a line: {error!r} of {context}"
        is_right = may_refuse or (isinstance(meant, str) and meant == REFUSED)
        return REFUSED if is_right else f"refused, though clear: {error} of {context}"
    return "" if got == meant else f"silent: {got} in place of {meant} of {context}"


def write_cells(
    rows: list[list[str]], sign: str, end: str = "\n", quoted: bool = False, head: str = ""
) -> str:
    text = io.StringIO()
    text.write(head)
    quoting = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    csv.writer(text, delimiter=sign, lineterminator=end, quoting=quoting).writerows(rows)
    return text.getvalue()


# ---- roles


class Roles:
    """Tables of up to five roles, with folders of their own or one for all, that may share files."""

    OTHERS = ("unlabeled", "val", "trusted", "test")

    def __init__(self, folder: Path):
        self.folder = folder
        for place in ("a", "b", "empty"):
            (folder / place).mkdir()
        for place in ("a", "b"):
            for number in range(16):
                (folder / place / f"{number:02d}.png").touch()
        (folder / "link").symlink_to("a")

    def __call__(self, rng: np.random.Generator) -> str:
        splits = ["train", *(split for split in self.OTHERS if rng.random() < 0.5)]
        places, image_dir = self._places(rng, splits)
        rows = {split: self._rows(rng, split) for split in splits}
        learn = str(pick(rng, ["same_file", "copies"]))
        sources = {}
        for split, table in rows.items():
            sources[split] = str(self.folder / f"{split}.csv")
            columns = ["id", "label"] if any(label is not None for *_, label in table) else ["id"]
            lines = [[name, label][: len(columns)] for name, _, label in table]
            Path(sources[split]).write_text(write_cells([columns, *lines], ","))
        keys = {**sources, "image_dir": image_dir, "learn_from_test": learn}
        meant = self._meant(rows, places, learn)
        return judge(lambda: self._read(keys), meant, (rows, image_dir, learn))

    def _places(self, rng: np.random.Generator, splits: list[str]) -> tuple[dict, Any]:
        """The folder of each role, and what data.image_dir says of it."""
        places = {split: pick(rng, ["a", "b", "link"]) for split in splits}
        folder_of = {split: str(self.folder / place) for split, place in places.items()}
        if rng.random() < 0.3:
            return dict.fromkeys(splits, places["train"]), folder_of["train"]
        empty = str(self.folder / "empty")
        forms = [
            lambda one: one,
            lambda one: [one],
            lambda one: [one, empty],
            lambda one: one + "/",
        ]
        image_dir = {
            split: pick(rng, forms)(one)
            for split, one in folder_of.items()
            if split == "train" or places[split] != places["train"] or rng.random() < 0.5
        }
        return places, image_dir

    @staticmethod
    def _rows(rng: np.random.Generator, split: str) -> list[tuple[str, int, str | None]]:
        """(id, number of the file, label) of a role. Few of many files, so that roles without a common one occur."""
        write = pick(rng, ["{:02d}", "{:02d}.png", "{}"])
        numbers = some(rng, range(16), 1, 5)
        labels = [str(label) for label in rng.choice(["x", "y"], len(numbers))]
        if split == "train":
            labels = ["" if rng.random() < 0.2 else label for label in labels[1:]] + ["x"]
        if split == "test":
            labels = pick(rng, [labels, [labels[0]] * len(labels), [None] * len(labels)])
        if split in ("val", "trusted") and rng.random() < 0.05:
            labels[0] = pick(rng, ["", "z"])
        return [(write.format(i), i, label) for i, label in zip(numbers, labels, strict=True)]

    def _meant(self, rows: dict, places: dict, learn: str) -> Any:
        """{(role, id): (file, label)}"""
        meant, files_of = {}, {split: set() for split in ("train", *self.OTHERS)}
        for split, table in rows.items():
            labels = [label or "" for *_, label in table]
            if split == "test" and len(labels) > 1 and len({*labels}) == 1:
                labels = [""] * len(labels)
            if split == "unlabeled":
                labels = [""] * len(labels)
            for (name, number, _), label in zip(table, labels, strict=True):
                place = "a" if places[split] == "link" else places[split]
                role = "unlabeled" if split == "train" and not label else split
                file = str(self.folder / place / f"{number:02d}.png")
                if (role, name) in meant or (("train", name) in meant and role == "unlabeled"):
                    return REFUSED
                meant[role, name] = file, label
                files_of[role].add(file)
        classes = {label for (role, _), (_, label) in meant.items() if role == "train"}
        others = self.OTHERS[: 3 if learn == "copies" else 4]
        is_refused = (
            any(files_of["train"] & files_of[role] for role in others)
            or any(files_of["unlabeled"] & files_of[role] for role in ("val", "trusted"))
            or any(
                label not in ({"", *classes} if role == "test" else classes)
                for (role, _), (_, label) in meant.items()
                if role in ("val", "trusted", "test")
            )
        )
        return REFUSED if is_refused else meant

    @staticmethod
    def _read(keys: dict) -> dict:
        dataset = load_dataset(Data(**keys))
        texts = names(dataset.given_labels, dataset.classes)
        columns = zip(dataset.split, dataset.id, dataset.path, texts, strict=True)
        return {
            (split, name): (os.path.realpath(path), label) for split, name, path, label in columns
        }


# ---- submissions

PAIRS = [
    ("benign", "malignant"),
    ("normal", "malignant"),
    ("healthy", "sick"),
    ("no", "yes"),
    ("no tumor", "tumor"),
    ("not_defect", "defect"),
    ("negative", "positive"),
    ("cat", "dog"),
    ("0", "1"),
    ("0.0", "1.0"),
    ("00", "01"),
    ("False", "True"),
    ("-1", "1"),
]
"""Two classes, the positive one last."""
SETS = [
    ("ant", "bee", "cow"),
    ("red fox", "grey wolf", "owl"),
    ("0", "1", "2"),
    ("0.0", "1.0", "2.0"),
    ("00", "01", "02", "03"),
    ("1", "2", "3"),
]
ANSWERS = ["accuracy", "macro_f1", "kappa"]
PROBABILITIES = ["auc", "log_loss", "map"]
UNNAMED = ["label", "target", "Label", "prediction", "y", "class"]
OF_CLASS = ["{}", "p_{}", "P({})", "is_{}", "target_{}", "prob_{}", "{} probability", "Class {}"]
PLAIN_NUMBER = re.compile(r"(-?)0*(\d+)(\.0)?")


def number_of(name: str) -> int | None:
    match = PLAIN_NUMBER.fullmatch({"False": "0", "True": "1"}.get(name, name))
    return int(match[1] + match[2]) if match else None


class Submissions:
    """A sample in the form that a competition has, of which the generator knows what it asks for."""

    def __init__(self, folder: Path):
        self.file = folder / "sample.csv"

    def __call__(self, rng: np.random.Generator) -> str:
        pair = pick(rng, PAIRS)
        form = pick(rng, ["label", "class", "positive", "columns", "questions"])
        classes = pair if form == "positive" or rng.random() < 0.5 else pick(rng, SETS)
        n = int(rng.integers(3, 8))
        probs = rng.dirichlet(np.ones(len(classes)), n)
        if form == "questions":
            probs = rng.random((n, len(classes)))
        numbers = [int(i) for i in rng.permutation(90)[:n] + 5]
        in_predictions, in_sample = self._ids(rng, numbers)
        order = rng.permutation(n)
        metric = pick(rng, [None, None, *ANSWERS, *PROBABILITIES])
        fill = self._label if form == "label" else self._positive if form == "positive" else None
        if fill:
            columns, wanted, data = fill(rng, classes, probs[order], metric)
        else:
            columns, wanted, data = self._named(rng, classes, probs[order], metric, form)
        table = pd.DataFrame({"id": [in_sample[i] for i in order]} | columns, dtype=object)
        table.columns = [pick(rng, ["id", "image", "Id", "filename"]), *columns]
        table = table[some(rng, table.columns, 9, 9)]
        fault = pick(rng, ["", "", "", "", "", "an id", "twice", "a class"])
        table, wanted, data = self._spoil(fault, table, wanted, data, columns)
        sign = pick(rng, ",;\t")
        encoding = pick(rng, ["utf-8", "utf-8-sig", "utf-16"])
        is_european = sign == ";" and rng.random() < 0.3
        if is_european:
            table = table.map(self._decimal_comma)
            if wanted != REFUSED:
                wanted = {name: [self._number(cell) for cell in wanted[name]] for name in wanted}
        text = table.to_csv(index=False, sep=sign)
        self.file.write_bytes(text.encode(encoding))
        keys = {"multi_label": form == "questions", **data}
        names_ = sorted(classes)
        by_name = probs[:, [classes.index(name) for name in names_]]
        read = partial(
            self._fill, in_predictions, by_name, names_, metric, keys, [*columns], is_european
        )
        return judge(read, wanted, (text, names_, metric, keys))

    def _fill(self, ids, probs, classes, metric, keys, columns, is_european) -> dict:
        answers = probs.argmax(1)
        if keys["multi_label"]:
            answers, probs = (probs > 0.5).astype(int), np.stack([1 - probs, probs], -1)
        targets = pd.DataFrame({"id": ids, "path": ""}, dtype=object)
        predictions = predictions_table(targets, probs, answers, classes)
        filled = fill_submission(self.file, predictions, Config(metric=metric, data=Data(**keys)))
        cells = {
            name: [cell if isinstance(cell, str) else round(cell, 9) for cell in filled[name]]
            for name in columns
        }
        if not is_european:
            return cells
        return {name: [self._number(cell) for cell in column] for name, column in cells.items()}

    @staticmethod
    def _decimal_comma(cell: str) -> str:
        """As spreadsheets of half of the world write numbers."""
        return cell.replace(".", ",") if re.fullmatch(r"\d+\.\d+", cell) else cell

    @staticmethod
    def _number(cell: str | float) -> str | float:
        """What a cell says, whether a sample with decimal commas is answered by 1, 1.0 or 1,0."""
        is_number = isinstance(cell, str) and re.fullmatch(r"\d+([.,]\d+)?", cell)
        return round(float(cell.replace(",", ".")), 9) if is_number else cell

    @staticmethod
    def _ids(rng: np.random.Generator, numbers: list[int]) -> tuple[list[str], list[str]]:
        forms = {
            "{:04d}": ["{:04d}", "{}", "{}.0"],
            "{}": ["{}", "{}.0", "{:03d}"],
            "img_{}": ["img_{}"],
            "x/{:03d}.png": ["x/{:03d}.png", "{:03d}.png", "{:03d}", "{}", "{}.0"],
        }
        own = pick(rng, forms)
        other = pick(rng, forms[own])
        return [own.format(i) for i in numbers], [other.format(i) for i in numbers]

    @staticmethod
    def _spoil(fault, table, wanted, data, columns) -> tuple[pd.DataFrame, Any, dict]:
        id_column = next(name for name in table if name not in columns)
        if fault == "an id":
            table.loc[0, id_column] = "zebra"
        elif fault == "twice":
            table.loc[0, id_column] = table[id_column].iloc[1]
        elif fault == "a class" and len(columns) > 2:
            table = table.drop(columns=next(iter(columns)))
        elif fault == "a class" and len(columns) == 1:
            data = {"submission_positive": "owlet"}
        else:
            return table, wanted, data
        return table, REFUSED, data

    @staticmethod
    def _spell(rng: np.random.Generator, classes) -> Callable[[str], str]:
        """Class names in another spelling of the same numbers."""
        values = [number_of(name) for name in classes]
        if None in values:
            return str
        forms = [str, lambda name: f"{number_of(name)}", lambda name: f"{number_of(name)}.0"]
        if min(values) >= 0:
            forms.append(lambda name: f"{number_of(name):02d}")
        if {*values} == {0, 1}:
            forms += [
                lambda name: str(number_of(name) == 1),
                lambda name: str(number_of(name) == 1).upper(),
            ]
        return pick(rng, forms)

    def _label(self, rng, classes, probs, metric) -> tuple[dict, dict, dict]:
        """One column that shows class names. Of two classes a metric of probabilities asks for the positive one."""
        column, write = pick(rng, UNNAMED), self._spell(rng, classes)
        shown = pick(rng, [[classes[0]] * len(probs), rng.choice(classes, len(probs))])
        cells = [write(str(name)) for name in shown]
        wants_probs = metric in PROBABILITIES and len(classes) == 2
        has_own_point = any("." in name for name in classes)
        # Without a metric 0.0 is rather a probability, where classes are 0 and 1.
        if metric is None and len(classes) == 2 and "." in cells[0] and not has_own_point:
            wants_probs = {number_of(name) for name in classes} == {0, 1}
            if not wants_probs:
                metric = "undecided"
        if wants_probs:
            return {column: cells}, {column: [round(p, 9) for p in probs[:, 1]]}, {}
        labels = [write(classes[k]) for k in probs.argmax(1)]
        return {column: cells}, {column: labels}, {}

    def _positive(self, rng, classes, probs, metric) -> tuple[dict, dict, dict]:
        """One column of numbers that is named by no class."""
        column = pick(rng, UNNAMED)
        positive, data = 1, {}
        if rng.random() < 0.3:
            positive = int(rng.integers(2))
            data = {"submission_positive": classes[positive]}
        cells = pick(rng, [["0.5"] * len(probs), [f"{p:.3f}" for p in rng.random(len(probs))]])
        of_positive = probs[:, positive]
        is_positive = [int(k == positive) for k in probs.argmax(1)]
        if metric not in ANSWERS:
            return {column: cells}, {column: [round(p, 9) for p in of_positive]}, data
        if not data and number_of(classes[0]) is not None and classes != ("False", "True"):
            return {column: cells}, {column: [classes[k] for k in probs.argmax(1)]}, data
        return {column: cells}, {column: [str(k) for k in is_positive]}, data

    def _named(self, rng, classes, probs, metric, form) -> tuple[dict, dict, dict]:
        """The columns of one class, or of all of them."""
        template = pick(rng, OF_CLASS)
        chosen = some(rng, range(len(classes)), 9, 9)
        chosen = chosen[:1] if form == "class" else chosen
        cell = pick(rng, ["0.5", "0", "1", "random", "0.0", "False"])
        if cell == "False" and metric is None and form == "class":
            cell = "0"
        columns, wanted = {}, {}
        is_hard = metric in ANSWERS
        if form != "class":
            is_hard = (
                cell in ("0", "1", "0.0", "False")
                if is_hard
                else metric is None and cell == "False"
            )
        has_class = probs > 0.5 if form == "questions" else probs == probs.max(1, keepdims=True)
        for k in chosen:
            column = template.format(classes[k])
            columns[column] = [cell] * len(probs)
            if cell == "random":
                columns[column] = [f"{p:.3f}" for p in rng.random(len(probs))]
            wanted[column] = [round(p, 9) for p in probs[:, k]]
            if is_hard:
                words = {"0.0": ["0.0", "1.0"], "False": ["False", "True"]}.get(cell, ["0", "1"])
                wanted[column] = [words[int(has)] for has in has_class[:, k]]
        return columns, wanted, {}


# ---- tables

CLASS_KINDS = [
    ["cat", "dog", "owl"],
    ["0", "1", "2"],
    ["1.0", "2.0", "10.0"],
    ["007", "011", "100"],
    ["True", "False"],
    ["a", "A", "b", "B"],
    ["a,b", "x;y", "p|q"],
    ['say "x"', "it's", "=1+1"],
    ["ß", "猫", "é", "🐈"],
    ["red fox", "grey wolf"],
    ["Nano", "non", "unknowns", "-2"],
]
SIGNS = [
    "-1",
    "?",
    "NA",
    "n/a",
    "nan",
    "None",
    "null",
    "unknown",
    "Missing",
    "unlabeled",
    "No Label",
    "TODO",
    "-999",
    "-",
]


class WildTables:
    """One column of labels, or a column a class, as programs, spreadsheets and people write them."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, rng: np.random.Generator) -> str:
        form = pick(rng, ["label", "label", "label", "one-hot", "parquet"])
        if form == "parquet":
            return self._parquet(rng)
        n = int(rng.integers(2, 9))
        ids = [f"{i:03d}" for i in rng.permutation(50)[:n]]
        fault = ""
        if form == "one-hot":
            columns, labels, data, fault = self._one_hot(rng, n)
        else:
            columns, labels, data = self._labels(rng, n)
        id_column = pick(rng, ["id", "image_id", "image", "filename", "path", "Bild"])
        if id_column == "Bild":
            data["id_col"] = "Bild"
        table = {id_column: ids, **columns}
        for name in some(rng, ["note", "age", "x y"], 0, 2):
            table[name] = [pick(rng, ["", "z", "a, b", "1;2", "tab\there", "1,5"]) for _ in ids]
        header = some(rng, table, 9, 9)
        rows = [header, *([table[name][i] for name in header] for i in range(n))]
        meant = REFUSED if fault or labels is None else dict(zip(ids, labels, strict=True))
        if meant != REFUSED and not any(label for label in labels):
            meant = REFUSED  # no label at all
        return self._read(rng, rows, data, meant)

    def _read(self, rng, rows: list[list[str]], data: dict, meant: Any) -> str:
        """The cells as text, sometimes with a row that is spoiled."""
        i = int(rng.integers(1, len(rows)))
        row = rows[i]
        harms = {
            "short": [*rows[:i], row[: rng.integers(1, len(row))], *rows[i + 1 :]],
            "long": [*rows[:i], [*row, pick(rng, ["", "x"])], *rows[i + 1 :]],
            "id twice": [*rows, row],
            "column twice": [[*one, one[-1]] for one in rows],
            "no header": rows[1:],
            "latin-1": [*rows[:i], [*row[:-1], row[-1] + "é"], *rows[i + 1 :]],
        }
        harm = pick(rng, ["", "", "", "", *harms])
        rows = harms.get(harm, rows)
        encoding = "utf-8" if harm == "latin-1" else pick(rng, ["utf-8", "utf-8-sig", "utf-16"])
        if any(row[0] == "" and not "".join(row).strip() for row in rows):
            return REFUSED  # an empty line is no row
        sign = pick(rng, ",;\t|")
        end = pick(rng, ["\n", "\r\n"])
        head = pick(rng, ["", "", f"sep={sign}{end}"])
        text = write_cells(rows, sign, end, rng.random() < 0.3, head)
        if rng.random() < 0.2:
            text = text.removesuffix(end)
        if rng.random() < 0.1:
            text += end * 2
        file = self.folder / "t.csv"
        content = text.encode(encoding)
        file.write_bytes(
            content.replace("é".encode(encoding)[-2:], b"\xe9") if harm == "latin-1" else content
        )
        if harm:
            meant = REFUSED
        keys = {"train": str(file), **data}
        return judge(lambda: self._labels_of(keys), meant, (harm, text, encoding, data))

    @staticmethod
    def _labels_of(keys: dict) -> dict[str, str]:
        table = load_dataset(Data(**keys)).table()
        return dict(zip(table.id, table.given_label, strict=True))

    @staticmethod
    def _labels(rng: np.random.Generator, n: int) -> tuple[dict, list | None, dict]:
        """A column of class names; some rows without, some that are another spelling of a class."""
        classes = pick(rng, CLASS_KINDS)
        labels = [str(one) for one in rng.choice(classes, n)]
        labels = ["" if rng.random() < 0.1 else label for label in labels]
        column = pick(rng, ["label", "label", "Klasse"])
        data = {"label_col": column} if column != "label" else {}
        cells, trouble = [*labels], pick(rng, ["", "", "sign", "spelling", "quantity"])
        i = int(rng.integers(n))
        if trouble == "sign":
            sign = pick(rng, SIGNS)
            cells[i] = sign
            values = pick(rng, [None, None, [sign], [sign.upper(), "zzz"], []])
            data |= {} if values is None else {"unlabeled_values": values}
            labels[i] = sign if values == [] else ""
            # -1 beside 1 alone is a class.
            if values is None and not (sign == "-1" and {*cells} - {""} == {"-1", "1"}):
                return {column: cells}, None, data
            if values is None:
                labels = cells
        elif trouble == "spelling":
            base = pick(rng, [name for name in classes if len(name) > 1] or ["ab"])
            seen = base.removesuffix(".0") if base.endswith(".0") else base
            others = [
                base + " ",
                " " + base,
                base.swapcase(),
                base + "\u200b",
                unicodedata.normalize("NFD", base),
            ]
            others += [f"{seen}.0", seen] if seen.isdigit() else []
            other = pick(rng, others)
            cells[i], cells[i - 1] = base, other
            return {column: cells}, cells if other == base else None, data
        elif trouble == "quantity" and rng.random() < 0.2:
            cells = [f"{value:.2f}" for value in rng.random(n) * 9]
            return {column: cells}, cells, data
        return {column: cells}, labels, data

    @staticmethod
    def _one_hot(rng: np.random.Generator, n: int) -> tuple[dict, list, dict, str]:
        classes = some(rng, ["cat", "dog", "owl", "7"], 2, 4)
        multi = bool(rng.random() < 0.4)
        answers = (
            rng.random((n, len(classes))) < 0.4
            if multi
            else np.eye(len(classes), dtype=bool)[rng.integers(len(classes), size=n)]
        )
        if not multi and rng.random() < 0.3:
            answers[0] = False
        yes, no = pick(
            rng,
            [
                ("1", "0"),
                ("1.0", "0.0"),
                ("True", "False"),
                ("TRUE", "FALSE"),
                ("true", "false"),
                ("1", ""),
            ],
        )
        if multi and no == "":
            no = "0"
        fault = pick(rng, ["", "", "", "cell", "two"])
        if fault == "two":
            fault = "" if multi else fault
            answers[0, :2] = True
        cells = np.where(answers, yes, no).astype(object)
        if fault == "cell":
            cells[0, 0] = pick(rng, ["2", "0.5", "yes", "x", "-1"])
        labels = [
            " ".join(name for name, has in zip(classes, row, strict=True) if has) for row in answers
        ]
        if multi:
            labels = [" ".join(sorted(text.split())) or "(none)" for text in labels]
        data = {"label_col": classes, "multi_label": multi}
        return {name: list(cells[:, k]) for k, name in enumerate(classes)}, labels, data, fault

    def _parquet(self, rng: np.random.Generator) -> str:
        """Columns with types; a gap turns whole numbers into floats."""
        n = int(rng.integers(2, 9))
        kind = pick(rng, ["int", "float", "bool", "text", "category", "Int64", "boolean"])
        values = {
            "int": [3, 1, 20],
            "Int64": [3, 1, 20],
            "float": [3.0, 1.0, 20.0],
            "bool": [True, False],
            "boolean": [True, False],
        }
        drawn = [pick(rng, values.get(kind, ["cat", "01", "TRUE"])) for _ in range(n)]
        labels = [str(one).removesuffix(".0") for one in drawn]
        dtype = {"text": object, "float": float, "int": np.int64, "bool": bool}.get(kind, kind)
        if kind in ("float", "text", "Int64", "boolean", "category") and n > 2:
            drawn[0], labels[0] = (None, "")
        ids = [int(i) for i in rng.permutation(50)[:n]]
        id_type = pick(rng, [np.int64, float, str])
        table = pd.DataFrame(
            {"id": pd.Series(ids).astype(id_type), "label": pd.Series(drawn, dtype=dtype)}
        )
        file = self.folder / "t.parquet"
        table[some(rng, table.columns, 2, 2)].to_parquet(file)
        meant = dict(zip(map(str, ids), labels, strict=True))
        return judge(
            lambda: self._labels_of({"train": str(file)}), meant, (table.to_dict("list"), kind)
        )


# ---- finding images

STEMS = [
    "IMG_1",
    "img_2",
    "a",
    "B",
    "Äpfel",
    "café",
    "007",
    "7",
    "07",
    "0",
    "000",
    "12",
    "012",
    "x y",
    "1.5",
    "a.b",
    "Ж",
    "n-1",
]
FOLDERS = ["", "", "x/", "X2/", "x/y/", "Ordner é/"]
SUFFIXES = [".png", ".jpg", ".JPG", ".jpeg", ".tif"]


def same_spelling(name: str) -> str:
    """What is left of a name, if all that programs change is taken away; with its folder, without its suffix."""
    text = unicodedata.normalize("NFC", name).replace("\\", "/").strip().lower().removeprefix("./")
    text = re.sub(r"\.(png|jpe?g|tif)$", "", text)
    folder, slash, stem = text.rpartition("/")
    if re.fullmatch(r"\d+(\.0)?", stem):
        stem = str(int(stem.removesuffix(".0")))
    return folder + slash + stem


class FindingImages:
    """Files with their ids as spreadsheets and systems change them. A row means one file, or none that is there."""

    DAMAGES: ClassVar = {
        "none": lambda name: name,
        "backslashes": lambda name: name.replace("/", "\\"),
        "from here": lambda name: ".\\" + name.replace("/", "\\"),
        "caps": str.upper,
        "small": str.lower,
        "NFD": partial(unicodedata.normalize, "NFD"),
        "NFC": partial(unicodedata.normalize, "NFC"),
        "blank before": lambda name: " " + name,
        "blank after": lambda name: name + " ",
        "zeros lost": lambda name: re.sub(r"(^|/)0+(?=\d+(\.[a-zA-Z]+)?$)", r"\1", name),
        "zeros added": lambda name: re.sub(r"(^|/)(\d+(\.[a-zA-Z]+)?)$", r"\g<1>0\2", name),
        "float": lambda name: re.sub(r"(^|/)0*(\d+)$", r"\1\2.0", name),
    }

    def __init__(self, folder: Path):
        self.folder, self.number = folder, 0

    def __call__(self, rng: np.random.Generator) -> str:
        folder = self.folder / str(self.number)
        self.number += 1
        if rng.random() < 0.1:
            return self._tree(rng, folder)
        files = {
            pick(rng, FOLDERS) + pick(rng, STEMS) + pick(rng, SUFFIXES)
            for _ in range(rng.integers(2, 9))
        }
        files = [unicodedata.normalize(pick(rng, ["NFC", "NFD"]), file) for file in sorted(files)]
        for file in files:
            (folder / "images" / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / "images" / file).touch()
        damage = pick(rng, self.DAMAGES)
        drops_folder, drops_suffix = rng.random(2) < 0.4
        rows = []
        for file in some(rng, files, 1, 5):
            name = os.path.basename(file) if drops_folder else file
            name = name.removesuffix(os.path.splitext(name)[1]) if drops_suffix else name
            if damage == "float" and not drops_suffix:
                name = os.path.splitext(name)[0]
            for one in {damage, pick(rng, ["none", damage])}:
                name = self.DAMAGES[one](name)
            rows.append((name, file))
        if rng.random() < 0.15:
            rows.append((pick(rng, ["gone.png", "x/gone", "99", "IMG_11"]), None))
        if rng.random() < 0.1:  # one file in two rows
            rows.append(
                (pick(rng, [rows[0][0].upper(), rows[0][0].lower(), f" {rows[0][0]}"]), rows[0][1])
            )
        return self._judge(rng, folder, files, rows)

    def _judge(self, rng, folder: Path, files: list[str], rows: list[tuple]) -> str:
        ids = [name for name, _ in rows]
        if len({*ids}) < len(ids) or "" in ids:
            return REFUSED
        columns = {"id": ids}
        data = {}
        if rng.random() < 0.2:  # the names stand in a second column
            columns = {"id": [f"row {i}" for i in range(len(ids))], "filename": ids}
        table = pd.DataFrame(columns | {"label": "cat"})
        table.to_csv(folder / "t.csv", index=False)
        image_dir = str(folder / "images")
        meant, certain = {}, True
        suffixes = {os.path.splitext(file)[1] for _, file in rows if file}
        if (
            len(suffixes) == 1
            and not any(name.strip().endswith(tuple(SUFFIXES)) for name in ids)
            and rng.random() < 0.7
        ):
            data["image_suffix"] = suffixes.pop()
        more = data.get("image_suffix", "")
        for key, (name, file) in zip(columns["id"], rows, strict=True):
            name += more
            exact = self._exact(name, files)
            fits = [one for one in files if self._fits(name, one)]
            # Of several, the one of this very path outranks those of the same name in other folders.
            of_path = [one for one in fits if same_spelling(one) == same_spelling(name)]
            candidates = exact or (of_path if len(fits) > 1 else fits)
            certain &= len(candidates) == 1 or not fits
            meant[key] = candidates[0] if candidates else None
            if file is None and fits:
                return REFUSED
        used = [file for file in meant.values() if file]
        if not certain or not used or len(used) > len({*used}):
            meant = REFUSED
        keys = {"train": str(folder / "t.csv"), "image_dir": image_dir, **data}
        return judge(lambda: self._found(keys), meant, (files, rows, [*columns], data))

    @staticmethod
    def _exact(name: str, files: list[str]) -> list[str]:
        """The files of this very name: by path, path without suffix, file name, or that without suffix."""
        forms = [str, lambda one: os.path.splitext(one)[0], os.path.basename]
        forms.append(lambda one: os.path.splitext(os.path.basename(one))[0])
        return next(
            (found for form in forms if (found := [one for one in files if form(one) == name])), []
        )

    @staticmethod
    def _fits(name: str, file: str) -> bool:
        """Whether a name is the file's in another spelling, with or without folder and suffix."""
        plain = same_spelling(file)
        of_name = same_spelling(name)
        suffix = re.search(r"\.(png|jpe?g|tif)$", name.strip().lower())
        same_suffix = not suffix or file.lower().endswith(suffix[0])
        return same_suffix and of_name in (plain, os.path.basename(plain))

    @staticmethod
    def _found(keys: dict) -> dict[str, str | None]:
        table = read_split(Data(**keys), "train")
        start = len(keys["image_dir"]) + 1
        if not any(map(os.path.isfile, table.path)):
            raise UserError("no image can be read")  # as load_images does
        return {
            name: path[start:] if os.path.isfile(path) else None
            for name, path in zip(table.id, table.path, strict=True)
        }

    def _tree(self, rng: np.random.Generator, folder: Path) -> str:
        """A folder of classes; of splits it is refused."""
        split_words = [
            "train",
            "Train",
            "val",
            "valid",
            "validation",
            "test",
            "testing",
            "train_images",
            "test set",
        ]
        words = some(rng, ["cat", "dog", "owl", "é", "a b", *split_words], 2, 4)
        if len({word.lower() for word in words}) < len(words):
            return REFUSED
        meant = {}
        for word in words:
            for i in range(rng.integers(1, 4)):
                below = pick(rng, ["", "deep/"])
                (folder / "set" / word / below).mkdir(parents=True, exist_ok=True)
                (folder / "set" / word / below / f"{i}.png").touch()
                meant[f"set/{word}/{below}{i}.png"] = word
        if len({*words} & {*split_words}) > 1:
            meant = REFUSED
        keys = {"train": str(folder / "set")}
        return judge(lambda: WildTables._labels_of(keys), meant, words)


# ---- pixels


class Pixels:
    """A drawing that is saved with other depths, backgrounds and orientations, or damaged, beside a good image."""

    SIDE = 24

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, rng: np.random.Generator) -> str:
        drawn = self._draw(rng)
        makers = [
            self._deep,
            self._float,
            self._transparent,
            self._turned,
            self._plain,
            self._damaged,
        ]
        name, data, shown, may_refuse = pick(rng, makers)(rng, drawn)
        good = self.folder / "good.png"
        good.write_bytes(saved("PNG", Image.fromarray(drawn)))
        file = self.folder / "x.img"
        file.write_bytes(data)
        keys = {
            "size": self.SIDE,
            "channels": pick(rng, [None, 3]),
            "bad_images": pick(rng, ["refuse", "skip"]),
        }
        try:
            pixels, is_good = load_images(np.array([str(good), str(file)], object), Data(**keys))
        except UserError as error:
            if not is_one_line(str(error)) or not may_refuse:
                return f"refused, though whole: {name}: {error}"
            return REFUSED
        if not is_good[1]:
            return REFUSED if may_refuse else f"skipped, though whole: {name}"
        away = [np.abs(pixels[i].astype(int) - one).mean() for i, one in enumerate([drawn, shown])]
        return "" if max(away) < 8 else f"silent: {name}: {away} gray levels away"

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        """A color or gray drawing from 0 to 255, without fine detail and without symmetry."""
        coarse = rng.integers(0, 256, (4, 4, pick(rng, [1, 3])), np.uint8)
        coarse[0, 0], coarse[3, 1] = 0, 255
        drawn = cv2.resize(np.broadcast_to(coarse, (4, 4, 3)).astype(float), (self.SIDE,) * 2)
        share = (drawn - drawn.min()) / (drawn.max() - drawn.min())
        return np.rint(255 * share).astype(np.uint8)

    @staticmethod
    def _deep(rng, drawn):
        bits, ending = pick(rng, [10, 12, 14, 16]), pick(rng, ["png", "tif"])
        values = np.rint(drawn / 255.0 * (2**bits - 1)).astype(np.uint16)
        is_gray = (drawn == drawn[..., :1]).all()
        values = values[..., 0] if is_gray else values[..., ::-1]
        return (
            f"{bits} bits in {ending}",
            cv2.imencode(f".{ending}", values)[1].tobytes(),
            drawn,
            False,
        )

    @staticmethod
    def _float(rng, drawn):
        low, high = pick(rng, [(0, 1), (0, 255), (-1000, 3000), (0, 4095)])
        values = (low + drawn / 255.0 * (high - low)).astype(pick(rng, [np.float32, np.float64]))
        is_gray = (drawn == drawn[..., :1]).all()
        values = values[..., 0] if is_gray else values[..., ::-1]
        return f"floats {low} … {high}", cv2.imencode(".tif", values)[1].tobytes(), drawn, False

    @staticmethod
    def _transparent(rng, drawn):
        """Strokes of one color on nothing, or a drawing whose alpha is the same everywhere."""
        kind = pick(rng, ["PNG", "WEBP", "TIFF"])
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        if rng.random() < 0.4:
            alpha = np.full(drawn.shape[:2], pick(rng, [0, 9, 255]), np.uint8)
            image = Image.fromarray(np.dstack([drawn, alpha]))
            return f"an even alpha in {kind}", saved(kind, image, **options), drawn, False
        color = pick(rng, [(0, 0, 0), (255, 255, 255), (200, 0, 0), (20, 40, 90), (250, 250, 220)])
        alpha = np.where(drawn[..., 0] > 128, 255, 0).astype(np.uint8)
        rgba = np.dstack([np.broadcast_to(np.uint8(color), drawn.shape), alpha])
        background = 255 if np.mean(color) <= 192 else 0
        shown = np.where(alpha[..., None] > 0, np.uint8(color), background)
        return (
            f"strokes of {color} in {kind}",
            saved(kind, Image.fromarray(rgba), **options),
            shown,
            False,
        )

    @staticmethod
    def _turned(rng, drawn):
        orientation = int(rng.integers(1, 9))
        back = [None, 0, 3, 1, 5, 2, 6, 4][orientation - 1]
        image = Image.fromarray(drawn)
        exif = Image.Exif()
        exif[0x0112] = orientation
        kind = pick(rng, ["JPEG", "PNG", "TIFF", "WEBP"])
        turned = image if back is None else image.transpose(Image.Transpose(back))
        options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"quality": 95}}.get(kind, {})
        return (
            f"orientation {orientation} in {kind}",
            saved(kind, turned, exif=exif, **options),
            drawn,
            False,
        )

    @staticmethod
    def _plain(rng, drawn):
        image = Image.fromarray(drawn)
        ways = {
            "CMYK": lambda: saved("JPEG", image.convert("CMYK"), quality=95, subsampling=0),
            "progressive": lambda: saved(
                "JPEG", image, quality=95, subsampling=0, progressive=True
            ),
            "BMP": lambda: saved("BMP", image),
            "GIF": lambda: saved("GIF", image),
            "TIFF packed": lambda: saved(
                "TIFF", image, compression=pick(rng, ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
            ),
            "PPM": lambda: saved("PPM", image),
            "JPEG 2000": lambda: saved("JPEG2000", image),
        }
        few_colors = image.quantize(64)
        if rng.random() < 0.1:
            return "palette", saved("PNG", few_colors), np.array(few_colors.convert("RGB")), False
        name = pick(rng, ways)
        return name, ways[name](), drawn, False

    def _damaged(self, rng, drawn):
        """A large image that was cut, forged or overwritten inside. It is refused, or shows nearly what was drawn."""
        kind = pick(rng, ["JPEG", "JPEG", "progressive", "PNG", "TIFF", "WEBP", "GIF"])
        noise = rng.integers(-9, 10, (96, 96, 3))
        large = (cv2.resize(drawn, (96, 96)).astype(int) + noise).clip(0, 255).astype(np.uint8)
        options = {
            "JPEG": {"quality": 90},
            "progressive": {"quality": 90, "progressive": True},
        }.get(kind, {})
        data = saved("JPEG" if kind == "progressive" else kind, Image.fromarray(large), **options)
        at = int(len(data) * rng.uniform(0.2, 0.9))
        hows = {"cut": data[:at], "zeros": data[:at] + bytes(64) + data[at + 64 :]}
        if "JPEG" in (kind, kind.upper()) or kind == "progressive":
            hows["forged end"] = data[:at] + b"\xff\xd9"
            hows["ones"] = data[:at] + b"\xff" * 40 + data[at + 40 :]
            hows["end inside"] = data[:at] + b"\xff\xd9" + data[at:]
        if kind in ("TIFF", "GIF", "WEBP", "progressive"):
            del hows["zeros"]  # no sum tells it
        how = pick(rng, hows)
        return f"{kind}: {how}", hows[how], drawn, True


# ---- corrections


class Corrections:
    """Decisions of a person on a run, as a spreadsheet or Label Studio gives them back."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, rng: np.random.Generator) -> str:
        spellings = [
            (["ant", "bee", "(drop)x"], [str, lambda name: f" {name}", lambda name: f"{name} "]),
            (["0", "1", "2"], [str, "{}.0".format, "{},0".format, "{:>03}".format]),
            (["0.0", "1.0"], [str, lambda name: name[:-2], lambda name: name.replace(".", ",")]),
            (["00", "01", "11"], [str, lambda name: str(int(name)), lambda name: f"{int(name)}.0"]),
            (["False", "True"], [str, str.upper, str.lower, lambda name: str(int(name == "True"))]),
            (["=cat", "-dog"], [str, "'{}".format]),
        ]
        classes, ways = pick(rng, spellings)
        write = pick(rng, ways)
        numbers = [int(i) for i in rng.permutation(60)[: rng.integers(3, 9)]]
        form = pick(rng, ["{:04d}", "{}", "{:02d}", "x/{:03d}.png", "n {}"])
        ids = [form.format(i) for i in numbers]
        if rng.random() < 0.15:
            ids.append(f"{numbers[0]:07d}")
        given = [pick(rng, [*classes, ""]) for _ in ids]
        self._make_run(ids, given, classes)
        decisions = []
        for i in some(rng, range(len(ids)), 1, 5):
            action = pick(rng, ["keep", "relabel", "drop", "ambiguous"])
            label = pick(rng, classes) if action == "relabel" else ""
            if action == "keep" and not given[i]:
                action = "drop"
            decisions.append([ids[i], given[i], action, label])
        if rng.random() < 0.4:
            return self._label_studio(rng, decisions, classes)
        return self._sheet(rng, ids, decisions, write)

    def _make_run(self, ids: list[str], given: list[str], classes: list[str]) -> None:
        write_json(self.folder / "student" / "model.json", {"classes": classes})
        rows = [
            [name, "", "train" if label else "unlabeled", label]
            for name, label in zip(ids, given, strict=True)
        ]
        text = write_cells([["id", "path", "split", "given_label"], *rows], ",")
        (self.folder / "samples.csv").write_text(text)
        self.run = Run(self.folder, "denoise", Config())

    @staticmethod
    def _meant(decisions: list) -> list:
        """The kit's one way to say it: a label that is the given one is kept."""
        meant = []
        for name, given, action, label in decisions:
            label = given if action == "keep" else label
            learned = action in ("keep", "relabel")
            meant.append(
                [
                    name,
                    given,
                    ("keep" if label == given else "relabel") if learned else action,
                    label,
                ]
            )
        return sorted(meant)

    def _read(self, name: str, content: bytes) -> list:
        (self.folder / name).write_bytes(content)
        return read_corrections(self.run, self.folder / name).to_numpy().tolist()

    def _sheet(self, rng, ids: list[str], decisions: list, write: Callable) -> str:
        damage = pick(
            rng,
            [
                str,
                str.strip,
                " {} ".format,
                self._no_zeros,
                lambda name: self._no_zeros(name, ".0"),
                lambda name: self._no_zeros(name, ",0"),
            ],
        )
        rows = [
            [damage(name), given and write(given), action, label and write(label)]
            for name, given, action, label in decisions
        ]
        meant: Any = self._meant(decisions)
        same = [
            one
            for one in {*ids}
            if [self._no_zeros(other) for other in ids].count(self._no_zeros(one)) > 1
        ]
        if any(
            row[0] in same and cells[0] not in ids
            for row, cells in zip(decisions, rows, strict=True)
        ):
            meant = REFUSED
        elif any(
            row[0] in same and cells[0] != row[0]
            for row, cells in zip(decisions, rows, strict=True)
        ):
            return REFUSED  # it is the id of another row now; nobody can know
        header = ["id", "given_label", "action", "label"]
        name, given, action, label = rows[0]
        faults = {
            "id": [pick(rng, ["zebra", "7e1", "0x7", "7.5"]), given, action, label],
            "label": [name, given, "relabel", "owl"],
            "given": [name, "owl", action, label],
            "action": [name, given, pick(rng, ["kepe", "KEEP!", "remove"]), label],
        }
        fault = pick(rng, [*[""] * 6, *faults, "twice", "column", "empty", "run", "sha256"])
        rows[0] = faults.get(fault, rows[0])
        rows = {"twice": [*rows, rows[0]], "empty": []}.get(fault, rows)
        if fault == "column":
            header[pick(rng, range(4))] += "x"
        table = pd.DataFrame(rows, columns=header, dtype=object)
        table["note"] = [pick(rng, ["", "a, b", "x;y"]) for _ in rows]
        table["run"] = "of another" if fault == "run" else ""
        table["image_sha256"] = "ab" * 32 if fault == "sha256" else ""
        table = table[some(rng, table.columns, 9, 9)]
        lines = [list(table.columns), *table.to_numpy().tolist()]
        if rng.random() < 0.3:
            lines.insert(int(rng.integers(1, len(lines) + 1)), [""] * 7)
        text = write_cells(lines, pick(rng, ",;\t"), pick(rng, ["\n", "\r\n"]), rng.random() < 0.3)
        content = text.encode(pick(rng, ["utf-8", "utf-8-sig", "utf-16"]))
        meant = REFUSED if fault else meant
        return judge(lambda: self._read("c.csv", content), meant, (fault, ids, text))

    @staticmethod
    def _no_zeros(name: str, more: str = "") -> str:
        return str(int(name)) + more if name.isdigit() else name

    def _label_studio(self, rng, decisions: list, classes: list[str]) -> str:
        """An export: other blocks, marks that are no choices, canceled and older annotations beside the last one."""
        block = pick(rng, ["label", "choice", "Class", "", "klasse 1"])
        other = pick(rng, ["", "", "quality", "Task 2"])
        marks = {"drop": "(drop)", "ambiguous": "(ambiguous)"}
        tasks, blocks = [], set()
        fault = pick(rng, [""] * 6 + ["class", "id", "two", "no list", "given"])
        for name, given, action, label in decisions:
            text = given if action == "keep" else label or marks[action]
            result = [self._mark(block, text)]
            blocks.add(block)
            if other and rng.random() < 0.7:
                beside = self._mark(other, pick(rng, ["good", *classes]))
                result.insert(int(rng.integers(2)), beside)
                blocks.add(other)
            if rng.random() < 0.3:
                result.append({"from_name": "box", "type": "rectanglelabels", "value": {"x": 1}})
            older = [self._mark(block, pick(rng, classes))]
            canceled = [self._mark(block, "x")]
            annotations = [
                {"result": result, "updated_at": "2024-05-05T10:00:00Z"},
                {"result": older, "updated_at": "2023-01-01T00:00:00Z"},
                {"result": canceled, "updated_at": "2025-01-01T00:00:00Z", "was_canceled": True},
            ]
            others = [one for one in annotations[1:] if rng.random() < 0.3]
            data = {"id": name, "given_label": given, "image_sha256": "", "run": ""}
            annotations = some(rng, [annotations[0], *others], 3, 3)
            tasks.append({"data": data, "annotations": annotations})
        meant: Any = self._meant(decisions)
        first = tasks[0]["annotations"]
        wrong = {"class": ["owl"], "two": classes[:2]}
        if fault in wrong:
            first[:] = [{"result": [self._mark(block, one) for one in wrong[fault]]}]
        wrong = {"id": {"id": "zebra"}, "given": {"given_label": "owl"}}
        tasks[0]["data"] |= wrong.get(fault, {})
        if len(blocks) > 1 and "label" not in blocks:
            meant = REFUSED  # which block holds the classes, the export does not say
        if fault:
            meant = REFUSED
        content = json.dumps({"tasks": tasks} if fault == "no list" else tasks).encode()
        return judge(lambda: self._read("c.json", content), meant, (fault, content.decode()))

    @staticmethod
    def _mark(block: str, text: str) -> dict:
        return {"from_name": block, "type": "choices", "value": {"choices": [text]}}


# ---- command lines

SETTINGS = {
    "train.lr": "0.5",
    "train.epochs": "3",
    "train.batch_size": "8",
    "pseudo.cutoff": "0.7",
    "pseudo.folds": "3",
    "pseudo.rounds": "2",
    "data.size": "32",
    "data.bad_images": "skip",
    "data.label_col": "kind",
    "metric": "auc",
    "seed": "7",
    "name": "007",
    "data.image_suffix": ".jpg",
    "train.augment": "none",
}
WRONG_VALUES = {
    "train.lr": ["fast", "[1]", "1e-3x", "-"],
    "train.epochs": ["three", "-1", "{a: 1}"],
    "pseudo.cutoff": ["high", "-0.1"],
    "pseudo.folds": ["1.5", "x", "[]"],
    "data.size": ["3", "big", "9999"],
    "data.bad_images": ["skp", "Skip", "1"],
    "metric": ["f1", "acc", "AUC", "roc"],
    "seed": ["x", "1.5"],
    "name": ["../x", "a b", "-"],
    "train.augment": ["strng", "Auto", "[1]"],
}


WRONG_PREDICTIONS = [
    [],
    ["--run"],
    ["--run", "gone"],
    ["--rnu", "gone"],
    ["--run", "gone", "--tta", "x"],
    ["--run", "gone", "--arm", "studnt"],
    ["--run", "gone", "--weights", "a"],
    ["--run", "gone", "--data", "gone.csv", "data.test=x"],
    ["--run", "gone", "--Data", "gone.csv"],
]


class CommandLines:
    """Settings of which some are mistyped. The kit ends with code 2 and names each; the others are taken as typed."""

    def __init__(self, folder: Path):
        self.file = folder / "c.yaml"
        self.file.write_text("")

    def __call__(self, rng: np.random.Generator) -> str:
        settings = {key: SETTINGS[key] for key in some(rng, SETTINGS, 0, 4)}
        typed = [f"{key}={value}" for key, value in settings.items()]
        kind = pick(rng, ["none", "key", "key", "value", "value", "both", "text", "option", "mode"])
        if kind == "none":
            return judge(lambda: self._values(typed, settings), settings, typed)
        wrong, named = [], []
        if kind in ("key", "both"):
            key = self._mistyped(rng, pick(rng, KEYS))
            wrong.append(f"{key}={pick(rng, ['1', 'x', '', 'true'])}")
            typed = [text for text in typed if not text.startswith(f"{key.removesuffix('.x')}=")]
            named.append(key.removesuffix(".x"))
        if kind in ("value", "both"):
            # Two keys of one section are judged together only after each of them.
            known = [one for one in WRONG_VALUES if one != "pseudo.cutoff" or kind == "value"]
            key = pick(rng, [one for one in known if one not in settings] or ["seed"])
            typed = [text for text in typed if not text.startswith(f"{key}=")]
            wrong.append(f"{key}={pick(rng, WRONG_VALUES[key])}")
            named.append(key)
        if kind == "text":
            wrong.append(pick(rng, ["nonsense", "train.lr", "=5", "train.lr:1", "1e-3", "é"]))
            named.append(wrong[-1])
        command, mode = pick(
            rng, [(cli.train_command, []), (cli.pseudo_command, ["--mode", "augment"])]
        )
        if kind == "option":
            wrong = [pick(rng, ["--frehs", "--chek", "--cofnig=x", "-x", "--lr=1", "--Fresh"])]
            named = [wrong[0].partition("=")[0]]
        if kind == "mode":
            command, mode = cli.pseudo_command, []
            if rng.random() < 0.3:
                return self._ends(cli.predict_command, pick(rng, WRONG_PREDICTIONS), [])
            wrong = pick(
                rng,
                [
                    ["--mode=augmnt"],
                    ["--mode", "Denoise"],
                    ["--mode"],
                    [],
                    ["--mode=select"],
                    ["--mode=export", "--run=x"],
                    ["--mode=apply", "--run=x"],
                    ["--mode=joint", "--corrections=x.csv"],
                ],
            )
            named = []
        arguments = (
            [*typed, *wrong] if kind in ("mode", "option") else some(rng, [*typed, *wrong], 99, 99)
        )
        start = ["--config", str(self.file), "data.train=gone.csv", f"out={self.file.parent}"]
        argv = [*mode, *start, *arguments]
        return self._ends(command, argv, named)

    @staticmethod
    def _mistyped(rng: np.random.Generator, key: str) -> str:
        """A key with a slip that makes it none."""
        i = int(rng.integers(len(key) - 1))
        slips = [
            key[:i] + key[i + 1] + key[i] + key[i + 2 :],
            key[:i] + key[i + 1 :],
            key[:i] + key[i] + key[i:],
            key.upper(),
            key.replace("_", "-"),
            key.rpartition(".")[2],
            "train." + key,
            key + ".x",
            key.replace(".", "_"),
        ]
        known = {*KEYS, *(name.partition(".")[0] for name in KEYS)}
        good = [
            slip
            for slip in slips
            if slip not in known and not slip.startswith((".", "-")) and ".." not in slip
        ]
        return pick(rng, good) if good else key + "x"

    def _values(self, typed: list[str], settings: dict) -> dict:
        config = load_config(self.file, typed)
        values = {}
        for key in settings:
            value: Any = config
            for name in key.split("."):
                value = getattr(value, name)
            is_number = isinstance(value, float) and value == float(settings[key])
            values[key] = settings[key] if is_number else str(value)
        return values

    @staticmethod
    def _ends(command: Callable, argv: list[str], named: list[str]) -> str:
        printed = io.StringIO()
        with redirect_stderr(printed):
            try:
                cli.main(partial(command, argv))
                code = 0
            except SystemExit as end:
                code = end.code
        text = printed.getvalue()
        lines = [line for line in text.splitlines() if line]
        if code != 2 or len(lines) != 1 or not lines[0].startswith("error: "):
            return f"{argv} ends with {code}: {text}"
        missing = [word for word in named if word not in text]
        return f"{argv}: {missing} not named in {text}" if missing else REFUSED


KINDS = {
    "roles": Roles,
    "submission": Submissions,
    "wild table": WildTables,
    "finding images": FindingImages,
    "pixels": Pixels,
    "corrections": Corrections,
    "command line": CommandLines,
}
