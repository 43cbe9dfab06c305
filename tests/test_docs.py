"""What the documents say of the code exists: error lines, tests, files, keys."""

import ast
import doctest
import re

import pytest

from pseudokit.config.load import KEYS
from tests.conftest import ROOT

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
MAX_README_WORDS, MAX_WORDS_TO_OWN_DATA = 1200, 60
MIN_LETTERS = 10
"""Letters of its own that the text of a message must have to be recognized."""


def messages() -> list[re.Pattern]:
    """A pattern for every sentence in the code, its {placeholders} standing for anything."""
    patterns = set()
    for file in [*ROOT.glob("*.py"), *(ROOT / "src").rglob("*.py")]:
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        inner = {
            id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values
        }
        for node in nodes:
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            texts = [part.value if isinstance(part, ast.Constant) else None for part in parts]
            fixed = "".join(text for text in texts if isinstance(text, str))
            if (
                id(node) not in inner
                and fixed.count(" ") > 1
                and len(re.findall(r"\w", fixed)) >= MIN_LETTERS
            ):
                patterns.add("".join(".*" if text is None else re.escape(text) for text in texts))
    return [re.compile(pattern) for pattern in patterns]


def quoted_lines() -> list[str]:
    page = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
    return [
        line
        for block in re.findall(r"^```\n(.*?)^```", page, re.S | re.M)
        for line in block.splitlines()
    ]


def test_every_line_that_the_faq_quotes_is_one_that_the_code_prints():
    known, lines = messages(), quoted_lines()
    assert len(lines) > 25
    assert [line for line in lines if not any(pattern.search(line) for pattern in known)] == []


def test_every_test_that_the_comparison_names_exists():
    page = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
    notes = re.findall(r"^\[\^\w+\]: (\[tests/.*?)(?=^\[|^$)", page, re.S | re.M)
    assert len(notes) > 15
    for note in notes:
        files = [
            (ROOT / file).read_text(encoding="utf-8")
            for file in re.findall(r"\[(tests/[\w/]+\.py)\]", note)
        ]
        for name in re.findall(r"`(test_\w+)`", note):
            assert any(f"def {name}(" in text for text in files), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page):
    text = page.read_text(encoding="utf-8")
    # ../../actions is GitHub's page of a repository.
    for target in re.findall(r"\]\((?!https?:|../../actions/)([^)#\s]+)", text):
        assert (page.parent / target).exists(), target
    notes = (
        set(re.findall(r"\[(\^[\w-]+)\](?!:)", text)),
        set(re.findall(r"^\[(\^[\w-]+)\]:", text, re.M)),
    )
    assert notes[0] == notes[1]


def test_the_readme_comes_to_own_data_in_sixty_words():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= MAX_README_WORDS
    section = text.partition("## Your own data")[2]
    commands = re.search(r"\n\n(    .*\n)+", section)
    assert len(section[: commands.end()].split()) <= MAX_WORDS_TO_OWN_DATA


@pytest.mark.parametrize("name", ["kaggle", "faq"])
def test_keys_that_a_page_names_exist(name):
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    sections = {key.split(".")[0] for key in KEYS if "." in key}
    keys = set(re.findall(rf"\b(?:{'|'.join(sections)})\.\w+", text))
    keys = {key for key in keys if not key.endswith((".csv", ".json", ".py", ".safetensors"))}
    assert sorted(keys - set(KEYS)) == []


def test_the_examples_of_the_api_run():
    results = doctest.testfile(str(ROOT / "docs" / "api.md"), module_relative=False)
    assert results.attempted > 10
    assert results.failed == 0
