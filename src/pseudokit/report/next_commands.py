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
SCRIPTS = ("train.py", "pseudo.py", "predict.py")


def next_commands(run: Path) -> dict[str, str]:
    """What for → command, of what can be done with this run, with its path."""
    path = shlex.quote(str(run))
    return {
        name: shell_command(command.format(run=path))
        for name, (file, command) in NEXT_COMMANDS.items()
        if (run / file).exists()
    }


def shell_command(command: str) -> str:
    """`pseudo.py …` as it is typed in this shell: a script of a plain copy by its place, an installed one by name."""
    script, _, arguments = command.partition(" ")
    folder, used = os.path.split(sys.argv[0])
    words = ["python", script]
    if used in SCRIPTS:
        words = [sys.executable, os.path.join(folder, script)]
    elif used.startswith("pseudokit-"):
        words = [os.path.join(folder, f"pseudokit-{Path(script).stem}")]
    names = map(os.path.basename, words)
    short = [
        name if shutil.which(name) == word else word
        for name, word in zip(names, words, strict=True)
    ]
    return f"{shlex.join(short)} {arguments}"
