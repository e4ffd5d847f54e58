"""Does it matter what the host's memory held before a page comes to lie there? Kernels clear what they make tables of.

Words of data pages mean nothing here, but those of a guest's page tables do, and a new table holds zeros: so must the
frame that it comes back to when the host has taken it, whichever that is.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.drawn import base_of
from tests.simulation.small import PAGE, WRITE, Script, digest, run, scenario, spoil, touches, vm

GUESTS: dict[str, dict[str, Any]] = {mode: {"mode": mode} for mode in ("ept", "shadow", "agile", "vkernel")}
GUESTS["paired"] = {"mode": "paired", "paired": {"layout": "pointer"}}


@pytest.mark.parametrize("host", [{}, {"swap": {"device": "nvme"}}], ids=["taken", "swapped"])
@pytest.mark.parametrize("keys", GUESTS.values(), ids=GUESTS)
def test_what_frames_held_before_does_not_matter(keys: dict[str, Any], host: dict[str, Any]) -> None:
    """The host takes the guest's root before its program starts, and other tables when they map nothing any more."""
    steps = [("compute", 2_000_000), *touches(range(20), WRITE), ("unmap", 0, 20), ("compute", 2_000_000)]
    steps += [("map", 0, 20), *touches(range(20), WRITE)]
    guest, stream = vm(memory=80 * PAGE, workload={"base": base_of(keys)}, **keys), Script(steps, base=base_of(keys))
    what = scenario(guest, memory=400 * PAGE, pool={"supply": "fault"}, reclaim={"rate": 100_000, "batch": 5}, **host)
    simulation, outcome = run(what, [stream], every=100_003, look=spoil)
    assert outcome.ending is None
    assert simulation.vms[0].pages.returned > 0
    assert digest(outcome) == digest(run(what, [stream], check=None)[1])
