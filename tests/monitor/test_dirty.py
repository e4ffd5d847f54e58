"""Do all methods of dirty logging find the pages that were written to, the same ones, each at its own cost?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.oracle import tables as oracle
from tests.simulation.small import BASE, PAGE, READ, WRITE, Script, run, scenario, time_adds_up, touches, vm
from tests.simulation.test_contract import Words
from vmsim.base.errors import InputError
from vmsim.contracts import Moment
from vmsim.engine.check.host import check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.monitor.features.dirty_log import DirtyLog
from vmsim.monitor.tdp.monitor import Tdp
from vmsim.record.outcome import VmOutcome
from vmsim.record.tables import rows
from vmsim.scenario import Scenario
from vmsim.tables.dirty import PML_ENTRIES

METHODS = ("write-protect", "ad-scan", "pml")


@dataclass
class Logged:
    monitor: DirtyLog
    vm: VmOutcome
    gfns: dict[int, int]  # of the script's pages, at its end
    tables: set[int]  # gfns of the guest's tables

    def found(self, pages: list[int]) -> list[bool]:
        return [bool(self.monitor.ever[self.gfns[page]]) for page in pages]


def logged(method: str, log: dict[str, Any] | None = None, **keys: Any) -> Scenario:
    """Return a VM that is logged, and read once, at its end; backed before the start, so that nothing is new."""
    table = {"method": method, "every": "10s", **(log or {})}
    given = {"memory": "16MiB", "populate": "eager", "dirty_log": table, **keys}
    return scenario(vm(**given), memory="64MiB", what_if=True, cpu_override={"ept_ad": True})


def watch(what: Scenario, steps: list[Any]) -> Logged:
    gfns: dict[int, int] = {}
    tables: set[int] = set()

    def at_boundary(moment: Moment, simulation: Simulation, whose: Any) -> None:
        check_invariants(moment, simulation, whose)
        if moment is not Moment.VM_FINISHED:
            return
        words, machine = Words(simulation.hardware.memory), simulation.vms[0]
        registers = machine.registers[0]
        shape = int(registers.cr3), 4, int(registers.nested_root), 4
        for page in {step[1] for step in steps if step[0] == "touch"}:
            if found := oracle.translate_guest(words, *shape, BASE + page * PAGE):
                gfns[page] = found[0] // PAGE
        tables.add(shape[0] // PAGE)

    simulation, outcome = run(what, [Script(steps)], check=at_boundary)
    tdp = simulation.vms[0].monitor
    assert isinstance(tdp, Tdp)
    (monitor,) = (each for each in tdp.features if isinstance(each, DirtyLog))
    assert outcome.ending is None
    assert time_adds_up(outcome)
    assert sum(each["pages"] for each in rows("dirty", outcome)) == outcome.vms[0].figures.named("dirty_log")["pages"]
    return Logged(monitor, outcome.vms[0], gfns, tables)


CASES = [*((method, "ept") for method in METHODS), ("write-protect", "npt"), ("ad-scan", "npt")]


@pytest.mark.parametrize(("method", "mode"), CASES)
def test_pages_that_were_written_to_are_found_and_pages_that_were_read_are_not(method: str, mode: str) -> None:
    written, read = [3, 7, 600, 601], [4, 8, 602]
    steps = [*touches(read), *touches(written, WRITE), *touches(read), *touches(written)]
    seen = watch(logged(method, mode=mode), steps)
    assert seen.found(written) == [True] * len(written)
    assert seen.found(read) == [False] * len(read)


def test_what_each_method_costs_is_what_it_does() -> None:
    """40 pages written twice: an exit each, or none and a scan of all memory, or none and a log."""
    steps = [*touches(range(40), WRITE), *touches(range(40), WRITE)]
    seen = {method: watch(logged(method), steps) for method in METHODS}
    count = {method: {reason: each for reason, (each, _) in at.vm.exits.items()} for method, at in seen.items()}
    pages = seen["pml"].vm.figures.named("dirty_log")["pages"]
    assert pages >= 40
    assert count["write-protect"] == {"EPT_VIOLATION": 0, "WRITE_PROTECT": pages, "PML_FULL": 0, "DIRTY_LOG": 1}
    for method in ("ad-scan", "pml"):
        assert count[method] == {"EPT_VIOLATION": 0, "WRITE_PROTECT": 0, "PML_FULL": 0, "DIRTY_LOG": 1}
    costs = seen["pml"].monitor.costs
    assert seen["pml"].vm.exits["PML_FULL"] == (0, pages * costs.log_entry)
    assert seen["pml"].vm.dirty[0].cycles == pages * costs.log_page
    assert seen["ad-scan"].vm.dirty[0].cycles == pages * costs.log_page + 4096 * costs.log_scan


def test_a_full_log_exits_every_512_pages() -> None:
    seen = watch(logged("pml"), touches(range(1500), WRITE))
    pages = seen.vm.figures.named("dirty_log")["pages"]
    assert pages >= 1500
    assert seen.vm.exits["PML_FULL"][0] == (pages - 1) // PML_ENTRIES
    assert seen.vm.exits["PML_FULL"][1] >= pages * seen.monitor.costs.log_entry


def test_a_page_is_found_once_in_every_reading_that_it_was_written_to_before() -> None:
    """Ten rounds of writes to the same pages, far enough apart to be read between them."""
    steps = [step for _ in range(10) for step in (*touches(range(20), WRITE), ("compute", 10_000_000))]
    for method in METHODS:
        rounds = watch(logged(method, {"every": "1ms"}), steps).monitor.rounds
        assert len([each for each in rounds if each.pages >= 20]) == 10


def test_a_new_page_is_dirty_if_only_read() -> None:
    """KVM maps what it makes for a logged VM writable, and marks it (make_spte)."""
    for method in METHODS:
        seen = watch(logged(method, populate="lazy"), touches([1, 2, 900]))
        assert seen.found([1, 2, 900]) == [True] * 3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("split", ["lazy", "eager"])
def test_large_pages_are_split_to_tell_of_small_ones(method: str, split: str) -> None:
    seen = watch(logged(method, {"split": split}, host_page="2M"), [*touches(range(900)), *touches([5], WRITE)])
    assert seen.found([5, 6, 700]) == [True, False, False]
    assert seen.vm.figures.named("dirty_log")["pages"] < 40
    splits = seen.vm.figures.named("dirty_log")["splits"]
    assert splits == 8 if split == "eager" else 1 <= splits <= 3
    if method != "write-protect":
        assert seen.vm.exits["WRITE_PROTECT"][0] == (0 if split == "eager" else splits)


@pytest.mark.parametrize(("method", "mode"), CASES)
def test_where_one_page_is_split_off_each_other_is_a_violation(method: str, mode: str) -> None:
    """Pages 600 to 700 of one large page: 600 splits it; the others come back when they are used, large no more."""
    keys = {"host_page": "2M", "mode": mode}
    steps = [*touches(range(600, 700)), ("compute", 30_000_000), *touches([600], WRITE), *touches(range(601, 700))]
    lazy, one = (watch(logged(method, {"split": split, "every": "1s"}, **keys), steps) for split in ("lazy", "one"))
    reason = "NPF" if mode == "npt" else "EPT_VIOLATION"
    more = one.vm.exits[reason][0] - lazy.vm.exits.get(reason, (0, 0))[0]
    assert more >= 99
    assert one.found([600, 601, 699]) == [True, True, True]  # mapped to be written to, as what is new
    assert lazy.found([600, 601, 699]) == [True, False, False]


@pytest.mark.parametrize("vcpus", [1, 2])
def test_past_agiles_switch_one_page_is_split_off_too(vcpus: int) -> None:
    """A store to the guest's table switches it to nested walks; before that nothing was mapped by a large page."""
    keys = {"host_page": "2M", "mode": "agile", "vcpus": vcpus, "agile": {"threshold": 1, "interval": "10s"}}
    written = [*touches(range(600, 700), WRITE), ("compute", 30_000_000)]
    steps = [*touches(range(600, 700)), ("unmap", 600, 1), *written]
    exits = {}
    for split in ("lazy", "one"):
        what = logged("write-protect", {"split": split, "every": "1s"}, **keys)
        _, outcome = run(what, [Script(steps, threads=vcpus)], every=1_000_003)
        assert outcome.vms[0].figures.named("dirty_log")["splits"] == 1
        exits[split] = outcome.vms[0].exits.get("EPT_VIOLATION", (0, 0))[0]
    assert exits["one"] - exits["lazy"] >= 99


