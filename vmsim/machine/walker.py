"""Page walks: from a gva through the guest's tables and, where there is a second dimension, the nested ones.

A cold walk of g guest and h nested levels makes (g + 1)(h + 1) - 1 references: each of the g guest entries, and the
data page at the end, lies at a gpa that costs h nested references (Bhargava et al., ASPLOS 2008, figure 1).
"""

from __future__ import annotations

import numpy as np

from vmsim.jit import leaf, routine
from vmsim.machine.caches import Served, reference, reference_called
from vmsim.machine.formats import (
    ACCESSED,
    CODE_FETCH,
    CODE_LOG_FULL,
    CODE_PRESENT,
    CODE_RESERVED,
    CODE_SHADOW,
    CODE_USER,
    CODE_WALKING,
    CODE_WRITE,
    DIRTY,
    FRAME,
    LARGE,
    PAGE_SHIFT,
    PAT,
    PDPTE_RESERVED,
    PRESENT,
    SEALED,
    SIZE_SHIFT,
    USER,
    WRITE,
)
from vmsim.machine.layout import Count
from vmsim.machine.lookahead import remember
from vmsim.machine.memory import entry_at, read_word, write_word
from vmsim.machine.pwc import GUEST, NESTED, PwcStyle
from vmsim.machine.sets import MISS, fill, lookup

__all__ = ["AGAIN", "GUEST_FAULT", "NESTED_FAULT", "guest_walk", "needed_of", "nested_walk"]

# What a walk returns in place of a translation; the cause is in vm.fault_gpa and vm.fault_code. Bit 0 of each is clear,
# so none is an entry that a walk goes by.
GUEST_FAULT = -2
NESTED_FAULT = -4
AGAIN = -6  # the walk is to be made once more without the paging-structure caches, which do not tell enough
_SWITCHED = -8  # and what a part of an agile walk does: the rest is nested

_LOW = (1 << PAGE_SHIFT) - 1
_RIGHTS = WRITE | USER


@leaf
def _start(pde, pdpte, pml4e, pml5e, counts, asid, levels, root, address):
    """Return (level, table) to begin a walk with: below the longest prefix cached, else the root.

    A cache that a core lacks has no sets, which the compiler knows. PDPTEs of PAE tables are in none of them.
    """
    if len(pde) > 0:
        prefix = address >> 21
        table = lookup(pde[np.uint64(prefix & (len(pde) - 1))], asid | prefix)
        counts[2, np.uint64(table != MISS)] += 1
        if table != MISS:
            return 1, table
    if len(pdpte) > 0 and levels > 3:
        prefix = address >> 30
        table = lookup(pdpte[np.uint64(prefix & (len(pdpte) - 1))], asid | prefix)
        counts[3, np.uint64(table != MISS)] += 1
        if table != MISS:
            return 2, table
    if len(pml4e) > 0 and levels > 3:
        prefix = address >> 39
        table = lookup(pml4e[np.uint64(prefix & (len(pml4e) - 1))], asid | prefix)
        counts[4, np.uint64(table != MISS)] += 1
        if table != MISS:
            return 3, table
    if len(pml5e) > 0 and levels == 5:
        prefix = address >> 48
        table = lookup(pml5e[np.uint64(prefix & (len(pml5e) - 1))], asid | prefix)
        counts[5, np.uint64(table != MISS)] += 1
        if table != MISS:
            return 4, table
    return levels, root


@leaf
def _keep(pde, pdpte, pml4e, pml5e, asid, address, level, table):
    """Remember the table that the entry of `level` points to."""
    prefix = address >> (3 + 9 * level)
    if level == 2:
        if len(pde) > 0:
            fill(pde[np.uint64(prefix & (len(pde) - 1))], asid | prefix, table)
    elif level == 3:
        if len(pdpte) > 0:
            fill(pdpte[np.uint64(prefix & (len(pdpte) - 1))], asid | prefix, table)
    elif level == 4:
        if len(pml4e) > 0:
            fill(pml4e[np.uint64(prefix & (len(pml4e) - 1))], asid | prefix, table)
    elif len(pml5e) > 0:
        fill(pml5e[np.uint64(prefix & (len(pml5e) - 1))], asid | prefix, table)


