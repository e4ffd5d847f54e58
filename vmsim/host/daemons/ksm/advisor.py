"""How many pages ksmd looks at before it sleeps, so that a full scan takes a given time (mm/ksm.c, scan_time_advisor).

All in whole numbers, as in the kernel: seconds, per cent, pages.
"""

from __future__ import annotations

__all__ = ["ScanTimeAdvisor"]

_EWMA_WEIGHT = 30
_MIN_CPU = 10  # per cent (KSM_ADVISOR_MIN_CPU)


class ScanTimeAdvisor:
    """The advisor of mode scan-time.

    Parameters
    ----------
    max_cpu : int
        Per cent of a CPU.
    target : int
        Seconds of a full scan.
    min_pages, max_pages : int
        Pages to begin with, and at most.
    """

    def __init__(self, *, max_cpu: int, target: int, min_pages: int, max_pages: int) -> None:
        self.max_cpu = max_cpu
        self.target = target
        self.max_pages = max_pages
        self.pages = min_pages
        self._change = self._last = 0

    def scanned(self, seconds: int, cpu_milliseconds: int) -> None:
        """Learn how long a full scan has taken, and how much of a CPU; set the pages of the next."""
        seconds = seconds or 1
        percent = cpu_milliseconds * 100 // (seconds * 1000) or 1
        factor = self.target * 100 // seconds or 1
        change = seconds * 100 // (self._last or seconds) or 1
        change = ((100 - _EWMA_WEIGHT) * self._change + _EWMA_WEIGHT * change) // 100
        pages = self.pages * 100 // factor * change // 100
        each = self.pages // percent or 1  # pages for one per cent
        pages = max(min(pages, each * self.max_cpu), each * _MIN_CPU)
        self._change, self._last = change, seconds
        self.pages = min(pages, self.max_pages)
