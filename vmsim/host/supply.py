"""Where a monitor has its pages from: free ones in its hands, and vCPUs that wait for more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Sequence

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.base.clock import Clock
from vmsim.base.ledger import Ledger
from vmsim.contracts import PagePrices, Steps, VmStopped
from vmsim.frames.stack import Stack
from vmsim.host.limits import MemoryLimit
from vmsim.host.memory import HostMemory
from vmsim.record.messages import Kind, MessageLog
from vmsim.record.outcome import Transfer
from vmsim.scenario.cpu import Cost
from vmsim.scenario.keys import Pool as PoolSpec

__all__ = ["Supply"]


class Supply(ABC):
    """Free pages that a monitor has, and who waits for pages.

    Attributes
    ----------
    floor : int
        Free pages that may be left for a page to be taken without anybody being called or waited for.
    least : int
        Free pages that are the monitor's to keep when its host is short.
    shares : int
        Of the VM, where policies go by them.
    limit : MemoryLimit or None
        What the VM may have.
    """

    prices: PagePrices
    floor: int
    least: int

    def __init__(
        self,
        env: Clock,
        host: HostMemory,
        spec: PoolSpec,
        costs: Cost,
        *,
        owner: int,
        name: str,
        log: Callable[[Transfer], None],
        messages: MessageLog,
    ) -> None:
        self.env = env
        self.host = host
        self.spec = spec
        self.costs = costs
        self.owner = owner
        self.name = name
        self.log = log
        self.messages = messages
        self.pages = Stack()
        self.closed = False
        self.shares = 0
        self.limit: MemoryLimit | None = None
        self.starved = 0  # requests to the host that had to wait for memory, and are met
        self._brought = 0  # pages that the host gave, less those that it took
        self._moved: Counter[Kind] = Counter()  # transfers, and pages of all, by kind
        self._moved_pages: Counter[Kind] = Counter()
        self._waiting: deque[tuple[int, simpy.Event]] = deque()

    @property
    def level(self) -> int:
        """Free pages at hand."""
        return len(self.pages)

    @property
    def wanted(self) -> int:
        """Pages that suspended vCPUs wait for."""
        return sum(count for count, _ in self._waiting)

    @property
    def kept(self) -> int:
        """Pages that are not given when the host is short: the least, and what is waited for."""
        return max(self.least, self.wanted)

    @property
    @abstractmethod
    def room(self) -> int:
        """Pages that may still be brought."""

    @property
    def taken(self) -> int:
        """Pages that the monitor has taken out for good, so far."""
        return self._brought - len(self.pages.held())

    @abstractmethod
    def reach(self, count: int) -> int:
        """Return how many of `count` pages can be taken without waiting."""

    @abstractmethod
    def take(self, count: int) -> list[int]:
        """Return `count` pages if they are to be had and nobody waits, else none."""

    def may_take(self, count: int) -> bool:
        """Whether the VM may have so many pages more, and nothing is to be done for it."""
        return self.limit is None or self.limit.allows(count) >= count

    @abstractmethod
    def take_block(self, order: int) -> int:
        """Return the first frame of a large page of 2**order frames from the host itself, or NO_FRAME."""

    def make_room(self, order: int) -> int:
        """Have a block of 2**order frames made where none is free; return the cycles, 0 where that was in vain."""
        return self.host.defrag(order) if self.may_take(1 << order) else 0

    @abstractmethod
    def put(self, pages: Sequence[int] | NDArray[np.int64]) -> None:
        """Add pages; suspended vCPUs get theirs first."""

    @abstractmethod
    def surrender(self, level: int, kind: Kind, *, asked: bool = False) -> Steps[None]:
        """Give the host the pages above `level`, of the monitor's own accord or because the host `asked`."""

    def request(self, count: int) -> simpy.Event:
        """Return an event that gives a list of `count` pages once there are as many; first come, first served."""
        event = self.env.event()
        self._waiting.append((count, event))
        self._call_host()
        return event

    def break_off(self, error: VmStopped) -> None:
        """Give vCPUs that wait for pages the error instead with which their VM ends."""
        waiting, self._waiting = self._waiting, deque()
        for _, event in waiting:
            event.succeed(error)

    def close(self) -> Steps[None]:
        """Give everything back. The VM has ended."""
        self.closed = True
        yield from self.surrender(0, Kind.RETURN)

    @abstractmethod
    def _call_host(self) -> None:
        """Have the host bring pages."""

    def _hand_out(self) -> None:
        """Give those who wait longest their pages, as far as there are pages."""
        while self._waiting and len(self.pages) >= self._waiting[0][0]:
            count, event = self._waiting.popleft()
            event.succeed(self.pages.take(count))

    def register(self, ledger: Ledger) -> None:
        """Say what it counts: transfers, their pages, and the messages that were exchanged about it and buffers."""
        ledger.counters("pool", self._transfers)
        ledger.counters("messages", lambda: self.messages.sent(self.owner))

    def _transfers(self) -> dict[str, int]:
        counts = {}
        for kind in (Kind.GRANT, Kind.SPARE, Kind.RETURN):
            counts[kind.name.lower()] = self._moved[kind]
            counts[f"{kind.name.lower()}_pages"] = self._moved_pages[kind]
        return counts