@pytest.mark.parametrize("method", METHODS)
def test_what_was_split_is_large_again_when_logging_stops(method: str) -> None:
    steps = [*touches([5, 600], WRITE), ("compute", 30_000_000), *touches([6, 601], WRITE)]
    seen = watch(logged(method, {"every": "1ms", "stop": "5ms"}, host_page="2M"), steps)
    assert seen.vm.figures.named("dirty_log")["splits"] == seen.vm.figures.named("dirty_log")["collapses"] > 0
    assert not seen.monitor.logging
    assert seen.found([5, 600, 6, 601]) == [True, True, False, False]


def test_gigabytes_are_split_twice_and_put_together_twice() -> None:
    what = logged("pml", {"every": "1ms", "stop": "5ms"}, host_page="1G", memory="1GiB")
    what = what.replace(**{"host.memory": "3GiB"})
    seen = watch(what, [*touches([5], WRITE), ("compute", 30_000_000), *touches([6], WRITE)])
    assert seen.vm.figures.named("dirty_log")["splits"] >= 2
    assert seen.vm.figures.named("dirty_log")["collapses"] == seen.vm.figures.named("dirty_log")["splits"]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("touch"), st.integers(0, 40), st.sampled_from([READ, WRITE])),
        st.tuples(st.just("touch"), st.integers(500, 540), st.sampled_from([READ, WRITE])),
        st.tuples(st.just("unmap"), st.integers(0, 40), st.integers(1, 20)),
        st.tuples(st.just("protect"), st.integers(0, 40), st.integers(1, 20), st.just(1)),
        st.tuples(st.just("fork"), st.just(2)),
        st.tuples(st.just("compute"), st.integers(1, 50_000)),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, page=st.sampled_from(["4K", "2M"]), populate=st.sampled_from(["lazy", "eager"]))
