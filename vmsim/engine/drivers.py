"""The drivers of a VM's kernel, and what works for it beside its programs."""

from __future__ import annotations

from typing import NamedTuple

from vmsim.engine.balloon import Ballooned
from vmsim.engine.bilateral import SharedMemory
from vmsim.engine.files import Files, Start
from vmsim.engine.guest_huge import GuestHuge
from vmsim.engine.guest_reclaim import GuestReclaim
from vmsim.engine.parts import VmWithDrivers
from vmsim.engine.virtio_mem import Hotplug

__all__ = ["Driver", "Drivers", "make_drivers"]

Driver = Ballooned | Hotplug | SharedMemory | Files | GuestReclaim | GuestHuge


class Drivers(NamedTuple):
    """Each of them, None where the VM has none."""

    balloon: Ballooned | None
    virtio_mem: Hotplug | None
    bilateral: SharedMemory | None
    files: Files | None
    reclaim: GuestReclaim | None
    huge: GuestHuge | None

    @property
    def there(self) -> list[Driver]:
        """Those that the VM has."""
        return [each for each in self if each]

    @property
    def frames(self) -> dict[str, int]:
        """Guest frames by what devices of the host have of them."""
        found = self.balloon.frames if self.balloon else {}
        found |= self.virtio_mem.frames if self.virtio_mem else {}
        return found | (self.bilateral.frames if self.bilateral else {})


def make_drivers(vm: VmWithDrivers, start: Start | None) -> Drivers:
    """Make what a VM (`VirtualMachine`) has, and have it count; `start` is as of `vmsim.engine.guest_disk`."""
    spec = vm.spec
    balloon = Ballooned(vm, spec.balloon) if spec.balloon else None
    files = Files(vm, spec.files, start) if spec.files and start else None
    virtio_mem = Hotplug(vm, spec.virtio_mem, files) if spec.virtio_mem else None
    bilateral = SharedMemory(vm, spec.bilateral) if spec.bilateral else None
    reclaim = GuestReclaim(vm, spec.reclaim, files, start) if spec.reclaim and start else None
    huge = GuestHuge(vm, spec.thp, files) if spec.thp and spec.thp.works else None
    drivers = Drivers(balloon, virtio_mem, bilateral, files, reclaim, huge)
    for driver in drivers.there:
        driver.register(vm.ledger)
    return drivers
