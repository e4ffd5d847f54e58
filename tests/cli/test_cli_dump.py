"""Does a plain reader of dumped tables find the translations that the simulated machine has?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.oracle import tables as oracle
from tests.simulation.test_contract import Words
from vmsim.scenario import Scenario
from vmsim.simulation import Simulation

SCENARIO = """
seed = 3
[host]
cpu = "skylake-x"
what_if = true
cores = 2
memory = "512MiB"
"""
VM = """
[[vm]]
name = "{name}"
memory = "32MiB"
mode = "{mode}"
{more}
workload = {{ {workload} }}
"""
CHURN = 'kind = "churn", footprint = "4MiB", burst = "256KiB", rounds = 40, kept = 0.5, work = 10'
UNIFORM = 'kind = "uniform", footprint = "4MiB", accesses = 4000'  # leaves large pages whole
VMS = {
    "bare": ("native", ""),
    "bare-large": ("native", 'guest_page = "2M"'),
    "nested": ("ept", ""),
    "nested-large": ("ept", 'host_page = "2M"'),
    "npt-five": ("npt", 'guest_levels = 5\nhost_levels = 5\nguest_page = "2M"'),
    "shadowed": ("shadow", ""),
    "agile-one": ("agile", ""),
    "akaros": ("paired", ""),
    "dragonfly": ("vkernel", ""),
}
BASE_SIZES = {0: 12, 1: 21, 2: 30}  # bits of a page by how many tables it has less than there are levels


class Record(NamedTuple):
    """One line: the frames of the tables from the root on, and of the page."""

    start: int
    bits: int
    chain: tuple[int, ...]
    page: int


def read(path: Path) -> dict[tuple[int, int], Record]:
    """Read a dump as its format says, with nothing of vmsim's."""
    count, *lines = path.read_text().splitlines()
    assert int(count) == len(lines)
    records = {}
    for line in lines:
        assert line == line.lower()
        address, *chain, page = (int(field, 16) for field in line.split(","))
        missing = 0
        while chain[-1 - missing] == 0 and missing < 2:
            missing += 1
        bits = BASE_SIZES[missing]
        records[address, bits] = Record(address, bits, tuple(chain[: len(chain) - missing]), page)
    assert len(records) == len(lines)
    return records


def translate(records: dict[tuple[int, int], Record], address: int) -> int | None:
    """Look an address up in the records, by start and size."""
    for bits in BASE_SIZES.values():
        if record := records.get((address >> bits << bits, bits)):
            return (record.page << 12) + address - record.start
    return None


def consistent(records: list[Record]) -> None:
    """An entry leads to one table: same root, and the same frame wherever the address bits above are the same."""
    tables: dict[tuple[int, int], int] = {}
    for record in records:
        assert record.start % (1 << record.bits) == record.page << 12 & (1 << record.bits) - 1 == 0
        levels = len(record.chain) + (record.bits - 12) // 9
        for depth, frame in enumerate(record.chain):
            prefix = record.start >> 12 + 9 * (levels - depth)
            assert tables.setdefault((depth, prefix), frame) == frame
    assert [record.start for record in records] == sorted({record.start for record in records})


@pytest.fixture(scope="module")
def dumped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenario, Path, dict[str, Any]]:
    """Run a scenario with every mode, and dump its tables by the command line."""
    from click.testing import CliRunner

    from vmsim.cli import root

    folder = tmp_path_factory.mktemp("dump")
    text = SCENARIO
    for name, (mode, more) in VMS.items():
        text += VM.format(name=name, mode=mode, more=more, workload=UNIFORM if "guest_page" in more else CHURN)
    (folder / "all.toml").write_text(text)
    ran = CliRunner().invoke(root, ["run", str(folder / "all.toml"), "--out", str(folder / "run")])
    assert ran.exit_code == 0, ran.output
    said = CliRunner().invoke(root, ["dump", str(folder / "run"), "--tables", "--json"])
    assert said.exit_code == 0, said.output
    return Scenario.load(folder / "all.toml"), folder / "run.tables", json.loads(said.stdout)


