"""A guest on bare hardware, in plain Python: words of its memory, walks that set A and D, faults. No TLB.

Intel SDM vol. 3A §5.5.4 (entries, reserved bits), §5.7 (error codes), §5.8 (accessed and dirty flags); §5.3 (32-bit
paging: two levels of 1024 entries of 4 bytes, pages of 4 MiB), §5.4.1 (PAE: PDPTEs are loaded with CR3, have neither
rights nor an accessed flag). What a shadow monitor does to a guest must not be told from this.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.oracle.bits import ADDRESS, PDPTE_RESERVED, PS, RW, US, A, D, P, index, reach, span, width

FAULT_P, FAULT_W, FAULT_U, FAULT_RSVD = 1, 2, 4, 8


@dataclass
class BareGuest:
    """Guest memory of `frames` frames, as its processor and its kernel see it."""

    frames: int
    levels: int
    words: dict[int, int] = field(default_factory=dict)  # entries by their gpa
    pdptes: list[int] = field(default_factory=lambda: [0] * 4)  # of PAE, as CR3 was loaded

    @property
    def width(self) -> int:
        return width(self.levels)

    @property
    def size(self) -> int:
        """Bytes of an entry."""
        return 4096 >> self.width

    @property
    def reach(self) -> int:
        return reach(self.levels)

    def span(self, level: int) -> int:
        return span(level, self.width)

    def place(self, table: int, gva: int, level: int) -> int:
        """Return the gpa of the entry for an address in a table."""
        return table + self.size * index(gva, level, self.width)

    def store(self, gpa: int, value: int) -> None:
        if gpa >> 12 < self.frames:
            self.words[gpa] = value & 0xFFFF_FFFF if self.size == 4 else value

    def clear(self, gfn: int) -> None:
        for gpa in range(gfn << 12, gfn + 1 << 12, self.size):
            self.words.pop(gpa, None)

    def load_root(self, root: int) -> None:
        self.pdptes = [self.words.get(root + 8 * number, 0) for number in range(4)]

    def reserved(self, entry: int, level: int) -> bool:
        """Whether a present entry has a bit that must be 0, or memory that is not there."""
        first = (entry & ADDRESS) >> 12
        if level == 1 or not entry & PS:
            return first >= self.frames
        if level > 3:
            return True
        size = self.span(level) >> 12
        if first % size & ~1:  # bit 12 is PAT
            return True
        return first // size * size + size > self.frames

    def walk(self, root: int, gva: int, write: bool, *, mark: bool = True) -> tuple[int, int, int] | int:
        """Return (gpa, the leaf's entry, its level), or the error code of the fault; with `mark`, set A and D."""
        table, user, writable = root, True, True
        code = FAULT_U | (FAULT_W if write else 0)
        levels = self.levels
        if levels == 3:
            pointer = self.pdptes[gva >> 30 & 3]
            if not pointer & P:
                return code
            if pointer & PDPTE_RESERVED or (pointer & ADDRESS) >> 12 >= self.frames:
                return code | FAULT_P | FAULT_RSVD
            table, levels = pointer & ADDRESS, 2
        for level in range(levels, 0, -1):
            place = self.place(table, gva, level)
            entry = self.words.get(place, 0)
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
                size = self.span(level)
                return (entry & ADDRESS) // size * size + gva % size, entry, level
            table = entry & ADDRESS
            code &= ~FAULT_P
        raise AssertionError("a walk ends at level 1")
