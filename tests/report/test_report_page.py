"""report.html in a real browser: laptop and phone, light and dark."""

import shutil

import pytest

from pseudokit.report.report import write_report

from .browser import CONTRASTS
from .fake_run import make_run

PHONE, LAPTOP = {"width": 390, "height": 844}, {"width": 1366, "height": 768}
UNFOLD = "(on) => document.querySelectorAll('details').forEach((node) => { node.open ||= on; })"
OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"
SMALL_TEXTS = """[...document.body.querySelectorAll("*")]
  .filter((node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
  .filter((node) => parseFloat(getComputedStyle(node).fontSize) < 12.5).map((node) => node.outerHTML.slice(0, 80))"""
PWN = "window.__pwned=1"
LONG = [
    "W" * 70,
    "many words, " * 9,
    f"<img src=x onerror={PWN}>",
    f"<script>{PWN}</script>",
    '"></h2><table width=2000>',
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Names and ids that are long, without a blank or markup; 8 clusters of duplicates that disagree."""
    folder = tmp_path_factory.mktemp("hostile") / ("run" * 30)
    run = make_run(
        folder,
        "denoise",
        names=LONG,
        id_of=("x/" + "y" * 90 + "<svg onload=window.__pwned=1>{}").format,
    )
    rows = [
        f'{c},{"z" * 80}{i},gone.png,train,"{LONG[i].replace(chr(34), chr(34) * 2)}",near,True'
        for c in range(8)
        for i in range(5)
    ]
    (run / "duplicates.csv").write_text(
        "cluster,id,path,split,given_label,kind,conflict\n" + "\n".join(rows) + "\n"
    )
    write_report(run)
    return run


@pytest.mark.parametrize("name", ["denoise", "augment", "hostile"])
def test_no_page_is_wider_than_the_screen(name, request, open_page):
    page = open_page(request.getfixturevalue(name) / "report.html", viewport=PHONE)
    for unfolds in (False, True):
        page.evaluate(UNFOLD, unfolds)
        for size in (PHONE, LAPTOP):
            page.set_viewport_size(size)
            assert page.evaluate(OVERFLOW) <= 0
            assert page.evaluate(SMALL_TEXTS) == []
    assert page.evaluate("window.__pwned") is None
    assert page.locator("svg, script, b").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_and_drawings_are_dark_in_the_dark(scheme, denoise, open_page):
    page = open_page(denoise / "report.html", color_scheme=scheme)
    page.evaluate(UNFOLD, True)
    seen = page.evaluate(CONTRASTS)
    assert len(seen) > 100
    assert min(seen)[0] >= 4.5, min(seen)
    inverted = (
        "[...document.images].filter((image) => getComputedStyle(image).filter.includes('invert'))"
    )
    alts = page.evaluate(f"{inverted}.map((image) => image.alt)")
    assert len(alts) == (7 if scheme == "dark" else 0)
    assert not any("contradict most confidently" in alt for alt in alts), "photos keep their colors"


def test_the_page_needs_no_neighbor(denoise, open_page, tmp_path):
    shutil.copy(denoise / "report.html", tmp_path / "sent.html")
    page = open_page(tmp_path / "sent.html")
    broken = "[...document.images].filter((image) => !image.naturalWidth).length"
    assert page.locator("img").count() > 24
    assert page.evaluate(broken) == 0
    assert page.is_visible(".gauge")
