"""A VM's virtio-mem device put together: its host's side, its kernel's driver, and where the driver's work is done."""

from __future__ import annotations

from functools import partial

from vmsim.base.ledger import Ledger
from vmsim.engine.files import Files
from vmsim.engine.guest_device import GuestDevice, guest_of, pins_of
from vmsim.engine.guest_reclaim import program_pages
from vmsim.engine.parts import VmWithDrivers
from vmsim.guest.migration import Migration
from vmsim.guest.virtio_mem import HOTPLUG, VirtioMemDriver
from vmsim.host.virtio_mem import VirtioMem
from vmsim.scenario.virtio_mem import VirtioMemSpec

__all__ = ["Hotplug"]

_EXIT = "VIRTIO_MEM"  # the reason of the exits by which the driver tells of its requests


class Hotplug(GuestDevice):
    """The memory of a VM that can be plugged and unplugged.

    Parameters
    ----------
    vm : VirtualMachine
        Whose memory it is.
    spec : VirtioMemSpec
        What it is told.
    files : Files or None
        The VM's files.

    Attributes
    ----------
    device : VirtioMem
        The host's side.
    migration : Migration
        How the guest's kernel empties blocks.
    driver : VirtioMemDriver
        The guest's, which does nothing if the guest has none.
    """

    def __init__(self, vm: VmWithDrivers, spec: VirtioMemSpec, files: Files | None) -> None:
        super().__init__(vm, HOTPLUG)
        self.spec, costs = spec, vm.parts.scenario.cpu.cost
        _, slot = guest_of(vm)
        self.device: VirtioMem = VirtioMem(
            self.env,
            spec,
            costs,
            memory=slot,
            forget=vm.forget,
            horizon=vm.parts.scenario.horizon,
            log=lambda what, pages: vm.parts.log(what, vm.spec.name, pages, level=self.device.plugged),
        )
        self.migration = Migration(
            program_pages(vm),
            vm.frames,
            vm.kernel.tables,
            costs,
            cause=HOTPLUG,
            cache=files.cache if files else None,
            pinned=pins_of(vm),
        )
        self.driver = VirtioMemDriver(
            self.env,
            spec,
            costs,
            frames=vm.frames,
            device=self.device,
            queue=self.queue,
            notify=partial(vm.shootdown.notify, reason=_EXIT),
            migration=self.migration,
        )

    def begin(self) -> None:
        """Begin: the guest has booted."""
        self.env.process(self.device.run())
        if self.spec.driver:
            self.env.process(self.driver.run())

    @property
    def held(self) -> int:
        """Frames of the guest that are not plugged, or of a block that is being emptied."""
        return self.driver.held + self.migration.held

    @property
    def frames(self) -> dict[str, int]:
        """Frames by kind: what of the region is plugged, and what was to be."""
        return {"plugged": self.device.plugged, "plugged_target": self.device.requested}

    def register(self, ledger: Ledger) -> None:
        """Say what it counts."""
        ledger.counters("virtio_mem", lambda: self.device.counts)
        ledger.counters("virtio_mem_driver", lambda: {**self.driver.counts, **self.migration.counts})
