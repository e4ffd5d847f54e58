"""On which line of a TOML text each key stands.

`tomllib` gives values without their places. This scanner reads a text that tomllib has already accepted, so
it need not check anything: it follows keys, skips over values, and notes lines.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from vmsim.scenario.problems import KeyPath

__all__ = ["locate"]

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_KEY: Final = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_STRING: Final = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}' r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR: Final = re.compile(r"[^,\]}#\r\n]*")


def locate(text: str) -> dict[KeyPath, int]:
    """Return the line, from 1, of every key, table and array element of a valid TOML text.

    The key path of ``[[vm]]`` tables has their index in it: ``("vm", 0, "memory")``.
    """
    scanner = _Scanner(text)
    with suppress(RecursionError):  # of arrays in arrays in arrays …: the lines up to there are known
        scanner.scan()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self.newlines = [match.start() for match in re.finditer("\n", text)]
        self.counts: dict[KeyPath, int] = {}

    def scan(self) -> None:
        """Go through the text and fill `lines`."""
        table: KeyPath = ()
        self.skip(_BLANK)
        while self.at < len(self.text):
            if self.text.startswith("[", self.at):
                table = self.header()
            else:
                self.pair(table)
            self.skip(_BLANK)

    def header(self) -> KeyPath:
        """Read ``[a.b]`` or ``[[a.b]]`` and return the path of the table it opens."""
        double = self.text.startswith("[[", self.at)
        start = self.at
        self.at += 1 + double
        keys = self.keys()
        self.at += 1 + double
        path: KeyPath = ()
        for number, key in enumerate(keys):
            path = (*path, key)
            self.note(path, start)
            if path in self.counts and not (double and number == len(keys) - 1):
                path = (*path, self.counts[path] - 1)
        if double:
            self.note(path, start)
            self.counts[path] = self.counts.get(path, 0) + 1
            path = (*path, self.counts[path] - 1)
        self.note(path, start)
        return path

    def pair(self, table: KeyPath) -> None:
        """Read ``a.b = value``."""
        start = self.at
        path = table
        for key in self.keys():
            path = (*path, key)
            self.note(path, start)
        self.at += 1  # the equals sign
        self.value(path)

    def value(self, path: KeyPath) -> None:
        self.skip(_SPACE)
        self.note(path, self.at)
        opening = self.text[self.at : self.at + 1]
        if opening == "{":
            self.items("}", lambda _: self.pair(path))
        elif opening == "[":
            self.items("]", lambda number: self.value((*path, number)))
        elif opening in ('"', "'"):
            self.skip(_STRING)
        else:
            self.skip(_SCALAR)

    def items(self, closing: str, read: Callable[[int], None]) -> None:
        """Read what stands between brackets, commas between."""
        self.at += 1
        self.skip(_BLANK)
        number = 0
        while not self.text.startswith(closing, self.at):
            read(number)
            number += 1
            self.skip(_BLANK)
            if self.text.startswith(",", self.at):
                self.at += 1
                self.skip(_BLANK)
        self.at += 1

    def keys(self) -> list[str]:
        """Read a dotted key up to what ends it."""
        keys = []
        while True:
            self.skip(_SPACE)
            match = _KEY.match(self.text, self.at)
            if match is None:
                raise ValueError(f"not a TOML key at character {self.at}")
            self.at = match.end()
            keys.append(_unquoted(match[0]))
            self.skip(_SPACE)
            if not self.text.startswith(".", self.at):
                return keys
            self.at += 1

    def skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()

    def note(self, path: KeyPath, at: int) -> None:
        self.lines.setdefault(path, bisect_left(self.newlines, at) + 1)


def _unquoted(key: str) -> str:
    return str(tomllib.loads(f"key = {key}")["key"]) if key[0] in "\"'" else key
