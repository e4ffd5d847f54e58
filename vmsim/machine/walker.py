"""Page walks: from a gva through the guest's tables and, where there is a second dimension, the nested ones.

A cold walk of g guest and h nested levels makes (g + 1)(h + 1) - 1 references: each of the g guest entries, and the
data page at the end, lies at a gpa that costs h nested references (Bhargava et al., ASPLOS 2008, figure 1).
"""

from __future__ import annotations

import numpy as np

from vmsim.jit import leaf, routine
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
from vmsim.machine.memory import entry_at
from vmsim.machine.pwc import GUEST, NESTED, PwcStyle, keep, start
from vmsim.machine.references import fetch, fetch_kept, nested_width_of, set_flags, width_of_guest
from vmsim.machine.sets import MISS, fill, lookup, renew

__all__ = [
    "AGAIN",
    "GUEST_FAULT",
    "NESTED_FAULT",
    "guest_walk",
    "needed_of",
    "nested_walk",
]

# What a walk returns in place of a translation; the cause is in vm.fault_gpa and vm.fault_code. Bit 0 of each is clear,
# so none is an entry that a walk goes by.
GUEST_FAULT = -2
NESTED_FAULT = -4
AGAIN = -6  # the walk is to be made once more without the paging-structure caches, which do not tell enough
_SWITCHED = -8  # and what a part of an agile walk does: the rest is nested

