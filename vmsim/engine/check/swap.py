"""What must hold of a host's swap: a page that is away is in one slot, and each slot and frame is somebody's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.host.guest_memory import GuestMemory
from vmsim.host.memory import HOST
from vmsim.host.native_memory import NativeMemory
from vmsim.tables.backing import CACHED, CLEAN, SWAPPED, cached_word

__all__ = ["swap_problems"]


def swap_problems(simulation: Simulation) -> Iterator[str]:
    """Yield what is wrong with the slots of the swap device, and with the frames of the swap cache."""
    swap = None
    users: Counter[int] = Counter()
    for vm in simulation.vms:
        memory = vm.pages
        if memory is None or memory.swapped is None:
            continue
        name, swap = vm.spec.name, memory.swapped.swap
        references: list[int] = []
        if isinstance(memory, GuestMemory) and memory.swapped:
            slots = memory.swapped.slots
            with_slot = np.flatnonzero(slots)
            if not vm.gone and np.flatnonzero(memory.backing & (SWAPPED | CLEAN)).tolist() != with_slot.tolist():
                yield f"swap: the pages of {name} that are swapped out or clean are not those that have a slot"
            away = with_slot[memory.backing[with_slot] & SWAPPED != 0]
            if len(away) != memory.swapped.count:
                yield f"swap: {len(away)} pages of {name} are swapped out, {memory.swapped.count} are noted"
            for gfn, slot in zip(away.tolist(), (slots[away] - 1).tolist(), strict=True):
                holding = swap.area.holding(slot) if slot in swap.area else None
                if holding is None or holding.memory is not memory or holding.number != gfn:
                    yield f"swap: slot {slot} does not hold page {gfn} of {name}, which is to be there"
                if memory.backing[gfn] & CACHED and (
                    slot not in swap.cache or memory.backing[gfn] != cached_word(int(swap.cache.pfns[slot]))
                ):
                    yield f"swap: page {gfn} of {name} is not in the frame of the swap cache that is noted"
            references += (slots[with_slot] - 1).tolist()
        elif isinstance(memory, NativeMemory):
            references += memory.swapped.copies.values()
            for space in {id(each): each for each in memory.spaces()}.values():
                references += space.away.values()
        users.update(references)
    if swap is None:
        return
    for slot in sorted({*swap.area.slots()} | {*users}):
        noted = swap.area.users(slot)
        if noted != users[slot]:
            yield f"swap: slot {slot} has {users[slot]} users, {noted} are noted"
    frames = simulation.host.frames
    cached = [*swap.cache]
    pfns = swap.cache.pfns[cached]
    if len(pfns):
        wrong = (frames["owner"][pfns] != HOST) | (frames["state"][pfns] != State.HOST)
        if wrong.any() or len({*pfns.tolist()}) != len(pfns):
            yield f"swap: frame {int(pfns[wrong][0]) if wrong.any() else pfns[0]} of the swap cache is not its own"
    for slot in cached:
        if slot not in swap.area:
            yield f"swap: the swap cache has a page of slot {slot}, which is free"
