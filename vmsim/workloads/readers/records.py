"""Blocks of whole fixed-size records from a binary file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vmsim.base.errors import InputError

__all__ = ["records"]

_BLOCK = 1 << 16  # records at a time


def records(file: BinaryIO, name: str, dtype: np.dtype[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Give (number of the first record, from 0; the records) block by block.

    Raises
    ------
    InputError
        The file does not end with a whole record.
    """
    first = 0
    tail = b""
    while block := file.read(_BLOCK * dtype.itemsize):
        data = tail + block
        whole = len(data) // dtype.itemsize
        tail = data[whole * dtype.itemsize :]
        yield first, np.frombuffer(data, dtype, whole)
        first += whole
    if tail:
        raise InputError(
            f"{name}: record {first} is cut short: expected {dtype.itemsize} bytes, found {len(tail)}. A file of this "
            f"format holds a multiple of {dtype.itemsize} bytes."
        )
