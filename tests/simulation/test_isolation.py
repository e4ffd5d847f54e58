"""Can a guest that writes what it likes into its own page tables reach anything that is not its own?

Shadow monitors and vkernels have fuzzing contracts of their own (tests/monitor), for they refuse such entries as
hardware refuses reserved bits. Here hardware walks the guest's tables, and the nested ones keep it in.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.monitor.test_shadow_contract import TABLES, addresses, edits
from tests.oracle.bits import ADDRESS, PS, RW, US, A, D, P, span, width
from tests.simulation.small import BASE, PAGE, WRITE, Script, run, scenario, touches, vm
from tests.simulation.sums import check as check_sums
from vmsim.contracts import Exit, Moment, Observer, Resume, VmStopped
from vmsim.engine.check.host import check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.machine.formats import CODE_LOG_FULL
from vmsim.machine.vcpu import Reason
from vmsim.machine.vcpu import run as run_core
from vmsim.monitor.agile.monitor import Agile
from vmsim.monitor.features.dirty_log import DirtyLog
from vmsim.monitor.features.nx_split import NxSplit
from vmsim.record.outcome import Ending
from vmsim.tables.edit import find_address
from vmsim.tables.listing import walk_entries
from vmsim.workloads import Kind

MIB = 1 << 20
NESTED: list[dict[str, Any]] = [
    {"mode": "ept"},
    {"mode": "ept", "host_page": "2M", "guest_levels": 5, "host_levels": 4},
    {"mode": "npt"},
    {"mode": "npt", "guest_levels": 5, "host_levels": 5},
    {"mode": "ept", "guest_levels": 2},
    {"mode": "npt", "guest_levels": 2, "host_levels": 2},
    {"mode": "paired"},
    {"mode": "paired", "paired": {"layout": "separate"}},
    {"mode": "paired", "paired": {"layout": "shared"}},
    {"mode": "agile", "agile": {"threshold": 1}},
    {"mode": "agile", "agile": {"threshold": 2, "back": "all"}, "host_page": "2M", "guest_levels": 5},
    {"mode": "ept", "nx_split": True, "nx_recovery_ratio": 2, "host_page": "2M"},
    {"mode": "ept", "dirty_log": {"method": "write-protect"}},
    {"mode": "ept", "nx_split": True, "nx_recovery_ratio": 2, "host_page": "2M", "dirty_log": {"method": "pml"}},
    {"mode": "ept", "dirty_log": {"method": "pml"}, "host_page": "2M"},
    {"mode": "npt", "dirty_log": {"method": "ad-scan", "split": "eager"}, "host_page": "2M", "guest_levels": 5},
]
PAGES = 4 * MIB // PAGE
UNITS = [
    *(f"l{level}_tlb{number}" for level in (1, 2) for number in range(3)),
    *(f"{kind}{name}" for kind in ("", "nested_") for name in ("pde", "pdpte", "pml4e", "pml5e")),
    "ntlb",
]
programs = st.lists(
    st.one_of(
        st.tuples(st.just("access"), addresses, st.booleans()),
        st.tuples(st.just("access"), addresses, st.booleans()),
        st.tuples(st.just("edit"), st.lists(edits, min_size=1, max_size=5), st.booleans()),
        st.tuples(st.just("ring"), st.none(), st.booleans()),  # an agile interval ends, or the log is read
    ),
    min_size=4,
    max_size=30,
)


class Prisoner:
    """A VM and its neighbour on one host; the VM's tables are written by hand, as by a kernel gone mad."""

    def __init__(self, keys: dict[str, Any]) -> None:
        base = BASE if keys.get("guest_levels", 4) > 3 else 1 << 30
        keys = {"memory": "4MiB", "populate": "eager", "workload": {"base": base}, **keys}
        what = scenario(*(vm(name, **keys) for name in ("prisoner", "neighbour")), memory="20MiB", what_if=True)
        self.simulation = Simulation(what, streams=[Script(touches(range(4)), base=base)] * 2)
        assert self.simulation._populate() is None
        self.vm = self.simulation.vms[0]
        self.hardware = self.simulation.hardware
        self.drive(self.vm.vcpu.enter())
        self.faults = 0
        self.vm.monitor.deliver = self._deliver
        self.drive(self.vm.monitor.begin(self.vm.vcpu))
        self.seen = self.contents()
        self.store(*((TABLES[n] << 12, TABLES[n + 1] << 12 | P | RW | US) for n in range(self.levels - 1)))
        self.store((TABLES[self.levels - 1] << 12, 600 << 12 | P | RW | US))
        self.drive(self.vm.kernel.mmu.load_root(self.vm.vcpu, TABLES[0] << 12, 0, keep=False))
        self.outside = 0

    @property
    def levels(self) -> int:
        return self.vm.spec.guest_levels

    def drive(self, process: Generator[Any, Any, Any]) -> Any:
        """Run a process of the vCPU to its end."""
        env = self.simulation.env
        return env.run(until=env.process(process))

    def _deliver(self, vcpu: Any, gva: int, code: int) -> Generator[Any, Any, None]:
        """Be told by the monitor of a page fault; nobody mends anything."""
        self.faults += 1
        return
        yield

    @property
    def entry(self) -> int:
        """Bytes of one."""
        return 4096 >> width(self.levels)

    def store(self, *pairs: tuple[int, int]) -> None:
        places, values = (np.array([pair[n] for pair in pairs], np.int64) for n in (0, 1))
        self.drive(self.vm.kernel.mmu.write(self.vm.vcpu, places, values))

    def ring(self) -> None:
        """Have the monitor do what it does now and then; a page whose contents are others now was found written to."""
        workers = self.vm.monitor.workers
        logs = [each for each in workers if isinstance(each, DirtyLog)]
        for log in logs:
            log.ever[:] = False
        for worker in workers:
            if isinstance(worker, DirtyLog):
                worker.read([self.vm.vcpu], self.simulation.env.cycle)
            elif isinstance(worker, NxSplit):
                worker.recover([self.vm.vcpu], 0)
            elif isinstance(worker, Agile):
                worker.end_interval(self.vm.vcpu)
        for log in logs:
            now = self.contents()
            changed = np.flatnonzero((now != self.seen).any(axis=1))
            assert log.ever[changed].all(), changed[~log.ever[changed]]
            self.seen = now

    def contents(self) -> np.ndarray:
        """Return the words of the VM's memory, a row for each frame."""
        memory = self.hardware.memory
        frames = [find_address(memory, *self.vm.memory_map, gfn << 12) >> 12 for gfn in range(PAGES)]
        return memory.reshape(-1, 512)[frames]

    def access(self, gva: int, write: bool) -> bool:
        """Make an access as far as it goes, a fetch of odd pages; return whether it was made."""
        kind = Kind.WRITE if write else Kind.FETCH if gva & PAGE else Kind.READ
        stream = np.array([gva], np.int64), np.array([1], np.int32), np.array([kind], np.uint8)
        hardware, monitor, vcpu = self.hardware, self.vm.monitor, self.vm.vcpu
        for _ in range(40):
            reason, _, _, _, gpa, code = run_core(
                hardware.cores, 0, hardware.llc, self.vm.registers, hardware.memory, *stream, 0, 1, 1 << 40
            )
            if reason == Reason.DONE:
                return True
            exit = Exit(reason, gva & -PAGE, gpa, code, 1, write)
            if reason == Reason.VIOLATION and gpa >> 12 >= PAGES and not code & CODE_LOG_FULL:
                self.outside += 1
                with pytest.raises(VmStopped):
                    self.drive(monitor.handle(vcpu, exit))
                return False
            before, told = self.faults, sum(monitor.exits.values())
            if self.drive(monitor.handle(vcpu, exit)) is Resume.MADE:
                return True
            if self.faults > before:
                return False
            assert sum(monitor.exits.values()) > told  # else nothing is wrong: all its memory is backed
        raise AssertionError("the access never ends")

    def others(self) -> np.ndarray:
        """Return all words of memory that are not the VM's."""
        frames = self.simulation.host.frames
        mine = (frames["owner"] == self.vm.spec.index) & (frames["state"] != State.FREE)
        return np.delete(self.hardware.memory.reshape(-1, 512), np.flatnonzero(mine), axis=0)

    def locked_in(self) -> int:
        """Whatever a core keeps leads to the VM's frames; return how much it keeps."""
        frames, count = self.simulation.host.frames, 0
        for unit in UNITS:
            kept = self.hardware.cores[0][unit]
            values = kept["value"][kept["tag"] >= 0]
            reached = frames[(values & ADDRESS) >> 12]
            assert (reached["owner"] == self.vm.spec.index).all()
            assert np.isin(reached["state"], (State.GUEST, State.TABLE)).all()
            count += len(values)
        return count


