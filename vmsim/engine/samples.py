"""The memory of a host and of its VMs over time: a row of each every so often, while it changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from vmsim.base.clock import Clock
from vmsim.contracts import Words
from vmsim.engine.alignment import alignment_of
from vmsim.frames.records import State
from vmsim.guest.frames import GuestFrames
from vmsim.host.memory import HOST, HostMemory
from vmsim.host.pressure import Pressure
from vmsim.record.log import LIMIT
from vmsim.record.outcome import Sample, SampleLog
from vmsim.tables.backing import OWNED, SHARED

__all__ = ["Samples", "count_free_resident"]

_LEAST: Final = 1 << 10  # rows of each log, however many VMs there are


class Samples:
    """What is noted of a host's memory.

    Parameters
    ----------
    env : Clock
        Simulated time.
    host : HostMemory
        The host's.
    vms : sequence of VirtualMachine
        All of them; one that has not booted, or has given its memory back, has no row.
    every : int
        Cycles from one time to the next.

    Attributes
    ----------
    logs : dict of str to SampleLog
        What was noted of the host, under an empty name, and of each VM.
    """

    def __init__(self, env: Clock, host: HostMemory, vms: Sequence[Any], every: int) -> None:
        self.host = host
        self.vms = vms
        limit = max(_LEAST, LIMIT // (len(vms) + 1))
        self.logs = {name: SampleLog(limit) for name in ("", *(vm.spec.name for vm in vms))}
        self._pressure = Pressure(env)
        self._before: dict[str, tuple[int, int]] = {}
        for vm in vms:
            vm.pressure = Pressure(env, self._pressure)
        env.watch(every, self._note)

    def _note(self, now: int) -> None:
        shared = self.host.shared.by_owner()
        alive = [vm for vm in self.vms if vm.kernel.root >= 0 and not vm.gone]
        rows = {vm.spec.name: self._of(vm, now, shared[vm.spec.index]) for vm in alive}
        sums = {name: sum(getattr(row, name) for row in rows.values()) for name in Sample._fields}
        some, full = self._since_then("", self._pressure, now)
        whole = Sample(**sums)._replace(
            time=now,
            resident=sums["resident"] - sums["shared"] + len(self.host.shared),
            tables=sums["tables"] + self.host.count(HOST)["table"],
            host_free=self.host.free,
            some=some,
            full=full,
        )
        for name, row in {"": whole, **rows}.items():
            self.logs[name].append(row)

    def _of(self, vm: Any, now: int, shared: int) -> Sample:
        """Return what a VM has."""
        frames = self.host.count(vm.spec.index)
        guest, balloon = vm.slot, vm.balloon
        swapped = vm.pages.swapped if vm.pages else None
        some, full = self._since_then(vm.spec.name, vm.pressure, now)
        huge = alignment_of(vm)
        return Sample(
            now,
            frames["guest"] + shared,
            shared,
            swapped=swapped.count if swapped else 0,
            balloon=balloon.driver.size if balloon and balloon.driver else 0,
            guest_free=vm.frames.free if guest else 0,
            free_resident=count_free_resident(vm.frames, guest.backing) if guest else 0,
            tables=frames["table"],
            pool=frames["pool"],
            host_free=self.host.free,
            some=some,
            full=full,
            guest_huge=huge.guest_huge,
            host_huge=huge.host_huge,
            aligned=huge.aligned,
        )

    def _since_then(self, name: str, pressure: Pressure, now: int) -> tuple[int, int]:
        """Return how long vCPUs have waited for memory since the row before."""
        read = pressure.read(now)
        some, full = self._before.get(name, (0, 0))
        self._before[name] = read
        return read[0] - some, read[1] - full


def count_free_resident(frames: GuestFrames, backing: Words) -> int:
    """Return how many pages that a guest's kernel knows as free lie in host memory nevertheless."""
    resident = backing & (OWNED | SHARED) != 0
    free = np.count_nonzero(resident & (frames.frames["state"] == State.FREE))
    return int(free + np.count_nonzero(resident[frames.ready.held()]))
