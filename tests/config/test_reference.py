"""docs/config.md is what the config classes say."""

import pytest

from pseudokit.config.load import KEYS
from pseudokit.config.reference import find_keys, kind, reference
from tests.conftest import ROOT, run_script


def test_the_page_is_that_of_the_config_classes():
    assert (ROOT / "docs" / "config.md").read_text(encoding="utf-8") == reference(), (
        "run `make docs`"
    )


def test_every_key_has_one_row_of_four_cells_and_a_known_type():
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == sorted(KEYS, key=lambda name: "." in name)
    for row in rows:
        assert row.replace("\\|", "").count("|") == 5, row


def test_keys_are_found_by_a_word_of_their_name_or_meaning_with_type_and_default():
    text = find_keys("WANDB")
    assert text.startswith("wandb.mode: one of disabled, offline, online (default disabled)\n    ")
    assert "wandb sync" in text, "the meaning"
    assert [
        line.split(":")[0] for line in find_keys("").splitlines() if line[:1].isalpha()
    ] == sorted(KEYS, key=lambda name: "." in name)
    assert "'zebra'" in find_keys("zebra")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1}, "whole number ≥ 1"),
        ({"type": "number", "minimum": 0, "maximum": 1}, "share 0…1"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "number > 0, ≤ 1"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text"),
        ({"enum": ["a", "b"], "type": "string"}, "one of `a`, `b`"),
        ({"type": "array", "items": {"type": "object"}}, "list of: mapping"),
    ],
)
def test_a_type_in_words(schema, words):
    assert kind(schema) == words


def test_the_page_is_printed_without_torch():
    code = "import sys, pseudokit.config.reference as r; r.reference()\n"
    code += "assert not {'torch', 'timm', 'numpy'} & set(sys.modules)"
    assert run_script("-c", code).returncode == 0
