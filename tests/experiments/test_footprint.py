"""Does the footprint figure's message hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

from vmsim.scenario.cpu_files import load_cpu

GIB = 1 << 30
NESTED = {"skylake-x": "ept", "zen4": "npt"}
# Entries of the second-level TLB, from which 4 KiB pages profit alone or with others: Intel and AMD's own numbers.
ENTRIES = {"skylake-x": 1536, "zen4": 3072}


@pytest.fixture(scope="module")
def table(figure_of: Callable[[str], SimpleNamespace]) -> pd.DataFrame:
    made: pd.DataFrame = figure_of("footprint").data()
    return made


@pytest.fixture(params=[*NESTED])
def lines(request: pytest.FixtureRequest, table: pd.DataFrame) -> pd.DataFrame:
    """Return a column for each mode and pages, by footprint, of one CPU."""
    mine = table[table["cpu"] == request.param]
    wide = mine.pivot_table(index="footprint", columns=["paging", "guest_page", "host_page"], values="translation")
    nested = NESTED[request.param]
    names = {
        "native small": ("native", "4K", "4K"),
        "native large": ("native", "2M", "2M"),
        "small": (nested, "4K", "4K"),
        "split": (nested, "2M", "4K"),
        "large": (nested, "2M", "2M"),
    }
    made = pd.DataFrame({name: wide[column] for name, column in names.items()})
    made.attrs["reach"] = ENTRIES[request.param] * 4096
    return made


def test_every_line_has_every_footprint(table: pd.DataFrame) -> None:
    sizes = [1 << bits for bits in range(20, 34)]
    for _, line in table.groupby(["cpu", "paging", "guest_page", "host_page"]):
        assert line["footprint"].tolist() == sizes


def test_while_the_tlb_holds_everything_nesting_is_free(lines: pd.DataFrame) -> None:
    inside = lines[lines.index <= lines.attrs["reach"] * 0.75]
    assert len(inside) >= 3
    assert (inside["small"] - inside["native small"]).abs().max() < 0.01 * inside["native small"].max()


def test_beyond_it_nested_small_pages_cost_more_and_in_the_end_more_than_double(lines: pd.DataFrame) -> None:
    outside = lines[lines.index >= 2 * lines.attrs["reach"]]
    assert (outside["small"] > outside["native small"]).all()
    assert lines.loc[8 * GIB, "small"] > 2 * lines.loc[8 * GIB, "native small"]


def test_large_pages_in_the_guest_alone_get_near_native_small_pages_and_not_below(lines: pd.DataFrame) -> None:
    outside = lines[lines.index >= 2 * lines.attrs["reach"]]
    assert (outside["split"] >= outside["native small"]).all()
    assert (outside["split"] < outside["small"]).all()
    gap = (outside["small"] - outside["split"]) / (outside["small"] - outside["native small"])
    assert gap.mean() > 0.5  # most of what nesting added


def test_large_pages_in_both_dimensions_are_an_order_of_magnitude_cheaper(lines: pd.DataFrame) -> None:
    large = lines[lines.index >= GIB]
    assert (large["large"] < large["small"] / 10).all()
    assert (large["large"] < large["split"] / 6).all()


def test_more_memory_never_costs_less(lines: pd.DataFrame) -> None:
    assert (lines.diff().dropna() > -0.01).all(axis=None)


@pytest.mark.parametrize("cpu", [*NESTED])
def test_the_reach_that_the_tests_assume_is_the_presets(cpu: str) -> None:
    second = load_cpu(cpu).tlb.l2
    assert second.page_4k is not None
    assert second.page_4k.entries == ENTRIES[cpu]


def test_the_figure_has_a_panel_for_each_cpu_and_five_lines(
    figure_of: Callable[[str], SimpleNamespace], table: pd.DataFrame
) -> None:
    from vmsim.analysis import style

    with style.figure(columns=2, sharey=True) as (_, axes):
        figure_of("footprint").draw(table, axes)
        assert [[len(line.get_xdata()) for line in ax.lines] for ax in axes] == [[14] * 5] * 2
        assert [ax.get_title() for ax in axes] == ["Intel Skylake-X", "AMD Zen 4"]
