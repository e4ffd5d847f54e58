"""Do the tables of one run agree: has each sum that two of them give one value, whatever runs and however it ends?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulation.small import BASE, PAGE, Script, run, scenario, touches, vm
from tests.simulation.sums import check
from vmsim.engine.simulation import Simulation
from vmsim.scenario import Scenario

Table = dict[str, Any]


def pages(most: int) -> st.SearchStrategy[int]:
    return st.integers(1, most).map(lambda count: count * PAGE)


WORKLOADS = st.one_of(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["uniform", "zipf"]),
            "footprint": pages(600),
            "accesses": st.integers(1, 800),
            "writes": st.sampled_from([0.0, 0.5, 1.0]),
            "compute": st.sampled_from([0, 30]),
        }
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("churn"),
            "footprint": st.just(300 * PAGE),
            "rounds": st.integers(1, 6),
            "burst": pages(60),
            "kept": st.sampled_from([0.2, 1.0]),
            "work": st.sampled_from([0, 30]),
        }
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("forkwait"),
            "footprint": pages(60),
            "forks": st.integers(1, 4),
            "child": st.just(PAGE),
            "parent": st.just(PAGE),
        }
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("switcher"),
            "footprint": pages(80),
            "accesses": st.integers(1, 600),
            "spaces": st.integers(1, 4),
            "every": st.sampled_from([1, 40]),
        }
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("disk"),
            "footprint": st.just(64 * PAGE),
            "reads": st.integers(1, 8),
            "block": pages(8),
            "device": st.just("5us"),
            "work": st.sampled_from([0, 30]),
        }
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("compile"),
            "footprint": pages(60),
            "processes": st.integers(1, 3),
            "text": pages(8),
            "parent": pages(8),
            "work": st.sampled_from([0, 60]),
        }
    ),
)
_FORKS = ("forkwait", "switcher", "compile")  # what a process cannot do once it is a VM (Akaros, kern/src/syscall.c)
SHADOWS = st.one_of(
    st.sampled_from([{"preset": "kvm"}, {"preset": "plex86"}]),
    st.fixed_dictionaries(
        {
            "trap": st.sampled_from(["emulate", "single-step", "unsync"]),
            "hide": st.sampled_from(["write-protect", "user-bit", "present-bit"]),
            "fill": st.sampled_from(["lazy", "eager"]),
            "on_cr3": st.sampled_from(["cache", "flush"]),
            "ad": st.sampled_from(["write-protect", "read-sync"]),
            "limit": st.sampled_from([16, 1024]),
        }
    ).filter(
        lambda spec: spec["ad"] == "write-protect" or (spec["hide"] != "write-protect" and spec["trap"] != "unsync")
    ),  # read-sync needs loads that trap
)


@st.composite
def machines(draw: Any, number: int, modes: list[str]) -> Table:
    """Draw a VM."""

    def one(*choices: Any) -> Any:
        return draw(st.sampled_from(choices))

    mode = draw(st.sampled_from(modes))
    table: Table = {
        "mode": mode,
        "populate": one("lazy", "lazy", "eager"),
        "guest_page": one("4K", "4K", "2M"),
        "start": f"{one(0, 777, 40_000)} cycles",
        "pcid": one(True, False),
        "workload": {"base": BASE, **draw(WORKLOADS)},
    }
    bare = mode == "native"
    if mode == "paired":
        guest = one(True, True, False)
        table["paired"] = {"layout": one("contiguous", "pointer", "separate", "shared"), "guest": guest}
        work = table["workload"]
        if guest and work["kind"] not in _FORKS and work.get("accesses", 0) > 3 and one(True, True, False):
            table["paired"]["guest_at"] = one(3, "50%")
        bare = not guest or "guest_at" in table["paired"]
        table["populate"] = "lazy" if bare else table["populate"]
    if mode in ("native", "ept", "npt") and one(True, False, False):
        table["guest_levels"] = one(3, 5)
        if table["guest_levels"] == 3:
            table["workload"]["base"] = 0x1000_0000
    if not bare:
        if mode != "vkernel":
            table["tags"] = one("none", "none", "asid" if mode == "npt" else "vpid")
        table["host_page"] = one("4K", "4K", "2M")
        table["fill_chunk"] = one(1, 1, 8)
        if one(True, False, False):
            table["pool"] = {"min": 0, "max": one(1, 8, 64), "batch": one(1, 32)}
        elif one(True, False, False, False):
            table["pool"] = one({"supply": "fault"}, {"refill": "proportional"}, {"refill": "predictive"})
    if mode in ("ept", "npt"):
        method = one("none", "none", "write-protect", "ad-scan", "pml" if mode == "ept" else "ad-scan")
        if method != "none":
            table["dirty_log"] = {
                "method": method,
                "every": f"{one(1, 20, 400)}us",
                "stop": one("0s", "100us"),
                "split": one("lazy", "eager"),
            }
        elif mode == "ept" and table["host_page"] == "2M" and one(True, False):
            table |= {"nx_split": True, "nx_recovery_period": f"{one(1, 100)}us", "nx_recovery_ratio": one(1, 3)}
    if mode == "shadow":
        table["shadow"] = draw(SHADOWS)
        if one(True, False, False):
            table["software_tlb"] = {"entries": 16}
    if mode == "agile":
        table["agile"] = {
            "threshold": one(1, 3),
            "interval": f"{one(1, 100)}us",
            "back": one("clean", "all"),
            "root_cache": one(0, 2),
        }
    told = table.get("shadow", {})
    hidden = "user-bit" in (told.get("hide"), "user-bit" if told.get("preset") == "plex86" else "")
    if mode in ("ept", "npt", "shadow", "agile") and table.get("guest_levels") != 3 and not hidden:
        table["kernel_accesses"] = one("free", "direct-map")
    large = "2M" in (table["guest_page"], table.get("host_page"))
    sizes = sum(table["workload"].get(key, 0) for key in ("footprint", "text", "parent"))
    needed = max(sizes, 2 << 20 if large else 16 * PAGE)
    table["memory"] = needed + one(0, 4, 40, 1000, 2000) * PAGE  # often too little, with page tables and copies
    if mode != "paired" and table.get("kernel_accesses") != "direct-map" and one(True, False, False):
        table["vcpus"] = 2
        if table["workload"]["kind"] in ("uniform", "zipf") and table["workload"]["accesses"] > 1:
            table["workload"]["threads"] = 2
    if not bare and one(True, False, False):
        size = one(1, 20, 300) * PAGE
        table["balloon"] = {"message": one(1, 256), "retry": "30us", "deflate_on_oom": one(True, False)}
        table["balloon"]["schedule"] = [[f"{one(1, 200)}us", min(size, table["memory"] - PAGE)]]
    if one(True, False, False, False):
        table["stop"] = f"{one(50, 100, 1000)}us"
    return {"name": f"vm{number}", **table}


@st.composite
def hosts(draw: Any, modes: list[str]) -> Scenario:
    """Draw a host of one to three VMs, the first of one of `modes`."""
    every = ["native", "ept", "npt", "paired", "shadow", "agile", "vkernel"]
    tables = [draw(machines(0, modes))]
    tables += [draw(machines(number, every)) for number in range(1, draw(st.integers(1, 3)))]
    return scenario(
        *tables,
        cpu=draw(st.sampled_from(["skylake-x", "zen4"])),
        what_if=True,
        memory=draw(st.sampled_from(["12MiB", "64MiB"])),
        cores=draw(st.integers(1, 2)),
        quantum=draw(st.sampled_from(["5us", "1ms"])),
        swap=draw(st.sampled_from([{}, {}, {"device": "nvme"}, {"device": "zram", "size": "1MiB"}])),
        scheduler=draw(st.sampled_from(["round-robin", "round-robin", "fair", "credit"])),
        fragmentation=draw(st.sampled_from([0, 0, 0.97, 1.0])),
        warmup=draw(st.sampled_from(["0%", "0%", "30%"])),
        seed=draw(st.integers(0, 9)),
    )


@settings(max_examples=15, deadline=None)
@given(st.data())
@pytest.mark.parametrize("modes", [["native", "ept", "npt"], ["paired", "vkernel"], ["shadow", "agile"]])
def test_every_sum_has_one_value(modes: list[str], data: Any) -> None:
    what = data.draw(hosts(modes))
    check(what, Simulation(what).run())


def test_compaction_for_the_first_tables_of_a_paired_vm_is_in_the_table_of_exits() -> None:
    """On a host whose free memory is in single pages, each table of two frames has a page moved out of its way."""
    what = scenario(vm(mode="paired"), fragmentation=1.0)
    _, outcome = run(what, [Script(touches(range(4)))], check=None)
    (figures,) = outcome.vms
    assert figures.exits["CREATE"][0] == 1
    assert figures.exits["CREATE"][1] > 0
    check(what, outcome)


@pytest.mark.parametrize("mode", ["ept", "shadow", "agile", "vkernel", "paired"])
def test_an_exit_under_way_when_the_host_runs_out_of_memory_is_in_the_table_of_exits(mode: str) -> None:
    marks = {"min": "16KiB", "low": "16KiB", "high": "16KiB"}
    pool = {"min": 0, "max": 16, "batch": 16}
    what = scenario(vm("a", mode=mode), memory="512KiB", watermarks=marks, pool=pool)
    _, outcome = run(what, [Script(touches(range(200)))], check=None)
    assert outcome.ending is not None
    assert "host is out of memory" in outcome.ending.message
    check(what, outcome)
