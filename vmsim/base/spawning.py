"""Processes of this machine that are spawned: they inherit nothing, ignore Ctrl-C and end with who started them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess

__all__ = ["Spawn", "attend", "cores", "safely"]


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def attend() -> None:
    """Begin a worker process: it ignores Ctrl-C, which is its driver's to handle, and ends when its driver does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # it was held back until here
    threading.Thread(target=_end_with_driver, daemon=True).start()


def _end_with_driver() -> None:
    from multiprocessing import parent_process
    from multiprocessing.connection import wait

    driver = parent_process()
    if driver is not None:
        wait([driver.sentinel])
        os._exit(1)  # a driver that was killed cannot stop its workers, and they would wait forever


class _Process(SpawnProcess):
    """A process that loads no module of the current folder, and that Ctrl-C does not reach before it can ignore it."""

    def start(self) -> None:
        with safely():
            super().start()


class Spawn(SpawnContext):
    """How processes are started: `multiprocessing` would have them look for modules in the current folder first."""

    Process = _Process


@contextmanager
def safely() -> Iterator[None]:
    """Have what is started in the block inherit a safe path, and a Ctrl-C that waits until it is let through."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    main = threading.current_thread() is threading.main_thread()
    held = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]) if main else None
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before
        if held is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
