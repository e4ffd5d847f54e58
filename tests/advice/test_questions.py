"""Are questions answered as they must be where the answer is known from how the scenario is made?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import vmsim
from tests.simulation.small import PAGE, WRITE, Script, scenario, touches, vm
from vmsim.advice.asked import last_that_holds
from vmsim.advice.migration import parse_link
from vmsim.advice.overcommit import _answer
from vmsim.advice.slower import _COUNTED, cost_of, times
from vmsim.sweeps import read_results
from vmsim.workloads.vmtrace import VmtraceWriter


def ask(question: str, asked: Any, out: Path, **options: Any) -> vmsim.Advice:
    return vmsim.advise(question, asked, out=out / question, seeds=2, jobs=1, **options)


def test_a_guest_that_maps_and_unmaps_is_better_off_under_ept(tmp_path: Path) -> None:
    """Each edit of a table exits under a shadow, and none does under EPT (Adams & Agesen, ASPLOS 2006)."""
    work = {"kind": "churn", "footprint": 64 * PAGE, "burst": 8 * PAGE, "rounds": 40}
    churning = vm() | {"workload": work}
    found = ask("mode", scenario(churning), tmp_path, modes=["shadow", "ept"])
    assert (found.facts["mode"], found.facts["sure"]) == ("ept", True)
    assert list(found.table["mode"]) == ["ept", "shadow"]
    assert found.answer.startswith("ept: ")
    results = read_results(found.sweep)
    ept = results[results["mode"] == "ept"].groupby("seed")[["total_cycles", "accesses"]].sum()
    assert found.facts["cycles_per_access"] == pytest.approx((ept["total_cycles"] / ept["accesses"]).mean())
    events: list[dict[str, Any]] = []
    again = ask("mode", scenario(churning), tmp_path, modes=["shadow", "ept"], progress=events.append)
    assert again.table.equals(found.table)
    assert events[-1]["done"] == 0  # all were there


def test_a_guest_that_only_reads_at_random_is_better_off_under_a_shadow(tmp_path: Path) -> None:
    """After its first touches there are no exits, and a walk has 4 references in the place of up to 24."""
    reading = vm(workload={"kind": "uniform", "footprint": "1MiB", "accesses": 8000, "writes": 0.0})
    small = {"tlb": {"l1": {"4K": {"entries": 16}}, "l2": {"4K": {"entries": 48}}}}
    made = scenario(reading, warmup="50%", cpu_override=small)
    found = ask("mode", made, tmp_path, modes=["ept", "shadow"])
    assert (found.facts["mode"], found.facts["sure"]) == ("shadow", True)


def test_a_pool_must_hold_what_is_taken_while_a_refill_is_on_its_way(tmp_path: Path) -> None:
    """A page every 30,000 cycles or somewhat more, and 1,000,000 before a refill: some 33, so 64 do and 16 do not.

    The host looks on until there are so many, without another message, so that small refills do.
    """
    costs = {"cost": {"message": 1_000_000, "grant_fixed": 0, "grant_page": 1, "host_zero": 1}}
    touching = vm(workload={"kind": "sequential", "footprint": 600 * PAGE, "accesses": 600, "compute": 30_000})
    found = ask("pool", scenario(touching, cpu_override=costs), tmp_path, limit=1.1)
    assert [found.facts[key] for key in ("min", "batch", "max")] == [64, 4, 68]
    held = found.table[found.table["holds"]]
    assert sorted({*held["min"]})[:2] == [1, 64]  # 1 is the pool without bounds


def test_as_many_vms_fit_as_have_their_footprint_in_memory(tmp_path: Path) -> None:
    """Of a host's 2048 pages each VM has 384, and tables and a pool beside them: four fit, six do not."""
    one = vm(count=4, memory="2MiB", workload={"footprint": 384 * PAGE, "accesses": 460})
    found = ask("overcommit", scenario(one, memory="8MiB", cores=8, swap={"device": "nvme"}), tmp_path, limit=1.5)
    assert found.facts["vms"] in (4, 5)
    assert found.facts["high"] <= 1.5
    rows = found.table.set_index("vms")
    assert not rows.loc[found.facts["vms"] + 1, "holds"]
    assert f"With {found.facts['vms'] + 1}: the slowest takes " in found.answer


def test_a_balloon_may_take_what_the_guest_does_not_use(tmp_path: Path) -> None:
    """Half of its 2048 pages are touched, and its tables are some more: so not half, but a 32nd (64 pages) less."""
    half = vm(memory="8MiB", workload={"footprint": 1024 * PAGE, "accesses": 1024})
    found = ask("balloon", scenario(half), tmp_path, limit=2)
    assert found.facts["share"] == 15 / 32
    assert found.answer.endswith("With 50%: a VM does not run to its end.")


def test_what_is_freed_page_by_page_comes_back_by_reports_of_order_0_alone(tmp_path: Path) -> None:
    """Every other of 2,048 pages is freed, then a device works for most of the run: no two free pages are a block.

    384 at most stand ready on lists of the CPU's, and are not reported.
    """
    program = Script(
        [*touches(range(2048), WRITE), *(("unmap", page, 1) for page in range(0, 2048, 2)), ("io", 1, 1, 50_000_000)]
    )
    with (tmp_path / "holes.vmtrace").open("wb") as file:
        writer = VmtraceWriter(file, granule=PAGE, about={})
        for chunk in program.chunks():
            writer.add(chunk)
        writer.close()
    trace = {"kind": "trace", "path": str(tmp_path / "holes.vmtrace")}
    guest = {**vm(memory="16MiB", balloon={"reporting": True, "reporting_delay": "1ms"}), "workload": trace}
    found = ask("reporting", scenario(guest, memory="32MiB"), tmp_path, limit=2)
    rows = found.table.set_index("order")
    assert found.facts["order"] == 0
    assert 1 - (1024 + 16) / 2048 < rows.loc[0, "memory"] < 1 - (1024 - 384) / 2048 + 0.1  # not from the first moment
    assert rows.loc[4, "memory"] == pytest.approx(1, abs=0.02)
    assert found.answer.startswith("Order 0: the VMs hold ")


