"""YAML file + `a.b=value` overrides → one frozen, strict `Config`.

Everything here answers in milliseconds: no heavy import, so a mistyped key is reported at once.
"""

import difflib
import json
import re
from collections.abc import Container
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from .keys import Config, Pseudo
from .types import Folders, Name, Names, Section, UserError

MAX_CHARACTERS = 1_000_000
"""Of a config file."""
MAX_FAULTS = 10
"""Faults that a message names."""
MAX_SHOWN_CHARACTERS = 200
"""Of a key or value in a message. The search for the nearest key takes time with the square of its length."""
MIN_LIKENESS = 0.6
"""Of the last part of a name that a message suggests; the default of difflib."""
INT, DATE = "tag:yaml.org,2002:int", "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    """YAML as a config needs it: no key twice, and no alias, with which a few lines grow without end. Whole numbers are
    those of YAML 1.2; in 1.1 017 is 15, and 1:30 is 90. Nothing is a date."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, form) for tag, form in found if tag not in (INT, DATE)]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            self._refuse("aliases are not read; write the value out", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in keys:
                self._refuse(f"key {name!r} stands twice", node.start_mark)
            keys.add(name)
        return super().construct_mapping(node, deep)

    def _refuse(self, problem: str, mark: yaml.Mark) -> None:
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


