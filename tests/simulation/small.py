"""Small hosts: scenarios of a few lines, streams written out by hand, and a simulation that cannot hang."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import simpy

from vmsim.contracts import Observer
from vmsim.engine.check.host import check_host, check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.machine.memory import words_by_frame
from vmsim.record.outcome import Outcome
from vmsim.record.tables import TABLES, rows
from vmsim.scenario import Scenario
from vmsim.workloads import Chunk, Event, Op, Stream

PAGE = 4096
BASE = 0x10_0000_0000  # where the scripts' addresses start: at a boundary of 1 GiB
READ, WRITE = 0, 1


def vm(name: str = "vm", **keys: Any) -> dict[str, Any]:
    """Return a [[vm]] table: 4 MiB under EPT that touches 16 pages in order, unless `keys` say otherwise."""
    workload = {
        "kind": "sequential",
        "footprint": 16 * PAGE,
        "accesses": 16,
        "base": BASE,
        **keys.pop("workload", {}),
    }
    if workload["kind"] == "sequential":
        workload.setdefault("stride", PAGE)
    return {"name": name, "memory": "4MiB", "mode": "ept", "workload": workload, **keys}


def scenario(*vms: dict[str, Any], warmup: str | int = "0%", seed: int = 1, **host: Any) -> Scenario:
    """Return a scenario on the yardstick's CPU: 16 MiB, one core, a pool of 4 to 64 pages, low watermarks."""
    marks = {"min": "64KiB", "low": "80KiB", "high": "96KiB"}
    pool = {"min": 4, "max": 64, "batch": 16}
    given = {"cpu": "yardstick", "memory": "16MiB", "watermarks": marks, "pool": pool, **host}
    return Scenario.model_validate({"seed": seed, "warmup": warmup, "host": given, "vm": list(vms)})


def divided(frames: int, cores: int, nodes: int) -> dict[str, Any]:
    """Return the keys of a host whose frames are in so many nodes, none of them a whole number of large blocks."""
    first = frames // 3 | 1
    sizes = [first, frames - first] if nodes == 2 else [first, first - 20, frames - 2 * first + 20]
    cpus = [cores, 1, 0][:nodes] if nodes == 3 or cores % 2 else [cores, 0]
    made = [{"memory": size * PAGE, "cpus": count} for size, count in zip(sizes, cpus, strict=True)]
    return {"nodes": made, "cores": sum(cpus)} | ({"remote_cycles": 100} if cpus[1] else {})


# ("touch", page, kind[, times]), ("map", page, pages[, rights]), ("unmap", page, pages),
# ("protect", page, pages, rights), ("brk", page), ("fork", child), ("switch", pid), ("exit", pid), ("exec", pid),
# ("io", page, pages[, nanoseconds]: a device works on them for a microsecond, or so long),
# ("move", page, pages, to), ("discard", page, pages[, lazily]), ("advise", page, pages, as of madvise),
# ("populate", page, pages), ("share", child), ("by", the pid whose operations follow, though another may run),
# ("compute", cycles), ("barrier",),
# ("open_file", file, 0, bytes), ("read_file", "write_file" or "drop_file", file, offset, bytes), ("sync_file", file)
Step = tuple[Any, ...]


@dataclass
class Script:
    """A stream written out step by step, pages counted from BASE; every `chunk` accesses make a chunk."""

    steps: Sequence[Step]
    name: str = "script"
    chunk: int = 1 << 16
    pid: int = 1  # whose the operations are: changed by a switch
    base: int = BASE
    threads: int = 1
    from_start: bool = False

    @property
    def accesses(self) -> int:
        return sum((step[3] if len(step) > 3 else 1) for step in self.steps if step[0] == "touch")

    @property
    def longest(self) -> int:
        """Return the accesses of the longest run."""
        return max((step[3] if len(step) > 3 else 1) for step in self.steps if step[0] == "touch")

    @property
    def pages(self) -> list[int]:
        """Return the pages touched, each once, in order."""
        return sorted({step[1] for step in self.steps if step[0] == "touch"})

    def footprint(self) -> tuple[np.ndarray, np.ndarray]:
        starts = np.array([self.base + page * PAGE for page in self.pages], np.int64)
        return starts, np.full(len(starts), PAGE, np.int64)

    def chunks(self, thread: int = 0) -> Iterator[Chunk]:
        runs: list[tuple[int, int, int]] = []
        events: list[Event] = []
        self.pid = 1
        for step in self.steps:
            if step[0] == "touch":
                runs.append((self.base + step[1] * PAGE, step[3] if len(step) > 3 else 1, step[2]))
            elif step[0] == "compute":
                events.append(Event(len(runs), Op.COMPUTE, 1, 0, 0, step[1]))
            elif step[0] in ("map", "unmap", "protect"):
                rights = step[3] if len(step) > 3 else 3 if step[0] == "map" else 0
                region = self.base + step[1] * PAGE, step[2] * PAGE
                events.append(Event(len(runs), Op[step[0].upper()], self.pid, *region, rights))
            elif step[0] in ("move", "discard", "populate", "advise"):
                region = self.base + step[1] * PAGE, step[2] * PAGE
                more = step[3] if len(step) > 3 else 0
                argument = self.base + more * PAGE if step[0] == "move" else more
                events.append(Event(len(runs), Op[step[0].upper()], self.pid, *region, argument))
            elif step[0] == "io":
                region = self.base + step[1] * PAGE, step[2] * PAGE
                events.append(Event(len(runs), Op.IO, self.pid, *region, step[3] if len(step) > 3 else 1000))
            elif step[0].endswith("_file"):
                offset, size = step[2:] if len(step) > 2 else (0, 0)
                events.append(Event(len(runs), Op[step[0].upper()], self.pid, offset, size, step[1]))
            elif step[0] == "by":
                self.pid = step[1]
            elif step[0] == "brk":
                events.append(Event(len(runs), Op.BRK, self.pid, self.base + step[1] * PAGE, 0, 0))
            elif step[0] in ("fork", "share"):
                events.append(Event(len(runs), Op[step[0].upper()], self.pid, 0, 0, step[1]))
            elif step[0] == "barrier":
                events.append(Event(len(runs), Op.BARRIER, 1, 0, 0, 0))
            else:  # of a process: switch to it, or its exit or exec
                events.append(Event(len(runs), Op[step[0].upper()], step[1], 0, 0, 0))
                self.pid = step[1] if step[0] == "switch" else self.pid
            if len(runs) == self.chunk:
                yield self._chunk(runs, events)
                runs, events = [], []
        yield self._chunk(runs, events)

    def _chunk(self, runs: list[tuple[int, int, int]], events: list[Event]) -> Chunk:
        address, count, kind = zip(*runs, strict=True) if runs else ((), (), ())
        return Chunk(np.array(address, np.int64), np.array(count, np.int32), np.array(kind, np.uint8), tuple(events))

    def digest(self) -> str:
        return hashlib.sha256(repr(self.steps).encode()).hexdigest()


