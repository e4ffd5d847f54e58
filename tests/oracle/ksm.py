"""KSM in plain Python, written from Documentation/admin-guide/mm/ksm.rst and mm/ksm.c of Linux 6.12.

Pages are contents, looked at one by one; a content that no other page can have is in the unstable tree like any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field

ZEROS = "zeros"
VOLATILE = "volatile"  # another each time


@dataclass(eq=False)
class Frame:
    """A frame that pages share."""

    content: Hashable
    users: int = 0


@dataclass(eq=False)
class Item:
    """A page, and what ksmd keeps of it."""

    content: Hashable
    checksum: Hashable = None
    age: int = 0
    skips: int = 0
    frame: Frame | None = None


@dataclass
class Ksm:
    """ksmd and the pages of some memories, by ascending address."""

    memories: list[list[Item]]
    pages_to_scan: int = 100
    max_page_sharing: int = 256
    use_zero_pages: bool = False
    smart_scan: bool = True
    counts: Counter[str] = field(default_factory=Counter)
    stable: list[Frame] = field(default_factory=list)
    unstable: list[Item] = field(default_factory=list)
    zero: Frame = field(default_factory=lambda: Frame(ZEROS))
    memory: int = 0
    place: int = 0
    looks: int = 0

    def batch(self) -> None:
        """Look at the next pages; the batch is over where the last memory is (ksm_do_scan)."""
        for _ in range(self.pages_to_scan):
            item = self._next()
            if item is None:
                return
            self.counts["scanned"] += 1
            self._look(item)

    def write(self, item: Item, content: Hashable) -> None:
        """Have a page hold something else: one that shares a frame gets its own first."""
        if item.frame:
            self.counts["broken"] += 1
            item.frame.users -= 1
            item.frame = None
        item.content = content

    @property
    def saved(self) -> int:
        """Frames that are not needed because pages share."""
        frames = {id(item.frame) for memory in self.memories for item in memory if item.frame}
        return sum(1 for memory in self.memories for item in memory if item.frame) - len(frames)

    def _next(self) -> Item | None:
        while self.memory < len(self.memories):
            pages = self.memories[self.memory]
            while self.place < len(pages):
                item = pages[self.place]
                self.place += 1
                if not (self.smart_scan and item.frame is None and self._skip(item)):
                    return item
            self.memory, self.place = self.memory + 1, 0
        self.memory = 0
        self.counts["full_scans"] += 1
        self.unstable.clear()
        return None

    def _skip(self, item: Item) -> bool:
        age, item.age = item.age, min(item.age + 1, 255)
        if age < 3:
            return False
        if not item.skips:
            item.skips = 1 if age <= 3 else 2 if age <= 5 else 4 if age <= 8 else 8
            return False
        item.skips -= 1
        self.counts["skipped"] += 1
        return True

    def _look(self, item: Item) -> None:
        if item.frame:
            return
        self.looks += 1
        checksum = (VOLATILE, self.looks) if item.content == VOLATILE else item.content
        if item.checksum != checksum:
            item.checksum = checksum
            self.counts["changed"] += 1
            return
        if item.content == ZEROS and self.use_zero_pages:
            self._join(item, self.zero)
            return
        room = [each for each in self.stable if each.content == item.content and 0 < each.users < self.max_page_sharing]
        if room:
            self._join(item, max(room, key=lambda frame: frame.users))
            return
        other = next((each for each in self.unstable if each.content == item.content), None)
        if other is None:
            self.unstable.append(item)
            return
        self.unstable.remove(other)
        frame = Frame(item.content)
        self.stable.append(frame)
        self._join(item, frame)
        self._join(other, frame)

    def _join(self, item: Item, frame: Frame) -> None:
        item.frame = frame
        frame.users += 1
        self.counts["merged"] += 1
