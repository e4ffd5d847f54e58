"""Do all VM exits of a VM without a tag flush, whoever makes them and whatever handles them?"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.oracle.tags import repeated_misses
from tests.simulation.small import WRITE, Script, Step, run, scenario, touches, vm
from tests.simulation.sums import check
from vmsim.engine.check.host import check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.machine.tags import Spaces

MODES = ["ept", "npt", "paired", "shadow", "agile"]
LOGGED: dict[str, Any] = {"dirty_log": {"method": "write-protect", "every": "3us"}}
SPLIT: dict[str, Any] = {"host_page": "2M", "nx_split": True, "nx_recovery_period": "3us", "nx_recovery_ratio": 1}
PAGES = [0, 1, 0, 2, 0, 1, 3, 3, 0, 4, 0, 5, 6, 7, 1, 0, 7]
AGAIN = 7  # by hand: 0; 0, 1; 0; 0; 1, 0, each after an exit for a new page; the second 3 and the last 7 hit


def misses(mode: str, tags: str, steps: list[Step], *, serve: bool, **keys: Any) -> int:
    """Return the misses of the second-level TLB."""
    if mode == "agile":
        keys["agile"] = {"threshold": 10_000}  # tables that change sides flush too
    table = vm(mode=mode, tags=tags, **keys)
    what = scenario(table, cpu="zen4" if mode == "npt" else "yardstick", memory="64MiB", what_if=True)
    simulation = Simulation(what, streams=[Script(steps)], serve=serve)
    outcome = simulation.run()
    check(what, outcome)
    return outcome.vms[0].counters["l2_tlb_misses"]


@pytest.mark.parametrize("serve", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_demand_paging_without_a_tag_misses_again_what_each_exit_flushed(mode: str, serve: bool) -> None:
    steps = touches(PAGES, WRITE)
    tag = "asid" if mode == "npt" else "vpid"
    more = misses(mode, "none", steps, serve=serve) - misses(mode, tag, steps, serve=serve)
    twin = {tags: repeated_misses(PAGES, tags, amd=mode == "npt") for tags in ("none", tag)}
    assert more == twin["none"] - twin[tag]
    assert more == AGAIN


@pytest.mark.parametrize("serve", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_a_vm_of_which_all_is_mapped_flushes_when_a_device_is_told_to_work(mode: str, serve: bool) -> None:
    steps = [*touches(range(5), WRITE), ("io", 0, 1), *touches(range(5)), ("io", 0, 1), *touches(range(5))]
    keys: dict[str, Any] = {"populate": "eager"}
    tag = "asid" if mode == "npt" else "vpid"
    more = misses(mode, "none", steps, serve=serve, **keys) - misses(mode, tag, steps, serve=serve, **keys)
    assert more == 2 * 5


@pytest.mark.parametrize(
    ("mode", "keys"),
    [
        ("ept", {}),
        ("npt", {}),
        ("paired", {}),
        ("ept", LOGGED),
        ("npt", LOGGED),
        ("ept", SPLIT),
        ("ept", {"guest_page": "2M", "memory": "8MiB"}),
        ("ept", {"fill_chunk": 4}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value)),
)
def test_every_exit_that_is_counted_has_flushed(
    mode: str, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Counter[str]()
    for name in ("exited", "leave"):
        plain = getattr(Spaces, name)

        def counted(self: Spaces, name: str = name, plain: Any = plain) -> None:
            seen[name] += self.tags == "none"
            plain(self)

        monkeypatch.setattr(Spaces, name, counted)
    table = vm(mode=mode, tags="none", **keys)
    what = scenario(table, memory="64MiB", what_if=True, horizon="1us")
    fetched = [("touch", 9, 2), ("touch", 9, WRITE)]
    steps = [*touches(range(30), WRITE), ("io", 3, 2), *touches(range(30), WRITE), *fetched, *fetched]
    simulation = Simulation(what, streams=[Script(steps)], observers=[check_invariants], serve=False)
    outcome = simulation.run()  # compiled code flushes itself: that is tested above
    check(what, outcome)
    exits = sum(count for count, _ in outcome.vms[0].exits.values())
    assert exits > 5
    assert seen["exited"] >= exits


@pytest.mark.parametrize("tags", ["none", "vpid"])
@pytest.mark.parametrize("mode", MODES)
def test_an_untagged_vm_boots_before_the_clock_starts(mode: str, tags: str) -> None:
    """No core runs it then, and there is nothing to flush."""
    what = scenario(vm(mode=mode, tags=tags, populate="eager"), what_if=True)
    _, outcome = run(what, [Script(touches(range(4)))])
    assert outcome.ending is None
    assert outcome.vms[0].finished
    check(what, outcome)


@pytest.mark.parametrize("mode", ["native", "ept", "npt"])
def test_a_pae_guest_boots_before_the_clock_starts_and_owes_nothing(mode: str) -> None:
    """Its four page directories cost cycles in a running machine (Linux PREALLOCATED_PMDS), and none before."""
    table = vm(mode=mode, guest_levels=3, populate="eager", workload={"base": 0x1000_0000})
    what = scenario(table, what_if=True)
    _, outcome = run(what, [Script(touches(range(4)), base=0x1000_0000)])
    assert outcome.ending is None
    assert outcome.vms[0].guest_faults == 0
    assert outcome.vms[0].cycles["guest_fault"] == 0
    check(what, outcome)


def test_what_ends_before_the_clock_starts_has_used_no_cycles() -> None:
    marks = {"min": "16KiB", "low": "16KiB", "high": "16KiB"}
    table = vm(mode="native", guest_levels=3, populate="eager", memory="1MiB", workload={"base": 0x1000_0000})
    what = scenario(table, memory="32KiB", watermarks=marks, pool={"min": 1, "max": 2, "batch": 1}, what_if=True)
    _, outcome = run(what, [Script(touches(range(4)), base=0x1000_0000)])
    assert outcome.ending is not None
    assert sum(outcome.vms[0].cycles.values()) == 0
    check(what, outcome)


def test_an_exit_takes_longer_than_a_recovery_of_large_pages_and_the_vm_goes_on() -> None:
    """Code fetched from a page that was split, and recovered before the fetch was made again (KVM: nx_huge_pages)."""
    table = vm(host_page="2M", memory="8MiB", nx_split=True, nx_recovery_period="100 cycles", nx_recovery_ratio=1)
    what = scenario(table, memory="64MiB", what_if=True)
    _, outcome = run(what, [Script([("touch", page, 2) for page in (0, 1, 2, 0, 1)])])
    assert outcome.vms[0].finished
    check(what, outcome)