@leaf
def _note(vm, hpa, guest, nested, served):
    """Write a reference into the VM's log while it keeps one (`vmsim explain`)."""
    if vm.logging and vm.logged < len(vm.log):
        line = vm.log[vm.logged]
        line[0] = hpa
        line[1] = guest << 8 | nested
        line[2] = served
        vm.logged += 1


@routine
def _fetch_kept(core, llc, vm, memory, hpa, present, level, guest, nested):
    """Return the entry at `hpa` as `_fetch` does, from the entry-style cache if it is there, and note it in the log."""
    cached = core.pwc_style == PwcStyle.ENTRY and level >= (core.pwc_lowest if nested == 0 else core.pwc_nested_lowest)
    tag = hpa >> 3
    index = np.uint64(tag & (len(core.pwc) - 1))
    served = np.int64(Served.PWC)
    entry = np.int64(MISS)
    if len(core.pwc) > 0 and cached:
        entry = lookup(core.pwc[index], tag)
        vm.pwc[GUEST if nested == 0 else NESTED, level, np.uint64(entry != MISS)] += 1
    if entry == MISS:
        entry = read_word(memory, hpa)
        served = np.int64(reference_called(core, llc, hpa, core.walker_enters))
        if len(core.pwc) > 0 and cached and entry & present:
            fill(core.pwc[index], tag, entry)
    vm.refs[guest, nested, served] += 1
    vm.walk_cycles += core.pwc_cycles if served == Served.PWC else core.latency[served]
    _note(vm, hpa, guest, nested, served)
    return entry


@leaf
def _fetch(core, llc, vm, memory, plain, hpa, present, level, guest, nested):
    """Return the entry at `hpa`: one reference of a walk, at its position (guest level, nested level).

    Level 0 of the guest stands for the data page, level 0 of the other dimension for the guest's own entry. `plain`
    says that there is neither an entry-style cache nor a log.
    """
    if not plain:
        return _fetch_kept(core, llc, vm, memory, hpa, present, level, guest, nested)
    entry = read_word(memory, hpa)  # before the caches are searched: the load's own latency hides behind the search
    served = np.uint64(reference(core, llc, hpa, core.walker_enters))
    vm.refs[np.uint64(guest), np.uint64(nested), served] += 1
    vm.walk_cycles += core.latency[served]
    return entry


@routine
def _mark(core, vm, memory, hpa, marks):
    """Set accessed or dirty flags in the entry at `hpa`; a copy that the entry-style cache keeps follows."""
    entry = read_word(memory, hpa) | marks
    write_word(memory, hpa, entry)
    vm.counters[Count.AD_UPDATES] += 1
    vm.walk_cycles += core.ad_cycles
    tag = hpa >> 3
    if len(core.pwc) > 0:
        kept = core.pwc[np.uint64(tag & (len(core.pwc) - 1))]
        for way in range(len(kept.tag)):
            if kept.tag[way] == tag:
                kept.value[way] = entry


@routine
def _log_page(vm, gpa):
    """Note a page whose dirty flag is about to be set; if the log is full, note that in place of a fault."""
    if vm.pml_index < 0:
        vm.fault_gpa = gpa
        vm.fault_code = CODE_LOG_FULL
        return False
    vm.pml_log[vm.pml_index] = gpa & FRAME
    vm.pml_index -= 1
    return True


@leaf
def _frame_within(entry, address, level):
    """Return the hpa (or gpa) of the 4 KiB frame of `address` in the page that an entry of `level` maps."""
    offset = ((1 << (3 + 9 * level)) - 1) & ~_LOW
    return (entry & FRAME & ~offset) | (address & offset)


@leaf
def _asked(access, guest):
    """Return the error code's bits that tell what access was made, and whether by a walk."""
    return (CODE_WRITE if access == 1 else 0) | (CODE_FETCH if access == 2 else 0) | (CODE_WALKING if guest else 0)


