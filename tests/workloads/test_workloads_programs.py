"""Do the streams of processes map, fork and switch as they say, and access only what is mapped?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmsim.base.errors import InputError
from vmsim.engine.simulation import Simulation
from vmsim.scenario import Scenario
from vmsim.workloads import Kind, Op
from vmsim.workloads.programs import Churn, Compile, Disk, ForkWait, Program, Switcher

PAGE = 4096
EVERY: list[Program] = [
    Churn(size=64 * PAGE, runs=200, burst=4 * PAGE, kept=0.3, work=37, writes=0.25),
    Churn(size=64 * PAGE, runs=50, burst=64 * PAGE, kept=1.0),
    ForkWait(size=64 * PAGE, runs=300),
    Compile(size=20 * PAGE, runs=40, text=10 * PAGE, parent=30 * PAGE, work=77, writes=0.5),
    Compile(size=PAGE, runs=3, text=PAGE, parent=0),
    Disk(size=64 * PAGE, runs=60, burst=8 * PAGE, work=21, writes=0.5),
    Switcher(size=20 * PAGE, runs=5000, spaces=3, every=333, writes=0.5),
    Churn(size=64 * PAGE, runs=20, burst=4 * PAGE, work=9, filled=True),
]
programs = pytest.mark.parametrize("program", EVERY, ids=lambda program: f"{program.name}-{program.runs}")


def steps(program: Program) -> list[Any]:
    """Return events (without their places) and accesses (address, kind), in the order they happen in."""
    found: list[Any] = []
    for chunk in program.chunks():
        events = list(chunk.events)
        assert [event.position for event in events] == sorted(event.position for event in events)
        for run in range(len(chunk.address) + 1):
            while events and events[0].position == run:
                event = events.pop(0)
                found.append((event.op, event.pid, event.address, event.length, event.argument))
            if run < len(chunk.address):
                found.append((int(chunk.address[run]), int(chunk.kind[run])))
        assert not events
    return found


@programs
def test_where_chunks_end_does_not_change_the_stream(program: Program) -> None:
    assert steps(replace(program, chunk=7)) == steps(replace(program, chunk=1000)) == steps(program)


@programs
def test_it_makes_as_many_accesses_as_it_says_within_its_footprint(program: Program) -> None:
    addresses = np.concatenate([chunk.address for chunk in program.chunks()])
    (start,), (length,) = program.footprint()
    assert len(addresses) == program.accesses
    assert start <= addresses.min()
    assert addresses.max() < start + length
    assert not (addresses % 8).any()


@programs
def test_the_arrays_are_what_the_machine_compiles_for(program: Program) -> None:
    for chunk in replace(program, chunk=11).chunks():
        assert [column.dtype for column in chunk[:3]] == [np.int64, np.int32, np.uint8]
        assert len(chunk.address) <= 11


@programs
def test_the_seed_matters_where_there_is_chance_and_the_digest_says_so(program: Program) -> None:
    other = replace(program, seed=program.seed + 1)
    chance = program.name in ("disk", "switcher") or getattr(program, "work", 0) > 0
    assert (steps(other) != steps(program)) == chance
    assert other.digest() != program.digest() == replace(program, chunk=3).digest()


class Mapped:
    """What a stream has mapped by page, to ask of each access whether it is."""

    def __init__(self, program: Program) -> None:
        self.pages: set[int] = set()
        self.most = 0
        for step in steps(program):
            if len(step) == 2:
                assert step[0] // PAGE in self.pages
                continue
            op, _, address, length, _ = step
            region = set(range(address // PAGE, (address + length) // PAGE))
            assert self.pages.isdisjoint(region) if op == Op.MAP else region <= self.pages
            self.pages = self.pages | region if op == Op.MAP else self.pages - region
            self.most = max(self.most, len(self.pages))


@given(
    blocks=st.integers(1, 12),
    burst=st.integers(1, 5),
    kept=st.floats(0.01, 1),
    rounds=st.integers(1, 40),
    work=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_churn_accesses_what_is_mapped_and_keeps_as_much_as_it_should(
    blocks: int, burst: int, kept: float, rounds: int, work: int, seed: int
) -> None:
    size, burst = blocks * burst * PAGE, burst * PAGE
    mapped = Mapped(Churn(size=size, burst=burst, kept=kept, runs=rounds, work=work, seed=seed))
    assert mapped.most == min(rounds, max(1, round(kept * blocks))) * burst // PAGE


def test_churn_that_begins_filled_is_what_goes_on_when_it_is_full() -> None:
    """The same stream, but for the work of the rounds that fill it."""
    shape = {"size": 64 * PAGE, "burst": 4 * PAGE, "work": 0}
    assert steps(Churn(**shape, runs=5, filled=True)) == steps(Churn(**shape, runs=13))
    worked = {"size": 64 * PAGE, "burst": 4 * PAGE, "work": 7}
    full = Churn(**worked, runs=5, filled=True)
    first = next(place for place, step in enumerate(steps(full)) if len(step) > 2 and step[0] == Op.UNMAP)
    assert first == 8 + 32
    assert len([step for step in steps(full) if len(step) == 2]) == full.accesses == 32 + 5 * (4 + 7)


def events(program: Program) -> list[tuple[Op, int]]:
    return [(event.op, event.pid) for chunk in program.chunks() for event in chunk.events]


def test_each_child_of_forkwait_runs_writes_and_exits_before_the_next() -> None:
    program = ForkWait(size=8 * PAGE, runs=3, child=2 * PAGE, parent=PAGE)
    assert events(program) == [(Op.FORK, 1), (Op.SWITCH, 2), (Op.EXIT, 2)] * 3
    found = steps(program)
    assert found[:8] == [(program.base + page * PAGE, Kind.WRITE) for page in range(8)]
    child = [(program.base + page * PAGE, Kind.WRITE) for page in range(2)]
    assert [step for step in found[8:14] if len(step) == 2] == [*child, child[0]]


def test_each_program_of_compile_is_forked_executed_and_ends() -> None:
    once = [(Op.FORK, 1), (Op.SWITCH, 2), (Op.EXEC, 2), (Op.MAP, 2), (Op.MAP, 2), (Op.EXIT, 2)]
    assert events(EVERY[3]) == once * 40


def test_switcher_goes_round_all_its_spaces() -> None:
    pids = [pid for _, pid in events(Switcher(size=PAGE, runs=1001, spaces=3, every=100))]
    assert pids == [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2]


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Churn(size=8 * PAGE, runs=1, burst=9 * PAGE), "burst"),
        (lambda: Churn(size=8 * PAGE, runs=1, burst=100), "burst"),
        (lambda: Churn(size=8 * PAGE, runs=1, burst=PAGE, kept=0.0), "kept"),
        (lambda: Churn(size=8 * PAGE, runs=0, burst=PAGE), "rounds"),
        (lambda: Churn(size=8 * PAGE, runs=1, burst=PAGE, work=-1), "work"),
        (lambda: ForkWait(size=PAGE, runs=1), "child"),
        (lambda: ForkWait(size=4 * PAGE, runs=0), "forks"),
        (lambda: Compile(size=PAGE, runs=1, text=1), "text"),
        (lambda: Compile(size=PAGE, runs=0), "processes"),
        (lambda: Compile(size=PAGE, runs=1, base=(1 << 47) - PAGE), "base"),
        (lambda: Switcher(size=PAGE, runs=1, spaces=0), "spaces"),
        (lambda: Switcher(size=PAGE, runs=1, every=0), "every"),
    ],
)
def test_an_impossible_parameter_is_refused_by_the_name_of_its_key(make: Callable[[], Program], key: str) -> None:
    with pytest.raises(InputError, match=f"workload .*: {key} ="):
        make()


SCENARIO = """
[host]
cpu = "yardstick"
memory = "64MiB"
[[vm]]
name = "vm"
memory = "16MiB"
mode = "{mode}"
files = {{ disk = "nvme" }}
workload = {{ {workload} }}
"""
KINDS = {
    "churn": 'kind = "churn", footprint = "256KiB", burst = "16KiB", rounds = 100, work = 50, writes = 0.5',
    "forkwait": 'kind = "forkwait", forks = 20',
    "compile": 'kind = "compile", footprint = "64KiB", processes = 5, text = "64KiB", work = 100',
    "disk": 'kind = "disk", footprint = "256KiB", reads = 20, block = "16KiB", work = 50, writes = 0.5',
    "files": 'kind = "files", footprint = "64KiB", data = "512KiB", operations = 60, written = 0.3, work = 20',
    "switcher": 'kind = "switcher", footprint = "64KiB", accesses = 2000, spaces = 4, every = 100, writes = 0.5',
}


@pytest.mark.parametrize("mode", ["native", "ept"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_scenario_runs_it_and_every_invariant_holds(kind: str, mode: str) -> None:
    from vmsim.engine.check.host import check_invariants

    simulation = Simulation(
        Scenario.from_toml(SCENARIO.format(mode=mode, workload=KINDS[kind])), observers=[check_invariants], serve=False
    )
    outcome = simulation.run()
    assert outcome.ending is None
    assert outcome.vms[0].counters["accesses"] == simulation.vms[0].stream.accesses
    assert outcome.vms[0].workload == kind


def test_a_fork_of_forkwait_makes_as_many_faults_as_pages_are_written_on_either_side() -> None:
    """64 at first; then four copies by each child, and four by each parent, whose pages are its own again by then."""
    simulation = Simulation(Scenario.from_toml(SCENARIO.format(mode="ept", workload=KINDS["forkwait"])))
    simulation.run()
    kernel = simulation.vms[0].kernel
    assert (kernel.faults, kernel.copies) == (64 + 20 * 8, 20 * 4)
