"""Does a plain reader of dumped tables find the translations that the simulated machine has?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.oracle import tables as oracle
from tests.simulation.test_contract import Words
from vmsim.contracts import Moment
from vmsim.engine.simulation import Simulation
from vmsim.scenario import Scenario

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


class Record(NamedTuple):
    """One line: an address, the frames of the tables from the root on, and of the 4 KiB there."""

    address: int
    chain: tuple[int, ...]
    page: int


def read(path: Path) -> dict[int, Record]:
    """Read a dump as its format says, with nothing of vmsim's."""
    count, *lines = path.read_text().splitlines()
    assert int(count) == len(lines)
    records = {}
    for line in lines:
        assert line == line.lower()
        address, *chain, page = (int(field, 16) for field in line.split(","))
        assert address % 4096 == 0
        records[address] = Record(address, tuple(chain), page)
    assert len(records) == len(lines)
    return records


def translate(records: dict[int, Record], address: int) -> int | None:
    """Look an address up in the records."""
    record = records.get(address >> 12 << 12)
    return (record.page << 12) + address % 4096 if record else None


def size_of(record: Record) -> int:
    """Return the bytes of the page: where a PE is the frame of the block around the data, there is no table."""
    size = 4096
    for above, frame in enumerate(reversed(record.chain), start=1):
        if frame != record.page >> 9 * above << 9 * above:
            break
        size = 4096 << 9 * above
    return size


def consistent(records: list[Record]) -> None:
    """An entry leads to one table: same root, and the same frame wherever the address bits above are the same."""
    tables: dict[tuple[int, int], int] = {}
    for record in records:
        for depth, frame in enumerate(record.chain):
            prefix = record.address >> 12 + 9 * (len(record.chain) - depth)
            assert tables.setdefault((depth, prefix), frame) == frame
    assert [record.address for record in records] == sorted({record.address for record in records})


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

    def look(moment: Moment, simulation: Simulation, whose: Any) -> None:
        for machine in [whose] if moment is Moment.VM_FINISHED else []:
            words, name = Words(simulation.hardware.memory), machine.spec.name
            guest = read(folder / f"{name}.1.guest.txt")
            host = read(folder / f"{name}.host.txt") if not machine.spec.bare else None
            nested = machine.monitor.memory_root
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
                    right = oracle.translate_guest(words, *own, *nested, gva, machine.monitor.backing)
                    assert gpa == (right and right[0])
                    hpa = translate(host, gpa) if gpa is not None else None
                    there = (
                        gpa if gpa is None else oracle.translate_nested(words, *nested, gpa, machine.monitor.backing)
                    )
                    assert hpa == (there and there[0])
                found += gpa is not None
            assert found >= 256
            if host is not None:  # it covers the guest's own tables
                assert all(translate(host, frame << 12) is not None for each in guest.values() for frame in each.chain)
            seen[name] = len(guest)

    Simulation(scenario, observers=[look]).run()
    assert {*seen} == {*VMS}
    assert said["records"] == {path.name: len(read(path)) for path in folder.glob("*.txt")}
    assert not (folder / "bare.host.txt").exists()


def test_large_pages_are_a_record_for_each_4_kib_and_no_pe_is_nothing(
    dumped: tuple[Scenario, Path, dict[str, Any]],
) -> None:
    """4 MiB touched: two pages of 2 MiB, or one of 1 GiB; what stands for a table is the block of the data."""
    _, folder, _ = dumped
    sizes = {
        name: {size_of(record) for record in read(folder / f"{name}.txt").values()}
        for name in ("nested.1.guest", "bare-large.1.guest", "nested-large.host", "npt-five.1.guest")
    }
    assert sizes == {
        "nested.1.guest": {4096},
        "bare-large.1.guest": {2 << 20},
        "nested-large.host": {2 << 20},
        "npt-five.1.guest": {2 << 20},
    }
    assert len(read(folder / "bare-large.1.guest.txt")) == 2 * 512
    assert all(0 not in record.chain for record in read(folder / "bare-large.1.guest.txt").values())
    (line,) = {line.count(",") for line in (folder / "npt-five.host.txt").read_text().splitlines()[1:]}
    assert line == 6


@pytest.mark.parametrize(("levels", "page", "order"), [(4, "2M", 9), (4, "1G", 18), (3, "2M", 9), (2, "4M", 10)])
def test_every_size_of_page_is_written_by_4_kib_as_the_format_has_it(levels: int, page: str, order: int) -> None:
    """By hand, from SagePTE's dumper: PE4 of 2 MiB is its first frame; PE3 of 1 GiB is, PE4 that of the 2 MiB."""
    from vmsim.observe.table_text import table_records

    width = 10 if levels == 2 else 9
    memory = np.zeros(8 << 9, np.int64)
    words = memory.view(np.uint32) if levels == 2 else memory
    base, present, large = 3 << order, 1, 1 << 7
    leaf = order // 9 + 1
    for level in range(levels, leaf, -1):  # the table of a level lies in frame 8 - level, its entry at place 1
        words[((8 - level) << 12) // words.itemsize + 1] = (9 - level) << 12 | present
    words[((8 - leaf) << 12) // words.itemsize + 1] = base << 12 | present | large
    got = [[int(field, 16) for field in line.split(",")] for line in table_records(memory, (8 - levels) << 12, levels)]
    assert len(got) == 1 << order
    first = sum(1 << 12 + width * (level - 1) for level in range(leaf, levels + 1))
    for part in {0, 1, 511, 512, (1 << order) - 1} & {*range(1 << order)}:
        frame = base + part
        below = {"2M": [base], "4M": [base], "1G": [base, frame // 512 * 512]}[page]
        assert got[part] == [first + 4096 * part, *(8 - level for level in range(levels, leaf - 1, -1)), *below, frame]


def test_the_same_run_gives_the_same_files(vmsim: Any, dumped: tuple[Scenario, Path, dict[str, Any]]) -> None:
    _, folder, _ = dumped
    run = folder.with_name("run")
    before = {path.name: path.read_bytes() for path in folder.glob("*.txt")}
    said = vmsim("dump", run)  # the tables are what there is to dump
    assert said.status == 2  # there is a dump already
    assert vmsim("dump", run, "--tables", "--force").status == 0
    assert before == {path.name: path.read_bytes() for path in folder.glob("*.txt")}


def test_what_cannot_be_dumped_is_said(vmsim: Any, file: Path, tmp_path: Path) -> None:
    assert vmsim("run", file, "--out", tmp_path / "run").status == 0
    manifest = tmp_path / "run" / "manifest.json"
    assert vmsim("dump", tmp_path / "nothing", "--tables").status == 2
    manifest.write_text(manifest.read_text().replace('"end"', '"finish"', 1))
    assert vmsim("dump", tmp_path / "run", "--tables").status == 2
    assert not (tmp_path / "run.tables").exists()


def test_a_run_that_vmsim_would_now_end_otherwise_is_not_dumped(file: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from vmsim.api import run
    from vmsim.base.errors import InputError
    from vmsim.observe.dump import dump_tables

    result = run(file)
    result.facts = replace(result.facts, end=result.facts.end + 1)
    with pytest.raises(InputError, match="this version of vmsim"):
        dump_tables(result, tmp_path / "tables")
    assert not (tmp_path / "tables").exists()
