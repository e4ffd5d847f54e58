"""Exits of a shadow monitor handled where they occur, as long as nobody has to wait or to be told (see serve.py).

monitor/shadow/monitor.py says what an exit is and costs. Here a fault of the hardware is taken as far as it goes: the
shadow filled, frames for it taken from the pool, the guest frame backed; or the fault handed to the guest's kernel,
which maps a cleared page in a table that it has. What is left then the monitor's process takes up, from the last
status on.
"""

from __future__ import annotations

import numpy as np

from vmsim.contracts import NONE
from vmsim.guest.demand import READY_BATCH, get_ready, permits
from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import CODE_WRITE, DIRTY, FRAME, LARGE, PAGE_SHIFT
from vmsim.machine.memory import entry_at, read_entry, width_of
from vmsim.machine.vcpu import Reason, call
from vmsim.monitor.shadow.exits import LATENCIES, SPILL, Exit
from vmsim.monitor.shadow.fill import Status, fill
from vmsim.monitor.shadow.records import SPARE
from vmsim.monitor.shadow.tables import end_exit
from vmsim.monitor.shadow.traps import load, store
from vmsim.tables.backing import UNBACKED, elsewhere, host_address, lacks
from vmsim.tables.violation import back_frame

__all__ = ["run_and_serve_shadow"]


@leaf
def _spend(account, cycles):
    account.spent += cycles
    account.now += cycles


@leaf
def _close(account, state, reason):
    account.cycles[reason] += account.spent
    account.spent = 0
    end_exit(state)


@leaf
def _log(account, start):
    account.latency[account.logged] = account.now - start
    account.logged += 1


@leaf
def _work(account, state):
    """Pay for what the kernels did; a flush that they ask for is made when this is over, but before the guest runs."""
    _spend(account, state.due)
    state.due = 0
    if state.flush:
        state.flush = 0
        account.flush = 1


@leaf
def _trap(account, reason, count, reads):
    """Pay for accesses to hidden tables, on whose way the monitor has read so many entries."""
    account.walks += count
    _spend(account, count * account.emulated + reads * account.each_read)
    account.exits[reason] += count
    if account.stepped:
        account.exits[Exit.DEBUG] += count
        account.cycles[Exit.DEBUG] += count * account.debug
        account.now += count * account.debug


@routine
def _back(shadow, nested, pool, account, gfn):
    """Have the host back a guest frame; return whether that could be done."""
    tables = back_frame(shadow.memory, shadow.frames, pool, nested, shadow.backing, gfn)
    if tables < 0:
        return False
    _spend(account, account.host_walk + nested.mapping + tables * nested.each_table)
    return True


@routine
def _restock(shadow, account, state, nested, pool):
    """Fill the stock of frames for shadow pages from the pool; return whether that could be done."""
    count = 2 * SPARE - state.stock
    if pool[0] - count < nested.least:
        return False
    pool[0] -= count
    for number in range(count):
        shadow.stock[state.stock + number] = pool[1 + pool[0] + number]
    state.stock += count
    _spend(account, account.restock)
    return True


@routine
def _find(memory, backing, demand, account, gva):
    """Note the places of the entries on the way to the absent one that is to map `gva`; return whether there is it."""
    table = demand.root
    width = width_of(demand.levels)
    for step in range(demand.levels):
        place = entry_at(table, gva, demand.levels - step, width)
        hpa = host_address(backing, place)
        if hpa == UNBACKED:
            return False
        entry = read_entry(memory, hpa, width)
        account.place[step] = place
        if step == demand.levels - 1:
            return entry == 0
        if entry == 0 or entry & LARGE:
            return False
        table = entry & FRAME
    return False


@routine
def _may_map(shadow, demand, zones, guest_frames, ready, nested, pool, account, gva, code):
    """Return whether the guest's kernel can map a page at `gva` without a wait, in a table that it has."""
    if not permits(demand, gva, code) or zones[0].free < READY_BATCH:
        return False
    if ready[0] == 0:
        get_ready(zones, guest_frames, ready, demand.owner)
    if pool[0] - nested.levels < nested.least:
        return False
    page = ready[ready[0]]
    if shadow.gfns[page].tables != 0 or elsewhere(shadow.backing, page):
        return False
    return _find(shadow.memory, shadow.backing, demand, account, gva)


@routine
def _read(shadow, state, account, first, count):
    """Have the kernel load some of the entries on the way."""
    trapped = load(shadow, account.place[first : first + count], account.value[:8], account.trapped[:8])
    if trapped:
        _trap(account, Exit.PT_READ, trapped, state.reads)
        _work(account, state)
        _close(account, state, Exit.PT_READ)


