"""A VM's balloon put together: its host's device, its kernel's driver, and where the driver's work is done."""

from __future__ import annotations

from functools import partial

from vmsim.base.ledger import Ledger
from vmsim.contracts import Steps
from vmsim.engine.guest_device import GuestDevice, guest_of
from vmsim.engine.parts import VmWithDrivers
from vmsim.engine.samples import count_free_resident
from vmsim.guest.balloon import BALLOON, BalloonDriver
from vmsim.guest.hinting import FreePageHinting
from vmsim.guest.reporting import FreePageReporting
from vmsim.host.balloon import Balloon
from vmsim.scenario.balloon import BalloonSpec

__all__ = ["Ballooned"]

_EXIT = "BALLOON"  # the reason of the exits by which the driver tells of its messages


class Ballooned(GuestDevice):
    """The balloon of a VM.

    Parameters
    ----------
    vm : VirtualMachine
        Whose memory it is.
    spec : BalloonSpec
        What it is told.

    Attributes
    ----------
    device : Balloon
        The host's side.
    driver : BalloonDriver or None
        The guest's; None: it has none.
    reporting : FreePageReporting or None
        The guest's reporting of free pages.
    hinting : FreePageHinting or None
        The guest's hints of free pages, while its dirty log is read.
    """

    def __init__(self, vm: VmWithDrivers, spec: BalloonSpec) -> None:
        super().__init__(vm, BALLOON)
        self.vm = vm
        self.guest_frames, self.slot = guest_of(vm)
        self.spec, costs = spec, vm.parts.scenario.cpu.cost
        self.device: Balloon = Balloon(
            self.env,
            spec,
            costs,
            memory=self.slot,
            forget=vm.forget,
            horizon=vm.parts.scenario.horizon,
            log=lambda what, pages: vm.parts.log(what, vm.spec.name, pages, level=self.device.actual),
        )
        parts = {"frames": self.guest_frames, "device": self.device, "queue": self.queue}
        notify = partial(vm.shootdown.notify, reason=_EXIT)
        self.driver = BalloonDriver(self.env, spec, costs, **parts, notify=notify) if spec.driver else None
        self.hinting = FreePageHinting(self.env, spec, costs, **parts, notify=notify) if spec.hinting else None
        self.reporting = None
        if spec.reporting:
            self.reporting = FreePageReporting(self.env, spec.reporting, costs, **parts, notify=notify)

    def begin(self) -> None:
        """Begin: the guest has booted."""
        processes = [self.device.run()]
        if self.driver:
            processes.append(self.driver.run())
            if self.spec.statistics:
                processes.append(self._ask(self.driver))
        if self.hinting:
            processes.append(self.hinting.run())
        if self.reporting:
            processes.append(self.reporting.run())
        for each in processes:
            self.env.process(each)

    @property
    def held(self) -> int:
        """Frames of the guest that are in its balloon, or on the way there or back, being reported, or hinted at."""
        return sum(each.held for each in (self.driver, self.reporting, self.hinting) if each)

    @property
    def frames(self) -> dict[str, int]:
        """Frames by kind: what is in the balloon, what was to be, and those of the host behind free pages."""
        return {
            "balloon": self.driver.size if self.driver else 0,
            "balloon_target": self.device.target,
            "free_backed": count_free_resident(self.guest_frames, self.slot.backing),
        }

    def register(self, ledger: Ledger) -> None:
        """Say what it counts."""
        ledger.counters("balloon", lambda: self.device.counts)
        for name, part in (("balloon_driver", self.driver), ("reporting", self.reporting), ("hinting", self.hinting)):
            if part:
                ledger.counters(name, partial(getattr, part, "counts"))

    def _ask(self, driver: BalloonDriver) -> Steps[None]:
        """Ask for statistics again and again."""
        while True:
            yield self.env.background(self.spec.statistics)
            self.device.counts["asked"] += 1
            yield from driver.answer(self.vm.kernel.faults)
