"""Do the figures of runs and sweeps show what the tables say, and does `vmsim plot` write them as asked?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.text import Text

import vmsim
from tests.simulation.small import scenario, vm
from vmsim.cli.plot import command
from vmsim.plotting.kinds import KINDS
from vmsim.plotting.memory import owners
from vmsim.plotting.sweeps import axes_of, choose, values_of

RUNS = [name for name, kind in KINDS.items() if kind.of == "run"]
SWEEPS = [name for name, kind in KINDS.items() if kind.of == "sweep"]
SMALL = scenario(vm("left", workload={"accesses": 600}), vm("right", mode="npt"), samples="1us")


@pytest.fixture(scope="module")
def result() -> vmsim.Result:
    return vmsim.run(SMALL, **{"host.what_if": True})


@pytest.fixture(scope="module")
def both() -> vmsim.Comparison:
    return vmsim.compare(SMALL, ["native", "ept"])


@pytest.fixture(scope="module")
def kept(result: vmsim.Result, both: vmsim.Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    result.save(folder / "run")
    both.save(folder / "both")
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_in_the_help_the_docstring_and_the_page(kind: str) -> None:
    page = Path("docs/reference/figures.md").read_text()
    assert kind in (command.help or "")
    assert f"``{kind}``" in (vmsim.plot.__doc__ or "")
    assert f"| `{kind}` |" in page


def made_up(replicates: int = 1) -> pd.DataFrame:
    """Return the results of a sweep as they would be if cycles were 100 min + batch + 2 replicate, and 1 more in b."""
    rows = [
        {"point": f"{mins}-{batch}-{each}", "replicate": each, "seed": each, "min": mins, "batch": batch, "vm": name}
        | {"mode": "ept", "cycles_per_access": 100.0 * mins + batch + 2 * each + extra, "exits": mins}
        for mins in (4, 16)
        for batch in (8, 16, 32)
        for each in range(replicates)
        for name, extra in (("a", 0), ("b", 1))
    ]
    return pd.DataFrame(rows)


def test_a_mode_is_no_axis_beside_the_one_of_another_name_that_sets_it() -> None:
    table = made_up()
    table["mode"] = table["min"].map({4: "ept", 16: "shadow"})
    assert axes_of(table) == ("min", "batch")
    both = pd.concat([made_up().assign(mode=mode) for mode in ("ept", "shadow")])  # the column of the axis "mode"
    assert axes_of(both) == ("min", "batch", "mode")


def test_bars_of_a_run_are_as_high_as_its_cycles_per_access(result: vmsim.Result) -> None:
    made = result.plot()
    ax = made.figure.axes[0]
    tops = [max(bar.get_y() + bar.get_height() for bar in bars) for bars in zip(*ax.containers, strict=True)]
    assert tops == pytest.approx(result.summary["cycles_per_access"].to_list())
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["left (EPT)", "right (NPT)"]
    assert made.table.groupby("vm")["cycles"].sum().to_dict() == dict(
        zip(result.summary["vm"], result.summary["total_cycles"], strict=True)
    )


def test_positions_of_walks_are_shares_of_all_references(result: vmsim.Result) -> None:
    made = result.plot("walk")
    served = made.table[made.table["served"] != "PWC"]
    assert served["count"].sum() == result.summary["walk_refs"].sum()
    assert float(made.figure.axes[0].images[0].get_array().sum()) == pytest.approx(1)  # type: ignore[union-attr]


def test_owners_of_the_hosts_memory_sum_to_its_size_at_each_time(result: vmsim.Result) -> None:
    table = owners(result)
    assert {*table.groupby("time_us")["frames"].sum()} == {16 << 20 >> 12}
    assert (table["frames"] >= 0).all()
    last = table[table["time_us"] == table["time_us"].max()].set_index("owner")["frames"]
    host = result.memory[result.memory["vm"] == ""].iloc[-1]
    assert last["free"] == host["host_free"]


def test_the_distribution_of_latencies_is_that_of_the_table(result: vmsim.Result) -> None:
    table = result.plot("latency", vms=["left"]).table
    told = result.fault_latency[result.fault_latency["vm"] == "left"]
    assert table["count"].to_list() == told.sort_values("cycles")["count"].to_list()
    assert table["share"].iloc[-1] == 1
    assert table["us"].iloc[0] == pytest.approx(table["cycles"].iloc[0] * 1e6 / result.facts.frequency)


def test_pool_levels_are_steps_of_each_vm(result: vmsim.Result) -> None:
    ax = result.plot("pool").figure.axes[0]
    assert {line.get_drawstyle() for line in ax.lines} == {"steps-post"}
    for line in ax.lines:
        mine = result.pool[(result.pool["vm"] == line.get_label()) & (result.pool["event"] != "return")]
        assert list(line.get_ydata()) == mine["level"].to_list()  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", RUNS)
def test_two_runs_and_all_modes_of_a_comparison_are_drawn_side_by_side(kind: str, kept: Path) -> None:
    two = vmsim.plot(kept / "both" / "ept", kind, beside=kept / "run")
    assert list(dict.fromkeys(two.table["run"])) == ["ept", "run"]
    all_modes = vmsim.plot(kept / "both", kind)
    shown = list(dict.fromkeys(all_modes.table.get("run", ["EPT"])))
    assert shown == (["EPT"] if kind in ("pool", "latency") else ["native", "EPT"])


@pytest.mark.parametrize("kind", RUNS)
def test_letters_are_of_seven_points_at_least_and_widths_those_of_papers(kind: str, result: vmsim.Result) -> None:
    for width, inches in (("column", 3.35), ("page", 7.0)):
        figure = result.plot(kind, width=width).figure
        assert figure.get_size_inches()[0] == inches
        small = [text for text in figure.findobj(Text) if text.get_text() and text.get_fontsize() < 7]
        assert not small


def test_a_plot_shows_itself_in_a_notebook(result: vmsim.Result) -> None:
    assert result.plot("latency")._repr_png_().startswith(b"\x89PNG")


def test_cells_of_a_heat_map_are_means_over_vms_and_replicates() -> None:
    made = vmsim.plot(made_up(replicates=3), "heatmap")
    cells = made.figure.axes[0].images[0].get_array()
    assert cells is not None
    # mean of 2 * (0, 1, 2) is 2, of the VMs' 0 and 1 one half
    assert cells.tolist() == [[100 * mins + batch + 2.5 for batch in (8, 16, 32)] for mins in (4, 16)]
    assert "2 VMs and 3 replicates" in made.caption


def test_lines_have_students_interval_of_the_replicates() -> None:
    made = vmsim.plot(made_up(replicates=3), "lines", x="batch", vms=["a"])
    row = made.table[(made.table["min"] == 4) & (made.table["batch"] == 8)].iloc[0]
    assert row["cycles_per_access"] == 410
    half = 4.302652729911275 * 2 / 3**0.5  # t of 97.5 % with 2 degrees of freedom; s of 0, 2, 4 is 2
    assert (row["low"], row["high"]) == pytest.approx((410 - half, 410 + half))
    assert len(made.figure.axes[0].lines) == 2


def test_what_varies_and_what_can_be_drawn_is_told_from_the_columns() -> None:
    table = made_up()
    assert axes_of(table) == ("min", "batch")
    assert values_of(table) == ["cycles_per_access", "exits"]
    assert choose(table, where={"min": "4"}).names == ("batch",)


def test_files_are_written_with_their_data_and_replaced_only_by_force(kept: Path, tmp_path: Path, vmsim: Any) -> None:
    out = tmp_path / "f"
    said = vmsim("plot", kept / "run", "breakdown", "--out", out, "--format", "pdf", "--format", "svg")
    assert said.status == 0, said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.csv", "f.pdf", "f.svg"]
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert pd.read_csv(tmp_path / "f.csv")["cycles"].sum() > 0
    again = vmsim("plot", kept / "run", "--out", tmp_path / "f.pdf")
    assert (again.status, "--force" in again.err) == (2, True)
    assert vmsim("plot", kept / "run", "--out", tmp_path / "f.pdf", "--force").status == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


def test_the_data_is_printed_as_json(kept: Path, vmsim: Any) -> None:
    told = json.loads(vmsim("plot", kept / "run", "pool", "--json").out)
    assert {row["vm"] for row in told["data"]} == {"left", "right"}
    assert told["caption"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["breakdwn"], "Did you mean 'breakdown'?"),
        (["heatmap"], "cannot be drawn of a run"),
        (["pool", "--vm", "lft"], "Did you mean 'left'?"),
        (["pool", "--x", "min"], "x: it has no meaning for a run"),
        (["--out", "f.gif"], "expected a name that ends in .png, .pdf, .svg"),
        (["--out", "f.png", "--format", "pdf"], "f.png ends in .png"),
        (["--where", "min"], "expected NAME=VALUE"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(words: list[str], said: str, kept: Path, vmsim: Any) -> None:
    done = vmsim("plot", kept / "run", *words)
    assert done.status == 2
    assert said in done.err


def test_the_help_names_every_kind(vmsim: Any) -> None:
    said = vmsim("plot", "--help").out
    assert [kind for kind in KINDS if kind not in said] == []


def test_what_cannot_be_drawn_of_a_sweep_is_refused() -> None:
    table = made_up()
    for options, said in (
        ({"kind": "pool"}, "of a sweep"),
        ({"kind": "lines", "where": {"batch": 8, "min": 4}}, "Expected 1 parameter"),
        ({"kind": "heatmap", "value": "exts"}, "Did you mean 'exits'"),
        ({"kind": "heatmap", "where": {"min": 5}}, "has no value '5'"),
        ({"kind": "lines", "x": "bacth"}, "Did you mean 'batch'"),
        ({"kind": "heatmap", "where": {"min": 4}}, "Expected 2 parameters"),
    ):
        with pytest.raises(vmsim.InputError, match=said):
            vmsim.plot(table, **options)  # type: ignore[arg-type]


def test_a_run_without_samples_says_how_to_have_them() -> None:
    with pytest.raises(vmsim.InputError, match=r"host\.samples"):
        vmsim.run(scenario(vm())).plot("memory")
    with pytest.raises(vmsim.InputError, match=r"host\.samples"):
        vmsim.run(scenario(vm())).plot("huge")


def test_what_lies_in_huge_pages_of_both_is_neithers_alone() -> None:
    """A guest that maps 2 MiB by one page on a host that has them as one, and its tables in another."""
    guest = vm(memory="8MiB", thp={"enabled": "always"}, workload={"footprint": "2MiB", "accesses": 600})
    spec = scenario(guest, memory="32MiB", samples="1us", thp={"enabled": "always", "khugepaged": False})
    last = vmsim.run(spec).plot("huge").table.iloc[-1]
    assert (last["aligned"], last["guest_only"], last["host_only"]) == (512, 0, 512)
