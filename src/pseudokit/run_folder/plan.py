"""pseudo.py without a mode: looks at what is there, and says which command runs it and why."""

import json
import logging
import re
import shlex
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from ..config.keys import Config, Model
from ..config.load import KEYS, as_typed, load_config
from ..config.types import UserError, one_line
from ..data.dataset import load_dataset
from ..data.encoding import counts, has_label
from ..data.find_data import LAYOUTS, find_data
from ..data.images import MIN_PHOTO_SIDE, typical_format
from ..report.next_commands import shell_command
from ..system.files import atomic_write, log
from .folder import DEFAULT_CONFIG, find_config

MAX_FEW_LABELS = 25
"""Of a class, in the median: up to here heads on a frozen network are measured (benchmarks/photos.py)."""
MAX_NAMES_CHARACTERS = 60
"""Of a list of names in a line."""
PHOTO_MODEL = "tf_efficientnet_lite0"
"""Of configs/photos.yaml. Its weights come first where there are several."""
CHECKPOINT = re.compile(
    r".*models--timm--(?P<cached>[^/]+)/snapshots/.*|(.*/)?(?P<name>[^/]+?)(-[0-9a-f]{8})?\.(safetensors|pth)"
)
"""The timm model in the name of a file: in the cache of Hugging Face, which timm uses, or anywhere."""
MAIN_KEYS = [
    "metric",
    "time_budget",
    "data.train",
    "data.unlabeled",
    "data.test",
    "data.image_dir",
    "data.label_col",
    "data.size",
    "model.name",
    "model.checkpoint",
    "train.epochs",
    "train.augment",
    "pseudo.rounds",
    "pseudo.cutoff",
]
"""Those that people change first: they stand in a new config file whatever their values are."""


@dataclass(frozen=True)
class Plan:
    """What to run, and why.

    lines: for the terminal. config: one that comes with the kit. overrides: `key=value` on top of it.
    """

    lines: list[str]
    mode: str = "augment"
    config: str = "default"
    overrides: list[str] = field(default_factory=list)

    def command(self) -> str:
        """As it is typed in a shell."""
        words = "--mode", self.mode, "--config", self.config, *self.overrides
        return shell_command("pseudo.py", *words)


def make_plan(place: str, overrides: list[str]) -> Plan:
    """Look at what is there, and decide how to begin.

    Args:
        place: a folder, or a table of labels; "" = the working folder.
        overrides: `key=value` that the user has given; they outrank what is found.

    Raises:
        UserError: the input is wrong, or only the user knows which of several is meant.
    """
    folder = Path(place or ".")
    # Other keys may want what is not found yet, as model.freeze_backbone a checkpoint.
    needed = [word for word in overrides if word.startswith(("data.", "model.name", "model.check"))]
    given = load_config(DEFAULT_CONFIG, needed)
    found, left_out = find_data(folder, given.data.train)
    names = shorten(", ".join(left_out), MAX_NAMES_CHARACTERS, placeholder=" …") or "nothing"
    if "train" not in found:
        message = f"no labels found in {folder.resolve()} (there: {names}); looked for {LAYOUTS}"
        if place or overrides:
            raise UserError(f"{message}; data.train=FILE.csv names another table")
        return Plan([f"{message}. The digits that come with the kit show how it works:"])
    log.setLevel(logging.ERROR)  # what is run says how each table is read
    keys = {f"data.{key}": value for key, value in found.items()}
    dataset = load_dataset(load_config(DEFAULT_CONFIG, _typed(keys, needed)).data)
    n = Counter(dataset.split)
    is_asked = (dataset.split == "test") & ~has_label(dataset.given_labels)
    is_said = any(word.startswith("data.unlabeled=") for word in overrides)
    mode = "augment"
    if n["unlabeled"]:
        why = f"{n['unlabeled']:,} images without a label may get one"
    elif is_asked.any() and not is_said:
        why = "those to predict may get a label (where rules forbid it, add data.unlabeled=)"
        keys["data.unlabeled"] = keys.get("data.test", given.data.test)
    else:
        mode = "denoise"
        why = "every image has a label, so wrong labels are looked for"
    is_train = dataset.split == "train"
    per_class = counts(dataset.given_labels[is_train], len(dataset.classes))
    side, channels = typical_format(dataset.path[is_train])
    config, network = "default", "a small one with random weights, right for small images"
    if channels == 3 and side >= MIN_PHOTO_SIDE:
        few = mode == "augment" and np.median(per_class) <= MAX_FEW_LABELS
        config, network, of_model = _network_of_photos(folder, given.model, few)
        keys |= of_model
    folds = load_config(find_config(Path(config)), _typed(keys, overrides)).pseudo.folds
    fewest, most = int(per_class.min()), int(per_class.max())
    if 1 < fewest < folds:
        keys["pseudo.folds"] = fewest
    spread = f"{fewest:,}" + f" to {most:,}" * (fewest < most)
    classes = shorten(", ".join(dataset.classes), MAX_NAMES_CHARACTERS, placeholder=" …")
    lines = {
        "found": f"{n['train']:,} images with a label, {n['unlabeled']:,} without, {n['test']:,} to predict; "
        f"{len(per_class)} classes ({classes}) of {spread} labels; "
        f"{'color' if channels == 3 else 'gray'}, mostly {side:.0f} px",
        "mode": f"{mode}: {why}",
        "network": f"{network} (config {config})",
        "left out": names,
    }
    name = re.sub(r"[^\w.+-]+", "-", folder.resolve().stem).strip(".+-") or "first"
    told = [one_line(f"{title:9} {line}") for title, line in lines.items()]
    return Plan(told, mode, config, _typed({"name": name} | keys, overrides))


