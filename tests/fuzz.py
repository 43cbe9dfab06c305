"""Random images, tables and configs from a seed: each is read right, or refused in one line.

A case returns what is wrong, as text, or nothing where its input is read right, or REFUSED. An error that is no
UserError is raised. Cases that are written from a meaning are in fuzz_wild.py.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any, NamedTuple

import numpy as np
import yaml

from pseudokit.config.load import KEYS, dump_config, is_text, load_config
from pseudokit.config.types import UserError
from pseudokit.data.images import decode
from tests import fuzz_wild
from tests.fuzz_wild import REFUSED
from tests.wild import common

ALPHABET = "aZ09 ,;\t\"'=+-@<>&%$#/\\.:_ëß猫🐈\u00a0\n\r"
WORDS = (
    "01",
    "1",
    "1.0",
    "NA",
    "nan",
    "None",
    "null",
    "",
    "TRUE",
    "-1",
    "1e5",
    "=1+1",
    "a,b",
    'a"b',
    "a;b",
    "cat",
    "dog ",
)
VALUES = (
    0,
    1,
    -1,
    2.5,
    1e-3,
    1e300,
    float("nan"),
    float("inf"),
    10**30,
    True,
    False,
    None,
    "",
    "x",
    "1e-3",
    "01",
    "yes",
    "a\tb",
    "a\nb",
    "\0",
    "\ud800",
    "x" * 300,
    [],
    [1, 2],
    ["a", "b"],
    [[0.9, 0.1], [0.1, 0.9]],
    {},
    {"a": 1},
    {1: 2},
    [{"Affine": {}}],
    "8.5h",
    "-3",
    "~",
    "*a",
    "&a",
    "!!int x",
    "2020-99-99",
    "[",
    "{",
    "fp32",
    "uniform",
    "auto",
    "../x",
    "C:\\x",
    "🐈",
)


def one_line(error: UserError) -> str:
    text = str(error)
    return "" if text and "\n" not in text and len(text) < 4500 else f"its line is {text[:99]!r}"


def damaged(rng: np.random.Generator, data: bytes) -> tuple[bytes, str]:
    """Some bytes cut off, changed, left out or put in."""
    kind = str(rng.choice(["cut", "flip", "drop", "insert", "number"]))
    bytes_, n = bytearray(data), len(data)
    at = int(rng.integers(n)) if n else 0
    if kind == "cut":
        del bytes_[at:]
    elif kind == "flip":
        for place in rng.integers(0, max(n, 1), rng.integers(1, 6)):
            bytes_[place : place + 1] = rng.bytes(1)
    elif kind == "drop":
        del bytes_[at : at + int(rng.integers(1, 40))]
    elif kind == "insert":
        bytes_[at:at] = rng.bytes(int(rng.integers(1, 40)))
    else:  # a length, a size or an offset of four bytes
        bytes_[at : at + 4] = int(
            rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 20_000, 65_535])
        ).to_bytes(4, "big")
    return bytes(bytes_), kind


def kinds_of_images() -> list[bytes]:
    cases = [
        case
        for case in common.images()
        if isinstance(case.wanted, str) and not isinstance(case.wanted, common.Refused)
    ]
    return [
        data for case in cases if isinstance(data := case.read.__closure__[0].cell_contents, bytes)
    ]


class Images:
    """Files in a folder, each a good image that was damaged."""

    def __init__(self, folder: Path):
        self.file, self.good = (
            str(folder / "x"),
            [data for data in kinds_of_images() if len(data) < 20_000],
        )

    def __call__(self, rng: np.random.Generator) -> str:
        whole = self.good[rng.integers(len(self.good))]
        data, kind = damaged(rng, whole)
        channels, side = [1, 3][rng.integers(2)], [None, 16][rng.integers(2)]
        Path(self.file).write_bytes(data)
        got = decode(self.file, channels, side)
        if got is None:
            return REFUSED
        if got.dtype != np.uint8 or not got.size or got.shape[2:] != {1: (), 3: (3,)}[channels]:
            return f"{kind}: an array {got.dtype} {got.shape}"
        if kind != "cut":
            return ""
        Path(self.file).write_bytes(whole)
        same = np.array_equal(got, decode(self.file, channels, side))
        return "" if same else f"an image cut to {len(data)} of {len(whole)} bytes is shown torn"


class Tables:
    """CSV as programs write it, and the same damaged. What is read must be what Python's own reader sees."""

    def __init__(self, folder: Path):
        self.file, self.images = folder / "t.csv", str(common.make_images(folder))

    def __call__(self, rng: np.random.Generator) -> str:
        rows = self._rows(rng)
        sep, end = str(rng.choice([",", ";", "\t"])), str(rng.choice(["\n", "\r\n"]))
        encoding = str(rng.choice(["utf-8", "utf-8-sig", "utf-16"]))
        text, quoted = io.StringIO(), rng.random() < 0.5 or any("\r" in name for name, _ in rows)
        csv.writer(
            text,
            delimiter=sep,
            lineterminator=end,
            quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL,
        ).writerows([["id", "label"], *rows])
        data = text.getvalue().encode(encoding)
        harm = rng.random() < 0.5
        data = damaged(rng, data)[0] if harm else data
        self.file.write_bytes(data)
        try:
            got = common.labels_of(
                train=str(self.file),
                image_dir=self.images,
                image_suffix=".png",
                unlabeled_values=[],
            )
        except UserError as error:
            odd = harm or any("\r" in name or name.startswith("/") for name, _ in rows)
            fault = "" if odd else f"a table without fault is refused: {error}"
            return one_line(error) or fault or REFUSED
        wanted = dict(rows) if not harm else self._plain(data, encoding, sep)
        return "" if got == wanted else f"labels {got} in place of {wanted}"

    def _rows(self, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Ids without two alike, and labels of at least one class that no two spellings have."""

        def word():
            return "".join(rng.choice(list(ALPHABET), rng.integers(1, 6)))

        ids = list(
            dict.fromkeys(
                f"{i:03d}" if rng.random() < 0.7 else word() for i in range(rng.integers(1, 9))
            )
        )
        # 000, 0 and " 0" would be three rows of one image.
        ids = [*{name.strip().lstrip("0"): name for name in ids if name.strip()}.values()] or [
            "000"
        ]
        classes = [str(one) for one in rng.choice(WORDS, 3, replace=False)]
        classes = [one for one in classes if one != "1.0"] + ["cat"]
        labels = [*rng.choice(classes, len(ids) - 1), "cat"]
        return [(name, str(label)) for name, label in zip(ids, labels, strict=True)]

    @staticmethod
    def _plain(data: bytes, encoding: str, sep: str) -> dict[str, str] | None:
        """The table by the standard library."""
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        # What holds one in quotes is refused.
        text = data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
        header, *rows = [
            row
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=sep)
            if any(cell.strip() for cell in row)
        ]
        records = [dict(zip(header, row + [""] * len(header), strict=False)) for row in rows]
        return {row["id"]: row["label"] for row in records}


class Configs:
    """Keys with values of any kind, in a file and typed."""

    def __init__(self, folder: Path):
        self.file, self.keys = folder / "c.yaml", [*KEYS]

    def __call__(self, rng: np.random.Generator) -> str:
        tree: dict[str, Any] = {}
        for key in rng.choice(self.keys, rng.integers(0, 4)):
            *above, last = key.split(".")
            branch = tree
            for name in above:
                branch = branch.setdefault(name, {})
            branch[last] = VALUES[rng.integers(len(VALUES))]
        data = yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
        data = damaged(rng, data)[0] if rng.random() < 0.5 else data
        self.file.write_bytes(data)
        typed = [
            (str(rng.choice(self.keys)), str(VALUES[rng.integers(len(VALUES))]))
            for _ in range(rng.integers(0, 2))
        ]
        try:
            config = load_config(self.file, [f"{key}={value}" for key, value in typed])
        except UserError as error:
            return one_line(error) or REFUSED
        for key, value in typed:
            got: Any = config
            for name in key.split("."):
                got = getattr(got, name)
            if is_text(key, value) and got != (value or None) and value not in ("null", "~"):
                return f"{key}={value!r} became {got!r}"
        self.file.write_text(dump_config(config), encoding="utf-8")
        again = load_config(self.file, [])
        return "" if again == config else "its own dump reads back as another config"


KINDS = {"image": Images, "table": Tables, "config": Configs, **fuzz_wild.KINDS}


class Outcomes(NamedTuple):
    """How many cases were read right, how many refused in one line, and those that were neither.

    silent: a wrong result without a word, or a wrong refusal. raised: tracebacks, hangs, memory.
    """

    right: int
    refused: int
    silent: list[str]
    raised: list[str]


def run(kind: str, folder: Path, n: int, seed: int = 0) -> Outcomes:
    """n cases of a kind. Case i has the seed (seed, i), so that it can be made again."""
    case = KINDS[kind](folder)
    right, refused, silent, raised = 0, 0, [], []
    for i in range(n):
        try:
            with common.limited(20):
                before = getrusage(RUSAGE_SELF).ru_maxrss
                outcome = case(np.random.default_rng([seed, i]))
                grown = (getrusage(RUSAGE_SELF).ru_maxrss - before) / 2**20
        except (Exception, common.Hangs) as error:
            raised.append(f"{kind} {i}: {type(error).__name__}: {error}")
            continue
        if grown > 1:
            raised.append(f"{kind} {i}: it takes {grown:.1f} GB")
        elif outcome in ("", REFUSED):
            right += outcome == ""
            refused += outcome == REFUSED
        else:
            silent.append(f"{kind} {i}: {outcome}")
    return Outcomes(right, refused, silent, raised)
