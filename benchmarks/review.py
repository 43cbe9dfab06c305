"""How fast does review.html open and scroll with 5,000 label issues, and how fast does --serve start with 100,000?

    python benchmarks/review.py [--n 5000] [--served 100000] [--repeats 5] [--only serve]

Two kinds of thumbnails: 28×28 gray PNG (digits) and 96 px JPEG (pieces of two photographs; both ship with
scikit-learn). Open: from the request to a page that has answered a key press by painting. Scroll: every frame moves the
grid by half its height. Serve: from the start of the process to its address, then to a page that shows the first
sample in a browser. Needs playwright and a Chromium.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from common import ROOT, mean_and_sd, save_results
from sklearn.datasets import load_digits, load_sample_images

from pseudokit.report.review import write_review
from tests.report.browser import open_browser

FRAMES = 300
SCROLL = """async (frames) => {
  const grid = document.getElementById("grid"), gaps = [];
  const frame = () => new Promise(requestAnimationFrame);
  let before = await frame();
  for (let i = 0; i < frames; i++) {
    grid.scrollTop += grid.clientHeight / 2;
    const now = await frame();
    gaps.push(now - before);
    before = now;
  }
  return { gaps, top: grid.scrollTop, cards: grid.querySelectorAll(".card").length };
}"""


def digit_images(n: int):
    rng, digits = np.random.default_rng(0), load_digits().images
    for i in range(n):
        image = cv2.resize(digits[i % len(digits)] * 15, (28, 28), interpolation=cv2.INTER_CUBIC)
        yield np.clip(image + rng.normal(0, 4, image.shape) * (image > 20), 0, 255).astype(np.uint8)


def photo_images(n: int):
    rng, photos = np.random.default_rng(0), load_sample_images().images
    for i in range(n):
        photo = photos[i % 2]
        y, x = (rng.integers(0, side - 192) for side in photo.shape[:2])
        yield cv2.resize(
            photo[y : y + 192, x : x + 192, ::-1], (96, 96), interpolation=cv2.INTER_AREA
        )


def write_run(run: Path, images, kind: str, n: int, n_files: int = 0) -> None:
    """A run folder as far as the page reads it: n label issues and as many rows that agree, of n_files images."""
    rng, folder = np.random.default_rng(0), run / "images"
    (run / "round_1").mkdir(parents=True)
    folder.mkdir()
    files = [folder / f"{i:05d}.{kind}" for i in range(n_files or 2 * n)]
    for path, image in zip(files, images(len(files)), strict=True):
        cv2.imwrite(str(path), image)
    paths = [str(files[i % len(files)]) for i in range(2 * n)]
    ids = [f"{i:06d}" for i in range(2 * n)]
    table = pd.DataFrame({"id": ids, "path": paths, "split": "train"})
    predicted = rng.integers(0, 10, 2 * n)
    given_labels = (predicted + np.where(np.arange(2 * n) < n, rng.integers(1, 10, 2 * n), 0)) % 10
    table = table.assign(
        given_label=given_labels,
        predicted=predicted,
        confidence=0.9,
        self_confidence=0.1,
        p_wrong=0.9,
        label=predicted,
        reason="",
        rank=np.arange(1, 2 * n + 1),
    )
    table["decision"] = np.where(given_labels == predicted, "keep", "relabel")
    table.to_csv(run / "samples.csv", index=False)
    table.to_csv(run / "label_issues.csv", index=False)
    table.to_csv(run / "round_1" / "decisions.csv", index=False)
    np.save(run / "round_1" / "log_probs.npy", rng.normal(0, 1, (2 * n, 10)).astype(np.float32))
    classes = "[" + ",".join(f'"{k}"' for k in range(10)) + "]"
    info = f'{{"round": 1, "cutoff": 0.8, "classes": {classes}}}'
    (run / "round_1" / "round.json").write_text(info)
    (run / "metrics.json").write_text(f'{{"round": 1, "rounds": [{info}]}}')
    (run / "duplicates.csv").write_text("cluster,id,path,split,given_label,kind,conflict\n")


def measure(browser, page_file: Path) -> dict:
    """One fresh browser context: milliseconds to open, and the gaps between frames while scrolling."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    page = context.new_page()
    start = time.perf_counter()
    page.goto(page_file.as_uri())
    page.keyboard.press("v")
    page.wait_for_selector(".card")
    page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    opened = 1000 * (time.perf_counter() - start)
    scrolled = page.evaluate(SCROLL, FRAMES)
    context.close()
    gaps = np.array(scrolled["gaps"])
    figures = {"median": np.median(gaps), "p95": np.percentile(gaps, 95), "longest": gaps.max()}
    row = {"open_ms": opened} | {f"frame_{key}_ms": value for key, value in figures.items()}
    return {key: round(float(value), 1) for key, value in row.items()} | {
        "cards": scrolled["cards"]
    }


