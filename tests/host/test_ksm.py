"""Does ksmd look at pages, have equal ones share a frame, and let writes part them, as Linux's does?"""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.hosts import mappings
from tests.oracle.ksm import VOLATILE, ZEROS, Item, Ksm
from tests.simulation.small import BASE, PAGE, WRITE, Script, run, scenario, time_adds_up, touches, vm
from tests.simulation.test_native_reclaim import STEPS
from vmsim.base.errors import InputError
from vmsim.engine.check.host import check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.host.daemons.ksm.advisor import ScanTimeAdvisor
from vmsim.host.daemons.ksm.daemon import Ksmd

MODES = ("native", "ept", "npt", "shadow", "agile", "vkernel", "paired")
IDLE = ("compute", 120_000_000)

# Pages 0 to 39 are read, every third of them is written to; later some of all are.
LONG = ("compute", 200_000_000)
READ_THEN_WRITTEN: list[Any] = [*touches(range(40)), *touches(range(0, 40, 3), WRITE)]
STEPS_OF_TWIN: list[Any] = [*READ_THEN_WRITTEN, LONG, *touches(range(20), WRITE), LONG]


def items_of(machine: Any, name: str) -> dict[int, Item]:
    """Return what ksmd sees of a VM, by frame, as the script says what pages hold; tables change all the time."""
    states = machine.kernel.frames.frames["state"]
    found = {int(gfn): Item(VOLATILE) for gfn in machine.slot.present() if states[gfn] == State.TABLE}
    for (_, gva), (gfn, _) in mappings(machine).items():
        page = (gva - BASE) // PAGE
        first = ZEROS if name == "c" else ("image", page)
        found[gfn] = Item(("own", name, page) if page % 3 == 0 else first)
    return found


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"smart_scan": False},
        {"max_page_sharing": 2},
        {"max_page_sharing": 3, "pages_to_scan": 17, "sleep_millisecs": 2},
        {"use_zero_pages": True, "pages_to_scan": 33},
    ],
    ids=str,
)
def test_it_counts_what_a_plain_reading_of_the_kernel_counts(
    keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch by batch: pages looked at, left out and merged, frames saved; and at last pages copied for writes."""
    twins: list[Ksm] = []
    gfns: list[dict[int, Item]] = []
    broken: list[int] = []
    table = {"pages_to_scan": 50, **keys}
    plain = {key: value for key, value in table.items() if key != "sleep_millisecs"}
    batch = Ksmd.batch

    def look(ksmd: Ksmd, host: Any) -> int:
        machines = [machine for machine in host.vms if machine.able]
        if len(machines) < 3:
            return 0
        if not twins:
            gfns.extend(items_of(each, each.spec.name) for each in machines)
            twins.append(Ksm([[items[gfn] for gfn in sorted(items)] for items in gfns], **plain))
        (twin,) = twins
        copied = sum(each.pages.broken for each in machines)
        if copied and not broken:
            broken.append(copied)
            for machine, items in zip(machines, gfns, strict=True):
                for (_, gva), (gfn, _) in mappings(machine).items():
                    if (page := (gva - BASE) // PAGE) < 20:
                        twin.write(items[gfn], ("own", machine.spec.name, page))
        spent = batch(ksmd, host)
        twin.batch()
        counts = {name: ksmd.counts[name] for name in ("scanned", "skipped", "merged", "full_scans")}
        assert counts == {name: twin.counts[name] for name in counts}
        shared = host.host.shared
        assert shared.pages - sum(bool(shared.users(pfn)) for pfn in shared) == twin.saved
        assert sum(each.pages.broken for each in machines) == twin.counts["broken"]
        return spent

    monkeypatch.setattr(Ksmd, "batch", look)
    tables = [vm(name, content={"image": "x"} if name != "c" else {}) for name in "abc"]
    what = scenario(*tables, memory="64MiB", cores=3, ksm={"run": 1, "sleep_millisecs": 3, **table})
    simulation = Simulation(what, streams=[Script(STEPS_OF_TWIN)] * 3, observers=[check_invariants])
    assert simulation.run().ending is None
    assert broken
    assert twins[0].counts["merged"] > 60
    assert twins[0].counts["full_scans"] > 2


@pytest.mark.parametrize("mode", MODES)
def test_pages_of_one_image_share_frames_in_every_mode_until_they_are_written_to(mode: str) -> None:
    """Of 60 pages 45 are only read: in three VMs that saves 90 frames. Then 20 pages of each are written to."""
    steps = [*touches(range(60)), *touches(range(0, 60, 4), WRITE), IDLE, *touches(range(1, 60, 4), WRITE), IDLE]
    tables = [vm(name, mode=mode, content={"image": "x"}) for name in "abc"]
    ksm = {"run": 1, "pages_to_scan": 2000, "sleep_millisecs": 1}
    simulation = Simulation(
        scenario(*tables, memory="64MiB", cores=3, what_if=True, ksm=ksm),
        streams=[Script(steps)] * 3,
        observers=[check_invariants],
    )
    outcome = simulation.run()
    assert time_adds_up(outcome)
    for figures in outcome.vms:
        counted = figures.figures.named("ksm")
        assert (counted["merged"], counted["broken"]) == (45, 15)
    assert outcome.vms[0].figures.named("ksmd")["saved"] == 90
    assert simulation.host.shared.most == 3
    assert len(simulation.host.shared) == 0


@pytest.mark.parametrize("mode", MODES)
def test_whatever_programs_do_goes_on_while_pages_are_merged(mode: str) -> None:
    tables = [vm(name, mode=mode, content={"image": "x", "image_share": 0.5}) for name in "abc"]
    fast = {"cost": {"host_zero": 512}}  # so that a short run is scanned often enough
    what = scenario(*tables, memory="64MiB", cores=2, what_if=True, cpu_override=fast)
    steps = [*touches(range(60, 110)), *STEPS * 3, *touches(range(60, 80), WRITE), *STEPS * 3, *touches(range(60, 110))]
    streams = [Script(steps)] * 3
    quiet, calm = run(what, streams)
    ksm = {"run": 1, "pages_to_scan": 300, "sleep_millisecs": 0, "smart_scan": False, "use_zero_pages": True}
    simulation, outcome = run(what.replace(**{"host.ksm": ksm}), streams, every=300_007)
    assert outcome.ending is None
    for before, after in zip(calm.vms, outcome.vms, strict=True):
        assert after.counters["accesses"] == before.counters["accesses"]
        counted = after.figures.named("ksm")
        assert counted["merged"] > 10
        more = counted["broken"] if mode == "native" else 0
        assert before.guest_faults <= after.guest_faults <= before.guest_faults + more
    assert simulation.host.shared.pages == 0
    assert simulation.host.free == quiet.host.free - 1  # the frame of zeros


@pytest.mark.parametrize("content", [{}, {"image": "y"}])
def test_only_vms_of_the_same_image_share(content: dict[str, Any]) -> None:
    tables = [vm("a", content={"image": "x"}), vm("b", content=content)]
    ksm = {"run": 1, "pages_to_scan": 2000, "sleep_millisecs": 1, "max_page_sharing": 1000}
    what = scenario(*tables, memory="64MiB", cores=2, ksm=ksm)
    outcome = Simulation(what, streams=[Script([*touches(range(50)), IDLE])] * 2).run()
    one, other = (figures.figures.named("ksm")["merged"] for figures in outcome.vms)
    assert (one, other) == (0, 0 if content else 50)  # pages of zeros are equal to each other


def test_written_pages_that_change_are_looked_at_and_left_alone() -> None:
    """Of 50 written pages none has an equal; where they are volatile they never come into the unstable tree."""
    ksm = {"run": 1, "pages_to_scan": 2000, "sleep_millisecs": 1, "smart_scan": False}
    unshared = []
    for volatile in (0.0, 1.0):
        what = scenario(vm("a", content={"volatile": volatile}), memory="64MiB", ksm=ksm)
        figures = Simulation(what, streams=[Script([*touches(range(50), WRITE), IDLE])]).run().vms[0].figures
        assert figures.named("ksm")["merged"] == 0
        unshared.append(figures.named("ksmd")["unshared"])
    assert unshared == [50, 0]


def test_the_advisor_does_the_sums_of_the_kernel() -> None:
    """Worked out by hand from scan_time_advisor: 500 pages, a target of 200 s, scans of 400, 400 and 100 s."""
    advisor = ScanTimeAdvisor(max_cpu=70, target=200, min_pages=500, max_pages=30_000)
    # factor 50, change 100 -> 30 %: 500 * 2 * 0.30 = 300; 2 % of a CPU: 250 pages each, at least 10 %: 2,500
    advisor.scanned(400, 8_000)
    assert advisor.pages == 2500
    # change (70 * 30 + 30 * 100) / 100 = 51: 2,500 * 2 * 0.51 = 2,550; 12 %: 208 each, 2,080 to 14,560
    advisor.scanned(400, 48_000)
    assert advisor.pages == 2550
    # factor 200, change (70 * 51 + 30 * 25) / 100 = 43: 1,275 * 0.43 = 548; 40 %: 63 each, 630 at least
    advisor.scanned(100, 40_000)
    assert advisor.pages == 630


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"pages_to_scan": 50}, "no effect without ksm.run"),
        ({"run": 1, "advisor_max_cpu": 20}, "advisor_mode"),
        ({"run": 1, "advisor_mode": "scan-time", "pages_to_scan": 7}, "the advisor sets it"),
        ({"run": 1, "max_page_sharing": 1}, "greater than or equal to 2"),
        ({"run": 2}, "0 or 1"),
    ],
)
def test_keys_that_say_nothing_are_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises((InputError, ValueError), match=said):
        scenario(vm(), ksm=keys)
