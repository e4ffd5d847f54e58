"""Errors that are the user's to mend, and how to word them."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["GuestMemoryError", "InputError", "nearest"]


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one paragraph that says what was wrong, where (file, line or record, key), what was
    expected and, where there is one, the nearest valid choice. The command line prints it and exits with 2.
    """


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return a sentence naming the valid choice nearest to `word`, or listing them all if none is near."""
    choices = list(valid)
    close = get_close_matches(word, choices, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Valid: {', '.join(choices)}."


class GuestMemoryError(Exception):
    """The memory of a VM, its own or what it may have of the host's, is used up."""
