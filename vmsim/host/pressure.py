"""How long a shortage of memory keeps vCPUs waiting, as Linux counts it (kernel/sched/psi.c, /proc/pressure/memory)."""

from __future__ import annotations

from vmsim.base.clock import Clock

__all__ = ["Pressure"]


class Pressure:
    """The pressure stall information of a VM, or of a whole host.

    Parameters
    ----------
    env : Clock
        Simulated time.
    whole : Pressure, optional
        The host's, whose vCPUs this VM's are too.
    """

    def __init__(self, env: Clock, whole: Pressure | None = None) -> None:
        self.env = env
        self.whole = whole
        self._some = self._full = 0
        self._able = self._stalled = 0  # vCPUs that run or could, and that wait for memory
        self._since = 0

    def enter(self, *, stalled: bool = False) -> None:
        """Count a vCPU in as one that can run: it begins, or goes on after a wait, for memory if it was `stalled`."""
        self._change(1, -int(stalled))

    def leave(self, *, stalled: bool = False) -> None:
        """Count a vCPU out: it ends or has nothing to do, or, `stalled`, waits for memory."""
        self._change(-1, int(stalled))

    def read(self, now: int) -> tuple[int, int]:
        """Return the cycles in which some vCPU waited for memory, and those of them in which no other could run."""
        past, self._since = now - self._since, now
        if self._stalled:
            self._some += past
            self._full += 0 if self._able else past
        return self._some, self._full

    def _change(self, able: int, stalled: int) -> None:
        self.read(self.env.cycle)
        self._able += able
        self._stalled += stalled
        if self.whole:
            self.whole._change(able, stalled)
