"""TOML files in, with errors that say where."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

from vmsim.base import files
from vmsim.base.errors import InputError

__all__ = ["MAX_BYTES", "MAX_DEPTH", "parse", "read_text"]

MAX_BYTES: Final = 2 << 20
"""Of a TOML file: a thousand times what people write, and read in a few seconds."""
MAX_DEPTH: Final = 32
"""Tables in tables, and parts of a dotted key. No file of vmsim needs more than six."""

_PLACE: Final = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")
_PART: Final = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
# What may hide dots (strings over several lines, comments), then keys of too many parts, then other strings.
_LONG_KEY: Final = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*+"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*+'{3,5}"
    r"|#[^\n]*+"
    rf"|(?P<key>(?<![A-Za-z0-9_-])(?:{_PART}[ \t]*+\.[ \t]*+){{{MAX_DEPTH}}})"
    r"""|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+'""",
    re.DOTALL,
)


def read_text(path: Path, what: str) -> str:
    """Return the text of a file; `what` names it in errors ("scenario", "CPU file").

    Raises
    ------
    InputError
        It is missing, no ordinary file, too large, unreadable, or not UTF-8.
    """
    try:
        return files.read_text(path, what, limit=MAX_BYTES)
    except InputError as error:
        name = files.printable(path)
        raise InputError(str(error), file=name, message=str(error).removeprefix(f"{name}: ")) from error.__cause__


def parse(text: str, source: str) -> dict[str, Any]:
    """Return the tables of a TOML text.

    Raises
    ------
    InputError
        The text is not TOML, or nests its tables deeper than `MAX_DEPTH`; the message has the line.
    """
    for match in _LONG_KEY.finditer(text):
        if match["key"]:
            line = text.count("\n", 0, match.start()) + 1
            raise _refused(source, line, f"a key of more than {MAX_DEPTH} parts; tables are nested too deeply")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason = str(error)
        place = _PLACE.search(reason)
        line = text.count("\n") + (not text.endswith("\n")) if place is None or place[1] is None else int(place[1])
        column = f" (column {place[2]})" if place is not None and place[2] else " (at the end of the file)"
        raise _refused(source, max(line, 1), f"{_PLACE.sub('', reason)}{column}") from error
    except RecursionError as error:
        raise _refused(source, None, "tables or arrays are nested too deeply") from error
    except ValueError as error:
        raise _refused(source, None, str(error)) from error
    if _deep(tables):
        raise _refused(source, None, f"tables or arrays are nested too deeply; expected at most {MAX_DEPTH} levels")
    return tables


def _deep(tables: dict[str, Any]) -> bool:
    """Whether tables and arrays are nested deeper than they may be; without recursion."""
    level: list[Any] = [tables]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for table in level
            for inner in (table.values() if isinstance(table, dict) else table)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _refused(source: str, line: int | None, reason: str) -> InputError:
    message = f"not valid TOML: {reason}"
    where = source if line is None else f"{source}:{line}"
    return InputError(f"{where}: {message}", file=source, line=line, message=message)