def measure_server(browser, run: Path) -> dict:
    """Seconds from the start of the process to the address, and from there to the first sample in a browser."""
    start = time.perf_counter()
    command = [sys.executable, "pseudo.py", "--serve", "--run", str(run)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        started = time.perf_counter()
        page = browser.new_page()
        page.goto(line.split(" at ")[1].split(" ")[0])
        page.wait_for_selector("#single .sample")
        opened = time.perf_counter()
        page.close()
        process.terminate()
    return {"start_s": round(started - start, 2), "page_s": round(opened - started, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=5000, help="label issues in the page")
    parser.add_argument("--repeats", type=int, default=5, help="openings of each page")
    parser.add_argument("--served", type=int, default=100_000, help="label issues on the server")
    parser.add_argument("--only", choices=["page", "serve"])
    args = parser.parse_args()
    if args.only != "page":
        with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
            run = Path(folder) / "served"
            write_run(run, digit_images, "png", args.served, n_files=1000)
            (run / "config.yaml").write_text("name: served\n")
            rows = [{"n": args.served} | measure_server(browser, run) for _ in range(args.repeats)]
        save_results("review_serve", rows, serve_table(rows))
    if args.only == "serve":
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        for name, images, kind in (
            ("28 px PNG", digit_images, "png"),
            ("96 px JPEG", photo_images, "jpg"),
        ):
            run = Path(folder) / kind
            write_run(run, images, kind, args.n)
            start = time.perf_counter()
            page = write_review(run, args.n)
            facts = {
                "thumbnails": name,
                "n": args.n,
                "write_s": round(time.perf_counter() - start, 1),
            }
            facts["megabytes"] = round(page.stat().st_size / 1e6, 1)
            rows += [facts | measure(browser, page) for _ in range(args.repeats)]
        version = browser.version
    save_results("review", rows, table(rows, version))


def serve_table(rows: list[dict]) -> list[str]:
    start, page = ([row[key] for row in rows] for key in ("start_s", "page_s"))
    return [
        f"--serve with {rows[0]['n']:,} label issues, seconds",
        "",
        "| from the command to the address | from there to the first sample in a browser |",
        "|---|---|",
        f"| {mean_and_sd(start, 2)} | {mean_and_sd(page, 2)} |",
    ]


def table(rows: list[dict], version: str) -> list[str]:
    lines = [
        f"review.html with {rows[0]['n']:,} label issues and the examples they are compared with, headless Chromium "
        f"{version}, 1200 × 800; the machine was shared with other work",
        "",
        "| thumbnails | file, MB | written in, s | open, ms | scrolling, ms a frame: median | 95 % | longest | cards |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["thumbnails"] for row in rows):
        some = [row for row in rows if row["thumbnails"] == name]
        keys = ["open_ms", "frame_median_ms", "frame_p95_ms", "frame_longest_ms"]
        cells = [
            mean_and_sd([row[key] for row in some], 0 if key == "open_ms" else 1) for key in keys
        ]
        first = some[0]
        lines.append(
            f"| {name} | {first['megabytes']} | {first['write_s']} | {' | '.join(cells)} | {first['cards']} |"
        )
    return lines


if __name__ == "__main__":
    main()
