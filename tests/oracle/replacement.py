"""Sets whose tags stay in their ways, with every policy of replacement but exact LRU by moving tags.

Written from the descriptions: A. Abel and J. Reineke, nanoBench, ISPASS 2020, section VI (tree PLRU, QLRU, MRU);
uops.info, caches (LRU3PLRU4); A. Tatar et al., TLB;DR, USENIX Security 2022 ((MRU+1)%3PLRU4); A. Jaleel et al., RRIP,
ISCA 2010 (NRU). An invalid way is filled before a valid one is replaced, the first of them except with R2.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from tests.oracle.lru import Sets
from vmsim.machine.replacement import policy_of

NAMES = (
    "fifo",
    "random",
    "plru",
    "lru-plru4",
    "mru-plru4",
    "nru",
    "mru",
    "mru_n",
    "QLRU_H11_M1_R0_U0",
    "QLRU_H00_M1_R2_U1",
    "QLRU_H21_M2_R0_U0_UMO",
    "QLRU_H11_M1_R1_U2",
    "QLRU_H20_M3_R1_U3",
    "QLRU_H10_M0_R2_U1_UMO",
)
BY_NUMBER = {policy_of(name): name for name in NAMES} | {policy_of("lru", by_way=True): "lru"}


class Lru:
    """The ways by when they were used (fifo: filled), the newest first."""

    def __init__(self, ways: int, hits: bool = True) -> None:
        self.order = list(range(ways))
        self.hits = hits

    def hit(self, way: int, full: bool) -> None:
        if self.hits:
            self.order.remove(way)
            self.order.insert(0, way)

    def filled(self, way: int, full: bool) -> None:
        self.order.remove(way)
        self.order.insert(0, way)

    def victim(self, allowed: set[int]) -> int:
        return next(way for way in reversed(self.order) if way in allowed)


class Random:
    """A draw for each victim: from the generator of the C standard's example, started at `state`."""

    def __init__(self, ways: int, state: int) -> None:
        self.state = state

    def hit(self, way: int, full: bool) -> None:
        pass

    filled = hit

    def draw(self) -> int:
        self.state = (self.state * 1103515245 + 12345) % 2**31
        return self.state // 256

    def victim(self, allowed: set[int]) -> int:
        return sorted(allowed)[self.draw() % len(allowed)]


class Plru:
    """A fork and what is on its two sides, or a way: `left` tells which side was used less recently."""

    def __init__(self, ways: list[int]) -> None:
        self.ways = ways
        self.left = True
        half = len(ways) // 2
        self.sides = (Plru(ways[:half]), Plru(ways[half:])) if half else ()

    def hit(self, way: int, full: bool) -> None:
        if self.sides:
            self.left = way not in self.sides[0].ways
            self.sides[self.left].hit(way, full)

    filled = hit

    def victim(self, allowed: set[int]) -> int:
        if not self.sides:
            return self.ways[0]
        first, second = self.sides if self.left else reversed(self.sides)
        return (first if allowed & set(first.ways) else second).victim(allowed)


