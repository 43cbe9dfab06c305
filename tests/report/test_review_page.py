"""The review page in a real browser, by real key presses: decide, undo, reload, export; nothing from the data runs."""

import csv
import json
import re
import shutil

import pytest

from pseudokit.data.csv_text import read_csv, unescape_formulas
from pseudokit.report.review import write_review

from .browser import CONTRASTS, severe_faults
from .fake_run import embedded, make_run

PWN = "window.__pwned=1"
EVIL = [
    f"<script>{PWN}</script>",
    f'"><img src=x onerror={PWN}>',
    f"</script><svg onload={PWN}>",
    '=1+1,"x"',
    "\u2028'\\",
]


@pytest.fixture(scope="module")
def review(tmp_path_factory):
    """The page over 200 digits, 20 of them label issues, and its samples."""
    run = make_run(tmp_path_factory.mktemp("review") / "run", "denoise")
    file = write_review(run)
    return file, embedded(file.read_text())["samples"]


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def count(page):
    return page.inner_text("#count")


def export(page, file, *keys):
    with page.expect_download() as download:
        press(page, *(keys or ["e"]))
    assert download.value.suggested_filename == "corrections.csv"
    download.value.save_as(file)
    return file.read_bytes()


def as_csv(rows):
    lines = [
        f"{s['id']},{s['given_label']},{action},{label},{s['sha256']}\n"
        for s, action, label in rows
    ]
    return ("id,given_label,action,label,image_sha256\n" + "".join(lines)).encode()


def test_keys_decide_undo_survive_a_reload_and_export(review, open_page, tmp_path):
    file, s = review
    page = open_page(file)
    press(page, "a", "g", "x", "d", "7", "a", "u")
    press(page, "c", s[5]["given_label"], "Enter")
    press(page, "ArrowRight", "ArrowLeft", "j", "k", "c", "Escape", "u", "c", "3", "Enter")
    assert count(page) == "6 of 20 reviewed"
    page.reload()
    assert count(page) == "6 of 20 reviewed"
    press(page, "a", "u")
    seventh = ("keep" if s[4]["given_label"] == "7" else "relabel", "7")
    third = ("keep" if s[5]["given_label"] == "3" else "relabel", "3")
    expected = as_csv(
        [
            (s[0], "relabel", s[0]["predicted"]),
            (s[1], "keep", s[1]["given_label"]),
            (s[2], "ambiguous", ""),
            (s[3], "drop", ""),
            (s[4], *seventh),
            (s[5], *third),
        ]
    )
    assert export(page, tmp_path / "c.csv") == expected
    press(page, *"uuuuuuu")
    assert count(page) == "0 of 20 reviewed", "steps from before the reload can be undone"


def test_bulk_decisions_in_the_grid_are_one_step_and_keys_work_after_clicks(
    review, open_page, tmp_path
):
    file, s = review
    page = open_page(file)
    page.click("[data-do=view]")
    press(page, "Shift+ArrowRight", "Shift+ArrowRight", "a")
    assert count(page) == "3 of 20 reviewed"
    page.click("#card-5")
    page.click("#card-8", modifiers=["Shift"])
    page.click("#card-10")
    page.click("#card-6")
    assert "4 selected" in page.inner_text("#shown")
    press(page, "g")
    assert count(page) == "7 of 20 reviewed"
    press(page, "Home", " ", "ArrowRight", " ", "d")
    kept = [(s[i], "keep", s[i]["given_label"]) for i in (5, 7, 8, 10)]
    expected = as_csv(
        [(s[0], "drop", ""), (s[1], "drop", ""), (s[2], "relabel", s[2]["predicted"]), *kept]
    )
    assert export(page, tmp_path / "c.csv") == expected
    press(page, "u")
    assert export(page, tmp_path / "c.csv").count(b"relabel") == 3, (
        "one step brings the two decisions back"
    )
    press(page, "Shift+A")
    page.click("#ask [value=all]")
    assert count(page) == "20 of 20 reviewed"
    assert page.get_attribute("#progress", "value") == "20"
    assert export(page, tmp_path / "c.csv").count(b"keep") == 4, "what a person decided stays"
    press(page, "u", "u", "Home")
    page.click("[data-do=ambiguous]")
    press(page, " ")
    assert "1 selected" in page.inner_text("#shown"), (
        "Space selects; it does not press the clicked button again"
    )
    press(page, "u", "s", "x")
    assert export(page, tmp_path / "c.csv").count(b"ambiguous") == 20
    press(page, "u", "u")
    assert count(page) == "0 of 20 reviewed"


