"""What do a guest kernel's own loads and stores cost where the hardware translates them, and whom may its map serve?"""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.small import BASE, PAGE, READ, WRITE, Script, Threads, run, scenario, time_adds_up, touches, vm
from tests.simulation.sums import check
from vmsim.base.errors import InputError
from vmsim.contracts import Moment
from vmsim.frames.records import State
from vmsim.guest.direct_map import map_base
from vmsim.machine.tlb import ASID_SHIFT
from vmsim.record.tables import rows
from vmsim.scenario import Scenario

# No paging-structure caches and no nested TLB: every walk reads all its entries.
_NONE = {"entries": 0, "ways": 0}
_LEVELS = ("pde", "pdpte", "pml4e", "pml5e")
UNCACHED = {
    "pwc": {name: _NONE for level in _LEVELS for name in (level, f"nested_{level}")},
    "ntlb": {"entries": 0, "ways": 0},
}


def host(mode: str, how: str = "direct-map", *, uncached: bool = True, **keys: Any) -> Scenario:
    more = {"cpu_override": UNCACHED} if uncached else {}
    return scenario(vm(mode=mode, kernel_accesses=how, **keys), what_if=True, **more)


def test_a_first_touch_under_ept_is_counted_by_hand() -> None:
    """4 levels on 4, 4 MiB: the map has pages of 2 MiB, so its walk reads 3 guest entries, a program's 4.

    An entry of the guest costs 4 nested references and its own, the page at the end 4. Guest tables lie in the first
    pageblock, whose first three frames (root, two of the map) are backed when the guest boots, so that a nested walk
    of another ends at level 1; data in another pageblock, of which nothing is backed: there the first ends at level 2.
    """
    _, one = run(host("ept"), [Script(touches([0], WRITE))])
    _, two = run(host("ept"), [Script(touches([0, 1], WRITE))])
    boot = 3  # root, directory pointer table and directory of the map: not translated
    assert one.vms[0].exits["EPT_VIOLATION"][0] == boot + 1 + 3
    assert two.vms[0].exits["EPT_VIOLATION"][0] == boot + 2 + 3

    program = 4 * 5 + 4  # a whole walk
    mapped = 3 * 5 + 4  # the same by the map
    # The second page: its fault, at level 1; the store that clears its frame, which the nested tables lack at level 1,
    # and the same once it is backed; the program's access. The kernel's loads and stores of entries are of four tables,
    # whose translations (of 4 KiB each, for the host's pages are small) the TLB has by now.
    faulted = 4 * 5
    failed = 3 * 5 + 4
    second = int(two.vms[0].refs.sum() - one.vms[0].refs.sum())
    assert second == faulted + failed + mapped + program
    # The first: its fault, at level 4; the clearing of its frame, and of three tables, each twice; the load of the
    # root's entry, the only table that was not cleared by the map; the program's access.
    tables = 3 * (failed + mapped)
    first = 5 + (3 * 5 + 3) + mapped + tables + mapped + program
    assert int(one.vms[0].refs.sum()) == first
    assert two.vms[0].counters["accesses"] == 2
    assert two.vms[0].counters["writes"] == 2


def test_nothing_is_translated_for_the_kernel_unless_that_is_asked_for() -> None:
    _, free = run(host("ept", "free"), [Script(touches([0], WRITE))])
    assert int(free.vms[0].refs.sum()) == 5 + 4 * 5 + 4
    assert host("ept", "free").canonical() == scenario(vm(), what_if=True, cpu_override=UNCACHED).canonical()


STEPS = [
    *touches(range(6), WRITE),
    ("fork", 2),
    *touches(range(3), WRITE),
    ("switch", 2),
    *touches(range(6)),
    *touches(range(2, 5), WRITE),
    ("protect", 0, 2, 1),
    ("unmap", 2, 2),
    *touches(range(4)),
    ("exit", 2),
    *touches(range(6), WRITE),
    ("exec", 1),
    ("map", 4, 40),
    *touches(range(4, 44), WRITE),
    ("unmap", 4, 40),
    *touches(range(6)),
]
SHADOWS = [
    {"preset": "kvm"},
    {"preset": "kvm-2007"},
    {"hide": "present-bit", "trap": "single-step", "ad": "read-sync"},
    {"trap": "emulate", "fill": "eager"},
    {"preset": "kvm", "on_cr3": "flush", "limit": 16},
]
CASES = [
    *({"mode": mode, **more} for mode in ("ept", "npt") for more in ({}, {"host_page": "2M"}, {"guest_levels": 5})),
    {"mode": "ept", "tags": "none", "pcid": False},
    {"mode": "ept", "populate": "eager"},
    {"mode": "ept", "guest_page": "2M"},
    *({"mode": "ept", "dirty_log": {"method": name, "every": "20us"}} for name in ("write-protect", "pml")),
    {"mode": "npt", "dirty_log": {"method": "ad-scan", "every": "20us"}},
    *({"mode": "shadow", "shadow": spec} for spec in SHADOWS),
    {"mode": "shadow", "pcid": False},
    {"mode": "shadow", "host_page": "2M", "populate": "eager"},
    {"mode": "agile", "agile": {"threshold": 2, "interval": "20us"}},
    {"mode": "agile", "pcid": False, "host_page": "2M"},
]