@leaf
def nested_walk(core, llc, vm, memory, gpa, access, guest):
    """Walk the nested tables for `gpa`, which the walk of guest level `guest` needs (0: the data page).

    `access` is what it is needed for: to be read (0), written (1) or fetched from (2).

    Returns
    -------
    int
        hpa of gpa's 4 KiB frame | WRITE | USER | DIRTY | size code << SIZE_SHIFT, or NESTED_FAULT.
    """
    vm.counters[Count.NESTED_WALKS] += 1
    level = vm.nested_levels
    if gpa >> (PAGE_SHIFT + 9 * level):  # beyond what the tables can translate
        vm.fault_gpa = gpa
        vm.fault_code = _asked(access, guest)
        return NESTED_FAULT
    table = vm.nested_root | _LOW
    present = vm.nested_present
    accessed = vm.nested_accessed
    dirty = vm.nested_dirty
    prefixes = core.pwc_style == PwcStyle.PREFIX
    plain = (len(core.pwc) == 0 or core.pwc_style != PwcStyle.ENTRY) and not vm.logging
    if prefixes:
        level, table = _start(
            core.nested_pde,
            core.nested_pdpte,
            core.nested_pml4e,
            core.nested_pml5e,
            vm.pwc[NESTED],
            vm.nested_asid,
            level,
            table,
            gpa,
        )
    need = vm.nested_needed | access << 1  # WRITE of 1, of 2 EPT_EXECUTE, and USER in NPT, which needs it anyway
    if level == 3 and vm.nested_levels == 3:  # PAE: a PDPTE has neither rights nor an accessed flag
        entry = _fetch_kept(core, llc, vm, memory, entry_at(table & FRAME, gpa, level), present, level, guest, level)
        if entry & present == 0:
            vm.fault_gpa = gpa
            vm.fault_code = _asked(access, guest)
            return NESTED_FAULT
        table = (entry & FRAME) | _LOW
        level = 2
    while True:
        hpa = entry_at(table & FRAME, gpa, level)
        entry = _fetch(core, llc, vm, memory, plain, hpa, present, level, guest, level)
        rights = table & entry
        if rights & need != need:
            vm.fault_gpa = gpa
            vm.fault_code = (CODE_PRESENT if entry & present else 0) | _asked(access, guest)
            return NESTED_FAULT
        found = level == 1 or entry & LARGE != 0
        marks = accessed | (dirty if found and access == 1 else 0)
        if entry & marks != marks:
            if vm.pml and dirty & marks & ~entry and not _log_page(vm, gpa):
                return NESTED_FAULT
            entry |= marks
            _mark(core, vm, memory, hpa, marks)
        if found:
            break
        table = (entry & FRAME) | (rights & _LOW)
        if prefixes:
            _keep(
                core.nested_pde,
                core.nested_pdpte,
                core.nested_pml4e,
                core.nested_pml5e,
                vm.nested_asid,
                gpa,
                level,
                table,
            )
        level -= 1
    if level == 1:
        remember(core, NESTED, vm.nested_asid, gpa, table)
    flags = (rights & _RIGHTS) | (DIRTY if entry & dirty == dirty else 0) | (level - 1) << SIZE_SHIFT
    return _frame_within(entry, gpa, level) | flags


@leaf
def needed_of(access):
    """Return the bits of a translation without which it does not do for an access."""
    return (WRITE | DIRTY) * (access & 1) | (USER if access == 2 else 0)


@routine
def _host(core, llc, vm, memory, gpa, access, guest):
    """Return the host's translation of `gpa` (as nested_walk does), from the nested TLB where it is there."""
    keeps = len(core.ntlb) > 0 and core.ntlb_entries != 0
    gfn = gpa >> PAGE_SHIFT
    index = np.uint64(gfn & (len(core.ntlb) - 1))
    tag = vm.nested_asid | gfn
    found = MISS
    if keeps:
        found = lookup(core.ntlb[index], tag)
        need = needed_of(access)
        usable = found != MISS and found & need == need
        vm.counters[Count.NTLB_HITS if usable else Count.NTLB_MISSES] += 1
        vm.walk_cycles += core.ntlb_cycles
        if usable:
            return found
    translation = nested_walk(core, llc, vm, memory, gpa, access, guest)
    if keeps and translation >= 0:
        if found == MISS:
            fill(core.ntlb[index], tag, translation)
        else:
            core.ntlb[index].value[0] = (
                translation  # the walk has set D; had it found a fault, `forget_faulting` would drop it
            )
    return translation


