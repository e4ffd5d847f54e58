"""A VM's files put together: the disk that they are on, its kernel's page cache, and where the kernel writes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from zlib import crc32

import simpy

from vmsim import plugins
from vmsim.base.errors import InputError
from vmsim.base.ledger import Ledger
from vmsim.contracts import Steps, Vcpu, Words
from vmsim.engine.guest_device import make_queue
from vmsim.engine.guest_disk import GuestDisk
from vmsim.engine.parts import VmWithDrivers
from vmsim.engine.streams import seed_of
from vmsim.guest.page_cache import FILES, PageCache
from vmsim.guest.writeback import Writeback
from vmsim.host.swap.device import BlockDevice
from vmsim.scenario.files import FilesSpec
from vmsim.scenario.types import MAX_VMS
from vmsim.workloads import Event, Op

__all__ = ["FILE_OPERATIONS", "Files", "Start", "make_device", "operate_on_file"]

FILE_OPERATIONS = frozenset((Op.OPEN_FILE, Op.READ_FILE, Op.WRITE_FILE, Op.DROP_FILE, Op.SYNC_FILE))

Start = Callable[[Words, int], simpy.Event]


def make_device(vm: VmWithDrivers, name: str, what: str) -> BlockDevice:
    """Return a device of a VM: of a kind, and what it is for, which its times depend on."""
    scenario = vm.parts.scenario
    return BlockDevice(
        plugins.load("swap_devices", name),
        seed=seed_of(scenario.seed, MAX_VMS + 1 + crc32(f"{what} {vm.spec.name}".encode())),
        frequency=scenario.cpu.frequency,
        folder=scenario.folder,
    )


class Files:
    """The files of a VM.

    Parameters
    ----------
    vm : VirtualMachine
        Whose.
    spec : FilesSpec
        What it is told.
    start : callable
        As of `GuestDisk`.

    Attributes
    ----------
    disk : GuestDisk
        Where they are.
    cache : PageCache
        The kernel's.
    """

    def __init__(self, vm: VmWithDrivers, spec: FilesSpec, start: Start) -> None:
        self.env, self.spec = vm.parts.env, spec
        device, deliver = make_device(vm, spec.disk, "files"), partial(vm.shootdown.deliver, cause=FILES)
        self.disk = GuestDisk(
            self.env, device, ensure=vm.frames.ensure, start=start, notify=vm.monitor.io_exit, deliver=deliver
        )
        self.queue = make_queue(vm, FILES)
        self.writeback = Writeback(self.env, self.queue)
        self.cache = self.writeback.cache = PageCache(
            self.env,
            spec,
            vm.parts.scenario.cpu.cost,
            frames=vm.frames,
            backing=vm.kernel.mmu.backing,
            disk=self.disk,
            dirtied=self.writeback.wake,
        )

    @property
    def held(self) -> int:
        """Frames of the kernel that are in its page cache."""
        return len(self.cache.pages)

    def begin(self) -> None:
        """Begin: the kernel has booted."""
        self.env.process(self.writeback.run())
        if self.spec.every:
            self.env.process(self.writeback.run_periodically())

    def retire(self, vcpu: Vcpu) -> None:
        """Note that a vCPU has ended."""
        self.queue.retire(vcpu)

    def rest(self) -> Steps[None]:
        """Wait until the disk is done: the VM has ended, and its pages are about to be another's."""
        yield from self.disk.rest()

    def register(self, ledger: Ledger) -> None:
        """Say what it counts."""
        ledger.counters("page_cache", lambda: {**self.cache.counts})
        ledger.counters("disk", self.disk.counts)


def operate_on_file(vcpu: Any, cache: PageCache | None, event: Event, workload: str) -> Steps[None]:
    """Carry out an operation on a file.

    Raises
    ------
    InputError
        The VM has no disk.
    """
    if cache is None:
        raise InputError(
            f"workload {workload}: it reads or writes a file (operation {event.op.name.lower()}), and its VM has no "
            'disk. Expected vm.files.disk: "hdd", "sata" or "nvme".',
            key="vm.files.disk",
        )
    file, offset, length = event.argument, event.address, event.length
    match event.op:
        case Op.OPEN_FILE:
            cache.open(vcpu, file, length)
        case Op.READ_FILE:
            yield from cache.read(vcpu, file, offset, length)
        case Op.WRITE_FILE:
            yield from cache.write(vcpu, file, offset, length)
        case Op.DROP_FILE:
            yield from cache.drop(vcpu, file, offset, length)
        case Op.SYNC_FILE:
            yield from cache.sync(vcpu, file)