class Trees:
    """Trees of four ways, the newest first in `order`."""

    def __init__(self, ways: int, after_newest: bool) -> None:
        self.trees = [Plru(list(range(first, first + 4))) for first in range(0, ways, 4)]
        self.order = list(self.trees)
        self.after_newest = after_newest

    def hit(self, way: int, full: bool) -> None:
        tree = self.trees[way // 4]
        tree.hit(way, full)
        self.order.remove(tree)
        self.order.insert(0, tree)

    filled = hit

    def victim(self, allowed: set[int]) -> int:
        number = self.trees.index(self.order[0]) + 1 if self.after_newest else self.trees.index(self.order[-1])
        round_ = [self.trees[(number + more) % len(self.trees)] for more in range(len(self.trees))]
        return next(tree for tree in round_ if allowed & set(tree.ways)).victim(allowed)


class Nru:
    """A bit for each way: not recently used."""

    def __init__(self, ways: int, kind: str) -> None:
        self.bits = [1] * ways
        self.kind = kind

    def hit(self, way: int, full: bool) -> None:
        if self.kind == "mru_n" and not full:
            return
        self.bits[way] = 0
        if self.kind != "nru" and not any(self.bits):
            self.bits = [int(other != way) for other in range(len(self.bits))]

    filled = hit

    def victim(self, allowed: set[int]) -> int:
        if not any(self.bits[way] for way in allowed):
            self.bits = [1] * len(self.bits)
        return min(way for way in allowed if self.bits[way])


class Qlru:
    """Ages of 0 to 3."""

    def __init__(self, ways: int, name: str) -> None:
        self.draws: Random | None = None
        hit, miss, self.replace, self.update, *rest = name.upper().split("_")[1:]
        self.hits = {3: int(hit[1]), 2: int(hit[2]), 1: 0, 0: 0}
        self.miss, self.rarely = int(miss[-1]), "R16" in miss  # at that age once in 16 times, drawn, else at 3
        self.last_first = self.replace == "R2"
        self.on_misses_alone = rest == ["UMO"]
        self.ages = [3] * ways

    def _renew(self, used: int | None) -> None:
        others = [way for way in range(len(self.ages)) if way != used]
        seen = [self.ages[way] for way in (others if self.update == "U1" else range(len(self.ages)))]
        if 3 in seen:
            return
        more = 3 - max(seen, default=3) if self.update in ("U0", "U1") else 1
        for way in others if self.update in ("U1", "U3") else range(len(self.ages)):
            self.ages[way] += more

    def hit(self, way: int, full: bool) -> None:
        self.ages[way] = self.hits[self.ages[way]]
        if not self.on_misses_alone:
            self._renew(way)

    def before_miss(self) -> None:
        if self.on_misses_alone:
            self._renew(None)

    def filled(self, way: int, full: bool) -> None:
        self.ages[way] = 3 if self.rarely and self.draws.draw() % 16 else self.miss
        if not self.on_misses_alone:
            self._renew(way)

    def victim(self, allowed: set[int]) -> int:
        oldest = max(self.ages[way] for way in allowed)
        if self.replace == "R1" and oldest < 3:
            return min(allowed)
        return min(way for way in allowed if self.ages[way] == oldest)


class Duel:
    """One set of a cache whose sets duel: two quad-age LRUs on the same ages; `score` is the whole cache's, [0..1023].

    `leads` says for which it does, if it leads.
    """

    def __init__(self, ways: int, name: str, leads: int | None, score: list[int], state: int) -> None:
        self.both = [Qlru(ways, each) for each in name.split("/")]
        self.both[1].ages = self.both[0].ages
        for each in self.both:
            each.draws = Random(ways, state)
        self.both[1].draws = self.both[0].draws
        self.leads, self.score = leads, score

    @property
    def now(self) -> Qlru:
        return self.both[self.score[0] // 512 if self.leads is None else self.leads]

    @property
    def last_first(self) -> bool:
        return self.now.last_first

    def hit(self, way: int, full: bool) -> None:
        self.now.hit(way, full)

    def before_miss(self) -> None:
        """A leader's miss speaks for the other side; its own mind is made up before."""
        self.mind = self.now
        if self.leads is not None:
            self.score[0] = min(self.score[0] + 1, 1023) if self.leads == 0 else max(self.score[0] - 1, 0)
        self.mind.before_miss()

    def filled(self, way: int, full: bool) -> None:
        self.mind.filled(way, full)

    def victim(self, allowed: set[int]) -> int:
        return self.mind.victim(allowed)


def made(name: str, ways: int, state: int) -> Any:
    if name in ("lru", "fifo"):
        return Lru(ways, hits=name == "lru")
    if name == "random":
        return Random(ways, state)
    if name == "plru":
        return Plru(list(range(ways)))
    if name in ("lru-plru4", "mru-plru4"):
        return Trees(ways, after_newest=name == "mru-plru4")
    return Qlru(ways, name) if name.upper().startswith("QLRU") else Nru(ways, name)


class WaySets:
    """What `lru.Sets` is, with tags that stay.

    Parameters
    ----------
    states : sequence of int
        Where the generator of each set starts, if it draws.
    """

    def __init__(self, sets: int, ways: int, name: str, states: Any = None) -> None:
        self.ways = ways
        self.sets: list[list[tuple[Hashable, Any] | None]] = [[None] * ways for _ in range(sets)]
        self.policies = [made(name, ways, int(states[index]) if states is not None else 0) for index in range(sets)]

    def _place(self, index: int, key: Hashable) -> tuple[int, list[Any], int | None]:
        index %= len(self.sets)
        entries = self.sets[index]
        return index, entries, next((way for way, each in enumerate(entries) if each and each[0] == key), None)

    def get(self, index: int, key: Hashable) -> Any:
        index, entries, way = self._place(index, key)
        if way is None:
            return None
        self.policies[index].hit(way, None not in entries)
        return entries[way][1]

    def has(self, index: int, key: Hashable) -> bool:
        """Return whether there is an entry, which stays as old as it is."""
        return self._place(index, key)[2] is not None

    def put(self, index: int, key: Hashable, value: Any, allowed: set[int] | None = None) -> Any:
        """Put an entry in one of the ways allowed; return the key of that which made room for it, or None."""
        index, entries, way = self._place(index, key)
        assert way is None, "a unit never keeps one key twice"
        policy = self.policies[index]
        if isinstance(policy, Qlru | Duel):
            policy.before_miss()
        allowed = set(range(self.ways)) if allowed is None else allowed
        full = None not in entries
        empty = [way for way in sorted(allowed) if entries[way] is None]
        way = empty[-1 if getattr(policy, "last_first", False) else 0] if empty else policy.victim(allowed)
        gone = entries[way]
        entries[way] = (key, value)
        policy.filled(way, full)
        return gone[0] if gone else None

    def drop(self, index: int, key: Hashable) -> bool:
        _, entries, way = self._place(index, key)
        if way is not None:
            entries[way] = None
        return way is not None

    def replace(self, index: int, key: Hashable, value: Any) -> None:
        _, entries, way = self._place(index, key)
        if way is not None:
            entries[way] = (key, value)

    def remove_if(self, condition: Callable[[Any], bool]) -> None:
        for entries in self.sets:
            for way, each in enumerate(entries):
                if each and condition(each[0]):
                    entries[way] = None

    def contents(self) -> list[list[tuple[Hashable, Any] | None]]:
        """Return the ways of each set, None for an empty one."""
        return [list(entries) for entries in self.sets]


def sets_of(unit: Any, states: Any = None) -> Any:
    """Return the sets of a unit of a Geometry."""
    if not unit.policy:
        return Sets(unit.sets, unit.ways)
    return WaySets(unit.sets, unit.ways, BY_NUMBER[unit.policy], states)


DUEL = "QLRU_H11_M1_R1_U2/QLRU_H11_MR161_R1_U2"


def duelling(unit: Any, leaders: Any, states: Any) -> WaySets:
    """Return the sets of a cache that duel by `DUEL`."""
    sets = WaySets(unit.sets, unit.ways, "lru")
    score = [511]
    leads = {number: side for side, those in enumerate(leaders) for number in those}
    sets.policies = [Duel(unit.ways, DUEL, leads.get(n), score, int(states[n])) for n in range(unit.sets)]
    return sets
