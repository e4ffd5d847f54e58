"""The guest of `world` under an agile monitor: shadow tables that may switch to the guest's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.monitor.world import Words, World
from tests.oracle import tables
from tests.oracle.bits import ADDRESS, PS, RW, SWITCH, US, P, index, span
from vmsim.contracts import Exit
from vmsim.host.guest_memory import GuestMemory
from vmsim.machine.formats import CODE_WRITE, EPT, PAGE_SHIFT
from vmsim.machine.vcpu import Reason
from vmsim.monitor.agile.mode import AgileSpec
from vmsim.monitor.agile.monitor import Agile
from vmsim.monitor.shadow.mode import ShadowSpec
from vmsim.monitor.tdp.monitor import Tdp

ENDS = (1 << 57) - 1  # the last address of all


class AgileWorld(World):
    """A guest, its agile monitor, a core, and the guest's twin on bare hardware."""

    shadow: Agile

    def __init__(self, spec: AgileSpec | None = None, *, limit: int = 1024, **rest: Any) -> None:
        self.agile = spec or AgileSpec()
        super().__init__(ShadowSpec(trap="emulate", limit=limit, write_flood=0), **rest)

    def host_pages(self, slot: GuestMemory, **rest: Any) -> Tdp:
        given: Any = self.memory, self.registers, self.host, self.pool, EPT(ad_bits=False), slot
        return Tdp(*given, levels=4, **rest)

    def monitor(self, host_pages: Any, spec: ShadowSpec, *, entries: int, **rest: Any) -> Agile:
        interval = self.agile.interval.cycles(1_000_000_000)
        return Agile(
            self.memory, self.registers, host_pages, spec=self.agile, interval=interval, limit=spec.limit, **rest
        )

    def violation(self, gpa: int, code: int) -> None:
        exit = Exit(int(Reason.VIOLATION), 0, gpa, code, write=code & CODE_WRITE != 0)
        self.drive(self.shadow.handle(self.vcpu, exit))  # type: ignore[arg-type]

    def hpa(self, gpa: int) -> int | None:
        """Return where the nested tables lead."""
        found = tables.translate(Words(self.memory), self.shadow.host_pages.root, 4, gpa)
        return found and found[0]

    def nested_tables(self) -> int:
        """Return how many nested tables there are."""

        def count(table: int, level: int) -> int:
            entries = self.memory[table >> 3 : (table >> 3) + 512]
            below = [int(e) for e in entries[entries != 0].tolist() if level > 1 and not e & PS]
            return 1 + sum(count(entry & ADDRESS, level - 1) for entry in below)

        return count(self.shadow.host_pages.root, 4)

    def tick(self) -> None:
        """Let an interval end."""
        self.vcpu.now += self.shadow.interval
        self.vcpu.running = True
        self.shadow.end_interval(self.vcpu)

    def access(self, gva: int, write: bool = False) -> int | None:
        code = super().access(gva, write)
        if code is None:
            assert self.translate(gva) == self.host_of(gva)
        return code

    @property
    def nested(self) -> dict[int, int]:
        """Nested tables, gfn: level."""
        levels = self.shadow.gfns["nested"]
        return {int(gfn): int(levels[gfn]) for gfn in np.flatnonzero(levels)}

    def host_of(self, gva: int) -> int:
        """Return where a gva lies by the twin's tables and the host's."""
        found = self.bare.walk(self.root, gva, False, mark=False)
        assert not isinstance(found, int)
        host = self.hpa(found[0])
        assert host is not None
        return host

    def translate(self, gva: int) -> int | None:
        """Return where the walk that the paper describes leads, read from memory word by word (§III)."""
        words, host = Words(self.memory), self.shadow.host_pages.root
        table = int(self.registers["cr3"][0])
        for level in range(self.bare.levels, 0, -1):
            entry = words.get((table & ADDRESS) + 8 * index(gva, level))
            if not entry & P:
                return None
            below = entry & ADDRESS
            if level == 1 or entry & PS:
                below = below // span(level) * span(level) + gva % span(level)
            if table & SWITCH:
                found = tables.translate(words, host, 4, below)
                if found is None:
                    return None
                below = found[0]
            if level == 1 or entry & PS:
                return below
            table = below | ((table | entry) & SWITCH)
        raise AssertionError("a walk ends at level 1")

    def leaves(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield what the shadow itself maps; where it switches, see that it does so to the guest's own table."""
        words = Words(self.memory)
        nested = self.nested

        def below(table: int, level: int, gva: int, rights: int) -> Iterator[tuple[int, int, int, int]]:
            for number in np.flatnonzero(self.memory[table >> 3 : (table >> 3) + 512]).tolist():
                entry = words.get(table + 8 * number)
                here = gva + number * span(level)
                assert entry & P
                if entry & SWITCH:
                    gfn = self.table_of(here, level - 1)
                    assert gfn in nested
                    place = tables.translate(words, self.shadow.host_pages.root, 4, gfn << PAGE_SHIFT)
                    assert place is not None
                    assert entry & ADDRESS == place[0]
                elif level == 1 or entry & PS:
                    yield here, level, entry & ADDRESS, rights & entry
                else:
                    assert self.table_of(here, level - 1) not in nested
                    if level == 3 == self.walked:
                        entry |= RW | US  # a PDPTE of PAE has no rights
                    yield from below(entry & ADDRESS, level - 1, here, rights & entry)

        cr3 = int(self.registers["cr3"][0])
        assert bool(cr3 & SWITCH) == (self.root >> PAGE_SHIFT in nested)
        if not cr3 & SWITCH:
            yield from below(cr3, self.bare.levels, 0, P | RW | US)

    def table_of(self, gva: int, level: int) -> int:
        """Return the frame of the guest's table of `level` on the way to a gva."""
        table = self.root
        for at in range(self.bare.levels, level, -1):
            entry = self.bare.words.get(table + 8 * index(gva, at), 0)
            if at == 3 == self.bare.levels:
                entry = self.bare.pdptes[gva >> 30]
            table = entry & ADDRESS
        return table >> PAGE_SHIFT
