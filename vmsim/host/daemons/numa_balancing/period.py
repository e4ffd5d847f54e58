"""How often a VM's memory is scanned (Linux 6.12, kernel/sched/fair.c, update_task_scan_period)."""

from __future__ import annotations

__all__ = ["ScanPeriod"]

_SLOTS = 10  # NUMA_PERIOD_SLOTS
_THRESHOLD = 7  # NUMA_PERIOD_THRESHOLD, of those


class ScanPeriod:
    """The time between two scans, and the faults that it follows. Linux has one of each thread, here a VM has one.

    Parameters
    ----------
    least, most : int
        Bounds of the period, in cycles.

    Attributes
    ----------
    cycles : int
        The period.
    local, remote, private, shared, failed : int
        Faults of the last round: by memory of the node that accesses or of another; by the vCPU that accessed the page
        before or by another; and pages that could not be moved.
    """

    def __init__(self, least: int, most: int) -> None:
        self.least = least
        self.most = max(least, most)
        self.cycles = least
        self._begin()

    def _begin(self) -> None:
        self.local = self.remote = self.private = self.shared = self.failed = 0

    def fault(self, *, local: bool, private: bool, moved: bool) -> None:
        """Count a fault, and whether a page that was to be moved could be."""
        self.local += local
        self.remote += not local
        self.private += private
        self.shared += not private
        self.failed += not moved

    def end_round(self) -> None:
        """Adapt the period: all memory has been scanned once more."""
        if self.local + self.shared == 0 or self.failed:
            self.cycles = min(self.most, self.cycles << 1)
            return
        slot = -(-self.cycles // _SLOTS)
        near = self.local * _SLOTS // (self.local + self.remote)
        own = self.private * _SLOTS // (self.private + self.shared)
        if own >= _THRESHOLD:
            change = (own - _THRESHOLD or 1) * slot
        elif near >= _THRESHOLD:
            change = (near - _THRESHOLD or 1) * slot
        else:
            change = -(_THRESHOLD - max(near, own)) * slot
        self.cycles = min(max(self.cycles + change, self.least), self.most)
        self._begin()