_Loader.add_implicit_resolver(INT, re.compile(r"[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))


def _load(text: str) -> Any:
    """Raises yaml.YAMLError, whatever is wrong with the text."""
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, AttributeError, LookupError, TypeError) as error:  # `!!int x`
        raise yaml.YAMLError(f"a value is not of its kind: {error}") from None


def _all_keys() -> dict[str, FieldInfo]:
    keys = {}
    for name, field in Config.model_fields.items():
        section = field.default
        if isinstance(section, Section):
            keys |= {f"{name}.{key}": part for key, part in type(section).model_fields.items()}
        else:
            keys[name] = field
    return keys


KEYS = _all_keys()
"""Every key of the config as `a.b`, with its type, default and meaning."""
TEXT = (str, str | None, Name | None)
TEXT_OR_LIST = (str | Names, str | Names | None, Folders | None)


def is_text(key: str, value: str) -> bool:
    """Whether a value is text, taken as typed: YAML would read 007, 1.10 or yes as something else."""
    if key not in KEYS or value == "null":
        return False
    kind = KEYS[key].annotation
    return kind in TEXT or (kind in TEXT_OR_LIST and not value.startswith(("[", "{")))


def as_typed(value: Any) -> str:
    """A value of Python as it is typed on the command line: text and paths as they are, all else as JSON."""
    if value is None:
        return ""
    return str(value) if isinstance(value, str | Path) else json.dumps(value)


def load_config(path: str | Path, overrides: list[str]) -> Config:
    """Read a YAML file, apply `a.b=value` overrides, validate.

    Raises:
        UserError: the file is missing or no YAML mapping, or any key or value is wrong (all of them are named).
    """
    tree = _read_yaml(Path(path))
    of_file = [error["loc"] for error in _errors(tree)]
    faults = []
    for text in overrides:
        if re.match("[^=]+=", text):
            _apply_override(tree, text)
        else:
            faults.append(f"{text!r} is not key=value, for example train.lr=1e-3")
    errors = _errors(tree)
    faults += _describe_all([error for error in errors if error["loc"] not in of_file])
    inherited = _describe_all([error for error in errors if error["loc"] in of_file])
    if inherited:
        faults.append(f"{path}: " + "; ".join(inherited))
    if faults:
        raise UserError("; ".join(faults))
    return Config.model_validate(tree)


def _errors(tree: dict[str, Any]) -> list:
    try:
        Config.model_validate(tree)
    except ValidationError as error:
        return error.errors()
    return []


def _describe_all(errors: list) -> list[str]:
    faults = [_describe(error) for error in errors[:MAX_FAULTS]]
    more = len(errors) - MAX_FAULTS
    return faults + [f"and {more} more"] * (more > 0)


def make_policy(**values: Any) -> Pseudo:
    """The section `pseudo` with the values of keyword arguments.

    Raises:
        UserError: any of them is wrong (all of them are named).
    """
    try:
        return Pseudo(**values)
    except ValidationError as error:
        raise UserError("; ".join(map(_describe, error.errors()))) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
        if len(text) > MAX_CHARACTERS:
            raise UserError(
                f"config {path} is larger than {MAX_CHARACTERS:,} characters; give one of configs/*.yaml"
            )
        tree = _load(text)
    except FileNotFoundError:
        raise UserError(
            f"config {path} does not exist; give --config one of configs/*.yaml"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            f"config {path} cannot be read as YAML: {' '.join(str(error).split())}"
        ) from None
    if tree is None:  # an empty file
        return {}
    if not isinstance(tree, dict):
        raise UserError(
            f"config {path} must be a mapping of keys to values, not a {type(tree).__name__}"
        )
    return tree


def _apply_override(tree: dict[str, Any], text: str) -> None:
    """Write one `a.b=value` into the tree."""
    key, _, value = text.partition("=")
    *sections, name = key.split(".")
    for section in sections:
        if not isinstance(tree.get(section), dict):
            tree[section] = {}
        tree = tree[section]
    try:
        tree[name] = value or None if is_text(key, value) else _load(value)
    except yaml.YAMLError:
        tree[name] = value


def _describe(error: Any) -> str:
    """One pydantic error as `dotted.name: what is wrong and what would be right`."""
    where = ".".join(str(part) for part in error["loc"])
    where = next((name for name in KEYS if where.startswith(name + ".")), where)
    if error["type"] == "extra_forbidden":
        below = error["input"] if isinstance(error["input"], dict) else {}
        return _describe_unknown([where, *(f"{where}.{key}" for key in below)])
    message = error["msg"].removeprefix("Value error, ")
    given = repr(error["input"])[:MAX_SHOWN_CHARACTERS]
    return f"{where}: {message} (given: {given})" if where else message


def _describe_unknown(typed: list[str]) -> str:
    """A key that does not exist: what it is called now, or the nearest one. typed: it, and the keys below it."""
    old_keys = yaml.safe_load(Path(__file__).with_name("old_keys.yaml").read_text(encoding="utf-8"))
    old = next((name for name in typed if name in old_keys), None)
    if old is None:
        key = typed[-1][:MAX_SHOWN_CHARACTERS]
        return f"{key}: no such key{nearest(key, [*KEYS])}"
    verb = "is now" if old_keys[old] in KEYS else "is gone:"
    return f"{old} {verb} {old_keys[old]}"


def nearest(word: str, known: list[str]) -> str:
    """`; did you mean x?` for the known name whose last part is most alike; of several, the nearest as a whole."""

    def likeness(name: str) -> float:
        return difflib.SequenceMatcher(None, last_part, name.rpartition(".")[2]).ratio()

    last_part = word.rpartition(".")[2]
    nearest_first = difflib.get_close_matches(word, known, len(known), cutoff=0)
    best = max(nearest_first, key=likeness)
    return f"; did you mean {best}?" if likeness(best) >= MIN_LIKENESS else ""


def dump_config(config: Config) -> str:
    """The resolved config as YAML that `load_config` reads back."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)


def differences(old: Config, new: Config, but: Container[str] = ()) -> list[str]:
    """`a.b: old → new` for every key that differs, but for some keys."""
    lines = []
    for name in KEYS:
        before, after = attrgetter(name)(old), attrgetter(name)(new)
        if before != after and name not in but:
            lines.append(f"{name}: {before!r} → {after!r}")
    return lines


def with_changes(config: Config, changes: dict[str, Any]) -> Config:
    """The config with other values of some keys, {`a.b`: value}. The values are not checked."""
    for key, value in changes.items():
        section, _, name = key.partition(".")
        changed = getattr(config, section).model_copy(update={name: value})
        config = config.model_copy(update={section: changed})
    return config
