"""Unusual images, tables and configs by name, as strangers send them, and how the kit must read or refuse each.

Shared by test_wild.py and benchmarks/bad_inputs.py. A case is read as a run reads it, up to the first training step.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import signal
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy import ndarray
from PIL import Image
from pyarrow import parquet

from pseudokit.config.keys import Config, Data
from pseudokit.config.load import KEYS, MAX_CHARACTERS, load_config
from pseudokit.config.types import UserError
from pseudokit.data.csv_text import MAX_UNPACKED_BYTES
from pseudokit.data.dataset import load_dataset
from pseudokit.data.encoding import names
from pseudokit.data.images import load_images
from pseudokit.run_folder.folder import Run
from pseudokit.run_folder.prepare import prepare
from tests import naming

MAX_SECONDS = 60
"""Of one case: reading takes less than a second, so a case that takes longer hangs."""


class Refused(tuple):
    """What the message with which a case is refused must name: the file, and the key, row or value."""

    def __new__(cls, *parts: object):
        return super().__new__(cls, parts)


class Case(NamedTuple):
    """read(folder) returns the result, to be compared with `wanted`. slow: not for every test run."""

    kind: str
    name: str
    read: Callable[[Path], Any]
    wanted: Any
    slow: bool = False


class Hangs(Exception):
    pass


@contextmanager
def limited(seconds: int):
    """Raises Hangs where the block takes longer."""

    def stop(*_):
        raise Hangs

    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def check_case(case: Case, folder: Path, seconds: int = MAX_SECONDS) -> tuple[str, bool]:
    """Returns the line that the case prints (or `handled`) and whether that is right. Other errors are raised."""
    try:
        with limited(seconds):
            got = case.read(folder)
    except UserError as error:
        line = str(error)
        right = (
            isinstance(case.wanted, Refused)
            and naming.names(line, *case.wanted)
            and naming.is_one_line(line)
        )
        return line.replace(f"{folder}/", ""), right
    return "handled", got == case.wanted


# ---- images: red, green / blue, white in the four corners, so that a turned or torn one is seen

CORNERS = {
    "r": (255, 0, 0),
    "g": (0, 255, 0),
    "b": (0, 0, 255),
    "w": (255, 255, 255),
    "k": (0, 0, 0),
    "y": (128,) * 3,
}


def picture(side: int = 32) -> ndarray:
    image = np.zeros((side, side, 3), np.uint8)
    half = side // 2
    for name, (top, left) in zip("rgbw", ((0, 0), (0, half), (half, 0), (half, half)), strict=True):
        image[top : top + half, left : left + half] = CORNERS[name]
    return image


def saved(kind: str, image: Any = None, **options) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(picture()) if image is None else image
    image.save(file, kind, **options)
    return file.getvalue()


def corners(image: ndarray) -> str:
    """The nearest named color a quarter from each corner, in reading order."""
    a, b = image.shape[0] // 4, 3 * image.shape[0] // 4
    seen = [image[i, j].astype(int) for i in (a, b) for j in (a, b)]
    return "".join(
        min(CORNERS, key=lambda name: np.abs(np.array(CORNERS[name]) - one).sum()) for one in seen
    )


def read_image(
    content: bytes | Callable[[Path], Any], name: str = "x.png"
) -> Callable[[Path], str]:
    def read(folder: Path) -> str:
        good = folder / "good.png"
        good.write_bytes(saved("PNG"))
        file = folder / name
        content(file) if callable(content) else file.write_bytes(content)
        pixels, _ = load_images(np.array([str(good), str(file)], object), Data(size=16, channels=3))
        assert corners(pixels[0]) == "rgbw"
        return corners(pixels[1])

    return read


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes, *more: bytes, color: int = 0) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    parts = (chunk(b"IHDR", head), *more, chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def zeros(n: int) -> bytes:
    """n zero bytes, compressed."""
    packer, block = zlib.compressobj(1), bytes(1_000_000)
    return (
        b"".join(packer.compress(block) for _ in range(n // len(block)))
        + packer.compress(bytes(n % 1_000_000))
        + (packer.flush())
    )


def huge_jpeg() -> bytes:
    """A small JPEG whose header says 20,000×20,000."""
    data = bytearray(saved("JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 20_000, 20_000)
    return bytes(data)


def turned(orientation: int, how: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved("JPEG", Image.fromarray(picture()).transpose(how), quality=95, exif=exif.tobytes())


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def folder_of_class(file: Path) -> None:
    (file.with_suffix("") / "a").mkdir(parents=True)
    file.symlink_to(file.with_suffix(""))


def with_alpha() -> Image.Image:
    return Image.fromarray(np.dstack([picture(), np.full((32, 32), 9, np.uint8)]))


def images() -> list[Case]:
    bad, pil, more = (
        Refused("x.png", "data.bad_images"),
        Image.fromarray(picture()),
        Image.fromarray(picture()[::-1]),
    )
    deep = picture().astype(np.uint16)[:, :, ::-1] * 257
    tiff = (
        struct.pack("<2sHIH", b"II", 42, 8, 2)
        + b"".join(struct.pack("<HHII", tag, 4, 1, 20_000) for tag in (256, 257))
        + bytes(4)
    )
    bmp = b"BM" + struct.pack(
        "<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 20_000, 20_000, 1, 24, 0, 0, 0, 0, 0, 0
    )
    webp = (
        b"RIFF"
        + struct.pack("<I4s4sI", 22, b"WEBP", b"VP8L", 10)
        + b"\x2f"
        + struct.pack("<I", 16_382 | 16_382 << 14)
        + bytes(5)
    )
    good = {
        "PNG": saved("PNG"),
        "JPEG": saved("JPEG", quality=95),
        "BMP": saved("BMP"),
        "TIFF": saved("TIFF"),
        "WebP": saved("WEBP", lossless=True),
        "PPM": saved("PPM"),
    }
    inputs = {f"{kind} under another suffix": (data, "rgbw") for kind, data in good.items()}
    inputs |= {f"{kind} cut in half": (cut(data, 0.5), bad) for kind, data in good.items()}
    inputs |= {f"{kind} without its last byte": (data[:-1], bad) for kind, data in good.items()}
    inputs |= {
        "zero bytes": (b"", bad),
        "missing": (lambda file: None, bad),
        "a folder named like an image": (os.mkdir, bad),
        "a link to a folder": (folder_of_class, bad),
        "a link to nowhere": (lambda file: file.symlink_to("gone"), bad),
        "a link to itself": (lambda file: file.symlink_to(file.name), bad),
        "text": (b"an error page", bad),
        "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', bad),
        "PDF": (b"%PDF-1.4\n", bad),
        "ZIP": (b"PK\x03\x04" + bytes(99), bad),
        "CMYK": (saved("JPEG", pil.convert("CMYK"), quality=95), "rgbw"),
        "palette": (saved("PNG", pil.quantize(4)), "rgbw"),
        "1 bit": (saved("PNG", Image.fromarray(picture()[:, :, 0]).convert("1")), "wkkw"),
        "gray": (saved("PNG", Image.fromarray(np.full((9, 9), 128, np.uint8))), "yyyy"),
        "alpha": (saved("PNG", with_alpha()), "rgbw"),
        "gray with alpha": (saved("PNG", Image.new("LA", (9, 9), (128, 3))), "yyyy"),
        "16 bit": (cv2.imencode(".png", deep)[1].tobytes(), "rgbw"),
        "16 bit gray": (
            cv2.imencode(".png", np.full((9, 9), 32_900, np.uint16))[1].tobytes(),
            "yyyy",
        ),
        "animated PNG": (saved("PNG", save_all=True, append_images=[more]), "rgbw"),
        "animated WebP": (
            saved("WEBP", lossless=True, save_all=True, append_images=[more]),
            "rgbw",
        ),
        "TIFF of two pages": (saved("TIFF", save_all=True, append_images=[more]), "rgbw"),
        "progressive JPEG": (saved("JPEG", progressive=True, quality=95), "rgbw"),
        "EXIF: upside down": (turned(3, Image.Transpose.ROTATE_180), "rgbw"),
        "EXIF: on its side": (turned(6, Image.Transpose.ROTATE_90), "rgbw"),
        "1×1": (saved("PNG", Image.new("RGB", (1, 1), "red")), "rrrr"),
        "1×9000": (saved("PNG", Image.new("RGB", (1, 9000), "red")), "rrrr"),
        "PNG of no size": (png(0, 0, zeros(0)), bad),
        "PNG of 2³¹−1 × 2³¹−1": (png(2**31 - 1, 2**31 - 1, zeros(9)), bad),
        "PNG of 20,000×20,000": (png(20_000, 20_000, zeros(9)), bad),
        "JPEG of 20,000×20,000": (huge_jpeg(), bad),
        "TIFF of 20,000×20,000": (tiff, bad),
        "BMP of 20,000×20,000": (bmp, bad),
        "PPM of 20,000×20,000": (b"P6\n20000 20000\n255\n", bad),
        "WebP of 16,383×16,383": (webp, bad),
        "text that unpacks to 100 MB in a PNG": (
            png(8, 8, zeros(72), chunk(b"zTXt", b"a\0\0" + zeros(100_000_000))),
            "kkkk",
        ),
        "color profile that unpacks to 100 MB in a PNG": (
            png(8, 8, zeros(72), chunk(b"iCCP", b"a\0\0" + zeros(100_000_000))),
            "kkkk",
        ),
        "a chunk of 4 GB in a PNG": (good["PNG"][:33] + b"\xff" + good["PNG"][34:], bad),
        "rows too few for the header": (png(900, 900, zeros(99)), bad),
    }
    cases = [
        Case("image", name, read_image(data), wanted) for name, (data, wanted) in inputs.items()
    ]
    bomb = Case(
        "image",
        "bomb: 20,000×20,000 black pixels in 390 KB",
        lambda folder: read_image(png(20_000, 20_000, zeros(20_001 * 20_000)))(folder),
        bad,
        slow=True,
    )
    names = {
        "with a line break": "a\nb.png",
        "with a pattern": "[a]*?.png",
        "with an emoji": "🐈.png",
    }
    cases += [
        Case("image", f"a name {what}", read_image(saved("PNG"), name), "rgbw")
        for what, name in names.items()
    ]
    return [*cases, bomb]


# ---- tables: what the labels are, by id

PLAIN = "id,label\n000,cat\n001,dog\n002,cat\n003,dog\n"
LABELS = {"000": "cat", "001": "dog", "002": "cat", "003": "dog"}


def make_images(folder: Path, n: int = 24) -> Path:
    """000.png … with 16×16 pixels of their own."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(exist_ok=True)
    for i in range(n):
        cv2.imwrite(
            str(folder / "images" / f"{i:03d}.png"), rng.integers(0, 255, (16, 16), np.uint8)
        )
    return folder / "images"


