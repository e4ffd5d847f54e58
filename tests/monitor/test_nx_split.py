"""Does code run from small pages only, at the price of a split, and does the rest stay large?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.oracle.bits import ADDRESS, EPT_X, PS
from tests.simulation.small import READ, WRITE, Script, run, scenario, time_adds_up, touches, vm
from vmsim.base.errors import InputError
from vmsim.contracts import Moment
from vmsim.engine.check.host import check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.machine.memory import find_entry
from vmsim.monitor.features.nx_split import NxSplit
from vmsim.monitor.tdp.monitor import Tdp
from vmsim.record.outcome import VmOutcome
from vmsim.scenario import Scenario

FETCH = 2
REGIONS = 8


def hardened(**keys: Any) -> Scenario:
    """Return a VM of 8 regions of 2 MiB whose large pages are not executable."""
    given = {"memory": "16MiB", "host_page": "2M", "nx_split": True, **keys}
    return scenario(vm(**given), memory="64MiB")


@dataclass
class Seen:
    """A VM, its monitor, and by region what mapped it at the end: one large page, or how many small ones."""

    vm: VmOutcome
    monitor: NxSplit
    mapped: dict[int, int | str] = field(default_factory=dict)

    def exits(self, reason: str) -> int:
        return self.vm.exits[reason][0]


def feature_of(simulation: Simulation) -> NxSplit:
    monitor = simulation.vms[0].monitor
    assert isinstance(monitor, Tdp)
    (feature,) = (each for each in monitor.features if isinstance(each, NxSplit))
    return feature


def look(simulation: Simulation) -> dict[int, int | str]:
    """Read the nested tables; large pages must not be executable, and small ones must."""
    registers, memory = simulation.vms[0].registers[0], simulation.hardware.memory
    mapped: dict[int, int | str] = {}
    for region in range(REGIONS):
        place, level = find_entry(memory, int(registers.nested_root), 4, 2, region << 21)
        entry = int(memory[place >> 3]) if level == 2 else 0
        if entry & PS:
            assert not entry & EPT_X
            mapped[region] = "large"
        elif entry:
            small = memory[(entry & ADDRESS) >> 3 :][:512]
            assert (small[small != 0] & EPT_X).all()
            block = feature_of(simulation).blocks.get(region)
            if block is not None:  # each where it was in the large page
                assert np.array_equal((small[small != 0] & ADDRESS) >> 12, block + np.flatnonzero(small))
            mapped[region] = int((small != 0).sum())
    return mapped


def watch(what: Scenario, steps: list[Any], **keys: Any) -> Seen:
    found: dict[int, int | str] = {}

    def at_boundary(moment: Moment, simulation: Simulation, whose: Any) -> None:
        check_invariants(moment, simulation, whose)
        if not simulation.vms[0].gone and simulation.vms[0].kernel.root >= 0:
            found.clear()
            found.update(look(simulation))

    simulation, outcome = run(what, [Script(steps)], check=at_boundary, **keys)
    monitor = feature_of(simulation)
    assert outcome.ending is None
    assert time_adds_up(outcome)
    assert (simulation.host.frames["state"] == State.FREE).all()
    return Seen(outcome.vms[0], monitor, found)


@pytest.mark.parametrize("populate", ["lazy", "eager"])
def test_data_is_in_large_pages_and_nothing_is_split(populate: str) -> None:
    seen = watch(hardened(populate=populate), [*touches(range(700), WRITE), *touches(range(700))])
    assert seen.exits("NX_SPLIT") == 0
    assert set(seen.mapped.values()) == {"large"}


@pytest.mark.parametrize("populate", ["lazy", "eager"])
def test_a_fetch_from_a_large_page_splits_it_once(populate: str) -> None:
    data, code = touches(range(300), WRITE), touches(range(300), FETCH)
    seen = watch(hardened(populate=populate), [*data, *code, *data, *code])
    split = [region for region, how in seen.mapped.items() if how == 512]
    assert 1 <= seen.exits("NX_SPLIT") == len(split) <= 2  # 300 pages lie in one region or two
    costs = seen.monitor.costs
    edits = costs.violation_pool + costs.table_page + 512 * costs.entry_edit
    each = costs.vm_exit + costs.violation_walk + edits + costs.violation_resume
    assert seen.vm.exits["NX_SPLIT"] == (len(split), len(split) * each)


def test_after_a_recovery_code_gets_its_pages_one_by_one() -> None:
    data, code, pause = touches(range(20), WRITE), touches(range(20), FETCH), ("compute", 20_000_000)
    what = hardened(nx_recovery_period="5ms", nx_recovery_ratio=1)
    seen = watch(what, [*data, *code, pause, *code, *touches([2, 40], WRITE)])
    assert (seen.exits("NX_SPLIT"), seen.exits("NX_RECOVERY")) == (1, 1)
    assert list(seen.mapped.values()).count("large") == 1
    (small,) = (how for how in seen.mapped.values() if isinstance(how, int))
    assert 21 <= small < 40  # and some of the guest's own tables
    assert seen.exits("EPT_VIOLATION") == small + 2  # and a large page of data, and once the one that was split


def test_what_was_split_is_large_again_until_code_is_fetched_again() -> None:
    data, code, pause = touches(range(20), WRITE), touches(range(20), FETCH), ("compute", 20_000_000)
    what = hardened(nx_recovery_period="1ms", nx_recovery_ratio=1)
    once = watch(what, [*data, *code, pause, *data])
    assert once.exits("NX_SPLIT") == once.exits("NX_RECOVERY") == 1
    assert set(once.mapped.values()) == {"large"}
    twice = watch(what, [*data, *code, pause, *data, *code])
    assert twice.exits("NX_SPLIT") == 2
    assert 512 in twice.mapped.values()
    never = watch(hardened(nx_recovery_period="1ms", nx_recovery_ratio=0), [*data, *code, pause, *data])
    assert never.exits("NX_RECOVERY") == 0
    assert 512 in never.mapped.values()


def test_a_part_of_what_was_split_is_recovered_at_a_time_the_oldest_first() -> None:
    data, pause = touches(range(3000), WRITE), [("compute", 5_000_000), *touches([0])]
    code = touches([*range(0, 3000, 256)], FETCH)
    what = hardened(nx_recovery_period="1ms", nx_recovery_ratio=4)
    seen = watch(what, [*data, *code, *pause, *pause])
    count = seen.exits("NX_SPLIT")
    assert count >= 5
    recoveries, left = seen.exits("NX_RECOVERY"), count
    assert recoveries >= 2
    for _ in range(recoveries):
        left -= -(-left // 4)
    assert len([how for how in seen.mapped.values() if how == 512]) == left


def test_without_it_large_pages_are_executable() -> None:
    what = scenario(vm(memory="16MiB", host_page="2M"), memory="64MiB")
    _, outcome = run(what, [Script([*touches(range(300), WRITE), *touches(range(300), FETCH)])])
    assert outcome.vms[0].exits["EPT_VIOLATION"][0] <= 2
    assert "NX_SPLIT" not in outcome.vms[0].exits


@pytest.mark.parametrize("method", ["write-protect", "ad-scan", "pml"])
@pytest.mark.parametrize("code_first", [False, True])
def test_a_dirty_log_and_the_split_of_code_go_together(method: str, code_first: bool) -> None:
    """Two regions are backed by large pages; code is fetched from the first, and both are written to.

    Who comes to a region first splits it, for both: its pages tell of writes, and can be executed. A round has the 20
    pages written to and the four tables that were walked for them, accesses to which EPT takes for writes (SDM vol. 3C
    §30.3.5). When the log ends, all that was split is large again, and not executable: a fetch splits once more.
    Nothing is recovered before, for it would come back small (kvm_recover_nx_huge_pages).
    """
    code, data, more = touches(range(10), FETCH), touches(range(20), WRITE), touches(range(600, 620), WRITE)
    pause = ("compute", 20_000_000)  # 10 ms
    given = {
        "memory": "16MiB",
        "host_page": "2M",
        "populate": "eager",
        "nx_split": True,
        "nx_recovery_period": "1ms",
        "nx_recovery_ratio": 1,
        "dirty_log": {"method": method, "every": "1ms", "stop": "15ms"},
    }
    what = scenario(vm(**given), memory="64MiB", what_if=True, cpu_override={"ept_ad": True})
    seen = watch(what, [*((*code, *data) if code_first else (*data, *code)), pause, *more, pause, *data, *code])
    assert len(seen.vm.dirty) == 15  # each millisecond, until it stops
    assert [each.pages for each in seen.vm.dirty if each.pages] == [24, 24]
    assert seen.vm.figures.named("dirty_log")["splits"] == (1 if code_first else 2)
    assert seen.vm.figures.named("dirty_log")["collapses"] == 2
    assert seen.exits("NX_SPLIT") == (2 if code_first else 1)
    assert seen.exits("NX_RECOVERY") == 0
    assert list(seen.mapped.values()).count("large") == 7
    assert seen.exits("WRITE_PROTECT") == (48 if method == "write-protect" else 1 if code_first else 2)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("touch"), st.integers(0, 1500), st.sampled_from([READ, WRITE, FETCH])),
        st.tuples(st.just("touch"), st.integers(0, 40), st.sampled_from([READ, WRITE, FETCH])),
        st.tuples(st.just("unmap"), st.integers(0, 40), st.integers(1, 20)),
        st.tuples(st.just("compute"), st.integers(1, 200_000)),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, ratio=st.sampled_from([1, 3]), populate=st.sampled_from(["lazy", "eager"]))
def test_every_invariant_holds_whatever_is_run(steps: list[Any], ratio: int, populate: str) -> None:
    what = hardened(nx_recovery_period="30us", nx_recovery_ratio=ratio, populate=populate)
    watch(what, [("touch", 0, WRITE), *steps], every=50_000)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"vm.mode": "shadow", "vm.nx_split": True}, "no entry maps more than the guest's own does"),
        ({"vm.mode": "vkernel", "vm.nx_split": True, "vm.host_page": "4K"}, "KVM keeps .* mode vkernel has none"),
        ({"vm.host_page": "4K"}, "there is no large page to split"),
        ({"vm.host_page": "1G", "vm.memory": "1GiB"}, "expected 2M"),
        ({"vm.nx_recovery_period": "0s"}, "more than 0"),
    ],
)
def test_where_it_makes_no_sense_it_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        hardened().replace(**keys)


def test_what_the_keys_say_counts_where_it_is_on_and_is_refused_elsewhere() -> None:
    on, off = hardened(), hardened(nx_split=False)
    assert on.canonical() != hardened(nx_recovery_ratio=30).canonical()
    with pytest.raises(ValueError, match="it has no effect with nx_split = false"):
        hardened(nx_split=False, nx_recovery_ratio=30)
    assert off.vms[0].nx_split is None
    assert on.with_mode("native").vm[0].nx_split is False
