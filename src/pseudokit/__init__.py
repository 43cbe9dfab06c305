"""Self-training for image classifiers: pseudo-labels for unlabeled images, and wrong labels found and repaired.

On arrays of anyone's predictions or with any scikit-learn estimator: find_label_issues, select_pseudo_labels,
self_train. On images, as the scripts do: run. Importing this package brings nothing heavy; each function does when it
is first asked for.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "find_label_issues": "label_issues",
    "select_pseudo_labels": "label_issues",
    "self_train": "estimators",
    "run": "api",
}
"""Public function → the module that it lives in."""
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
