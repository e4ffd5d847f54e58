"""Frames of a host with several NUMA nodes, and from which of them each owner's are (Linux mm/mempolicy.c).

A policy names the node that is asked first (MPOL_PREFERRED), or has nodes take turns (MPOL_INTERLEAVE). Where a node
has no free block, the others are asked in the order of the zone list, by their distance from it
(mm/page_alloc.c, build_zonelists): first for one above their low watermark, then above min.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmsim.frames.buddy import make_free
from vmsim.frames.records import FRAME_RECORD, INTERLEAVED, MOVABLE, UNMOVABLE, ZONE
from vmsim.machine.memory import zeroed

__all__ = ["NodeMarks", "Nodes", "make_nodes", "marks_of", "node_of", "set_policy"]


class NodeMarks(NamedTuple):
    """Watermarks of a node, in frames: of free memory that is left, called for, and restored; and with promotion."""

    min: int
    low: int
    high: int
    promo: int


class Nodes(NamedTuple):
    """The nodes of a host.

    Attributes
    ----------
    sizes : sequence of int
        Frames of each.
    asked : sequence of sequence of int
        For each node, the order in which nodes are asked if it is to be first.
    turns : int
        How many of them, from the first on, take turns where memory is interleaved.
    marks : sequence of NodeMarks
        Their watermarks; none: all of 0.
    tiers : sequence of int
        How many kinds of memory are faster than that of each: of those with CPUs none.
    """

    sizes: Sequence[int]
    asked: Sequence[Sequence[int]]
    turns: int
    marks: Sequence[NodeMarks] = ()
    tiers: Sequence[int] = ()

    def below(self, node: int) -> int | None:
        """Return the node that pages of one are demoted to: the nearest of the next slower memory; None: there is none.

        Linux: mm/memory-tiers.c, next_demotion_node.
        """
        slower = [tier for tier in self.tiers if tier > self.tiers[node]]
        return next((to for to in self.asked[node] if slower and self.tiers[to] == min(slower)), None)


def marks_of(size: int, total: int, least: int, low: int, high: int) -> NodeMarks:
    """Return the watermarks of a node of `size` frames: its share of those of a host of `total`.

    Linux shares out what all zones are to keep by their sizes (mm/page_alloc.c, __setup_per_zone_wmarks); promo is as
    far above high as that is above low.
    """
    shared = [mark * size // total for mark in (least, low, high)]
    return NodeMarks(*shared, 2 * shared[2] - shared[1])


def make_nodes(
    sizes: Sequence[int],
    asked: Sequence[Sequence[int]],
    turns: int,
    marks: Sequence[NodeMarks] = (),
    tiers: Sequence[int] = (),
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return zones, shape (1 + nodes,), and their frames, shape (sum of sizes,), all free; of the fields of `Nodes`."""
    zones = np.zeros(1 + len(sizes), ZONE)
    frames = zeroed(sum(sizes) * FRAME_RECORD.itemsize).view(FRAME_RECORD)
    zones["turns"][0] = turns
    zones["asked"][0][: len(sizes), : len(sizes)] = asked
    for zone, each in zip(zones[1:], marks, strict=False):
        zone["min_mark"], zone["low"] = each.min, each.low
    make_free(zones, frames, np.cumsum(np.asarray(sizes, np.int64)))
    return zones, frames


def set_policy(zones: NDArray[Any], owner: int, *, pages: int, tables: int, among: Sequence[int] = ()) -> None:
    """Say which node is asked first for an owner's pages, and for its tables, or INTERLEAVED.

    `among` are the nodes that take turns for it; none: all that do.
    """
    assert pages >= INTERLEAVED <= tables
    zones["among"][0][owner + 1] = sum(1 << node for node in among)
    zones["policy"][0][[MOVABLE, UNMOVABLE], owner + 1] = pages, tables


def node_of(zones: NDArray[Any], pfns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the node of each frame, int64[n]."""
    return np.searchsorted(zones["frames"][1:], pfns, side="right")
