"""What the names of classes tell: no label at all, a quantity, or one class that is written in two ways."""

import re
import shlex
import unicodedata

import pandas as pd

from ..config.keys import Data
from ..config.load import as_typed
from ..config.types import UNSEEN, UserError
from ..system.files import log
from .spelling import plain_form

INVISIBLE = "\u034f\u115f\u1160\u2800\u3164\ufe0e\ufe0f\uffa0"
"""Characters that show nothing although Unicode counts them among the letters and marks."""
SIGN_OF_NO_LABEL = re.compile(
    r"-1|-9+|[-–—?.*]+|[<(#]?(n[/.]?a\.?|nan|nat|null|none|nil|undefined|unk|unknown|missing|blank|tbd|to ?do"
    r"|(un|not?)[-_ ]?(label(l?ed)?|annotated|assigned|available))[)>]?"
)
"""What tables hold where nobody gave a label, in small letters."""
MAX_NUMBERED_CLASSES = 20
"""More distinct numbers than this may be the target of a regression."""
MIN_ROWS_PER_NUMBER = 10
"""Numbers that stand for classes have more rows each than this; an age or a count has few."""


def look(name: str) -> str:
    """What a person sees of a name; equal for numbers that differ by .0 alone."""
    seen = "".join(
        letter
        for letter in name
        if letter not in INVISIBLE and unicodedata.category(letter) != "Cf"
    )
    words = unicodedata.normalize("NFC", seen).split()
    return re.sub(r"(?<=\d)\.0+$", "", " ".join(words))


def without_signs(labels: pd.Series, data: Data) -> pd.Series:
    """Labels of a table, empty where they are one of data.unlabeled_values in any spelling."""
    signs = {look(text).lower() for text in data.unlabeled_values or []}
    values = [text for text in labels.unique() if look(text).lower() in signs]
    return labels.replace(values, "")


def refuse_signs_of_no_label(labels: pd.Series, data: Data) -> None:
    """A sign such as -1 would become a class, often the largest one. Only the user knows whether it is one.

    Args:
        labels: of data.train, without empty ones.
    """
    counts = labels.value_counts()
    signs = [name for name in counts.index if SIGN_OF_NO_LABEL.fullmatch(look(name).lower())]
    are_opposites = {*map(plain_form, counts.index)} == {"-1", "1"}
    if not signs or data.unlabeled_values is not None or are_opposites:
        return
    raise UserError(
        f"data.train={data.train}: {counts[signs].sum():,} rows have the label {' or '.join(map(repr, signs))}; "
        f"if they have none, set {shlex.quote(f'data.unlabeled_values={as_typed(signs)}')}; if it is a class, set "
        "data.unlabeled_values=[]"
    )


def refuse_regression(labels: pd.Series, classes: tuple[str, ...], data: Data) -> None:
    """The target of a regression would become as many classes as it has values. Whole numbers may be classes: they are
    told."""
    numbers = pd.to_numeric(pd.Series(classes).str.replace(",", "."), errors="coerce")
    n_rows = len(labels) / len(classes)
    message = (
        f"data.train={data.train}: {data.label_col!r} holds {len(classes):,} numbers such as {classes[0]}, each on "
        f"{n_rows:.1f} rows on average. If they are a quantity, such as an age or a count: this kit does no "
        "regression; put them into bins, and write the bin's name"
    )
    if (numbers % 1 > 0).sum() > MAX_NUMBERED_CLASSES:
        raise UserError(message)
    are_few_rows = n_rows < MIN_ROWS_PER_NUMBER
    if len(classes) > MAX_NUMBERED_CLASSES and numbers.notna().all() and are_few_rows:
        log.info(f"warning: {message}. As they are, they are learned as classes without an order")


def refuse_confusable(classes: tuple[str, ...], data: Data) -> None:
    """Names that a person cannot tell apart are meant to be one class. Single letters may differ by case, as in
    handwriting."""
    names_by_look: dict[str, str] = {}
    for name in classes:
        seen = look(name)
        if not seen or UNSEEN.search(name):
            raise UserError(
                f"data.train={data.train}: label {name!r} holds a line break or nothing that can be seen; mend it "
                "(a quote that is not closed?)"
            )
        is_letter = len(seen) == 1
        other = names_by_look.setdefault(seen if is_letter else seen.lower(), name)
        if other != name:
            raise UserError(
                f"data.train={data.train}: labels {other!r} and {name!r} differ by case, by blanks, by how an accent "
                "is coded, by what cannot be seen, or by .0 alone; write them alike"
            )
