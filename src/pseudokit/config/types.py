"""The error that is the user's, and the kinds of values that a configuration has."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

MAX_MESSAGE_CHARACTERS = 4000
"""The middle of a longer message is left out: it begins with the place and ends with the remedy."""
UNSEEN = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that end a line, steer a terminal or turn its text around, and halves of characters."""
NO_TEXT = re.compile("[\0-\x08\x0b-\x1f\x7f\ud800-\udfff]")
"""Characters that no name may hold: YAML, CSV or the file system would not give them back."""


class UserError(ValueError):
    """The user's input is wrong. The message is one line that names file, row or key and the remedy (exit 2)."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


def check_all(*checks: Callable[[], Any]) -> list:
    """What each of them returns.

    Raises:
        UserError: some raised it; the message tells what is wrong in all of them.
    """
    results, faults = [], []
    for check in checks:
        try:
            results.append(check())
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("; ".join(dict.fromkeys(faults)))
    return results


def one_line(text: str) -> str:
    """Text that holds names from the data, made safe for a terminal."""
    text = UNSEEN.sub(lambda match: repr(match[0])[1:-1], text)
    if len(text) <= MAX_MESSAGE_CHARACTERS:
        return text
    half = MAX_MESSAGE_CHARACTERS // 2
    return f"{text[:half]} … {text[-half:]}"


def _number_with_unit(meaning: str, **units: float) -> Any:
    """The type of a number that may have one of these units, each in the smallest one; meaning: for docs/config.md."""

    def convert(value: Any) -> Any:
        match = re.fullmatch(rf"\s*([\d.]+)\s*([{''.join(units)}]?)\s*", str(value).lower())
        if not match:
            return value
        unit = units.get(match[2], 1)
        return float(match[1]) * unit

    return Annotated[float, BeforeValidator(convert), Field(json_schema_extra={"format": meaning})]


Seconds = _number_with_unit("time: `8.5h`, `30m`, `90s` or seconds", h=3600, m=60, s=1)
Bytes = _number_with_unit("size: `4g`, `500m` or bytes", g=2**30, m=2**20)
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^\w[\w.+-]*$")]
Count = Annotated[int, Field(ge=1)]
Names = Annotated[list[str], Field(min_length=1)]
Folders = str | Names | dict[Literal["train", "unlabeled", "val", "trusted", "test"], str | Names]
Augmentation = (
    Literal[
        "auto",
        "gentle",
        "affine",
        "elastic",
        "written",
        "cutout",
        "strong",
        "small",
        "photo",
        "none",
    ]
    | list[dict[str, Any]]
)


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    @field_validator("*")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        parts = value.values() if isinstance(value, dict) else value
        texts = [*parts] if isinstance(value, list | dict) else [value]
        if any(isinstance(text, str) and NO_TEXT.search(text) for text in texts):
            raise ValueError("holds a control character or half a character; leave it out")
        return value
