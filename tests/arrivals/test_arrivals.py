"""Do tables of VMs that come and go become scenarios that say the same, whichever cloud they are from?"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import vmsim
from vmsim.base.errors import InputError
from vmsim.lifetimes import arrivals
from vmsim.scenario import Scenario

GIB = 1 << 30
MIB = 1 << 20
TEMPLATE: dict[str, Any] = {
    "host": {"memory": "256GiB", "cores": 2},
    "vm": [
        {
            "name": "like",
            "memory": "1GiB",
            "mode": "ept",
            "workload": {"kind": "uniform", "footprint": "64KiB", "accesses": 100},
        }
    ],
}
SMALL = {**TEMPLATE, "host": {"memory": "64MiB", "cores": 2}}
AZURE = """\
vmid,subscriptionid,deploymentid,vmcreated,vmdeleted,maxcpu,avgcpu,p95maxcpu,vmcategory,vmcorecountbucket,vmmemorybucket
x/76f,s,d,300,2591700,99.36,3.42,10.19,Delay-insensitive,4,32
BSX,s,d,0,600,99.5,1.2,3.4,Unknown,>24,>64
"""
GOOGLE = """\
time,type,collection_id,instance_index,machine_id,resource_request.cpus,resource_request.memory
1000000,0,38,1,,0.02,0.5
2000000,3,38,1,77,0.02,0.5
3000000,UPDATE_RUNNING,38,1,77,0.02,0.25
4000000,4,38,1,77,0.02,0.25
5000000,3,38,1,78,0.02,0.125
6000000,FINISH,38,1,78,0.02,0.125
7000000,6,99,0,78,0.02,0.1
"""
ALIBABA = """\
c_1,m_2556,0,app_5052,started,400,400,1.56
c_1,m_2556,10,app_5052,started,400,400,3.12
c_2,m_9,5,app_1,allocated,400,400,50
c_1,m_2556,20,app_5052,stopped,400,400,3.12
"""
GPU = """\
name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time
openb-pod-0000,12000,16384,1,1000,,LS,Running,0,12537496,0
openb-pod-0001,6000,12288,1,460,,LS,Running,427061,,427061
"""
OWN = """\
time,vm,event,size
0,a,start,8MiB
2ms,b,start,4MiB
0.004,a,resize,2MiB
6ms,a,resize,6MiB
8ms,b,stop,
9ms,b,start,2MiB
20ms,a,stop,
"""


def made(tmp_path: Path, text: str, template: dict[str, Any] = TEMPLATE, **options: Any) -> Scenario:
    path = tmp_path / "table.csv"
    path.write_text(text)
    return arrivals(path, template, **options)


def lives(scenario: Scenario) -> list[tuple[str, int, int | None, int]]:
    """Return names, starts and stops in nanoseconds, and sizes."""
    return [
        (each.name, each.start.cycles(10**9), each.stop.cycles(10**9) if each.stop else None, each.memory)
        for each in scenario.vm
    ]


def test_events_become_starts_stops_and_balloons(tmp_path: Path) -> None:
    """By hand: a has 8 MiB at most, from 4 ms on 2 MiB and from 6 ms on 6 MiB; b comes twice."""
    scenario = made(tmp_path, OWN, SMALL)
    assert lives(scenario) == [
        ("a", 0, 20_000_000, 8 * MIB),
        ("b", 2_000_000, 8_000_000, 4 * MIB),
        ("b_3", 9_000_000, None, 2 * MIB),
    ]
    assert [(time.cycles(10**9), size) for time, size in scenario.vm[0].balloon.schedule] == [
        (4_000_000, 6 * MIB),
        (6_000_000, 2 * MIB),
    ]
    assert scenario.vm[0].balloon.size == 0
    assert not scenario.vm[1].balloon.given
    assert scenario.vm[2].workload == scenario.vm[0].workload


def test_such_a_scenario_runs(tmp_path: Path) -> None:
    text = "time,vm,event,size\n0,a,start,4MiB\n10us,b,start,2MiB\n20us,b,stop,\n"
    summary = vmsim.run(made(tmp_path, text, SMALL)).summary
    assert summary["vm"].tolist() == ["a", "b"]
    assert summary["finished"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        (AZURE, "azure", [("BSX", 0, 600, 64 * GIB), ("x_76f", 300, 2_591_700, 32 * GIB)]),
        (GOOGLE, "google", [("38_1", 0, 2, 128 * GIB), ("38_1_2", 3, 4, 32 * GIB)]),
        (ALIBABA, "alibaba", [("c_1", 0, 20, int(3.12 * 256 * GIB / 100)), ("c_2", 5, None, 128 * GIB)]),
        (
            GPU,
            "alibaba-gpu",
            [("openb-pod-0000", 0, 12_537_496, 16 * GIB), ("openb-pod-0001", 427_061, None, 12 * GIB)],
        ),
    ],
)
@pytest.mark.parametrize("headed", [True, False])
def test_the_tables_of_clouds_are_read(text: str, form: str, expected: list[Any], headed: bool, tmp_path: Path) -> None:
    """Sizes and times in seconds by hand, a thousand times as fast; Azure's second size is a bucket's bound."""
    given = None
    if not headed and form in ("azure", "alibaba-gpu"):  # as they are published, or might be; both have 11 columns
        text, given = text.split("\n", 1)[1], form
        with pytest.raises(InputError, match="azure or alibaba-gpu"):
            made(tmp_path, text)
    found = lives(made(tmp_path, text, speed=1000, form=given))
    expected = [
        (name, start * 10**6, stop and stop * 10**6, -(-size // 4096) * 4096) for name, start, stop, size in expected
    ]
    assert found == expected


def test_options_choose_and_scale(tmp_path: Path) -> None:
    scenario = made(tmp_path, AZURE, after="1s", speed=1000, scale=0.001, footprint="50%")
    ((name, start, stop, memory),) = lives(scenario)
    assert (name, start, stop) == ("x_76f", 0, 2_591_400 * 10**6)
    assert memory == -(-32 * GIB // 1000 // 4096) * 4096
    assert scenario.vm[0].workload.footprint == memory // 2 // 4096 * 4096  # type: ignore[union-attr]
    assert made(tmp_path, GOOGLE, machine="1GiB").vm[0].memory == GIB // 2


def test_a_compressed_table_is_read(tmp_path: Path) -> None:
    path = tmp_path / "vmtable.csv.gz"
    path.write_bytes(gzip.compress(AZURE.encode()))
    assert [each.name for each in arrivals(path, TEMPLATE, speed=1000).vm] == ["BSX", "x_76f"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (OWN + "21ms,a,resize,1MiB\n", r"table\.csv:9: resize of VM 'a': it does not run then"),
        (OWN.replace("2ms,b", "2ms,a"), r"table\.csv:3: start of VM 'a': it runs already"),
        (OWN.replace("resize,2MiB", "grow,2MiB"), r"table\.csv:4: column event: found 'grow'"),
        (OWN.replace("0.004", "soon"), r"table\.csv:4: column time: found 'soon'"),
        (OWN.replace("6MiB", "six"), r"table\.csv:5: column size: found 'six'"),
        (OWN.replace("4MiB", ""), r"table\.csv:3: column size: found ''"),
        (OWN + "1,2\n", r"table\.csv:9: found 2 cells, expected 4"),
        (AZURE.replace(",32\n", ",much\n"), r"table\.csv:2: column vmmemorybucket: found 'much'"),
        (GOOGLE.replace("UPDATE_RUNNING", "UPDATE"), r"table\.csv:4: column type"),
        ("a,b\n1,2\n", r"table\.csv:1: found 2 columns"),
        ("", r"empty"),
        ("time,vm,event,size\n", r"no VM starts in it"),
        ('time,vm,event,size\n0,"a,start\n', r"no CSV|cells"),
    ],
)
def test_what_cannot_be_is_told_with_its_line(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told):
        made(tmp_path, text, SMALL)


def test_options_that_cannot_be_are_told(tmp_path: Path) -> None:
    for options, told in (
        ({"form": "azur"}, "azure"),
        ({"speed": 0}, "speed"),
        ({"footprint": "lots"}, "60%"),
        ({"after": "9000000s"}, "at most|1000000s"),
    ):
        with pytest.raises(InputError, match=told):
            made(tmp_path, AZURE, **options)
    two = {**TEMPLATE, "vm": [*TEMPLATE["vm"], {**TEMPLATE["vm"][0], "name": "b"}]}
    with pytest.raises(InputError, match=r"2 .*tables"):
        made(tmp_path, AZURE, two)


def test_the_command_writes_a_scenario_and_says_what_is_in_it(tmp_path: Path, capsys: Any) -> None:
    from vmsim.cli import main

    (tmp_path / "t.csv").write_text(OWN)
    Scenario.from_tables(SMALL).save(tmp_path / "s.toml")
    arguments = ["arrivals", str(tmp_path / "t.csv"), str(tmp_path / "s.toml"), "--out", str(tmp_path / "o.toml")]
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert left.value.code == 0
    assert (told["vms"], told["most_vms"], told["most_memory"]) == (3, 2, 12 * MIB)
    assert Scenario.load(tmp_path / "o.toml") == arrivals(tmp_path / "t.csv", SMALL)
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "--force" in capsys.readouterr().err
