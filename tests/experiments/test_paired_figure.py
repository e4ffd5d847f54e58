"""Does the message of the figure on paired tables hold?"""

import importlib.util
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from vmsim.scenario import Cpu

HERE = Path(__file__).resolve().parents[2] / "experiments" / "paired"
HOLES = (1.0, 0.1, 0.02)


@pytest.fixture(scope="module")
def figure() -> ModuleType:
    spec = importlib.util.spec_from_file_location("paired_figure", HERE / "figure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def costs(figure: ModuleType) -> pd.DataFrame:
    table: pd.DataFrame = figure.costs(HOLES)
    return table


@pytest.fixture(scope="module")
def memory(figure: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    table: pd.DataFrame = figure.memory(tmp_path_factory.mktemp("paired") / "sweep")
    return table


def test_contiguous_wins_where_enough_processes_are_vms_and_separate_below(figure, costs) -> None:
    """The denser the tables the fewer: in the limit, a store saved against a walk and a store."""
    lines = [figure.boundary(costs, 1.0, density) for density in figure.DENSITIES]
    assert lines == sorted(lines, reverse=True)
    cpu = Cpu.load("skylake-x")
    limit = cpu.cost.entry_edit / (4 * cpu.cache.l2.cycles + cpu.cost.entry_edit)
    assert limit < lines[-1] < limit + 0.01
    assert 0.5 < lines[0] < 0.6
    for density, line in zip(figure.DENSITIES, lines, strict=True):
        for share, winner in ((line - 0.05, "separate"), (line + 0.05, "contiguous")):
            found = {layout: figure.cycles(costs, layout, share, 1.0, density) for layout in figure.LAYOUTS}
            assert min(found, key=found.__getitem__) == winner


def test_fragmentation_takes_sparse_tables_from_contiguous_and_hardly_dense_ones(figure, costs) -> None:
    sparse, dense = ([figure.boundary(costs, holes, density) for holes in HOLES] for density in (1, 512))
    assert sparse == sorted(sparse)
    assert sparse[1] > 1  # never
    assert dense[-1] - dense[0] < 0.1


def test_pointers_never_cost_the_fewest_cycles_and_always_the_most_memory(figure, costs, memory) -> None:
    for density in figure.DENSITIES[::3]:
        for share in (0, 0.25, 0.5, 0.75, 1):
            for holes in HOLES:
                found = {layout: figure.cycles(costs, layout, share, holes, density) for layout in figure.LAYOUTS}
                assert found["pointer"] > min(found["contiguous"], found["separate"])
    tables = memory.pivot_table(index="density", columns="layout", values="table_frames")
    assert (tables["pointer"] == tables["contiguous"]).all()  # to which the pointers are added


def test_order_1_fails_when_free_memory_is_in_single_pages_and_then_costs_most(costs) -> None:
    tables = costs[costs["guest"]].set_index(["layout", "holes"])
    failures = tables["failures"]
    assert (failures[["pointer", "separate"]] == 0).all()
    assert failures["contiguous", 1.0] == 0 < failures["contiguous", 0.1] < failures["contiguous", 0.02]
    cost = tables["table_cycles"]
    assert cost["contiguous", 1.0] < cost["separate", 1.0] < cost["pointer", 1.0] < cost["contiguous", 0.1]


def test_the_memory_tax_is_one_page_for_each_table(memory) -> None:
    """512 pages: their page tables, and three tables above."""
    for row in memory.itertuples():
        tables = 512 // row.density + 3
        assert row.table_frames == tables * (1 if row.layout == "separate" else 2)
        assert row.guest_frames == 512


@pytest.mark.parametrize("layout", ["contiguous", "separate"])
def test_an_update_and_its_share_of_a_table_are_what_a_page_costs(figure, layout) -> None:
    """What the left panel adds up, measured in one go."""
    cpu = Cpu.load("skylake-x")
    one, many = (figure.measure(cpu, layout, guest=True, holes=1.0, density=density) for density in (1, 8))
    assert many["cycles"] == pytest.approx(one["update_cycles"] + one["table_cycles"] / 8)


def test_the_figure_draws_what_was_measured(figure, costs, memory) -> None:
    from vmsim.analysis import style

    with style.figure(width=style.WIDE, columns=3) as (_, axes):
        figure.draw(costs, memory, axes)
        assert [len(ax.get_lines()) for ax in axes] == [3, 3, 3]
