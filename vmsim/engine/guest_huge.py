"""What a guest's kernel has for its huge pages beside faults, put together: khugepaged and compaction."""

from __future__ import annotations

from functools import partial

from vmsim.base.ledger import Ledger
from vmsim.contracts import Steps, Vcpu
from vmsim.engine.files import Files
from vmsim.engine.guest_device import make_queue, pins_of
from vmsim.engine.guest_reclaim import program_pages
from vmsim.engine.parts import VmWithDrivers
from vmsim.guest.compaction import COMPACTION, GuestCompaction
from vmsim.guest.khugepaged import KHUGEPAGED, GuestKhugepaged
from vmsim.guest.reclaim import watermarks
from vmsim.host.daemons.thp.kcompactd import Kcompactd
from vmsim.scenario.thp import Khugepaged, ThpSpec

__all__ = ["GuestHuge"]


class GuestHuge:
    """What the kernel of a VM has, or the host's for a program on the host itself.

    Parameters
    ----------
    vm : VirtualMachine
        Whose.
    spec : ThpSpec
        What it is told.
    files : Files or None
        Its files.

    Attributes
    ----------
    khugepaged : GuestKhugepaged or None
        None: it does not run.
    compaction : GuestCompaction or HostCompaction
        Who makes blocks.
    """

    def __init__(self, vm: VmWithDrivers, spec: ThpSpec, files: Files | None) -> None:
        self.env = vm.parts.env
        self.told = spec.khugepaged
        self.queue = make_queue(vm, KHUGEPAGED)
        kernel, costs, pinned = vm.kernel, vm.parts.scenario.cpu.cost, pins_of(vm)
        if vm.spec.bare:
            self.compaction: GuestCompaction | HostCompaction = HostCompaction(
                Kcompactd(self.env, vm.parts.compaction, costs)
            )
        else:
            self.compaction = GuestCompaction(
                program_pages(vm),
                vm.frames,
                kernel.tables,
                costs,
                cache=files.cache if files else None,
                pinned=pinned,
                env=self.env,
                queue=self.queue,
                low=watermarks(len(vm.frames.frames)).low if vm.spec.reclaim else 0,
            )
        kernel.compaction = self.compaction
        self.khugepaged = None
        if spec.khugepaged:
            self.khugepaged = GuestKhugepaged(spec.khugepaged, costs, kernel=kernel, pinned=pinned)

    @property
    def held(self) -> int:
        """Frames of the kernel that are about to become a huge page, or to have another page."""
        return (self.khugepaged.held if self.khugepaged else 0) + int(self.compaction.held)

    def begin(self) -> None:
        """Begin: the kernel has booted."""
        self.env.process(self.compaction.run())
        if self.told and self.khugepaged:
            self.env.process(self._run(self.told, self.khugepaged))

    def retire(self, vcpu: Vcpu) -> None:
        """Note that a vCPU has ended."""
        self.queue.retire(vcpu)

    def rest(self) -> Steps[None]:
        """Wait for nothing."""
        return
        yield

    def register(self, ledger: Ledger) -> None:
        """Say what it counts."""
        ledger.counters("guest_compaction", self.compaction.figures)
        if self.khugepaged:
            ledger.counters("guest_khugepaged", partial(getattr, self.khugepaged, "counts"))

    def _run(self, told: Khugepaged, khugepaged: GuestKhugepaged) -> Steps[None]:
        """Look at ranges from now on, as long as there is a CPU for it.

        It sleeps no shorter than it has worked, for it is not alone on its CPU: in Linux the scheduler shares that out,
        and khugepaged has the least of it (mm/khugepaged.c, set_user_nice to MAX_NICE).
        """
        worked = 0

        def batch(vcpu: Vcpu) -> Steps[bool]:
            nonlocal worked
            begun = vcpu.now
            failed = yield from khugepaged.batch(vcpu)
            worked = vcpu.now - begun
            return failed

        while self.queue.alive:
            yield self.env.background(max(told.sleep, worked))
            if (yield from self.queue.run(batch, interrupt=False)):
                yield self.env.background(told.alloc_sleep)


class HostCompaction:
    """The host's compaction as the kernel of a program on the host itself uses it.

    Parameters
    ----------
    host : Kcompactd
        The host's, with a kcompactd on a core of its own.
    """

    held = 0

    def __init__(self, host: Kcompactd) -> None:
        self.host = host
        self.run = host.run

    def figures(self) -> dict[str, int]:
        """Return what the host's scanners have counted, for whomever."""
        return {**self.host.counts}

    def compact(self, vcpu: Vcpu, order: int) -> Steps[bool]:
        """Move pages until a block of 2**order frames is free; return whether one is."""
        if vcpu.owed:
            yield vcpu.settle()
        made, cycles = self.host.stall(order)
        vcpu.owe(COMPACTION, cycles)
        return made

    def wake(self, order: int) -> None:
        """Have that done by kcompactd."""
        self.host.wake(order)
