"""What the drivers of a VM's kernel have in common: its memory, where their work is done, and their end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vmsim.contracts import Steps, Vcpu
from vmsim.engine.parts import VmWithDrivers
from vmsim.guest.frames import GuestFrames
from vmsim.guest.workqueue import Workqueue
from vmsim.host.device_thread import DeviceThread
from vmsim.host.guest_memory import GuestMemory
from vmsim.machine.formats import PRESENT

__all__ = ["GuestDevice", "guest_of", "make_queue", "pins_of"]


def pins_of(vm: VmWithDrivers) -> Callable[[int], bool]:
    """Return what says of a frame of a VM's kernel (`VirtualMachine`) whether a device works on it."""
    slot, pins = vm.slot, vm.parts.host.pins

    def pinned(gfn: int) -> bool:
        if slot is None:
            return bool(pins[gfn])
        return slot.held[gfn] > 0 or bool(slot.backing[gfn] & PRESENT and pins[slot.frame_of(gfn)])

    return pinned


def guest_of(vm: VmWithDrivers) -> tuple[GuestFrames, GuestMemory]:
    """Return the frames and the memory of a VM that is no program on the host itself."""
    assert isinstance(vm.frames, GuestFrames)
    assert vm.slot is not None
    return vm.frames, vm.slot


def make_queue(vm: VmWithDrivers, cause: str) -> Workqueue:
    """Return where work of a VM's kernel is done, for which its vCPUs wake up; `cause` is of the time that they use."""
    for vcpu in vm.vcpus:
        vcpu.wakes = True
    return Workqueue(vm.vcpus, partial(vm.shootdown.deliver, cause=cause))


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

    def __init__(self, vm: VmWithDrivers, cause: str) -> None:
        self.env = vm.parts.env
        self.queue = make_queue(vm, cause)

    def retire(self, vcpu: Vcpu) -> None:
        """Note that a vCPU has ended; with the last one the VM has."""
        self.queue.retire(vcpu)
        if not self.queue.alive:
            self.device.stop()

    def rest(self) -> Steps[None]:
        """Wait for nothing: what of a message is not done stays so."""
        return
        yield
