"""How the process of a command line ends: Ctrl-C and SIGTERM at any moment, standard streams that are closed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["Terminated", "in_order", "was_interrupted"]

_noted: list[int] = []


class Terminated(BaseException):
    """SIGTERM, as batch systems send it: what is half-written is removed on the way out."""


def was_interrupted() -> bool:
    """Whether Ctrl-C was pressed, whatever became of the KeyboardInterrupt within what was being imported."""
    return bool(_noted)


@contextmanager
def in_order() -> Iterator[None]:
    """Have signals end the process in order, and output go nowhere where there is nowhere for it to go."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: else the next file that is opened takes its number
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    with suppress(AttributeError, ValueError, OSError):  # a stream in its place that has no such setting
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names of files need not be text
    signal.signal(signal.SIGINT, _note)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done but for the interpreter's own end


def _note(number: int, frame: Any) -> None:
    _noted.append(number)
    raise KeyboardInterrupt


def _terminate(number: int, frame: Any) -> None:
    raise Terminated
