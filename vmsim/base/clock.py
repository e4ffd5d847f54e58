"""Simulated time: a SimPy environment that counts cycles, and ends when nobody but daemons has anything left to do."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from operator import attrgetter
from typing import Any

import simpy
from simpy.events import NORMAL

__all__ = ["Background", "Clock"]

_NEVER = 1 << 62


class _Timer(simpy.Event):
    """What `simpy.Timeout` is, in half the time: a vCPU waits for one after every few faults."""

    def __init__(self, clock: Clock, delay: int) -> None:
        self.env = clock
        self.callbacks = []
        self._value = None
        self._ok = True
        heappush(clock._queue, (clock._now + delay, NORMAL, next(clock._eid), self))


class Background(simpy.Timeout):
    """A timer of the background.

    Attributes
    ----------
    work : int
        Cycles, from its beginning on, in which who waits for it works; it sleeps for the others.
    """

    work = 0


class Clock(simpy.Environment):
    """Time in integer cycles of the host's TSC, so that ties are exact.

    What waits for a timer of `background` does not keep a simulation going: a daemon that looks again and again ends
    with whatever it watches. Everything else does.
    """

    def __init__(self) -> None:
        super().__init__()
        self._background: set[simpy.Event] = set()
        self._freeing: set[simpy.Event] = set()

    cycle: int = property(attrgetter("_now"))  # type: ignore[assignment]  # the current one; SimPy's, no call in between

    @property
    def next(self) -> int:
        """The cycle at which anything happens next; far away if nothing is to happen."""
        return self._queue[0][0] if self._queue else _NEVER  # type: ignore[return-value]

    @property
    def idle(self) -> bool:
        """Whether nothing is to happen any more but timers of the background."""
        return len(self._queue) == len(self._background)

    def after(self, delay: int) -> simpy.Event:
        """Return an event that comes in `delay` cycles, 0 or more."""
        return _Timer(self, delay)

    def background(self, delay: int, *, frees: bool = False, work: int = 0) -> Background:
        """Return an event that comes in `delay` cycles, if anything else happens from then on.

        Parameters
        ----------
        delay : int
            Cycles.
        frees : bool, optional
            Memory may be freed then, so that those who wait for some have to wait for this (`turn`).
        work : int, optional
            Cycles of it, the first ones, in which a daemon works: for who wants to know (`Background`).
        """
        timer = Background(self, delay)
        timer.work = work
        for pending in (self._background, self._freeing) if frees else (self._background,):
            pending.add(timer)
            timer.callbacks.append(pending.discard)
        return timer

    def abandon(self, timer: simpy.Event) -> None:
        """Keep the simulation going no longer for a timer that nobody waits for any more."""
        if timer.callbacks is not None:  # it has not come yet
            self._background.add(timer)
            timer.callbacks.append(self._background.discard)

    def watch(self, every: int, look: Callable[[int], None]) -> None:
        """Call `look` with each multiple of `every` cycles that is passed, with everything as it is then.

        It must change nothing: what happens is the same, and at the same times, as without it.
        """
        step, due = self.step, every

        def step_and_look() -> None:
            nonlocal due
            while due < self.next:
                look(due)
                due += every
            step()

        self.step = step_and_look  # type: ignore[method-assign]

    def run(self, until: Any = None) -> Any:
        """Run until nothing is left but timers of the background, or as SimPy does `until` a time or an event."""
        if until is not None:
            return super().run(until)
        queue, background, step = self._queue, self._background, self.step
        if "step" in vars(self):  # somebody looks at each moment
            while len(queue) != len(background):  # not idle
                step()
            return None
        while len(queue) != len(background):  # SimPy's step, without a call for each
            self._now, _, _, event = heappop(queue)
            callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]
            for callback in callbacks:
                callback(event)
            if not event._ok and not hasattr(event, "_defused"):
                raise type(event._value)(*event._value.args) from event._value
        return None

    def turn(self, over: simpy.Event) -> None:
        """Run on until each timer at which memory may be freed has come once, or `over` has happened.

        That is for those who are stuck, to see whether a daemon can help them.
        """
        pending = self._freeing.copy()
        while not over.triggered and not pending.isdisjoint(self._freeing):
            self.step()