def test_all_methods_find_the_same_pages_however_often_the_log_is_read(
    steps: list[Any], page: str, populate: str
) -> None:
    forks = [number for number, step in enumerate(steps) if step[0] == "fork"]
    steps = [("touch", 0, WRITE), *(step for number, step in enumerate(steps) if number not in forks[1:])]
    found = [
        watch(logged(method, {"every": every, "split": split}, host_page=page, populate=populate), steps).monitor.ever
        for method, every, split in zip(METHODS, ("10s", "20us", "1ms"), ("lazy", "eager", "lazy"), strict=True)
    ]
    assert found[0].any()
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize(
    ("cpu", "mode", "method", "said"),
    [
        ("sandy-bridge", "ept", "ad-scan", "EPT of sandy-bridge has none"),
        ("haswell", "ept", "pml", "haswell has none"),
        ("zen4", "npt", "pml", "NPT has none"),
        ("skylake-x", "native", "write-protect", "mode native has none"),
    ],
)
def test_what_the_cpu_cannot_do_is_refused(cpu: str, mode: str, method: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        scenario(vm()).replace(**{"host.cpu": cpu, "vm.mode": mode, "vm.dirty_log.method": method})


@pytest.mark.parametrize("method", ["write-protect", "ad-scan", "pml"])
@pytest.mark.parametrize("mode", ["ept", "npt"])
def test_a_log_read_more_often_than_an_exit_takes_falls_behind_and_says_so(mode: str, method: str) -> None:
    """Each reading waits until the vCPU has left the guest, and is over before the next one begins.

    A write that has exited is made before the page is protected again, or the VM would never go on, however soon after
    it settles: the horizon is shorter than an exit here.
    """
    if (mode, method) == ("npt", "pml"):
        return
    log = {"method": method, "every": "10 cycles"}
    what = scenario(vm(mode=mode, dirty_log=log, populate="eager"), what_if=True, horizon="100 cycles")
    steps = touches([0, 1, 2, 0, 1, 2], WRITE)
    _, outcome = run(what, [Script([*steps, ("compute", 100_000)])])
    (figures,), cost = outcome.vms, what.cpu.cost
    assert figures.finished
    assert figures.counters["accesses"] == len(steps)
    before = figures.dirty[0]
    left = cost.ipi_send + cost.ipi_latency + cost.ipi_handle + cost.invlpg + cost.vm_exit
    for reading in figures.dirty[1:-1]:  # the last is that at the end
        assert reading.time == before.time + before.cycles + left
        assert reading.late == before.cycles + left - 10
        before = reading
    assert len(figures.dirty) > 5
    assert sum(each.pages for each in figures.dirty) >= 3


def test_a_log_is_read_when_it_is_time_whatever_its_vm_waits_for() -> None:
    """A device works for 10 ms, and nobody is there to exit; then the VM computes for as long, and exits each time."""
    what = logged("write-protect", {"every": "1ms"})
    seen = watch(what, [*touches(range(8), WRITE), ("io", 0, 8, 10_000_000), ("compute", 20_000_000)])
    begun = seen.monitor._started  # before the yardstick's first access
    times = [each.time - begun for each in seen.vm.dirty[:-1]]
    assert times == [2_000_000 * number for number in range(1, len(times) + 1)]
    assert all(each.late == 0 for each in seen.vm.dirty)
    assert 20 <= len(times) <= 21
    assert 10 <= seen.vm.exits["DIRTY_LOG"][0] <= 12
