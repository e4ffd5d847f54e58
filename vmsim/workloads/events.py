"""What an operation of a trace may say: one rule for each, so that a file cannot ask for what no program does."""

from __future__ import annotations

from typing import NamedTuple

from vmsim.workloads.stream import PAGE, WIDEST_END, Event, Op

__all__ = ["LONGEST_COMPUTE", "MOST_THREADS", "RULES", "Rule", "problem"]

LONGEST_COMPUTE = 1 << 60  # cycles
MOST_THREADS = 1 << 12
_LONGEST_IO = 10**16  # nanoseconds: 116 days
_LARGEST_BUFFER = 1 << 36  # bytes
_LARGEST_FILE = 1 << 40
_FILES = (0, (1 << 20) - 1)
_PIDS = (1 << 32) - 1
_ANY = (-(1 << 63), (1 << 63) - 1)


class Rule(NamedTuple):
    """Bounds of an operation's fields.

    Attributes
    ----------
    whole : bool
        Address and length are multiples of 4096.
    length : int
        The most bytes.
    argument : (int, int)
        The least and the most.
    """

    whole: bool = False
    length: int = WIDEST_END
    argument: tuple[int, int] = _ANY


# An operation without a rule here may have any region of user space and any argument.
RULES: dict[Op, Rule] = {
    Op.MAP: Rule(whole=True, argument=(0, 255)),
    Op.UNMAP: Rule(whole=True),
    Op.PROTECT: Rule(whole=True, argument=(0, 255)),
    Op.BRK: Rule(),
    Op.FORK: Rule(argument=(1, _PIDS)),
    Op.EXEC: Rule(),
    Op.EXIT: Rule(),
    Op.SWITCH: Rule(),
    Op.COMPUTE: Rule(argument=(0, LONGEST_COMPUTE)),
    Op.IO: Rule(length=_LARGEST_BUFFER, argument=(0, _LONGEST_IO)),
    Op.MOVE: Rule(whole=True, argument=(0, WIDEST_END)),
    Op.DISCARD: Rule(whole=True, argument=(0, 1)),
    Op.POPULATE: Rule(whole=True),
    Op.SHARE: Rule(argument=(1, _PIDS)),
    Op.ADVISE: Rule(whole=True, argument=(10, 19)),
    Op.THREAD: Rule(argument=(0, MOST_THREADS - 1)),
    Op.OPEN_FILE: Rule(length=_LARGEST_FILE, argument=_FILES),
    Op.READ_FILE: Rule(length=_LARGEST_BUFFER, argument=_FILES),
    Op.WRITE_FILE: Rule(length=_LARGEST_BUFFER, argument=_FILES),
    Op.DROP_FILE: Rule(length=_LARGEST_FILE, argument=_FILES),
    Op.SYNC_FILE: Rule(argument=_FILES),
}


def problem(event: Event, end: int = WIDEST_END) -> str:
    """Say what is wrong with an operation; nothing if it can happen.

    Parameters
    ----------
    event : Event
    end : int
        The first address that is not user space.
    """
    rule = RULES.get(event.op, Rule())
    what = event.op.name.lower()
    if event.op == Op.BARRIER:
        return f"operation {what}: no trace has one: it stands between the threads of a stream that is read apart"
    if not 0 <= event.length <= rule.length:
        return f"operation {what} of {event.length} bytes: expected 0 to {rule.length}"
    if event.address < 0 or event.address + event.length > end:
        return (
            f"operation {what} of {event.length} bytes at {event.address:#x}: expected a region of user space, below "
            f"{end:#x}"
        )
    if rule.whole and (event.address % PAGE or event.length % PAGE):
        return f"operation {what} of {event.length} bytes at {event.address:#x}: expected whole pages of {PAGE} bytes"
    if event.op == Op.MOVE and (event.argument % PAGE or event.argument + event.length > end):
        return (
            f"operation {what} of {event.length} bytes to {event.argument:#x}: expected whole pages of user space, "
            f"below {end:#x}"
        )
    low, high = rule.argument
    if not low <= event.argument <= high:
        return f"operation {what} with the argument {event.argument}: expected {low} to {high}"
    return ""