def _typed(keys: dict[str, Any], overrides: list[str]) -> list[str]:
    """`key=value` of what is found, without the keys that the user has given, and of these."""
    given = {override.partition("=")[0] for override in overrides}
    return [f"{key}={as_typed(keys[key])}" for key in keys if key not in given] + overrides


def _network_of_photos(folder: Path, model: Model, few: bool) -> tuple[str, str, dict[str, str]]:
    """The config, what to say of the network, and its keys."""
    from huggingface_hub.constants import HF_HUB_CACHE

    config = "photos_few_labels" if few else "photos"
    if model.checkpoint:
        return config, f"{model.name} from {model.checkpoint}", {}
    files = [*Path().glob("*.*")]
    files += folder.parent.glob("*.*")
    files += folder.parent.glob("*/*.*")
    files += Path(HF_HUB_CACHE).glob("models--timm--*/snapshots/*/model.safetensors")
    named = {}
    for file in sorted(files, reverse=True):
        if match := CHECKPOINT.fullmatch(str(file)):
            named[match["cached"] or match["name"]] = match[0]
    if model.name != Model().name:
        named = {name: file for name, file in named.items() if name == model.name}
    if named:
        import timm  # takes seconds

        named = {name: file for name, file in named.items() if timm.is_model(name)}
    if not named:
        get = f"python -m pseudokit.weights {PHOTO_MODEL}"
        script = Path(sys.argv[0])
        if script.suffix == ".py":  # it runs without installation
            get = f"PYTHONPATH={shlex.quote(str(script.parent / 'src'))} {get}"
        line = f"random weights, from which photos are hardly learned; first {get}, then this again"
        return "default", line, {}
    name = max(named, key=lambda name: name.startswith(PHOTO_MODEL))
    keys = {"model.name": name, "model.checkpoint": named[name]}
    return config, f"{name} from {named[name]}", keys


def write_config(plan: Plan, name: str) -> Plan:
    """Write the keys of a plan as NAME.yaml, each below what it means, for the user to change.

    Returns:
        The plan that runs it.

    Raises:
        UserError: the file is there.
    """
    file = Path(f"{name.removesuffix('.yaml')}.yaml")
    if file.exists():
        raise UserError(f"--init {name}: {file} is there; choose another name, or move it away")
    config = load_config(find_config(Path(plan.config)), plan.overrides)
    lines = ["# All other keys: docs/config.md, or pseudo.py --keys WORD."]
    for key, about in KEYS.items():
        value = attrgetter(key)(config)
        if key == "name" or (key not in MAIN_KEYS and value == attrgetter(key)(Config())):
            continue
        section, _, last = key.rpartition(".")
        if section and f"{section}:" not in lines:
            lines += ["", f"{section}:"]
        indent = "  " * bool(section)
        meaning = " ".join(about.description.split()).partition(". ")[0].rstrip(".")
        lines.append(f"{indent}# {meaning}.")
        lines.append(f"{indent}{last}: {json.dumps(value, ensure_ascii=False)}")
    atomic_write(file, "\n".join([*lines, ""]))
    return replace(plan, config=str(file), overrides=[])
