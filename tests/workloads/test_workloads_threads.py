"""Do the threads of a workload share its work, and take turns in order where CPUs are fewer?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.simulation.small import BASE, run, scenario, vm
from vmsim.base.errors import InputError
from vmsim.scenario.programs import Churn as ChurnKeys
from vmsim.scenario.programs import Switcher as SwitcherKeys
from vmsim.scenario.workload import Uniform as UniformKeys
from vmsim.workloads import Chunk, Event, Op, open_stream
from vmsim.workloads.generators import Chase, Generator, Gups, Sequential, Uniform, WorkingSet, Zipf
from vmsim.workloads.normal import Normal
from vmsim.workloads.programs import Churn, Disk, ForkWait
from vmsim.workloads.threads import OnCpus, in_turn

PAGE = 4096
THREADS = 3
EVERY: list[Any] = [
    (kind, {"size": 96 * PAGE, "runs": 1000, **keys})
    for kind, keys in (
        (Uniform, {"writes": 0.5}),
        (Gups, {}),
        (Zipf, {}),
        (Sequential, {"stride": 64}),
        (Chase, {"stride": PAGE}),
        (Chase, {"order": "page"}),
        (Normal, {"writes": 0.25}),
        (WorkingSet, {"window": 8 * PAGE, "phase": 100, "step": 8 * PAGE}),
        (Churn, {"burst": 4 * PAGE, "kept": 0.4, "work": 7}),
        (Churn, {"burst": 4 * PAGE, "filled": True}),
        (Disk, {"burst": 4 * PAGE, "work": 7}),
    )
]
every = pytest.mark.parametrize(("kind", "keys"), EVERY, ids=lambda value: getattr(value, "name", ""))


def addresses(stream: Any, thread: int = 0) -> np.ndarray:
    return np.concatenate([chunk.address for chunk in stream.chunks(thread)])


@every
def test_threads_share_the_work_evenly_and_one_thread_is_the_stream_as_it_was(kind: Any, keys: dict[str, Any]) -> None:
    stream, alone = kind(**keys, threads=THREADS), kind(**keys)
    made = [sum(int(chunk.count.sum()) for chunk in stream.chunks(thread)) for thread in range(THREADS)]
    assert sum(made) == stream.accesses
    turns = [1000 // 3 + 1, 1000 // 3, 1000 // 3]
    if not keys.get("filled"):
        assert [count * 1000 for count in made] == [turn * alone.accesses for turn in turns]
    assert alone.digest() == kind(**keys, threads=1).digest() != stream.digest()
    assert all(np.array_equal(addresses(stream, thread), addresses(stream, thread)) for thread in range(THREADS))


@pytest.mark.parametrize("kind", [Uniform, Zipf])
def test_threads_choose_for_themselves(kind: type[Generator]) -> None:
    stream = kind(size=96 * PAGE, runs=3000, threads=3)
    first, second, _ = (addresses(stream, thread) for thread in range(3))
    assert np.mean(first == second) < 0.05


def test_the_popular_pages_are_the_same_for_all_threads() -> None:
    stream = Zipf(size=64 * PAGE, runs=40_000, exponent=2.0, threads=2)
    tops = [np.bincount((addresses(stream, thread) - stream.base) // PAGE).argmax() for thread in range(2)]
    assert tops[0] == tops[1]


def test_sequential_threads_start_evenly_spread() -> None:
    stream = Sequential(size=12 * PAGE, runs=24, stride=PAGE, threads=3)
    starts = [((addresses(stream, thread) - stream.base) // PAGE).tolist() for thread in range(3)]
    assert starts == [[*range(8)], [*range(4, 12)], [8, 9, 10, 11, 0, 1, 2, 3]]


def test_threads_of_a_chase_follow_one_cycle() -> None:
    alone = addresses(Chase(size=48 * PAGE, runs=48, stride=PAGE)).tolist()
    threads = Chase(size=48 * PAGE, runs=96, stride=PAGE, threads=2)
    assert addresses(threads, 0).tolist() == alone
    assert addresses(threads, 1).tolist() == alone[24:] + alone[:24]


def test_threads_of_churn_map_and_unmap_blocks_of_their_own() -> None:
    stream = Churn(size=32 * PAGE, runs=300, burst=4 * PAGE, threads=3)  # 8 blocks: 2, 3 and 3
    own = []
    for thread in range(3):
        events = [event for chunk in stream.chunks(thread) for event in chunk.events]
        own.append({(event.address - stream.base) // (4 * PAGE) for event in events})
        assert {event.op for event in events} == {Op.MAP, Op.UNMAP}
    assert own == [{0, 1}, {2, 3, 4}, {5, 6, 7}]


def test_what_cannot_have_threads_is_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match="threads = 2: expected 1: its processes run one after the other"):
        ForkWait(size=64 * PAGE, runs=10, threads=2)
    with pytest.raises(ValueError, match="found 2, expected 1: its processes run one after the other"):
        TypeAdapter(SwitcherKeys).validate_python({"kind": "switcher", "footprint": PAGE, "accesses": 9, "threads": 2})
    churn = {"kind": "churn", "footprint": 8 * PAGE, "burst": 4 * PAGE, "rounds": 9, "threads": 3}
    with pytest.raises(ValueError, match="found 3, expected at most 2: each has blocks of the footprint for itself"):
        TypeAdapter(ChurnKeys).validate_python(churn)
    uniform = {"kind": "uniform", "footprint": PAGE, "accesses": 2, "threads": 3}
    with pytest.raises(ValueError, match="3 > 2"):
        TypeAdapter(UniformKeys).validate_python(uniform)


# Threads in turn, against a twin that goes access by access.

Item = tuple[str, int]  # ("access", its number) or the name of an operation


def items(thread: int, what: list[int]) -> list[Item]:
    """Return what a thread does: a number n > 0 is a run of n accesses, 0 an operation, -1 a barrier."""
    made: list[Item] = []
    for place, count in enumerate(what):
        address = (thread << 20 | place) * PAGE
        made += [("access", address)] * count if count > 0 else [("barrier" if count < 0 else "map", address)]
    return made


def chunked(thread: int, what: list[int], size: int) -> Iterator[Chunk]:
    """Give the same as chunks of so many steps."""
    for first in range(0, len(what), size):
        runs: list[tuple[int, int]] = []
        events: list[Event] = []
        for place, count in enumerate(what[first : first + size], first):
            address = (thread << 20 | place) * PAGE
            if count > 0:
                runs.append((address, count))
            else:
                events.append(Event(len(runs), Op.BARRIER if count < 0 else Op.MAP, 1, address, PAGE, 0))
        columns = np.array(runs, np.int64).reshape(-1, 2)
        kinds = np.zeros(len(runs), np.uint8)
        yield Chunk(columns[:, 0].copy(), columns[:, 1].astype(np.int32), kinds, tuple(events))


def flat(chunks: Iterator[Chunk]) -> list[Item]:
    """Return what chunks say, access by access."""
    made: list[Item] = []
    for chunk in chunks:
        events = list(chunk.events)
        for place in range(len(chunk.count) + 1):
            while events and events[0].position == place:
                event = events.pop(0)
                made.append((event.op.name.lower(), event.argument if event.op == Op.THREAD else event.address))
            if place < len(chunk.count):
                assert chunk.count[place] > 0
                made += [("access", int(chunk.address[place]))] * int(chunk.count[place])
        assert not events
    return made


@given(
    st.lists(st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=3, max_size=3), min_size=1, max_size=4),
    st.integers(1, 12),
    st.integers(1, 4),
)
def test_threads_of_one_cpu_take_turns_and_wait_for_one_another_at_barriers(
    parts: list[list[list[int]]], turn: int, size: int
) -> None:
    """Whatever the turns: each thread's order is kept, and nothing is lost."""
    scripts = {number: [*a, -1, *b, -1, *c] for number, (a, b, c) in enumerate(parts)}
    made = flat(in_turn({number: chunked(number, script, size) for number, script in scripts.items()}, turn))
    running, left = None, {number: items(number, script) for number, script in scripts.items()}
    for what, value in made:
        if what == "thread":
            running = value
        elif what == "barrier":
            for rest in left.values():
                assert rest.pop(0)[0] == "barrier"
        else:
            owner = value // PAGE >> 20
            assert running in (None, owner)
            running = owner
            assert left[owner].pop(0) == (what, value)
    assert not any(left.values())