@routine
def _map(shadow, state, demand, guest_frames, ready, nested, pool, account, code):
    """Have the guest's kernel map a cleared page where `_find` has been."""
    demand.faults += 1
    account.now += demand.fault
    page = ready[ready[0]]
    ready[0] -= 1
    if lacks(shadow.backing, page):
        start = account.now
        _spend(account, account.fault)
        _back(shadow, nested, pool, account, page)
        account.exits[Exit.HOST_FAULT] += 1
        _close(account, state, Exit.HOST_FAULT)
        _log(account, start)
    last = demand.levels - 1
    _read(shadow, state, account, np.int64(0), last)
    _read(shadow, state, account, last, np.int64(1))
    guest_frames[page].rmap = account.place[last]
    account.value[0] = page << PAGE_SHIFT | demand.page | (DIRTY if code & CODE_WRITE else 0)
    places, values = account.place[last : last + 1], account.value[:1]
    _, _, emulated, left = store(shadow, places, values, np.int64(0), account.trapped[:8])
    if emulated:
        _trap(account, Exit.PT_WRITE, emulated, state.reads)
    if left:
        account.walks += left
        account.exits[Exit.PT_WRITE] += left
        _spend(account, left * account.left + state.reads * account.each_read)
    if emulated or left:
        _work(account, state)
        _close(account, state, Exit.PT_WRITE)


@routine
def _fault(shadow, demand, zones, guest_frames, ready, nested, pool, account, cr3, gva, code):
    """Handle a page fault of the hardware as far as that goes; return what is left of it, (status, value)."""
    state = shadow.states[0]
    start = account.now
    account.walks += 1
    _spend(account, account.fault)
    walked = False
    while True:
        status, value = fill(shadow, cr3, gva, code & CODE_WRITE != 0)
        if not walked:
            _spend(account, state.reads * account.each_read)
            walked = True
        _work(account, state)
        if status == Status.DONE:
            account.exits[Exit.SHADOW_FILL] += 1
            _close(account, state, Exit.SHADOW_FILL)
            _log(account, start)
            return np.int64(NONE), np.int64(0)
        if status == Status.FAULT:
            if not _may_map(shadow, demand, zones, guest_frames, ready, nested, pool, account, gva, value):
                return status, value
            _spend(account, account.inject)
            account.exits[Exit.TRUE_FAULT] += 1
            _close(account, state, Exit.TRUE_FAULT)
            _map(shadow, state, demand, guest_frames, ready, nested, pool, account, value)
            return np.int64(NONE), np.int64(0)
        if status == Status.UNBACKED:
            if not _back(shadow, nested, pool, account, value):
                return status, value
        elif status != Status.NEED or not _restock(shadow, account, state, nested, pool):
            return status, value


@kernel
def run_and_serve_shadow(
    target,
    core,
    llc,
    vms,
    memory,
    address,
    count,
    kind,
    cursor,
    limit,
    budget,
    demands,
    zones,
    guest_frames,
    ready,
    nesteds,
    pool,
    accounts,
    shadow,
    most,
    cr3,
):
    """Run a vCPU as `vcpu.run` does, and handle its faults, until one needs somebody else or the budget is used.

    Parameters
    ----------
    target, core, llc, vms, memory, address, count, kind, cursor, limit, budget
        As of `serve.run_and_serve`.
    demands, zones, guest_frames, ready, nesteds, pool
        Likewise.
    accounts : ACCOUNT[1]
        The monitor's.
    shadow : ShadowTables
        From `make_shadow`.
    most : int
        Frames in stock above which some go back to the pool, which is not done here.
    cr3 : int
        gpa of the guest's root table.

    Returns
    -------
    (reason, cursor, cycles, gva, gpa, code, status, value) : tuple of int
        As of `run`; and of a fault that could not be handled wholly, what `fill` said of it last. NONE says that there
        is none; SPILL that there are now more than `most` frames in stock.
    """
    demand = demands[0]
    nested = nesteds[0]
    account = accounts[0]
    state = shadow.states[0]
    account.now = 0
    account.spent = 0
    ran = np.int64(0)
    status, value = np.int64(NONE), np.int64(0)
    while True:
        reason, cursor, cycles, gva, gpa, code = call(
            target, core, llc, vms, memory, address, count, kind, cursor, limit, budget - account.now
        )
        ran += cycles
        account.now += cycles
        if reason != Reason.GUEST_FAULT:
            break
        status, value = _fault(shadow, demand, zones, guest_frames, ready, nested, pool, account, cr3, gva, code)
        if status != NONE:
            break
        if state.stock > most:
            status = np.int64(SPILL)
        if account.now >= budget or account.flush or status == SPILL or account.logged + 2 > LATENCIES:
            reason = np.int64(Reason.BUDGET)
            break
    return reason, cursor, ran, gva, gpa, code, status, value