@dataclass
class Threads:
    """A stream of several threads, each a script."""

    scripts: Sequence[Script]
    name: str = "threads"

    @property
    def threads(self) -> int:
        return len(self.scripts)

    @property
    def accesses(self) -> int:
        return sum(script.accesses for script in self.scripts)

    def footprint(self) -> tuple[np.ndarray, np.ndarray]:
        starts = np.unique(np.concatenate([script.footprint()[0] for script in self.scripts]))
        return starts, np.full(len(starts), PAGE, np.int64)

    def chunks(self, thread: int = 0) -> Iterator[Chunk]:
        return self.scripts[thread].chunks()

    def digest(self) -> str:
        return hashlib.sha256("".join(script.digest() for script in self.scripts).encode()).hexdigest()


def touches(pages: Sequence[int], kind: int = READ) -> list[Step]:
    return [("touch", page, kind) for page in pages]


def crowded(steps: Sequence[Step]) -> tuple[Scenario, list[Stream]]:
    """Return a host on which tables of two pages are had by moving pages of the paired VM `io`, and its streams.

    `io` writes to 600 pages, then takes `steps`. `e` and `b` take the rest of the memory a page each in turn; `b` ends,
    so that what is free is in single pages between those of `e`, which a device works on; and at 60 million cycles `t`,
    a process that is no VM, wants 200 tables.
    """
    ours = vm("io", mode="paired", memory="4MiB", paired={"layout": "contiguous", "guest": True})
    others = [vm(name, memory="6MiB", start="1ms") for name in ("e", "b")]
    process = vm("t", mode="paired", memory="1GiB", paired={"layout": "contiguous", "guest": False}, start="30ms")
    pool = {"min": 1, "max": 2, "batch": 1}
    fill: list[Step] = [step for page in range(1150) for step in (("touch", page, WRITE), ("compute", 15_000))]
    streams = [
        Script([*touches(range(600), WRITE), *steps]),
        Script([*fill, ("io", 0, 1150, 100_000_000)]),
        Script(fill),
        Script(touches([512 * number for number in range(200)], WRITE)),
    ]
    return scenario(ours, *others, process, memory="12MiB", cores=4, pool=pool), streams


def spoil(simulation: Simulation) -> None:
    """Write to every free frame: it may hold whatever its last user left there, such as entries that lead nowhere."""
    free = np.flatnonzero(simulation.host.frames["state"] == State.FREE)
    words_by_frame(simulation.hardware.memory)[free] = 0x1234_5027


class EndlessError(AssertionError):
    """A simulation took far more events than its size explains."""


def run(
    what: Scenario,
    streams: Sequence[Stream] | None = None,
    *,
    check: Observer | None = check_invariants,
    every: int = 0,
    look: Callable[[Simulation], None] = lambda _: None,
    events: int = 100_000,
) -> tuple[Simulation, Outcome]:
    """Run a scenario to its end, checked at every moment; it must not take more than so many events.

    With `every`, the invariants are also checked, and `look` is called, every so many cycles: when that was done some
    hundreds of times, at equal ratios of the time, for what waits long on daemons would be nothing but checks.
    """
    simulation = Simulation(what, streams=streams, observers=[check] if check else [])
    env = simulation.env

    def audit() -> Generator[simpy.Event, Any, None]:
        while True:
            check_host(simulation, "an audit")
            look(simulation)
            yield env.background(max(every, env.cycle >> 8))

    def bounded(until: None = None) -> None:
        for _ in range(events):
            if env.idle:
                return
            env.step()
        raise EndlessError(f"{events} events, and cycle {env.cycle} is not the end")

    env.run = bounded  # type: ignore[method-assign, assignment]
    if every:
        env.process(audit())
    return simulation, simulation.run()


def told(outcome: Outcome) -> str:
    """Return as JSON all that a simulation measured: everything but the wall's clock."""
    facts = outcome.end, outcome.frequency, outcome.latency, outcome.ending and asdict(outcome.ending)
    return json.dumps([*facts, {name: rows(name, outcome) for name in TABLES}], default=int)  # numpy's, uncompiled


def digest(outcome: Outcome) -> str:
    """Return a SHA-256 of what `told` tells."""
    return hashlib.sha256(told(outcome).encode()).hexdigest()


def time_adds_up(outcome: Outcome) -> bool:
    """Whether every VM's cycles by cause are its time from start to finish, to the cycle."""
    return all(sum(each.cycles.values()) == each.finish - each.start for each in outcome.vms)