def test_three_threads_on_one_cpu_have_turns_of_so_many_accesses() -> None:
    """By hand: runs of 3 and 2, of 4, and of 1; turns of 2."""
    threads = {0: [3, 2], 1: [4], 2: [1]}
    made = flat(in_turn({number: chunked(number, script, 5) for number, script in threads.items()}, 2))
    a, b, c, d = 0, PAGE, (1 << 20) * PAGE, (2 << 20) * PAGE
    said = [
        *[("access", a)] * 2,
        *[("thread", 1), ("access", c), ("access", c)],
        *[("thread", 2), ("access", d)],
        *[("thread", 0), ("access", a), ("access", b)],
        *[("thread", 1), ("access", c), ("access", c)],
        *[("thread", 0), ("access", b)],
    ]
    assert made == said


def test_a_thread_of_another_process_goes_on_by_a_switch() -> None:
    def chunks(pid: int) -> Iterator[Chunk]:
        switch = (Event(0, Op.SWITCH, pid, 0, 0, 0),) if pid > 1 else ()
        yield Chunk(np.full(4, pid * PAGE), np.ones(4, np.int32), np.zeros(4, np.uint8), switch)

    made = list(in_turn({0: chunks(1), 1: chunks(2)}, 2))
    events = [(event.op, event.pid) for piece in made for event in piece.events]
    # the second starts by its own switch; what precedes it is a thread of the process that still runs
    assert events == [(Op.THREAD, 1), (Op.SWITCH, 2), (Op.SWITCH, 1), (Op.SWITCH, 2)]


def test_a_stream_has_at_most_as_many_threads_as_the_guest_has_cpus() -> None:
    keys = {"kind": "uniform", "footprint": 64 * PAGE, "accesses": 1000, "threads": 5, "turn": 30}
    spec = TypeAdapter(UniformKeys).validate_python(keys)
    stream, whole = (open_stream(spec, folder=Path(), memory=1 << 20, seed=7, cpus=cpus) for cpus in (2, 5))
    assert isinstance(stream, OnCpus)
    assert (stream.threads, whole.threads) == (2, 5)
    assert (stream.accesses, stream.digest()) == (whole.accesses, whole.digest()) != (0, "")
    for cpu, numbers in enumerate(([0, 2, 4], [1, 3])):
        those = np.concatenate([addresses(whole, number) for number in numbers])
        assert sorted(addresses(stream, cpu)) == sorted(those)


def test_a_vm_of_one_vcpu_runs_all_threads() -> None:
    workload = {"kind": "uniform", "footprint": 16 * PAGE, "accesses": 400, "base": BASE, "threads": 4, "turn": 10}
    _, outcome = run(scenario(vm(workload=workload)))
    assert outcome.vms[0].counters["accesses"] == 400
