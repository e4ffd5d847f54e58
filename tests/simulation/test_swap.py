"""Does a host that has too little memory for its VMs run on with a swap device, in every mode, and lose nothing?"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.simulation.small import PAGE, READ, WRITE, Script, digest, run, scenario, time_adds_up, touches, vm
from vmsim.contracts import SwapPlace, VmStopped
from vmsim.engine.check.host import BrokenInvariant
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.host.daemons.swap.daemon import Kswapd
from vmsim.host.swap.memory import SwappableMemory
from vmsim.host.swap.pages import SwappedPages
from vmsim.host.swap.swap import Swap
from vmsim.record.outcome import Outcome

MODES = ("native", "ept", "npt", "shadow", "agile", "paired", "vkernel")
PAGES = 300  # that each program touches
FRAMES = 460  # of the host, for two of them
MARKS = {"min": 16 * PAGE, "low": 24 * PAGE, "high": 32 * PAGE}
ROUNDS = 3


def steps(rounds: int = ROUNDS, kind: int = WRITE) -> list[Any]:
    return [step for _ in range(rounds) for step in (*touches(range(PAGES), kind), ("compute", 300_000))]


def crowd(mode: str, *, vcpus: int = 1, frames: int = FRAMES, swap: dict[str, Any] | None = None, **keys: Any) -> Any:
    """Return a host for two VMs in a mode, a few hundred frames short."""
    tables = [vm(name, mode=mode, memory="4MiB", vcpus=vcpus, **keys) for name in "ab"]
    given: dict[str, Any] = {"swap": {"device": "nvme"} | (swap or {})}
    pool = {"min": 2, "max": 8, "batch": 4}
    host = {"memory": frames * PAGE, "cores": 2 * vcpus, "pool": pool, "watermarks": MARKS, "what_if": True}
    return scenario(*tables, **host, **given)


def out(outcome: Outcome, name: str) -> dict[str, int]:
    """Return the sum of a component's counters over the VMs."""
    each = [vm.figures.named(name) for vm in outcome.vms]
    return {figure: sum(counts[figure] for counts in each) for figure in each[0]}


@pytest.mark.parametrize(
    ("mode", "vcpus"), [*((mode, 1) for mode in MODES), *((mode, 2) for mode in ("native", "ept", "shadow"))]
)
def test_what_does_not_fit_is_swapped_and_every_program_ends(mode: str, vcpus: int) -> None:
    what = crowd(mode, vcpus=vcpus)
    script = Script(steps())
    simulation, outcome = run(what, [script, script], every=9_000_011)
    assert outcome.ending is None
    assert all(each.finished and each.counters["accesses"] == ROUNDS * PAGES for each in outcome.vms)
    counts = out(outcome, "swap")
    assert counts["swapped_out"] >= counts["swapped_in"] > 2 * PAGES - FRAMES
    assert counts["swapped_in"] == counts["major"] + counts["minor"]
    waited = [each.cycles["swap_wait"] for each in outcome.vms]
    assert sum(waited) >= counts["major"] * 1000
    if vcpus == 1:
        assert time_adds_up(outcome)
    host = simulation.host
    kernels = int((host.frames["owner"] == -1).sum()) if mode == "paired" else 0
    assert mode == "paired" or (host.frames["state"] == State.FREE).all()
    assert kernels < 20
    swap = simulation.vms[0].pages.swapped.swap  # type: ignore[union-attr]
    assert (swap.area.used, swap.writing, len(swap.cache)) == (0, 0, 0)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "paired"])
@pytest.mark.parametrize("cpu", ["yardstick", "skylake-x"])  # whose EPT has no accessed flags, and has them
def test_generations_are_aged_and_evicted_in_every_mode(mode: str, cpu: str) -> None:
    hot = touches(range(0, PAGES, 3), READ)
    steps = [*touches(range(PAGES), WRITE)]
    for page in range(0, PAGES, 20):
        steps += [*touches(range(page, page + 20), READ), *hot]
    what = crowd(mode, swap={"policy": "mglru", "page_cluster": 0}, vcpus=2 if mode == "ept" else 1)
    simulation, outcome = run(what.replace(**{"host.cpu": cpu}), [Script(steps)] * 2, every=20_000_003)
    assert outcome.ending is None
    counts = outcome.vms[0].figures.named("page_lists")
    assert counts["aged"] > 2
    assert counts["scanned"] > 100
    assert (simulation.host.frames["state"] == State.FREE).all()


