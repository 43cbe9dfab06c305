"""A headless Chromium for the tests of pages and for benchmarks/review.py."""

import shutil
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CONTRASTS = """() => {
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const paper = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = parts(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    throw new Error("no background");
  };
  const own = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  return [...document.body.querySelectorAll("*")]
    .filter((node) => own(node) && node.checkVisibility() && !node.closest(":disabled, script, option"))
    .map((node) => {
      const [dark, bright] = [light(parts(getComputedStyle(node).color)), light(paper(node))].sort((a, b) => a - b);
      return [(bright + 0.05) / (dark + 0.05), node.tagName + " " + node.textContent.slice(0, 30)];
    });
}"""
"""Contrast of every visible text with what lies behind it, and which text."""


def missing_browser() -> str:
    """What is missing to open a browser; empty if nothing is."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return "the package playwright is not installed"
    if any(map(shutil.which, NAMES)):
        return ""
    with sync_playwright() as playwright:
        return (
            "" if Path(playwright.chromium.executable_path).exists() else "no Chromium is installed"
        )


@contextmanager
def open_browser():
    """The Chromium of the system, or else playwright's own."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def severe_faults(page):
    """What axe-core calls serious or critical."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(resources.files("axe_playwright_python").joinpath("axe.min.js").read_text())
    found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
    faults = [fault for fault in found if fault["impact"] in ("serious", "critical")]
    return [(fault["id"], fault["nodes"][0]["html"]) for fault in faults]
