"""A VM's allocator put together as its host shares it: the guest's side, the host's, and the request between them."""

from __future__ import annotations

from vmsim.base.ledger import Ledger
from vmsim.contracts import Steps, Vcpu
from vmsim.engine.guest_device import guest_of
from vmsim.engine.parts import VmWithDrivers
from vmsim.frames.records import PAGEBLOCK
from vmsim.guest.bilateral import SharedFrames
from vmsim.host.bilateral import Bilateral
from vmsim.scenario.bilateral import BilateralSpec
from vmsim.tables.backing import BALLOONED, OWNED, SHARED

__all__ = ["SharedMemory"]

_EXIT = "INSTALL"  # the reason of the exits by which the kernel asks for memory


class SharedMemory:
    """Memory that the host takes from a kernel's allocator.

    Parameters
    ----------
    vm : VirtualMachine
        Whose memory it is.
    spec : BilateralSpec
        What the host is told.

    Attributes
    ----------
    shared : SharedFrames
        The allocator.
    device : Bilateral
        The host's thread.
    """

    def __init__(self, vm: VmWithDrivers, spec: BilateralSpec) -> None:
        self.vm = vm
        self.env = vm.parts.env
        self.costs = vm.parts.scenario.cpu.cost
        frames, self.slot = guest_of(vm)
        self.shared = frames.shared = SharedFrames(frames, self._install, lambda on: vm.kernel.take_none(on=on))
        self.device = Bilateral(
            self.env,
            spec,
            self.costs,
            memory=self.slot,
            forget=vm.forget,
            horizon=vm.parts.scenario.horizon,
            log=lambda what, pages: vm.parts.log(what, vm.spec.name, pages, level=self.device.actual),
            shared=self.shared,
        )
        self._running = len(vm.vcpus)

    def begin(self) -> None:
        """Begin: the guest has booted."""
        self.env.process(self.device.ask())
        self.env.process(self.device.run())

    def retire(self, vcpu: Vcpu) -> None:
        """Note that a vCPU has ended; with the last one the VM has."""
        self._running -= 1
        if not self._running:
            self.device.stop()

    def rest(self) -> Steps[None]:
        """Wait for nothing: what is under way stays so."""
        return
        yield

    def _install(self, vcpu: Vcpu, number: int) -> Steps[None]:
        """Have the host give a huge frame its memory, in an exit to the process that runs the VM.

        Others that allocate in it meanwhile ask as well, and each backs what still lacks a page.
        """
        vm, costs, backing = self.vm, self.costs, self.slot.backing
        vm.shootdown.notify(vcpu, reason=_EXIT)
        vm.shootdown.spend(vcpu, _EXIT, costs.bilateral_install)
        yield vcpu.settle()
        for gfn in range(number << PAGEBLOCK, number + 1 << PAGEBLOCK):
            if not backing[gfn] & (OWNED | SHARED | BALLOONED):
                cycles = yield from vm.monitor.back_one(vcpu, gfn)
                vm.shootdown.spend(vcpu, _EXIT, cycles, paid=True)
                if vcpu.left <= 0:
                    yield vcpu.settle()
        if self.shared.evicted[number]:
            self.device.installed(number)

    @property
    def held(self) -> int:
        """Frames of the guest that the host has allocated."""
        return self.shared.held

    @property
    def frames(self) -> dict[str, int]:
        """Frames by kind: what the host has allocated and was to, and what is free and without memory."""
        device = self.device
        soft = int((self.shared.evicted & ~device.hard).sum()) << PAGEBLOCK
        return {"hard": device.actual, "hard_target": device.target, "soft": soft}

    def register(self, ledger: Ledger) -> None:
        """Say what it counts."""
        ledger.counters("bilateral", lambda: self.device.counts)
