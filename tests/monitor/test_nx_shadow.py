"""Is code run from small pages only where bit 63 of an entry keeps large ones from execution: shadow, agile, npt?"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.monitor.test_nx_split import FETCH, STEPS
from tests.oracle.bits import ADDRESS, NX, PS, P
from tests.simulation.small import BASE, WRITE, Script, Threads, run, scenario, time_adds_up, touches, vm
from vmsim.contracts import Moment
from vmsim.engine.check.host import BrokenInvariant, check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.record.outcome import VmOutcome
from vmsim.scenario import Scenario

PAUSE, TICK = ("compute", 20_000_000), ("compute", 900_000)
DATA, CODE = [*touches(range(20), WRITE), TICK], [*touches(range(20), FETCH), TICK]


def hardened(mode: str, **keys: Any) -> Scenario:
    """Return a VM of 16 MiB whose large pages, which guest and host have, are not executable."""
    given = {"memory": "16MiB", "host_page": "2M", "guest_page": "2M", "nx_split": True, "mode": mode, **keys}
    return scenario(vm(**given), memory="40MiB", what_if=True)


def walked(simulation: Simulation, gva: int) -> list[int]:
    """Return the entries of a shadow on the way to a gva, as words of 64 bits, read as the processor does."""
    memory, table = simulation.hardware.memory, int(simulation.vms[0].registers["cr3"][0])
    found = []
    for level in range(4, 0, -1):
        entry = int(memory[(table & ADDRESS) // 8 + (gva >> 3 + 9 * level) % 512]) % 2**64
        found.append(entry)
        if not entry & P or entry & PS:
            break
        table = entry
    return found


def watch(what: Scenario, steps: list[Any], every: int = 400_009) -> tuple[VmOutcome, list[list[int]]]:
    """Run a script; return what the VM did, and the way to its first page in the shadow, as it changed."""
    ways: list[list[int]] = []

    def look(simulation: Simulation) -> None:
        machine = simulation.vms[0]
        if what.vms[0].mode == "shadow" and not machine.gone and machine.kernel.root >= 0:
            way = walked(simulation, BASE)
            if not ways or way != ways[-1]:
                ways.append(way)

    vcpus = what.vms[0].vcpus
    stream = Threads([Script(steps)] * vcpus) if vcpus > 1 else Script(steps)
    _, outcome = run(what, [stream], look=look, every=every)
    assert outcome.ending is None
    assert vcpus > 1 or time_adds_up(outcome)
    return outcome.vms[0], ways


def counts(outcome: VmOutcome) -> Counter[str]:
    return Counter({reason: count for reason, (count, _) in outcome.exits.items()})


@pytest.mark.parametrize("preset", ["kvm", "plex86"])
def test_a_fetch_from_a_large_page_of_a_shadow_splits_it_and_maps_one_small_page(preset: str) -> None:
    """As KVM does without TDP (mmu.c, paging_tmpl.h `fetch`): other pages come as they are touched, small ones too."""
    seen, ways = watch(hardened("shadow", shadow={"preset": preset}), [*DATA, *CODE, *DATA, *touches([300]), TICK])
    whole = next(way for way in ways if len(way) == 3 and way[-1] & PS)
    assert whole[-1] & NX
    last = ways[-1]
    assert len(last) == 4
    assert not any(entry & NX for entry in last)
    assert last[-1] & ADDRESS == whole[-1] & ADDRESS  # the host's page behind it stays whole
    exits = counts(seen)
    assert exits["NX_SPLIT"] == 1
    if preset == "kvm":
        assert exits["SHADOW_FILL"] == 1 + 19 + 1  # the large page, 19 others to be fetched from, and page 300


def test_what_a_split_under_shadow_costs() -> None:
    """The exit at a page fault, a walk of three entries, a shadow page, an entry that maps, the host's page found."""
    what = hardened("shadow")
    seen, _ = watch(what, [*DATA, *CODE])
    cost = what.cpu.cost
    made = cost.table_page + cost.violation_entry + cost.violation_rmap
    each = cost.page_fault_exit + cost.vm_entry + cost.violation_resume + 3 * cost.guest_walk_level + made
    assert seen.exits["NX_SPLIT"] == (1, each)


def test_data_stay_in_large_pages_of_a_shadow() -> None:
    seen, ways = watch(hardened("shadow"), [*DATA, *touches(range(500)), TICK])
    assert "NX_SPLIT" not in seen.exits or seen.exits["NX_SPLIT"][0] == 0
    assert ways[-1][-1] & PS
    assert ways[-1][-1] & NX