def test_filters_by_pair_and_by_reviewed(review, open_page):
    file, s = review
    page = open_page(file)
    pair = [s[4]["given_label"], s[4]["predicted"]]
    n = sum([x["given_label"], x["predicted"]] == pair for x in s[:20])
    page.select_option("#pair", label=f"{pair[0]} → {pair[1]} ({n})")
    assert page.inner_text("#shown") == f"1 of {n} shown"
    press(page, "Escape", "v", "Shift+A")
    page.click("#ask [value=all]")
    assert count(page) == f"{n} of 20 reviewed"
    page.select_option("#status", "open")
    assert page.inner_text("#shown") == "none shown"
    page.select_option("#pair", "")
    assert page.inner_text("#shown").endswith(f"of {20 - n} shown")
    page.reload()
    assert page.inner_text("#shown").endswith(f"of {20 - n} shown")
    page.select_option("#queue", label="kept by the run (180)")
    page.select_option("#status", "all")
    assert page.inner_text("#shown") == "1 of 180 shown"
    assert page.locator(".card").count() < 120, "only what can be seen is made"
    press(page, "End")
    assert page.get_attribute(".card.current", "aria-posinset") == "180"


def test_the_single_view_shows_facts_and_examples_that_agree(review, open_page):
    file, s = review
    page = open_page(file)
    card = page.inner_text("#single")
    for text in (
        s[0]["id"],
        "given",
        "suggested",
        f"nearest examples of {s[0]['given_label']}",
        s[0]["decision"],
    ):
        assert text in card
    assert page.locator(".examples img").count() == 8
    press(page, "?")
    assert page.is_visible("#help")
    press(page, "?", "j")
    assert not page.is_visible("#help")
    assert page.inner_text("#shown") == "2 of 20 shown"


def test_hostile_names_never_run_and_ids_round_trip(open_page, tmp_path):
    run = make_run(tmp_path / "run", "denoise", names=EVIL, id_of=(EVIL[1] + ' {}\r\n "').format)
    write_audit(run, range(3))
    page = open_page(write_review(run))
    press(page, "a", "1", "?", "?", "v", "s", "5", "u", "f", "ArrowDown", "Escape")
    page.select_option("#queue", "0")
    page.select_option("#pair", index=1)
    page.select_option("#pair", index=0)
    press(page, "Escape", "Shift+A")
    page.click("#ask [value=all]")
    export(page, tmp_path / "c.csv")
    assert page.evaluate("window.__pwned") is None
    assert page.locator("svg, b, img:not([src^='data:image/'])").count() == 0
    known = read_csv(run / "samples.csv").set_index("id").given_label
    written = read_csv(tmp_path / "c.csv")
    assert not written.map(lambda cell: cell.startswith(("=", "+", "@", "\t", "\r"))).any(axis=None)
    table = unescape_formulas(written)
    assert len(table) > 10
    assert table.given_label.str.startswith("=").any()
    assert list(known[table["id"]]) == list(table["given_label"])
    with open(tmp_path / "c.csv", newline="", encoding="utf-8") as lines:
        assert [row["id"] for row in csv.DictReader(lines)] == list(written["id"])
    other = open_page(run / "review.html")
    other.set_input_files("#file", tmp_path / "c.csv")
    other.wait_for_selector("#count:not(:text-matches('^0 '))")
    assert export(other, tmp_path / "again.csv") == (tmp_path / "c.csv").read_bytes()
    assert other.evaluate("window.__pwned") is None


def test_a_sandboxed_frame_works_without_memory_and_says_so(review, open_page, tmp_path):
    shutil.copy(review[0], tmp_path / "review.html")
    (tmp_path / "notebook.html").write_text(
        '<iframe sandbox="allow-scripts" src="review.html" width=900 height=500>'
    )
    page = open_page(tmp_path / "notebook.html")
    frame = page.frames[1]
    frame.wait_for_selector("#forgets:not([hidden])")
    frame.focus("#single")
    press(page, "a", "e")
    assert frame.inner_text("#count") == "1 of 20 reviewed"
    first = review[1][0]
    assert frame.input_value("#csv").encode() == as_csv([(first, "relabel", first["predicted"])])


@pytest.fixture(scope="module")
def many(review):
    """The page with 5,000 label issues and 35 classes: its 20 issues again and again."""
    page = review[0].read_text()
    content = embedded(page)
    issues = content["samples"][:20] * 250
    content["samples"] = [s | {"id": f"{i:04d}"} for i, s in enumerate(issues)]
    content["queues"] = [{"name": "to review", "places": list(range(5000))}]
    content["classes"] += [f"Class {i}" for i in range(25)]
    text = json.dumps(content).replace("<", "\\u003c")
    pattern = r'(?<=<script type="application/json" id="content">).*?(?=</script>)'
    file = review[0].with_name("many.html")
    file.write_text(re.sub(pattern, lambda _: text, page, flags=re.DOTALL))
    return file, content["samples"]