@pytest.mark.parametrize("mode", ["native", "ept"])
def test_without_a_swap_device_the_same_host_is_out_of_memory(mode: str) -> None:
    _, outcome = run(crowd(mode, swap={"device": "none"}), [Script(steps())] * 2)
    assert outcome.ending is not None
    assert "out of memory" in outcome.ending.message


@pytest.mark.parametrize(
    ("device", "policy"),
    [("hdd", "two-list"), ("sata", "clock"), ("sata", "random"), ("nvme", "mglru"), ("zram", "two-list")],
)
def test_every_device_takes_what_every_policy_chooses(device: str, policy: str) -> None:
    what = crowd("ept", swap={"device": device, "policy": policy})
    simulation, outcome = run(what, [Script(steps(2))] * 2, every=2_000_000_003 if device == "hdd" else 7_000_003)
    assert outcome.ending is None
    assert out(outcome, "swap")["swapped_in"] > 100
    assert (simulation.host.frames["state"] == State.FREE).all()
    assert (out(outcome, "swap")["major"] == 0) == (device == "zram")


@pytest.mark.parametrize(
    ("mode", "vcpus"), [*((mode, 1) for mode in MODES if mode != "paired"), ("ept", 2), ("shadow", 2)]
)
@pytest.mark.parametrize("cpu", ["yardstick", "skylake-x"])  # whose EPT has no flags, and has them
def test_a_page_that_was_only_read_since_it_came_back_is_not_written_again(mode: str, vcpus: int, cpu: str) -> None:
    """Written once, and read ever after: each page of data is written to the device once, and tables when they change.

    The device is large enough for all: where half of its slots are used, pages that come back give theirs up.
    """
    if (mode, cpu) in {("npt", "skylake-x")}:
        pytest.skip("no CPU of AMD's")
    script = Script([*touches(range(PAGES), WRITE), *steps(4, READ)])
    what = crowd(mode, vcpus=vcpus, swap={"size": 4096 * PAGE}).replace(**{"host.cpu": cpu})
    simulation, outcome = run(what, [script, script], every=9_000_011)
    assert outcome.ending is None
    counts, device = out(outcome, "swap"), outcome.vms[0].figures.named("swap_device")
    assert 2 * PAGES - FRAMES < device["writes"] < 2 * (PAGES + 60)
    assert counts["clean"] == counts["swapped_out"] - device["writes"] > 1000
    swap = simulation.vms[0].pages.swapped.swap  # type: ignore[union-attr]
    assert (swap.area.used, swap.writing, len(swap.cache)) == (0, 0, 0)


@pytest.mark.parametrize(("mode", "seed"), [*(("native", seed) for seed in (2, 4)), *((mode, 2) for mode in MODES[1:])])
def test_equal_pages_that_come_and_go_are_merged_in_every_mode(mode: str, seed: int) -> None:
    """A program's page in the swap cache whose dirty flag was lost on its way cannot be shared; others go on."""
    content = {"image": "x", "image_share": 0.6, "unique_share": 0.2, "volatile": 0.5}
    ksm = {"host.ksm.run": 1, "host.ksm.sleep_millisecs": 1, "host.ksm.pages_to_scan": 100}
    random, steps = Random(seed), list[Any]()
    for _ in range(6 if mode == "native" else 2):
        steps += [("touch", page, random.choice((READ, WRITE))) for page in random.sample(range(PAGES), PAGES)]
        steps.append(("compute", 3_000_000))
    policy = "clock" if mode == "native" else "two-list"
    what = crowd(mode, content=content, swap={"policy": policy}).replace(**ksm)
    simulation, outcome = run(what, [Script(steps)] * 2, every=100_000_003)
    assert outcome.ending is None
    assert out(outcome, "ksm")["merged"] > 0
    assert out(outcome, "swap")["swapped_in"] > 100
    assert simulation.host.free >= simulation.host.size - 20  # of paired kernels


@pytest.mark.parametrize("policy", ["clock", "random"])
@pytest.mark.parametrize("mode", ["shadow", "agile", "vkernel"])
def test_tables_that_a_monitor_reads_stay_until_it_has_read_them(mode: str, policy: str) -> None:
    """No entry says that a table was read: two VMs took each other's before they were, and never went on."""
    random = Random(3)
    steps = [step for _ in range(3) for step in touches(random.sample(range(PAGES), PAGES), WRITE)]
    what = crowd(mode, swap={"policy": policy})
    _, outcome = run(what, [Script(steps)] * 2, every=100_000_003)
    assert outcome.ending is None
    assert out(outcome, "swap")["swapped_in"] > 100


