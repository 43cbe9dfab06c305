"""One name in several spellings: spreadsheets and pandas turn 007 into 7, 2 into 2.0 and True into TRUE or 1."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable

WHOLE_NUMBER = re.compile(r"\+?(-?)0*(\d+)(\.0+|,0)?")
TRUTH = {"false": "0", "true": "1"}


def plain_form(text: str) -> str:
    """Equal for all spellings of a whole number or a truth value; other text is only stripped."""
    text = text.strip()
    number = WHOLE_NUMBER.fullmatch(text)
    return number[1] + number[2] if number else TRUTH.get(text.lower(), text)


def respell(
    texts: Iterable[str], known: Iterable[str], form: Callable[[str], str] = plain_form
) -> list[str]:
    """Each text as it stands among the known names: itself, else the only name of the same form.

    A text that fits no name, or several, stays as it is.
    """
    names = {*known}
    by_form = defaultdict(list)
    for name in names:
        by_form[form(name)].append(name)
    respelled = {}
    for text in {*texts} - names:
        alike = by_form.get(form(text), [])
        if len(alike) == 1:
            respelled[text] = alike[0]
    return [respelled.get(text, text) for text in texts]
