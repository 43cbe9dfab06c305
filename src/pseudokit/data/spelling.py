"""One name in several spellings: spreadsheets and pandas turn 007 into 7, 2 into 2.0 and True into TRUE or 1."""

import re
from collections import Counter
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
    by_form = {form(name): name for name in names}
    n_names = Counter(map(form, names))
    of_text = {text: by_form[form(text)] for text in {*texts} if n_names[form(text)] == 1}
    return [text if text in names else of_text.get(text, text) for text in texts]
