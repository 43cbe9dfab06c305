"""docs/config.md: every key with its type, default and meaning, as the config classes say them.

python -m pseudokit.config.reference > docs/config.md        (make docs)
"""

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Annotated, Any

from pydantic import TypeAdapter

from .load import KEYS

HEAD = """# Every key

Written by `make docs` from [src/pseudokit/config](../src/pseudokit/config). A key stands in the YAML file of `--config`
(`train: {lr: 0.001}`), or on the command line, which has the last word (`train.lr=1e-3`). – is no value: leave the key
out, or write `key=`. What a run had in the end lies in its `config.yaml`; without `--config` it is that of
[configs/default.yaml](../configs/default.yaml). `python pseudo.py --keys WORD` prints the keys whose name or meaning
contains a word.
"""
TABLE = "| key | type | default | meaning |\n|---|---|---|---|\n"
KINDS = {
    "string": "text",
    "boolean": "true or false",
    "object": "mapping",
    "integer": "whole number",
    "number": "number",
}
SIGNS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def reference() -> str:
    """The page docs/config.md; it depends on nothing but the config classes."""
    parts = [HEAD]
    for section, rows in groupby(key_rows(), lambda row: row[0].rpartition(".")[0]):
        lines = [f"## {section or 'At the top'}\n\n", TABLE]
        for key, *cells in rows:
            escaped = [cell.replace("|", "\\|") for cell in (f"`{key}`", *cells)]
            lines.append(f"| {' | '.join(escaped)} |\n")
        parts.append("".join(lines))
    return "\n".join(parts)


def find_keys(word: str) -> str:
    """What `--keys WORD` prints: each key whose name or meaning contains the word, with type, default and meaning."""
    blocks = []
    for key, value_type, default, meaning in key_rows():
        if word.lower() in f"{key} {meaning}".lower():
            block = f"{key}: {value_type} (default {default})\n    {meaning}\n"
            blocks.append(block.replace("`", ""))
    return "\n".join(blocks) or f"no key contains {word!r}; docs/config.md lists all of them\n"


def key_rows() -> Iterator[tuple[str, str, str, str]]:
    """Every key with its type, default and meaning as text; those at the top first."""
    for name in sorted(KEYS, key=lambda name: "." in name):
        field = KEYS[name]
        schema = TypeAdapter(Annotated[field.annotation, field]).json_schema()
        default = field.get_default(call_default_factory=True)
        meaning = " ".join(field.description.split())
        yield name, kind(schema), shown(default), meaning


def kind(schema: dict) -> str:
    """The type of a value in a person's words, from its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(kind(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "const" in schema:
        return f"one of `{schema['const']}`"
    if "enum" in schema:
        return "one of " + ", ".join(f"`{one}`" for one in schema["enum"])
    if "format" in schema:
        return schema["format"]
    if schema["type"] == "array":
        return f"list of: {kind(schema['items'])}"
    limits = [f"{sign} {schema[name]:g}" for name, sign in SIGNS.items() if name in schema]
    if limits == ["≥ 0", "≤ 1"]:
        return "share 0…1"
    return f"{KINDS[schema['type']]} {', '.join(limits)}".strip()


def shown(default: Any) -> str:
    """A default as it would be typed."""
    if default is None or default == "":
        return "–"
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


if __name__ == "__main__":
    print(reference(), end="")
