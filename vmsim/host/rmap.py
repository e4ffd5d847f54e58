"""The reverse map of frames that several pages lie in: whose they are, also of several VMs.

Linux finds the entries of such a page through the items of its stable node (mm/ksm.c, `rmap_walk_ksm`), each of which
names a process and an address in it. Here an item names a memory and the number of the page there, and the memory finds
its entries: a VM's by guest frame, a program's own by the frame. A frame that one page alone lies in needs no item: its
record says whose it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Protocol

from vmsim.contracts import Flush

__all__ = ["ReverseMap", "Sharer", "Use"]


class Sharer(Protocol):
    """A memory whose pages can lie in shared frames.

    Attributes
    ----------
    owner : int
        Whose it is.
    """

    owner: int

    def leave_frame(self, number: int) -> Flush:
        """Clear what maps a page that is about to lie elsewhere."""
        ...

    def enter_frame(self, numbers: list[int], old: int, new: int) -> None:
        """Note that its pages that lay in frame `old` lie in frame `new`."""

    def forget_all(self, flush: Flush) -> None:
        """Have the processors forget what a flush says."""


Use = tuple[Sharer, int]
"""A memory, and the number of its page."""


class ReverseMap:
    """Which pages lie in each shared frame.

    Attributes
    ----------
    most : int
        The most pages that a frame has had.
    pages : int
        Pages that lie in shared frames.
    zero : int or None
        The frame of zeros, which stays a shared one while nobody shares it.
    """

    def __init__(self) -> None:
        self._users: dict[int, list[Use]] = {}
        self._labels: dict[int, int] = {}
        self.zero: int | None = None
        self.most = 0
        self.pages = 0

    def __contains__(self, pfn: int) -> bool:
        return pfn in self._users

    def __iter__(self) -> Iterator[int]:
        return iter(self._users)

    def __len__(self) -> int:
        return len(self._users)

    def users(self, pfn: int) -> list[Use]:
        """Return the pages that lie in a frame, in the order in which they came; none where it is not shared."""
        return self._users.get(pfn, [])

    def of(self, owner: int) -> Iterator[tuple[int, int]]:
        """Yield (frame, number) of each page of an owner's."""
        for pfn, users in self._users.items():
            for memory, number in users:
                if memory.owner == owner:
                    yield pfn, number

    def by_owner(self) -> Counter[int]:
        """Return how many pages of each owner lie in shared frames."""
        return Counter(memory.owner for users in self._users.values() for memory, _ in users)

    def add(self, pfn: int, memory: Sharer, number: int) -> None:
        """Note one more page."""
        users = self._users.setdefault(pfn, [])
        users.append((memory, number))
        self.pages += 1
        self.most = max(self.most, len(users))

    def remove(self, pfn: int, memory: Sharer, number: int) -> bool:
        """Note one page fewer; return whether it was the last, and the frame is nobody's."""
        self._users[pfn].remove((memory, number))
        self.pages -= 1
        return self._drop_if_empty(pfn)

    def remove_owner(self, pfn: int, owner: int) -> bool:
        """Note that no page of an owner's lies in a frame any more; return whether none does at all."""
        before = self._users[pfn]
        self._users[pfn] = [use for use in before if use[0].owner != owner]
        self.pages -= len(before) - len(self._users[pfn])
        return self._drop_if_empty(pfn)

    def rename(self, old: int, new: int) -> None:
        """Note that what lay in one frame lies in another."""
        self._users[new] = self._users.pop(old)
        if old in self._labels:
            self._labels[new] = self._labels.pop(old)
        if old == self.zero:
            self.zero = new

    def label(self, pfn: int) -> int | None:
        """Return what was said that a frame holds, None where nothing was, or it is not shared any more."""
        return self._labels.get(pfn)

    def set_label(self, pfn: int, label: int) -> None:
        """Say what a frame holds."""
        self._labels[pfn] = label

    def add_zero(self, pfn: int) -> None:
        """Make a frame that of zeros."""
        self.zero = pfn
        self._users[pfn] = []

    def _drop_if_empty(self, pfn: int) -> bool:
        if self._users[pfn] or pfn == self.zero:
            return False
        del self._users[pfn]
        self._labels.pop(pfn, None)
        return True
