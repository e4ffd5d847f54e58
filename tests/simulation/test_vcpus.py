"""Are several vCPUs of one VM what several processors of one machine are: one memory, TLBs of their own?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.simulation.small import BASE, READ, WRITE, Script, Threads, digest, run, scenario, touches, vm
from vmsim.machine.layout import Count

MODES: list[dict[str, Any]] = [
    {"mode": "native"},
    {"mode": "native", "pcid": False},
    {"mode": "ept"},
    {"mode": "ept", "tags": "none"},
    {"mode": "npt", "pcid": False},
    {"mode": "ept", "host_page": "2M", "guest_page": "2M"},
    {"mode": "vkernel"},
    {"mode": "shadow"},
    {"mode": "shadow", "pcid": False, "shadow": {"preset": "kvm-2007"}},
    {"mode": "shadow", "shadow": {"preset": "plex86"}, "software_tlb": {"entries": 16}},
    {"mode": "shadow", "shadow": {"preset": "plex86", "fill": "eager", "hide": "present-bit"}},
    {"mode": "shadow", "shadow": {"trap": "emulate", "write_flood": 2, "limit": 40}},
    {"mode": "shadow", "dirty_log": {"method": "write-protect", "every": "20us"}},
    {"mode": "shadow", "guest_levels": 2},
    {"mode": "shadow", "guest_levels": 3, "shadow": {"preset": "plex86", "fill": "eager"}},
    {"mode": "agile", "agile": {"interval": "10us", "threshold": 2, "root_cache": 4}},
    {"mode": "agile", "agile": {"interval": "5us", "threshold": 1, "back": "all"}, "pcid": False},
    {"mode": "vkernel", "guest_levels": 3},
    *({"mode": mode, "kernel_accesses": "direct-map"} for mode in ("ept", "npt", "shadow", "agile")),
    {"mode": "paired", "paired": {"layout": "separate"}},
    {"mode": "paired", "paired": {"guest": False}},
]
IDS = [str(number) + "-" + str(keys["mode"]) for number, keys in enumerate(MODES)]
PAGES = st.integers(0, 12)
PIDS = st.sampled_from([1, 2, 3])
STEPS = st.one_of(
    st.tuples(st.just("touch"), PAGES, st.sampled_from([READ, WRITE]), st.integers(1, 300)),
    st.tuples(st.just("touch"), PAGES, st.sampled_from([READ, WRITE])),
    st.tuples(st.just("map"), PAGES, st.integers(1, 8), st.sampled_from([1, 3])),
    st.tuples(st.just("unmap"), PAGES, st.integers(1, 40)),
    st.tuples(st.just("protect"), PAGES, st.integers(1, 8), st.sampled_from([0, 1, 3])),
    st.tuples(st.just("move"), PAGES, st.integers(1, 8), PAGES),
    st.tuples(st.just("discard"), PAGES, st.integers(1, 8), st.sampled_from([0, 1])),
    st.tuples(st.just("populate"), PAGES, st.integers(1, 8)),
    st.tuples(st.just("io"), PAGES, st.integers(1, 3), st.integers(0, 3000)),
    st.tuples(st.just("compute"), st.integers(0, 30_000)),
    *(st.tuples(st.just(what), PIDS) for what in ("fork", "share", "switch", "switch", "by", "exit", "exec")),
)
PROGRAM = st.lists(STEPS, max_size=25).map(lambda steps: [("touch", 0, WRITE), *steps])


def threads(*programs: list[Any], base: int = BASE) -> Threads:
    return Threads([Script(steps, base=base) for steps in programs])


# With large pages: a CPU that was preempted, and then wants a lock whose holder waits for it to flush.
LOCKED: list[list[tuple[Any, ...]]] = [
    [
        *(("touch", 0, 1), ("compute", 384), ("switch", 2), ("touch", 3, 0), ("discard", 8, 3, 0)),
        *(("protect", 0, 7, 1), ("fork", 3), ("move", 1, 8, 12), ("share", 2)),
    ],
    [
        *(("touch", 0, 1), ("share", 2), ("protect", 4, 2, 1), ("discard", 10, 3, 0), ("discard", 8, 8, 1)),
        *(("touch", 12, 0, 14), ("map", 5, 4, 1), ("switch", 1), ("protect", 3, 8, 3), ("touch", 7, 1, 69)),
        *(("compute", 30_000), ("discard", 2, 8, 1), ("unmap", 7, 20), ("io", 11, 1, 0), ("move", 12, 8, 5)),
    ],
    [("touch", 0, 1), ("discard", 4, 1, 0), ("populate", 0, 7), ("fork", 2), ("touch", 4, 1)],
]


DRAWN = {
    "programs": st.lists(PROGRAM, min_size=2, max_size=4),
    "cores": st.integers(1, 3),
    "horizon": st.sampled_from(["200ns", "3us", "20us"]),
    "pool": st.sampled_from([(1, 2, 1), (4, 64, 16)]),
}


@pytest.mark.parametrize("keys", MODES, ids=IDS)
@example(programs=LOCKED, cores=2, horizon="200ns", pool=(1, 2, 1))
@settings(max_examples=3)
@given(**DRAWN)
def test_whatever_vcpus_do_to_one_memory_nothing_is_lost_and_no_tlb_is_wrong(
    keys: dict[str, Any], **drawn: Any
) -> None:
    nothing_is_lost(keys, **drawn)


@pytest.mark.slow
@pytest.mark.parametrize("keys", MODES, ids=IDS)
@settings(max_examples=40)
@given(**DRAWN)
def test_nor_in_many_more_programs(keys: dict[str, Any], **drawn: Any) -> None:
    nothing_is_lost(keys, **drawn)


def nothing_is_lost(
    keys: dict[str, Any], programs: list[Any], cores: int, horizon: str, pool: tuple[int, int, int]
) -> None:
    """Run a VM of so many vCPUs beside one of two, with every invariant checked on the way."""
    base = BASE if keys.get("guest_levels", 4) > 3 else 0x1000_0000  # a 32-bit program's
    there = {"workload": {"base": base}}
    what = scenario(
        vm("a", vcpus=len(programs), memory="8MiB", **there, **keys),
        vm("b", vcpus=2, memory="4MiB", **there, **keys),
        memory="32MiB",
        cores=cores,
        quantum="5us",
        horizon=horizon,
        pool=dict(zip(("min", "max", "batch"), pool, strict=True)),
    )
    streams = [
        threads(*programs, base=base),
        threads(touches(range(20), WRITE), touches(range(10, 30)), base=base),
    ]
    simulation, outcome = run(what, streams, every=700_000 if "host_page" in keys else 30_011)  # to clear 2M takes long
    assert outcome.ending is None
    for each in outcome.vms:  # what shootdowns and kicks took among them
        assert sum(cycles for _, cycles in each.exits.values()) == each.cycles.get("exit", 0)
    assert [each.counters["accesses"] for each in outcome.vms] == [each.accesses for each in streams]
    for each in simulation.vms:
        lived = [int(part["counters"][Count.ACCESSES]) for part in each.registers]
        assert lived == [script.accesses for script in each.stream.scripts]
    assert digest(run(what, streams, check=None)[1]) == digest(outcome)  # looking changes nothing


@pytest.mark.parametrize("mode", ["native", "ept", "npt", "shadow", "agile", "vkernel"])
@pytest.mark.parametrize("last", range(3))
def test_a_vm_ends_when_the_last_of_its_vcpus_has_lived_its_time(mode: str, last: int) -> None:
    """A vCPU that runs ahead of the clock comes to the end of its part at once, and lives on for what it owes."""
    cpu = "zen2" if mode == "npt" else "skylake-x"
    what = scenario(vm("a", mode=mode, vcpus=3, memory="8MiB", populate="eager"), memory="32MiB", cores=3, cpu=cpu)
    long, short = [("touch", 0, READ), ("touch", 0, READ, 40_000)], [("touch", 1, READ)]
    _, outcome = run(what, [threads(*[long if number == last else short for number in range(3)])])
    alone = outcome.vms[0].cycles["compute"] - 2  # a cycle for each access
    assert outcome.vms[0].finish - outcome.vms[0].start >= alone > 9000
