"""What to do with a finished run: the last lines of report.html and of the terminal."""

import os
import shlex
import shutil
import sys
from pathlib import Path

NEXT_COMMANDS = {
    "review": ("review.html", "pseudo.py --serve --run {run}"),
    "apply": ("review.html", "pseudo.py --mode apply --run {run} --corrections {run}/review.csv"),
    "suggest": ("pseudo_labels.csv", "pseudo.py --mode suggest --run {run}"),
    "predict": ("student/model.json", "predict.py --run {run} --data NEW_IMAGES"),
    "export": ("labels.csv", "pseudo.py --mode export --run {run} --format table"),
}
"""What for → the file of the run without which it makes no sense, and the command."""


def next_commands(run: Path) -> dict[str, str]:
    """What for → command, of what can be done with this run, with its path."""
    return {
        name: shell_command(*(word.format(run=run) for word in command.split()))
        for name, (file, command) in NEXT_COMMANDS.items()
        if (run / file).exists()
    }


def shell_command(script: str, *words: str | Path) -> str:
    """`pseudo.py …` as it is typed in this shell: a script of a plain copy by its place, an installed one by name."""
    folder, used = os.path.split(sys.argv[0])
    command = [sys.executable, os.path.join(folder, script)]
    if used.startswith("pseudokit-"):
        command = [os.path.join(folder, f"pseudokit-{Path(script).stem}")]
    if not os.path.exists(command[-1]):  # a notebook, or another program
        command = ["python", script]
    typed = []
    for path in command:
        name = os.path.basename(path)
        typed.append(name if shutil.which(name) == path else path)
    return shlex.join([*typed, *map(str, words)])
