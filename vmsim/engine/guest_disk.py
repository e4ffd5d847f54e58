"""The disk of a VM: a device with queues, which the guest's driver tells of pages (virtio-blk; a bare kernel's own)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import simpy

from vmsim.base.clock import Clock
from vmsim.contracts import Steps, Words
from vmsim.host.swap.device import BlockDevice

__all__ = ["GuestDisk"]


class GuestDisk:
    """A disk.

    All pages of a request are read or written by one notification and one interrupt; the request is done when the last
    of them is.

    Parameters
    ----------
    env : Clock
        Simulated time.
    device : BlockDevice
        What it is.
    ensure : callable
        Has the host back guest frames, for a vCPU; returns whether any was not.
    start : callable
        Has a device work on guest frames for so many cycles; returns the event that it is done.
    notify : callable
        Has a vCPU tell the device that there is a request.
    deliver : callable
        Has a vCPU take the device's interrupt.

    Attributes
    ----------
    requests : int
        So far.
    busy : int
        Those under way.
    """

    def __init__(
        self,
        env: Clock,
        device: BlockDevice,
        *,
        ensure: Callable[[Any, Words], Steps[bool]],
        start: Callable[[Words, int], simpy.Event],
        notify: Callable[[Any], None],
        deliver: Callable[[Any], None],
    ) -> None:
        self.env = env
        self.device = device
        self.ensure = ensure
        self.start = start
        self.notify = notify
        self.deliver = deliver
        self.requests = self.busy = 0
        self._over = env.event()

    def read(self, vcpu: Any, blocks: Sequence[int], gfns: Words) -> Steps[simpy.Event]:
        """Have blocks read to frames; return the event that all are there."""
        return (yield from self._submit(vcpu, self.device.read, blocks, gfns))

    def write(self, vcpu: Any, blocks: Sequence[int], gfns: Words) -> Steps[simpy.Event]:
        """Have blocks written from frames; return the event that the disk has them all."""
        return (yield from self._submit(vcpu, self.device.write, blocks, gfns))

    def rest(self) -> Steps[None]:
        """Wait until nothing is under way."""
        while self.busy:
            yield self._over

    def counts(self) -> dict[str, int]:
        """Return what it has done."""
        return {"requests": self.requests, **self.device.counts()}

    def _submit(
        self,
        vcpu: Any,
        serve: Callable[[int, Words], tuple[Words, Any]],
        blocks: Sequence[int],
        gfns: Words,
    ) -> Steps[simpy.Event]:
        self.notify(vcpu)
        self.requests += 1
        self.busy += 1
        yield vcpu.settle()
        yield from self.ensure(vcpu, gfns)  # the host may have taken some meanwhile
        now = self.env.cycle
        done = self.start(gfns, int(serve(now, np.array(blocks, np.int64))[0].max()) - now)
        assert done.callbacks is not None
        done.callbacks.append(lambda _: self._done(vcpu))
        return done

    def _done(self, vcpu: Any) -> None:
        self.busy -= 1
        vcpu.interrupt(self._take)
        if not self.busy:
            over, self._over = self._over, self.env.event()
            over.succeed()

    def _take(self, vcpu: Any) -> Steps[None]:
        self.deliver(vcpu)
        return
        yield
