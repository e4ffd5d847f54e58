"""Do huge pages come at faults, and later from khugepaged, in every mode, and is nothing lost on the way?"""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.small import PAGE, READ, WRITE, Script, scenario, vm
from vmsim.contracts import Moment
from vmsim.engine.check.host import check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.record.outcome import Outcome
from vmsim.record.tables import rows
from vmsim.scenario import Scenario

MODES = ("ept", "npt", "shadow", "agile", "paired", "vkernel")
MIB = 1 << 20
TABLES = ("summary", "cycles", "exits", "walk_references", "pwc", "fault_latency")


def host(mode: str, *, thp: Any = None, **keys: Any) -> Scenario:
    """Return two VMs, one with two vCPUs, that touch 3 MiB at random."""
    touch = {"kind": "uniform", "footprint": 3 * MIB, "accesses": 2500, "writes": 0.5, "compute": 1000}
    given = {"memory": "8MiB", "mode": mode, "workload": touch}
    of_host = {"memory": "32MiB", "cores": 2, "what_if": True, **({"thp": thp} if thp else {})}
    of_host |= {key: keys.pop(key) for key in ("fragmentation", "reclaim", "ksm") if key in keys}
    return scenario(vm("a", **given, **keys), vm("b", vcpus=2, **given, **keys), **of_host)


def tables_of(outcome: Outcome) -> dict[str, Any]:
    return {name: rows(name, outcome) for name in TABLES}


@pytest.mark.parametrize("mode", MODES)
def test_at_a_fault_a_hosts_huge_pages_are_pages_of_2m_with_4k_for_want_of_a_block(mode: str) -> None:
    thp = host(mode, thp={"enabled": "always", "khugepaged": False, "defrag": "never"}, fragmentation=0.6)
    fixed = host(mode, host_page="2M", fragmentation=0.6)
    one, other = Simulation(thp).run(), Simulation(fixed).run()
    assert tables_of(one) == tables_of(other)
    assert any(each.figures.named("host")["large_page_failures"] for each in one.vms)


@pytest.mark.parametrize("mode", ["native", "ept", "shadow", "vkernel"])
def test_at_a_fault_a_guests_huge_pages_are_pages_of_2m(mode: str) -> None:
    one = Simulation(host(mode, **{"thp": None, "guest_page": "2M"})).run()
    spec = host(mode).replace(**{"vm.thp.enabled": "always"})
    other = Simulation(spec).run()
    assert tables_of(one) == tables_of(other)
    assert all(each.figures.named("thp")["thp_fault_alloc"] == 2 for each in other.vms)  # 3 MiB from 1 TiB on


def advised(enabled: str, *steps: Any) -> Any:
    """Return the figures of a guest that touches each page of 4 MiB that it has mapped."""
    script = Script([("map", 0, 1024), *steps, *(("touch", page, WRITE) for page in range(1024))])
    spec = scenario(vm(memory="16MiB", thp={"enabled": enabled}), memory="64MiB")
    return Simulation(spec, streams=[script]).run().vms[0]


@pytest.mark.parametrize(
    ("enabled", "steps", "faults", "huge"),
    [
        ("always", [], 2, 2),
        ("always", [("advise", 512, 512, 15)], 513, 1),
        ("always", [("advise", 512, 512, 15), ("advise", 0, 1024, 14)], 2, 2),
        ("madvise", [], 1024, 0),
        ("madvise", [("advise", 512, 512, 14)], 513, 1),
        ("madvise", [("advise", 256, 512, 14)], 1024, 0),  # no whole range of 2 MiB
    ],
)
def test_madvise_says_which_memory_gets_them(enabled: str, steps: list[Any], faults: int, huge: int) -> None:
    """MADV_HUGEPAGE is 14 and MADV_NOHUGEPAGE 15; a page that is huge faults once, a small one each time."""
    found = advised(enabled, *steps)
    assert found.guest_faults == faults
    assert found.figures.named("thp")["thp_fault_alloc"] == huge


def test_a_guest_without_a_free_block_falls_back_to_small_pages() -> None:
    """Of 4 MiB one block is free, and then none. A range falls back once, and has a table then."""
    script = Script([("touch", page, WRITE) for page in range(0, 1000, 40)])
    spec = scenario(vm(memory="4MiB", thp={"enabled": "always"}), memory="64MiB")
    found = Simulation(spec, streams=[script]).run().vms[0]
    assert found.figures.named("thp")["thp_fault_alloc"] == 1
    assert found.figures.named("thp")["thp_fault_fallback"] == 1
    assert found.guest_faults == 1 + 12


QUICK = {"enabled": "always", "defrag": "never", "scan_sleep_millisecs": 0, "alloc_sleep_millisecs": 0}
LARGE = {"ept", "npt"}  # whose nested entries become large with the page, and are all that there are


