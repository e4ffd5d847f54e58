"""Can a sweep have what no column of the summary says?"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from vmsim.base.errors import InputError
from vmsim.engine.run import simulate
from vmsim.record.result import Result
from vmsim.sweeps.driver import run_sweep
from vmsim.sweeps.parts import list_parts
from vmsim.sweeps.sweep import Sweep
from vmsim.sweeps.tables import read_points

BASE = """
[base]
seed = 7
[base.host]
cpu = "yardstick"
memory = "64MiB"
[[base.vm]]
name = "a"
memory = "8MiB"
mode = "ept"
dirty_log = { method = "write-protect", every = "20us" }
workload = { kind = "uniform", footprint = "1MiB", accesses = 2000, writes = 0.5 }
[[base.vm]]
name = "b"
memory = "8MiB"
mode = "native"
workload = { kind = "uniform", footprint = "1MiB", accesses = 2000 }
[axes]
"vm.workload.writes" = [0.1, 0.9]
"""
FIGURES = """
[figures]
written = "dirty_log.pages"
readings = "dirty_log.readings"
"""


def test_figures_are_columns_after_those_of_the_summary(tmp_path: Path) -> None:
    sweep = Sweep.from_toml(BASE + FIGURES)
    run_sweep(sweep, tmp_path / "store", jobs=1)
    table = read_points(tmp_path / "store", sweep)
    assert [*table.columns][-2:] == ["readings", "written"]
    for point in sweep.points():
        figures = Result(point.scenario, simulate(point.scenario)).figures.set_index(["vm", "component", "figure"])
        here = table[table["point"] == point.identity].set_index("vm")
        for name, figure in (("written", "pages"), ("readings", "readings")):
            assert here.loc["a", name] == figures.loc[("a", "dirty_log", figure), "value"] > 0
            assert here.loc["b", name] == 0  # no log


def test_they_change_no_identity_and_no_other_column(tmp_path: Path) -> None:
    plain, more = Sweep.from_toml(BASE), Sweep.from_toml(BASE + FIGURES)
    tables = []
    for name, sweep in (("plain", plain), ("more", more)):
        run_sweep(sweep, tmp_path / name, jobs=1)
        tables.append(read_points(tmp_path / name, sweep))
    pd.testing.assert_frame_equal(tables[0], tables[1].drop(columns=["written", "readings"]))


def test_the_order_in_which_a_sweep_names_them_does_not_matter(tmp_path: Path) -> None:
    other = '\n[figures]\nreadings = "dirty_log.readings"\nwritten = "dirty_log.pages"\n'
    parts = []
    for name, text in (("one", FIGURES), ("two", other)):
        run_sweep(Sweep.from_toml(BASE + text), tmp_path / name, jobs=1)
        parts.append([path.read_bytes() for path in list_parts(tmp_path / name / "results").values()])
    assert parts[0] == parts[1]


def test_a_store_without_them_is_refused(tmp_path: Path) -> None:
    run_sweep(Sweep.from_toml(BASE), tmp_path / "store", jobs=1)
    with pytest.raises(InputError, match=r"this sweep would add readings \(int64\), written"):
        run_sweep(Sweep.from_toml(BASE + FIGURES), tmp_path / "store", jobs=1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('walks = "dirty_log.pages"', "figures.walks: the results have a column of this name"),
        ('"vm.workload.writes" = "dirty_log.pages"', "the results have a column of this name"),
        ('pages = "dirty_log"', "found 'dirty_log', expected a component and its figure"),
        ('"a b" = "dirty_log.pages"', "expected a name of letters"),
    ],
)
def test_a_wrong_figure_is_refused_with_the_place(text: str, told: str) -> None:
    with pytest.raises(InputError) as error:
        Sweep.from_toml(f"{BASE}\n[figures]\n{text}\n")
    assert told in str(error.value)
