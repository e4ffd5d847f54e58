"""The twin's walks of one and two dimensions, step by step as the manuals tell them.

Sources: Intel SDM vol. 3A §5.3 to §5.5 (reserved bits: §5.5.4), §5.7 (error codes), §5.8 (accessed and dirty flags),
§5.10 (TLBs, paging-structure caches); vol. 3C §30.4, §30.3; AMD APM vol. 2 §5.5, §15.25; Bhargava et al., ASPLOS 2008,
figure 1 and §4 (order of the references, nested TLB); Gandhi et al., ISCA 2016, §III (agile walks).
"""

from __future__ import annotations

from collections import Counter

from tests.oracle.bits import (
    ADDRESS,
    EPT_X,
    FETCH,
    FORMATS,
    NX,
    PAT,
    PDPTE_RESERVED,
    PS,
    RIGHTS,
    RW,
    SWITCH,
    US,
    WRITE,
    A,
    D,
    P,
    span,
    width,
)
from tests.oracle.core import Core
from tests.oracle.tables import Words, load, place_of, store, translate, within
from tests.oracle.translation import AgainError, PageFaultError, Table, Translation, ViolationError, suffices
from tests.oracle.window import Window

GUEST, NESTED = 0, 1
RSVD = 1 << 3  # of a page fault's error code

COUNTED = {"PEER": "LLC"}  # as what a line of another core's L2 counts


