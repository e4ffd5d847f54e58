"""What must hold of pages when the host moves some: none loses what is in it, and none that is pinned moves.

Pages of a VM are found where its host says that they are, by guest frame, and a program's by the tables that map them,
not by the frames that the mover names: so it does not matter who moved what.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from vmsim.contracts import Words
from vmsim.engine.check.guest import gather_all
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.machine.formats import ENTRIES, FRAME, PAGE_SHIFT
from vmsim.machine.memory import width_of, words_by_frame
from vmsim.tables.backing import IDENTITY, UNBACKED
from vmsim.tables.edit import find_address

__all__ = ["contents_problems", "pin_problems", "remember"]


_AT_ONCE = 4096  # frames whose words are summed at a time
_WEIGHTS = np.random.Generator(np.random.PCG64(1)).integers(1 << 62, size=ENTRIES) * 2 + 1


class _Pages(NamedTuple):
    """The pages that somebody's tables map, by ascending address, large ones frame by frame."""

    rights: Words  # int64[n]: the bits of the entry that are no address
    frames: Words  # int64[n]
    sums: Words  # int64[n]: of the frame's words, each times a weight of its own


_before: WeakKeyDictionary[Simulation, dict[str, _Pages]] = WeakKeyDictionary()


def remember(simulation: Simulation) -> None:
    """Keep what is in every page, to be compared by `contents_problems`."""
    _before[simulation] = dict(_everybody(simulation))


def contents_problems(simulation: Simulation) -> Iterator[str]:
    """Yield which pages hold something else than when `remember` was called, or are mapped with other rights."""
    before, now = _before.pop(simulation), dict(_everybody(simulation))
    for name in before.keys() | now.keys():
        ours, theirs = before.get(name), now.get(name)
        if ours is None or theirs is None or len(ours.frames) != len(theirs.frames):
            yield f"contents: {name} has more or fewer pages after a move than before"
            continue
        for what in ("sums", "rights"):
            if len(wrong := np.flatnonzero(getattr(ours, what) != getattr(theirs, what))):
                old, new = int(ours.frames[wrong[0]]), int(theirs.frames[wrong[0]])
                said = "does not hold what" if what == "sums" else "is not mapped with the rights that"
                yield f"contents: frame {new} of {name} {said} frame {old} {'held' if what == 'sums' else 'had'}"


def pin_problems(simulation: Simulation) -> Iterator[str]:
    """Yield which pages moved although a device was at work on them, and which frames are pinned wrongly."""
    host = simulation.host
    counted = np.zeros_like(host.pins)
    for vm in simulation.vms:
        for pin in vm.io.pins:
            np.add.at(counted, pin.pfns, 1)
            for gfn, pfn in zip(pin.gfns.tolist(), pin.pfns.tolist(), strict=True):
                now = int(find_address(simulation.hardware.memory, *vm.memory_map, gfn << PAGE_SHIFT))
                if vm.slot and now == UNBACKED:
                    now = vm.slot.address_of(gfn << PAGE_SHIFT)
                if now not in (UNBACKED, pfn << PAGE_SHIFT):  # for a while nothing may map a page that stays in place
                    yield (
                        f"pins: page {gfn} of {vm.spec.name} is pinned in frame {pfn}, and has moved to frame "
                        f"{now >> PAGE_SHIFT}"
                    )
            held = host.frames[pin.pfns]
            if len(wrong := np.flatnonzero((held["owner"] != vm.spec.index) | (held["state"] != State.GUEST))):
                yield f"pins: frame {int(pin.pfns[wrong[0]])}, pinned by {vm.spec.name}, is not a page of its memory"
    for pfn in np.flatnonzero(counted != host.pins).tolist():
        yield f"pins: frame {pfn} is pinned {host.pins[pfn]} times, and {counted[pfn]} requests of devices are on it"


def _everybody(simulation: Simulation) -> Iterator[tuple[str, _Pages]]:
    memory = simulation.hardware.memory
    for vm in simulation.vms:
        if vm.gone:
            continue
        if vm.slot:  # where a page is the host's to say; what maps it may come and go
            frames = (vm.slot.backing[vm.slot.present()] & FRAME) >> PAGE_SHIFT
            yield vm.spec.name, _Pages(np.zeros_like(frames), frames, _sums(memory, frames))
            continue
        levels = vm.spec.guest_levels
        roots = [each.space.root for each in vm.kernel.processes.values() if each.space.root >= 0]
        if roots:
            entries = gather_all(memory, roots, levels, IDENTITY, vm.monitor.host_slot)
            yield vm.spec.name, _pages(memory, entries, width_of(levels))
    if cache := simulation.page_cache:
        yield "the page cache", _Pages(np.zeros_like(cache.pages), cache.pages, _sums(memory, cache.pages))


def _pages(memory: Words, entries: Words, width: int) -> _Pages:
    _, values, targets, below = entries[:, entries[3] <= 0]
    counts = np.int64(1) << -below * width
    rights = np.repeat(values & ~FRAME, counts)
    frames = np.repeat(targets - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    return _Pages(rights, frames, _sums(memory, frames))


def _sums(memory: Words, frames: Words) -> Words:
    words = words_by_frame(memory)
    parts = [
        (words[frames[start : start + _AT_ONCE]] * _WEIGHTS).sum(axis=1) for start in range(0, len(frames), _AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
