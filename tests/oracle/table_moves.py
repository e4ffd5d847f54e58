"""Tables that move after their children, in plain Python: a tree whose places are decided from the leaves up.

From vMitosis (Panwar et al., ASPLOS 2021, section 3.2): each page-table page has a count, by node, of what its entries
lead to, kept up with every update; a page goes where most of its children are, and its parents count it there.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Table:
    """One table: the node it lies on, those of the pages that it maps, and the tables that it leads to."""

    node: int
    pages: list[int] = field(default_factory=list)
    below: list[Table] = field(default_factory=list)
    fixed: bool = False  # a register leads to it
    moved: bool = False
    remote: bool = False


def settle(table: Table, sockets: int, room: list[int]) -> None:
    """Place a table and all below it; `room` says how many tables each node can still take."""
    counts = dict.fromkeys(range(sockets), 0)
    for child in table.below:
        settle(child, sockets, room)
        if child.node < sockets:
            counts[child.node] += 1
    for node in table.pages:
        if node < sockets:
            counts[node] += 1
    best = max(counts, key=lambda node: (counts[node], -node))
    if table.fixed or counts[best] <= counts.get(table.node, 0):
        return
    table.remote = True
    if room[best]:
        room[best] -= 1
        table.node, table.moved = best, True
