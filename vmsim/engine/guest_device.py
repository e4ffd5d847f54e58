"""What devices that take a VM's memory have in common: where their drivers' work is done, and their end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from vmsim.contracts import Steps, Vcpu
from vmsim.guest.workqueue import Workqueue
from vmsim.host.device_thread import DeviceThread
from vmsim.machine.formats import PRESENT

__all__ = ["GuestDevice", "pins_of"]


def pins_of(vm: Any) -> Callable[[int], bool]:
    """Return what says of a frame of a VM's kernel (`VirtualMachine`) whether a device works on it."""
    slot, pins = vm.slot, vm.parts.host.pins

    def pinned(gfn: int) -> bool:
        if slot is None:
            return bool(pins[gfn])
        return slot.held[gfn] > 0 or bool(slot.backing[gfn] & PRESENT and pins[slot.frame_of(gfn)])

    return pinned


class GuestDevice:
    """A device of a VM and its driver.

    Parameters
    ----------
    vm : VirtualMachine
        Whose memory it is.
    cause : str
        Of the time that vCPUs use for it.

    Attributes
    ----------
    device : DeviceThread
        The host's side.
    queue : Workqueue
        Where the driver's work is done.
    """

    device: DeviceThread

    def __init__(self, vm: Any, cause: str) -> None:
        self.env = vm.parts.env
        for vcpu in vm.vcpus:
            vcpu.wakes = True
        self.queue = Workqueue(vm.vcpus, partial(vm.shootdown.deliver, cause=cause))

    def retire(self, vcpu: Vcpu) -> None:
        """Note that a vCPU has ended; with the last one the VM has."""
        self.queue.retire(vcpu)
        if not self.queue.alive:
            self.device.stop()

    def rest(self) -> Steps[None]:
        """Wait for nothing: what of a message is not done stays so."""
        return
        yield
