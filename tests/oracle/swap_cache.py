"""The swap cache as a dictionary in the order in which pages came, and a device's queue as a heap: slow and obvious."""

from __future__ import annotations

from heapq import heapreplace

READING, WRITING, UNWRITTEN, AHEAD = 1, 2, 4, 8  # vmsim/host/swap/cache.py


class Cache:
    """Pages by slot: frame, stamp, flags; `idle` are those that are not written just now, in the order they came."""

    def __init__(self) -> None:
        self.pages: dict[int, list[int]] = {}
        self.idle: dict[int, None] = {}
        self.stamp = 0

    def add(self, slots: list[int], pfns: list[int], flags: int) -> list[int]:
        """Put pages in; return their stamps."""
        stamps = []
        for slot, pfn in zip(slots, pfns, strict=True):
            self.stamp += 1
            stamps.append(self.stamp)
            self.pages[slot] = [pfn, self.stamp, flags]
            if not flags & WRITING:
                self.idle.setdefault(slot)
        return stamps

    def begin_reads(self, slots: list[int], pfns: list[int]) -> list[tuple[int, int, int]]:
        """Put pages in that are about to be read, all but the first ahead; return slot, frame, stamp by their slots."""
        stamps = self.add(slots[:1], pfns[:1], READING) + self.add(slots[1:], pfns[1:], READING | AHEAD)
        return sorted(zip(slots, pfns, stamps, strict=True))

    def there(self, slots: list[int], stamps: list[int]) -> list[bool]:
        """Return which pages are in the cache still, as they came."""
        return [slot in self.pages and self.pages[slot][1] == stamp for slot, stamp in zip(slots, stamps, strict=True)]

    def end_reads(self, slots: list[int], stamps: list[int]) -> list[bool]:
        """Note that pages have been read; return which are in the cache still."""
        there = self.there(slots, stamps)
        for slot, each in zip(slots, there, strict=True):
            if each:
                self.pages[slot][2] &= ~READING
        return there

    def end_writes(self, slots: list[int], stamps: list[int]) -> list[bool]:
        """Take pages out that have been written; return which were in the cache still."""
        there = self.there(slots, stamps)
        self.remove([slot for slot, each in zip(slots, there, strict=True) if each])
        return there

    def remove(self, slots: list[int]) -> None:
        """Take pages out."""
        for slot in slots:
            del self.pages[slot]
            self.idle.pop(slot, None)

    def settle(self, slots: list[int], flags: int) -> None:
        """Note that the device is done with pages."""
        for slot in slots:
            self.pages[slot][2] = self.pages[slot][2] & ~(READING | WRITING) | flags
            self.idle.setdefault(slot)

    def write_again(self, slots: list[int]) -> None:
        """Note that pages are written once more."""
        for slot in slots:
            self.pages[slot][2] = WRITING
            del self.idle[slot]

    def oldest(self) -> list[int]:
        """Return those that are not written just now, those that came first before the others."""
        slots = [*self.idle]
        if any(self.pages[slot][2] & UNWRITTEN for slot in slots):
            slots.sort(key=lambda slot: self.pages[slot][1])
        return slots


def served(channels: int, requests: list[tuple[int, list[int]]]) -> tuple[list[list[int]], int]:
    """Return when requests are done that are made at a time each, by how long they take; and how long all waited."""
    free, done, waited = [0] * channels, [], 0
    for now, services in requests:
        done.append([])
        for service in services:
            start = max(now, free[0])
            heapreplace(free, start + service)
            done[-1].append(start + service)
            waited += start - now
    return done, waited
