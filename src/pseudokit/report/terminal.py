"""What a run achieved, for the terminal: `python -m pseudokit.report.terminal RUN_FOLDER …`"""

import sys
from pathlib import Path

from ..system.files import read_json
from .load_run import read_lines
from .next_commands import next_commands
from .report_tables import as_text, report_tables
from .sentences import headline, run_facts

COLUMNS = {
    "Scores": ["split", "model", "n", "accuracy", "95 % interval"],
    "Rounds": [
        "round",
        "relabeled",
        "softened",
        "pseudo-label",
        "out-of-fold agreement",
        "95 % interval",
        "time",
    ],
}
"""What fits into 80 columns; the report has more."""


def summary(run: Path) -> str:
    """The headline of the report, accuracies, rounds, where to look, and what to do next."""
    metrics = read_json(run / "metrics.json")
    title = f"{metrics['mode']} · {run.name}"
    blocks = ["", title, "─" * max(62, len(title)), *headline(metrics)]
    tables = report_tables(metrics, read_lines(run / "metrics.jsonl"))
    for name, columns in COLUMNS.items():
        if name in tables:
            blocks += ["", as_text(tables[name].filter(columns)).to_string(index=False)]
    blocks += ["", run_facts(metrics), f"report {run / 'report.html'}", ""]
    blocks += [f"{name:8} {command}" for name, command in next_commands(run).items()]
    return "\n".join(blocks)


if __name__ == "__main__":
    print(*map(summary, map(Path, sys.argv[1:])), sep="\n")
