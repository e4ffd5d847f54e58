"""What the readers share: lines of a text file, and accesses checked, split at block ends and joined into runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from vmsim.errors import InputError, nearest
from vmsim.workloads.readers.files import shown
from vmsim.workloads.runs import RunBuilder
from vmsim.workloads.stream import Chunk, Kind

__all__ = ["BATCH", "KIND_WORDS", "Batch", "kind_of", "lines", "signed", "split"]

BATCH = 1 << 16  # records gathered before they are handed on
_BLOCK = 1 << 20

KIND_WORDS: dict[str, int] = {
    word: kind
    for kind, words in (
        (Kind.READ, ("r", "read", "l", "load", "0")),
        (Kind.WRITE, ("w", "write", "s", "store", "1")),
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
    """Give (number from 1, line without its end) of a text file.

    Raises
    ------
    InputError
        The last line has no end, so that its number may be cut off in the middle, or a line is absurdly long.
    """
    number = 0
    tail = b""
    while block := file.read(_BLOCK):
        whole = (tail + block).split(b"\n")
        tail = whole.pop()
        for line in whole:
            number += 1
            yield number, line
        if len(tail) > _BLOCK:
            raise InputError(f"{name}: line {number + 1} is longer than {_BLOCK} bytes: this is no text.")
    if tail:
        raise InputError(
            f"{name}: line {number + 1} has no end ({shown(tail)}): the file was cut short. If it is whole, end it "
            "with a newline."
        )


def signed(
    address: NDArray[np.uint64], size: NDArray[np.int64] | None, where: Callable[[int], str]
) -> NDArray[np.int64]:
    """Return 64-bit addresses as int64, if they and the ends of their accesses are canonical (48 bits).

    Raises
    ------
    InputError
        One is not; where(i) names record i.
    """
    first = address.view(np.int64)
    top = first >> 47
    bad = (top != 0) & (top != -1)
    if size is not None:
        bad |= ((first + (size - 1)) >> 47) != top
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"{where(at)}: address {int(address[at]):#x}: expected a canonical one, whose bits 63 to 47 are equal."
        )
    return first


def split(
    address: NDArray[np.int64], size: NDArray[np.int64], kind: NDArray[np.uint8], granule: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Make an access over the end of a block one access to each of the blocks."""
    mask = np.int64(-granule)
    first = address & mask
    blocks = (((address + (size - 1)) & mask) - first) // granule + 1
    if not (blocks > 1).any():
        return first, kind
    start = np.cumsum(blocks) - blocks
    step = np.arange(int(blocks.sum()), dtype=np.int64) - np.repeat(start, blocks)
    return np.repeat(first, blocks) + step * granule, np.repeat(kind, blocks)


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
        self._records: list[tuple[int, int, int, int, int]] = []

    def add(self, line: int, address: int, kind: int, *, size: int = 1, count: int = 1) -> Sequence[Chunk]:
        """Take a record: its line, 64-bit address, kind, bytes of each access, accesses."""
        self._records.append((line, address, kind, size, count))
        return self.flush() if len(self._records) == BATCH else ()

    def flush(self) -> list[Chunk]:
        """Hand on what was gathered; to be called before an event and at the end."""
        if not self._records:
            return []
        number, address, kind, size, count = zip(*self._records, strict=True)
        self._records.clear()
        sizes = np.array(size, np.int64)
        kinds = np.array(kind, np.uint8)
        first = signed(np.array(address, np.uint64), sizes, lambda at: f"{self._name}: line {number[at]}")
        if max(size) > 1:
            first, kinds = split(first, sizes, kinds, self._granule)
            return self.builder.add(first, np.ones(len(first), np.int32), kinds)
        return self.builder.add(first, np.array(count, np.int32), kinds)
