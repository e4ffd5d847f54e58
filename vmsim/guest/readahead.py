"""Which pages of a file are read beside those that a program asks for (Linux mm/readahead.c, ondemand_readahead).

A program that reads in order finds pages that were read ahead of it, in windows that double up to a limit. Each window
has a mark in it; whoever reads the marked page has the next window read. Of pages that were read out of order no trail
is looked for in the page cache (count_history_pages).
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ReadAhead", "Window", "first_window", "next_window"]


class Window(NamedTuple):
    """Pages to be read: `pages` from `first` on, and the one that gets the mark (-1: none does)."""

    first: int
    pages: int
    marked: int


def first_window(wanted: int, most: int) -> int:
    """Return how many pages are read at the beginning of a trail (get_init_ra_size)."""
    size = 1 << (wanted - 1).bit_length()
    if size <= most // 32:
        size *= 4
    elif size <= most // 4:
        size *= 2
    else:
        size = most
    return size


def next_window(size: int, most: int) -> int:
    """Return how many pages are read after a window (get_next_ra_size)."""
    if size < most // 16:
        return 4 * size
    if size <= most // 2:
        return 2 * size
    return most


class ReadAhead:
    """What is remembered of how a file is read.

    Parameters
    ----------
    most : int
        Pages of a window at most; 0: nothing is read ahead.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.previous = -1  # the page that was read last
        self._start = self._size = self._ahead = 0

    def miss(self, index: int, wanted: int) -> Window:
        """Return what to read for a program that asks for `wanted` pages from `index` on, which are not there."""
        most = self.most
        if most <= 0:
            return Window(index, wanted, -1)
        limit = max(most, wanted)
        in_order = index in (self._start + self._size - self._ahead, self._start + self._size) and self._size > 0
        if index and in_order:
            self._start += self._size
            self._size = next_window(self._size, limit)
            self._ahead = self._size
        elif index == 0 or wanted > most or 0 <= index - self.previous <= 1:
            self._start = index
            self._size = first_window(wanted, limit)
            self._ahead = self._size - wanted if self._size > wanted else self._size
        else:
            return Window(index, wanted, -1)
        return self._window(index, limit)

    def reached(self, index: int, wanted: int) -> Window | None:
        """Return what to read for a program that has come to a mark."""
        if self.most <= 0:
            return None
        limit = max(self.most, wanted)
        if index == self._start + self._size - self._ahead and self._size:
            self._start += self._size
            self._size = next_window(self._size, limit)
        else:  # somebody else's mark: behind it begins a trail of its own
            self._start = index + 1
            self._size = next_window(wanted, limit)
        self._ahead = self._size
        return self._window(index, limit)

    def _window(self, index: int, limit: int) -> Window:
        if index == self._start and self._size == self._ahead:  # it would come to the mark at once
            more = next_window(self._size, limit)
            if self._size + more <= limit:
                self._ahead = more
                self._size += more
            else:
                self._size = limit
                self._ahead = limit >> 1
        return Window(self._start, self._size, self._start + self._size - self._ahead if self._ahead else -1)