def shown(page):
    return page.inner_text("#shown")


def test_5000_label_issues_by_keyboard_alone(many, open_page):
    file, s = many
    page = open_page(file, viewport={"width": 1440, "height": 900})

    # every step can be taken back, also after a reload
    press(page, *"xd" * 12)
    page.reload()
    assert count(page) == "24 of 5000 reviewed"
    press(page, *"u" * 24)
    assert count(page) == "0 of 5000 reviewed"

    # the original image
    press(page, "z")
    assert page.get_attribute("#single .picture", "src") == s[0]["original"] != ""
    page.wait_for_selector("#single img.tiny")  # it is there, and has its own few pixels
    press(page, "Escape")
    assert page.get_attribute("#single .picture", "src") == s[0]["image"]

    # a class of many by a part of its name
    press(page, "c")
    page.keyboard.type("ss 17")
    assert page.inner_text("#options") == "Class 17"
    assert severe_faults(page) == []
    press(page, "Enter", "j", "x", "Home", "n")
    assert shown(page) == "2 of 5000 shown", "the next that is not reviewed"

    # filters
    press(page, "/")
    page.keyboard.type("432")
    assert shown(page).endswith(f" of {sum('432' in row['id'] for row in s)} shown")
    press(page, "Escape", "f", "Tab", "Tab", "ArrowDown", "Escape")
    doubtful = sum(row["decision"] == "drop" for row in s)
    assert 2500 < doubtful < 5000, "the larger group of two"
    assert shown(page).endswith(f" of {doubtful} shown")
    press(page, "f", "Tab", "Tab", "Home", "Tab", *["ArrowDown"] * 4, "Escape")
    assert shown(page) == "1 of 1 shown"
    assert "relabel → Class 17" in page.inner_text("#single")
    press(page, "f", *["Tab"] * 3, "Home", "Tab", "End", "Escape", "Home")
    lowest = min(s, key=lambda row: row["confidence"])
    assert lowest["id"] in page.inner_text("#single")

    # a bulk decision asks, and leaves the doubtful ones out
    press(page, "v", "Shift+A")
    assert f"{doubtful} of them are doubtful" in page.inner_text("#ask")
    assert severe_faults(page) == []
    press(page, "Escape")
    assert count(page) == "2 of 5000 reviewed"
    press(page, "Shift+A", "Enter")
    assert count(page) == f"{5000 - doubtful} of 5000 reviewed"
    press(page, "u")
    assert count(page) == "2 of 5000 reviewed"

    # a phone, in the dark
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark")
    press(page, "v", "f")
    assert severe_faults(page) == []
    press(page, "Escape")
    assert page.locator("#single .picture").first.bounding_box()["height"] >= 844 / 2 - 1
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_two_peoples_work_is_merged_and_conflicts_are_asked(review, open_page, tmp_path):
    file, s = review
    theirs = [
        (s[0], "keep", s[0]["given_label"]),
        (s[1], "drop", ""),
        (s[2], "drop", ""),
        (s[3], "ambiguous", ""),
    ]
    text = (
        as_csv(theirs)
        .decode()
        .replace(f"{s[3]['id']},{s[3]['given_label']}", f"{s[3]['id']},other")
    )
    (tmp_path / "theirs.csv").write_text("\ufeff" + text.replace(",", ";") + "nobody;1;drop;;\n")
    page = open_page(file)
    asked = []
    page.on("dialog", lambda dialog: asked.append(dialog.type))

    def load(answer):
        page.set_input_files("#file", tmp_path / "theirs.csv")
        page.click(f"#ask [value='{answer}']")

    # the key opens the chooser of the system, which no test can use
    page.evaluate("document.querySelector('#file').click = () => document.title = 'asked'")
    press(page, "i")
    assert page.title() == "asked"

    press(page, "a", "d")
    load("")
    assert count(page) == "2 of 20 reviewed"
    load("mine")
    assert count(page) == "3 of 20 reviewed"
    press(page, "u")
    load("theirs")
    told = page.inner_text("#ask")
    assert all(name in told for name in ("line 5", s[3]["id"], "nobody"))
    assert s[1]["id"] not in told, "both say the same"
    page.reload()
    assert asked == ["beforeunload"]
    assert export(page, tmp_path / "c.csv") == as_csv(theirs[:3])
    page.reload()
    press(page, "u", "u", "u")
    page.reload()
    assert count(page) == "0 of 20 reviewed"
    assert asked == ["beforeunload"], "nothing is lost by leaving"


