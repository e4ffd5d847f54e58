"""Are pages compressed before they go to a swap device, do the oldest make room, and is nothing lost, in every mode?"""

from __future__ import annotations

import pytest

from tests.simulation.small import Script, run, scenario, vm
from tests.simulation.test_swap import FRAMES, MODES, PAGES, crowd, out, steps
from vmsim.frames.records import State

FREE = State.FREE
WHOLE = {"zswap": True, "zswap_max_pool_percent": 100}
NARROW = {"zswap": True, "zswap_max_pool_percent": 5, "zswap_accept_threshold_percent": 50}


@pytest.mark.parametrize("mode", MODES)
def test_the_oldest_go_to_the_device_when_it_is_full_and_every_program_ends(mode: str) -> None:
    """5 % of the host are 23 frames, for 48 pages at 2.1; from then on pages go to the device until 11 are used."""
    script = Script(steps())
    simulation, outcome = run(crowd(mode, swap=NARROW), [script, script], every=3_000_017)
    assert outcome.ending is None
    device = outcome.vms[0].figures.named("swap_device")
    assert device["zswap_stored"] >= device["zswap_loaded"] + device["zswap_written_back"]
    assert min(device["zswap_written_back"], device["zswap_limit_hit"]) > 10
    assert device["writes"] >= device["zswap_written_back"]
    assert device["zswap_most_frames"] <= FRAMES * 5 // 100 + 1
    assert device["reads"] > 0
    assert out(outcome, "swap")["swapped_in"] > 2 * PAGES - FRAMES
    assert (simulation.host.frames["state"] == FREE).all() or mode == "paired"


def test_where_it_takes_all_hardly_anything_goes_to_the_device() -> None:
    """A page goes there where no frame is left to compress it to; all others come back without a wait."""
    script = Script(steps())
    _, outcome = run(crowd("ept", swap=WHOLE), [script, script])
    device, swap = outcome.vms[0].figures.named("swap_device"), out(outcome, "swap")
    assert device["zswap_limit_hit"] == device["zswap_written_back"] == 0
    assert device["zswap_loaded"] > 20 * device["reads"]
    assert swap["minor"] >= device["zswap_loaded"] > 2 * PAGES - FRAMES
    assert outcome.end < run(crowd("ept", swap={}), [script, script])[1].end


def test_a_page_that_comes_back_costs_its_decompression() -> None:
    """One page by hand: the swap-in takes what zram's does, not a read of the device."""
    script = Script(steps())
    latencies = []
    for swap in (WHOLE, {"device": "zram"}):
        _, outcome = run(crowd("ept", swap=swap), [script, script])
        latencies.append(min(outcome.vms[0].figures.histogram("swap_latency").means()))
    assert latencies[0] == latencies[1]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"device": "zram", "zswap": True}, "no effect on compressed memory"),
        ({"device": "nvme", "zswap_max_pool_percent": 5}, "swap.zswap = false"),
        ({"device": "nvme", "ratio": 2.0}, "no effect on a device"),
    ],
)
def test_what_has_no_effect_is_refused(keys: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        scenario(vm(), swap=keys)
    scenario(vm(), swap={"device": "nvme", "zswap": True, "ratio": 2.0})