def test_a_write_to_a_page_that_came_back_to_be_read_is_one_more_violation_and_gives_its_slot_up() -> None:
    """Read, then written: the second violation is a walk, the host's fault and an entry, and takes no page."""
    pages = range(40)
    script = Script(
        [*touches(range(PAGES), WRITE), ("compute", 3_000_000), *touches(pages, READ), *touches(pages, WRITE)]
    )
    what = crowd("ept", frames=2000)
    simulation = Simulation(what, streams=[script, Script([*touches(range(4), WRITE)])])
    machine, seen = simulation.vms[0], dict[str, Any]()

    def take() -> Any:
        yield simulation.env.timeout(2_500_000)
        slot: Any = machine.slot
        gfns = slot.present()
        data = gfns[machine.kernel.frames.frames["state"][gfns] == State.GUEST]
        machine.forget(slot.take_each(data))
        seen["slots"], seen["exits"] = simulation.vms[0].pages.swapped.swap.area.used, dict(machine.monitor.exits)  # type: ignore[union-attr]

    simulation.env.process(take())
    outcome = simulation.run()
    assert outcome.ending is None
    counts = outcome.vms[0].figures.named("swap")
    assert seen["slots"] >= PAGES
    assert counts["swapped_in"] == len(pages)
    assert machine.monitor.exits["EPT_VIOLATION"] - seen["exits"]["EPT_VIOLATION"] == 2 * len(pages)
    assert machine.pages.broken == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["native", "ept"])
def test_a_page_that_is_written_again_goes_to_the_device_again(mode: str) -> None:
    _, outcome = run(crowd(mode), [Script(steps(4))] * 2)
    assert out(outcome, "swap")["clean"] == 0


@pytest.mark.parametrize("mode", ["native", "ept", "shadow"])
def test_forks_unmaps_and_moves_find_what_is_swapped_out(mode: str) -> None:
    """A child reads what its parent has on the device; what is unmapped there leaves it.

    Pages that both have are not taken from programs on the host itself: with 520 frames all of them can be such.
    """
    script = [
        *touches(range(PAGES), WRITE),
        ("fork", 2),
        ("switch", 2),
        *touches(range(0, PAGES, 3), READ),
        *touches(range(1, PAGES, 3), WRITE),
        ("unmap", 0, 50),
        ("exit", 2),
        ("by", 1),
        ("move", 100, 40, 400),
        ("discard", 200, 50),
        ("unmap", 0, 60),
        *touches(range(60, 100), READ),
        *touches(range(400, 440), WRITE),
        *touches(range(150, PAGES), READ),
    ]
    simulation, outcome = run(crowd(mode, frames=560), [Script(script)] * 2, every=1_000_003)
    assert outcome.ending is None
    assert out(outcome, "swap")["swapped_in"] > 50
    assert (simulation.host.frames["state"] == State.FREE).all()
    assert simulation.vms[0].pages.swapped.swap.area.used == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["native", "ept"])
@pytest.mark.parametrize(("oom", "ended"), [("largest", 1), ("newest", 1), ("asker", 1), ("none", 2)])
def test_where_the_device_is_full_too_a_vm_is_ended(mode: str, oom: str, ended: int) -> None:
    """Of two, and the other one runs on; or nobody is, and both are suspended for good."""
    what = crowd(mode, swap={"size": 32 * PAGE}).replace(**{"host.oom": oom})
    simulation, outcome = run(what, [Script(steps())] * 2, every=5_000_003)
    assert outcome.ending is not None
    assert sum(not each.finished for each in outcome.vms) == ended
    if ended == 1:
        assert "host.oom" in outcome.ending.message
        assert outcome.vms[0].figures.named("kswapd")["killed"] == 1
        assert (simulation.host.frames["state"] == State.FREE).all()
    else:
        assert "out of memory" in outcome.ending.message


