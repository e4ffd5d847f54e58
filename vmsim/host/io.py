"""The host's side of a VM's input and output: pages are pinned while a device reaches them.

The monitor asks the host to pin the pages of a buffer, so that nothing takes or moves them; the device does its part;
the host says so, and the monitor unpins them (plex86's monitor asks its host in the same words; Linux has
pin_user_pages, mm/gup.c). The emulation that asked is suspended meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.base.clock import Clock
from vmsim.contracts import Steps
from vmsim.host.guest_memory import GuestMemory
from vmsim.host.memory import HostMemory
from vmsim.record.messages import Kind, MessageLog
from vmsim.scenario.cpu import Cost

__all__ = ["HostIo", "Pin"]

Frames = NDArray[np.int64]


class Pin(NamedTuple):
    """The pages of one request while they are pinned."""

    gfns: Frames  # int64[n], the guest's frames
    pfns: Frames  # int64[n], the host's frames that held them when they were pinned


class HostIo:
    """What a host does for the input and output of one VM.

    Parameters
    ----------
    env : Clock
        Simulated time.
    host : HostMemory
        Where the VM's pages are.
    costs : Cost
        Of messages and pins.
    messages : MessageLog
        Where messages are noted.
    owner : int
        Number of the VM.
    slot : GuestMemory, optional
        Where its memory lies.

    Attributes
    ----------
    pins : list of Pin
        What is pinned now, by request.
    most : int
        The most pages that were pinned at once.
    """

    def __init__(
        self,
        env: Clock,
        host: HostMemory,
        costs: Cost,
        messages: MessageLog,
        *,
        owner: int,
        slot: GuestMemory | None = None,
    ) -> None:
        self.env = env
        self.host = host
        self.costs = costs
        self.messages = messages
        self.owner = owner
        self.slot = slot
        self.pins: list[Pin] = []
        self.most = 0

    @property
    def pinned(self) -> int:
        """Pages pinned now."""
        return sum(len(each.gfns) for each in self.pins)

    def start(self, gfns: Frames, cycles: int, *, find: Callable[[Frames], Frames]) -> simpy.Event:
        """Pin the pages of a buffer, and have a device work on them for `cycles`; return the event that it is done.

        Parameters
        ----------
        gfns : int64[n]
            Guest frames of the buffer; each is backed, and the host leaves it so from now on.
        cycles : int
            What the device takes.
        find : callable
            Returns the host's frames of guest frames, int64[n] to int64[n], as they are when it is called.
        """
        if self.slot:
            self.slot.held.update(gfns.tolist())
        return self.env.process(self._serve(gfns, cycles, find))

    def _serve(self, gfns: Frames, cycles: int, find: Callable[[Frames], Frames]) -> Steps[None]:
        costs, pages = self.costs, len(gfns)
        yield self._send(Kind.PIN, pages, costs.message + pages * costs.pin_page)
        pin = Pin(gfns, find(gfns))  # not before: until now the pages could be moved
        self.host.pin(pin.pfns)
        if self.slot:
            self.slot.held.subtract(gfns.tolist())
        self.pins.append(pin)
        self.most = max(self.most, self.pinned)
        yield self.env.timeout(cycles)
        yield self._send(Kind.IO_DONE, pages, costs.message)
        yield self._send(Kind.UNPIN, pages, costs.message + pages * costs.pin_page)
        self.host.unpin(pin.pfns)
        self.pins = [each for each in self.pins if each is not pin]

    def _send(self, kind: Kind, pages: int, cycles: int) -> simpy.Event:
        self.messages.add(self.env.cycle, self.owner, kind, pages, cycles)
        return self.env.timeout(cycles)
