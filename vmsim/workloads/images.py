"""What a program under valgrind has mapped of files before its first instruction: itself, and its dynamic linker.

valgrind maps both itself, so that no system call of the program's is there to be seen.
"""

from __future__ import annotations

import re
from pathlib import Path

from vmsim.workloads.stream import PAGE, WIDEST_END, Event, Op

__all__ = ["mapped_images"]

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ([r-])([w-])([x-])[ps] \S+ \S+ [1-9]\d* +(/.*)")
_FILE = 16  # as of `Event`


def mapped_images(process: int) -> tuple[Event, ...]:
    """Return the mappings of files that a program starts with, as events before its first access.

    Parameters
    ----------
    process : int
        Of valgrind, which has started the program. What valgrind has mapped for itself is left out. What the program
        has mapped by now is not, which does no harm: an event of its own says so later.

    Returns
    -------
    tuple of Event
        Empty where /proc does not say.
    """
    try:
        lines = Path(f"/proc/{process}/maps").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return ()
    found = []
    for line in lines:
        if mapping := _MAPPING.fullmatch(line):
            start, end = int(mapping[1], 16), int(mapping[2], 16)
            rights = sum(1 << bit for bit in range(3) if mapping[3 + bit] != "-")
            if rights and "valgrind" not in mapping[6] and start % PAGE == end % PAGE == 0 and end <= WIDEST_END:
                found.append(Event(0, Op.MAP, 1, start, end - start, rights | _FILE))
    return tuple(found)
