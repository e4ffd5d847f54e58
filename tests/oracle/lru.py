"""A set-associative memory with exact LRU: one OrderedDict per set, oldest entry first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class Sets:
    """`sets` sets of `ways` entries each; a look-up that hits and a fill both make an entry the most recent."""

    def __init__(self, sets: int, ways: int) -> None:
        self.ways = ways
        self.sets: list[OrderedDict[Hashable, Any]] = [OrderedDict() for _ in range(sets)]

    def get(self, index: int, key: Hashable) -> Any:
        """Return the value kept with `key`, or None."""
        entries = self.sets[index % len(self.sets)]
        if key not in entries:
            return None
        entries.move_to_end(key)
        return entries[key]

    def has(self, index: int, key: Hashable) -> bool:
        """Return whether there is an entry, which stays as old as it is."""
        return key in self.sets[index % len(self.sets)]

    def put(self, index: int, key: Hashable, value: Any, allowed: set[int] | None = None) -> Any:
        """Keep an entry; return the key of the one that made room, or None. All ways are alike, so all are allowed."""
        entries = self.sets[index % len(self.sets)]
        assert key not in entries, "a unit never keeps one key twice"
        gone = entries.popitem(last=False)[0] if len(entries) == self.ways else None
        entries[key] = value
        return gone

    def drop(self, index: int, key: Hashable) -> bool:
        """Remove an entry; return whether it was there."""
        return self.sets[index % len(self.sets)].pop(key, None) is not None

    def replace(self, index: int, key: Hashable, value: Any) -> None:
        """Give an entry another value where it is kept, without making it more recent."""
        entries = self.sets[index % len(self.sets)]
        if key in entries:
            entries[key] = value

    def remove_if(self, condition: Callable[[Any], bool]) -> None:
        """Remove every entry whose key satisfies `condition`; the others keep their age."""
        for entries in self.sets:
            for key in [key for key in entries if condition(key)]:
                del entries[key]

    def contents(self) -> list[list[tuple[Hashable, Any]]]:
        """Return the entries of each set, most recent first."""
        return [list(reversed(entries.items())) for entries in self.sets]
