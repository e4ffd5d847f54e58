"""Errors that a user can correct, and how to word them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

__all__ = ["InputError", "closest", "listed", "nearest"]

_CUTOFF: Final = 0.6
_LONGEST: Final = 80  # characters of a word that is looked up: difflib takes the square of them
_LISTED: Final = 40
_VERY_LONG: Final = re.compile(r"\S{300,}")  # longer than any path that `files.printable` gives
_SHOWN: Final = 60  # characters of such a word
_MOST: Final = 16_000  # characters of a message


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one paragraph that says what was wrong, where (``file:line: key: ...``), what was expected and,
    if there is one, the nearest valid choice. The command line prints it and exits with 2; with ``--json`` it
    prints `to_json`.

    Parameters
    ----------
    text : str
        The whole paragraph.
    file, line, key : optional
        Where the mistake is: a file or option, its line from 1, the dotted key.
    message : str, optional
        The paragraph without the place.
    nearest : str, optional
        The valid choice nearest to what was found.
    problems : sequence of mapping, optional
        All mistakes if there are several, each with the five fields above.
    """

    def __init__(
        self,
        text: str,
        *,
        file: str | None = None,
        line: int | None = None,
        key: str | None = None,
        message: str | None = None,
        nearest: str | None = None,
        problems: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        text = _brief(text)
        super().__init__(text)
        self.file = file
        self.line = line
        self.key = key
        self.message = text if message is None else _brief(message)
        self.nearest = nearest
        self.problems = tuple(problems)

    def to_json(self) -> dict[str, Any]:
        """Return the error as JSON types: kind, file, line, key, message, nearest; `problems` if there are several."""
        fields = {
            "kind": "input",
            "file": self.file,
            "line": self.line,
            "key": self.key,
            "message": self.message,
            "nearest": self.nearest,
        }
        return fields | ({"problems": [*self.problems]} if self.problems else {})


def _brief(text: str) -> str:
    """Return a paragraph that a person can read: what somebody's file had in it may be as long as the file."""
    text = _VERY_LONG.sub(lambda word: f"{word[0][:_SHOWN]}…{word[0][-1]}", text)
    return text if len(text) <= _MOST else f"{text[: _MOST // 2]} … {text[-_MOST // 2 :]}"


def closest(word: str, valid: Iterable[str]) -> str | None:
    """Return the valid choice nearest to `word`, upper and lower case alike; None if none is near."""
    folded: dict[str, str] = {}
    for choice in valid:
        folded.setdefault(choice.casefold(), choice)
    found = get_close_matches(word.casefold()[:_LONGEST], folded, n=1, cutoff=_CUTOFF)
    return folded[found[0]] if found else None


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return a sentence with the valid choice nearest to `word`, or with all of them if none is near."""
    choices = list(valid)
    close = closest(word, choices)
    if close is not None:
        return f"Did you mean {close!r}?"
    more = f", … and {len(choices) - _LISTED:,} more" if len(choices) > _LISTED else ""
    return f"Valid: {', '.join(choices[:_LISTED])}{more}."


def listed(names: Iterable[str], word: str = "and") -> str:
    """Return names as a list in a sentence: ``"a, b and c"``."""
    *first, last = [*names] or [""]
    return f"{', '.join(first)} {word} {last}" if first else last