_LOW = (1 << PAGE_SHIFT) - 1
_RIGHTS = WRITE | USER


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
def _frame_within(entry, address, level, width):
    """Return the hpa (or gpa) of the 4 KiB frame of `address` in the page that an entry of `level` maps."""
    offset = ((1 << (PAGE_SHIFT - width + width * level)) - 1) & ~_LOW
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
    width = nested_width_of(vm)
    if gpa >> (PAGE_SHIFT + width * level):  # beyond what the tables can translate
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
        level, table = start(
            core.nested_pde,
            core.nested_pdpte,
            core.nested_pml4e,
            core.nested_pml5e,
            vm.pwc[NESTED],
            vm.nested_asid,
            level,
            table,
            gpa,
            width,
        )
    need = vm.nested_needed | access << 1  # WRITE of 1, of 2 EPT_EXECUTE, and USER in NPT, which needs it anyway
    if level == 3 and vm.nested_levels == 3:  # PAE: a PDPTE has neither rights nor an accessed flag
        entry = fetch_kept(core, llc, vm, memory, entry_at(table & FRAME, gpa, level), present, level, guest, level)
        if entry & present == 0:
            vm.fault_gpa = gpa
            vm.fault_code = _asked(access, guest)
            return NESTED_FAULT
        table = (entry & FRAME) | _LOW
        level = 2
    while True:
        hpa = entry_at(table & FRAME, gpa, level, width)
        entry = fetch(core, llc, vm, memory, plain, hpa, present, level, guest, level)
        rights = table & entry
        if rights & need != need or (entry < 0 and access == 2 and (level == 1 or entry & LARGE != 0)):  # NO_EXECUTE
            vm.fault_gpa = gpa
            vm.fault_code = (CODE_PRESENT if entry & present else 0) | _asked(access, guest)
            return NESTED_FAULT
        found = level == 1 or entry & LARGE != 0
        marks = accessed | (dirty if found and access == 1 else 0)
        if entry & marks != marks:
            if vm.pml and dirty & marks & ~entry and not _log_page(vm, gpa):
                return NESTED_FAULT
            entry |= marks
            set_flags(core, vm, memory, hpa, marks, width)
        if found:
            break
        table = (entry & FRAME) | (rights & _LOW)
        if prefixes:
            keep(
                core.nested_pde,
                core.nested_pdpte,
                core.nested_pml4e,
                core.nested_pml5e,
                vm.nested_asid,
                gpa,
                level,
                table,
                width,
            )
        level -= 1
    if level == 1 and len(vm.two_level) == 0:
        remember(core, NESTED, vm.nested_asid, gpa, table)
    if entry < 0:
        rights &= ~USER
    flags = (rights & _RIGHTS) | (DIRTY if entry & dirty == dirty else 0) | (level - 1) << SIZE_SHIFT
    return _frame_within(entry, gpa, level, width) | flags


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
            renew(core.ntlb[index], tag, translation)  # the walk has set D; after a fault `forget_faulting` drops it
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

    SDM vol. 3A §5.5.4 and tables 5-15 to 5-18, of 32-bit paging §5.3 and table 5-4; AMD APM vol. 2 §5.3.
    """
    width = width_of_guest(vm)
    return level > vm.largest or entry & FRAME & ((1 << (PAGE_SHIFT - width + width * level)) - 1) & ~PAT != 0


@leaf
def _guest_fault(vm, entry, write, shadow, reserved):
    """Note the page fault that the guest gets, or, of an entry in a `shadow` table, the monitor."""
    vm.fault_gpa = MISS
    vm.fault_code = (
        (CODE_USER if vm.apart == 0 else 0)
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
    width = width_of_guest(vm)
    mark = switch if nested else 0
    prefixes = core.pwc_style == PwcStyle.PREFIX
    plain = (len(core.pwc) == 0 or core.pwc_style != PwcStyle.ENTRY) and not vm.logging
    while True:
        hpa = entry_at(table & FRAME, gva, level, width)
        entry = fetch(core, llc, vm, memory, plain, hpa, np.int64(PRESENT), level, level, np.int64(0))
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
            set_flags(core, vm, memory, hpa, np.int64(ACCESSED), width)
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
            keep(core.pde, core.pdpte, core.pml4e, core.pml5e, vm.asid, gva, level, table, width)
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
    two_level = len(vm.two_level) > 0
    width = width_of_guest(vm)
    if core.pwc_style == PwcStyle.PREFIX:
        level, table = start(
            core.pde, core.pdpte, core.pml4e, core.pml5e, vm.pwc[GUEST], vm.asid, level, table, gva, width
        )
    if table == MISS:
        table = gpa = vm.cr3
        sealed = np.int64(0)
        if nested and switch == 0 and (level > 2 or two_level):
            table = _host(core, llc, vm, memory, gpa, vm.table_writes, level)
            if table < 0:
                return table
            sealed = _sealed(table)
        if level < 4 and not two_level:  # PAE: the PDPTEs are in memory or, and the walk has two levels, in registers
            entry = vm.pdpte[gva >> 30]
            if level == 3:
                hpa = entry_at(table & FRAME, gva, level)
                entry = fetch_kept(core, llc, vm, memory, hpa, np.int64(PRESENT), level, level, np.int64(0))
            if entry & PRESENT == 0 or entry & PDPTE_RESERVED:
                _guest_fault(vm, entry, write, False, entry & PDPTE_RESERVED != 0)
                vm.fault_code |= CODE_FETCH if access == 2 else 0
                return np.int64(GUEST_FAULT)
            level = np.int64(2)  # a literal is a type of its own, and all that it is passed to compiled once more
            table = gpa = entry & (FRAME | switch)
            if nested and switch == 0:
                table = _host(core, llc, vm, memory, gpa, vm.table_writes, level)
                if table < 0:
                    return table
                sealed = _sealed(table)
        table = ((table | _LOW & ~switch) & ~SEALED) | sealed
    need = PRESENT | (USER if vm.apart == 0 else 0) | (WRITE if write else 0)
    entry = np.int64(_SWITCHED)
    hpa = 0
    if not nested or switch & ~table:
        nested = np.bool_(False)
        level, table, gpa, hpa, entry = _descend(core, llc, vm, memory, gva, need, level, table, gpa, nested)
    if entry == _SWITCHED:
        nested = np.bool_(True)
        level, table, gpa, hpa, entry = _descend(core, llc, vm, memory, gva, need, level, table, gpa, nested)
    if entry < 0:
        if entry in (NESTED_FAULT, AGAIN):
            return entry
        if entry == GUEST_FAULT or access == 2:  # to fetch, of a page with NO_EXECUTE
            if entry != GUEST_FAULT:
                _guest_fault(vm, entry, write, switch != 0 and not nested, False)
            if access == 2 and not two_level:  # which has no such bit (SDM vol. 3A §5.7; CR4.SMEP is 0)
                vm.fault_code |= CODE_FETCH
            return np.int64(GUEST_FAULT)
        entry &= ~USER
    if level == 1 and not two_level:
        remember(core, GUEST, vm.asid, gva, table)
    rights = table & entry
    translation = _frame_within(entry, gva, level, width)
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
        set_flags(core, vm, memory, hpa, marks, width)
    return (translation & FRAME) | (rights & _RIGHTS) | (entry & host_dirty & DIRTY) | size << SIZE_SHIFT
