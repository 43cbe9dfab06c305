"""Every benchmark can be imported and prints its help: a renamed function is noticed before a benchmark runs."""

import ast
import json

from tests.conftest import ROOT, run_script

FOLDER = ROOT / "benchmarks"
FILES = [*sorted(FOLDER.glob("*.py")), *sorted((FOLDER / "peers").glob("*.py"))]
NOT_COMMANDS = {"common.py", "fault_tools.py"}
"""Files that others import; those in peers/ are started by speed.py."""
OPTIONAL = {"cleanlab", "fastai", "playwright"}
"""Packages that only benchmarks and the tests of pages need."""
PROGRAM = """
import contextlib, importlib, io, json, runpy, sys
from importlib.util import find_spec
sys.path[:0] = FOLDERS
faults = []

def run(file, run_name):
    try:
        runpy.run_path(file, run_name=run_name)
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            faults.append(f"{file}: {error}")

for file in FILES:
    run(file, "imported")
for file, module, name in NAMES:
    try:
        is_there = hasattr(importlib.import_module(module), name) or find_spec(f"{module}.{name}") is not None
    except ModuleNotFoundError as error:
        is_there = error.name in OPTIONAL
    if not is_there:
        faults.append(f"{file}: {module} has no {name}")
for file in COMMANDS:
    sys.argv = [file, "--help"]
    shown = io.StringIO()
    ended = None
    with contextlib.redirect_stdout(shown):
        try:
            run(file, "__main__")
        except SystemExit as error:
            ended = error.code or 0
    if ended != 0 or "usage:" not in shown.getvalue():
        faults.append(f"{file} --help: exit code {ended}")
print(json.dumps(faults))
"""


def imported_names() -> list[tuple[str, str, str]]:
    """(file, module, name) of what benchmarks import from the kit and from each other, also inside of functions."""
    ours = {file.stem for file in FILES} | {"pseudokit", "tests"}
    names = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ours:
                names += [(file.name, node.module, alias.name) for alias in node.names]
    return names


def test_every_benchmark_imports_and_says_how_it_is_used(tmp_path):
    """All in one process of their own."""
    commands = [
        str(file) for file in FILES if file.parent == FOLDER and file.name not in NOT_COMMANDS
    ]
    values = {
        "FOLDERS": [str(FOLDER), str(FOLDER / "peers"), str(ROOT / "src"), str(ROOT)],
        "FILES": [str(file) for file in FILES],
        "NAMES": imported_names(),
        "COMMANDS": commands,
        "OPTIONAL": sorted(OPTIONAL),
    }
    program = tmp_path / "program.py"
    assigned = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    program.write_text(assigned + PROGRAM)
    done = run_script(program)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == []
