"""Does a shadow forget, in the processor's TLB too, what a guest has given more rights without invalidating it?"""

from __future__ import annotations

import pytest

from tests.simulation.small import READ, WRITE, Script, run, scenario, touches, vm

KERNELS = [{"preset": "plex86"}, {"preset": "plex86", "fill": "eager"}, {"trap": "emulate"}]
CHILD = 2
PAGE, OTHER = 5, 9


@pytest.mark.parametrize("shadow", KERNELS)
def test_a_page_that_becomes_writable_without_a_fault_is_not_kept_without_its_entry(shadow: dict[str, object]) -> None:
    """It was shared with a child that has ended, and a device is to write to it: the kernel gives the right back.

    No processor faults, so nobody invalidates the page; its store has the monitor clear the shadow's entry. An INVLPG
    of another page must not pass for one of this, and what a TLB keeps without an entry the host would never flush.
    """
    steps = [
        *touches(range(12), WRITE),
        ("fork", CHILD),
        ("switch", CHILD),
        *touches([OTHER], READ),
        ("exit", CHILD),
        ("by", 1),
        *touches([PAGE, OTHER], READ),
        ("io", PAGE, 1, 2000),
        ("unmap", OTHER, 1),
        *touches([PAGE + 1], READ),
        ("compute", 200_000),
        *touches([PAGE, PAGE + 1], READ),
    ]
    what = scenario(vm("vm", mode="shadow", shadow=shadow), cores=1, quantum="3us")
    _, outcome = run(what, [Script(steps)], every=997)
    assert outcome.vms[0].finished
