"""The kernel's writing of dirty pages to the disk (Linux fs/fs-writeback.c, mm/page-writeback.c).

It begins when more is dirty than `dirty_background` says, and goes on until it is less; and now and then it looks for
pages that have been dirty for too long. Those that have been so for longest go first, a few hundred at a time.
"""

from __future__ import annotations

from functools import partial

from vmsim.base.clock import Clock
from vmsim.contracts import Steps
from vmsim.guest.cached_pages import CachedPage
from vmsim.guest.page_cache import PageCache
from vmsim.guest.workqueue import Workqueue

__all__ = ["Writeback"]

_AT_ONCE = 256  # pages: 1 MiB


class Writeback:
    """The work of one kernel's flusher.

    Parameters
    ----------
    env : Clock
        Simulated time.
    queue : Workqueue
        Where it is done.
    """

    cache: PageCache

    def __init__(self, env: Clock, queue: Workqueue) -> None:
        self.env = env
        self.queue = queue
        self._called = env.event()

    def wake(self) -> None:
        """Learn that much is dirty."""
        if not self._called.triggered:
            self._called.succeed()

    def run(self) -> Steps[None]:
        """Write whenever much is dirty, from now on (wb_over_bg_thresh)."""
        cache = self.cache
        while True:
            yield self._called
            self._called = self.env.event()
            yield from self._write(cache.oldest(_AT_ONCE))
            while cache.over_background and (pages := cache.oldest(_AT_ONCE)):
                yield from self._write(pages)

    def run_periodically(self) -> Steps[None]:
        """Write what has been dirty for long, now and then (wb_check_old_data_flush)."""
        cache, spec = self.cache, self.cache.spec
        while self.queue.alive:
            yield self.env.background(spec.every)
            before = self.env.cycle - spec.expire
            while pages := cache.oldest(_AT_ONCE, before=before):
                yield from self._write(pages)

    def _write(self, pages: list[CachedPage]) -> Steps[None]:
        if pages:
            yield from self.queue.run(partial(self.cache.write_out, pages=pages), interrupt=False)
