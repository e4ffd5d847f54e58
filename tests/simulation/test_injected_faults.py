"""Is what comes of a fault defined in every mode: a device's errors, a guest that refuses, memory that runs out?

Each run ends, says what came of it, and gives back every frame and every slot.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.small import PAGE, WRITE, Script, run, scenario, touches, vm
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.record.outcome import Outcome
from vmsim.scenario import Scenario

MODES = ("native", "ept", "npt", "shadow", "agile", "paired", "vkernel")
GUESTS = tuple(mode for mode in MODES if mode != "native")
MARKS = {"min": 16 * PAGE, "low": 24 * PAGE, "high": 32 * PAGE}
POOL = {"min": 2, "max": 8, "batch": 4}
SHADOWED = {"shadow": 240, "agile": 250}
PAGES = 120  # that each program touches
WAIT = ("compute", 60_000_000)  # 30 ms
BUSY = [("touch", 0, WRITE, 700)] * 10_000  # between which the kernel can do something else


def tight(mode: str, *vms: dict[str, Any], frames: int = 230, **host: Any) -> Scenario:
    """Return a host for two VMs of 120 pages each that has 230 frames."""
    tables = [each | {"mode": mode, "memory": "4MiB"} for each in vms or (vm("a"), vm("b"))]
    given = {"memory": frames * PAGE, "cores": len(tables), "pool": POOL, "watermarks": MARKS, "what_if": True}
    return scenario(*tables, **(given | host))


def rounds(count: int = 3) -> list[Any]:
    return touches(range(PAGES), WRITE) * count


def nothing_is_left(simulation: Simulation) -> bool:
    """Whether every frame is free but for those of paired kernels, nothing pinned, and no slot used."""
    host = simulation.host
    kernels = sum(vm.spec.mode == "paired" for vm in simulation.vms)
    left = int((host.frames["state"] != State.FREE).sum())
    swap = host.shrinker and host.shrinker.swap  # type: ignore[attr-defined]
    clean = not swap or (swap.area.used, swap.writing, len(swap.cache)) == (0, 0, 0)
    return left <= 10 * kernels and not host.pins.any() and not host.starving and clean


def ended(outcome: Outcome) -> list[str]:
    return [each.name for each in outcome.vms if not each.finished]


@pytest.mark.parametrize("mode", MODES)
def test_a_device_that_fails_ends_vms_one_by_one_and_loses_nothing(mode: str) -> None:
    """A write that fails is made again; a read that fails ends whose page it is (VM_FAULT_SIGBUS)."""
    what = tight(mode, swap={"device": "nvme", "page_cluster": 0, "read_errors": 0.03, "write_errors": 0.3})
    simulation, outcome = run(what, [Script(rounds())] * 2, every=9_000_011)
    device = outcome.vms[0].figures.named("swap_device")
    assert device["failed_writes"] > 10
    assert device["failed_reads"] > 0
    assert outcome.ending is not None
    assert "could not be read from the device (host.swap.read_errors)" in outcome.ending.message
    for name in ended(outcome):
        assert f"VM {name} ended" in outcome.ending.message
    assert nothing_is_left(simulation)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("work", ["swap", "io"])
def test_a_vm_that_is_stopped_while_a_device_works_on_its_pages_waits_for_it(mode: str, work: str) -> None:
    """For a page that is read back, or for a buffer: it ends when its device is done, which nobody can call off.

    A read takes 200 million cycles; the access that is under way needs five pages at most, four of them tables.
    """
    swap = {"device": "nvme", "read": "constant 100ms", "write": "constant 10ms", "page_cluster": 0}
    frames, steps = (160, touches(range(200), WRITE) * 3) if work == "swap" else (300, [("io", 0, 8, 10**9)])
    what = tight(mode, vm("a", stop="300ms"), frames=frames, swap=swap)
    simulation = Simulation(what, streams=[Script([*touches(range(PAGES), WRITE), *steps])])
    busy: dict[str, int] = {}

    def look() -> Any:
        yield simulation.env.background(599_999_000)
        shrinker: Any = simulation.host.shrinker
        busy.update(swap=shrinker.swap.awaited[0], io=int(simulation.host.pins.sum() > 0))

    simulation.env.process(look())
    outcome = simulation.run()
    assert outcome.ending is None
    assert ended(outcome) == ["a"]
    assert busy == {"swap": work == "swap", "io": work == "io" and mode != "native"}  # whose own kernel pins nothing
    assert 600_000_000 < outcome.vms[0].finish < (600_000_000 + 5 * 200_000_000 if work == "swap" else 2_100_000_000)
    assert nothing_is_left(simulation)


@pytest.mark.parametrize("mode", MODES)
def test_a_page_taken_while_another_vcpu_waits_for_its_frame_is_not_mapped_anew(mode: str) -> None:
    """Both touch it first: one waits for a frame, the other has mapped it, and the host has taken it since."""
    frames = 150 if mode == "native" else SHADOWED.get(mode, 220)
    what = tight(mode, vm("a", vcpus=2), frames=frames, swap={"device": "zram", "policy": "random"})
    script = Script(touches(range(200), WRITE) * 3, threads=2)
    simulation, outcome = run(what.replace(**{"host.cores": 2}), [script], every=500_003)
    assert outcome.ending is None
    assert outcome.vms[0].figures.named("swap")["swapped_in"] > 10
    assert nothing_is_left(simulation)


@pytest.mark.parametrize("mode", GUESTS)
def test_a_vm_whose_file_cannot_be_written_ends_though_another_vcpu_waits_for_that(mode: str) -> None:
    """One has the kernel write a file, a page of which the host cannot bring back; the other waits in fsync."""
    again = touches(range(PAGES), WRITE)
    steps = [*again, ("write_file", 1, 0, 40 * PAGE), ("compute", 200_000), *again, ("sync_file", 1)]
    files = {"disk": "nvme", "dirty": 100, "dirty_background": 100}
    swap = {"device": "nvme", "policy": "random", "page_cluster": 0, "read_errors": 0.05}
    what = tight(mode, vm("a", vcpus=2, files=files), frames=SHADOWED.get(mode, 210) - 20, swap=swap)
    simulation, outcome = run(what.replace(**{"host.cores": 2}), [Script(steps, threads=2)], every=500_003)
    assert outcome.ending is None or "could not be read from the device" in outcome.ending.message
    assert nothing_is_left(simulation)


@pytest.mark.parametrize("mode", GUESTS)
def test_a_pool_that_a_neighbour_empties_is_filled_when_there_is_memory_again(mode: str) -> None:
    """The second VM takes what the host has, and the first one's spare pages; then the first wants some."""
    first = Script([*touches(range(10), WRITE), WAIT, *touches(range(10, 60), WRITE)])
    second = Script([*touches(range(150), WRITE), WAIT])
    tables = vm("a", pool={"min": 2, "max": 60, "batch": 60}), vm("b", start="1ms")
    simulation, outcome = run(tight(mode, *tables, frames=SHADOWED.get(mode, 215)), [first, second], every=5_000_011)
    assert outcome.ending is None
    spared = [each for each in outcome.transfers if each.vm == "a" and each.what == "spare"]
    assert sum(each.pages for each in spared) > 20
    one, other = outcome.vms
    assert one.cycles["pool_wait"] > 10_000
    assert one.finish > other.finish  # it went on when that had ended
    assert nothing_is_left(simulation)


