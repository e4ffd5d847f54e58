"""The reverse map of frames that several pages lie in: whose they are, also of several VMs.

Linux finds the entries of such a page through the items of its stable node (mm/ksm.c, `rmap_walk_ksm`), each of which
names a process and an address in it. Here an item names a memory and the number of the page there, and the memory finds
its entries: a VM's by guest frame, a program's own by the frame. A frame that one page alone lies in needs no item: its
record says whose it is.
"""

from __future__ import annotations

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
    """

    def __init__(self) -> None:
        self._users: dict[int, list[Use]] = {}
        self.most = 0

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

    def add(self, pfn: int, memory: Sharer, number: int) -> None:
        """Note one more page."""
        users = self._users.setdefault(pfn, [])
        users.append((memory, number))
        self.most = max(self.most, len(users))

    def remove(self, pfn: int, memory: Sharer, number: int) -> bool:
        """Note one page fewer; return whether it was the last, and the frame is nobody's."""
        users = self._users[pfn]
        users.remove((memory, number))
        if not users:
            del self._users[pfn]
        return not users

    def remove_owner(self, pfn: int, owner: int) -> bool:
        """Note that no page of an owner's lies in a frame any more; return whether none does at all."""
        left = [use for use in self._users[pfn] if use[0].owner != owner]
        if left:
            self._users[pfn] = left
        else:
            del self._users[pfn]
        return not left

    def rename(self, old: int, new: int) -> None:
        """Note that what lay in one frame lies in another."""
        self._users[new] = self._users.pop(old)
