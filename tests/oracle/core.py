"""One core of the twin: TLBs, page walk caches, nested TLB, data caches, and what leaves them when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.oracle.bits import span
from tests.oracle.lru import Sets
from tests.oracle.replacement import duelling, sets_of

PHI = 0x9E3779B97F4A7C15  # 2**64 / golden ratio
SERVED = ("L1", "L2", "LLC", "DRAM", "PWC")
PREFIXES = {2: "pde", 3: "pdpte", 4: "pml4e", 5: "pml5e"}


class Llc:
    """The last-level cache; where it has slices, a hash of the line chooses one and the line's low bits the set.

    `states`, here and below, gives where the machine's random draws start, by unit.
    """

    def __init__(self, geometry: Any, states: Any = None) -> None:
        self.slices = geometry.llc_slices
        self.victim = geometry.llc_victim
        self.inclusive = geometry.llc_inclusive
        if any(geometry.llc_leaders):
            self.sets = duelling(geometry.llc, geometry.llc_leaders, states)
        else:
            self.sets = sets_of(geometry.llc, states)
        self.cores: list[Core] = []  # that share it

    def index(self, line: int) -> int:
        each = len(self.sets.sets) // self.slices
        hashed = line * PHI % 2**64 >> 40 & 0xFFFF
        return (hashed * self.slices >> 16) * each + line % each if self.slices > 1 else line


class TlbLevel:
    """A level of the TLB: one array per page size, or one that several sizes share."""

    def __init__(self, units: Any, home: Any, states: Any) -> None:
        self.arrays = [sets_of(unit, given) for unit, given in zip(units, states, strict=True)]
        self.folds = [unit.fold for unit in units]
        self.home = home

    def _place(self, key: tuple[int, int, int]) -> tuple[Sets, int] | None:
        _, size, vpn = key
        number = self.home[size]
        if number < 0:
            return None
        fold = self.folds[number]
        return self.arrays[number], vpn ^ (vpn >> fold) if fold else vpn

    def get(self, key: tuple[int, int, int]) -> Any:
        place = self._place(key)
        return place[0].get(place[1], key) if place else None

    def put(self, key: tuple[int, int, int], translation: Any) -> None:
        if place := self._place(key):
            place[0].put(place[1], key, translation)

    def drop(self, key: tuple[int, int, int]) -> None:
        if place := self._place(key):
            place[0].drop(place[1], key)


class Core:
    """The units of one core, made from a Geometry."""

    def __init__(self, geometry: Any, llc: Llc, number: int = 0, states: Any = None) -> None:
        self.geometry = geometry
        self.number = number
        self.llc = llc
        llc.cores.append(self)
        states = states or (lambda name: None)
        self.tlb = [
            TlbLevel(units, home, [states(f"{level}_tlb{each}") for each in range(len(units))])
            for level, units, home in (
                ("l1", geometry.l1_tlb, geometry.l1_home),
                ("l2", geometry.l2_tlb, geometry.l2_home),
            )
        ]
        self.caches = [sets_of(geometry.l1, states("l1")), sets_of(geometry.l2, states("l2"))]
        self.ntlb = sets_of(geometry.ntlb, states("ntlb")) if geometry.ntlb else None
        units = geometry.pwc
        self.entries = sets_of(units["entries"], states("pwc")) if "entries" in units else None
        self.prefixes = [
            {
                level: sets_of(units[prefix + name], states(prefix + name))
                for level, name in PREFIXES.items()
                if prefix + name in units
            }
            for prefix in ("", "nested_")
        ]

    def reference(self, hpa: int, first: str, allowed: set[int] | None = None) -> str:
        """Look for the line of `hpa` from level `first` on; put it into each level that missed. Return who had it.

        An LLC of victims gets what the L2 gives up, and gives up what the L2 gets, unless another core's L2 has it as
        well; what it has not comes from such an L2: "PEER". What leaves an inclusive LLC leaves all cores around it.
        `allowed`: its ways to be filled.
        Where lines come in pairs, the other one is brought after it.
        """
        line = hpa // 64
        l1, l2 = self.caches
        if first == "L1":
            if l1.get(line, line):
                return "L1"
            l1.put(line, line, True)
        if l2.get(line, line):
            return "L2"
        served = self._to_l2(line, allowed)
        if self.geometry.l2_pairs and not l2.has(line ^ 1, line ^ 1):
            self._to_l2(line ^ 1, allowed)
        return served

    def _to_l2(self, line: int, allowed: set[int] | None) -> str:
        """Bring a line to the L2, which lacks it; return who had it."""
        l2, shared, place = self.caches[1], self.llc.sets, self.llc.index
        gone = l2.put(line, line, True)
        if not self.llc.victim:
            if shared.get(place(line), line):
                return "LLC"
            out = shared.put(place(line), line, True, allowed)
            for core in self.llc.cores if self.llc.inclusive and out is not None else ():
                for cache in core.caches:
                    cache.drop(out, out)
            return "DRAM"
        others = [core for core in self.llc.cores if core is not self and core._has_in_l2(line)]
        if others:
            served = "LLC" if shared.get(place(line), line) else "PEER"
        else:
            served = "LLC" if shared.drop(place(line), line) else "DRAM"
        if gone is not None and not shared.get(place(gone), gone):
            shared.put(place(gone), gone, True, allowed)
        return served

    def _has_in_l2(self, line: int) -> bool:
        return any(entry and entry[0] == line for entries in self.caches[1].contents() for entry in entries)

    def translation(self, asid: int, gva: int) -> tuple[int, Any]:
        """Return (level, translation) of a TLB entry of any page size that translates `gva`, or (0, None)."""
        for level in (1, 2):
            for size in range(3):
                found = self.tlb[level - 1].get((asid, size, gva // span(size + 1)))
                if found is not None:
                    return level, found
        return 0, None

    # What leaves: SDM vol. 3A §5.10.4.1, vol. 3C §30.4.3.1; APM vol. 2 §5.5.2 and §15.16.

    def drop_tlb(self, asid: int, gva: int) -> None:
        for level in self.tlb:
            for size in range(3):
                level.drop((asid, size, gva // span(size + 1)))

    def drop_prefixes(self, dimension: int, asid: int, address: int, width: int = 9) -> None:
        """Remove the prefixes that a walk for `address` would use, in tables of so many bits each."""
        for level, sets in self.prefixes[dimension].items():
            prefix = address // span(level, width)
            sets.drop(prefix, (asid, prefix))

    def invalidate_page(self, asid: int, gva: int, size: int, width: int = 9) -> None:
        """INVLPG: all translations of the page of `size` that holds `gva`, and this asid's walk caches.

        A page of 4 MiB (size 1 of tables of 10 bits each) is kept as two of 2 MiB: AMD APM vol. 3, CPUID Fn8000_0005.
        """
        whole = span(size + 1, width)
        page = gva // whole
        for level in self.tlb:
            for array in level.arrays:
                array.remove_if(
                    lambda key: key[0] == asid and key[1] <= size and key[2] * span(key[1] + 1) // whole == page
                )
        self.drop_tlb(asid, gva)
        self._forget_guest_walks(asid)

    def _forget_guest_walks(self, asid: int) -> None:
        for sets in self.prefixes[0].values():
            sets.remove_if(lambda key: key[0] == asid)
        if self.entries:
            self.entries.remove_if(lambda key: True)

    def flush_asid(self, asid: int) -> None:
        """All that belongs to an address space, in both dimensions."""
        keyed = [array for level in self.tlb for array in level.arrays]
        keyed += [sets for dimension in self.prefixes for sets in dimension.values()]
        keyed += [self.ntlb] if self.ntlb else []
        for sets in keyed:
            sets.remove_if(lambda key: key[0] == asid)
        if self.entries:
            self.entries.remove_if(lambda key: True)

    def units(self) -> Iterator[tuple[str, Sets]]:
        """Yield every keyed unit by the name it has in the machine's record."""
        for level, name in zip(self.tlb, ("l1_tlb", "l2_tlb"), strict=True):
            for number, array in enumerate(level.arrays):
                yield f"{name}{number}", array
        for dimension, prefix in zip(self.prefixes, ("", "nested_"), strict=True):
            for level, sets in dimension.items():
                yield prefix + PREFIXES[level], sets
        if self.entries:
            yield "pwc", self.entries
        if self.ntlb:
            yield "ntlb", self.ntlb
