"""A guest on bare hardware, in plain Python: words of its memory, walks that set A and D, faults. No TLB.

Intel SDM vol. 3A §5.5.4 (entries, reserved bits), §5.7 (error codes), §5.8 (accessed and dirty flags). What a shadow
monitor does to a guest must not be told from this.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.oracle.bits import ADDRESS, PS, RW, US, A, D, P, index, span

FAULT_P, FAULT_W, FAULT_U, FAULT_RSVD = 1, 2, 4, 8


@dataclass
class BareGuest:
    """Guest memory of `frames` frames, as its processor and its kernel see it."""

    frames: int
    levels: int
    words: dict[int, int] = field(default_factory=dict)

    def store(self, gpa: int, value: int) -> None:
        if gpa >> 12 < self.frames:
            self.words[gpa] = value

    def clear(self, gfn: int) -> None:
        for gpa in range(gfn << 12, gfn + 1 << 12, 8):
            self.words.pop(gpa, None)

    def reserved(self, entry: int, level: int) -> bool:
        """Whether a present entry has a bit that must be 0, or memory that is not there."""
        first = (entry & ADDRESS) >> 12
        if level == 1 or not entry & PS:
            return first >= self.frames
        if level > 3:
            return True
        size = span(level) >> 12
        if first % size & ~1:  # bit 12 is PAT
            return True
        return first // size * size + size > self.frames

    def walk(self, root: int, gva: int, write: bool, *, mark: bool = True) -> tuple[int, int, int] | int:
        """Return (gpa, the leaf's entry, its level), or the error code of the fault; with `mark`, set A and D."""
        table, user, writable = root, True, True
        for level in range(self.levels, 0, -1):
            place = table + 8 * index(gva, level)
            entry = self.words.get(place, 0)
            code = FAULT_U | (FAULT_W if write else 0)
            if not entry & P:
                return code
            code |= FAULT_P
            if self.reserved(entry, level):
                return code | FAULT_RSVD
            user &= bool(entry & US)
            writable &= bool(entry & RW)
            if not user or (write and not writable):
                return code
            leaf = level == 1 or entry & PS
            if mark:
                self.words[place] = entry = entry | A | (D if leaf and write else 0)
            if leaf:
                return (entry & ADDRESS) // span(level) * span(level) + gva % span(level), entry, level
            table = entry & ADDRESS
        raise AssertionError("a walk ends at level 1")
