"""Events of VMs, and the lives that they make: a start, other sizes, a stop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from vmsim.base.errors import InputError
from vmsim.base.units import shown

__all__ = ["KINDS", "Event", "Life", "lives_of"]

KINDS: Final = ("start", "stop", "resize")


class Event(NamedTuple):
    """Something that happens to a VM.

    Attributes
    ----------
    time : int
        Nanoseconds from when the table begins to count.
    vm : str
        What the table calls the VM.
    kind : str
        One of `KINDS`.
    size : int
        Bytes of memory from then on; of a stop 0.
    line : int
        Of the table.
    """

    time: int
    vm: str
    kind: str
    size: int
    line: int


@dataclass
class Life:
    """A VM from its start to its stop.

    Attributes
    ----------
    vm : str
        What the table calls it.
    start : int
        Nanoseconds.
    sizes : list of (int, int)
        Times from which it has so many bytes, ascending; the first is its start.
    stop : int or None
        Nanoseconds; None: the table does not say.
    """

    vm: str
    start: int
    sizes: list[tuple[int, int]] = field(default_factory=list)
    stop: int | None = None

    @property
    def most(self) -> int:
        """The most bytes that it has."""
        return max(size for _, size in self.sizes)


def lives_of(events: Iterable[Event], name: str, *, strict: bool) -> list[Life]:
    """Return the lives of VMs in the order of their starts; one that starts again after its stop has another.

    Parameters
    ----------
    events : iterable of Event
        In any order of time; those of the same time in the order of the table.
    name : str
        Of the table, for messages.
    strict : bool
        Refuse events that cannot be: else they are left out, as tables of real clouds begin in the middle.

    Raises
    ------
    InputError
        An event that cannot be, with its line.
    """
    running: dict[str, Life] = {}
    lives: list[Life] = []
    for event in sorted(events, key=lambda event: (event.time, event.line)):
        life = running.get(event.vm)
        if (event.kind == "start") == (life is not None):
            if strict:
                what = "it runs already" if life else "it does not run then"
                raise InputError(f"{name}:{event.line}: {event.kind} of VM {shown(event.vm)}: {what}.")
            continue
        if event.kind == "start":
            life = running[event.vm] = Life(event.vm, event.time)
            lives.append(life)
        assert life is not None
        if event.kind == "stop":
            life.stop = event.time
            del running[event.vm]
        elif life.sizes and life.sizes[-1][0] == event.time:
            life.sizes[-1] = event.time, event.size
        elif not life.sizes or life.sizes[-1][1] != event.size:
            life.sizes.append((event.time, event.size))
    return [life for life in lives if life.stop is None or life.stop > life.start]
