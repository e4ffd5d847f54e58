"""Imported by the command line alone: until it has begun, Ctrl-C ends the process at once and in a line."""

import os
import signal

__all__: list[str] = []


def _leave(number: int, frame: object) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)


if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)