@pytest.mark.parametrize("mode", ["native", "ept", "vkernel"])
def test_a_page_that_cannot_be_read_ends_its_vm_alone(mode: str) -> None:
    what = crowd(mode, swap={"read_errors": 0.03})
    simulation, outcome = run(what, [Script(steps(5))] * 2, every=5_000_003)
    assert outcome.ending is not None
    assert "could not be read" in outcome.ending.message
    swap = simulation.vms[0].pages.swapped.swap  # type: ignore[union-attr]
    assert (swap.area.used, swap.writing, len(swap.cache)) == (0, 0, 0)
    assert mode == "paired" or (simulation.host.frames["state"] == State.FREE).all()


@pytest.mark.parametrize("mode", ["native", "ept"])
def test_a_page_that_cannot_be_written_stays_and_is_written_later(mode: str) -> None:
    what = crowd(mode, swap={"write_errors": 0.2})
    simulation, outcome = run(what, [Script(steps())] * 2, every=5_000_003)
    assert outcome.ending is None
    device = outcome.vms[0].figures.named("swap_device")
    assert device["failed_writes"] > 20
    assert (simulation.host.frames["state"] == State.FREE).all()


@pytest.mark.parametrize("mode", ["native", "ept"])
def test_a_vm_that_ends_while_the_device_works_on_its_pages_leaks_nothing(mode: str) -> None:
    """The disk is slow, and the short program is over long before what was taken from it is written."""
    what = crowd(mode, swap={"write": "constant 500ms"})
    simulation, outcome = run(what, [Script(steps(1)), Script(steps(1))])
    assert outcome.ending is None
    assert outcome.end > max(each.finish for each in outcome.vms) + 10**8
    assert (simulation.host.frames["state"] == State.FREE).all()


def test_one_seed_is_one_result() -> None:
    what = crowd("ept", swap={"device": "sata", "read": "exponential 100us", "policy": "random"})
    assert digest(run(what, [Script(steps(2))] * 2)[1]) == digest(run(what, [Script(steps(2))] * 2)[1])


def test_pages_that_follow_one_another_are_read_ahead() -> None:
    one, many = (
        run(crowd("ept", swap={"page_cluster": cluster}), [Script(steps())] * 2)[1].vms[0].figures.named("swap")
        for cluster in (0, 3)
    )
    assert one["read_ahead"] == 0
    assert many["read_ahead_hits"] > 20
    assert many["major"] < one["major"]


def test_a_program_that_reads_on_waits_for_every_eighth_page() -> None:
    """The first fault reads its page and four behind it; a hit is where the next window goes on: 8 pages forwards."""
    pages = range(5 + 8 * 6)
    script = Script([*touches(range(PAGES), WRITE), ("compute", 3_000_000), *touches(pages, READ)])
    simulation = Simulation(crowd("ept", frames=2000), streams=[script, Script([*touches(range(4), WRITE)])])
    machine = simulation.vms[0]

    def take() -> Any:
        yield simulation.env.timeout(2_500_000)
        slot: Any = machine.slot
        gfns = slot.present()
        machine.forget(slot.take_each(gfns[machine.kernel.frames.frames["state"][gfns] == State.GUEST]))

    simulation.env.process(take())
    outcome = simulation.run()
    assert outcome.ending is None
    counts = outcome.vms[0].figures.named("swap")
    assert counts["swapped_in"] == len(pages)
    assert counts["major"] == 1 + 6


def test_nobody_takes_more_pages_while_enough_are_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """kswapd works up to the high watermark, and who waits takes pages below the low one: what is written counts."""
    shrink, seen = Kswapd._shrink, dict[str, set[bool]]()

    def look(kswapd: Kswapd, priority: int, *given: Any, **keys: Any) -> Any:
        coming, marks = kswapd.host.free + kswapd.swap.writing, kswapd.host.marks
        direct = keys["enough"] == 32
        below = coming < (marks.low if direct else marks.high)
        if priority == 12 or not direct:  # it goes on down to 0 at once where too few are found
            seen.setdefault("direct" if direct else "kswapd", set()).add(below or not kswapd.swap.writing)
        return shrink(kswapd, priority, *given, **keys)

    monkeypatch.setattr(Kswapd, "_shrink", look)
    _, outcome = run(crowd("ept", swap={"write": "constant 300us"}), [Script(steps())] * 2)
    assert outcome.ending is None
    assert seen["kswapd"] == {True}
    assert seen.get("direct", {True}) == {True}


