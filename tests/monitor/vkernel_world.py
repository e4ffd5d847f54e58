"""A vkernel's guest written out by hand: no simulation, no clock; and the same guest on bare hardware."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np

from tests.monitor.world import CORE, OWNER, Host, Ledger, Pool
from tests.oracle import tables
from tests.oracle.bits import ADDRESS, RW, A, D
from tests.oracle.shadow import BareGuest
from vmsim.frames.records import State
from vmsim.host.guest_memory import GuestMemory
from vmsim.machine.layout import make_cores, make_llc, make_vm
from vmsim.machine.memory import physical_memory
from vmsim.machine.tags import Tags
from vmsim.machine.vcpu import Reason, run
from vmsim.machine.vm_spaces import VmSpaces
from vmsim.monitor.backing.pages import HostPages
from vmsim.monitor.vkernel.check import problems_of_maps
from vmsim.monitor.vkernel.entries import make_maps
from vmsim.monitor.vkernel.monitor import Vkernel
from vmsim.scenario.cpu_files import load_cpu

__all__ = ["FRAMES", "World"]

FRAMES = 2048


class World:
    """A guest, its host's side, a core, and the guest's twin on bare hardware; `roots` are frames of root tables."""

    def __init__(
        self,
        roots: Sequence[int],
        *,
        levels: int = 4,
        host_order: int = 0,
        pcid: bool = False,
        frames: int = FRAMES,
        size: int = 8192,
    ) -> None:
        self.memory = physical_memory(size)
        self.host = Host(size)
        self.pool = Pool(self.host)
        self.cores, self.llc, self.registers = make_cores(CORE, 1), make_llc(CORE), make_vm(levels)
        self.registers["levels"] = 2 if levels == 3 else levels  # PDPTEs are kept in registers
        spaces = Tags(self.cores, limit=100, amd=False).spaces(
            self.registers, OWNER, tags=None, apart="pcid" if pcid else None
        )
        costs = load_cpu("yardstick").cost
        slot = GuestMemory(self.host, self.memory, owner=OWNER, pages=frames)  # type: ignore[arg-type]
        given: Any = self.memory, self.host, self.pool, slot
        host_pages = HostPages(*given, owner=OWNER, page_order=host_order, costs=costs)
        rest = {"costs": costs, "spaces": VmSpaces([spaces]), "levels": levels}
        self.vkernel = Vkernel(self.memory, self.registers, host_pages, **rest)  # type: ignore[arg-type]
        self.vkernel.entries = make_maps(*self.vkernel.entries[:4], room=1)  # more is made as it is needed
        self.vkernel.deliver = self._deliver  # type: ignore[assignment]
        self.vcpu, self.bare = Ledger(self.registers, spaces), BareGuest(frames, levels)
        self.delivered: int | None = None
        self.vkernel.provide(self.pool.take(self.vkernel.first_frames))
        host_pages.populate()
        spaces.enter(0)
        self.roots = [*roots]
        self.edited = dict.fromkeys(roots, False)  # since it was loaded last

    def _deliver(self, vcpu: Any, gva: int, code: int) -> Iterator[None]:
        self.delivered = code
        return iter(())

    def drive(self, process: Generator[Any, Any, Any]) -> Any:
        while True:
            try:
                next(process)
            except StopIteration as end:
                return end.value

    def store(self, *pairs: tuple[int, int]) -> None:
        for gpa, _ in pairs:
            self.drive(self.vkernel.touch(self.vcpu, gpa >> 12, 0))
        if self.bare.size == 4:
            pairs = tuple((gpa, value & 0xFFFF_FFFF) for gpa, value in pairs)
        places, values = (np.array([pair[n] for pair in pairs], np.int64) for n in (0, 1))
        self.drive(self.vkernel.write(self.vcpu, places, values))
        for gpa, value in pairs:
            self.bare.store(gpa, value)
        self.edited = dict.fromkeys(self.edited, True)

    def flush(self, *, whole: bool = True) -> None:
        last = self.bare.reach - 1
        self.drive(self.vkernel.flush(self.vcpu) if whole else self.vkernel.invalidate(self.vcpu, 0, last))
        self.edited[self.root] = False

    def load_root(self, number: int) -> None:
        """Load a root, and keep what is cached of it unless it was edited meanwhile, as a kernel does."""
        self.root = self.roots[number]
        keep = not self.edited[self.root]
        self.drive(self.vkernel.load_root(self.vcpu, self.root << 12, number, keep=keep))
        self.edited[self.root] = False

    def release(self, number: int) -> None:
        if self.roots[number] != self.root:
            self.drive(self.vkernel.release(self.vcpu, self.roots[number] << 12, number))

    def access(self, gva: int, write: bool = False) -> int | None:
        """Make an access on both machines; return the error code of the fault that the guest gets, or None."""
        stream = np.array([gva], np.int64), np.array([1], np.int32), np.array([write], np.uint8)
        self.delivered = None
        for _ in range(4):
            reason, _, _, fault, _, bits = run(
                self.cores, 0, self.llc, self.registers, self.memory, *stream, 0, 1, 1 << 40
            )
            if reason != Reason.GUEST_FAULT:
                break
            assert fault == gva
            assert not self.drive(self.vkernel.page_fault(self.vcpu, gva, bits, 1))
            if self.delivered is not None:
                break
        else:
            raise AssertionError("the access never ends")
        self.bare.load_root(self.root << 12)  # the host walks in software, and finds PDPTEs in memory
        bare = self.bare.walk(self.root << 12, gva, write)
        assert self.delivered == (bare if isinstance(bare, int) else None), (self.delivered, bare)
        return self.delivered

    def hpa(self, gpa: int) -> int | None:
        """Return where the host says that a gpa lies."""
        word = int(self.vkernel.backing[gpa >> 12])
        return word & ADDRESS | gpa & 0xFFF if word & 1 else None

    def audit(self) -> int:
        """Every map gives guest∘host where its space is in step, and reaches this VM alone; return how much it maps."""
        words = {8 * int(at): int(self.memory[at]) for at in np.flatnonzero(self.memory)}
        frames, mapped, used = self.host.frames, 0, 0

        def leaves(table: int, level: int, gva: int) -> Iterator[tuple[int, int]]:
            nonlocal used
            used += 1
            for number in range(2**self.bare.width):
                if entry := tables.load(words, table + self.bare.size * number, self.bare.levels):
                    here = gva + number * self.bare.span(level)
                    if level == 1:
                        yield here, entry
                    else:
                        yield from leaves(entry & ADDRESS, level - 1, here)

        for root, table in self.vkernel.maps.items():
            for gva, entry in leaves(table, self.bare.levels, 0):
                mapped += 1
                pfn = (entry & ADDRESS) >> 12
                assert (frames["owner"][pfn], frames["state"][pfn]) == (OWNER, State.GUEST)
                if self.edited[root >> 12]:
                    continue
                self.bare.load_root(root)
                found = self.bare.walk(root, gva, bool(entry & RW), mark=False)
                assert not isinstance(found, int), (hex(gva), found)
                assert found[1] & A
                assert found[1] & D or not entry & RW
                assert self.hpa(found[0]) == entry & ADDRESS
        assert used == self.vkernel.frames_held - len(self.vkernel.ready)
        for gpa, value in self.bare.words.items():  # entries, flags and all, are what bare hardware leaves
            hpa = self.hpa(gpa)
            held = tables.load(words, hpa, self.bare.levels) if hpa is not None else None
            assert value in (0, held), hex(gpa)
        in_step = [root << 12 for root, edited in self.edited.items() if not edited]
        assert list(problems_of_maps(self.vkernel, frames, in_step)) == []
        return mapped
