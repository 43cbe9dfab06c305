"""How the scripts end, and what they print in place of a run."""

import pytest

from pseudokit.cli import main
from pseudokit.config.reference import find_keys
from pseudokit.config.types import UserError
from tests.conftest import run_script


def test_wrong_input_ends_with_code_2_and_one_line(capsys):
    def wrong():
        raise UserError("a.csv has no column 'y'")

    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: a.csv has no column 'y'\n"


def test_a_fault_of_ours_is_not_passed_off_as_wrong_input():
    done = run_script("-c", "from pseudokit.cli import main\nmain(lambda: 1 / 0)")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_keys_are_printed_by_the_script_and_nothing_is_run(tmp_path):
    done = run_script("pseudo.py", "--keys", "checkpoint_every", f"out={tmp_path}")
    assert done.returncode == 0
    assert done.stdout == find_keys("checkpoint_every")
    assert not list(tmp_path.iterdir())
