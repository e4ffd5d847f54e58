"""What drivers of devices that take a guest's memory have in common: virtio-balloon, its reports, virtio-mem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Generic, TypeVar

from vmsim.base.clock import Clock
from vmsim.contracts import Vcpu
from vmsim.guest.frames import GuestFrames
from vmsim.guest.workqueue import Workqueue
from vmsim.scenario.cpu import Cost

__all__ = ["DeviceDriver"]

Spec = TypeVar("Spec")
Device = TypeVar("Device")


class DeviceDriver(Generic[Spec, Device]):
    """A driver of a guest's kernel whose work is done by the kernel's own threads.

    Parameters
    ----------
    env : Clock
        Simulated time.
    spec : Spec
        What it is told.
    costs : Cost
        What its steps take.
    frames : GuestFrames
        The kernel's allocator.
    device : Device
        The host's side.
    queue : Workqueue
        Where its work is done.
    notify : callable
        Has a vCPU tell the device that there is a message.
    counted : tuple of str
        What it counts.

    Attributes
    ----------
    held : int
        Frames that the driver keeps from the guest.
    counts : Counter
        How often what was done.
    """

    def __init__(
        self,
        env: Clock,
        spec: Spec,
        costs: Cost,
        *,
        frames: GuestFrames,
        device: Device,
        queue: Workqueue,
        notify: Callable[[Vcpu], None],
        counted: tuple[str, ...],
    ) -> None:
        self.env = env
        self.spec = spec
        self.costs = costs
        self.frames = frames
        self.device = device
        self.queue = queue
        self.notify = notify
        self.held = 0
        self.counts: Counter[str] = Counter(dict.fromkeys(counted, 0))
