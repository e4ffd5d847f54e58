"""Which pages of slower memory are hot enough to be promoted, and how fast (Linux 6.12, kernel/sched/fair.c).

A page is hot that is accessed soon after a scan has marked it: its hint fault latency (numa_hint_fault_latency) is
below a threshold, which follows how many pages there are that might be promoted beside the rate limit
(numa_promotion_adjust_threshold, numa_promotion_rate_limit). While the node has plenty of room everything is promoted
(pgdat_free_space_enough).
"""

from __future__ import annotations

__all__ = ["Promotion"]

_STEPS = 16  # NUMA_MIGRATION_ADJUST_STEPS
_PLENTY = 1 << 18  # pages in a GiB


class Promotion:
    """What a node that pages are promoted to goes by (pg_data_t); times are in cycles, amounts in pages.

    Parameters
    ----------
    size, promo : int
        Pages of the node, and its promo watermark.
    hot : int
        The threshold that it begins with.
    limit : int
        Pages in a second.
    second, period : int
        Cycles of a second, and between two adjustments of the threshold.

    Attributes
    ----------
    candidates : int
        Pages that were hot (pgpromote_candidate).
    threshold : int
        0: not adjusted yet, or begun anew.
    """

    def __init__(self, size: int, promo: int, *, hot: int, limit: int, second: int, period: int) -> None:
        self.enough = promo + max(_PLENTY, size >> 4)
        self.hot = hot
        self.limit = limit
        self.second = second
        self.period = period
        self.candidates = 0
        self.threshold = 0
        self._limited = (0, 0)  # when the second of the limit began, and candidates by then
        self._adjusted = (0, 0)  # the same of the last adjustment

    def wants(self, now: int, latency: int, free: int, pages: int) -> bool:
        """Return whether pages are to be promoted that were accessed `latency` cycles after they were marked.

        `free` are pages of the node.
        """
        if free > self.enough:
            self.threshold = 0
            return True
        self._adjust(now)
        if latency >= (self.threshold or self.hot):
            return False
        self.candidates += pages
        begun, before = self._limited
        if now - begun > self.second:
            self._limited = now, self.candidates
            before = self.candidates
        return self.candidates - before < self.limit

    def _adjust(self, now: int) -> None:
        begun, before = self._adjusted
        if now - begun <= self.period:
            return
        wanted = self.limit * self.period // self.second
        found = self.candidates - before
        step, threshold = self.hot * 2 // _STEPS, self.threshold or self.hot
        if found > wanted * 11 // 10:
            threshold = max(threshold - step, step)
        elif found < wanted * 9 // 10:
            threshold = min(threshold + step, self.hot * 2)
        self._adjusted = now, self.candidates
        self.threshold = threshold
