"""Two runs that the tests of this folder read and do not change, and pages in a real browser."""

import pytest

from pseudokit.report.metrics_log import write_metrics
from pseudokit.report.report import write_report
from pseudokit.report.review import write_review

from .fake_run import make_run


@pytest.fixture(scope="session")
def denoise(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("runs") / "repair", "denoise")
    write_metrics(run)
    write_review(run)
    write_report(run)
    return run


@pytest.fixture(scope="session")
def augment(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("runs") / "few", "augment")
    write_metrics(run)
    write_review(run)
    write_report(run)
    return run


@pytest.fixture
def open_page(browser):
    """file → a page of a fresh profile; fails on any error in it, any dialog and any request to elsewhere.

    The question before leaving is answered with yes.
    """
    contexts, faults = [], []

    def answer(dialog):
        if dialog.type != "beforeunload":
            faults.append(dialog.message)
        dialog.accept()

    def opened(file, **options):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}} | options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", answer)
        page.on(
            "request",
            lambda r: r.url.startswith(("file:", "data:", "blob:")) or faults.append(r.url),
        )
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not faults