@pytest.mark.parametrize("keys", NESTED, ids=lambda keys: "-".join(map(str, keys.values())))
@given(program=programs)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_bits_in_its_tables_lead_a_guest_out(keys: dict[str, Any], program: list[Any]) -> None:
    prisoner = Prisoner(keys)
    before = prisoner.others().copy()
    for step, what, flag in program:
        if step == "ring":
            prisoner.ring()
        elif step == "edit":
            prisoner.store(*(((gfn << 12) + prisoner.entry * at, value) for gfn, at, value in what))
            prisoner.vm.spaces[0].flush()
        else:
            bits = width(prisoner.levels)
            prisoner.access(sum(at * span(level, bits) for level, at in enumerate(what[: prisoner.levels], 1)), flag)
            prisoner.locked_in()
    prisoner.ring()
    assert np.array_equal(before, prisoner.others())


@pytest.mark.parametrize("keys", NESTED, ids=lambda keys: "-".join(map(str, keys.values())))
def test_a_prisoner_moves_and_finds_the_walls(keys: dict[str, Any]) -> None:
    """Or the contract above would hold for nothing."""
    prisoner = Prisoner(keys)
    assert prisoner.access(0, write=True)
    assert prisoner.locked_in() >= 3
    bottom, most = TABLES[prisoner.levels - 1] << 12, 52 if prisoner.entry == 8 else 32
    for number, gfn in enumerate([PAGES, PAGES + 511, 1 << most - 16, (1 << most - 12) - 1], start=1):
        prisoner.store((bottom + prisoner.entry * number, gfn << 12 | P | RW | US | A | D))
        assert not prisoner.access(number << 12, write=False)
        assert prisoner.outside + prisoner.faults == number  # a shadow refuses it as hardware does a reserved bit
    prisoner.store((bottom + prisoner.entry * 9, (PAGES - 1) << 12 | P | RW | US))
    assert prisoner.access(9 << 12, write=True)
    above = TABLES[prisoner.levels - 2] << 12
    prisoner.store((above + prisoner.entry, 1 << most - 7 | PS | P | RW | US))
    assert not prisoner.access(span(2, width(prisoner.levels)), write=False)