def short_of_memory(mode: str, oom: str | None, **host: Any) -> tuple[Simulation, Outcome]:
    """Run `big`, which has most pages, `late`, started last, and `asker`, which then wants more than there is."""
    tables = vm("asker"), vm("big"), vm("late", start="2ms")
    streams = [
        Script([*touches(range(30), WRITE), WAIT, *touches(range(30, 80), WRITE)]),
        Script([*touches(range(150), WRITE), WAIT, WAIT, WAIT]),
        Script([*touches(range(80), WRITE), WAIT, WAIT, WAIT]),
    ]
    frames = {"native": 305, "paired": 370, "shadow": 360, "agile": 370}.get(mode, 340)
    return run(tight(mode, *tables, frames=frames, oom=oom, **host), streams, every=9_000_011)


@pytest.mark.parametrize(
    ("mode", "oom", "victim"),
    [*((mode, "largest", "big") for mode in MODES), ("ept", "newest", "late"), ("ept", "asker", "asker")],
)
def test_a_host_out_of_memory_ends_the_vm_that_its_policy_says(mode: str, oom: str, victim: str) -> None:
    """No swap device: the host waits for 16 ms, whether anything comes free, and the others run to their ends."""
    simulation, outcome = short_of_memory(mode, oom)
    assert ended(outcome) == [victim]
    assert outcome.ending is not None
    assert outcome.ending.vm == victim
    assert f"The host has ended VM {victim}" in outcome.ending.message
    assert f'(host.oom = "{oom}")' in outcome.ending.message
    assert outcome.vms[0].figures.named("oom") == {"killed": 1}
    assert nothing_is_left(simulation)