@pytest.mark.parametrize("mode", ["ept", "shadow", "agile", "vkernel"])
def test_compiled_code_brings_pages_back_as_the_process_does(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that were read ahead lie in the swap cache: whoever handles the fault, all figures are the same."""
    came_back = SwappedPages.brought
    noted = [0]

    def brought(pages: SwappedPages, *waited: Any) -> None:
        noted[0] += int(pages.swap.area.state[SwapPlace.BROUGHT])
        came_back(pages, *waited)

    monkeypatch.setattr(SwappedPages, "brought", brought)
    script = Script([*steps(2, WRITE), *steps(1, READ)])
    compiled = digest(run(crowd(mode), [script] * 2, every=9_000_011)[1])
    assert noted[0] > 20
    monkeypatch.setattr(SwappableMemory, "cached", lambda memory, gfns, pfns: None)
    assert digest(run(crowd(mode), [script] * 2, check=None)[1]) == compiled


@pytest.mark.parametrize("mode", ["ept", "shadow"])
def test_pages_are_read_by_compiled_code_as_by_the_process(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each read takes as long and none fails a kernel begins it; the long way gives the same figures."""
    begin, begun = Swap.begin_read, [0]

    def count(swap: Swap, *given: Any) -> int:
        begun[0] += 1
        return begin(swap, *given)

    monkeypatch.setattr(Swap, "begin_read", count)
    script = Script([*steps(2, WRITE), *steps(1, READ)])
    compiled = digest(run(crowd(mode), [script] * 2, every=9_000_011)[1])
    assert begun[0] > 20
    monkeypatch.setattr(Swap, "steady", False)
    assert digest(run(crowd(mode), [script] * 2, check=None)[1]) == compiled


def test_vcpus_that_wait_for_frames_read_what_is_around_their_own_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look for what is read with a page and its read another vCPU looks, at a page far away."""
    workload = {"kind": "uniform", "footprint": "12MiB", "accesses": 20_000, "compute": 20_000, "threads": 4}
    host = {"memory": "10MiB", "pool": {"min": 4, "max": 16, "batch": 8}, "swap": {"device": "nvme"}, "cores": 4}
    machine = vm(mode="vkernel", memory="16MiB", vcpus=4, workload={**workload, "writes": 0.5})
    what = scenario(machine, cpu="skylake-x", what_if=True, **host)
    compiled = Simulation(what).run()
    assert out(compiled, "swap")["read_ahead"] > 0
    monkeypatch.setattr(Swap, "steady", False)
    assert digest(Simulation(what).run()) == digest(compiled)


def test_a_page_table_comes_back_as_it_was() -> None:
    """Every page is taken between two rounds, the guest's tables among them, and is where the guest left it."""
    what = crowd("ept", frames=3000)
    script = Script([*steps(1), ("compute", 8_000_000), *steps(1)])
    simulation = Simulation(what, streams=[script] * 2)
    before: dict[int, Any] = {}

    def take_all() -> Any:
        yield simulation.env.timeout(4_000_000)
        for machine in simulation.vms:
            slot: Any = machine.slot
            gfns = slot.present()
            before[machine.spec.index] = {gfn: slot.page(gfn).copy() for gfn in gfns.tolist()}
            machine.forget(slot.take_each(gfns))
            for gfn, words in before[machine.spec.index].items():
                assert (slot.page(gfn) == words).all()

    simulation.env.process(take_all())
    outcome = simulation.run()
    assert outcome.ending is None
    assert all(any(words.any() for words in pages.values()) for pages in before.values())
    assert out(outcome, "swap")["swapped_in"] > PAGES


def test_a_slot_that_holds_another_page_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from vmsim.host.swap.area import SwapArea

    real = SwapArea.holding
    monkeypatch.setattr(SwapArea, "holding", lambda self, slot: real(self, slot)._replace(number=-1))
    with pytest.raises((BrokenInvariant, VmStopped), match="swap: slot"):
        run(crowd("ept"), [Script(steps())] * 2, every=2_000_003)


@pytest.mark.parametrize(("oom", "said"), [("largest", "The host has ended VM"), ("none", "out of memory")])
def test_a_device_that_takes_nothing_ends_a_vm_and_not_in_waiting(oom: str, said: str) -> None:
    script = Script(steps())
    what = crowd("ept", swap={"write_errors": 1.0}).replace(**{"host.oom": oom})
    _, outcome = run(what, [script, script], check=None)
    assert outcome.ending is not None
    assert said in outcome.ending.message
    assert sum(each.finished for each in outcome.vms) == (1 if oom == "largest" else 0)
