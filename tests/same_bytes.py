"""What of a run folder must be the same, however often the run was stopped."""

import json
from pathlib import Path

import pandas as pd

TIMES = {"status.json", "log.txt", "env.json", ".lock", "report.html"}
"""Files with wall-clock times in them; of the others COSTS are left out."""
COSTS = {"seconds", "peak_mib"}


def contents(run: Path) -> dict:
    """Every contracted file of a run without its wall-clock fields."""
    files = {}
    for file in sorted(run.rglob("*")):
        name = file.relative_to(run).as_posix()
        if file.is_dir() or file.name in TIMES:
            continue
        if file.suffix == ".json":
            files[name] = _without_times(json.loads(file.read_text()))
        elif file.suffix == ".jsonl":
            files[name] = [
                _without_times(json.loads(line)) for line in file.read_text().splitlines()
            ]
        elif file.name == "history.csv":
            table = pd.read_csv(file, dtype=str, keep_default_na=False)
            files[name] = table.drop(columns="seconds").to_csv()
        else:
            files[name] = file.read_bytes()
    return files


def _without_times(value):
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in COSTS}
    return [_without_times(v) for v in value] if isinstance(value, list) else value
