"""The LRU stack of a stream of pages, which gives its misses for every size of memory in one pass.

R. L. Mattson, J. Gecsei, D. R. Slutz, I. L. Traiger, "Evaluation techniques for storage hierarchies", IBM Systems
Journal 9(2), 1970: under LRU a memory of C pages holds the first C of a stack, so an access hits in it if the page's
position is at most C. A page that is given back (an unmapping, the end of a process) leaves a hole: a free frame in
every memory of at least so many pages. The next page to come fills the uppermost hole, and nothing is evicted below.

Positions are counted in a Fenwick tree over the times of last use: logarithmic in the number of pages.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vmsim.jit import kernel, leaf
from vmsim.workloads.stream import Addresses, Counts

__all__ = ["LruStack"]

_NEXT, _USED, _HOLES, _FIRST = range(4)  # fields of Stack.state
_ABSENT = -1
_HOLE = -2
_SMALLEST = 1 << 12


class Stack(NamedTuple):
    """The arrays of a stack. Places of the table: a power of two. Times: 0 to len(owner) - 1.

    Attributes
    ----------
    page : int64[places]
        A table with open addressing: the page at a place, or -1.
    time : int64[places]
        When that page was last used; -1 where it is not on the stack.
    owner : int64[times]
        The place of the page that was last used then; -1: nobody's, -2: a hole.
    tree : int64[times + 1]
        Fenwick tree: how many times up to one are a page's or a hole's.
    holes : int64[times]
        Times of holes, as a heap with the latest first.
    hits : int64[times + 1]
        Accesses by the position of their page, from 1.
    state : int64[4]
        The next time; places used; holes; accesses to pages that were not on the stack.
    """

    page: Addresses
    time: Addresses
    owner: Addresses
    tree: Addresses
    holes: Addresses
    hits: Addresses
    state: Addresses


@leaf
def _place(page: Addresses, wanted: np.int64) -> np.int64:
    """Return where a page is in the table, or the free place where it would be."""
    mask = np.int64(len(page) - 1)
    hashed = np.uint64(wanted) * np.uint64(0x9E3779B97F4A7C15)
    place = np.int64(hashed >> np.uint64(20)) & mask
    while page[place] != wanted and page[place] != _ABSENT:
        place = (place + 1) & mask
    return place


@leaf
def _count(tree: Addresses, time: np.int64, change: np.int64) -> None:
    """Add to what the tree holds for a time."""
    at = time + 1
    while at < len(tree):
        tree[at] += change
        at += at & -at


@leaf
def _up_to(tree: Addresses, time: np.int64) -> np.int64:
    """Return the sum for all times up to one."""
    at = time + 1
    total = np.int64(0)
    while at > 0:
        total += tree[at]
        at -= at & -at
    return total


@leaf
def _dig(holes: Addresses, number: np.int64, time: np.int64) -> None:
    """Put a time on a heap of `number` times."""
    at = number
    while at > 0 and holes[(at - 1) >> 1] < time:
        holes[at] = holes[(at - 1) >> 1]
        at = (at - 1) >> 1
    holes[at] = time


@leaf
def _fill(holes: Addresses, number: np.int64) -> None:
    """Take the latest time off a heap of `number` times."""
    last = holes[number - 1]
    at = np.int64(0)
    below = np.int64(1)
    while below < number - 1:
        if below + 1 < number - 1 and holes[below + 1] > holes[below]:
            below += 1
        if holes[below] <= last:
            break
        holes[at] = holes[below]
        at = below
        below = 2 * at + 1
    holes[at] = last


@kernel
def use(stack: Stack, pages: Addresses, count: Counts, first: np.int64) -> np.int64:
    """Take runs of accesses from number `first` on; return the number of the first that finds no room, or of runs."""
    state, owner, tree = stack.state, stack.owner, stack.tree
    live = _up_to(tree, np.int64(len(owner) - 1))
    for i in range(first, len(pages)):
        if state[_NEXT] == len(owner) or 2 * state[_USED] >= len(stack.page):
            return np.int64(i)
        now = state[_NEXT]
        state[_NEXT] = now + 1
        place = _place(stack.page, pages[i])
        if stack.page[place] == _ABSENT:
            stack.page[place] = pages[i]
            state[_USED] += 1
        before = stack.time[place]
        hole = stack.holes[0] if state[_HOLES] else np.int64(_ABSENT)
        if hole > before:
            _fill(stack.holes, state[_HOLES])
            state[_HOLES] -= 1
            _count(tree, hole, np.int64(-1))
            owner[hole] = _ABSENT
            live -= 1
        if before == _ABSENT:
            state[_FIRST] += 1
        else:
            # The hole that was filled lay above: it counted in the position that this access found.
            position = live - _up_to(tree, before) + 1 + (1 if hole > before else 0)
            stack.hits[position] += 1
            if hole > before:
                owner[before] = _HOLE
                _dig(stack.holes, state[_HOLES], before)
                state[_HOLES] += 1
            else:
                owner[before] = _ABSENT
                _count(tree, before, np.int64(-1))
                live -= 1
        stack.hits[1] += count[i] - 1
        stack.time[place] = now
        owner[now] = place
        _count(tree, now, np.int64(1))
        live += 1
    return np.int64(len(pages))


@kernel
def forget(stack: Stack, first: np.int64, pages: np.int64) -> None:
    """Make holes of those of so many pages from one on that are on the stack."""
    if pages <= len(stack.page):
        for page in range(first, first + pages):
            _leave(stack, _place(stack.page, np.int64(page)))
    else:
        for place in range(len(stack.page)):
            if 0 <= stack.page[place] - first < pages:
                _leave(stack, np.int64(place))


@leaf
def _leave(stack: Stack, place: np.int64) -> None:
    time = stack.time[place]
    if time != _ABSENT:
        stack.time[place] = _ABSENT
        stack.owner[time] = _HOLE
        _dig(stack.holes, stack.state[_HOLES], time)
        stack.state[_HOLES] += 1


@kernel
def rename(stack: Stack, source: np.int64, target: np.int64, pages: np.int64) -> None:
    """Call the pages that are on the stack otherwise; none is there by the new names, and the table has room."""
    for page in range(pages):
        place = _place(stack.page, source + page)
        time = stack.time[place]
        if time != _ABSENT:
            new = _place(stack.page, target + page)
            if stack.page[new] == _ABSENT:
                stack.page[new] = target + page
                stack.state[_USED] += 1
            stack.time[place] = _ABSENT
            stack.time[new] = time
            stack.owner[time] = new


@kernel
def rebuild(old: Stack, new: Stack) -> None:
    """Copy a stack into an empty one, without the times that nobody has and the pages that are not on it."""
    now = np.int64(0)
    for time in range(old.state[_NEXT]):
        place = old.owner[time]
        if place == _ABSENT:
            continue
        if place == _HOLE:
            new.owner[now] = _HOLE
            _dig(new.holes, new.state[_HOLES], now)
            new.state[_HOLES] += 1
        else:
            there = _place(new.page, old.page[place])
            new.page[there] = old.page[place]
            new.time[there] = now
            new.owner[now] = there
            new.state[_USED] += 1
        _count(new.tree, now, np.int64(1))
        now += 1
    new.state[_NEXT] = now
    new.state[_FIRST] = old.state[_FIRST]
    for position in range(min(len(old.hits), len(new.hits))):
        new.hits[position] = old.hits[position]


def _empty(times: int) -> Stack:
    times = max(_SMALLEST, 1 << (times - 1).bit_length())
    page, time = np.full(2 * times, _ABSENT), np.full(2 * times, _ABSENT)
    owner, tree = np.full(times, _ABSENT), np.zeros(times + 1, np.int64)
    holes, hits = np.zeros(times, np.int64), np.zeros(times + 1, np.int64)
    return Stack(page, time, owner, tree, holes, hits, np.zeros(4, np.int64))


class LruStack:
    """Pages in the order of their last use, and how many accesses found their page at which position.

    Pages are numbers from 0 to 2**63 - 1.
    """

    def __init__(self) -> None:
        self._stack = _empty(_SMALLEST)

    def use(self, pages: Addresses, count: Counts) -> None:
        """Take runs of accesses: pages int64[n], and accesses of each run, at least 1, int32[n]."""
        done = 0
        while (done := int(use(self._stack, pages, count, np.int64(done)))) < len(pages):
            self._make_room()

    def forget(self, first: int, pages: int) -> None:
        """Take so many pages from one on off the stack: their frames are free."""
        forget(self._stack, np.int64(first), np.int64(pages))

    def rename(self, source: int, target: int, pages: int) -> None:
        """Have the pages from `source` on be those from `target` on, which are forgotten; the two do not overlap."""
        self.forget(target, pages)
        if 2 * (int(self._stack.state[_USED]) + pages) >= len(self._stack.page):
            self._make_room(pages)
        rename(self._stack, np.int64(source), np.int64(target), np.int64(pages))

    @property
    def hits(self) -> Addresses:
        """Accesses by the position of their page; position 1 is that of the page used last. int64[positions + 1]."""
        return np.append(self._stack.hits[:1], np.trim_zeros(self._stack.hits[1:], "b"))

    @property
    def first(self) -> int:
        """Accesses to pages that were not on the stack: they miss in a memory of any size."""
        return int(self._stack.state[_FIRST])

    def _make_room(self, more: int = 0) -> None:
        live = int((self._stack.owner != _ABSENT).sum()) + more
        new = _empty(max(4 * live, len(self.hits) - 1))
        rebuild(self._stack, new)
        self._stack = new
