"""Frames that a shadow monitor has at hand for shadow pages, taken from the pool of its VM."""

from __future__ import annotations

from vmsim.contracts import Pool, Steps, Vcpu, Words
from vmsim.monitor.shadow.account import Account
from vmsim.monitor.shadow.records import SPARE
from vmsim.monitor.tdp.monitor import Tdp

__all__ = ["MOST", "Stock"]

MOST = 4 * SPARE  # frames at hand above which the rest go back to the pool


class Stock(Account):
    """The frames at hand of one VM, and what it costs to take them."""

    host_tables: Tdp
    pool: Pool
    stock: Words
    _stocked: Words  # int64[1], how many there are

    def _restock(self, vcpu: Vcpu) -> Steps[None]:
        """Fill the stock of frames for shadow pages; where the pool has too few, the vCPU is suspended."""
        count = 2 * SPARE - int(self._stocked[0])
        if count <= 0:
            return
        pages = yield from self.host_tables.take(vcpu, count)
        self._put(pages)
        self._spend(vcpu, self.costs.violation_pool)

    def unstock(self, vcpu: Vcpu) -> Steps[None]:
        """Give the pool what the stock has too much of."""
        yield vcpu.settle()
        stocked = int(self._stocked[0])
        self._stocked[0] = 2 * SPARE
        self.pool.put(self.stock[2 * SPARE : stocked])

    def _put(self, frames: list[int]) -> None:
        stocked = int(self._stocked[0])
        self.stock[stocked : stocked + len(frames)] = frames
        self._stocked[0] = stocked + len(frames)
