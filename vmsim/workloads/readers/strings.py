"""String instructions with a repeat prefix: one instruction, however many elements it moves.

Tracers write the instruction and its accesses again for each element, a byte each in `rep stosb`. Processors move and
store strings by cache lines: "the processor will essentially operate on the string in a cache line by cache line mode"
(Intel SDM vol. 3A, section "Fast-String Operation and Out-of-Order Stores"; vol. 1, 7.3.9.3), if addresses ascend and
source and destination are at least a line apart. So `rep movs` is a read and a write, and `rep stos` a write, for each
line of 64 bytes. What has no such mode stays by the element: descending or overlapping strings, lods, scas, cmps.

An instruction that is fetched twice in a row, with accesses between, is such an iteration: nothing else goes back to
itself at once and has accesses. Where a tracer left out the fetches nothing shows it, and all elements count.
"""

from __future__ import annotations

from typing import Any

from vmsim.jit import leaf

__all__ = ["ELEMENTS", "PLACES", "accessed", "fetched", "first_byte"]

_LINE = 64

# What is known of the instruction under way, in int64[PLACES], zeros at first: its address, accesses in this iteration,
# whether this is a further iteration, whether it goes by lines, where its last read and write ended, and the elements
# of all instructions that are no accesses of their own.
_ADDRESS, _ACCESSES, _AGAIN, _BY_LINES, _READ_END, _WRITE_END, ELEMENTS = range(7)
PLACES = 7


@leaf
def fetched(state: Any, address: int) -> bool:
    """Take the fetch of an instruction; return whether it is a fetch, not a further iteration of the last one."""
    again = state[_ACCESSES] > 0 and state[_ADDRESS] == address
    state[_ADDRESS] = address
    state[_ACCESSES] = 0
    state[_AGAIN] = again
    if not again:
        state[_BY_LINES] = False
    return not again


@leaf
def accessed(state: Any) -> None:
    """Take an access that no string instruction makes."""
    state[_ACCESSES] += 1


@leaf
def first_byte(state: Any, address: int, size: int, write: bool) -> int:
    """Take a read or write of an instruction.

    Returns
    -------
    int
        The first byte from which on it is an access of its own; its end, if all is in a line that this instruction has
        accessed.
    """
    place = _WRITE_END if write else _READ_END
    end = address + size
    first = address
    if state[_AGAIN] and state[_BY_LINES] and state[place] == address:
        first = min((address + _LINE - 1) & -_LINE, end)
        state[ELEMENTS] += first == end
    if write:  # after the read of the same element, if there is one
        apart = address - (state[_READ_END] - size)
        state[_BY_LINES] = state[_ACCESSES] == 0 or apart >= _LINE or apart <= -_LINE
    state[place] = end
    state[_ACCESSES] += 1
    return first
