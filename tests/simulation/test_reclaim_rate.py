"""Does a host that is to take pages faster than it can still let its VMs go on?"""

from __future__ import annotations

import pytest

from tests.simulation.small import WRITE, Script, run, scenario, touches, vm


@pytest.mark.parametrize("mode", ["native", "ept"])
@pytest.mark.parametrize("batch", [1, 1 << 20])
def test_the_reclaimer_takes_no_more_pages_than_one_thread_can(mode: str, batch: int) -> None:
    """Each takes it `host_zap` cycles; a batch ends where no VM has a page left."""
    reclaim = {"rate": 1_000_000_000, "batch": batch}
    what = scenario(vm(mode=mode, memory="4MiB"), memory="16MiB", reclaim=reclaim)
    rest = ("compute", 5_000_000 if batch > 1 else 10_000)  # longer than the period of batches
    _, outcome = run(what, [Script([*touches(range(40), WRITE), rest, *touches(range(40), WRITE)])])
    (only,) = outcome.vms
    assert only.finished
    taken = only.figures.named("guest_memory")["taken"]
    assert 0 < taken <= outcome.end // what.cpu.cost.host_zap + 1
