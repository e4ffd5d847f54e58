"""Are all forms of counters read, are ratios formed of what belongs together, and is every exit reason told of?"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from vmsim.analysis.perf import REASONS, Counted, read_counts, side_by_side
from vmsim.base.errors import InputError
from vmsim.cli.compare import command

PLAIN = """
# started on Sat Nov 28 2026

 Performance counter stats for './program':

     2,000,000,000      cycles:u                  #    2.100 GHz                      (83.3%)
       300,000,000      mem_inst_retired.all_loads:u
       100,000,000      mem_inst_retired.all_stores:u
         4,000,000      dtlb_load_misses.walk_completed
       120,000,000      cpu/dtlb_load_misses.walk_pending/u
        80,000,000      ept.walk_pending
            40,000      page-faults               #   12.1 K/sec
     <not counted>      dtlb_store_misses.walk_completed
       100,000,000      branches
            952.38 msec task-clock                #    0.998 CPUs utilized

       0.954301 seconds time elapsed
"""
CSV = """2000000000,,cycles:u,952380000,100.00,2.100,GHz
300000000,,mem_inst_retired.all_loads:u,952380000,100.00,,
100000000,,mem_inst_retired.all_stores:u,952380000,100.00,,
4000000,,dtlb_load_misses.walk_completed,952380000,83.00,,
120000000,,dtlb_load_misses.walk_pending,952380000,83.00,,
80000000,,ept.walk_pending,952380000,83.00,,
40000,,page-faults,952380000,100.00,12.1,K/sec
<not counted>,,dtlb_store_misses.walk_completed,0,0.00,,
100000000,,branches,952380000,100.00,,
"""
KVM_REPORT = """
             VM-EXIT    Samples  Samples%     Time%    Min Time    Max Time         Avg time

       EPT_VIOLATION       3000    75.00%    60.00%      0.50us     90.00us      2.50us ( +-   1.00% )
                 HLT       1000    25.00%    40.00%      1.00us   9000.00us     50.00us ( +-   9.00% )

Total Samples:4000, Total events handled time:57500.00us.
"""
KVM_STAT = """kvm_exit                         4000       10
kvm_exit(EPT_VIOLATION)          3000        8
kvm_exit(HLT)                    1000        2
"""


def read(tmp_path: Path, *texts: str) -> Counted:
    paths = [tmp_path / f"{number}.txt" for number, _ in enumerate(texts)]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return read_counts(paths)


@pytest.mark.parametrize("text", [PLAIN, CSV, CSV.replace(",", ";"), CSV.replace(",", "|")])
def test_all_forms_of_perf_stat_say_the_same(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, text)
    assert found.counts == {
        "cycles": 2e9,
        "accesses": 4e8,
        "walks": 4e6,
        "walk_cycles": 1.2e8,
        "nested_cycles": 8e7,
        "faults": 4e4,
    }
    assert found.missing == ["dtlb_store_misses.walk_completed"]
    assert "branches" in found.unknown


def test_exits_are_read_by_reason(tmp_path: Path) -> None:
    assert read(tmp_path, KVM_REPORT).exits == {"EPT_VIOLATION": (3000, 2500), "HLT": (1000, 50_000)}
    found = read(tmp_path, KVM_STAT)
    assert found.exits == {"EPT_VIOLATION": (3000, 0), "HLT": (1000, 0)}
    assert found.counts["exits"] == 4000


def test_what_two_events_count_is_counted_once(tmp_path: Path) -> None:
    found = read(
        tmp_path, CSV + "999,,dTLB-loads,1,100.00,,\n777,,dTLB-load-misses,1,100.00,,\n5,,minor-faults,1,100.00,,\n"
    )
    assert (found.counts["accesses"], found.counts["walks"], found.counts["faults"]) == (4e8, 4e6, 4e4)


def test_ratios_are_compared(tmp_path: Path) -> None:
    """By hand: 4 M walks of 400 M accesses are 10 in 1,000; (120 + 80) M cycles are 50 a walk, 10 % of all."""
    numbers = {
        "total_cycles": 1100,
        "pcpu_wait_cycles": 60,
        "io_wait_cycles": 40,
        "accesses": 100,
        "l1_tlb_misses": 4,
        "l2_tlb_misses": 2,
        "walks": 2,
        "walk_cycles": 200,
        "walk_nested_cycles": 150,
        "guest_faults": 1,
        "exits": 4,
    }
    summary = pd.DataFrame([{"mode": "ept", **numbers}])
    exits = pd.DataFrame(
        {
            "mode": "ept",
            "reason": ["EPT_VIOLATION", "WRITE_PROTECT", "IO"],
            "count": [2, 1, 1],
            "cycles": [400, 200, 90],
        }
    )
    found = read(tmp_path, PLAIN, KVM_REPORT)
    rows = {str(row.pop("quantity")): row for row in side_by_side(found, summary, exits, 1_000_000_000)}
    assert rows["walks per 1,000 accesses"] == {"measured": 10, "ept": 20}
    assert rows["cycles of a walk"] == {"measured": 50, "ept": 100}
    assert rows["walks, % of all cycles"] == {"measured": 10, "ept": 20}
    assert rows["nested part of walks, %"] == {"measured": 40, "ept": 75}
    assert rows["exits per 1,000,000 accesses"] == {"measured": 10, "ept": 40_000}
    assert rows["EPT_VIOLATION, % of exits"] == {"measured": 75, "ept": 75}
    assert rows["EPT_VIOLATION, ns of one"] == {"measured": 2500, "ept": 200}
    assert rows["HLT, % of exits"] == {"measured": 25, "ept": None}
    assert "L1 TLB misses per 1,000 accesses" not in rows  # nobody counted them


@pytest.mark.parametrize("text", ["", "hello\n", "a,b,c,d\n", "1 2 3\n"])
def test_what_is_no_counter_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"0\.txt: no counters are in it"):
        read(tmp_path, text)


def test_every_reason_of_an_exit_is_in_the_table() -> None:
    from vmsim.monitor.shadow.prices import Exit

    text = (Path(__file__).parents[2] / "docs/reference/measured.md").read_text()
    none = {"AGILE_SCAN", "REFLECT", "CREATE", "UNFINISHED"}
    assert {each.name for each in Exit} <= REASONS.keys()
    for reason in REASONS.keys() | none:
        assert reason in text
    assert all(name in text for names in REASONS.values() for name in names)


def test_compare_sets_a_machine_beside_the_modes(tmp_path: Path) -> None:
    scenario, counters = tmp_path / "s.toml", tmp_path / "c.txt"
    scenario.write_text(
        '[host]\nmemory = "64MiB"\n[[vm]]\nname = "a"\nmemory = "16MiB"\nmode = "ept"\n'
        '[vm.workload]\nkind = "uniform"\nfootprint = "4MiB"\naccesses = 4000\n'
    )
    counters.write_text(PLAIN)
    given = [str(scenario), "--modes", "native,ept", "--measured", str(counters)]
    said = CliRunner().invoke(command, given, standalone_mode=False, catch_exceptions=False)
    assert "walks per 1,000 accesses" in said.output
    assert "Events without a counterpart here: branches" in said.output
    told = json.loads(CliRunner().invoke(command, [*given, "--json"], standalone_mode=False).output)
    row = next(each for each in told["measured"]["compared"] if each["quantity"] == "cycles of a walk")
    assert row["measured"] == 50
    assert row["ept"] > row["native"] > 0
