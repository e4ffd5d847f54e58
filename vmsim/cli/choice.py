"""Options that take one of some words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from vmsim.base.errors import closest

__all__ = ["Choice"]


class Choice(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic in some versions of click
    """One of some words, upper and lower case alike; another word is answered with the nearest."""

    name = "choice"

    def __init__(self, choices: Sequence[str]) -> None:
        self.choices = tuple(choices)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return what help shows: the words, in brackets for an option and in braces for an argument."""
        words = "|".join(self.choices)
        return f"{{{words}}}" if isinstance(param, click.Argument) and param.required else f"[{words}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the word as it is declared."""
        word = str(value)
        for choice in self.choices:
            if choice.casefold() == word.casefold():
                return choice
        close = closest(word, self.choices)
        *some, last = map(repr, self.choices)
        hint = f". Did you mean {close!r}?" if close else ""
        return self.fail(f"found {word[:80]!r}, expected {', '.join(some)} or {last}{hint}", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the words that begin so."""
        return [CompletionItem(word) for word in self.choices if word.casefold().startswith(incomplete.casefold())]
