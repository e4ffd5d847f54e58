"""Min-funding revocation as the paper tells it: page after page from who has the fewest shares for one."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["revoke"]


def revoke(vms: Sequence[tuple[int, float, int, int]], pages: int, tax: float) -> list[int]:
    """Take pages one by one until all VMs together have so many.

    Parameters
    ----------
    vms : sequence of (shares, active, least, most)
        Pages in use are the last that a VM gives.
    """
    idle = 1 / (1 - tax / 100)
    has = [most for _, _, _, most in vms]
    while sum(has) > pages:
        ratios = []
        for number, (shares, active, least, _) in enumerate(vms):
            if has[number] <= least:
                continue
            used = min(active, has[number]) / has[number]
            ratios.append((shares / (has[number] * (used + idle * (1 - used))), number))
        if not ratios:
            break
        has[min(ratios)[1]] -= 1
    return has
