"""Do the rows of the screens add up to their totals, whatever a run spends its time on?"""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from vmsim.cli import root

SCENARIO = """
[host]
cpu = "yardstick"
memory = "1200KiB"
cores = 3
watermarks = { min = "64KiB", low = "80KiB", high = "96KiB" }
pool = { min = 4, max = 16, batch = 8 }
swap = { device = "nvme" }
[[vm]]
name = "a"
memory = "2MiB"
mode = "ept"
vcpus = 2
balloon = { size = "256KiB", schedule = [["20us", 0], ["40us", "512KiB"]], message = 16 }
workload = { kind = "churn", footprint = "1MiB", rounds = 40, burst = "64KiB", work = 40, threads = 2 }
[[vm]]
name = "b"
memory = "2MiB"
mode = "ept"
workload = { kind = "uniform", footprint = "1MiB", accesses = 2000, writes = 0.5 }
"""
RARE = ("wait for swap", "balloon", "TLB shootdown", "wait for lock")


def number(text: str) -> float:
    return {"–": 0.0, "<0.01": 0.0}.get(text) or float(text.replace(",", "").replace("–", "0").replace("<", ""))


@pytest.mark.parametrize("verb", [["run"], ["compare", "--modes", "ept,npt"]])
def test_the_causes_on_the_screen_add_up_to_all_cycles(verb: list[str], tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(SCENARIO)
    done = CliRunner().invoke(root, [verb[0], str(path), *verb[1:]], standalone_mode=False)
    assert done.exception is None, done.output
    rows = [
        line.split("  ") for line in done.output.partition("\nCycles per access\n")[2].split("\n\n")[0].splitlines()
    ]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows[1:]]
    names = {row[0] if verb == ["run"] else row[1] for row in cells}
    assert {*RARE} <= names
    if verb == ["run"]:
        for column in (1, 2):
            *parts, total = [number(row[column]) for row in cells]
            assert sum(parts) == pytest.approx(total, abs=0.01 * len(parts))
    else:
        totals = done.output.partition("All cycles per access")[2].splitlines()[2:4]
        for line, vm in zip(totals, "ab", strict=True):
            name, *values = line.split()
            assert name == vm
            mine = [row for row in cells if row[0] == vm and row[1] != "wait for pCPU"]
            for place, value in enumerate(values):
                summed = sum(number(row[2 + place]) for row in mine)
                assert summed == pytest.approx(number(value), rel=0.01)
