"""docs/config.md: every key with its type, default and meaning, as the config classes say them.

python -m pseudokit.config.reference > docs/config.md        (make docs)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .keys import Config
from .types import Section

HEAD = """# Every key

Written by `make docs` from [src/pseudokit/config](../src/pseudokit/config). A key stands in the YAML file of `--config`
(`train: {lr: 0.001}`), or on the command line, which has the last word (`train.lr=1e-3`). – is no value: leave the key
out, or write `key=`. What a run had in the end lies in its `config.yaml`; without `--config` it is that of
[configs/default.yaml](../configs/default.yaml).
"""
TABLE = "| key | type | default | meaning |\n|---|---|---|---|\n"
KINDS = {"string": "text", "boolean": "true or false", "object": "mapping"}
SIGNS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def reference() -> str:
    """The whole page; no line of it depends on anything but the config classes."""
    schema, config = Config.model_json_schema(), Config()
    sections = {name: value for name, value in config if isinstance(value, Section)}
    top = {name: value for name, value in config if name not in sections}
    parts = [HEAD, "## At the top\n", TABLE + "".join(_rows("", top, schema["properties"]))]
    for name, section in sections.items():
        known = schema["$defs"][type(section).__name__]["properties"]
        parts += [f"## {name}\n", TABLE + "".join(_rows(f"{name}.", dict(section), known))]
    return "\n".join(parts)


def _rows(prefix: str, defaults: dict[str, Any], known: dict[str, dict]) -> Iterator[str]:
    for key, default in defaults.items():
        cells = (f"`{prefix}{key}`", kind(known[key]), shown(default), known[key].get("description", ""))
        yield "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |\n"


def kind(schema: dict) -> str:
    """The type of a value in a person's words, from its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(kind(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return "one of " + ", ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
    if schema.get("format") == "duration":
        return "time: `8.5h`, `30m`, `90s` or seconds"
    if schema["type"] == "array":
        return f"list of: {kind(schema['items'])}"
    if schema["type"] not in ("integer", "number"):
        return KINDS[schema["type"]]
    limits = {sign: schema[name] for name, sign in SIGNS.items() if name in schema}
    if schema["type"] == "number" and limits == {"≥": 0, "≤": 1}:
        return "share 0…1"
    name = "whole number" if schema["type"] == "integer" else "number"
    return " ".join([name, ", ".join(f"{sign} {limit:g}" for sign, limit in limits.items())]).strip()


def shown(default: Any) -> str:
    """A default as it would be typed."""
    if default is None or default == "":
        return "–"
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


if __name__ == "__main__":
    print(reference(), end="")
