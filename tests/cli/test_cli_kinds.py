"""Can every kind of workload be written, read, saved, swept and dumped in every mode? Read from the schema: a new kind
is covered by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vmsim import plugins
from vmsim.record.result import Result
from vmsim.scenario import Scenario, mode_names
from vmsim.scenario.types import Model
from vmsim.sweeps import Sweep
from vmsim.sweeps.points import candidates, identity_of

KINDS: dict[str, type[Model]] = plugins.loaded("workloads")
# Values small enough that a run takes milliseconds, in place of defaults that are larger.
SMALL: dict[str, Any] = {
    "path": "tiny.csv",
    "footprint": "64KiB",
    "accesses": 200,
    "updates": 100,
    "window": "8KiB",
    "phase": 50,
    "step": "4KiB",
    "rounds": 4,
    "burst": "8KiB",
    "processes": 2,
    "reads": 5,
    "data": "64KiB",
    "operations": 8,
    "forks": 2,
    "text": "8KiB",
    "parent": "8KiB",
    "child": "8KiB",
    "block": "16KiB",
    "every": 50,
}

OF_KIND: dict[str, dict[str, Any]] = {"stand-in": {"footprint": "2MiB"}}
# What a VM needs beside such a workload.
BESIDE: dict[str, dict[str, Any]] = {"files": {"files": {"disk": "nvme"}}}


def tables(kind: str, mode: str) -> dict[str, Any]:
    fields = KINDS[kind].model_fields
    keys = {key: value for key, value in SMALL.items() if key in fields} | OF_KIND.get(kind, {})
    host = {"cpu": "yardstick", "what_if": True, "memory": "32MiB", "pool": {"min": 4, "max": 64, "batch": 16}}
    marks = {"min": "64KiB", "low": "80KiB", "high": "96KiB"}
    vm = {"name": "a", "memory": "4MiB", "mode": mode, "workload": {"kind": kind, **keys}, **BESIDE.get(kind, {})}
    return {"host": host | {"watermarks": marks}, "vm": [vm]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.csv").write_text("address,kind\n" + "".join(f"{4096 * page},w\n" for page in range(1, 9)))
    return tmp_path


@pytest.mark.parametrize("mode", mode_names())
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_written_read_and_swept(kind: str, mode: str, folder: Path) -> None:
    scenario = Scenario.from_tables(tables(kind, mode), folder=folder)
    scenario.save(folder / "s.toml")
    assert Scenario.load(folder / "s.toml") == scenario
    assert json.loads(scenario.canonical())["vms"][0]["workload"]["kind"] == kind
    (folder / "sweep.toml").write_text('base = "s.toml"\naxes."vm.workload.compute" = [1, 2]\n')
    found = [each.identity for each, _, _ in candidates(Sweep.load(folder / "sweep.toml"))]
    assert len(set(found)) == 2
    assert identity_of(scenario) == identity_of(Scenario.load(folder / "s.toml"))


@pytest.mark.parametrize("mode", mode_names())
@pytest.mark.parametrize("kind", KINDS)
def test_its_run_is_saved_loaded_and_dumped(kind: str, mode: str, folder: Path, vmsim: Any) -> None:
    (folder / "s.toml").write_text(Scenario.from_tables(tables(kind, mode), folder=folder).to_toml())
    said = vmsim("run", folder / "s.toml", "--out", folder / "r", "--json")
    assert said.status == 0, said.err
    saved = Result.load(folder / "r")
    assert saved.scenario == Scenario.load(folder / "s.toml")
    assert saved.summary["finished"].all()
    assert saved.summary["accesses"].sum() > 0
    assert vmsim("dump", folder / "r", "--tables").status == 0


@pytest.mark.parametrize("mode", mode_names())
def test_messages_show_the_pins_of_a_disk(mode: str, folder: Path, vmsim: Any) -> None:
    """Each read pins its buffer, waits for the device and unpins it; a native process, which is no VM, asks nobody."""
    (folder / "s.toml").write_text(Scenario.from_tables(tables("disk", mode), folder=folder).to_toml())
    assert vmsim("run", folder / "s.toml", "--out", folder / "r").status == 0
    said = vmsim("messages", folder / "r", "--json")
    kinds = [each["kind"] for each in json.loads(said.out)["messages"]]
    expected = 0 if mode == "native" else SMALL["reads"]
    assert [kinds.count(kind) for kind in ("pin", "io_done", "unpin")] == [expected] * 3


def test_a_time_of_a_device_has_one_way_of_being_hashed(folder: Path) -> None:
    def hashed(device: object) -> str:
        given = tables("disk", "ept")
        given["vm"][0]["workload"]["device"] = device
        return Scenario.from_tables(given, folder=folder).canonical()

    assert hashed("100us") == hashed("0.1ms")
    assert hashed("100us") != hashed("101us")
