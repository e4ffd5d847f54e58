"""The two scanners of compaction: what may move from below, and where it goes from above (Linux 6.12, mm/compaction.c).

The migrate scanner goes up through the pageblocks and finds pages that can be moved, the free scanner goes down and
takes free frames out of the allocator for them. Where they meet, a pass is over, and the next begins at the ends again.
What is free between the pages that go away merges into blocks. Pages of unmovable pageblocks are left alone where a
fault has to wait for it (suitable_migration_source), and no page goes to an unmovable pageblock or into one that is
free as a whole (suitable_migration_target).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.frames.buddy import free_many
from vmsim.frames.records import MAX_ORDER, MOVABLE, NO_FRAME, PAGEBLOCK, State, give_to
from vmsim.frames.reported import separate
from vmsim.jit import kernel, routine

__all__ = ["Scanners", "has_block"]

_SIZE = 1 << PAGEBLOCK
_DEFER = 6  # COMPACT_MAX_DEFER_SHIFT


@kernel
def _list_pages(frames, first, pfns):
    """Fill `pfns` (int64[512]) with the frames of a pageblock that hold pages; return how many there are.

    Which of them can be moved is for others to say: by their owner, their place in the reverse map, their pins.
    """
    count = np.int64(0)
    for pfn in range(first, min(first + _SIZE, len(frames))):
        if frames[pfn].state == State.GUEST or frames[pfn].state == State.HOST:
            pfns[count] = pfn
            count += 1
    return count


@kernel
def _is_target(frames, first):
    """Whether pages may go to a pageblock: a movable one that is not free as a whole."""
    if frames[first].mobility != MOVABLE:
        return False
    for order in range(PAGEBLOCK, MAX_ORDER + 1):  # noqa: SIM110
        if frames[first & -(1 << order)].block == order + 1:
            return False
    return True


@routine
def _take_free(zones, frames, pfn, owner):
    """Take one free frame from the allocator of its node."""
    at = 0
    if len(zones) > 1:
        at = 1
        while pfn >= zones[at].frames:
            at += 1
        zones[0].free -= 1
    separate(zones[at], frames, pfn, np.int64(0))
    zones[at].free -= 1
    frames[pfn].state = State.HOST
    give_to(zones[0], frames, pfn, owner)


@kernel
def _isolate_free(zones, frames, first, owner, pfns):
    """Take the free frames of a pageblock from the allocator for `owner`; fill `pfns` (int64[512]), return how many."""
    count = np.int64(0)
    for pfn in range(first, min(first + _SIZE, len(frames))):
        if frames[pfn].state == State.FREE:
            _take_free(zones, frames, np.int64(pfn), owner)
            pfns[count] = pfn
            count += 1
    return count


def has_block(zone: NDArray[Any], order: int) -> bool:
    """Return whether a block of 2**order frames is free, of either mobility: a whole pageblock may change sides."""
    return bool((zone["heads"][:, :, order:] != NO_FRAME).any())


class Scanners:
    """Where the scanners of one allocator are, and when compaction is put off.

    Parameters
    ----------
    zone, frames
        The allocator's, as of `frames.buddy.make_zone`.
    owner : int
        Who has the frames that the free scanner has taken.

    Attributes
    ----------
    counts : Counter
        As of /proc/vmstat: `compact_stall`, attempts on behalf of who waits for it, `compact_success` and
        `compact_fail` of these, `compact_deferred`, put off; `compact_daemon_wake`; frames looked at by each scanner
        (`compact_migrate_scanned`, `compact_free_scanned`), and pages moved (`pgmigrate_success`).
    """

    def __init__(self, zone: NDArray[Any], frames: NDArray[Any], owner: int) -> None:
        self.zone = zone
        self.frames = frames
        self.owner = owner
        names = ("stall", "success", "fail", "deferred", "daemon_wake", "migrate_scanned", "free_scanned")
        self.counts: Counter[str] = Counter({f"compact_{name}": 0 for name in names} | {"pgmigrate_success": 0})
        self._pfns = np.empty(_SIZE, np.int64)
        self._spare: list[int] = []
        self._shift = self._considered = 0
        self.restart()

    def restart(self) -> None:
        """Begin a pass: at both ends."""
        self.migrate = 0  # the pageblock to be looked at next, by its first frame
        self.free = (len(self.frames) - 1) & -_SIZE

    @property
    def met(self) -> bool:
        """Whether the scanners have met."""
        return self.migrate >= self.free

    @property
    def spare(self) -> int:
        """Frames that the free scanner has taken, and nobody has used."""
        return len(self._spare)

    def deferred(self) -> bool:
        """Whether an attempt is put off, because others have failed (compaction_deferred); count it."""
        self._considered += 1
        if self._considered >= 1 << self._shift:
            return False
        self.counts["compact_deferred"] += 1
        return True

    def ended(self, *, made: bool) -> None:
        """Note how an attempt has ended (compaction_defer_reset, defer_compaction)."""
        self._considered = 0
        self._shift = 0 if made else min(self._shift + 1, _DEFER)

    def pages(self, *, direct: bool) -> NDArray[np.int64]:
        """Return the frames with pages of the next pageblock, int64[n], and go on to the one after it.

        With `direct`, unmovable pageblocks have none: who waits leaves them out.
        """
        first, self.migrate = self.migrate, self.migrate + _SIZE
        if direct and self.frames["mobility"][first] != MOVABLE:
            return np.empty(0, np.int64)
        self.counts["compact_migrate_scanned"] += min(_SIZE, len(self.frames) - first)
        return self._pfns[: int(_list_pages(self.frames, first, self._pfns))].copy()

    def target(self) -> int:
        """Return a frame for a page that moves, the owner's, or NO_FRAME where the scanners have met."""
        while not self._spare and self.free >= self.migrate:
            first, self.free = self.free, self.free - _SIZE
            if _is_target(self.frames, first):
                self.counts["compact_free_scanned"] += min(_SIZE, len(self.frames) - first)
                taken = int(_isolate_free(self.zone, self.frames, first, self.owner, self._pfns))
                self._spare = self._pfns[:taken][::-1].tolist()
        return self._spare.pop() if self._spare else NO_FRAME

    def release(self) -> None:
        """Give back what the free scanner has taken and nobody has used (release_freepages)."""
        if self._spare:
            free_many(self.zone, self.frames, 0, np.array(self._spare))
            self._spare = []
