"""How the process of a command line ends: Ctrl-C and SIGTERM at any moment, standard streams that are closed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

__all__ = ["Terminated", "deaf", "in_order", "was_interrupted"]

_SAME: Final = 1.0  # seconds in which a second signal is the first once more: timeout(1) sends two, people press twice
_AGAIN: Final = 0.05  # seconds until a signal is tried again whose exception got lost

_noted: list[tuple[int, float]] = []  # the signals that have come, and when


class Terminated(BaseException):
    """SIGTERM, as batch systems send it: what is half-written is removed on the way out."""


def was_interrupted() -> bool:
    """Whether a signal has come, whatever became of its exception within what was being imported."""
    return bool(_noted)


def deaf() -> int:
    """Have signals do nothing from now on, and return the first that came; Ctrl-C's if none did."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    return _noted[0][0] if _noted else int(signal.SIGINT)


@contextmanager
def in_order() -> Iterator[None]:
    """Have signals end the process in order, and output go nowhere where there is nowhere for it to go."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: else the next file that is opened takes its number
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    with suppress(AttributeError, ValueError, OSError):  # a stream in its place that has no such setting
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names of files need not be text
    sys.unraisablehook = _lost
    signal.signal(signal.SIGINT, _leave)
    signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        deaf()  # all is done but for the interpreter's own end


def _leave(number: int, frame: Any) -> None:
    now = time.monotonic()
    if _noted and now - _noted[-1][1] < _SAME:
        return
    _noted.append((number, now))
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _lost(what: Any) -> None:
    """Take an exception that nobody can catch, raised where an object was removed.

    If a signal's is lost so, the signal comes again. What else goes wrong on the way out, with objects half made, is
    of no interest.
    """
    if not _noted:
        sys.__unraisablehook__(what)
    elif isinstance(what.exc_value, Terminated | KeyboardInterrupt):
        number, _ = _noted.pop()
        signal.signal(signal.SIGALRM, lambda *_: _leave(number, None))
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
