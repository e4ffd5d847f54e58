"""What every paging mode must do alike: translate, fault, flush, give everything back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import pytest

from tests.oracle import tables as oracle
from tests.simulation.small import BASE, PAGE, READ, WRITE, Script, run, scenario, time_adds_up, touches, vm
from vmsim.contracts import Moment
from vmsim.engine.check.host import check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.engine.virtual_machine import VirtualMachine
from vmsim.frames.records import State
from vmsim.machine.tlb import ASID_SHIFT

ORDER = {"4K": 0, "2M": 9, "4M": 10, "1G": 18}
MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    mode: str
    guest_page: str = "4K"
    host_page: str = "4K"
    populate: str = "lazy"
    guest_levels: int = 4
    host_levels: int = 4

    def __str__(self) -> str:
        return f"{self.mode}-{self.guest_page}-{self.host_page}-{self.populate}-{self.guest_levels}x{self.host_levels}"

    @property
    def memory(self) -> int:
        """Guest memory: room for the tables' own pageblock (or gigabyte) besides the data."""
        if self.guest_page == "1G":
            return 2048 * MIB
        return 1024 * MIB if self.host_page == "1G" else 16 * MIB

    @property
    def pages(self) -> int:
        """Guest pages that are touched."""
        return {"4K": 24, "2M": 3, "4M": 3, "1G": 1}[self.guest_page]

    @property
    def base(self) -> int:
        """Where they begin: at a boundary of 1 GiB."""
        return BASE if self.guest_levels > 3 else 1 << 30

    @property
    def nested(self) -> bool:
        """Whether the hardware or a monitor translates gpas."""
        return self.mode != "native"

    @property
    def reserved(self) -> int:
        """Frames of the host that no VM ever has."""
        return 0

    @property
    def guest_tables(self) -> int:
        """Guest tables on the way to one region: a large page needs one or two fewer."""
        return self.guest_levels - ORDER[self.guest_page] // 9

    @property
    def exits(self) -> dict[str, int]:
        """Exits by reason."""
        reason = {"native": None, "ept": "EPT_VIOLATION", "npt": "NPF"}[self.mode]
        return {reason: self.violations} if reason else {}

    @property
    def violations(self) -> int:
        """Gpas that are backed at an exit, counted by hand.

        The guest's tables share a pageblock of 2 MiB, and small data pages another; guest and host pages are aligned.
        """
        if self.mode == "native" or self.populate == "eager":
            return 0
        guest, host = ORDER[self.guest_page], ORDER[self.host_page]
        if host == 0:
            return (self.pages << guest) + self.guest_tables
        tables = 1  # one host page backs them all
        if host <= guest:
            return (self.pages << guest - host) + tables
        return 1 + tables if host == 9 else 1

    def scenario(self) -> Any:
        keys: dict[str, Any] = {"host_page": self.host_page} if self.mode != "native" else {}
        if self.mode not in ("native", "shadow", "vkernel"):  # which have no nested tables
            keys["host_levels"] = self.host_levels
        keys |= {"guest_page": self.guest_page, "guest_levels": self.guest_levels, "populate": self.populate}
        size = PAGE << ORDER[self.guest_page]
        workload = {"footprint": self.pages * size, "stride": size, "accesses": self.pages, "base": self.base}
        host = self.memory + (2048 if "1G" in (self.guest_page, self.host_page) else 16) * MIB
        return scenario(vm(mode=self.mode, memory=self.memory, workload=workload, **keys), memory=host)


CASES = [
    *(Case("native", page, populate=how) for page in ("4K", "2M", "1G") for how in ("lazy", "eager")),
    Case("native", "4K", guest_levels=5),
    Case("native", "2M", populate="eager", guest_levels=5),
    # All pairs of (mode, guest page, host page, populate, levels).
    Case("ept", "4K", "4K"),
    Case("npt", "4K", "4K", "lazy", 5, 5),
    Case("ept", "4K", "4K", "eager", 5, 4),
    Case("npt", "4K", "2M", "eager", 4, 5),
    Case("ept", "4K", "2M", "lazy", 5, 5),
    Case("ept", "4K", "1G", "lazy", 4, 5),
    Case("npt", "4K", "1G", "eager", 5, 4),
    Case("npt", "2M", "4K", "lazy", 4, 4),
    Case("ept", "2M", "4K", "eager", 5, 5),
    Case("ept", "2M", "2M", "lazy", 4, 5),
    Case("npt", "2M", "2M", "eager", 5, 4),
    Case("npt", "2M", "1G", "lazy", 5, 5),
    Case("ept", "2M", "1G", "eager", 4, 4),
    Case("ept", "1G", "4K", "eager", 4, 5),
    Case("npt", "1G", "2M", "lazy", 5, 4),
    Case("ept", "1G", "1G", "lazy", 5, 5),
    Case("npt", "1G", "1G", "eager", 4, 4),
]