@pytest.mark.parametrize(("downtime", "converges"), [("2ms", True), ("0.5ms", False)])
def test_pre_copy_converges_if_the_pages_that_are_always_written_fit_in_the_downtime(
    tmp_path: Path, downtime: str, converges: bool
) -> None:
    """64 pages are written to again and again: 256 KiB, and 250 MiB a second carry them in a millisecond."""
    work = {"kind": "uniform", "footprint": 64 * PAGE, "accesses": 12_000, "writes": 1.0, "compute": 4000}
    writing = vm(memory="4MiB", workload=work)
    found = ask("migration", scenario(writing, warmup="10%"), tmp_path, limit=downtime, link="250MiB/s")
    assert found.facts["converges"] is converges


def test_what_a_run_is_too_short_for_is_not_known(tmp_path: Path) -> None:
    writing = vm(memory="4MiB", workload={"kind": "uniform", "footprint": "2MiB", "accesses": 2000, "writes": 1.0})
    found = ask("migration", scenario(writing), tmp_path, limit="200ms", link="4MiB/s")
    assert found.facts["converges"] is None
    assert "times as many accesses" in found.answer


@pytest.mark.parametrize(
    ("question", "made", "options", "says"),
    [
        ("mood", scenario(vm()), {}, "'mode'"),
        ("mode", scenario(vm()), {"limit": 2}, "has none"),
        ("mode", scenario(vm()), {"link": "1GiB/s"}, "does not ask"),
        ("mode", scenario(vm()), {"modes": ["eptt"]}, "ept"),
        ("pool", scenario(vm()), {"limit": 0.5}, "above 1"),
        ("pool", scenario(vm(), pool={"supply": "fault"}), {}, "there is no pool"),
        ("pool", scenario(vm(count=5)), {}, "host.memory: found 16MiB, expected at least 22MiB"),
        ("pool", scenario(vm()), {}, "p99 needs 200"),
        ("overcommit", scenario(vm()), {}, r"\[host.swap\] with the line device"),
        ("balloon", scenario(vm(balloon={"schedule": [["1ms", "1MiB"]]})), {}, "balloon.schedule"),
        ("reporting", scenario(vm(), warmup="10%"), {}, "warmup: "),
        ("reporting", scenario(vm()), {}, "balloon.reporting_delay: found 2s, expected less than "),
        ("migration", scenario(vm(mode="vkernel")), {}, "mode vkernel has none"),
        ("migration", scenario(vm()), {"link": "fast"}, "10Gbit/s"),
        ("migration", scenario(vm()), {"limit": 3}, "limit: "),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(
    tmp_path: Path, question: str, made: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(vmsim.InputError, match=says):
        ask(question, made, tmp_path, **options)


def test_one_seed_gives_no_interval() -> None:
    with pytest.raises(vmsim.InputError, match="seeds: found 1"):
        vmsim.advise("mode", scenario(vm()), seeds=1)


def test_a_link_is_read_in_bytes_and_in_bits() -> None:
    assert parse_link("128MiB/s") == 128 * 2**20
    assert parse_link("10Gbit/s") == 1.25e9


@pytest.mark.parametrize("first", [1, 3, 40])
@pytest.mark.parametrize("last", [0, 1, 6, 40])
def test_the_last_number_that_holds_is_found_from_anywhere(first: int, last: int) -> None:
    tried: list[int] = []

    def holds(number: int) -> bool:
        tried.append(number)
        return number <= last

    assert last_that_holds(holds, first, 40) == last
    assert len({*tried}) == len(tried) <= 12


def test_a_vm_that_may_be_as_fast_as_alone_is_slowed_down_by_nothing() -> None:
    """Three seeds: waits for a core add 2, 0 and -1 % in one case, 20 % in another, and once much in one of them."""

    def rows(costs: list[float]) -> pd.DataFrame:
        same = {"vm_group": "a", "accesses": 100, "finished": True, "start_cycle": 0}
        made = [
            {**same, "replicate": seed, "finish_cycle": cost, "pcpu_wait_cycles": cost - 990}
            for seed, cost in enumerate(costs)
        ]
        return cost_of(pd.DataFrame(made).reindex(columns=[*dict.fromkeys([*made[0], *_COUNTED])], fill_value=0))

    alone = rows([1000, 1000, 1000])
    assert times(rows([1020, 1000, 990]), alone)["mostly"] == ""
    assert times(rows([1200, 1201, 1199]), alone)["mostly"] == "waiting for a core"
    wide = times(rows([1100, 9000, 1000]), alone)
    assert (wide["low"], wide["mostly"]) == (0, "waiting for a core")  # a ratio is never below 0


def test_one_vm_is_not_compared_with_itself() -> None:
    row = {"vms": 1, "memory": 0.8, "times": 1.0, "low": 1.0, "high": 1.0, "mostly": ""}
    more = {"vms": 2, "memory": 1.6, "times": 3.0, "low": 2.9, "high": 3.1, "mostly": "waiting for a core"}
    text, facts = _answer({1: row, 2: more}, 1, False, 1.5, 5)
    assert text.startswith("1 VM, with 0.80 times the host's memory, fits (95 % over 5 seeds; limit 1.5). With 2: ")
    assert facts["vms"] == 1
