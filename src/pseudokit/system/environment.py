"""The machine, the versions and the code that a run is made with: env.json."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from ..config.keys import VERSION
from .files import hash_of

PACKAGE = Path(__file__).resolve().parent.parent
"""The folder of this package."""
CONFIGS = next(
    folder for folder in (PACKAGE / "configs", PACKAGE.parents[1] / "configs") if folder.is_dir()
)
"""The YAML files that come with the kit: inside an installed package, at the top of a plain copy of the repository."""
PACKAGES = (
    "torch",
    "timm",
    "albumentations",
    "numpy",
    "scikit-learn",
    "pandas",
    "pydantic",
    "opencv-python-headless",
)


def environment() -> dict[str, Any]:
    """Versions, hardware and the state of the code: what a repeat needs to know. No environment variables."""
    return {
        "version": VERSION,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
        "code": code_hash(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def code_hash() -> str:
    """Hash of the kit's own source: the same hash means the same code."""
    files = sorted(PACKAGE.rglob("*.py"))
    return hash_of([file.relative_to(PACKAGE).as_posix() for file in files], *files)
