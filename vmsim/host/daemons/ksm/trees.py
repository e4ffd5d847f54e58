"""KSM's two trees: of frames that are shared, and of pages that may become so until this round ends.

A tree's order is that of contents, which are identities here; what it costs to go down is the depth of a balanced one.
"""

from __future__ import annotations

from typing import Any

from vmsim.host.rmap import ReverseMap

__all__ = ["Stable", "Unstable"]

Place = tuple[Any, int]
"""A VM, and the number of one of its pages."""


class Stable:
    """Shared frames by what they hold: one, or several where as many pages share each as may (`max_page_sharing`).

    Linux has a node for each content, which becomes a chain of nodes when a second frame holds the same.

    Parameters
    ----------
    shared : ReverseMap
        Who shares each frame. A frame that nobody shares any more is forgotten when it is met (stale nodes).
    most : int
        Pages that may share a frame.
    """

    def __init__(self, shared: ReverseMap, most: int) -> None:
        self.shared = shared
        self.most = most
        self._frames: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def depth(self) -> int:
        """Nodes on the way down."""
        return len(self._frames).bit_length()

    @property
    def chains(self) -> int:
        """Contents that several frames hold."""
        return sum(len(frames) > 1 for frames in self._frames.values())

    @property
    def dups(self) -> int:
        """Frames in chains."""
        return sum(len(frames) for frames in self._frames.values() if len(frames) > 1)

    def find(self, identity: int) -> int | None:
        """Return the frame that a page may come to share: of those with room the one that most share (stable_node_dup).

        None: no frame holds that, or all have as many pages as they may.
        """
        frames = [pfn for pfn in self._frames.get(identity, ()) if self.shared.label(pfn) == identity]
        if not frames:
            self._frames.pop(identity, None)
            return None
        self._frames[identity] = frames
        return max(
            (pfn for pfn in frames if len(self.shared.users(pfn)) < self.most),
            key=lambda pfn: len(self.shared.users(pfn)),
            default=None,
        )

    def insert(self, identity: int, pfn: int) -> None:
        """Note that a frame, shared already, holds something."""
        self.shared.set_label(pfn, identity)
        self._frames.setdefault(identity, []).append(pfn)

    def prune(self) -> None:
        """Forget the frames that nobody shares any more, or that have moved."""
        self._frames.clear()
        for pfn in self.shared:
            if (identity := self.shared.label(pfn)) is not None:
                self._frames.setdefault(identity, []).append(pfn)


class Unstable:
    """Pages that have found no equal in this round, by what they held when they came; they may be written to.

    Attributes
    ----------
    unique : int
        Pages that nothing can equal: they are in the tree, and no search finds them.
    """

    def __init__(self) -> None:
        self.unique = 0
        self._pages: dict[int, Place] = {}

    def __len__(self) -> int:
        return self.unique + len(self._pages)

    @property
    def depth(self) -> int:
        """Nodes on the way down."""
        return len(self).bit_length()

    def take(self, identity: int) -> Place | None:
        """Return the page that held this when it came, and take it out."""
        return self._pages.pop(identity, None)

    def insert(self, identity: int, place: Place) -> None:
        """Put a page in."""
        self._pages[identity] = place

    def clear(self) -> None:
        """Begin another round."""
        self.unique = 0
        self._pages.clear()
