"""TOML files in, with errors that say where."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from vmsim.errors import InputError

__all__ = ["parse", "read_text"]


def read_text(path: Path, what: str) -> str:
    """Return the text of a file; `what` names it in errors ("scenario", "CPU file").

    Raises
    ------
    InputError
        It is missing, a folder, unreadable, or not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: this {what} is not UTF-8 text (byte {error.start}); TOML files must be") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: this is a folder; expected a {what} in TOML") from error
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such {what}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: this {what} cannot be read: {getattr(error, 'strerror', error)}") from error


def parse(text: str, source: str) -> dict[str, Any]:
    """Return the tables of a TOML text.

    Raises
    ------
    InputError
        The text is not TOML; the message has the line and column.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source}: not valid TOML: {error}") from error
    except (RecursionError, ValueError) as error:
        raise InputError(f"{source}: not valid TOML: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "tables or arrays are nested too deeply"
    return str(error)
