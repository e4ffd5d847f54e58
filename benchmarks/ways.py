"""Accesses a second of the fast kernels against the plain ones (vmsim/jit/way.py), by turns, each in a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from statistics import median
from typing import Any

from benchmarks.speed import ACCESSES, TRACES, TURNS
from benchmarks.table import ROOT, Row
from benchmarks.world import World

__all__ = ["measure"]

_WAYS = "fast", "plain"
_SLOWEST = 2.0  # times as long as the fast way: the plain one is there to be used


def measure(accesses: int = ACCESSES, turns: int = TURNS) -> Iterator[Row]:
    """Yield how many times as long the plain way takes for each cell of `speed`.

    Raises
    ------
    RuntimeError
        The two count differently.
    """
    processes = {way: _Process(way) for way in _WAYS}
    try:
        for trace in range(len(TRACES)):
            for nested in (False, True):
                yield _cell(processes, trace, accesses, turns, nested=nested)
    finally:
        for process in processes.values():
            process.close()


def _cell(processes: dict[str, _Process], trace: int, accesses: int, turns: int, *, nested: bool) -> Row:
    for process in processes.values():
        name = process.ask(trace, nested, accesses)
        process.ask()
    rates: dict[str, list[float]] = {way: [] for way in processes}
    for _ in range(turns):
        found = {way: process.ask() for way, process in processes.items()}
        if len({json.dumps(counted) for _, counted in found.values()}) > 1:
            raise RuntimeError(f"{name}: the ways count differently: {found}")
        for way, (rate, _) in found.items():
            rates[way].append(rate)
    fast, plain = (rates[way] for way in _WAYS)
    return Row(
        f"plain way, {'nested' if nested else 'native'}, {name}",
        median(mine / his for mine, his in zip(fast, plain, strict=True)),
        "x",
        _SLOWEST,
        note=f"{median(plain):.1f} against {median(fast):.1f} M accesses/s",
    )


class _Process:
    """An interpreter that compiles one way, and makes one run whenever it is asked."""

    def __init__(self, way: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.ways"],
            cwd=ROOT,
            env={**os.environ, "VMSIM_JIT": way},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *what: object) -> Any:
        """Have it make a world (number of the trace, nested, accesses), or run in that: nothing; return its answer."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def _answer() -> None:
    for line in sys.stdin:
        if what := json.loads(line):
            trace, nested, accesses = what
            runs = TRACES[trace](accesses)
            world = World(runs, nested=nested)
            answer: Any = runs.name
        else:
            world.cool()
            counted = world.run(runs)
            answer = runs.accesses / counted.seconds / 1e6, counted.exact
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _answer()
