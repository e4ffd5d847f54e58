"""The rules of oVirt's Memory Overcommitment Manager (oVirt/mom, doc/balloon.rules and doc/ksm.rules).

While less than `pressure` of the host is free, each guest shrinks, by 5 % at most, down to what it uses and a part of
its size that gets smaller with what the host has free; at `critical` that part is negative, so that the guest has to
swap. Else guests that have pages in their balloon grow, by 5 % or to what they use and 20 % of their size. What the
host and the guests have free is the mean of the last looks (`StatAvg`). A guest that has not told of its memory is left
alone.

ksmd, where there is one, works while what guests have been promised and a fifth of the host do not fit into the host,
or less than a fifth is free: 300 more pages at a time while less is, else 50 fewer. It sleeps the longer the smaller
the host is. Upstream looks every 5 s, and decides every 10 s; here both happen every `overcommit.every`.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any, Final

from vmsim.base.units import PAGE
from vmsim.contracts import SharedHost, SharingVm
from vmsim.host.daemons.parts import DaemonParts
from vmsim.host.policies.table import Mom as Rules

__all__ = ["Mom", "build", "grown", "shrunk"]

_KSM_FREE: Final = 0.20  # of the host
_KSM_BOOST, _KSM_DECAY = 300, -50  # pages of a batch
_KSM_LEAST, _KSM_MOST = 64, 1250
_KSM_SLEEP: Final = 10 * (16 << 30)  # milliseconds times bytes of the host


def shrunk(size: float, used: float, host_free: float, rules: Rules) -> float:
    """Return how large a guest is to be while the host is short (shrink_guest).

    Parameters
    ----------
    size, used : float
        Pages that the guest has without its balloon, and of them those in use.
    host_free : float
        Share of the host's memory that is free.
    rules : Mom
        The table.
    """
    spare = rules.guest_free * host_free / rules.pressure
    if host_free <= rules.critical:
        spare = host_free - rules.critical
    return max(size * (1 - rules.max_change), used + spare * size)


def grown(size: float, used: float, whole: float, rules: Rules) -> float:
    """Return how large a guest is to be that has `whole` pages in all, while the host is not short (grow_guest)."""
    return max(min(whole, size * (1 + rules.max_change)), used + rules.guest_free * size)


class Mom:
    """The rules.

    Parameters
    ----------
    rules : Mom
        The table.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._host: deque[float] = deque(maxlen=rules.samples)
        self._guests: dict[int, deque[tuple[int, int]]] = defaultdict(lambda: deque(maxlen=rules.samples))

    def turn(self, host: SharedHost, vms: Sequence[SharingVm]) -> int:
        """Look at the host and the guests, and ask for memory or give some."""
        rules = self.rules
        self._host.append(host.free / host.size)
        host_free = sum(self._host) / len(self._host)
        for vm in vms:
            if not (vm.running and vm.most and vm.statistics):
                continue
            size, history = vm.size - vm.balloon, self._guests[vm.owner]
            history.append((size, vm.statistics.free))
            used = sum(all_ - free for all_, free in history) / len(history)
            if host_free < rules.pressure:
                target = shrunk(size, used, host_free, rules)
                fits = target <= size
            else:
                target = grown(size, used, vm.size, rules)
                fits = vm.size > size and size <= target
            if fits and abs(target - size) > rules.min_change * size:
                vm.ask(vm.size - min(vm.size, round(target)))
        if (merger := host.merger) is not None:
            self._steer(merger, host, sum(vm.size for vm in vms if vm.running))
        return 0

    def _steer(self, merger: Any, host: SharedHost, promised: int) -> None:
        """Set how much ksmd does (ksm.rules)."""
        reserve = _KSM_FREE * host.size
        short = host.free < reserve
        merger.merges = short or promised + reserve > host.size
        pages = merger.scan_pages + (_KSM_BOOST if short else _KSM_DECAY)
        merger.scan_pages = max(_KSM_LEAST, min(_KSM_MOST, pages))
        merger.sleep_millisecs = max(1, _KSM_SLEEP // (host.size * PAGE))


def build(parts: DaemonParts) -> Mom:
    """Return the policy."""
    return Mom(parts.table)
