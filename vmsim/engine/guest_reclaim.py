"""A guest's reclaim put together: its kernel's lists, kswapd, and the swap device if it has one."""

from __future__ import annotations

from functools import partial

from vmsim.base.ledger import Ledger
from vmsim.contracts import Steps, Vcpu
from vmsim.engine.files import Files, Start, make_device
from vmsim.engine.guest_device import guest_of, make_queue
from vmsim.engine.guest_swap import GuestSwap, GuestSwapped
from vmsim.engine.parts import VmWithDrivers
from vmsim.guest.file_pages import FilePages
from vmsim.guest.program_pages import ProgramPages
from vmsim.guest.reclaim import RECLAIM, Reclaim, watermarks
from vmsim.host.policies.two_list import Age, TwoList
from vmsim.scenario.guest_reclaim import GuestReclaimSpec

__all__ = ["GuestReclaim", "program_pages"]

_INACTIVE, _ACTIVE = 0, 1


def program_pages(vm: VmWithDrivers) -> ProgramPages:
    """Return the pages of the programs of a VM (`VirtualMachine`)."""
    kernel = vm.kernel
    return ProgramPages(
        kernel.memory,
        kernel.mmu,
        vm.frames,
        kernel.cpus,
        levels=vm.spec.guest_levels,
        width=kernel.tables.width,
        spaces=lambda: [*dict.fromkeys(each.space for each in kernel.processes.values())],
    )


class GuestReclaim:
    """The reclaim of a VM's kernel.

    Parameters
    ----------
    vm : VirtualMachine
        Whose.
    spec : GuestReclaimSpec
        What it is told.
    files : Files or None
        Its files.
    start : callable
        As of `GuestDisk`.

    Attributes
    ----------
    reclaim : Reclaim
        The kernel's.
    swapped : GuestSwapped or None
        Its swap device; None: it has none.
    """

    def __init__(self, vm: VmWithDrivers, spec: GuestReclaimSpec, files: Files | None, start: Start) -> None:
        self.env, costs = vm.parts.env, vm.parts.scenario.cpu.cost
        kernel, (self.frames, slot) = vm.kernel, guest_of(vm)
        self.kernel = kernel
        deliver = partial(vm.shootdown.deliver, cause=RECLAIM)
        self.queue = make_queue(vm, RECLAIM)
        age = Age()
        anon, file = TwoList(age), TwoList(age)
        programs = program_pages(vm)
        self.swapped = None
        if spec.swap:
            swap = GuestSwap(
                self.env,
                self.frames,
                watermarks(len(self.frames.frames)),
                spec.slots,
                make_device(vm, spec.swap, "swap"),
                spec.page_cluster,
                costs,
                backing=kernel.mmu.backing,
                start=start,
                notify=vm.monitor.io_exit,
                deliver=deliver,
            )
            swap.lists = anon
            self.swapped = programs.swap = GuestSwapped(swap, programs, kernel, slot.identity)
            kernel.swap_to(self.swapped)
        anon.more = lambda: file.size(_ACTIVE) + file.size(_INACTIVE)
        file.more = lambda: anon.size(_ACTIVE) + anon.size(_INACTIVE) if self.swapped else 0
        pages = None
        if files:
            pages = FilePages(files.cache, vm.frames, file, files.writeback.wake)
            files.cache.observer = pages
        anon.attach([programs])
        file.attach([pages or programs])
        self.anon, self.file = anon, file
        self.reclaim = Reclaim(
            self.env,
            costs,
            frames=self.frames,
            swappiness=spec.swappiness,
            queue=self.queue,
            anon=anon,
            file=file,
            programs=programs,
            files=pages,
            swap=self.swapped,
        )
        if self.swapped:
            self.swapped.refaulted = self.reclaim.refaulted

    @property
    def held(self) -> int:
        """Frames of the kernel in its swap cache."""
        return self.swapped.held if self.swapped else 0

    def begin(self) -> None:
        """Begin: the kernel has booted."""
        marks = self.reclaim.marks
        self.frames.reclaim, self.frames.floor = self.reclaim, marks.min
        self.kernel.keep_free(marks.low)
        self.env.process(self.reclaim.run())

    def retire(self, vcpu: Vcpu) -> None:
        """Note that a vCPU has ended."""
        self.queue.retire(vcpu)

    def rest(self) -> Steps[None]:
        """Wait until the device is done: the VM has ended, and its pages are about to be another's."""
        if self.swapped:
            yield from self.swapped.swap.rest()

    def register(self, ledger: Ledger) -> None:
        """Say what it counts."""
        ledger.counters("guest_reclaim", lambda: {**self.reclaim.counts})
        ledger.counters("program_lists", lambda: self.anon.counts)
        ledger.counters("file_lists", lambda: self.file.counts)
        if self.swapped:
            self.swapped.register(ledger)
