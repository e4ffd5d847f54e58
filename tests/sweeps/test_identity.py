"""Is a point's identity its scenario, and nothing of its place?"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.sweeps.fake import BASE, sweep
from vmsim.base.errors import InputError
from vmsim.scenario import Scenario
from vmsim.sweeps import Sweep, points
from vmsim.sweeps.points import identity_of

SCENARIO = BASE.replace("[base.", "[").replace("[[base.", "[[")


def identities(sweep: Sweep) -> list[str]:
    return [point.identity for point in sweep.points()]


def test_a_point_has_the_identity_of_its_scenario() -> None:
    for point in sweep(3, "replicates = 3\n").points():
        assert point.identity == identity_of(point.scenario)
        text = json.dumps({"model": points.MODEL, "traces": {}}, separators=(",", ":")) + "\n"
        digest = hashlib.sha256((text + point.scenario.canonical()).encode()).hexdigest()
        assert point.identity == digest


def test_neither_order_nor_neighbours_nor_ways_of_writing_change_it() -> None:
    one = {point.values["vm.workload.accesses"]: point for point in sweep(5, "replicates = 2\n").points()}
    text = '[names]\nn = "vm.0.workload.accesses"\n[axes]\nn = [104, 101, 999]\n"host.memory" = ["64MiB", "65MiB"]\n'
    other = {
        point.values["n"]: point
        for point in Sweep.from_toml("replicates = 2\n" + text + BASE).points()
        if point.values["host.memory"] == "64MiB"
    }
    for accesses in (101, 104):
        assert one[accesses].identity == other[accesses].identity
        assert one[accesses].scenario.seed == other[accesses].scenario.seed


def test_more_replicates_keep_the_seeds_of_the_first() -> None:
    few, many = (identities(sweep(3, f"replicates = {number}\n")) for number in (2, 5))
    assert set(few) < set(many)
    assert few == [each for place, each in enumerate(many) if place % 5 < 2]


def test_independent_seeds_all_differ_and_common_ones_are_shared() -> None:
    independent = [point.scenario.seed for point in sweep(20, "replicates = 10\n").points()]
    assert len({*independent}) == 200
    assert all(0 <= seed < 2**63 for seed in independent)
    common = [point.scenario.seed for point in sweep(20, 'replicates = 10\nseeds = "common"\n').points()]
    assert len({*common}) == 10
    assert common[0] == 1  # the scenario's own


def test_a_seed_that_is_varied_is_the_seed() -> None:
    text = "[axes]\nseed = [7, 8]\n" + BASE
    assert [point.scenario.seed for point in Sweep.from_toml(text).points()] == [7, 8]


def test_whatever_decides_the_results_changes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = Scenario.from_toml(SCENARIO)
    variants = [
        base,
        base.replace(seed=2),
        base.replace(**{"host.pool.batch": 9}),
        base.replace(**{"vm.one.mode": "native"}),
        base.replace(**{"host.cpu_override.walk_start": 99}),
    ]
    found = [identity_of(each) for each in variants]
    monkeypatch.setattr(points, "MODEL", points.MODEL + 1)
    found.append(identity_of(base))
    assert len({*found}) == len(found)


def test_a_group_of_no_vms_does_not_count() -> None:
    base = Scenario.from_toml(SCENARIO)
    none = '[[vm]]\nname = "none"\ncount = 0\nmemory = "1MiB"\nmode = "auto"\n'
    none += 'workload = {kind = "trace", path = "no.din"}\n'
    other = Scenario.from_toml(SCENARIO + none)
    assert [vm.name for vm in other.vms] == [vm.name for vm in base.vms]
    assert identity_of(other) == identity_of(base)
    assert not other.choices


def test_a_trace_counts_by_what_is_in_it(tmp_path: Path) -> None:
    text = SCENARIO.replace('kind = "uniform", footprint = "1MiB", accesses = 100', 'kind = "trace", path = "t.din"')
    found = []
    for number, content in enumerate(("0 1000\n", "0 1000\n", "0 2000\n")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "t.din").write_text(content)
        made = Sweep.of(Scenario.from_toml(text, folder=folder), {"host.cores": [1]})
        assert identities(made) == [identity_of(point.scenario) for point in made.points()]
        found += identities(made)
    assert found[0] == found[1] != found[2]


def test_every_workload_has_a_length_to_sort_and_cut_by() -> None:
    from vmsim import plugins

    kinds = plugins.loaded("workloads").values()
    assert len(kinds) >= 6
    for kind in kinds:
        assert kind.lasts in kind.model_fields
        assert {*kind.touches} <= {*kind.model_fields}


def test_the_contents_of_a_device_s_histogram_are_part_of_it(tmp_path: Path) -> None:
    swap = '[host.swap]\ndevice = "nvme"\nread = "file disk.csv"\n'
    found = set()
    for times in ("1,2", "1,3", "1,2"):
        (tmp_path / "disk.csv").write_text(f"from_us,to_us,count\n{times},1\n")
        scenario = Scenario.from_toml(SCENARIO + swap, folder=tmp_path)
        found.add(identity_of(scenario))
    assert len(found) == 2
    (tmp_path / "disk.csv").unlink()
    with pytest.raises(InputError, match=r"disk\.csv: no such file"):
        identity_of(Scenario.from_toml(SCENARIO + swap, folder=tmp_path))
