"""What an out-of-order core has under way at once: a first-order model of its window.

Instructions enter the window in order and leave it in order; there is room for so many. In between a load that misses
waits for its walk and for its line, and those behind it that are in the window do the same meanwhile. So time is the
longest path through the dependence graph of Fields, Rubin and Bodik (ISCA 2001), of whose edges those of dispatch in
order, of a finite window and of retirement in order are here. As in all first-order models, what hits takes no more
than its dispatch (Karkhanis and Smith, ISCA 2004; Eyerman, Eeckhout, Karkhanis and Smith, ACM TOCS 27(2), 2009). Walks
wait for a page walker, lines for a buffer of the L1 (Chou, Fahs and Abraham, ISCA 2004).

Of access number n, c cycles of work after the one before, in a window of A accesses:

- dispatched(n) = max(dispatched(n - 1) + c, retired(n - A));
- done(n) = dispatched(n) + look-up of the second TLB, then its walk when a walker is free, then its line when a buffer
  is; a fetch of code holds up dispatch until then;
- retired(n) = max(retired(n - 1), done(n)).

Cycles are counted from any moment; only differences matter. What is under way when software takes over is finished
first: a fault, an exit or an operation drains the window.
"""

from __future__ import annotations

from vmsim.jit import leaf, routine
from vmsim.machine.layout import WINDOW

__all__ = ["drain", "pass_through"]


@leaf
def drain(vm):
    """Have all that is under way finished, and nothing dispatched after it yet."""
    vm.dispatched = vm.retired
    vm.waits_from = vm.waits_to
    vm.drained = 0


@leaf
def _serve(free, count, ready, cycles):
    """Have the first of `count` servers that is free do what is `ready` then; return when that is done."""
    chosen = 0
    for number in range(1, count):
        if free[number] < free[chosen]:
            chosen = number
    free[chosen] = max(free[chosen], ready) + cycles
    return free[chosen]


@leaf
def _dispatch(vm, number, cycles, work):
    """Return when access `number` is dispatched, which without a full window would be at `cycles`.

    Each of those between has `work`. Who waits for room is the one so many accesses after a run's first.
    """
    while vm.waits_from < vm.waits_to:
        first = vm.waiting[vm.waits_from & (WINDOW - 1)]
        room = first[0] + vm.in_flight
        if room > number:
            break
        cycles = max(cycles, first[1] + (number - room) * work)
        vm.waits_from += 1
    return cycles


@routine
def pass_through(core, vm, times, work, look_up, walk, load, fetches):
    """Have a run of accesses to one page pass through the window.

    Parameters
    ----------
    times, work : int
        How many, and the cycles of work with each.
    look_up, walk, load : int
        Cycles of the first access: in the second TLB, of its walk, and of its load if L1 does not have the line. The
        others hit.
    fetches : bool
        They are fetches of code.

    Returns
    -------
    int
        Cycles from when all before them had retired until they have; at most the sum of all that they take.
    """
    number = vm.entered
    dispatched = _dispatch(vm, number, vm.dispatched + work, work)
    done = dispatched + look_up
    if walk:
        done = _serve(vm.walker_free, core.walkers, done, walk)
    if load:
        done = _serve(vm.buffer_free, core.fill_buffers, done, load)
    if fetches:
        dispatched = done
    retired = max(vm.retired, done)
    place = vm.waiting[vm.waits_to & (WINDOW - 1)]
    place[0] = number
    place[1] = retired
    vm.waits_to += 1
    if times > 1:
        dispatched = _dispatch(vm, number + times - 1, dispatched + (times - 1) * work, work)
        retired = max(retired, dispatched)
    cycles = retired - vm.retired
    vm.entered = number + times
    vm.dispatched = dispatched
    vm.retired = retired
    return cycles
