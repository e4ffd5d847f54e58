"""Frames of a host with several NUMA nodes, and from which of them each owner's are (Linux mm/mempolicy.c).

A policy names the node that is asked first (MPOL_PREFERRED), or has nodes take turns (MPOL_INTERLEAVE). Where a node
has no free block, the others are asked in the order of the zone list, by their distance from it
(mm/page_alloc.c, build_zonelists).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmsim.frames.buddy import FRAME_RECORD, INTERLEAVED, MOVABLE, UNMOVABLE, ZONE, make_free
from vmsim.machine.memory import zeroed

__all__ = ["Nodes", "count_free", "make_nodes", "node_of", "set_policy"]


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
    """

    sizes: Sequence[int]
    asked: Sequence[Sequence[int]]
    turns: int


def make_nodes(sizes: Sequence[int], asked: Sequence[Sequence[int]], turns: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return zones, shape (1 + nodes,), and their frames, shape (sum of sizes,), all free; of the fields of `Nodes`."""
    zones = np.zeros(1 + len(sizes), ZONE)
    frames = zeroed(sum(sizes) * FRAME_RECORD.itemsize).view(FRAME_RECORD)
    zones["turns"][0] = turns
    zones["asked"][0][: len(sizes), : len(sizes)] = asked
    make_free(zones, frames, np.cumsum(np.asarray(sizes, np.int64)))
    return zones, frames


def set_policy(zones: NDArray[Any], owner: int, *, pages: int, tables: int) -> None:
    """Say which node is asked first for an owner's pages, and for its tables, or INTERLEAVED."""
    assert pages >= INTERLEAVED <= tables
    zones["policy"][0][[MOVABLE, UNMOVABLE], owner + 1] = pages, tables


def node_of(zones: NDArray[Any], pfns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the node of each frame, int64[n]."""
    return np.searchsorted(zones["frames"][1:], pfns, side="right")


def count_free(zones: NDArray[Any]) -> NDArray[np.int64]:
    """Return how many frames of each node are free, int64[nodes]."""
    return np.array(zones["free"][1:])
