"""What must hold of a host's swap: a page that is away is in one slot, and each slot and frame is somebody's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from vmsim.engine.simulation import Simulation
from vmsim.frames.buddy import State
from vmsim.host.guest_memory import GuestMemory
from vmsim.host.memory import HOST
from vmsim.host.native_memory import NativeMemory
from vmsim.tables.backing import CLEAN, SWAPPED

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
        references = [*memory.swapped.copies.values()]
        if isinstance(memory, GuestMemory) and memory.swapped:
            away = memory.swapped.away
            if not vm.gone and np.flatnonzero(memory.backing & SWAPPED).tolist() != sorted(away):
                yield f"swap: the pages of {name} that are swapped out are not those that have a slot"
            if not vm.gone and np.flatnonzero(memory.backing & CLEAN).tolist() != sorted(memory.swapped.copies):
                yield f"swap: the clean pages of {name} are not those that have a slot"
            for gfn, slot in away.items():
                holding = swap.area.holding(slot) if slot in swap.area else None
                if holding is None or holding.memory is not memory or holding.number != gfn:
                    yield f"swap: slot {slot} does not hold page {gfn} of {name}, which is to be there"
            references += away.values()
        elif isinstance(memory, NativeMemory):
            for space in {id(each): each for each in memory.spaces()}.values():
                references += space.away.values()
        users.update(references)
    if swap is None:
        return
    slots = swap.area.slots()
    for slot in sorted({*slots} | {*users}):
        noted = swap.area.users(slot)
        if noted != users[slot]:
            yield f"swap: slot {slot} has {users[slot]} users, {noted} are noted"
    frames = simulation.host.frames
    pfns = np.array([page.pfn for page in swap.cache.values()], np.int64)
    if len(pfns):
        wrong = (frames["owner"][pfns] != HOST) | (frames["state"][pfns] != State.HOST)
        if wrong.any() or len({*pfns.tolist()}) != len(pfns):
            yield f"swap: frame {int(pfns[wrong][0]) if wrong.any() else pfns[0]} of the swap cache is not its own"
    for slot in swap.cache:
        if slot not in swap.area:
            yield f"swap: the swap cache has a page of slot {slot}, which is free"
