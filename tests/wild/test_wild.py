"""Nothing that a stranger sends ends in a traceback, a hang or a wrong label, and nothing is let in.

The cases have their names in common.py and tests/hostile.py; benchmarks/bad_inputs.py runs the slow ones too, and lists
them.
"""

import time

import pytest

from tests import fuzz, hostile, naming
from tests.wild import common

NAMED = [case for case in common.cases() if not case.slow]
ELSEWHERE = [
    name for name in hostile.cases() if name.endswith(("in a browser", "secrets around it"))
]
"""tests/report has the same pages; test_package.py and test_scripts.py watch the processes that they start."""


@pytest.mark.parametrize("case", NAMED, ids=lambda case: f"{case.kind}: {case.name}"[:60])
def test_wild_input_is_read_right_or_refused_in_one_line(case, tmp_path):
    line, right = common.check_case(case, tmp_path)
    assert right, line


SAMPLES = {
    "image": 150,
    "table": 100,
    "config": 150,
    "roles": 8,
    "submission": 25,
    "wild table": 20,
    "finding images": 25,
    "pixels": 50,
    "corrections": 15,
    "command line": 30,
}
"""Random cases of each kind; benchmarks/bad_inputs.py runs thousands."""


@pytest.mark.parametrize("kind", SAMPLES)
def test_random_input_is_read_right_or_refused_in_one_line(kind, tmp_path):
    outcomes = fuzz.run(kind, tmp_path, SAMPLES[kind], seed=1)
    assert outcomes.silent + outcomes.raised == []
    assert outcomes.right
    assert outcomes.refused


@pytest.mark.parametrize("name", [name for name in hostile.cases() if name not in ELSEWHERE])
def test_nothing_is_let_in(name, tmp_path):
    assert hostile.cases()[name](tmp_path) == ""


def test_the_judge_of_wild_input_sees_what_is_wrong(tmp_path):
    """A case that hangs, one that is refused for something else, and one that is read as something else."""
    plain = common.read_table(common.PLAIN)
    assert common.check_case(common.Case("table", "x", plain, common.LABELS), tmp_path) == (
        "handled",
        True,
    )
    assert common.check_case(
        common.Case("table", "x", plain, common.LABELS | {"000": "dog"}), tmp_path
    ) == ("handled", False)
    line, right = common.check_case(
        common.Case("table", "x", common.read_table(""), common.Refused("other.csv")), tmp_path
    )
    assert naming.names(line, "t.csv")
    assert not right
    with pytest.raises(common.Hangs):
        common.check_case(
            common.Case("table", "x", lambda folder: time.sleep(9), None), tmp_path, seconds=1
        )
