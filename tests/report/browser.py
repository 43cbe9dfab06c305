"""A headless Chromium for the tests of pages and for benchmarks/review.py."""

import shutil
from contextlib import contextmanager

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def open_browser():
    """The Chromium of the system, or else playwright's own; raises playwright's Error where there is neither."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