def test_translations_are_those_of_the_machine(dumped: tuple[Scenario, Path, dict[str, Any]]) -> None:
    scenario, folder, said = dumped
    seen = {}

    def look(simulation: Simulation, where: str) -> None:
        for machine in simulation.vms:
            if where != f"the end of {machine.spec.name}":
                continue
            words, name = Words(simulation.hardware.memory), machine.spec.name
            guest = read(folder / f"{name}.1.guest.txt")
            host = read(folder / f"{name}.host.txt") if machine.monitor else None
            nested = machine.kernel.mmu.memory_root
            for records in filter(None, (guest, host)):
                consistent([*records.values()])
            base = int(machine.stream.footprint()[0][0])
            found = 0
            for gva in range(base, base + (4 << 20), 4096):
                gpa = translate(guest, gva)
                own = machine.kernel.root, machine.spec.guest_levels
                if host is None:
                    right = oracle.translate(words, *own, gva)
                    assert gpa == (right and right[0])
                else:
                    right = oracle.translate_guest(words, *own, *nested, gva)
                    assert gpa == (right and right[0])
                    hpa = translate(host, gpa) if gpa is not None else None
                    there = oracle.translate(words, *nested, gpa) if gpa is not None else None
                    assert hpa == (there and there[0])
                found += gpa is not None
            assert found >= 256
            if host is not None:  # it covers the guest's own tables
                assert all(translate(host, frame << 12) is not None for each in guest.values() for frame in each.chain)
            seen[name] = len(guest)

    Simulation(scenario, check=look).run()
    assert {*seen} == {*VMS}
    assert said["records"] == {path.name: len(read(path)) for path in folder.glob("*.txt")}
    assert not (folder / "bare.host.txt").exists()


def test_large_pages_are_one_record_with_fewer_tables(dumped: tuple[Scenario, Path, dict[str, Any]]) -> None:
    _, folder, _ = dumped
    assert {record.bits for record in read(folder / "nested.1.guest.txt").values()} == {12}
    assert {record.bits for record in read(folder / "bare-large.1.guest.txt").values()} == {21}
    assert {record.bits for record in read(folder / "nested-large.host.txt").values()} == {21}
    (line,) = {line.count(",") for line in (folder / "npt-five.host.txt").read_text().splitlines()[1:]}
    assert line == 6


def test_the_same_run_gives_the_same_files(vmsim: Any, dumped: tuple[Scenario, Path, dict[str, Any]]) -> None:
    _, folder, _ = dumped
    run = folder.with_name("run")
    before = {path.name: path.read_bytes() for path in folder.glob("*.txt")}
    said = vmsim("dump", run, "--tables")
    assert said.status == 2  # there is a dump already
    assert vmsim("dump", run, "--tables", "--force").status == 0
    assert before == {path.name: path.read_bytes() for path in folder.glob("*.txt")}


def test_what_cannot_be_dumped_is_said(vmsim: Any, file: Path, tmp_path: Path) -> None:
    assert "expected --tables" in vmsim("dump", tmp_path / "run").err
    assert vmsim("run", file, "--out", tmp_path / "run").status == 0
    manifest = tmp_path / "run" / "manifest.json"
    assert vmsim("dump", tmp_path / "nothing", "--tables").status == 2
    manifest.write_text(manifest.read_text().replace('"end"', '"finish"', 1))
    assert vmsim("dump", tmp_path / "run", "--tables").status == 2
    assert not (tmp_path / "run.tables").exists()


def test_a_run_that_vmsim_would_now_end_otherwise_is_not_dumped(file: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from vmsim.api import run
    from vmsim.dump import dump_tables
    from vmsim.errors import InputError

    result = run(file)
    result.facts = replace(result.facts, end=result.facts.end + 1)
    with pytest.raises(InputError, match="this version of vmsim"):
        dump_tables(result, tmp_path / "tables")
    assert not (tmp_path / "tables").exists()