@dataclass(frozen=True)
class ShadowCase(Case):
    preset: str = "kvm"

    def __str__(self) -> str:
        return f"{self.preset}-{super().__str__()}"

    @property
    def exits(self) -> dict[str, int]:
        """Of the exits only the guest's own faults are the same however it is shadowed."""
        return {"TRUE_FAULT": self.pages if self.populate == "lazy" else 0}

    def scenario(self) -> Any:
        return super().scenario().replace(**{"vm.shadow.preset": self.preset})


SHADOWED = [
    ShadowCase(**vars(case) | {"mode": "shadow", "host_levels": 4}, preset=preset)
    for case, preset in zip(
        [case for case in CASES if case.mode != "native"], cycle(("kvm", "plex86", "kvm-2007")), strict=False
    )
]


@dataclass(frozen=True)
class AgileCase(Case):
    @property
    def exits(self) -> dict[str, int]:
        """Which exits there are depends on when a table goes over to nested walks."""
        return {}

    def scenario(self) -> Any:
        return super().scenario().replace(**{"vm.agile.interval": "5us"})


AGILE = [AgileCase(**vars(case) | {"mode": "agile"}) for case in CASES if case.mode != "native"][::3]


@dataclass(frozen=True)
class VkernelCase(Case):
    @property
    def exits(self) -> dict[str, int]:
        """The host backs memory as a monitor does; the guest's kernel gets the guest's faults."""
        return {"HOST_FAULT": self.violations, "REFLECT": self.pages if self.populate == "lazy" else 0}


VKERNELS = [
    VkernelCase("vkernel"),
    VkernelCase("vkernel", "4K", "2M", "eager", 5),
    VkernelCase("vkernel", "2M", "4K", "eager", 4),
    VkernelCase("vkernel", "2M", "2M", "lazy", 4),
]


class Words(dict[int, int]):
    """Memory as the oracle reads it: words by hpa."""

    def __init__(self, memory: np.ndarray) -> None:
        super().__init__()
        self.memory = memory

    def get(self, hpa: int, _: int = 0) -> int:  # type: ignore[override]
        return int(self.memory[hpa >> 3])


def resolve(simulation: Simulation, machine: VirtualMachine, gva: int) -> tuple[int, int, int] | None:
    """Return (hpa, guest's leaf level, host's leaf level) of a gva by the oracle's reader; host level 0 if bare."""
    words, registers = Words(simulation.hardware.memory), machine.registers[0]
    if machine.spec.bare:
        found = oracle.translate(words, int(registers.cr3), int(registers.levels), gva)
        return found and (*found, 0)
    nested = machine.monitor.memory_root
    root = getattr(machine.monitor, "cr3", [int(registers.cr3)])[0]  # the guest's, where a monitor hides it
    kept = machine.monitor.backing
    guest = oracle.translate_guest(words, root, int(registers.levels), *nested, gva, kept)
    if guest is None:
        return None
    host = oracle.translate_nested(words, *nested, guest[0], kept)
    return host and (host[0], guest[1], host[1])


def kept(simulation: Simulation, machine: VirtualMachine) -> Iterator[str]:
    """Yield the name of every unit, on any core, that keeps something of a VM."""
    asid = int(machine.registers["asid"][0]) >> ASID_SHIFT
    for core in simulation.hardware.cores:
        for name in core.dtype.names:
            fields = core[name].dtype.names
            if fields and "value" in fields:  # a TLB, walk cache or nested TLB
                tags = core[name]["tag"]
                if (tags[tags >= 0] >> ASID_SHIFT == asid).any():
                    yield name


