"""Is the memory of a host noted as it is, at the times that are asked for, without anybody noticing?"""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.small import WRITE, Script, run, scenario, touches, vm
from vmsim.base.clock import Clock
from vmsim.engine.vcpu_time import VcpuTime
from vmsim.host.pressure import Pressure
from vmsim.record.outcome import Outcome
from vmsim.record.tables import TABLES, rows

GUESTS = ["ept", "npt", "shadow", "agile", "paired", "vkernel"]
MODES = ["native", *GUESTS]
CPU = {"npt": "zen2"}
FREQUENCY = 3_300_000_000


def memory(outcome: Outcome, name: str) -> list[dict[str, Any]]:
    return [row for row in rows("memory", outcome) if row["vm"] == name]


def at(outcome: Outcome, row: dict[str, Any]) -> dict[str, Any]:
    """Return the host's row of the same time."""
    return next(each for each in memory(outcome, "") if each["time_cycles"] == row["time_cycles"])


def told(outcome: Outcome) -> dict[str, Any]:
    """Return all that a run measured but the samples themselves."""
    made = {name: rows(name, outcome) for name in TABLES if name != "memory"}
    made["figures"] = [row for row in made["figures"] if row["component"] != "memory"]
    return made


@pytest.mark.parametrize("mode", MODES)
def test_looking_changes_nothing(mode: str) -> None:
    """Two VMs of two vCPUs on two cores, on a host that is short of memory and swaps."""
    churn = {"kind": "churn", "footprint": "1MiB", "burst": "64KiB", "rounds": 60, "work": 40, "threads": 2}
    vms = [vm(name, mode=mode, vcpus=2, memory="2MiB") | {"workload": churn} for name in "ab"]
    outcomes = []
    for every in ({}, {"samples": "7us"}):
        what = scenario(*vms, memory="2MiB", cores=2, cpu=CPU.get(mode, "yardstick"), swap={"device": "nvme"}, **every)
        outcomes.append(run(what)[1])
    assert told(outcomes[0]) == told(outcomes[1])
    assert memory(outcomes[0], "") == []
    assert len(memory(outcomes[1], "")) > 5


