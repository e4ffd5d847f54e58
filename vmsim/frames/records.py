"""What is noted of a physical address space: a record for each frame, and the heads of the lists that they are on."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from vmsim.jit import leaf

__all__ = [
    "FRAME_RECORD",
    "INTERLEAVED",
    "LARGEST_REPORTED",
    "MAX_NODES",
    "MAX_ORDER",
    "MOVABLE",
    "NO_FRAME",
    "OWNERS",
    "PAGEBLOCK",
    "REPORTED",
    "UNMOVABLE",
    "ZONE",
    "State",
    "give_to",
    "push",
    "take_from",
    "unlink",
]

MAX_ORDER = 18  # 1 GiB; Linux stops at 4 MiB (MAX_PAGE_ORDER 10) and needs boot-time hugetlb for 1 GiB pages
NO_FRAME = -1
PAGEBLOCK = 9  # order of the blocks that have one mobility (pageblock_order on x86)
LARGEST_REPORTED = (
    10  # order of the largest blocks of Linux's allocator (MAX_PAGE_ORDER), by which free ones are reported
)
REPORTED = 1  # the owner of the first frame of such a block, or a smaller one, that is free and was reported
OWNERS = 4096  # the kernel, -1, and VMs from 0 on
MAX_NODES = 16
INTERLEAVED = -1  # of a policy, in place of a node: each of those that take turns gives a block in its turn

MOVABLE = 0
UNMOVABLE = 1


class State(IntEnum):
    """What a frame is used for."""

    FREE = 0
    HOST = 1  # the kernel's own: taken from the allocator, not yet given a use
    POOL = 2  # in a monitor's page pool
    GUEST = 3  # a VM's memory (in a guest: a process's page)
    TABLE = 4  # a page table


FRAME_RECORD = np.dtype(
    (
        np.record,
        [
            ("next", "i4"),  # links of a list: of free blocks by their first frames, or of an owner's frames
            ("prev", "i4"),
            ("block", "i1"),  # 1 + the order of the free block that starts here; 0: none does
            ("state", "i1"),
            ("mobility", "i1"),  # of the pageblock; free blocks are listed by that of their first frame
            ("owner", "i2"),  # number of the VM; -1: the kernel; of a free frame 0, or REPORTED
            # Of a page of a VM's memory 1 + its guest frame; of others the address of the entry that maps the frame
            # (hpa; in a guest gpa). 0: none.
            ("rmap", "i8"),
        ],
    )
)

ZONE = np.dtype(
    (
        np.record,
        [
            ("heads", "i8", (2, MAX_ORDER + 1)),  # of the free lists, by mobility and order
            ("tails", "i8", (2, MAX_ORDER + 1)),  # their last blocks; without meaning where a list is empty
            ("free", "i8"),
            ("first", "i8"),  # frame
            ("frames", "i8"),  # the first frame after it
            ("min_mark", "i8"),  # of a node: below `low` another is asked first, at `min_mark` it is passed over
            ("low", "i8"),
            ("owned", "i4", (OWNERS,)),  # 1 + the first frame of each owner's list, by 1 + the owner; 0: it is empty
            # Of all nodes together:
            (
                "policy",
                "i1",
                (2, OWNERS),
            ),  # by mobility and 1 + the owner: the node that is asked first, or INTERLEAVED
            ("among", "u2", (OWNERS,)),  # by 1 + the owner: nodes that take turns for it, a bit for each; 0: as `turns`
            ("asked", "i1", (MAX_NODES, MAX_NODES)),  # after each node: all of them, the nearest first
            ("turns", "i8"),  # nodes from 0 on that take turns
            ("turn", "i8"),
        ],
    )
)


@leaf
def push(zone, frames, pfn, order):
    """List a free block as the first of its size."""
    mobility = frames[pfn].mobility
    head = zone.heads[mobility, order]
    frames[pfn].next = head
    frames[pfn].prev = NO_FRAME
    frames[pfn].block = order + 1
    if head != NO_FRAME:
        frames[head].prev = pfn
    else:
        zone.tails[mobility, order] = pfn
    zone.heads[mobility, order] = pfn


@leaf
def unlink(zone, frames, pfn, order):
    """Take a free block off its list."""
    after = frames[pfn].next
    before = frames[pfn].prev
    if before == NO_FRAME:
        zone.heads[frames[pfn].mobility, order] = after
    else:
        frames[before].next = after
    if after != NO_FRAME:
        frames[after].prev = before
    else:
        zone.tails[frames[pfn].mobility, order] = before
    frames[pfn].block = 0
    if order < LARGEST_REPORTED:
        frames[pfn].owner = 0  # what was said of the block holds no more


@leaf
def give_to(zone, frames, pfn, owner):
    """Put a frame into the list of its new owner."""
    head = zone.owned[owner + 1] - 1
    frames[pfn].next = head
    frames[pfn].prev = NO_FRAME
    if head != NO_FRAME:
        frames[head].prev = pfn
    zone.owned[owner + 1] = pfn + 1
    frames[pfn].owner = owner


@leaf
def take_from(zone, frames, pfn):
    """Take a frame out of the list of its owner."""
    after = frames[pfn].next
    before = frames[pfn].prev
    if before == NO_FRAME:
        zone.owned[frames[pfn].owner + 1] = after + 1
    else:
        frames[before].next = after
    if after != NO_FRAME:
        frames[after].prev = before
