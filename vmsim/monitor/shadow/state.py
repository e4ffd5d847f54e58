"""The state of a shadow as compiled code works with it, and what each exit of its does at its end."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vmsim.contracts.commit import close, spend
from vmsim.jit import kernel, leaf
from vmsim.monitor.backing.commit import NestedMode
from vmsim.monitor.mmu_lock import own_lock
from vmsim.monitor.shadow.records import ShadowTables
from vmsim.monitor.shadow.tables import end_exit

__all__ = ["OTHERS", "OWN", "ShadowMode", "end", "pay_work", "told", "work"]

OWN, OTHERS = np.int64(1), np.int64(2)  # whose TLBs are to be flushed: the vCPU's, those of the VM's others


class ShadowMode(NamedTuple):
    """The shadow of one VM."""

    tables: ShadowTables
    nested: NestedMode  # the pages of its memory
    prices: np.ndarray  # PRICES[1]
    tlb: np.ndarray  # TLB[1], the monitor's own of the vCPU
    found: np.ndarray  # int64[entries], pages that it holds


@leaf
def end(bill, tables, reason, first):
    """End an exit; `first` says whether it was on the way to a page's first touch."""
    close(bill, reason, first)
    end_exit(tables.states[0], tables.cpus[0])


@leaf
def work(mode, bill):
    """Pay for what the kernels did; a flush that they ask for is made when this is over, but before the guest runs.

    Other vCPUs are interrupted for it, once. All that is done with the MMU's lock held.
    """
    state, cpu, prices = mode.tables.states[0], mode.tables.cpus[0], mode.prices[0]
    held = cpu.due
    cpu.due = 0
    flush = (OWN if state.flush else 0) | (OTHERS if prices.others and (state.flush or state.remote) else 0)
    state.flush = state.remote = 0
    if flush:
        if flush & OTHERS and bill.flush & OTHERS == 0:
            held += prices.kick
        bill.flush |= flush
        bill.stop = 1
    if len(mode.nested.lock):
        held += own_lock(mode.nested.lock[0], bill.begun + bill.now, held, bill.who)
    spend(bill, held)


@leaf
def told(tables):
    """Note that the vCPU's TLB has nothing any more that the guest has taken away."""
    tables.cpus[0].stale = 0
    tables.cpus[0].seen = tables.states[0].unseen


@kernel
def pay_work(mode, bills):
    """Pay for what the kernels did, as part of the exit under way."""
    work(mode, bills[0])
