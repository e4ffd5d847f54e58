"""Does `vmsim compare` run each mode, and say what is a what-if?"""

import json
from pathlib import Path

import pandas as pd
import pytest

from vmsim.api import modes_of
from vmsim.cli.compare import verdict
from vmsim.record.result import Result
from vmsim.scenario import Scenario, mode_names


def test_each_mode_runs_and_a_mode_the_cpu_lacks_is_called_a_what_if(vmsim, file: Path, tmp_path: Path) -> None:
    said = vmsim("compare", file, "--modes", "native,ept,npt", "--json", "--out", tmp_path / "all")
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


def test_the_verdict_comes_first_and_every_table_has_a_row_for_each_table_of_the_scenario(vmsim, file: Path) -> None:
    text = file.read_text()
    file.write_text(text + text[text.index("[[vm]]") :].replace('"db"', '"web"').replace("count = 2\n", ""))
    said = vmsim("compare", file, "--modes", "native,ept")
    assert said.status == 0
    assert "what-if" not in said.out
    first, *_ = said.out.splitlines()
    blocks = [block.splitlines() for block in said.out.split("\n\n")]
    tables = [block for block in blocks if len(block) > 2]
    assert len(tables) == 7
    for _, heading, *rows in tables:
        assert heading.split()[0] == "VM"
        assert {row[: row.index(" ", 3)].strip() for row in rows} <= {"db ×2", "web", "total"}
        assert any(row.startswith("db ×2 ") for row in rows)
        assert any(row.startswith("web ") for row in rows)
    told = json.loads(vmsim("compare", file, "--modes", "native,ept", "--json").out)
    rows = [row for row in told["vms"] if row["mode"] == "ept"], [row for row in told["vms"] if row["mode"] == "native"]
    ept, native = (sum(row["total_cycles"] - row["pcpu_wait_cycles"] for row in each) for each in rows)
    assert told["total"]["slowdown"][-1] == {"vm_group": "total", "ept": pytest.approx(ept / native)}
    assert f"{ept / native:.2f} times the cycles of native" in first
    assert said.out.splitlines()[-1].endswith('warmup = "50%" leaves out those of the first half.')


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
    assert vmsim("compare", file, "--json").out.split('"modes"')[0] == said.out.split('"modes"')[0]  # the default
    for row in told["vms"]:
        mine = {name: [each for each in told[name] if each["mode"] == row["mode"]] for name in PARTS}
        same = [each for each in told["vms"] if (each["mode"], each["vm_group"]) == (row["mode"], row["vm_group"])]
        for name, (value, columns) in PARTS.items():
            found = sum(each[value] for each in mine[name] if each["vm_group"] == row["vm_group"])
            assert found == sum(each[column] for each in same for column in columns)
    assert {each["reason"] for each in told["exits"] if each["mode"] == "vkernel"} >= {"REFLECT", "VPAGE_FILL"}
    assert [each["reason"] for each in told["exits"] if each["mode"] == "native"] == [""] * len(
        {row["vm_group"] for row in told["vms"]}
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
        "paired",
        "vkernel",
    )
    assert modes_of(scenario.replace(**{"host.what_if": True})) == mode_names()
    pae = scenario.replace(**{"vm.guest_levels": 3, "vm.workload.base": 1 << 30})
    assert modes_of(pae) == ("native", "ept", "shadow", "agile", "vkernel")


def test_the_screen_shows_what_each_mode_is_made_of(vmsim, file: Path) -> None:
    said = vmsim("compare", file, "--modes", "native,ept,vkernel")
    for title in ("Cycles per access", "Memory at the end", "VM exits", "All cycles per access"):
        assert title in said.out
    fills = next(line for line in said.out.splitlines() if "VPAGE_FILL" in line)
    assert fills.split()[-3:-1] == ["–", "–"]  # native and ept have none


@pytest.mark.parametrize(
    ("cycles", "told"),
    [
        ({"native": 2.0, "ept": 3.0}, "Under ept all VMs together take 1.50 times the cycles of native."),
        (
            {"native": 2.0, "ept": 5.0, "npt": 3.0},
            "Under npt all VMs together take 1.50 times the cycles of native, the least of the modes for VMs; "
            "ept 2.50.",
        ),
        (
            {"ept": 2.0, "shadow": 1.0},
            "All VMs together take the fewest cycles under shadow, 0.50 times those under ept.",
        ),
        (
            {"ept": 2.0, "shadow": 3.0, "npt": 4.0},
            "All VMs together take the fewest cycles under ept; under shadow 1.50 times as many; npt 2.00.",
        ),
        ({"ept": 2.0}, "All VMs together take 2.00 cycles per access in mode ept."),
    ],
)
def test_the_verdict_says_how_many_times_as_many_cycles(cycles: dict[str, float], told: str) -> None:
    assert (
        verdict(pd.DataFrame([{"vm_group": "a", **dict.fromkeys(cycles, 9.0)}, {"vm_group": "total", **cycles}]))
        == told
    )