def write_audit(run, rows):
    dataset = read_csv(run / "samples.csv")
    table = dataset.iloc[list(rows)][["id", "path", "given_label"]].assign(stratum="s", weight=1)
    table.to_csv(run / "audit.csv", index=False)
    return table


def test_the_audit_is_blind_and_in_the_order_of_its_file(open_page, tmp_path):
    run = make_run(tmp_path / "run", "denoise")
    audit = write_audit(run, [30, 105, 130, 91])
    key = embedded(write_review(run, limit=30).read_text())["key"]
    (run / "audit.csv").unlink()
    assert embedded(write_review(run, limit=30).read_text())["key"] == key, (
        "an audit makes no one forget"
    )
    write_audit(run, [30, 105, 130, 91])
    page = open_page(write_review(run, limit=30))
    page.select_option("#queue", label="audit (4)")
    press(page, "Escape")
    for name in audit["id"]:
        shown = page.inner_text("#single")
        assert name in shown
        assert not [
            word for word in ("suggested", "confidence", "p_wrong", "nearest") if word in shown
        ]
        press(page, "a")
        assert page.inner_text("#message") == "nothing here that this could decide"
        press(page, "j")
    assert not page.is_visible("#pair")
    press(page, "Home", "g", "x", "d", "v")
    assert "→" not in page.inner_text("#grid")
    assert count(page) == "3 of 4 reviewed"
    actions = [
        line.split(",")[:3] for line in export(page, tmp_path / "c.csv").decode().splitlines()[1:]
    ]
    expected = zip(audit["id"], audit["given_label"], ["keep", "ambiguous", "drop"], strict=False)
    assert sorted(actions) == sorted(map(list, expected))


def test_duplicates_that_disagree_have_a_badge(open_page, tmp_path):
    run = make_run(tmp_path / "run", "denoise")
    table = (
        read_csv(run / "samples.csv")
        .iloc[[150, 151]]
        .assign(cluster="0", kind="exact", conflict="True")
    )
    table.to_csv(run / "duplicates.csv", index=False)
    page = open_page(write_review(run))
    assert page.inner_text(".badge") == "duplicates disagree"
    first, second = table["given_label"]
    assert f"{first} (train) · {second} (train)" in page.inner_text("#single")
    press(page, "x")
    copies = page.locator(".copies figure").all_inner_texts()
    assert [text.split() for text in copies] == [
        [first, "train", "ambiguous"],
        [second, "train"],
    ]
    press(page, "u")
    page.select_option("#queue", label="duplicates disagree (2)")
    assert count(page) == "0 of 2 reviewed"


def test_choosing_begins_with_the_given_class_where_none_is_suggested(open_page, tmp_path):
    run = make_run(tmp_path / "run", "denoise")
    audit = write_audit(run, [105])
    page = open_page(write_review(run))
    page.select_option("#queue", label="audit (1)")
    assert page.input_value("#class") == audit["given_label"].iloc[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_readable(review, open_page, scheme):
    page = open_page(review[0], color_scheme=scheme)
    seen = []
    for keys in ["a", ("v", " ", "ArrowRight"), "?"]:
        press(page, *keys)
        seen += page.evaluate(CONTRASTS)
    assert len(seen) > 100
    assert min(seen)[0] >= 4.5, min(seen)


CONTROLS = """[...document.querySelectorAll("button:enabled, select, [tabindex='0']")]
  .filter((node) => node.checkVisibility()).length"""
MARK_FOCUS = """() => {
  const node = document.activeElement, style = getComputedStyle(node);
  node.dataset.seen = 1;
  return style.outlineStyle !== "none" || style.boxShadow !== "none";
}"""


def test_tab_reaches_every_control_and_shows_where_it_is(review, open_page):
    page = open_page(review[0])
    press(page, "a")
    wanted = page.evaluate(CONTROLS)
    shown = []
    while not page.evaluate("document.activeElement === document.body") and len(shown) <= wanted:
        shown.append(page.evaluate(MARK_FOCUS))
        press(page, "Tab")
    press(page, "Tab")
    while page.locator("[data-seen]").count() < wanted and len(shown) <= 2 * wanted:
        shown.append(page.evaluate(MARK_FOCUS))
        press(page, "Tab")
    assert page.locator("[data-seen]").count() == wanted
    assert all(shown)
    page.focus("[data-do=drop]")
    press(page, "Enter", "Tab", "Enter")
    assert count(page) == "1 of 20 reviewed", "drop by Enter, undone by the button behind it"