@pytest.mark.parametrize("mode", ["shadow", "agile"])
def test_what_was_split_is_large_again_after_a_recovery_until_code_is_fetched(mode: str) -> None:
    what = hardened(mode, nx_recovery_period="1ms", nx_recovery_ratio=1)
    once, ways = watch(what, [*DATA, *CODE, PAUSE, *DATA])
    exits = counts(once)
    assert (exits["NX_SPLIT"], exits["NX_RECOVERY"]) == (1, 1)
    if mode == "shadow":
        assert ways[-1][-1] & PS
        assert ways[-1][-1] & NX
    twice, _ = watch(what, [*DATA, *CODE, PAUSE, *DATA, *CODE])
    assert counts(twice)["NX_SPLIT"] == 2
    never, ways = watch(hardened(mode, nx_recovery_period="1ms", nx_recovery_ratio=0), [*DATA, *CODE, PAUSE, *DATA])
    assert counts(never)["NX_RECOVERY"] == 0
    if mode == "shadow":
        assert len(ways[-1]) == 4


def test_a_dirty_log_of_a_shadow_and_the_split_of_code_go_together() -> None:
    """While a log is kept pages are small, and executable; then they come large, and code splits them once more.

    What is split meanwhile is not recovered (kvm_recover_nx_huge_pages: kvm_slot_dirty_track_enabled).
    """
    log = {"method": "write-protect", "every": "1ms", "stop": "15ms"}
    what = hardened("shadow", dirty_log=log, nx_recovery_period="1ms", nx_recovery_ratio=1)
    seen, ways = watch(what, [*DATA, *CODE, PAUSE, PAUSE, *DATA, *CODE])
    assert next(len(way) for way in ways if way[-1] & P) == 4  # small from the start
    assert any(way[-1] & PS and way[-1] & NX for way in ways)  # and large when the log has ended
    assert counts(seen)["NX_SPLIT"] == 1


def test_agile_splits_nested_pages_past_a_switch() -> None:
    """The table that maps the program's pages is walked nested: a fetch there is a violation of the nested tables."""
    split: list[int] = []

    def look(moment: Moment, simulation: Simulation, whose: Any) -> None:
        check_invariants(moment, simulation, whose)
        split.append(len(simulation.vms[0].monitor.host_pages.features[0].tables))  # type: ignore[attr-defined]

    what = hardened("agile", guest_page="4K", agile={"threshold": 1, "interval": "1s"})
    many = [*touches(range(60), WRITE), *touches(range(60), FETCH)]
    _, outcome = run(what, [Script(many)], check=look)
    assert outcome.ending is None
    assert counts(outcome.vms[0])["NX_SPLIT"] >= 1
    assert max(split) >= 1


def test_npt_splits_as_ept_does() -> None:
    """KVM splits there where it is forced to (`nx_huge_pages=force`); the numbers are those of the formats alike."""
    steps = [*touches(range(300), WRITE), *touches(range(300), FETCH), PAUSE, *touches(range(5))]
    keys = {"nx_recovery_period": "5ms", "nx_recovery_ratio": 1, "guest_page": "4K"}
    npt, ept = (counts(watch(hardened(mode, **keys), steps)[0]) for mode in ("npt", "ept"))
    assert npt["NX_SPLIT"] == ept["NX_SPLIT"] >= 1
    assert npt["NX_RECOVERY"] == ept["NX_RECOVERY"] == 1


LOG = {"method": "write-protect", "every": "25us", "stop": "90us"}
QUICK: dict[str, Any] = {"nx_recovery_period": "30us", "nx_recovery_ratio": 1}


@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
@pytest.mark.parametrize(
    "keys",
    [
        {"mode": "npt", "guest_page": "4K", "dirty_log": LOG},
        {"mode": "shadow", "vcpus": 2},
        {"mode": "shadow", "dirty_log": LOG},
        {"mode": "shadow", "shadow": {"preset": "plex86", "fill": "eager"}},
        {"mode": "agile", "agile": {"threshold": 1, "interval": "40us"}, "vcpus": 2},
        {"mode": "agile", "agile": {"threshold": 1, "interval": "40us"}, "guest_page": "4K", "dirty_log": LOG},
    ],
    ids=lambda keys: "-".join(map(str, keys)),
)
def test_every_invariant_holds_whatever_is_run(keys: dict[str, Any], steps: list[Any]) -> None:
    watch(hardened(**keys, **QUICK), [("touch", 0, WRITE), *steps], every=300_007)


def test_a_large_page_that_could_be_executed_is_found() -> None:
    def look(moment: Moment, simulation: Simulation, whose: Any) -> None:
        check_invariants(moment, simulation, whose)
        machine = simulation.vms[0]
        if moment is Moment.SLICE_ENDED and not machine.monitor.stale(0):
            pages = machine.monitor.pages  # type: ignore[attr-defined]
            memory = simulation.hardware.memory
            for table in pages["hpa"][pages["level"] == 2].tolist():
                for index in np.flatnonzero(memory[table // 8 : table // 8 + 512] < 0).tolist():
                    memory[table // 8 + index] &= ~(-1 << 63)
                    with pytest.raises(BrokenInvariant, match="executable"):
                        check_invariants(moment, simulation, whose)
                    raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        run(hardened("shadow"), [Script([*DATA, PAUSE, *DATA])], check=look)