NOWHERE = 1 << 30  # a guest frame
Spoil = Callable[[int], int]


def mad_at(page: int, level: int, spoil: Spoil, *, flush: bool) -> Observer:
    """Return a check that spoils an entry of VM mad on the way to a page, while page 0 is all that it has mapped."""

    def check(moment: Moment, simulation: Simulation, whose: Any) -> None:
        machine = simulation.vms[0]
        frames = machine.kernel.frames.frames
        mine = (frames["owner"] == 0) & (frames["state"] == State.GUEST) & (frames["rmap"] > 0)
        if machine.gone:
            check_invariants(moment, simulation, whose)
        elif moment is Moment.SLICE_ENDED and mine.sum() == 1:
            places, values = np.zeros((2, 5), np.int64)
            where_from = simulation.hardware.memory, machine.kernel.root, machine.spec.guest_levels
            walk_entries(*where_from, level, machine.kernel.mmu.backing, BASE + page * PAGE, places, values)
            at = machine.spec.guest_levels - level
            if (spoilt := spoil(int(values[at]))) != values[at]:
                for _ in machine.kernel.mmu.write(machine.vcpu, places[at : at + 1], np.array([spoilt])):
                    raise AssertionError("nothing is to be waited for here")
            if flush:
                machine.spaces[0].flush()

    return check


def end_of(mode: str, level: int, spoil: Spoil, *, flush: bool = True, page: int = 1, **keys: Any) -> Ending:
    """Run a VM that goes mad beside one that does not, see that only the first ends, and return what ended it."""
    steps = [*touches([0], WRITE), ("compute", 1_000_000), *touches(range(1, 40)), ("touch", 40, WRITE)]
    what = scenario(vm("mad", mode=mode, **keys), vm("sane", mode=mode), what_if=True, cores=2, quantum="20us")
    streams = [Script([*steps, *touches(range(50))]), Script(steps)]
    simulation, outcome = run(what, streams, check=mad_at(page, level, spoil, flush=flush))
    mad, sane = outcome.vms
    assert outcome.ending is not None
    assert outcome.ending.vm == "mad"
    assert (mad.finished, sane.finished) == (False, True)
    assert mad.counters["accesses"] == page
    assert f"VM mad accessed memory that it does not have after {page} of 91" in outcome.ending.message
    check_sums(what, outcome)
    frames = simulation.host.frames
    assert (frames["owner"][frames["state"] != State.FREE] == -1).all()
    return outcome.ending


@pytest.mark.parametrize("mode", ["ept", "npt", "paired", "shadow", "agile", "vkernel"])
def test_a_vm_that_reaches_beyond_its_memory_ends_and_says_so_and_the_others_run_on(mode: str) -> None:
    ending = end_of(mode, 1, lambda _: NOWHERE << 12 | P | RW | US, page=40)
    assert "4MiB" in ending.message
    if mode in ("shadow", "vkernel"):  # the entry is refused as hardware refuses one with a reserved bit
        assert f"virtual address, {BASE + 40 * PAGE:#x}" in ending.message
    else:
        assert f"guest-physical address, {NOWHERE << 12:#x}" in ending.message


@pytest.mark.parametrize(
    ("level", "bits"), [(4, PS), (2, PS | 1 << 13)], ids=["a page of 512G", "a page in the middle of another"]
)
@pytest.mark.parametrize("mode", ["native", "ept", "npt", "paired", "shadow", "agile", "vkernel"])
def test_a_vm_that_sets_a_reserved_bit_ends_and_says_so_and_the_others_run_on(mode: str, level: int, bits: int) -> None:
    ending = end_of(mode, level, lambda entry: entry | bits)
    assert f"virtual address, {BASE + PAGE:#x}" in ending.message
    assert "reserved bit" in ending.message


@pytest.mark.parametrize("mode", ["ept", "npt", "paired"])
def test_a_kernel_that_looks_for_a_table_beyond_its_memory_ends_its_vm(mode: str) -> None:
    """The processor still has the way to the table that was there, and finds a page missing; the kernel has not."""
    ending = end_of(mode, 2, lambda _: NOWHERE << 12 | P | RW | US, flush=False)
    assert f"guest-physical address, {(NOWHERE << 12) + 8:#x}" in ending.message
    assert "its kernel has stopped" in ending.message