@pytest.mark.parametrize(
    ("cores", "case"),
    [
        pytest.param(cores, case, id=f"{cores}-{case}", marks=[pytest.mark.slow] if (cores + place) % 2 else [])
        for cores in (1, 2)
        for place, case in enumerate(CASES)
    ],
)
def test_every_mode_translates_its_kernel_and_gives_all_back(case: dict[str, Any], cores: int) -> None:
    """The invariants hold throughout, all sums agree, and what programs do is what it is without."""
    seen = {}
    for how in ("free", "direct-map"):
        tables = [vm(name, memory="8MiB", kernel_accesses=how, **case) for name in ("a", "b")]
        what = scenario(*tables, memory="32MiB", cores=cores, quantum="20us", what_if=True)
        simulation, outcome = run(what, [Script(STEPS), Script(STEPS)], every=200_003)
        assert outcome.ending is None
        assert time_adds_up(outcome)
        check(what, outcome)
        assert (simulation.host.frames["state"] == State.FREE).all()
        seen[how] = outcome.vms
    for free, paid in zip(*seen.values(), strict=True):
        assert paid.counters["accesses"] == free.counters["accesses"]
        assert paid.counters["writes"] == free.counters["writes"]
        assert paid.guest_faults == free.guest_faults
        assert paid.cycles["guest_fault"] == free.cycles["guest_fault"]
        assert paid.counters["walks"] > free.counters["walks"]
        if case["mode"] == "shadow" and case.get("populate") != "eager":  # boot alone; all else are faults of the map
            assert 0 < paid.exits["HOST_FAULT"][0] < free.exits["HOST_FAULT"][0]


@pytest.mark.parametrize("mode", ["ept", "agile"])
def test_tables_that_the_host_has_taken_come_back_before_the_kernel_reads_them(mode: str) -> None:
    """Each step maps a page, and meanwhile the host takes pages, tables among them; it once asked for them for ever."""
    steps: list[Any] = [step for page in range(40) for step in (("touch", 512 * page, WRITE), ("compute", 40_000))]
    table = vm(mode=mode, kernel_accesses="direct-map", vcpus=2, memory="8MiB")
    what = scenario(table, cores=2, what_if=True, reclaim={"rate": 200_000})
    simulation, outcome = run(what, [Threads([Script(steps), Script(steps[::-1])])], every=90_000)
    assert outcome.ending is None
    assert simulation.vms[0].pages.taken > 40


@pytest.mark.parametrize("mode", ["ept", "npt", "shadow", "agile"])
def test_a_program_may_not_use_the_kernels_translations(mode: str) -> None:
    """Of what the TLB has by the map a program reads one address: that is a page fault, which ends it."""
    kept: set[int] = set()

    def look(moment: Moment, simulation: Any, whose: Any) -> None:
        machine = simulation.vms[0]
        number = (int(machine.registers["asid"][0]) + machine.spaces[0].kernel_apart) >> ASID_SHIFT
        tags = simulation.hardware.cores["l1_tlb0"]["tag"].ravel()
        if moment is Moment.VM_FINISHED:
            kept.update(tag >> 2 & ((1 << 36) - 1) for tag in tags.tolist() if tag >= 0 and tag >> ASID_SHIFT == number)

    steps = touches(range(4), WRITE)
    run(host(mode, uncached=False), [Script(steps)], check=look)
    page = max(kept)
    assert page >= map_base(4) // PAGE
    kept.clear()
    last = ("touch", page - (1 << 36) - BASE // PAGE, READ)  # a canonical address: the bits above are ones
    _, outcome = run(host(mode, uncached=False), [Script([*steps, last])], check=look)
    assert page in kept
    assert outcome.vms[0].counters["accesses"] == len(steps)
    assert not outcome.vms[0].finished
    assert outcome.ending is not None
    assert "in the kernel's half" in outcome.ending.message


def test_faults_of_the_kernels_map_are_the_kernels_in_the_table_of_pagers() -> None:
    """8 pages under KVM of 2007: each frame's clearing, by the map, and each page of its tables faults at CPL 0."""
    what = host("shadow", uncached=False, shadow={"preset": "kvm-2007"})
    _, outcome = run(what, [Script(touches(range(8), WRITE))])
    count = {(row["pager"], row["cpl"]): row["count"] for row in rows("pagers", outcome)}
    exits = outcome.vms[0].exits
    assert count["data", 3] == 8 + 8  # each page's TRUE_FAULT, and the fill that follows
    assert exits["TRUE_FAULT"][0] == 8
    assert count["data", 0] + count["data", 3] + count["table", 0] + count["directory", 0] == sum(
        number for reason, (number, _) in exits.items() if reason != "CR3"
    )


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"mode": "native"}, "no effect in mode native"),
        ({"mode": "vkernel"}, "no effect in mode vkernel"),
        ({"mode": "ept", "guest_levels": 3}, "guest_levels"),
        ({"mode": "shadow", "shadow": {"hide": "user-bit"}}, "user bit"),
    ],
)
def test_where_there_is_no_such_map_it_is_refused(keys: dict[str, Any], word: str) -> None:
    base = {"base": 1 << 28} if keys.get("guest_levels") == 3 else {}
    with pytest.raises((InputError, ValueError), match=word):
        scenario(vm(kernel_accesses="direct-map", workload=base, **keys), what_if=True)