def test_where_nobody_is_to_end_who_asks_waits_for_memory_to_come_back() -> None:
    simulation, outcome = short_of_memory("ept", "none")
    assert outcome.ending is None
    assert outcome.vms[0].finish > outcome.vms[1].finish
    assert outcome.vms[0].cycles["pool_wait"] > 10**8
    assert nothing_is_left(simulation)


@pytest.mark.parametrize("mode", GUESTS)
def test_a_guest_that_refuses_has_a_balloon_as_large_as_it_likes(mode: str) -> None:
    table = vm(mode=mode, balloon={"size": "1MiB", "refuses": "64KiB", "message": 8}, memory="2MiB", populate="eager")
    what = scenario(table, cpu_override={"cost": {"balloon_message": 20_000}}, what_if=True)
    simulation, outcome = run(what, [Script([*touches(range(9), WRITE), *BUSY])], every=5_000_011)
    (told,) = outcome.vms
    assert (told.memory["balloon"], told.memory["balloon_target"]) == (16, 256)
    driver = told.figures.named("balloon_driver")
    assert (driver["inflated"], driver["inflate"], driver["refused"]) == (16, 2, 1)
    assert nothing_is_left(simulation)


@pytest.mark.parametrize("refuses", [True, False])
def test_esx_swaps_where_a_guest_does_not_fill_its_balloon(refuses: bool) -> None:
    """In state soft balloons alone are used, and paging "only in cases where ballooning is not possible" (§6.3)."""
    balloon = {"max": "2000KiB", "message": 16, "retry": "100us"} | ({"refuses": "0B"} if refuses else {})
    esx = {"soft": 20.0, "high": 21.0, "hard": 0.0, "low": 0.0, "sample_period": "1ms"}
    table = {"policy": "esx", "every": "200us", "patience": "1ms"}
    tables = [vm(name, memory="2MiB", balloon=balloon, populate="eager") for name in "ab"]
    host = {
        "memory": 1100 * PAGE,
        "cores": 3,
        "pool": POOL,
        "overcommit": table,
        "esx": esx,
        "swap": {"device": "nvme"},
    }
    what = scenario(*tables, **host, cpu_override={"cost": {"balloon_message": 20_000}})
    simulation, outcome = run(what, [Script([*touches(range(150), WRITE), *BUSY])] * 2)
    assert outcome.ending is None
    told = [each.figures.named("overcommit") for each in outcome.vms]
    assert all((each["swapped"] > 0, each.get("stuck", 0) > 0) == (refuses, refuses) for each in told)
    assert nothing_is_left(simulation)


@pytest.mark.parametrize("mode", ["ept", "vkernel"])  # the rule is the policy's, whatever the mode
def test_a_policy_that_looks_more_often_than_a_page_comes_back_lets_vms_get_on(mode: str) -> None:
    """Each look takes pages that are read for 200 us, ten looks; but none from who has not used those that came."""
    script = Script(touches(range(25), WRITE) * 2)
    esx = {"low": 90.0, "hard": 91.0, "soft": 92.0, "high": 93.0, "sample_period": "1ms"}
    table = {"policy": "esx", "every": "20us"}
    swap = {"device": "nvme", "read": "constant 200us", "page_cluster": 0}
    what = scenario(
        vm(mode=mode, memory="2MiB"), memory=450 * PAGE, cores=2, what_if=True, overcommit=table, esx=esx, swap=swap
    )
    simulation, outcome = run(what, [script], events=200_000)
    assert outcome.ending is None
    assert outcome.vms[0].figures.named("overcommit")["spared"] > 0
    assert nothing_is_left(simulation)


@pytest.mark.parametrize("mode", MODES)
def test_a_vm_that_ends_waits_no_longer_for_frames_when_the_reserve_is_used_up(mode: str) -> None:
    """Of 40 vCPUs that ask for frames at once, not even the reserve of 16 serves all; the VM ends all the same."""
    steps = touches(range(2_000), WRITE)
    what = tight(mode, vm("a", vcpus=40), frames=600, cores=40, oom="largest")
    simulation, outcome = run(what, [Script(steps, threads=40)])
    assert outcome.ending is not None
    assert "The host has ended VM a" in outcome.ending.message
    assert nothing_is_left(simulation)
