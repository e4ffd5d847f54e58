"""A driver in a process of its own, to be killed: ``python -m tests.sweeps.child OUT POINTS JOBS SLEEP CRASH``.

CRASH is the number of the call to the operating system, of those that change files, in the middle of which the
process kills itself; 0 is never.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

from tests.sweeps import fake
from vmsim.sweeps import run_sweep
from vmsim.sweeps.store import Store

PART = 16


def main() -> None:
    out, points, jobs, sleep, crash = sys.argv[1:6]
    Store.part = PART
    if int(crash):
        _crash_at(int(crash))
    work = partial(fake.work, sleep=float(sleep), fail=(107,))
    summary = run_sweep(fake.sweep(int(points)), Path(out), jobs=int(jobs), work=work)
    print(CALLS["made"], summary.done)


CALLS = {"made": 0}


def _crash_at(number: int) -> None:
    """Die in the middle of a call: half of a write is done, a rename may or may not be."""
    real = {name: getattr(os, name) for name in ("write", "replace", "fsync", "unlink", "ftruncate", "mkdir")}

    def make(name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            CALLS["made"] += 1
            if CALLS["made"] == number:
                if name == "write":
                    real[name](arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                elif number % 2:
                    real[name](*arguments, **named)
                os.kill(os.getpid(), signal.SIGKILL)
            return real[name](*arguments, **named)

        return call

    for name in real:
        setattr(os, name, make(name))


if __name__ == "__main__":
    main()
