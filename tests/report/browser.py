"""A headless Chromium for the tests of pages and for benchmarks/review.py."""

import shutil
from contextlib import contextmanager
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def missing_browser() -> str:
    """What is missing to open a browser; empty if nothing is."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return "the package playwright is not installed"
    if any(map(shutil.which, NAMES)):
        return ""
    with sync_playwright() as playwright:
        return "" if Path(playwright.chromium.executable_path).exists() else "no Chromium is installed"


@contextmanager
def open_browser():
    """The Chromium of the system, or else playwright's own."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
