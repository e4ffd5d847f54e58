"""khugepaged of a host and compaction by two scanners, as slowly and plainly as can be, from Linux 6.12.

mm/khugepaged.c: khugepaged_scan_mm_slot, hpage_collapse_scan_pmd. mm/compaction.c: isolate_migratepages,
isolate_freepages, suitable_migration_target, skip_on_failure. Both count what they look at.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

BLOCK = 512


@dataclass
class Khugepaged:
    """Who collapses ranges of 512 pages, each a word: "own", "shared", "swapped", "huge" or "" for nothing.

    Attributes
    ----------
    vms : list of list of str
        What lies behind each guest frame, VM by VM.
    young, busy : set of (int, int)
        VM and guest frame of pages that were accessed, and that a device works on.
    blocks : int
        Free blocks of 2 MiB.
    """

    vms: list[list[str]]
    young: set[tuple[int, int]]
    busy: set[tuple[int, int]]
    blocks: int
    none: int
    swap: int
    shared: int
    at: tuple[int, int] = (0, 0)
    counts: list[Counter[str]] = field(default_factory=list)
    full_scans: int = 0

    def __post_init__(self) -> None:
        self.counts = [Counter() for _ in self.vms]

    def batch(self, pages: int) -> bool:
        """Look at so many entries; return whether a block was wanted and there was none."""
        while pages > 0:
            vm, number = self.at
            if vm == len(self.vms):
                self.at = 0, 0
                self.full_scans += 1
                return False
            if number == len(self.vms[vm]) // BLOCK:
                self.at = vm + 1, 0
                continue
            pages -= BLOCK
            self.at = vm, number + 1
            self.counts[vm]["pages_scanned"] += BLOCK
            if self.look(vm, range(number * BLOCK, (number + 1) * BLOCK)):
                return True
        return False

    def look(self, vm: int, frames: range) -> bool:
        """Look at one range, and collapse it; return whether there was no block for it."""
        words = self.vms[vm]
        seen = Counter(words[frame] for frame in frames)
        if seen["huge"] or seen[""] == BLOCK:
            return False
        counts = self.counts[vm]
        if seen[""] > self.none:
            counts["exceed_none_pte"] += 1
        elif seen["swapped"] > self.swap:
            counts["exceed_swap_pte"] += 1
        elif seen["shared"] > self.shared:
            counts["exceed_shared_pte"] += 1
        elif any((vm, frame) in self.busy for frame in frames):
            counts["pinned"] += 1
        else:
            referenced = sum((vm, frame) in self.young for frame in frames)
            if referenced == 0 or (seen["swapped"] and referenced < BLOCK // 2):
                counts["lack_referenced"] += 1
            elif self.blocks == 0:
                counts["alloc_failed"] += 1
                return True
            else:
                self.blocks -= 1
                counts["pages_collapsed"] += 1
                for frame in frames:
                    words[frame] = "huge"
        return False


@dataclass
class GuestKhugepaged(Khugepaged):
    """The same of a guest: each "vm" is an address space, and ranges that map nothing are passed over.

    Attributes
    ----------
    writable : set of (int, int)
        Address space and number of pages whose entry gives the right to write.
    """

    writable: set[tuple[int, int]] = field(default_factory=set)

    def batch(self, pages: int) -> bool:
        while True:
            space, number = self.at
            if space == len(self.vms) or pages <= 0:
                return super().batch(pages)
            frames = self.vms[space][number * BLOCK : (number + 1) * BLOCK]
            if not frames:
                self.at = space + 1, 0
            elif {*frames} <= {"", "swapped"}:  # no entry is there
                self.at = space, number + 1
            else:
                pages -= BLOCK
                if super().batch(1):
                    return True

    def look(self, vm: int, frames: range) -> bool:
        seen = Counter(self.vms[vm][frame] for frame in frames)
        few = seen[""] <= self.none and seen["swapped"] <= self.swap and seen["shared"] <= self.shared
        held = any((vm, frame) in self.busy for frame in frames)
        if few and not seen["huge"] and not held and not any((vm, frame) in self.writable for frame in frames):
            self.counts[vm]["page_ro"] += 1
            return False
        return super().look(vm, frames)


@dataclass
class TwoScanners:
    """Memory of whole pageblocks whose frames are "free", "page" (can be moved) or "fixed" (cannot).

    Attributes
    ----------
    unmovable : set of int
        Pageblocks, by number, that are set apart for what cannot be moved.
    moves : list of (int, int)
        Frames that a page went from and to.
    """

    frames: list[str]
    unmovable: set[int]
    moves: list[tuple[int, int]] = field(default_factory=list)
    migrate_scanned: int = 0
    free_scanned: int = 0

    def block(self, number: int) -> range:
        """Return the frames of a pageblock."""
        return range(number * BLOCK, (number + 1) * BLOCK)

    def whole(self) -> bool:
        """Whether a pageblock is free: of the unmovable ones too, whose whole blocks others may take."""
        blocks = len(self.frames) // BLOCK
        return any(all(self.frames[pfn] == "free" for pfn in self.block(number)) for number in range(blocks))

    def compact(self, *, direct: bool) -> bool:
        """Move pages until a pageblock is free, from the ends on; return whether one is.

        Nothing is done where too little is free for the copies (compact_gap).
        """
        if self.frames.count("free") < 2 * BLOCK:
            return False
        low, high = 0, len(self.frames) // BLOCK - 1
        spare: list[int] = []
        while not self.whole() and low < high:
            source, low = low, low + 1
            if direct and source in self.unmovable:
                continue
            self.migrate_scanned += BLOCK
            kinds = [self.frames[pfn] for pfn in self.block(source)]
            if direct and "fixed" in kinds:
                continue
            gone = []
            for pfn in self.block(source):
                if self.frames[pfn] != "page":
                    continue
                while not spare and high >= low:
                    target, high = high, high - 1
                    free = [each for each in self.block(target) if self.frames[each] == "free"]
                    if target in self.unmovable or len(free) == BLOCK:
                        continue
                    self.free_scanned += BLOCK
                    spare = free
                    for each in free:
                        self.frames[each] = "taken"
                if not spare:
                    break
                new = spare.pop(0)
                self.frames[new] = "page"
                self.moves.append((pfn, new))
                gone.append(pfn)
            for pfn in gone:
                self.frames[pfn] = "free"
        for each in spare:
            self.frames[each] = "free"
        return self.whole()
