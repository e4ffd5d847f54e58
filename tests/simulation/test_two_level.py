"""Do guests and hosts in 32-bit paging run, and differ from others only where they should?"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tests.oracle import tables as oracle
from tests.simulation.small import PAGE, WRITE, Script, run, scenario, time_adds_up, touches, vm
from tests.simulation.test_contract import Words
from tests.simulation.test_pae import FAMILY
from vmsim.api import modes_of
from vmsim.base.errors import InputError
from vmsim.contracts import Moment
from vmsim.engine.check.host import check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.observe.dump import tables_of
from vmsim.scenario import Scenario

LARGE = 1 << 22
BASE = LARGE * 200 - 8 * PAGE  # the scripts' pages lie in two pages of 4M
PLATFORMS = [("native", None), ("ept", 4), ("ept", 5), ("npt", 2), ("npt", 3), ("npt", 4), ("npt", 5)]
PLATFORMS += [("shadow", None), ("vkernel", None)]


def a_vm(mode: str, host: int | None, guest: int = 2, name: str = "vm", **keys: Any) -> dict[str, Any]:
    levels = {"guest_levels": guest} | ({"host_levels": host} if host else {})
    return vm(name, mode=mode, workload={"base": BASE}, **levels, **keys)


@pytest.mark.parametrize(
    ("mode", "host", "page"),
    [
        *((*each, "4K") for each in PLATFORMS),
        *((mode, None, "4M") for mode in ("native", "shadow", "vkernel")),
        ("ept", 4, "4M"),
        ("npt", 2, "4M"),
    ],
)
def test_processes_of_a_guest_of_two_levels_do_what_those_of_a_64_bit_guest_do(
    mode: str, host: int | None, page: str
) -> None:
    """The invariants are checked at every boundary: what TLBs and walk caches hold is what the tables say."""
    pages = {"guest_page": page, "memory": "64MiB" if page == "4M" else "4MiB"}
    what = scenario(a_vm(mode, host, **pages), memory="96MiB", what_if=True)
    simulation, outcome = run(what, [Script(FAMILY, base=BASE)], every=50_000 if page == "4K" else 500_000)
    figures = outcome.vms[0]
    if page == "4K":  # 64-bit guests have no pages of 4M
        _, served = run(what, [Script(FAMILY, base=BASE)], check=None)  # faults handled in compiled code
        assert served.vms[0].cycles == figures.cycles
        assert served.vms[0].refs.tolist() == figures.refs.tolist()
        wide = scenario(a_vm(mode, max(host or 4, 4) if host else None, 4, **pages), memory="96MiB", what_if=True)
        others = run(wide, [Script(FAMILY, base=BASE)])[1].vms[0]
        assert figures.guest_faults == others.guest_faults
        for name in ("accesses", "writes"):
            assert figures.counters[name] == others.counters[name]
    assert time_adds_up(outcome)
    assert simulation.host.free == simulation.host.size
    assert figures.refs[2].sum() > 0
    assert figures.refs[3:].sum() == 0
    assert figures.refs[:, 3:].sum() == 0 or host != 2


SHADOWED = [("shadow", None, "4K", 8), ("shadow", None, "2M", 4)]  # the first walk of each page fills the shadow


@pytest.mark.parametrize(
    ("mode", "host", "page", "walks"),
    [
        ("native", None, None, 2),
        *SHADOWED,
        ("ept", 4, "4K", 4),
        ("ept", 4, "2M", 2),
        ("npt", 2, "4K", 4),
        ("npt", 2, "4M", 2),
    ],
)
def test_a_page_of_4m_is_kept_as_two_of_2m_or_in_the_hosts_pieces(mode, host, page, walks) -> None:
    keys = {"guest_page": "4M", "memory": "16MiB", "populate": "eager"} | ({"host_page": page} if page else {})
    what = scenario(a_vm(mode, host, **keys), memory="48MiB", what_if=True)
    halves = touches([8 + part for part in (0, 511, 512, 1023)] * 3)
    _, outcome = run(what, [Script(halves, base=BASE)])
    assert outcome.vms[0].guest_faults == 0
    assert outcome.vms[0].counters["walks"] == walks


@pytest.mark.parametrize("then", [[], [("protect", 8, 1024, 1), ("protect", 8, 1024, 3)]], ids=["write", "protect"])
def test_a_page_of_4m_is_shared_as_long_as_its_upper_half_is(then: list[Any]) -> None:
    """The invariants say so: what two processes map neither may write."""
    half = [("touch", 8, WRITE), ("fork", 2), ("switch", 2), ("unmap", 8, 512), ("switch", 1), *then]
    what = scenario(a_vm("native", None, guest_page="4M", memory="32MiB"), memory="48MiB")
    _, outcome = run(
        what, [Script([*half, *touches([8, 600], WRITE), ("switch", 2), ("touch", 600, WRITE)], base=BASE)]
    )
    assert outcome.vms[0].finished


@pytest.mark.parametrize(("mode", "host"), [("native", None), ("npt", 2)])
def test_where_no_4m_are_free_pages_are_small_ones(mode: str, host: int | None) -> None:
    """A block of 2M is free, but there is no such page."""
    keys = {"guest_page": "4M", "memory": "6MiB"} | ({"host_page": "4M"} if host else {})
    what = scenario(a_vm(mode, host, **keys), memory="7MiB", what_if=True)
    _, outcome = run(what, [Script(touches(range(8, 40), WRITE), base=BASE)])
    assert outcome.vms[0].guest_faults == 32


VARIANTS = [
    {"preset": "kvm", "fill": "eager"},
    {"preset": "kvm-2007"},
    {"preset": "plex86"},
    {"preset": "plex86", "fill": "eager", "hide": "present-bit"},
    {"preset": "kvm-2007", "hide": "present-bit", "limit": 16, "on_cr3": "flush"},
]


@pytest.mark.parametrize("guest", [2, 3])
@pytest.mark.parametrize("shadow", VARIANTS, ids=lambda each: "-".join(map(str, each.values())))
def test_32_bit_guests_run_under_every_kind_of_shadow(shadow: dict[str, Any], guest: int) -> None:
    """Their faults are those of a 64-bit guest, and what compiled code handles costs what the rest does."""
    what = scenario(a_vm("shadow", None, guest, shadow=shadow), memory="32MiB", what_if=True)
    _, outcome = run(what, [Script(FAMILY, base=BASE)], every=100_000)
    _, served = run(what, [Script(FAMILY, base=BASE)], check=None)
    wide = scenario(a_vm("shadow", None, 4, shadow=shadow), memory="32MiB")
    others = run(wide, [Script(FAMILY, base=BASE)], check=None)[1].vms[0]
    figures = outcome.vms[0]
    assert served.vms[0].cycles == figures.cycles
    assert (figures.finished, figures.guest_faults) == (True, others.guest_faults)
    assert time_adds_up(outcome)
    assert figures.refs[3:].sum() == figures.refs[:, 1:].sum() == 0  # PAE, the first level in registers


def test_guests_of_all_formats_share_a_core() -> None:
    """Tables of one format become those of another as memory changes hands."""
    guests = [
        a_vm("npt", 2, name="a"),
        a_vm("npt", 3, name="b"),
        a_vm("npt", 4, 4, "c"),
        a_vm("npt", 3, 3, "d"),
        a_vm("native", None, name="e"),
        a_vm("shadow", None, name="f"),
        a_vm("shadow", None, 3, "g", shadow={"preset": "plex86"}),
        a_vm("vkernel", None, name="h"),
        a_vm("vkernel", None, 3, "i"),
    ]
    late = [{**guest, "name": f"late-{guest['name']}", "start": "400us"} for guest in guests[::-1]]
    what = scenario(*guests, *late, memory="32MiB", what_if=True, quantum="20us")
    simulation, outcome = run(what, [Script(FAMILY, base=BASE) for _ in range(18)], every=500_000)
    assert len({each.guest_faults for each in outcome.vms}) == 1
    assert all(each.finished for each in outcome.vms)
    assert simulation.host.free == simulation.host.size


@pytest.mark.parametrize(("mode", "host"), [("native", None), ("npt", 2), ("shadow", 0), ("vkernel", 0)])
def test_a_plain_reader_finds_in_a_dump_what_is_in_the_tables(mode: str, host: int | None) -> None:
    seen: dict[str, list[str]] = {}

    def at_end(moment: Moment, simulation: Simulation, whose: Any) -> None:
        check_invariants(moment, simulation, whose)
        if moment is not Moment.VM_FINISHED:
            return
        machine, words = simulation.vms[0], Words(simulation.hardware.memory)
        seen.update(tables_of(simulation, machine))
        root, (*nested, kept) = machine.kernel.root, machine.memory_map
        for name, records in seen.items():
            for record in records:
                address, *chain, page = (int(field, 16) for field in record.split(","))
                assert len(chain) == (host if name == "vm.host.txt" else 2)
                if name == "vm.host.txt":
                    found = oracle.translate_nested(words, *nested, address, kept)
                elif host is not None:
                    found = oracle.translate_guest(words, root, 2, *nested, address, kept)
                else:
                    found = oracle.translate(words, root, 2, address)
                assert found[0] == page << 12

    keys = {"guest_page": "4M", "memory": "16MiB"}
    steps = [*touches([0, 8, 9, 1030, 1031], WRITE), ("unmap", 1030, 1)]
    what = scenario(a_vm(mode, host, **keys), memory="48MiB", what_if=True)
    run(what, [Script(steps, base=BASE)], check=at_end)
    assert {name: len(records) for name, records in seen.items() if "guest" in name} == {"vm.1.guest.txt": 1024 + 1023}
    assert ("vm.host.txt" in seen) == (host is not None)


@pytest.mark.parametrize(("mode", "host"), [("native", None), ("npt", 2), ("vkernel", None)])
def test_a_host_of_which_tables_of_4_bytes_reach_only_a_part_is_refused(mode: str, host: int | None) -> None:
    scenario(a_vm(mode, host), memory="4GiB", what_if=True)
    with pytest.raises(ValueError, match=r"reach 4GiB, and this is 5GiB; expected at most 4GiB"):
        scenario(a_vm(mode, host), memory="5GiB", what_if=True)


def test_no_dirty_log_is_kept_of_nested_tables_of_two_levels() -> None:
    scenario(a_vm("npt", 3, dirty_log={"method": "write-protect"}), what_if=True)
    with pytest.raises(ValueError, match="no dirty log is kept of nested tables of 2 levels"):
        scenario(a_vm("npt", 2, dirty_log={"method": "write-protect"}), what_if=True)


def test_the_modes_to_compare_are_those_that_can_run_it() -> None:
    def modes(**host: Any) -> tuple[str, ...]:
        return modes_of(scenario(a_vm("ept", None), what_if=True, **host))

    assert modes() == ("native", "ept", "npt", "shadow", "vkernel")
    assert modes(memory="8GiB") == ("ept", "npt", "shadow")


def test_it_is_written_and_read_as_any_scenario() -> None:
    what = scenario(a_vm("npt", 2, guest_page="4M", host_page="4MiB", memory="16MiB"), memory="32MiB", what_if=True)
    again = Scenario.from_toml(what.to_toml())
    assert again == what
    assert (again.vms[0].guest_page, again.vms[0].host_order) == ("4M", 10)
    with pytest.raises(InputError, match="expected 4K or 4M"):
        what.replace(**{"vm.host_page": "2M"})


WARMED = """
from vmsim.jit.fast.specialise import made as codes
from vmsim.scenario import Scenario
from vmsim.engine.simulation import Simulation
from vmsim.engine.warm import warm_for
scenario = Scenario.from_toml('''
[host]
cpu = "yardstick"
memory = "64MiB"
what_if = true
[[vm]]
name = "old"
memory = "8MiB"
mode = "ept"
guest_levels = 2
workload = { kind = "uniform", base = "0x1000_0000", footprint = "1MiB", accesses = 100 }
''')
warm_for(scenario)
made = len(codes)
assert Simulation(scenario).run().ending is None
print(made, len(codes))
"""


def test_what_it_needs_is_compiled_before_the_clock_starts() -> None:
    done = subprocess.run([sys.executable, "-c", WARMED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "2"]  # for guests in 32-bit paging, and for all others
