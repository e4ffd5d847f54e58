"""Which requests a virtio-mem driver makes, by plain lists (Linux virtio_mem.c, sub-block mode)."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple


class Request(NamedTuple):
    """One request of the driver's: what, and the blocks that are plugged afterwards."""

    what: str
    plugged: int


class Driver:
    """A driver of a region of so many blocks, `group` of which are a memory block; some are plugged, from below."""

    def __init__(self, blocks: int, plugged: int, group: int = 64) -> None:
        self.have = [number < plugged for number in range(blocks)]
        self.group = group

    def follow(self, wanted: int, stuck: Collection[int] = ()) -> list[Request]:
        """Return the requests until so many are plugged; blocks that are `stuck` cannot be emptied."""
        sent: list[Request] = []
        while sum(self.have) < wanted:
            first = self.have.index(False)
            end = first
            while (
                end < len(self.have)
                and not self.have[end]
                and end // self.group == first // self.group
                and sum(self.have) + (end - first) < wanted
            ):
                end += 1
            for block in range(first, end):
                self.have[block] = True
            sent.append(Request("plug", sum(self.have)))
        groups = [range(at, min(at + self.group, len(self.have))) for at in range(0, len(self.have), self.group)]
        lacking = [each for each in groups if not all(self.have[block] for block in each)]
        whole = [each for each in groups if all(self.have[block] for block in each)]
        for group in (*reversed(lacking), *reversed(whole)):
            over = sum(self.have) - wanted
            complete = len(group) == self.group and all(self.have[block] for block in group)
            if complete and over >= self.group and not any(block in stuck for block in group):
                for block in group:
                    self.have[block] = False
                sent.append(Request("unplug", sum(self.have)))
                continue
            for block in reversed(group):
                if sum(self.have) > wanted and self.have[block] and block not in stuck:
                    self.have[block] = False
                    sent.append(Request("unplug", sum(self.have)))
        return sent