class Looks:
    """The most pages of 2 MiB that entries of any VM have mapped at once."""

    most = 0

    def __call__(self, what: Moment, host: Any, vm: Any) -> None:
        for each in host.vms:
            if each.slot and each.able:
                self.most = max(self.most, sum(leaf.order == 9 for leaf in each.slot.second.leaves()))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "keys",
    [{"fragmentation": 1.0}, {"reclaim": {"rate": 20_000, "batch": 3}}, {"ksm": {"run": 1, "sleep_millisecs": 0}}],
)
def test_khugepaged_loses_nothing(mode: str, keys: dict[str, Any]) -> None:
    looks = Looks()
    simulation = Simulation(host(mode, thp=QUICK, **keys), observers=[check_invariants, looks])
    outcome = simulation.run()
    assert outcome.ending is None
    made = sum(each.figures.named("khugepaged")["pages_collapsed"] for each in outcome.vms)
    assert made > 0
    assert looks.most > 0 or mode not in LARGE


def test_faults_compact_memory_as_defrag_says() -> None:
    """With all free memory in single pages no block is free but what compaction makes."""
    stalls, exits = {}, {}
    for defrag in ("always", "madvise", "defer", "never"):
        thp = {"enabled": "always", "khugepaged": False, "defrag": defrag}
        outcome = Simulation(host("ept", thp=thp, fragmentation=1.0), observers=[check_invariants]).run()
        counts = outcome.vms[0].figures.named("compaction_host")
        stalls[defrag] = counts["compact_stall"], counts["compact_daemon_wake"] > 0
        exits[defrag] = sum(each.exits["EPT_VIOLATION"][0] for each in outcome.vms)
        assert (counts["compact_success"] > 0) == (defrag in ("always", "madvise"))
    assert stalls["always"] == stalls["madvise"]  # for a VMM advises
    assert exits["always"] == exits["madvise"] < exits["never"]
    assert stalls["always"][0] > 3
    assert stalls["defer"] == (0, True)
    assert stalls["never"] == (0, False)


def test_reads_of_a_huge_page_see_no_fewer_walks_than_the_pages_that_it_was() -> None:
    """A program that reads 2 MiB page by page again and again: 512 translations become one."""
    steps = [("touch", page, READ) for _ in range(12) for page in range(512)]
    walks = {}
    for name, thp in (("small", {}), ("huge", QUICK)):
        guest = vm(memory="8MiB", workload={"accesses": 1, "compute": 2000}, thp={"enabled": "always"})
        spec = scenario(guest, memory="32MiB", fragmentation=1.0, cores=2, thp=thp)
        outcome = Simulation(spec, streams=[Script(steps)]).run()
        walks[name] = outcome.vms[0].counters["nested_walks"]
    assert walks["huge"] < walks["small"] / 2


def test_keys_that_do_nothing_are_told_of() -> None:
    for keys, text in (
        ({"host.thp.defrag": "always"}, "no effect without thp.enabled"),
        ({"vm.thp.enabled": "always", "vm.guest_page": "2M"}, "leave one of the two out"),
        ({"vm.thp.enabled": "always", "vm.memory": 256 * PAGE}, "less memory than a huge page"),
    ):
        with pytest.raises(Exception, match=text):
            host("ept").replace(**keys)


def test_alignment_is_what_both_map_by_huge_pages() -> None:
    """4 MiB touched from 1 TiB on: two huge pages of the guest's, each backed by one; tables lie in a third range."""
    script = Script([("touch", page, WRITE) for page in range(1024)])
    for of_host, of_guest, expected in (
        ("always", "always", (1024, 1536, 1024)),
        ("never", "always", (1024, 0, 0)),
        ("always", "never", (0, 1536, 0)),
    ):
        thp = {"enabled": of_host, "khugepaged": False} if of_host != "never" else {}
        guest = vm(memory="16MiB", thp={"enabled": of_guest})
        spec = scenario(guest, memory="64MiB", thp=thp, samples="100us")
        outcome = Simulation(spec, streams=[script]).run()
        found = outcome.vms[0].memory
        assert (found["guest_huge"], found["host_huge"], found["aligned"]) == expected
        last = rows("memory", outcome)[-1]
        assert last["aligned"] <= expected[2]
        most = [max(row[name] for row in rows("memory", outcome)) for name in ("guest_huge", "host_huge", "aligned")]
        assert tuple(most) == expected


def test_khugepaged_of_the_host_brings_pages_from_a_device_whose_vm_may_end_meanwhile():
    touch = {"kind": "uniform", "footprint": 3 * MIB, "accesses": 20_000, "writes": 0.5, "compute": 2000}
    told = {"enabled": "always", "khugepaged": True, "scan_sleep_millisecs": 0, "max_ptes_swap": 511}
    given = {"swap": {"device": "nvme"}, "reclaim": {"rate": 100_000}}
    what = scenario(vm("a", memory="8MiB", workload=touch), memory="32MiB", thp=told, what_if=True, **given)
    simulation = Simulation(what)
    free = simulation.host.free
    outcome = simulation.run()
    assert outcome.ending is None
    assert outcome.vms[0].figures.named("khugepaged")["swapin"] > 0
    assert simulation.host.free == free