def labels_of(**data) -> dict[str, str]:
    """id → class name, as a run reads them."""
    dataset = load_dataset(Data(**data))
    return dict(zip(dataset.id, names(dataset.given_labels, dataset.classes), strict=True))


def read_table(
    content: bytes | str | pd.DataFrame, name: str = "t.csv", **data
) -> Callable[[Path], dict]:
    def read(folder: Path) -> dict[str, str]:
        file = folder / name
        if isinstance(content, pd.DataFrame):
            content.to_parquet(file)
        else:
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return labels_of(
            **{"train": str(file), "image_dir": str(make_images(folder)), "image_suffix": ".png"}
            | data
        )

    return read


def prepared(table: str, **options) -> Callable[[Path], str]:
    """What a run in mode denoise says of a table before it trains."""

    def read(folder: Path) -> str:
        (folder / "t.csv").write_text(table)
        data = Data(
            train=str(folder / "t.csv"),
            image_dir=str(make_images(folder)),
            image_suffix=".png",
            **options,
        )
        prepare(Run(folder, "denoise", Config(name="x", data=data)))
        return "prepared"

    return read


def a_million(folder: Path) -> int:
    images, n = make_images(folder), 1_000_000
    lines = [f"{i:07d},{'cat' if i % 3 else '01'}\n" for i in range(n)]
    (folder / "t.csv").write_text("id,label\n" + "".join(lines))
    (images / "0000000.png").write_bytes((images / "000.png").read_bytes())
    dataset = load_dataset(
        Data(train=str(folder / "t.csv"), image_dir=str(images), image_suffix=".png")
    )
    return [(dataset.given_labels == k).sum() for k in range(2)] == [(n + 2) // 3, n - (n + 2) // 3]


def from_folder(folder: Path) -> dict[str, str]:
    """<class>/<file> with what else lies in such folders."""
    root, images = folder / "set", make_images(folder)
    for label in ("01", "NA", "a b"):
        (root / label).mkdir(parents=True)
        (root / label / "x.png").write_bytes((images / "000.png").read_bytes())
    (root / "NA" / "notes.txt").write_text("x")
    (root / ".DS_Store").write_text("x")
    (root / "NA" / "again").symlink_to(root)
    return labels_of(train=str(root), unlabeled_values=[])


def undecodable(folder: Path) -> dict[str, str]:
    (folder / "set").mkdir()
    os.mkdir(os.fsencode(folder / "set") + b"/\xff")
    with open(os.fsencode(folder / "set") + b"/\xff/x.png", "wb") as file:
        file.write(saved("PNG"))
    return labels_of(train=str(folder / "set"))


def many_rows(folder: Path) -> Any:
    one = pa.DictionaryArray.from_arrays(np.zeros(11_000_000, np.int8), ["000"])
    parquet.write_table(pa.table({"id": one, "label": one}), folder / "t.parquet")
    return labels_of(train=str(folder / "t.parquet"))


def no_utf8(folder: Path) -> Any:
    text = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a\xff", b"b"]).buffers())
    parquet.write_table(pa.table({"id": ["000", "001"], "label": text}), folder / "t.parquet")
    return labels_of(train=str(folder / "t.parquet"))


def bomb(folder: Path) -> Any:
    with gzip.open(folder / "t.csv.gz", "wb", 1) as file:
        file.write(b"id,label\n")
        for _ in range(300):
            file.write(b"0" * 1_000_000)
    return labels_of(train=str(folder / "t.csv.gz"))


def tables() -> list[Case]:
    semicolons, group = PLAIN.replace(",", ";"), "id,label,g\n"
    odd_id = LABELS | {'a"b\nc': "cat"}
    frame, rows = (
        pd.DataFrame({"id": [*LABELS], "label": [*LABELS.values()]}),
        PLAIN.partition("\n")[2],
    )
    inputs = {
        "UTF-8 with a mark": ("\ufeff" + PLAIN, LABELS),
        "UTF-16": (PLAIN.encode("utf-16"), LABELS),
        "UTF-16 with tabs": (PLAIN.replace(",", "\t").encode("utf-16"), LABELS),
        "semicolons": (semicolons, LABELS),
        "semicolons and decimal commas": (
            semicolons.replace("label", "label;x")
            .replace("cat", "cat;0,5")
            .replace("dog", "dog;1,5"),
            LABELS,
        ),
        "tabs": (PLAIN.replace(",", "\t"), LABELS),
        "line ends of Windows": (PLAIN.replace("\n", "\r\n"), LABELS),
        "line ends of old Macs": (PLAIN.replace("\n", "\r"), LABELS),
        "empty lines": (PLAIN.replace("\n", "\n\n"), LABELS),
        "Latin-1": ((PLAIN + "004,café\n").encode("latin-1"), Refused("t.csv", "UTF-8")),
        "quotes and line breaks in ids": (PLAIN + '"a""b\nc",cat\n', odd_id),
        "a quote left open": (PLAIN + '004,"cat\n', Refused("t.csv", "CSV")),
        "a quote left open and closed rows later": (
            PLAIN + '004,"cat\n005,dog\n006,cat"\n',
            Refused("data.train", "t.csv", r"cat\n005,dog\n006,cat"),
        ),
        "NUL in an id": (PLAIN + "0\x0004,cat\n", Refused("t.csv", "NUL")),
        "leading zeros in labels": (
            "id,label\n000,01\n001,1\n002,01\n",
            {"000": "01", "001": "1", "002": "01"},
        ),
        "NA, nan, None and null": (
            "id,label\n000,NA\n001,nan\n002,None\n003,null\n004,\n",
            Refused("t.csv", "data.unlabeled_values"),
        ),
        "TRUE and yes as classes": ("id,label\n000,TRUE\n001,yes\n", {"000": "TRUE", "001": "yes"}),
        "a class in emoji": (PLAIN + "004,🐈\n", LABELS | {"004": "🐈"}),
        "cat and cat with a blank": (PLAIN + "004,cat \n", Refused("t.csv", "'cat'", "'cat '")),
        "an accent coded in two ways": (
            PLAIN + "004,caf\u00e9\n005,cafe\u0301\n",
            Refused("t.csv", "'caf\u00e9'", "'cafe\u0301'"),
        ),
        "1 and 1.0": ("id,label\n000,1\n001,1.0\n002,2\n", Refused("t.csv", "'1'", "'1.0'")),
        "cat and cat with a letter that cannot be seen": (
            PLAIN + "004,cat\u200b\n",
            Refused("t.csv", "'cat'", r"'cat\u200b'"),
        ),
        "a label of a letter that cannot be seen": (
            PLAIN + "004,\u3164\n",
            Refused("t.csv", "'\u3164'"),
        ),
        "a label of one blank": (PLAIN + "004, \n", Refused("t.csv", "' '")),
        "a label that turns text around": (
            PLAIN + "004,\u202ecat\n",
            Refused("t.csv", r"'\u202ecat'"),
        ),
        "a label with a color of the terminal": (
            PLAIN + "004,\x1b[31mcat\n",
            Refused("t.csv", r"'\x1b[31mcat'"),
        ),
        "a label column twice": (
            "id,label,label\n000,cat,dog\n001,dog,cat\n",
            Refused("t.csv", "'label'"),
        ),
        "an id column twice": ("id,id,label\n000,001,cat\n", Refused("t.csv", "'id'")),
        "a short row": (PLAIN + "004\n", Refused("t.csv", "line 6")),
        "a long row": (PLAIN + "004,cat,x\n", Refused("t.csv", "CSV")),
        "a comma at the end of rows": (
            PLAIN.replace("cat\n", "cat,\n").replace("dog\n", "dog,\n"),
            Refused("t.csv"),
        ),
        "no header": (PLAIN.partition("\n")[2], Refused("t.csv", "data.id_col")),
        "a header with blanks": (
            PLAIN.replace("id,label", "id, label"),
            Refused("t.csv", "' label'", "data.label_col"),
        ),
        "5,000 columns and no label": (
            "id," + ",".join(f"c{i}" for i in range(5000)) + "\n000" + "," * 5000 + "\n",
            Refused("t.csv", "'c0'", "data.label_col"),
        ),
        "0 rows": ("id,label\n", Refused("t.csv")),
        "an empty file": ("", Refused("t.csv", "CSV")),
        "an image": (saved("PNG"), Refused("t.csv", "CSV")),
        "an id twice": (PLAIN + "000,dog\n", Refused("'000'", "2", "data.train")),
        "a label of 200,000 letters": (
            PLAIN + "004," + "x" * 200_000 + "\n",
            LABELS | {"004": "x" * 200_000},
        ),
    }
    cases = [
        Case("table", name, read_table(data), wanted) for name, (data, wanted) in inputs.items()
    ]
    unpacked = {f"no archive, named {ending}": ending for ending in ("gz", "zip", "xz", "bz2")}
    cases += [
        Case("table", name, read_table("x", f"t.csv.{ending}"), Refused("t.csv", "CSV"))
        for name, ending in unpacked.items()
    ]
    zipped, several = io.BytesIO(), io.BytesIO()
    for file, members in ((zipped, "a"), (several, "ab")):
        with zipfile.ZipFile(file, "w") as archive:
            for member in members:
                archive.writestr(member, PLAIN)
    packed = {
        "gz": gzip.compress(PLAIN.encode()),
        "xz": lzma.compress(PLAIN.encode("utf-16")),
        "bz2": bz2.compress(PLAIN.encode()),
        "zip": zipped.getvalue(),
    }
    cases += [
        Case("table", f"packed as {ending}", read_table(data, f"t.csv.{ending}"), LABELS)
        for ending, data in packed.items()
    ]
    gaps = gzip.compress(PLAIN.encode()) + gzip.compress(b"\0\0,cat\n")
    refused = {
        "two files in a zip": (several.getvalue(), "zip", Refused("t.csv.zip", "2")),
        "packed as zst": (
            b"\x28\xb5\x2f\xfd" + bytes(range(128, 256)),
            "zst",
            Refused("t.csv.zst", "CSV"),
        ),
        "packed as tar": (
            b"t.csv".ljust(512, b"\0") + PLAIN.encode(),
            "tar",
            Refused("t.csv.tar", "CSV"),
        ),
        "NUL in a packed table": (gaps, "gz", Refused("t.csv.gz", "NUL")),
        "a packed table that is cut": (
            gzip.compress(PLAIN.encode())[:-6],
            "gz",
            Refused("t.csv.gz", "CSV"),
        ),
    }
    cases += [
        Case("table", name, read_table(data, f"t.csv.{ending}"), wanted)
        for name, (data, ending, wanted) in refused.items()
    ]
    cases += [
        Case(
            "table",
            "a packed table of 300 MB",
            bomb,
            Refused("t.csv.gz", f"{MAX_UNPACKED_BYTES:,}"),
            slow=True,
        )
    ]
    of_kinds = {
        "parquet: numbers with a gap": (
            frame.assign(label=[1, 0, None, 1]),
            LABELS | {"000": "1", "001": "0", "002": "", "003": "1"},
        ),
        "parquet: None and the class None": (
            frame.assign(label=["None", None, "cat", "cat"]),
            Refused("t.parquet", "data.unlabeled_values"),
        ),
        "parquet: large numbers with a gap": (
            frame.assign(label=pd.array([2**53, 2**53 + 1, None, 2**53], "Int64")),
            {"000": str(2**53), "001": str(2**53 + 1), "002": "", "003": str(2**53)},
        ),
        "parquet: labels in bytes": (
            frame.assign(label=[b"a", b"b", b"a", b"b"]),
            Refused("t.parquet", "'label'", "data.label_col"),
        ),
        "parquet: labels in lists": (
            frame.assign(label=[[1], [2], [1], [2]]),
            Refused("t.parquet", "'label'", "data.label_col"),
        ),
        "parquet: ids that are numbers": (
            frame.assign(id=[0, 1, 2, 3]),
            dict(zip("0123", LABELS.values(), strict=True)),
        ),
        "parquet: cut": (b"PAR1 cut", Refused("t.parquet")),
    }
    cases += [
        Case("table", name, read_table(data, "t.parquet"), wanted)
        for name, (data, wanted) in of_kinds.items()
    ]
    one_hot = "id,cat,dog\n000,1,0\n001,0,1\n002,,\n"
    with_keys = {
        "NA, nan, None and null as classes": (
            read_table("id,label\n000,NA\n001,nan\n002,None\n003,null\n", unlabeled_values=[]),
            {"000": "NA", "001": "nan", "002": "None", "003": "null"},
        ),
        "one-hot": (
            read_table(one_hot, label_col=["cat", "dog"]),
            {"000": "cat", "001": "dog", "002": ""},
        ),
        "one-hot: nan": (
            read_table(one_hot + "003,nan,1\n", label_col=["cat", "dog"]),
            Refused("t.csv", "line 5"),
        ),
        "one-hot: one column twice": (
            read_table(one_hot, label_col=["cat", "cat"]),
            Refused("data.label_col", "'cat'"),
        ),
        "a quote left open in a group": (
            read_table(
                'id,label,g\n000,cat,"p1\n001,dog,p2\n002,cat,p"\n003,dog,p4\n', group_col="g"
            ),
            Refused("t.csv", r"'p1\n001,dog,p2\n002,cat,p'"),
        ),
        "parquet: 11,000,000 rows in a few kilobytes": (
            many_rows,
            Refused("t.parquet", "11,000,000"),
        ),
        "parquet: text that is not UTF-8": (no_utf8, Refused("t.parquet")),
        "PARQUET in capitals": (read_table(frame, "t.PARQUET"), LABELS),
        "no image_dir": (read_table(PLAIN, image_dir="gone"), LABELS),
        "one class": (
            prepared("id,label\n" + rows.replace("dog", "cat")),
            Refused("data.train", "'cat'"),
        ),
        "a class with one row": (
            prepared(PLAIN + "004,owl\n"),
            Refused("'owl'", "1", "pseudo.folds=2"),
        ),
        "a class missing from a fold": (
            prepared(
                group
                + "".join(
                    f"{i:03d},{'cat' if i % 2 else 'owl'},{'z' if not i % 2 else i}\n"
                    for i in range(24)
                ),
                group_col="g",
            ),
            Refused("'owl'", "data.group_col"),
        ),
        "a folder with notes and a link in a circle": (
            from_folder,
            {"set/01/x.png": "01", "set/NA/x.png": "NA", "set/a b/x.png": "a b"},
        ),
        "a folder whose name is not UTF-8": (
            undecodable,
            Refused("data.train", r"set/\udcff/x.png"),
        ),
    }
    cases += [Case("table", name, read, wanted) for name, (read, wanted) in with_keys.items()]
    return [*cases, Case("table", "a million rows", a_million, True, slow=True)]


# ---- configs: what the keys become


def read_config(text: str | bytes, *overrides: str, keys: str = "") -> Callable[[Path], Any]:
    """keys: those whose values are returned, divided by blanks."""

    def read(folder: Path) -> list:
        (folder / "c.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        config = load_config(folder / "c.yaml", list(overrides))
        values = []
        for key in keys.split():
            assert key in KEYS
            value = config
            for part in key.split("."):
                value = getattr(value, part)
            values.append(value)
        return values

    return read


def configs() -> list[Case]:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    nested = "model:\n  kwargs:\n" + "".join(f"    {line}\n" for line in bomb.splitlines())
    inputs = {
        "aliases that grow": (nested, (), "", Refused("c.yaml", "line 4")),
        "an alias to itself": ("model: &a {kwargs: *a}", (), "", Refused("c.yaml", "line 1")),
        "tabs": ("data:\n\ttrain: x\n", (), "", Refused("c.yaml", "line 2")),
        "leading zeros in classes": (
            "data: {label_col: [01, 10, 08]}\n",
            (),
            "data.label_col",
            [["01", "10", "08"]],
        ),
        "a leading zero in a number": ("seed: 017\n", (), "seed", [17]),
        "a name that is a date": ("name: 2024-01-02\n", (), "name", ["2024-01-02"]),
        "hours and minutes": ("time_budget: 1:30\n", (), "", Refused("c.yaml", "time_budget")),
        "UTF-8 with a mark": (b"\xef\xbb\xbfseed: 1\n", (), "seed", [1]),
        "UTF-16": ("seed: 1".encode("utf-16"), (), "", Refused("c.yaml", "YAML")),
        "Latin-1": (b"name: \xe9\n", (), "", Refused("c.yaml", "YAML")),
        "NUL": ("name: \0\n", (), "", Refused("c.yaml", "YAML")),
        "NUL, as \\0": ('data: {train: "a\\0b"}', (), "", Refused("c.yaml", "data.train")),
        "half a character": ('data: {train: "\\ud800"}', (), "", Refused("c.yaml", "data.train")),
        "1e-3": ("train: {lr: 1e-3}", (), "train.lr", [0.001]),
        "1e-3 typed": ("", ("train.lr=1e-3",), "train.lr", [0.001]),
        "NaN": ("train: {lr: .nan}", (), "", Refused("c.yaml", "train.lr")),
        "infinity": ("train: {epochs: .inf}", (), "", Refused("c.yaml", "train.epochs")),
        "unknown keys": (
            "trian: {lr: 1}\nfolds: 3",
            (),
            "",
            Refused("c.yaml", "trian", "folds", "pseudo.folds"),
        ),
        "3,000 unknown keys": (
            "\n".join(f"k{i}: 1" for i in range(3000)),
            (),
            "",
            Refused("c.yaml", "k0", "k9", "2990"),
        ),
        "a key of 100,000 letters": (
            "x" * 100_000 + ": 1",
            (),
            "",
            Refused("c.yaml", "YAML"),
        ),
        "a value of 100,000 letters": (f"seed: {'x' * 100_000}", (), "", Refused("c.yaml", "seed")),
        "a number of 5,000 digits": (
            f"seed: {'9' * 5000}",
            (),
            "",
            Refused("c.yaml", "YAML"),
        ),
        "a key twice": ("seed: 1\nseed: 2\n", (), "", Refused("c.yaml", "'seed'")),
        "a section without content": ("data:", (), "", Refused("c.yaml", "data")),
        "a section that is text": ("data: x", (), "", Refused("c.yaml", "data")),
        "a list": ("- 1", (), "", Refused("c.yaml")),
        "a word": ("hello", (), "", Refused("c.yaml")),
        "zero": ("0", (), "", Refused("c.yaml")),
        "nothing": ("", (), "seed", [0]),
        "two documents": ("a: 1\n---\nb: 2\n", (), "", Refused("c.yaml", "YAML")),
        "a number that is text": ("seed: x", (), "", Refused("c.yaml", "seed")),
        "a number with decimals": ("seed: 1.5", (), "", Refused("c.yaml", "seed")),
        "a list in place of a number": ("seed: [1]", (), "", Refused("c.yaml", "seed")),
        "a key that is no text": ("1: 2", (), "", Refused("c.yaml", "1")),
        "a key that is a list": ("? [a, b]\n: 2", (), "", Refused("c.yaml", "YAML")),
        "a day that is none": (
            "seed: 2020-99-99",
            (),
            "",
            Refused("c.yaml", "seed"),
        ),
        "!!int x": ("seed: !!int x", (), "", Refused("c.yaml", "YAML")),
        "!!timestamp x": ("seed: !!timestamp x", (), "", Refused("c.yaml", "YAML")),
        "5,000 brackets": ("a: " + "[" * 5000 + "]" * 5000, (), "", Refused("c.yaml", "YAML")),
        "5,000 brackets typed": (
            "",
            ("train.augment=" + "[" * 5000,),
            "",
            Refused("train.augment"),
        ),
        "2 MB": ("#" * 2_000_000, (), "", Refused("c.yaml", f"{MAX_CHARACTERS:,}")),
        "image_dir=[]": ("", ("data.image_dir=[]",), "", Refused("data.image_dir")),
        "label_col=[]": ("", ("data.label_col=[]",), "", Refused("data.label_col")),
        "seed=-1": ("", ("seed=-1",), "", Refused("seed")),
        "no sign of equality": ("", ("train.lr",), "", Refused("'train.lr'")),
        "a name with leading zeros, typed": ("", ("name=007",), "name", ["007"]),
        "yes as a column, typed": ("", ("data.label_col=yes",), "data.label_col", ["yes"]),
        "time_budget: 8,5h": ("time_budget: 8,5h", (), "", Refused("c.yaml", "time_budget")),
    }
    return [
        Case("config", name, read_config(text, *typed, keys=keys), wanted)
        for name, (text, typed, keys, wanted) in inputs.items()
    ]


def cases() -> list[Case]:
    return [*images(), *tables(), *configs()]
