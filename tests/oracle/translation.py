"""What the twin's walks give and pass on, and how they end where they cannot."""

from __future__ import annotations

from typing import NamedTuple

from tests.oracle.bits import FETCH, WRITE


class Translation(NamedTuple):
    """Where a 4 KiB page lies, what may be done to it, whether its dirty flags are set, and the size cached.

    `user` is whether a program may fetch from it: every access is one's, so of a guest's page only EPT can forbid it.
    """

    hpa: int
    write: bool
    user: bool
    dirty: bool
    size: int


class Table(NamedTuple):
    """A table on the way.

    Its hpa, the rights gathered above it, whether an agile walk switched before it, whether the host lets nobody write
    to it.
    """

    hpa: int
    rights: int
    switched: bool = False
    sealed: bool = False


class PageFaultError(Exception):
    """The guest's own tables do not allow the access."""

    reason = "GUEST_FAULT"

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
        self.gpa = -1


class ViolationError(Exception):
    """The nested tables do not allow the access to `gpa`."""

    reason = "VIOLATION"

    def __init__(self, gpa: int, code: int) -> None:
        super().__init__(gpa, code)
        self.gpa = gpa
        self.code = code


class AgainError(Exception):
    """A flag is to be set in a table whose gpa the paging-structure caches do not tell: walk without them."""


def suffices(found: Translation, kind: int) -> bool:
    """Whether a translation that is cached does for an access."""
    return found.write and found.dirty if kind == WRITE else found.user if kind == FETCH else True
