"""What the tests ask of a message: that it is one line and names the keys, files, rows and values that it is about.

The words between the names are free, so that a sentence can be improved without a change of a test.
"""

import re
import subprocess
from collections.abc import Callable

import pytest

from pseudokit.config.types import MAX_MESSAGE_CHARACTERS, UserError


def names(line: str, *parts: object) -> bool:
    """Whether each of the parts stands in the line, not inside a longer word, key or path."""
    return all(re.search(rf"(?<!\w){re.escape(str(part))}(?!\w)", line) for part in parts)


def is_one_line(message: str) -> bool:
    return "\n" not in message and len(message) <= MAX_MESSAGE_CHARACTERS + len(" … ")


def refused(action: Callable[[], object], *parts: object) -> str:
    """The message with which an action refuses the user's input; it must name all parts."""
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert is_one_line(message), message
    assert names(message, *parts), f"{parts} in {message!r}"
    return message


def process_refused(done: subprocess.CompletedProcess, *parts: object) -> str:
    """The error of a process that refuses the user's input: exit code 2 and one line that names all parts."""
    assert done.returncode == 2, done.stderr
    return process_error(done, *parts)


def process_error(done: subprocess.CompletedProcess, *parts: object) -> str:
    """The one line of a process that failed; it must name all parts."""
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    message = done.stderr.removeprefix("error: ").removesuffix("\n")
    assert done.stderr == f"error: {message}\n"
    assert is_one_line(message), message
    assert names(message, *parts), f"{parts} in {message!r}"
    return message


def lines_naming(text: str, *parts: object) -> list[str]:
    """The lines of what was printed that name all parts."""
    return [line for line in text.splitlines() if names(line, *parts)]
