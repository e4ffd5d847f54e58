"""Does a host of paired processes do what every paging mode must, and pay for its second tables what it should?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.oracle import tables as oracle
from tests.oracle.paired import pointer_pages, table_pages
from tests.simulation.small import (
    BASE,
    PAGE,
    READ,
    WRITE,
    Script,
    run,
    scenario,
    time_adds_up,
    touches,
    vm,
)
from tests.simulation.test_contract import CASES, MIB, Case, Words, keep_the_contract
from vmsim.base.errors import InputError
from vmsim.contracts import Moment
from vmsim.engine.check.host import BrokenInvariant, check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.guest.kernel import GuestKernel
from vmsim.machine.formats import ACCESSED, DIRTY
from vmsim.monitor.paired.monitor import Paired
from vmsim.scenario import Scenario

LAYOUTS = ("contiguous", "pointer", "separate", "shared")
TWO_TABLES = LAYOUTS[:3]
EXIT = {layout: "NPF" if layout == "shared" else "EPT_VIOLATION" for layout in LAYOUTS}


@dataclass(frozen=True)
class PairedCase(Case):
    layout: str = "contiguous"
    guest: bool = True

    def __str__(self) -> str:
        return f"{self.layout}-{'vm' if self.guest else 'process'}-{super().__str__()}"

    @property
    def nested(self) -> bool:
        return self.guest

    @property
    def exits(self) -> dict[str, int]:
        return {EXIT[self.layout]: self.violations} if self.guest else {}

    def scenario(self) -> Any:
        what = super().scenario()
        nested = {} if self.guest else {"vm.host_page": None, "vm.host_levels": None}
        layout = {"vm.paired.layout": self.layout, "vm.paired.guest": self.guest}
        return what.replace(**layout, **nested, **{"vm.mode": "paired", "host.memory": self.memory + 2064 * MIB})

    @property
    def reserved(self) -> int:
        """Frames that no process has: two boot tables, and the pointers."""
        return 2 + pointer_pages(self.layout, (self.memory + 2064 * MIB) // PAGE)


def cases() -> list[PairedCase]:
    """Return the contract's cases for EPT under each layout in turn, and those of bare programs under all."""
    ept = [case for case in CASES if case.mode == "ept" and (case.guest_page, case.host_page) != ("1G", "4K")]
    bare = [case for case in CASES if case.mode == "native" and case.populate == "lazy"]
    first = [PairedCase(**vars(case), layout=LAYOUTS[number % 4]) for number, case in enumerate(ept)]
    small = [PairedCase("ept", layout=layout) for layout in LAYOUTS]
    rest = [PairedCase(**vars(case), layout=layout, guest=False) for case in bare for layout in LAYOUTS]
    return list(dict.fromkeys([*first, *small, *rest]))


@pytest.mark.parametrize("case", cases(), ids=str)
def test_a_paired_process_translates_faults_and_gives_back(case: PairedCase) -> None:
    keep_the_contract(case)


def paired(layout: str, *, guest: bool = True, name: str = "vm", **keys: Any) -> dict[str, Any]:
    return vm(name, mode="paired", paired={"layout": layout, "guest": guest}, **keys)


