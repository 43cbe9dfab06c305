"""A finished run in Weights & Biases. Disabled by default; offline needs neither network nor login."""

from __future__ import annotations

from pathlib import Path

from ..config import Wandb
from . import read


def track(run: Path, config: Wandb) -> None:
    """Log rounds, scores and pictures of a run folder. Reads files only, so it can be called again."""
    if config.mode == "disabled":
        return
    import wandb
    import yaml

    data = read.read_run(run)
    options = {"project": config.project, "name": data["name"], "mode": config.mode, "dir": str(run)}
    job = wandb.init(**options, config=yaml.safe_load(data["config"]), job_type=data["metrics"]["mode"])
    for entry in data["rounds"]:
        numbers = {key: value for key, value in entry.items() if isinstance(value, int | float)}
        job.log({f"round/{key}": value for key, value in numbers.items()}, step=entry["round"])
    for arm, roles in data["metrics"]["scores"].items():
        for role, scores in roles.items():
            job.summary.update({f"{role}/{arm}/{key}": value for key, value in scores.items()})
    for part in ("noise", "pool"):
        job.summary.update({f"{part}/{key}": value for key, value in data["metrics"].get(part, {}).items()})
    job.log({f"plots/{file.stem}": wandb.Image(str(file)) for file in sorted((run / "plots").glob("*.png"))})
    job.finish()
