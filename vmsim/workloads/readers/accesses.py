"""What the readers share: lines of a text file, and accesses checked, split at block ends and joined into runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmsim.base.errors import InputError, nearest
from vmsim.workloads.runs import RunBuilder
from vmsim.workloads.stream import Chunk, Kind

__all__ = ["BATCH", "KIND_WORDS", "LARGEST", "Accesses", "Batch", "kind_of", "lines", "signed", "split"]

BATCH = 1 << 16  # records gathered before they are handed on
LARGEST = 1 << 16  # bytes of one access
_BLOCK = 1 << 20
_AT_ONCE = 1 << 20  # blocks that accesses are split into at a time, whatever their sizes

KIND_WORDS: dict[str, int] = {
    word: kind
    for kind, words in (
        (Kind.READ, ("r", "read", "l", "ld", "load", "rd", "0", "false")),
        (Kind.WRITE, ("w", "write", "s", "st", "store", "wr", "1", "true")),
        (Kind.FETCH, ("f", "fetch", "ifetch", "i", "2")),
    )
    for word in words
}


def kind_of(word: str, where: str) -> int:
    """Return the `Kind` that a word means; InputError if none."""
    kind = KIND_WORDS.get(word.strip().lower())
    if kind is None:
        raise InputError(
            f"{where}: kind {word[:20]!r}: expected read, write or fetch. {nearest(word[:20].lower(), KIND_WORDS)}"
        )
    return kind


def lines(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """Give (number from 1, line without its end) of a text file; the last line need not have an end.

    Raises
    ------
    InputError
        A line is absurdly long.
    """
    number = 0
    tail = b""
    while block := file.read(_BLOCK):
        whole = (tail + block).split(b"\n")
        tail = whole.pop()
        for line in whole:
            number += 1
            yield number, line.removesuffix(b"\r")
        if len(tail) > _BLOCK:
            raise InputError(f"{name}: line {number + 1} is longer than {_BLOCK} bytes: this is no text.")
    if tail:
        yield number + 1, tail.removesuffix(b"\r")


def signed(
    address: NDArray[np.uint64], size: NDArray[np.int64] | None, where: Callable[[int], str]
) -> NDArray[np.int64]:
    """Return 64-bit addresses as int64, if they and the ends of their accesses are canonical.

    They are canonical if bits 63 to 56 are equal: what 5-level paging translates (SDM vol. 1, 3.3.7.1).

    Raises
    ------
    InputError
        One is not; where(i) names record i.
    """
    first = address.view(np.int64)
    top = first >> 56
    bad = (top != 0) & (top != -1)
    if size is not None:
        bad |= ((first + (size - 1)) >> 56) != top
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"{where(at)}: address {int(address[at]):#x}: expected a canonical one, whose bits 63 to 56 are equal."
        )
    return first


class Accesses(NamedTuple):
    """Columns of accesses: int64, int32, uint8."""

    address: NDArray[np.int64]
    count: NDArray[np.int32]  # type: ignore[assignment]  # in the place of tuple.count
    kind: NDArray[np.uint8]


def split(those: Accesses, size: NDArray[np.int64], granule: int) -> Iterator[Accesses]:
    """Make an access over the end of a block one access to each of the blocks, a bounded number at a time.

    Parameters
    ----------
    those : Accesses
    size : int64[n]
        Bytes of each access, 1 to `LARGEST`.
    granule : int
        Bytes of a block.
    """
    mask = np.int64(-granule)
    first = those.address & mask
    blocks = (((those.address + (size - 1)) & mask) - first) // granule + 1
    if not (blocks > 1).any():
        yield Accesses(first, those.count, those.kind)
        return
    ends = np.cumsum(blocks)
    start = 0
    while start < len(blocks):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _AT_ONCE, side="right")))
        part = blocks[start:stop]
        step = np.arange(int(part.sum()), dtype=np.int64) - np.repeat(np.cumsum(part) - part, part)
        yield Accesses(
            np.repeat(first[start:stop], part) + step * granule,
            np.repeat(those.count[start:stop], part),
            np.repeat(those.kind[start:stop], part),
        )
        start = stop


class Batch:
    """Gathers records of a text format, and hands them on to a builder of runs many at a time.

    Parameters
    ----------
    name : str
        The file, for messages.
    granule : int
        Bytes of a block.
    """

    def __init__(self, name: str, granule: int) -> None:
        self.builder = RunBuilder(granule)
        self._name = name
        self._granule = granule
        self._records: list[tuple[int, int, int, int]] = []

    def add(self, line: int, address: int, kind: int, *, size: int = 1) -> Sequence[Chunk]:
        """Take a record: its line, 64-bit address, kind, bytes of the access."""
        self._records.append((line, address, kind, size))
        return list(self.flush()) if len(self._records) == BATCH else ()

    def flush(self) -> Iterator[Chunk]:
        """Hand on what was gathered; to be called before an event and at the end."""
        if not self._records:
            return
        number, address, kind, size = zip(*self._records, strict=True)
        self._records.clear()
        sizes = np.array(size, np.int64)
        first = signed(np.array(address, np.uint64), sizes, lambda at: f"{self._name}: line {number[at]}")
        those = Accesses(first, np.ones(len(first), np.int32), np.array(kind, np.uint8))
        for part in split(those, sizes, self._granule):
            yield from self.builder.add(*part)