PROGRAM = [
    *touches(range(60), WRITE),
    ("unmap", 5, 20),
    *touches(range(60)),
    *touches([600, 1200, 9000], WRITE),
    ("unmap", 0, 60),
    *touches(range(8), WRITE),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_guest_sees_the_same_under_paired_tables_as_under_ept(layout: str) -> None:
    """The same walks, faults and exits: only what an exit costs and what tables take differs."""
    mode = "npt" if layout == "shared" else "ept"
    _, ept = run(scenario(vm(mode=mode, memory="16MiB"), memory="64MiB"), [Script(PROGRAM)])
    _, outcome = run(scenario(paired(layout, memory="16MiB"), memory="64MiB"), [Script(PROGRAM)])
    (ours,), (theirs,) = outcome.vms, ept.vms
    assert ours.guest_faults == theirs.guest_faults
    assert ours.counters["l2_tlb_misses"] == theirs.counters["l2_tlb_misses"]
    assert (ours.refs.sum(axis=-1) == theirs.refs.sum(axis=-1)).all()
    assert [count for count, _ in ours.exits.values()] == [count for count, _ in theirs.exits.values()]
    assert ours.memory["guest"] == theirs.memory["guest"]
    assert ours.memory["table"] == table_pages(layout, theirs.memory["table"], guest=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_process_that_is_no_vm_pays_the_tax_of_its_layout(layout: str) -> None:
    """One page for each table, or none; and 8 bytes for each frame of the host."""
    _, native = run(scenario(vm(mode="native"), memory="64MiB"), [Script(PROGRAM)])
    simulation, outcome = run(scenario(paired(layout, guest=False), memory="64MiB"), [Script(PROGRAM)])
    (ours,), (theirs,) = outcome.vms, native.vms
    assert ours.guest_faults == theirs.guest_faults
    assert ours.memory["table"] == table_pages(layout, theirs.memory["table"], guest=False)
    assert simulation.host.size - simulation.host.free == 2 + pointer_pages(layout, simulation.host.size)
    cost = ours.cycles["guest_fault"] - theirs.cycles["guest_fault"]
    assert cost > 0 if layout in ("contiguous", "pointer") else cost == 0


def test_what_it_costs_more_than_a_native_process_is_counted_step_by_step() -> None:
    """Three pages in one table: three tables and a root with a second half to clear, six links and entries to store."""
    what = [*touches(range(3), WRITE)]
    _, native = run(scenario(vm(mode="native"), memory="64MiB"), [Script(what)])
    simulation, ours = run(scenario(paired("contiguous", guest=False), memory="64MiB"), [Script(what)])
    cost = simulation.scenario.cpu.cost
    more = ours.vms[0].cycles["guest_fault"] - native.vms[0].cycles["guest_fault"]
    assert more == 4 * cost.zero_page + 6 * cost.entry_edit


def flags(monitor: Paired, gpa: int) -> tuple[bool, bool]:
    """Return whether a page was accessed, and written to, as the host's kernel reads it."""
    (value,) = monitor.space.pages(gpa, gpa + PAGE).values.tolist()
    return bool(value & ACCESSED), bool(value & DIRTY)


def test_hardware_marks_pages_in_the_ept_and_either_table_is_read() -> None:
    """The guest wrote to some of its pages: the host learns it from the EPT, whose KPT never saw an access."""
    seen = []

    def look(moment: Moment, simulation: Simulation, whose: Any) -> None:
        if moment is Moment.VM_FINISHED:
            monitor = simulation.vms[0].monitor
            assert isinstance(monitor, Paired)
            words, registers = Words(simulation.hardware.memory), simulation.vms[0].registers[0]
            nested = int(registers.nested_root), int(registers.nested_levels)
            for page in range(8):
                found = oracle.translate_guest(words, int(registers.cr3), 4, *nested, BASE + page * PAGE)
                assert found is not None
                gpa = found[0] & -PAGE
                seen.append(flags(monitor, gpa))

    what = scenario(paired("contiguous"), cpu_override={"ept_ad": True})
    run(what, [Script([*touches(range(4), READ), *touches(range(4, 8), WRITE)])], check=look)
    assert seen == [(True, False)] * 4 + [(True, True)] * 4


def spoil(half: str, bit: int) -> Any:
    """Return a check that changes the entry of one page in one half, at the end of the run, and looks again."""

    def check(moment: Moment, simulation: Simulation, whose: Any) -> None:
        check_invariants(moment, simulation, whose)
        if moment is Moment.VM_FINISHED:
            (kpt, ept, levels, _), *_ = simulation.vms[0].monitor.pairs
            root = {"kpt": kpt, "ept": ept}[half]
            words = Words(simulation.hardware.memory)
            address = 0x1000 if not simulation.vms[0].spec.bare else BASE
            *_, (_, place, entry) = oracle.descend(words, root, levels, address)
            simulation.hardware.memory[place >> 3] = entry ^ bit
            check_invariants(moment, simulation, whose)

    return check


@pytest.mark.parametrize("bit", [0b10, 1 << 12], ids=["rights", "frame"])
@pytest.mark.parametrize(
    ("layout", "half", "guest"),
    [*((layout, "kpt", True) for layout in TWO_TABLES), ("contiguous", "ept", False), ("pointer", "ept", False)],
)
def test_the_checker_names_a_pair_that_differs(layout: str, half: str, guest: bool, bit: int) -> None:
    """In the half that the guest does not run on, which no other check looks at."""
    with pytest.raises(BrokenInvariant, match=r"pairs: only the .PT maps .* in vm\. Found at cycle"):
        run(scenario(paired(layout, guest=guest), memory="64MiB"), [Script(touches(range(9)))], check=spoil(half, bit))


def test_vms_and_processes_of_all_layouts_share_a_host() -> None:
    groups = [paired(layout, guest=guest, name=f"{layout}-{guest}") for layout in LAYOUTS for guest in (True, False)]
    what = scenario(*groups, vm("ept"), vm("native", mode="native"), memory="64MiB", cores=2, quantum="5us")
    simulation, outcome = run(what, [Script(PROGRAM)] * 10, every=500_000)
    assert all(each.finished for each in outcome.vms)
    assert time_adds_up(outcome)
    assert simulation.host.size - simulation.host.free == 2 + pointer_pages("pointer", simulation.host.size)
    again = run(what, [Script(PROGRAM)] * 10, check=None)[1]
    for one, other in zip(outcome.vms, again.vms, strict=True):
        assert (one.finish, one.cycles, one.memory, one.exits) == (
            other.finish,
            other.cycles,
            other.memory,
            other.exits,
        )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("guest", [True, False])
@pytest.mark.parametrize("leave", [True, False], ids=["exits", "stays"])
def test_processes_that_fork_and_exit_keep_their_pairs(layout: str, guest: bool, leave: bool) -> None:
    from vmsim.workloads import Chunk, Event, Op

    class Forks(Script):
        def chunks(self, thread: int = 0) -> Any:
            pages = np.array([BASE + (number % 40) * PAGE for number in range(120)], np.int64)
            events = (
                Event(40, Op.FORK, 1, 0, 0, 2),
                Event(60, Op.SWITCH, 2, 0, 0, 0),
                *([Event(100, Op.EXIT, 2, 0, 0, 0)] if leave else []),
            )
            yield Chunk(pages, np.ones(120, np.int32), np.ones(120, np.uint8), events)

    script = Forks(touches(range(40), WRITE) * 3)
    simulation, outcome = run(scenario(paired(layout, guest=guest), memory="64MiB"), [script], every=20_000)
    assert outcome.vms[0].finished
    assert simulation.vms[0].kernel.copies > 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_chunk_is_mapped_in_both_tables_at_one_exit(layout: str) -> None:
    script = [Script(touches(range(40)))]
    exits, guest = [], []
    for chunk in (1, 8):
        table = paired(layout, fill_chunk=chunk, pool={"min": 32, "max": 64, "batch": 64})
        _, outcome = run(scenario(table, memory="64MiB"), script)
        exits.append(outcome.vms[0].exits[EXIT[layout]][0])
        guest.append(outcome.vms[0].memory["guest"])
    assert exits[0] == guest[0] == 44
    assert exits[1] < exits[0] / 4
    assert guest[1] >= guest[0]


@pytest.mark.parametrize("guest", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_table_waits_until_another_process_gives_memory_back(layout: str, guest: bool) -> None:
    """Each page of b needs a page table of its own; a has most of the host, and ends while b waits."""
    keys = {"cores": 2, "memory": "5MiB", "pool": {"min": 1, "max": 8, "batch": 4}}
    what = scenario(paired(layout, name="a"), paired(layout, guest=guest, name="b", memory="4MiB"), **keys)
    a = Script([*touches(range(700), WRITE), ("compute", 200_000_000), ("touch", 0, READ)])
    b = Script([("compute", 100_000_000), *touches([512 * number for number in range(300)], WRITE)])
    _, outcome = run(what, [a, b], every=50_000_000)
    assert outcome.ending is None
    assert all(each.finished for each in outcome.vms)
    assert sum(outcome.vms[1].waits[cause] for cause in ("host_wait", "pool_wait")) > 0
    if not guest:
        assert outcome.vms[1].waits["host_wait"] > 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_host_too_small_ends_with_a_reason(layout: str) -> None:
    """Tables wait for the host's memory as pages do; nothing hangs."""
    what = scenario(paired(layout, memory="4MiB", workload={"footprint": 900 * PAGE}), memory="2MiB")
    _, outcome = run(what, [Script(touches(range(900)))])
    assert outcome.ending is not None
    assert "out of memory" in outcome.ending.message


def test_a_cpu_without_nested_tables_is_refused_unless_it_is_a_what_if() -> None:
    table = paired("contiguous")
    with pytest.raises(InputError, match="mode paired needs EPT or nested paging, which core2 does not have"):
        Scenario.from_toml(toml(table, "core2"))
    assert Scenario.from_toml(toml(table, "core2", "what_if = true")).vms[0].mode == "paired"


def test_one_table_for_both_needs_nested_tables_in_the_format_of_page_tables() -> None:
    table = paired("shared")
    with pytest.raises(InputError, match=r"paired\.layout \(vm\): one table can serve as both only where .* \(NPT\)"):
        Scenario.from_toml(toml(table, "skylake-x"))
    assert Scenario.from_toml(toml(table, "skylake-x", "what_if = true")).vms[0].own.layout == "shared"
    assert Scenario.from_toml(toml(table, "zen4")).vms[0].own.layout == "shared"


@pytest.mark.parametrize("guest", [True, False], ids=["vm", "process"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_runs_on_a_cpu_with_npt(layout: str, guest: bool) -> None:
    """Two tables are then of one format (AMD APM vol. 2 §15.25.5): the same exits as npt, and tables by the layout."""
    _, npt = run(scenario(vm(mode="npt", memory="16MiB"), memory="64MiB", cpu="zen4"), [Script(PROGRAM)])
    _, native = run(scenario(vm(mode="native"), memory="64MiB", cpu="zen4"), [Script(PROGRAM)])
    what = scenario(paired(layout, guest=guest, memory="16MiB"), memory="64MiB", cpu="zen4")
    _, outcome = run(what, [Script(PROGRAM)])
    (ours,), (theirs,) = outcome.vms, (npt if guest else native).vms
    assert ours.finished
    assert {reason: count for reason, (count, _) in ours.exits.items()} == (
        {"NPF": theirs.exits["NPF"][0]} if guest else {}
    )
    assert ours.memory["guest"] == theirs.memory["guest"]
    assert ours.memory["table"] == table_pages(layout, theirs.memory["table"], guest=guest)


@pytest.mark.parametrize("layout", TWO_TABLES)
def test_the_checker_names_a_pair_that_differs_on_a_cpu_with_npt(layout: str) -> None:
    what = scenario(paired(layout), memory="64MiB", cpu="zen4")
    with pytest.raises(BrokenInvariant, match=r"pairs: only the (KPT|NPT) maps .* in vm\."):
        run(what, [Script(touches(range(9)))], check=spoil("kpt", 1 << 12))


def test_a_shared_table_is_walked_as_it_is_and_its_flags_are_the_hardwares() -> None:
    """The nested root is the KPT's root: the kernel's half is in it, above the limit, and A/D come from the walks."""
    seen = []

    def look(moment: Moment, simulation: Simulation, whose: Any) -> None:
        check_invariants(moment, simulation, whose)
        if moment is Moment.VM_FINISHED:
            monitor, paired_host = simulation.vms[0].monitor, simulation.paired
            assert isinstance(monitor, Paired)
            assert paired_host is not None
            registers = simulation.vms[0].registers[0]
            root = int(registers.nested_root)
            assert root == monitor.space.kpt
            assert simulation.hardware.memory[(root >> 3) + 256] >> 12 == paired_host.boot[1]
            for page in (0, 1):
                gpa = oracle.translate_guest(
                    Words(simulation.hardware.memory), int(registers.cr3), 4, root, 4, BASE + page * PAGE
                )
                assert gpa is not None
                seen.append(flags(monitor, gpa[0] & -PAGE))

    run(scenario(paired("shared"), memory="64MiB"), [Script([("touch", 0, READ), ("touch", 1, WRITE)])], check=look)
    assert seen == [(True, False), (True, True)]


def toml(table: dict[str, Any], cpu: str, more: str = "") -> str:
    import tomli_w

    return f'[host]\ncpu = "{cpu}"\n{more}\n' + tomli_w.dumps({"vm": [table]})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"populate": "eager"}, "a paired process without a guest is not populated before the start"),
        ({"host_page": "2M"}, "a paired process without a guest has no second dimension"),
        ({"tags": "vpid"}, "a paired process without a guest has no VM entries"),
    ],
)
def test_keys_that_mean_nothing_without_a_guest_are_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Scenario.from_toml(toml(paired("contiguous", guest=False, **keys), "skylake-x"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pages_that_stand_ready_make_room_for_tables_at_the_limit(layout: str) -> None:
    """16 pages of memory: four tables, a half of each counted, and twelve pages; the thirteenth has no room."""
    for pages, fits in ((12, True), (13, False)):
        what = scenario(paired(layout, guest=False, memory=16 * PAGE), what_if=True)
        _, outcome = run(what, [Script(touches(range(pages), WRITE))])
        assert outcome.vms[0].finished == fits
        assert outcome.vms[0].guest_faults == pages


@pytest.mark.parametrize(("layout", "guest"), [("contiguous", False), ("shared", False), ("contiguous", True)])
def test_compiled_code_makes_a_programs_faults_and_calls(
    layout: str, guest: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what needs a new table, or a page of the monitor's, is left to processes: 1 in 32 of 1,280 faults."""
    left = [0]
    page_fault = GuestKernel.page_fault

    def counted(self: GuestKernel, *given: Any, **named: Any) -> Any:
        left[0] += 1
        yield from page_fault(self, *given, **named)

    monkeypatch.setattr(GuestKernel, "page_fault", counted)
    churn = {"kind": "churn", "footprint": "256KiB", "burst": "128KiB", "rounds": 40, "filled": True}
    keys: dict[str, Any] = {"mode": "paired", "paired": {"layout": layout, "guest": guest}}
    _, outcome = run(scenario(vm("a", **keys) | {"workload": churn}, memory="64MiB", what_if=True))
    assert outcome.ending is None
    assert outcome.vms[0].guest_faults >= 1280
    assert left[0] <= 40 + 64 * guest
