"""The kit as a package: built, installed into an empty environment beside a user's own `src`, and run from there."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests import hostile
from tests.conftest import QUICK, ROOT

OUTSIDE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(*command: str | Path, cwd: Path, env: dict[str, str] = OUTSIDE) -> str:
    """What a command printed; it must succeed without the repository on its path."""
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder, copy = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("copy")
    for name in ("src", "configs"):  # a build leaves files where it builds
        shutil.copytree(
            ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy(ROOT / name, copy)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder]
    run(sys.executable, "-m", "pip", "wheel", *options, copy, cwd=folder)
    (wheel,) = folder.glob("pseudokit-*.whl")
    return wheel


def test_the_wheel_holds_one_package_with_its_configs_templates_and_presets(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"pseudokit"}
    configs = {Path(name).name for name in names if name.startswith("pseudokit/configs/")}
    assert configs == {file.name for file in (ROOT / "configs").glob("*.yaml")}
    templates = {
        Path(name).name for name in names if name.startswith("pseudokit/report/templates/")
    }
    assert templates == {file.name for file in (ROOT / "src/pseudokit/report/templates").iterdir()}
    assert "pseudokit/data/augmentations.yaml" in names
    modules = {Path(name).relative_to("pseudokit") for name in names if name.endswith(".py")}
    package = ROOT / "src" / "pseudokit"
    assert modules == {file.relative_to(package) for file in package.rglob("*.py")}


def test_an_installed_kit_runs_beside_a_users_own_src(wheel, csv_data, tmp_path):
    """It asks nothing of the network, and no secret of the environment is kept."""
    folder, data = csv_data
    venv.create(tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    site = Path(
        run(
            python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path
        ).strip()
    )
    # torch and the others, not installed again.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    project = tmp_path / "project"
    (project / "src").mkdir(parents=True)
    (project / "src" / "__init__.py").write_text("raise ImportError('the own package of a user')")
    command = [python.with_name("pseudokit-pseudo"), "--mode", "augment", "--config", "default"]
    options = [
        *QUICK,
        "pseudo.rounds=1",
        "train.min_steps=2",
        "train.augment=small",
        "pseudo.train_baseline=false",
        "name=x",
    ]
    environment = hostile.watched(tmp_path)
    output = run(*command, *data, *options, cwd=project, env=environment)
    assert (folder / "runs" / "x" / "report.html").exists(), output
    run(python, "-c", hostile.ASKS, cwd=project, env=environment)
    assert hostile.escaped(tmp_path, folder / "runs") == ""
    place = run(python, "-c", "import pseudokit; print(pseudokit.__file__)", cwd=project)
    assert Path(place.strip()).is_relative_to(site)


@pytest.mark.parametrize("script", ["train.py", "pseudo.py", "predict.py"])
def test_scripts_run_from_anywhere_without_installation(script, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "__init__.py").write_text("raise ImportError('the own package of a user')")
    assert "usage" in run(sys.executable, ROOT / script, "--help", cwd=tmp_path)
