"""The loops of generators and readers that numpy alone would run too slowly.

Integer arithmetic only: the same words give the same addresses on every platform. Products are kept below 2**64, so
the functions mean the same with the JIT switched off.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vmsim.jit import kernel, leaf
from vmsim.workloads.stream import Addresses, Kinds

__all__ = ["choose", "mark_writes", "normal", "revisit", "scatter", "shuffle", "zipf"]

Words = NDArray[np.uint64]

_LOW = np.uint64(0xFFFF_FFFF)
_HALF = np.uint64(32)
_ONE = np.uint64(1)


@leaf
def _scale(word: np.uint64, bound: np.uint64) -> np.uint64:
    """Return floor(word * bound / 2**64): a uniform word becomes a uniform integer below `bound`."""
    high, low = word >> _HALF, word & _LOW
    above, below = bound >> _HALF, bound & _LOW
    middle = high * below + ((low * below) >> _HALF)
    crossed = low * above + (middle & _LOW)
    return high * above + (middle >> _HALF) + (crossed >> _HALF)


@kernel
def scatter(words: Words, bound: np.uint64, size: np.uint64, origin: np.uint64, out: Addresses) -> None:
    """Set out[i] to origin + size * (a slot below `bound` chosen by words[i])."""
    for i in range(len(words)):
        out[i] = np.int64(origin + size * _scale(words[i], bound))


@kernel
def mark_writes(words: Words, threshold: np.uint64, out: Kinds) -> None:
    """Set out[i] to 1 (WRITE) where the top 32 bits of words[i] are below `threshold`, else to 0 (READ)."""
    for i in range(len(words)):
        out[i] = np.uint8(1) if words[i] >> _HALF < threshold else np.uint8(0)


@kernel
def zipf(
    words: Words,
    details: Words,
    cumulative: Words,
    guide: NDArray[np.int64],
    shift: np.uint64,
    pages: NDArray[np.int64],
    out: Addresses,
) -> None:
    """Set out[i] to a word of the page whose rank words[i] chooses by inverting the cumulative weights.

    guide[v] is the first rank whose cumulative weight exceeds v << shift: the search starts between two of them.
    """
    total = cumulative[len(cumulative) - 1]
    for i in range(len(words)):
        mark = _scale(words[i], total)
        slot = np.int64(mark >> shift)
        low, high = guide[slot], guide[slot + 1]
        while low < high:
            middle = (low + high) >> 1
            if cumulative[middle] > mark:
                high = middle
            else:
                low = middle + 1
        out[i] = pages[low] + np.int64((details[i] & np.uint64(511)) << np.uint64(3))


@kernel
def normal(words: Words, details: Words, pages: np.uint64, base: int, out: Addresses) -> None:
    """Set out[i] to a word of the page whose number is the mean of as many uniform ones as there are words for each."""
    terms = len(words) // max(1, len(out))
    for i in range(len(out)):
        total = np.uint64(0)
        for k in range(i * terms, (i + 1) * terms):
            total += _scale(words[k], pages)
        page = np.int64(total // np.uint64(terms))
        out[i] = base + (page << 12) + np.int64((details[i] & np.uint64(511)) << np.uint64(3))


@leaf
def _mix(value: np.uint64, keys: Words, row: int, bits: np.uint64) -> np.uint64:
    """Return a bijection of [0, 2**bits): every step (add, odd multiply, shift and xor) can be undone."""
    mask = (_ONE << bits) - _ONE
    half = (bits + _ONE) >> _ONE
    for step in range(4):
        value = (value + keys[row + 2 * step]) & mask
        value = (value * keys[row + 2 * step + 1]) & mask
        value ^= value >> half
    return value


@kernel
def choose(first: np.uint64, slots: np.uint64, bits: np.uint64, keys: Words, out: Addresses) -> None:
    """Set out[i] to the slot that a pseudo-random cycle over all `slots` visits at step first + i.

    A bijection of the next power of two, walked until it falls below `slots`, is a bijection of the slots.
    """
    step = first % slots
    for i in range(len(out)):
        slot = _mix(step, keys, 0, bits)
        while slot >= slots:
            slot = _mix(slot, keys, 0, bits)
        out[i] = np.int64(slot)
        step += _ONE
        if step == slots:
            step = np.uint64(0)


@kernel
def shuffle(first: np.uint64, slots: np.uint64, bits: np.uint64, keys: Words, out: Addresses) -> None:
    """Set out[i] to the slot visited at step first + i: block after block of 2**bits, shuffled within.

    The order within a block depends on the block's number.
    """
    mask = (_ONE << bits) - _ONE
    for i in range(len(out)):
        step = (first + np.uint64(i)) % slots
        block = step >> bits
        salt = ((block & _LOW) * keys[8]) >> np.uint64(20)
        inner = _mix((step + salt) & mask, keys, 0, bits)
        inner = (inner ^ (salt >> np.uint64(16))) & mask
        out[i] = np.int64((block << bits) | inner)


@kernel
def revisit(words: Words, threshold: np.uint64, lately: NDArray[np.int64], out: NDArray[np.int64]) -> None:
    """Put pages visited lately in the place of those in `out`, where the top 32 bits of words[i] are below `threshold`.

    `lately` is a ring of the last pages visited, its last item the number of visits so far; the low bits of words[i]
    choose one of them.
    """
    room = np.uint64(len(lately) - 1)
    made = np.uint64(lately[len(lately) - 1])
    for i in range(len(out)):
        known = min(made, room)
        if known and words[i] >> _HALF < threshold:
            out[i] = lately[(words[i] & _LOW) * known >> _HALF]
        lately[made % room] = out[i]
        made += _ONE
    lately[len(lately) - 1] = np.int64(made)
