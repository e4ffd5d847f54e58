"""The host's killer: which VM ends where nothing more can be taken, and how (Linux mm/oom_kill.c)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import simpy

from vmsim.contracts import LiveVm, Steps, Stop, VmStopped
from vmsim.host.memory import HostMemory

__all__ = ["PAUSE", "RETRIES", "OomKiller", "badness"]

RETRIES: Final = 16  # reclaims in vain before a VM is ended (MAX_RECLAIM_RETRIES)
PAUSE: Final = 1000  # of a second: how long who has reclaimed in vain waits (VMSCAN_THROTTLE_NOPROGRESS: a jiffy)


def badness(vm: LiveVm) -> tuple[int, int]:
    """Return the pages that a VM has in memory, its tables and its pool among them, and on the swap device.

    Linux adds up the same of a process (mm/oom_kill.c, oom_badness: pages, swap entries, page tables).
    """
    return sum(vm.pages.host.count(vm.pages.owner).values()), int(vm.pages.away_count)


class OomKiller:
    """Ends VMs of a host that has run out of memory.

    Parameters
    ----------
    host : HostMemory
        Whose memory.
    vms : sequence of LiveVm
        Those that it may end.
    policy : str
        Which: "largest", by `badness`; "newest", who started last; "asker", on whose behalf memory is asked for
        (vm.oom_kill_allocating_task); "none".
    frequency : int
        Cycles in a second.

    Attributes
    ----------
    killed : int
        VMs that were ended.
    """

    def __init__(self, host: HostMemory, vms: Sequence[LiveVm], policy: str, frequency: int) -> None:
        self.host = host
        self.vms = [vm for vm in vms if vm.pages]
        self.policy = policy
        self.pause = max(1, frequency // PAUSE)
        self.killed = 0
        self._watch: simpy.Process | None = None

    def starving(self) -> None:
        """Learn that somebody waits for memory on a host that has no swap device."""
        if self._watch is None and self.policy != "none":
            self._watch = self.host.env.process(self._look_on())

    def victim(self) -> LiveVm | None:
        """Return the VM that is to end; None: there is none, or none is to."""
        left = [vm for vm in self.vms if vm.pages.owner not in self.host.dying]
        ending = [vm for vm in left if not (vm.alive or vm.gone) and self.host.waits(vm.pages.owner)]
        if ending:  # on its way already (oom_kill.c, task_will_free_mem)
            return ending[0]
        alive = [vm for vm in left if vm.alive and _size(vm)]
        if not alive or self.policy == "none":
            return None
        if self.policy == "asker":
            asker = self.host.first_request.asker
            return next((vm for vm in alive if vm.pages.owner == asker), alive[0])
        rank: Callable[[LiveVm], int] = _started if self.policy == "newest" else _size
        return max(alive, key=rank)

    def kill(self, vm: LiveVm) -> Steps[None]:
        """End a VM, which may use the reserve for it, and wait until it has given everything back.

        If it waits for memory that not even the reserve has, its waits are broken off, as by a fatal signal.
        """
        owner, (here, away) = vm.pages.owner, badness(vm)
        had = f"{here:,} pages in memory" + (f" and {away:,} on the swap device" if away else "")
        why = f'it had {had} (host.oom = "{self.policy}")'
        if vm.alive:
            self.killed += 1
            vm.kill(Stop.KILLED, who=why)
        self.host.let_die(owner)
        stuck = 0
        while not vm.gone and stuck < RETRIES:
            yield self.host.env.after(self.pause)
            stuck += self.host.waits(owner)
        if not vm.gone:
            error = VmStopped(Stop.KILLED, who=why)
            if vm.pool:
                vm.pool.break_off(error)
            self.host.break_off(owner, error)

    def _look_on(self) -> Steps[None]:
        """End a VM where nothing has come free for sixteen pauses and somebody still waits, and so on."""
        host, vain = self.host, 0
        while host.starving:
            before = host.freed
            yield host.env.after(self.pause)
            vain = vain + 1 if host.freed == before else 0
            if vain >= RETRIES and host.starving:
                if (victim := self.victim()) is None:
                    break
                yield from self.kill(victim)
                vain = 0
        self._watch = None


def _size(vm: LiveVm) -> int:
    return sum(badness(vm))


def _started(vm: LiveVm) -> int:
    return int(vm.spec.start)