def test_rows_are_at_multiples_of_the_time_asked_for() -> None:
    _, outcome = run(scenario(vm(), samples="1us"))
    times = [row["time_cycles"] for row in memory(outcome, "")]
    step = times[0]
    assert times == [step * number for number in range(1, 1 + outcome.end // step)][: len(times)]
    assert outcome.end - times[-1] <= step
    assert memory(outcome, "vm")[-1]["time_cycles"] <= outcome.vms[0].finish


def test_means_are_of_all_rows() -> None:
    _, outcome = run(scenario(vm(), samples="1us"))
    noted = {
        row["figure"]: row["value"] for row in rows("figures", outcome) if row["component"] == "memory" and row["vm"]
    }
    mine = memory(outcome, "vm")
    assert noted["noted"] == len(mine) > 10
    assert noted["mean_resident"] == sum(row["resident"] for row in mine) // len(mine) > 0


@pytest.mark.parametrize("mode", GUESTS)
def test_pages_that_a_guest_frees_stay_resident_and_are_the_gap(mode: str) -> None:
    """By hand: 100 pages written and unmapped; then 10,000 cycles in which samples are taken."""
    steps = [("map", 0, 100), *touches(range(100), WRITE), ("unmap", 0, 100), *touches([200]), ("compute", 10**6)]
    what = scenario(vm(mode=mode, memory="4MiB"), cpu=CPU.get(mode, "yardstick"), samples="10us")
    _, outcome = run(what, [Script(steps)])
    last = memory(outcome, "vm")[-1]
    free_at_first = 1024 - last["guest_free"]
    assert last["free_resident"] >= 99  # the page touched last has one of the frames
    assert last["resident"] >= last["free_resident"] + 1
    assert 0 < free_at_first < 60  # tables of the guest, its page of zeros, the page
    host = at(outcome, last)
    assert host["resident"] == last["resident"]
    assert host["host_free"] + host["resident"] + host["tables"] + host["pool"] == 4096


def test_equal_pages_are_one_frame_of_the_host_and_one_of_each_vm() -> None:
    steps = [*touches(range(32)), ("compute", 10**9)]
    content = {"image": "os"}
    vms = [vm(name, mode="ept", content=content) for name in "ab"]
    ksm = {"run": 1, "pages_to_scan": 1000, "sleep_millisecs": 1}
    what = scenario(*vms, cores=2, ksm=ksm, samples="1ms")
    _, outcome = run(what, [Script(steps), Script(steps)])
    a, b = (memory(outcome, name)[-2] for name in "ab")
    host = at(outcome, a)
    assert a["shared"] >= 32
    assert host["shared"] == a["shared"] + b["shared"]
    saved = a["resident"] + b["resident"] - host["resident"]
    assert saved >= 32
    assert host["host_free"] + host["resident"] + host["tables"] + host["pool"] == 4096


@pytest.mark.parametrize("mode", MODES)
def test_what_is_swapped_out_is_not_resident(mode: str) -> None:
    """A program goes over 400 pages on a host that has fewer than that to give."""
    steps = [*touches(range(400), WRITE), ("compute", 10**6)]
    keys = {} if mode == "native" else {"memory": "2MiB"}
    cpu = CPU.get(mode, "yardstick")
    swap = {"device": "zram", "ratio": 4.0}
    what = scenario(
        vm(mode=mode, **keys), memory="1280KiB", cpu=cpu, pool={"min": 4, "max": 16}, swap=swap, samples="20us"
    )
    _, outcome = run(what, [Script(steps)])
    assert outcome.ending is None
    last = memory(outcome, "vm")[-1]
    assert last["swapped"] > 50
    assert last["resident"] < 330


def test_stalls_are_counted_as_by_psi() -> None:
    """By hand, two vCPUs: 10 cycles one waits for memory, 5 both do, 3 one while the other has nothing to do."""
    clock = Clock()
    host = Pressure(clock)
    vms = Pressure(clock, host), Pressure(clock, host)
    for each in vms:
        each.enter()

    def pass_time(cycles: int) -> None:
        clock.timeout(cycles)
        clock.run()

    pass_time(100)
    vms[0].leave(stalled=True)
    pass_time(10)
    vms[1].leave(stalled=True)
    pass_time(5)
    vms[1].enter(stalled=True)
    vms[1].leave()
    pass_time(3)
    vms[0].enter(stalled=True)
    pass_time(50)
    now = clock.cycle
    assert vms[0].read(now) == (18, 18)  # alone in its VM
    assert vms[1].read(now) == (5, 5)
    assert host.read(now) == (18, 8)


@pytest.mark.parametrize(("cause", "told"), [("limit_wait", (7, 7)), ("swap_wait", (7, 7)), ("io_wait", (0, 0))])
def test_waits_for_memory_are_pressure_and_others_are_none(cause: str, told: tuple[int, int]) -> None:
    """A limit's too: Linux mm/memcontrol.c, __mem_cgroup_handle_over_high, sleeps within psi_memstall_enter."""
    clock = Clock()
    vcpu, pressure = VcpuTime(clock, (cause,)), Pressure(clock)
    pressure.enter()
    vcpu.pressure = pressure
    clock.process(vcpu.until(clock.timeout(7), cause))
    clock.run()
    assert pressure.read(clock.cycle) == told


def test_a_vm_whose_pool_is_slow_is_under_pressure_and_its_host_as_long() -> None:
    steps = [*touches(range(300), WRITE)]
    what = scenario(vm(), pool={"min": 0, "max": 8, "batch": 8}, samples="1us")
    _, outcome = run(what, [Script(steps)])
    figures = outcome.vms[0].cycles
    rows_ = memory(outcome, "vm")
    waited = sum(row["some_cycles"] for row in rows_)
    assert 0.9 * figures["pool_wait"] < waited <= figures["pool_wait"]
    assert all(row["full_cycles"] == row["some_cycles"] for row in rows_)  # nobody else is there
    assert sum(row["some_cycles"] for row in memory(outcome, "")) >= waited


def test_sweeps_have_means_of_samples_as_figures(tmp_path: Any) -> None:
    import vmsim

    what = scenario(vm(), samples="1us")
    table = vmsim.sweep(what, {"seed": [1]}, figures={"resident": "memory.mean_resident"}, out=tmp_path / "s", jobs=1)
    noted = [row["value"] for row in rows("figures", run(what)[1]) if row["figure"] == "mean_resident" and row["vm"]]
    assert table["resident"].tolist() == noted
