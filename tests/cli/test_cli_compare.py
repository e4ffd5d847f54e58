"""Does `vmsim compare` run each mode, and say what is a what-if?"""

import json
from pathlib import Path

from vmsim.api import modes_of
from vmsim.record.result import Result
from vmsim.scenario import MODES, Scenario


def test_each_mode_runs_and_a_mode_the_cpu_lacks_is_called_a_what_if(vmsim, file: Path, tmp_path: Path) -> None:
    said = vmsim("compare", file, "--json", "--out", tmp_path / "all")
    assert said.status == 0
    told = json.loads(said.out)
    assert [row["mode"] for row in told["vms"]] == ["native", "native", "ept", "ept", "npt", "npt"]
    assert told["notes"] == ["npt on skylake-x: what-if (skylake-x has native and ept)"]
    for row in told["comparison"]["cycles_per_access"]:
        assert row["ept/native"] == row["ept"] / row["native"]
    for mode in ("native", "ept", "npt"):
        assert set(Result.load(tmp_path / "all" / mode).summary["mode"]) == {mode}
    figure = (tmp_path / "all" / "translation.png").read_bytes()
    assert figure.startswith(b"\x89PNG")
    assert vmsim("compare", file, "--out", tmp_path / "all").status == 2
    assert vmsim("compare", file, "--modes", "native", "--out", tmp_path / "all", "--force").status == 0
    assert not (tmp_path / "all" / "ept").exists()


def test_the_tables_name_modes_and_ratios(vmsim, file: Path) -> None:
    said = vmsim("compare", file, "--modes", "native,ept")
    assert said.status == 0
    assert "what-if" not in said.out
    assert said.out.count("ept/native") == 3


def test_modes_that_are_none_or_come_twice_are_refused(vmsim, file: Path) -> None:
    for modes, told in (("natve", "Did you mean 'native'?"), ("ept,ept", "at most once"), (",", "one at least")):
        said = vmsim("compare", file, "--modes", modes)
        assert (said.status, said.out) == (2, "")
        assert told in said.err


def test_all_modes_of_the_cpu_are_compared_part_by_part(vmsim, file: Path, tmp_path: Path) -> None:
    said = vmsim("compare", file, "--modes", "all", "--json", "--out", tmp_path / "all")
    assert said.status == 0
    told = json.loads(said.out)
    assert [*told["modes"]] == ["native", "ept", "shadow", "agile", "paired", "vkernel"]
    assert told["notes"] == []
    for row in told["vms"]:
        mine = {name: [each for each in told[name] if each["mode"] == row["mode"]] for name in PARTS}
        same = [each for each in told["vms"] if (each["mode"], each["workload"]) == (row["mode"], row["workload"])]
        for name, (value, columns) in PARTS.items():
            found = sum(each[value] for each in mine[name] if each["workload"] == row["workload"])
            assert found == sum(each[column] for each in same for column in columns)
    assert {each["reason"] for each in told["exits"] if each["mode"] == "vkernel"} >= {"REFLECT", "VPAGE_FILL"}
    assert [each["reason"] for each in told["exits"] if each["mode"] == "native"] == [""] * len(
        {row["workload"] for row in told["vms"]}
    )
    assert (tmp_path / "all" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "all" / "comparison.pdf").exists()


PARTS = {
    "cycles": ("cycles", ["total_cycles"]),
    "memory": ("frames", ["guest_frames", "table_frames", "pool_frames"]),
    "exits": ("count", ["exits"]),
}


def test_all_is_what_the_cpu_has_unless_the_scenario_asks_what_if(file: Path) -> None:
    scenario = Scenario.load(file)
    assert modes_of(scenario.replace(**{"host.cpu": "zen4", "vm.mode": "npt"})) == (
        "native",
        "npt",
        "shadow",
        "agile",
        "vkernel",
    )
    assert modes_of(scenario.replace(**{"host.what_if": True})) == MODES
    assert modes_of(scenario.replace(**{"vm.guest_levels": 3, "vm.workload.base": 1 << 30})) == ("native", "ept")


def test_the_screen_shows_what_each_mode_is_made_of(vmsim, file: Path) -> None:
    said = vmsim("compare", file, "--modes", "native,ept,vkernel")
    for title in ("Cycles per access", "Memory at the end", "VM exits", "All cycles per access"):
        assert title in said.out
    fills = next(line for line in said.out.splitlines() if "VPAGE_FILL" in line)
    assert fills.split()[-3:-1] == ["–", "–"]  # native and ept have none