@leaf
def _sealed(translation):
    """Return SEALED where the host's translation of a table does not let it be written to."""
    return (~translation & WRITE) * (SEALED // WRITE)


@leaf
def _sealed_fault(vm, gpa):
    """Note that a flag is to be set in a table at `gpa` that nobody may write to: an EPT violation, as of a write.

    SDM vol. 3C §30.3.3.2 and table 29-7, bit 8. MISS: the table came from a paging-structure cache.
    """
    vm.fault_gpa = gpa
    vm.fault_code = CODE_PRESENT | CODE_WRITE | CODE_WALKING
    return NESTED_FAULT if gpa != MISS else AGAIN


@leaf
def _reserved(vm, entry, level):
    """Return whether an entry with LARGE has a bit that must be 0: LARGE itself, or one inside the page's address.

    SDM vol. 3A §5.5.4 and tables 5-15 to 5-18; AMD APM vol. 2 §5.3.
    """
    return level > vm.largest or entry & FRAME & ((1 << (3 + 9 * level)) - 1) & ~PAT != 0


@leaf
def _guest_fault(vm, entry, write, shadow, reserved):
    """Note the page fault that the guest gets, or, of an entry in a `shadow` table, the monitor."""
    vm.fault_gpa = MISS
    vm.fault_code = (
        CODE_USER
        | (CODE_PRESENT if entry & PRESENT else 0)
        | (CODE_WRITE if write else 0)
        | (CODE_SHADOW if shadow else 0)
        | (CODE_RESERVED if reserved and entry & PRESENT else 0)
    )
    return GUEST_FAULT


@leaf
def _descend(core, llc, vm, memory, gva, need, level, table, gpa, nested):
    """Go down the guest's tables, or, not `nested`, shadow or native ones, to the entry that maps a page.

    Returns
    -------
    (level, table, gpa, hpa, entry) : tuple of int
        The level reached; its table, with the rights gathered above it in the low bits, and its gpa, or MISS; where in
        it the entry lies, and the entry, or GUEST_FAULT, NESTED_FAULT, AGAIN. _SWITCHED: of an agile walk, which goes
        on nested.
    """
    switch = vm.switch
    low = _LOW & ~switch & ~SEALED
    mark = switch if nested else 0
    prefixes = core.pwc_style == PwcStyle.PREFIX
    plain = (len(core.pwc) == 0 or core.pwc_style != PwcStyle.ENTRY) and not vm.logging
    while True:
        hpa = entry_at(table & FRAME, gva, level)
        entry = _fetch(core, llc, vm, memory, plain, hpa, np.int64(PRESENT), level, level, np.int64(0))
        rights = table & entry
        if rights & need != need:
            reserved = level > 1 and entry & LARGE != 0 and _reserved(vm, entry, level)
            fault = _guest_fault(vm, entry, need & WRITE, switch != 0 and not nested, reserved)
            return level, table, gpa, hpa, fault
        if level == 1:
            return level, table, gpa, hpa, entry
        if entry & LARGE != 0:
            if _reserved(vm, entry, level):
                entry = _guest_fault(vm, entry, need & WRITE, switch != 0 and not nested, True)
            return level, table, gpa, hpa, entry
        if entry & ACCESSED == 0:
            if table & SEALED:
                return level, table, gpa, hpa, _sealed_fault(vm, gpa)
            _mark(core, vm, memory, hpa, np.int64(ACCESSED))
        table = entry & FRAME
        if nested:
            gpa = table
            table = _host(core, llc, vm, memory, gpa, vm.table_writes, level - 1)
            if table < 0:
                return level, table, gpa, hpa, table
            rights = (rights & low) | _sealed(table)
        else:
            rights &= low
            if entry & switch:
                mark = switch
        table = (table & FRAME) | rights | mark
        if prefixes:
            _keep(core.pde, core.pdpte, core.pml4e, core.pml5e, vm.asid, gva, level, table)
        level -= 1
        if not nested and mark != 0:
            return level, table, gpa, hpa, np.int64(_SWITCHED)


@leaf
def guest_walk(core, llc, vm, memory, gva, access):
    """Walk the guest's tables for `gva`, and the nested ones at each step where the VM has them.

    `access` is to read (0), to write (1) or to fetch (2).

    Returns
    -------
    int
        hpa of gva's 4 KiB frame | WRITE | USER | DIRTY | size code << SIZE_SHIFT, the size being the smaller of the
        guest's page and the host's; or GUEST_FAULT, NESTED_FAULT or AGAIN.
    """
    vm.counters[Count.WALKS] += 1
    vm.walk_cycles += core.walk_start
    write = access == 1
    switch = vm.switch
    nested = vm.nested_levels > 0
    level = vm.levels
    table = np.int64(MISS)
    gpa = np.int64(MISS)
    if core.pwc_style == PwcStyle.PREFIX:
        level, table = _start(core.pde, core.pdpte, core.pml4e, core.pml5e, vm.pwc[GUEST], vm.asid, level, table, gva)
    if table == MISS:
        table = gpa = vm.cr3
        sealed = np.int64(0)
        if nested and switch == 0 and level > 2:
            table = _host(core, llc, vm, memory, gpa, vm.table_writes, level)
            if table < 0:
                return table
            sealed = _sealed(table)
        if level < 4:  # PAE: the PDPTEs are in memory or, and the walk has two levels, in registers
            entry = vm.pdpte[gva >> 30]
            if level == 3:
                hpa = entry_at(table & FRAME, gva, level)
                entry = _fetch_kept(core, llc, vm, memory, hpa, np.int64(PRESENT), level, level, np.int64(0))
            if entry & PRESENT == 0 or entry & PDPTE_RESERVED:
                return _guest_fault(vm, entry, write, False, entry & PDPTE_RESERVED != 0)
            level = np.int64(2)  # a literal is a type of its own, and all that it is passed to compiled once more
            table = gpa = entry & FRAME
            if nested:
                table = _host(core, llc, vm, memory, gpa, vm.table_writes, level)
                if table < 0:
                    return table
                sealed = _sealed(table)
        table = ((table | _LOW & ~switch) & ~SEALED) | sealed
    need = PRESENT | USER | (WRITE if write else 0)
    entry = np.int64(_SWITCHED)
    hpa = 0
    if not nested or switch & ~table:
        nested = np.bool_(False)
        level, table, gpa, hpa, entry = _descend(core, llc, vm, memory, gva, need, level, table, gpa, nested)
    if entry == _SWITCHED:
        nested = np.bool_(True)
        level, table, gpa, hpa, entry = _descend(core, llc, vm, memory, gva, need, level, table, gpa, nested)
    if entry in (GUEST_FAULT, NESTED_FAULT, AGAIN):
        return entry
    if level == 1:
        remember(core, GUEST, vm.asid, gva, table)
    rights = table & entry
    translation = _frame_within(entry, gva, level)
    size = level - 1
    host_dirty = DIRTY
    if nested:
        translation = _host(core, llc, vm, memory, translation, access, np.int64(0))
        if translation < 0:
            return translation
        size = min(size, (translation >> SIZE_SHIFT) & 3)
        host_dirty = translation & DIRTY
        rights &= translation | ~_RIGHTS
    marks = ACCESSED | (DIRTY if write else 0)
    if entry & marks != marks:
        if nested and table & SEALED:
            return _sealed_fault(vm, gpa)
        entry |= marks
        _mark(core, vm, memory, hpa, marks)
    return (translation & FRAME) | (rights & _RIGHTS) | (entry & host_dirty & DIRTY) | size << SIZE_SHIFT
