"""Two runs that the tests of this folder read and do not change."""

import pytest

from src.report.report import write_report
from src.report.rounds import write_metrics

from .fake_run import make_run


@pytest.fixture(scope="session")
def denoise(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("runs") / "repair", "denoise")
    write_metrics(run)
    write_report(run)
    return run


@pytest.fixture(scope="session")
def augment(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("runs") / "few", "augment")
    write_metrics(run)
    write_report(run)
    return run
