"""The host's side of a VM's input and output: pages are pinned while a device reaches them.

The monitor asks the host to pin the pages of a buffer, so that nothing takes or moves them; the device does its part;
the host says so, and the monitor unpins them (plex86's monitor asks its host in the same words; Linux has
pin_user_pages, mm/gup.c). The emulation that asked is suspended meanwhile.
"""

from __future__ import annotations

from collections.abc import Generator

import simpy

from vmsim.clock import Clock
from vmsim.record.messages import Kind, MessageLog
from vmsim.scenario.cpu import Cost

__all__ = ["HostIo"]


class HostIo:
    """What a host does for the input and output of one VM.

    Attributes
    ----------
    pinned : int
        Pages pinned now.
    most : int
        The most that were pinned at once.
    """

    def __init__(self, env: Clock, costs: Cost, messages: MessageLog, *, owner: int) -> None:
        self.env = env
        self.costs = costs
        self.messages = messages
        self.owner = owner
        self.pinned = 0
        self.most = 0

    def start(self, pages: int, cycles: int) -> simpy.Event:
        """Pin `pages`, and have a device work on them for `cycles`; return the event that it is done."""
        return self.env.process(self._serve(pages, cycles))

    def _serve(self, pages: int, cycles: int) -> Generator[simpy.Event, None, None]:
        costs = self.costs
        yield self._send(Kind.PIN, pages, costs.message + pages * costs.pin_page)
        self.pinned += pages
        self.most = max(self.most, self.pinned)
        yield self.env.timeout(cycles)
        yield self._send(Kind.IO_DONE, pages, costs.message)
        yield self._send(Kind.UNPIN, pages, costs.message + pages * costs.pin_page)
        self.pinned -= pages

    def _send(self, kind: Kind, pages: int, cycles: int) -> simpy.Event:
        self.messages.add(self.env.cycle, self.owner, kind, pages, cycles)
        return self.env.timeout(cycles)
