"""The error that is the user's, and the kinds of values that a configuration has."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class UserError(Exception):
    """The user's input is wrong. The message is one line that names file, row or key and the remedy (exit 2)."""


def _seconds(value: Any) -> Any:
    """`8.5h`, `30m`, `90s` or a number of seconds → seconds."""
    match = re.fullmatch(r"\s*([\d.]+)\s*([hms]?)\s*", str(value))
    if value is None or not match:
        return value
    return float(match[1]) * {"h": 3600, "m": 60, "s": 1, "": 1}[match[2]]


Seconds = Annotated[float, BeforeValidator(_seconds), Field(json_schema_extra={"format": "duration"})]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^\w[\w.+-]*$")]
Count = Annotated[int, Field(ge=1)]
Channels = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1, max_length=3)]
Augmentation = (
    Literal["auto", "gentle", "affine", "elastic", "written", "cutout", "strong", "small", "photo", "none"]
    | list[dict[str, Any]]
)


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, coerce_numbers_to_str=True, validate_default=True
    )
