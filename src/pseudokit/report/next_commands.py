"""What to do with a finished run: the last lines of report.html and of the terminal."""

import shlex
from pathlib import Path

NEXT_COMMANDS = {
    "review": ("review.html", "python pseudo.py --serve --run {run}"),
    "apply": (
        "review.html",
        "python pseudo.py --mode apply --run {run} --corrections {run}/review.csv",
    ),
    "suggest": ("pseudo_labels.csv", "python pseudo.py --mode suggest --run {run}"),
    "predict": ("student/model.json", "python predict.py --run {run} --data NEW_IMAGES"),
    "export": ("labels.csv", "python pseudo.py --mode export --run {run} --format table"),
}
"""What for → the file of the run without which it makes no sense, and the command."""


def next_commands(run: Path) -> dict[str, str]:
    """What for → command, of what can be done with this run, with its path."""
    path = shlex.quote(str(run))
    return {
        name: command.format(run=path)
        for name, (file, command) in NEXT_COMMANDS.items()
        if (run / file).exists()
    }
