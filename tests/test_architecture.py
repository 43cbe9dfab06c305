"""The house: which folder may import which, and that no two files import each other."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from tests.conftest import ROOT

PACKAGE = ROOT / "src" / "pseudokit"
FLOORS = [
    ["config"],
    ["system"],
    ["data"],
    ["labels"],
    ["round_store"],
    ["label_issues"],
    ["training", "self_training"],
    ["estimators"],
    ["report"],
    ["run_folder"],
    ["pipeline"],
    ["api"],
    ["cli"],
    ["weights"],
]
"""Bottom up: a file imports from its own folder and from lower floors only."""


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts)


def imports(file: Path) -> set[str]:
    """Modules of the package that a file imports, also inside its functions."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = list(file.relative_to(PACKAGE).parent.parts)
            parts = [*above[: len(above) + 1 - node.level], *(node.module or "").split(".")]
            base = ".".join(filter(None, parts))
            names = [f"{base}.{alias.name}".lstrip(".") for alias in node.names]
            modules.update(name if name in FILES else base for name in names)
    return modules


FILES = {module_of(file): file for file in PACKAGE.rglob("*.py") if file.name != "__init__.py"}
GRAPH = {name: imports(file) for name, file in FILES.items()}


def test_every_import_goes_down():
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    place = {name: name.split(".")[0] for name in FILES}
    assert set(place.values()) == set(floor), "every folder and every top-level file has a floor"
    up = [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others
        if place[name] != place[other] and floor[place[name]] <= floor[place[other]]
    ]
    assert up == []


def test_no_two_files_import_each_other():
    TopologicalSorter(GRAPH).prepare()  # raises CycleError


def test_the_test_reads_imports():
    assert "data.folds" in GRAPH["labels.out_of_fold"]
    assert "report.load_run" in GRAPH["report.report"]
    assert sum(map(len, GRAPH.values())) > 200