def keep_the_contract(case: Case) -> None:
    """Run a case, and look at its host at its end and after it."""
    seen = []

    def at_boundary(moment: Moment, simulation: Simulation, whose: Any) -> None:
        check_invariants(moment, simulation, whose)
        if moment is not Moment.VM_FINISHED:
            return
        machine = simulation.vms[0]
        frames, pfns = simulation.host.frames, set()
        for number in range(case.pages):
            size = PAGE << ORDER[case.guest_page]
            for offset in (0, 0x7F8, size - 8):
                found = resolve(simulation, machine, case.base + number * size + offset)
                assert found is not None
                hpa, guest_level, host_level = found
                assert hpa % PAGE == offset % PAGE
                assert guest_level == ORDER[case.guest_page] // 9 + 1
                assert host_level == (ORDER[case.host_page] // 9 + 1 if case.nested else 0)
                assert (frames["owner"][hpa // PAGE], frames["state"][hpa // PAGE]) == (0, State.GUEST)
                pfns.add((hpa // PAGE, number))
        assert len({pfn for pfn, _ in pfns}) == len(pfns)  # no frame serves two pages
        assert resolve(simulation, machine, case.base + case.pages * size) is None
        assert list(kept(simulation, machine))  # or the check below that nothing is kept would be empty
        seen.append(moment)

    simulation, outcome = run(case.scenario(), check=at_boundary, events=2_000_000)
    assert outcome.ending is None
    assert seen
    (figures,) = outcome.vms
    assert figures.finished
    assert figures.counters["accesses"] == case.pages
    assert figures.guest_faults == (case.pages if case.populate == "lazy" else 0)
    counted = {reason: count for reason, (count, _) in figures.exits.items()}
    assert {reason: counted.get(reason, 0) for reason in case.exits} == case.exits
    assert bool(counted) == case.nested
    assert time_adds_up(outcome)
    assert simulation.host.size - simulation.host.free == case.reserved
    assert (simulation.host.frames["state"] != State.FREE).sum() == case.reserved
    assert not list(kept(simulation, simulation.vms[0]))


# 32-bit paging, which has its own pages of 4 MiB, in guests and, NPT, in hosts.
TWO_LEVEL = [
    Case("native", "4K", "4K", "lazy", 2),
    Case("native", "4M", "4K", "eager", 2),
    Case("ept", "4K", "4K", "eager", 2, 4),
    Case("ept", "4K", "2M", "lazy", 2, 4),
    Case("ept", "4M", "2M", "lazy", 2, 5),
    Case("ept", "4M", "1G", "eager", 2, 4),
    Case("npt", "4K", "4K", "lazy", 2, 2),
    Case("npt", "4M", "4K", "lazy", 2, 2),
    Case("npt", "4M", "4M", "lazy", 2, 2),
    Case("npt", "4K", "4M", "eager", 2, 2),
    Case("npt", "4M", "2M", "lazy", 2, 3),
]


@pytest.mark.parametrize("case", [*CASES, *SHADOWED, *AGILE, *VKERNELS, *TWO_LEVEL], ids=str)
def test_every_mode_translates_faults_and_gives_back(case: Case) -> None:
    keep_the_contract(case)


BACKING = ("EPT_VIOLATION", "NPF", "HOST_FAULT")  # exits at which the host backs memory
ALL: dict[str, dict[str, Any]] = {  # every mode there is, as keys of a VM
    "native": {"mode": "native"},
    "ept": {"mode": "ept"},
    "npt": {"mode": "npt"},
    "shadow-kvm": {"mode": "shadow", "shadow": {"preset": "kvm"}},
    "shadow-kvm-2007": {"mode": "shadow", "shadow": {"preset": "kvm-2007"}},
    "shadow-plex86": {"mode": "shadow", "shadow": {"preset": "plex86"}},
    "agile": {"mode": "agile", "agile": {"interval": "50us", "threshold": 2}},
    "vkernel": {"mode": "vkernel"},
    **{
        f"paired-{layout}-{'vm' if guest else 'process'}": {
            "mode": "paired",
            "paired": {"layout": layout, "guest": guest},
        }
        for layout in ("contiguous", "pointer", "separate")
        for guest in (True, False)
    },
}
UNMAPPING = [
    Case("native"),
    Case("ept"),
    Case("npt"),
    Case("native", "2M"),
    Case("ept", "2M"),
    Case("npt", "2M", "2M"),
    VkernelCase("vkernel"),
    VkernelCase("vkernel", "2M", "2M"),
]


def unmap_run(case: Case, steps: list[Any]) -> tuple[Simulation, Any]:
    what = case.scenario()
    return run(what.replace(**{"vm.memory": "64MiB", "host.memory": "96MiB"}), [Script(steps)], every=150_001)


@pytest.mark.parametrize("case", UNMAPPING, ids=str)
@pytest.mark.parametrize("count", [1, 3, 40])
@pytest.mark.parametrize("what", ["unmap", "map"])
def test_what_was_unmapped_faults_again_and_nothing_else_does(case: Case, count: int, what: str) -> None:
    """40 pages are more than Linux invalidates one by one, so that the whole TLB is flushed."""
    size = 1 << ORDER[case.guest_page]
    if size > 1:
        count = min(count, 3)
    pages = [number * size for number in range(count + 2)]
    warm = touches(pages, WRITE) + touches(pages)
    steps = [*warm, (what, pages[1], count * size), *touches(pages)]
    _, outcome = unmap_run(case, steps)
    assert outcome.vms[0].guest_faults == len(pages) + count
    # A page after an unmap is another guest frame or one that comes back: the host backs at most one each.
    _, before = unmap_run(case, warm)
    counts = [each.vms[0].exits.items() for each in (before, outcome)]
    exits = [sum(count for reason, (count, _) in each if reason in BACKING) for each in counts]
    assert exits[0] <= exits[1] <= exits[0] + count * size


@pytest.mark.parametrize("case", [Case("native", "2M"), Case("ept", "2M"), Case("npt", "2M", "2M")], ids=str)
def test_a_large_page_is_split_where_only_part_of_it_is_unmapped(case: Case) -> None:
    """What is left of each stays mapped; what is gone faults, and gets small pages beside the small ones."""
    holes = [("unmap", 0, 511), ("unmap", 513, 600)]
    _, outcome = unmap_run(case, [*touches([0, 512]), *holes, *touches([0, 5, 511, 512, 513])])
    assert outcome.vms[0].guest_faults == 2 + 3


@pytest.mark.parametrize("count", [3, 40])
@pytest.mark.parametrize("name", ALL)
def test_what_was_unmapped_faults_again_in_every_mode(name: str, count: int) -> None:
    """The kernel's faults are the program's, whoever walks: each page once, and what was unmapped once more."""
    pages = [*range(count + 2), 600, 5000]
    steps = [*touches(pages, WRITE), ("unmap", 1, count), *touches(pages), *touches(pages, WRITE)]
    _, outcome = run(scenario(vm(memory="16MiB", **ALL[name]), memory="64MiB"), [Script(steps)], every=400_000)
    assert outcome.ending is None
    assert outcome.vms[0].guest_faults == len(pages) + count
    assert time_adds_up(outcome)


@pytest.mark.parametrize("name", ALL)
def test_a_device_reads_into_memory_alike_in_every_mode(name: str) -> None:
    """Its pages are mapped before it starts, once, and it takes its time."""
    steps = [*touches(range(4), WRITE), ("io", 2, 6, 100_000), *touches(range(10), WRITE), ("io", 2, 6, 100_000)]
    simulation, outcome = run(scenario(vm(memory="16MiB", **ALL[name]), memory="64MiB"), [Script(steps)], every=90_000)
    (figures,) = outcome.vms
    assert outcome.ending is None
    assert figures.guest_faults == 10
    assert figures.waits["io_wait"] == 2
    assert figures.cycles["io_wait"] >= 2 * 100_000 * simulation.scenario.cpu.frequency // 10**9
    assert not simulation.host.pins.any()
    assert time_adds_up(outcome)


@pytest.mark.parametrize("mode", ALL)
def test_one_vms_unmap_leaves_the_others_translations(mode: str) -> None:
    """Same addresses, and a unmaps (with a flush of its own) between b's two passes: b's second pass still hits."""
    size = {"workload": {"footprint": 64 * PAGE}, **ALL[mode]}
    both = scenario(vm("a", **size), vm("b", **size), cores=2, quantum="1ms", memory="32MiB")
    a = Script([("compute", 10_000_000), *touches(range(50)), ("unmap", 0, 50), ("touch", 0, READ)])
    b = Script([*touches(range(50)), ("compute", 30_000_000), ("touch", 0, READ), *touches(range(50))])
    _, outcome = run(both, [a, b], every=1_000_000)
    assert [each.guest_faults for each in outcome.vms] == [51, 50]
    _, alone = run(both, [Script([("touch", 0, READ)]), b])
    assert outcome.vms[1].counters["l2_tlb_misses"] == alone.vms[1].counters["l2_tlb_misses"]


def test_a_vm_that_ends_leaves_the_others_as_they_were() -> None:
    """One of each mode on one host, each with more pages than the one before."""
    what = scenario(*(vm(f"a-{name}", **keys) for name, keys in ALL.items()), cores=2, quantum="40us", memory="64MiB")
    streams = [Script(touches(range(10 * n))) for n in range(1, len(ALL) + 1)]
    free = Simulation(what, streams=streams).host.free
    simulation, outcome = run(what, streams, every=300_000)
    assert [each.guest_faults for each in outcome.vms] == [10 * n for n in range(1, len(ALL) + 1)]
    assert len({each.finish for each in outcome.vms}) == len(ALL)
    assert simulation.host.free == free