class Walks:
    """A VM's registers and counters, and walks through its tables.

    Parameters
    ----------
    words : dict
        Host memory: 64-bit words by hpa; what is not there is 0.
    mode : str
        native, ept, ept-ad or npt.
    levels, nested_levels : int
        2 to 5 each; 2 is 32-bit paging, 3 PAE.
    pdptes : bool
        A load of CR3 reads the four PDPTEs of PAE tables into registers, and walks begin there.
    agile : bool
        Walks begin in shadow tables and go on in the guest's after an entry with SWITCH.
    pages_1g : bool
        The processor has pages of 1 GiB.
    """

    def __init__(
        self,
        words: Words,
        *,
        asid: int,
        nested_asid: int,
        mode: str,
        cr3: int,
        levels: int,
        nested_root: int = 0,
        nested_levels: int = 0,
        agile: bool = False,
        pdptes: bool = False,
        pages_1g: bool = True,
    ) -> None:
        self.words = words
        self.asids = asid, nested_asid  # of what is kept by gva (VPID, PCID) and by gpa (EP4TA)
        self.agile = agile
        self.format = FORMATS.get(mode)
        self.cr3 = cr3
        self.levels = levels
        self.pages_1g = pages_1g
        self.nested_root = nested_root
        self.nested_levels = nested_levels
        self.pdptes = [self._gpa_word(cr3 + 8 * number) for number in range(4)] if pdptes else None
        self.compute = 0
        self.window: Window | None = None  # in which accesses overlap
        self.hidden = 0  # cycles that went on at the same time as others
        self.llc_ways: set[int] | None = None  # that it may fill; None: all
        self.count: Counter[str] = Counter()
        self.refs: Counter[tuple[int, int, str]] = Counter()
        self.pwc: Counter[tuple[int, int, bool]] = Counter()
        self.data: Counter[str] = Counter()
        self.walk_cycles = 0
        self.nodes: list[tuple[int, list[int]]] = []  # of NUMA: end, and cycles of its DRAM for each core's number
        self.node_refs: Counter[tuple[str, int]] = Counter()  # served by DRAM: walk_guest, walk_nested, data; node
        self.peer_refs: Counter[str] = Counter()  # served by other cores' L2s, by the same kinds
        self.order: list[tuple[int, int, int, str]] = []  # of the references: hpa, guest level, nested level, served
        self.gpa, self.code = 0, 0

    def _gpa_word(self, gpa: int) -> int:
        place = translate(self.words, self.nested_root, self.nested_levels, gpa) if self.format else (gpa, 0)
        return self.words.get(place[0], 0) if place else 0

    # One reference of a walk

    def _kept(self, core: Core, level: int, nested: int) -> bool:
        lowest = core.geometry.pwc_nested_lowest if nested else core.geometry.pwc_lowest
        return core.entries is not None and level >= lowest

    def _fetch(self, core: Core, hpa: int, guest: int, nested: int) -> int:
        """Return the entry at `hpa`, from the entry-style walk cache or through the data caches."""
        level = nested or guest
        kept = self._kept(core, level, nested)
        if kept:
            entry = core.entries.get(hpa // 8, hpa)
            self.pwc[NESTED if nested else GUEST, level, entry is not None] += 1
            if entry is not None:
                self._refer(core, hpa, guest, nested, "PWC", core.geometry.pwc_cycles)
                return entry
        served = core.reference(hpa, ("L1", "L2")[core.geometry.walker_enters], self.llc_ways)
        cycles = self._load(core, hpa, served, "walk_nested" if nested else "walk_guest")
        self._refer(core, hpa, guest, nested, COUNTED.get(served, served), cycles)
        entry = load(self.words, hpa, self.nested_levels if nested else self.levels)
        if kept and entry & (self.format.present if nested else P):
            core.entries.put(hpa // 8, hpa, entry)
        return entry

    def _load(self, core: Core, hpa: int, served: str, what: str) -> int:
        """Return the cycles of a load: from DRAM those of the node that has the address."""
        if served == "PEER":
            self.peer_refs[what] += 1
            return core.geometry.latency[2] + core.geometry.peer_extra
        if served != "DRAM" or not self.nodes:
            return core.geometry.latency[("L1", "L2", "LLC", "DRAM").index(served)]
        number, (_, cycles) = next((n, node) for n, node in enumerate(self.nodes) if hpa < node[0])
        self.node_refs[what, number] += 1
        return cycles[core.number]

    def _refer(self, core: Core, hpa: int, guest: int, nested: int, served: str, cycles: int) -> None:
        self.refs[guest, nested, served] += 1
        self.order.append((hpa, guest, nested, served))
        self.walk_cycles += cycles

    def _mark(self, core: Core, levels: int, hpa: int, entry: int, flags: int) -> int:
        """Set an entry's accessed or dirty flag, in memory and in the copy that the walk cache keeps."""
        if entry & flags == flags:
            return entry
        self.count["ad_updates"] += 1
        self.walk_cycles += core.geometry.ad_cycles
        store(self.words, hpa, levels, load(self.words, hpa, levels) | flags)
        if core.entries:
            core.entries.replace(hpa // 8, hpa, entry | flags)
        return entry | flags

    # Prefix-style walk caches

    def _longest_prefix(self, core: Core, dimension: int, levels: int, address: int) -> tuple[int, Table | None]:
        """Return (level of the table to read next, that table), from the longest prefix cached."""
        for level, sets in sorted(core.prefixes[dimension].items()):
            if level > (2 if levels == 3 else levels):  # PDPTEs of PAE are never cached
                continue
            prefix = address // span(level, width(levels))
            table = sets.get(prefix, (self.asids[dimension], prefix))
            self.pwc[dimension, level, table is not None] += 1
            if table is not None:
                return level - 1, table
        return levels, None

    def _keep_prefix(self, core: Core, dimension: int, levels: int, level: int, address: int, table: Table) -> None:
        if level in core.prefixes[dimension]:
            prefix = address // span(level, width(levels))
            core.prefixes[dimension][level].put(prefix, (self.asids[dimension], prefix), table)

    # The nested dimension

    def _host(self, core: Core, gpa: int, kind: int, guest: int) -> Translation:
        """Translate `gpa`, from the nested TLB where it has the page and, for a write, has it writable and dirty."""
        if core.ntlb is None:
            return self._nested_walk(core, gpa, kind, guest)
        gfn = gpa // 4096
        self.walk_cycles += core.geometry.ntlb_cycles
        found = core.ntlb.get(gfn, (self.asids[NESTED], gfn))
        if found is not None and suffices(found, kind):
            self.count["ntlb_hits"] += 1
            return found
        self.count["ntlb_misses"] += 1
        translation = self._nested_walk(core, gpa, kind, guest)
        if found is None:
            core.ntlb.put(gfn, (self.asids[NESTED], gfn), translation)
        else:
            core.ntlb.replace(gfn, (self.asids[NESTED], gfn), translation)
        return translation

    def _nested_walk(self, core: Core, gpa: int, kind: int, guest: int) -> Translation:
        self.count["nested_walks"] += 1
        form, write = self.format, kind == WRITE
        needed = form.needed | (RW if write else 0) | (EPT_X if kind == FETCH else 0)
        asked = write << 1 | (kind == FETCH) << 4 | (guest > 0) << 33
        top, table = self._longest_prefix(core, NESTED, self.nested_levels, gpa)
        table = table or Table(self.nested_root, RIGHTS)
        if top == self.nested_levels == 3:
            entry = self._fetch(core, place_of(table.hpa, 3, 3, gpa), guest, 3)
            if not entry & P:
                raise ViolationError(gpa, asked)
            top, table = 2, Table(entry & ADDRESS, RIGHTS)
        for level in range(top, 0, -1):
            hpa = place_of(table.hpa, self.nested_levels, level, gpa)
            entry = self._fetch(core, hpa, guest, level)
            rights = table.rights & entry & RIGHTS
            if needed & ~rights:
                present = bool(entry & form.present)
                raise ViolationError(gpa, present | asked)
            leaf = level == 1 or bool(entry & PS)
            if leaf and entry & NX and kind == FETCH:
                raise ViolationError(gpa, P | asked)
            flags = form.accessed | (form.dirty if leaf and write else 0)
            entry = self._mark(core, self.nested_levels, hpa, entry, flags)
            if leaf:
                break
            table = Table(entry & ADDRESS, rights)
            self._keep_prefix(core, NESTED, self.nested_levels, level, gpa, table)
        frame = within(entry, self.nested_levels, level, gpa) // 4096 * 4096
        dirty = entry & form.dirty == form.dirty
        return Translation(frame, bool(rights & RW), bool(rights & US) and not entry & NX, dirty, level - 1)

    # The guest's dimension

    def walk(self, core: Core, gva: int, kind: int) -> Translation:
        """Walk the guest's tables for `gva`: g entries, each after the nested walk for its table."""
        write = kind == WRITE
        self.count["walks"] += 1
        self.walk_cycles += core.geometry.walk_start
        writes_tables = self.format is not None and self.format.guest_walk_writes
        gpa = None
        level, table = self._longest_prefix(core, GUEST, self.levels, gva)
        if table is None and self.agile:  # cr3 holds the shadow's root, or that of the guest's tables and SWITCH
            table = Table(self.cr3 & ADDRESS, RIGHTS, bool(self.cr3 & SWITCH))
        elif table is None and self.levels == 3:
            level, (gpa, table) = 2, self._directory(core, gva, kind, writes_tables)
        elif table is None:
            gpa, table = self.cr3, self._table(core, self.cr3, writes_tables, level)
        while True:
            hpa = place_of(table.hpa, self.levels, level, gva)
            entry = self._fetch(core, hpa, level, 0)
            rights = table.rights & entry & RIGHTS
            shadow = self.agile and not table.switched
            code = (entry & P) | write << 1 | US | self._fetch_bit(kind) | shadow << 62
            if entry & P and self._reserved(entry, level):
                raise PageFaultError(code | RSVD)
            if (P | US | (RW if write else 0)) & ~rights:
                raise PageFaultError(code)
            nested = self.format is not None and (table.switched or not self.agile)  # else a shadow or a native entry
            if level == 1 or entry & PS:
                if entry & NX and kind == FETCH:
                    raise PageFaultError(code)
                break
            self._mark_guest(core, hpa, entry, A, table, gpa)
            switched = table.switched or (self.agile and bool(entry & SWITCH))
            if nested:
                gpa, table = entry & ADDRESS, self._table(core, entry & ADDRESS, writes_tables, level - 1)
                table = table._replace(rights=rights, switched=switched)
            else:
                table = Table(entry & ADDRESS, rights, switched)
            self._keep_prefix(core, GUEST, self.levels, level, gva, table)
            level -= 1
        target = within(entry, self.levels, level, gva) // 4096 * 4096
        here = Translation(target, bool(rights & RW), bool(rights & US) and not entry & NX, True, level - 1)
        if nested:
            there = self._host(core, target, kind, 0)
            write_too, fetch_too = here.write and there.write, here.user and there.user
            here = Translation(there.hpa, write_too, fetch_too, there.dirty, min(here.size, there.size))
        entry = self._mark_guest(core, hpa, entry, A | (D if write else 0), table, gpa)
        return here._replace(dirty=here.dirty and bool(entry & D))

    def _mark_guest(self, core: Core, hpa: int, entry: int, flags: int, table: Table, gpa: int | None) -> int:
        """Set flags in an entry of the guest's, which is a write to its table (SDM vol. 3C §30.3.3.2)."""
        if table.sealed and entry & flags != flags:
            if gpa is None:
                raise AgainError
            raise ViolationError(gpa, P | 1 << 1 | 1 << 33)
        return self._mark(core, self.levels, hpa, entry, flags)

    def _fetch_bit(self, kind: int) -> int:
        """Return bit 4 of an error code: a fetch where entries have NX, which 32-bit paging's do not (SDM §5.7)."""
        return (kind == FETCH and self.levels > 2) << 4

    def _directory(self, core: Core, gva: int, kind: int, writes_tables: bool) -> tuple[int, Table]:
        """Return the page directory by the PDPTE of `gva`, from a register or from memory, and its gpa."""
        asked = (kind == WRITE) << 1 | US | self._fetch_bit(kind)
        if self.pdptes:
            entry = self.pdptes[gva >> 30]
        else:
            entry = self._fetch(core, self._table(core, self.cr3, writes_tables, 3).hpa + 8 * (gva >> 30), 3, 0)
        if not entry & P:
            raise PageFaultError(asked)
        if entry & PDPTE_RESERVED:  # from a register too, though loading it would have been the moment to complain
            raise PageFaultError(P | asked | RSVD)
        return entry & ADDRESS, self._table(core, entry & ADDRESS, writes_tables, 2)

    def _reserved(self, entry: int, level: int) -> bool:
        """Whether a present entry maps a page size that does not exist, or a page that is not aligned."""
        if level == 1 or not entry & PS:
            return False
        if level > 3 or (level == 3 and not self.pages_1g):
            return True
        return bool(entry & ADDRESS & (span(level, width(self.levels)) - 1) & ~PAT)

    def _table(self, core: Core, address: int, write: bool, guest: int) -> Table:
        """Return the guest table at `address`."""
        if not self.format:
            return Table(address, RIGHTS)
        there = self._host(core, address, write, guest)
        return Table(there.hpa, RIGHTS, sealed=not there.write)
