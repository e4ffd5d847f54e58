"""Do the figures draw their tables, and the same bytes every time?"""

import re
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.axes import Axes

from vmsim.analysis import figures, style
from vmsim.base.errors import InputError
from vmsim.record.causes import CAUSES

CYCLES = pd.DataFrame(
    [
        ("sort", "native", "compute", 1.0),
        ("sort", "native", "walk_guest", 0.5),
        ("sort", "ept", "walk_guest", 0.5),
        ("sort", "ept", "walk_nested", 0.75),
        ("sort", "ept", "pool_wait", 0.25),
        ("sort", "ept", "host_wait", 0.5),
        ("sort", "ept", "pcpu_wait", 9.0),
        ("cc1", "ept", "exit", 2.0),
    ],
    columns=["workload", "mode", "cause", "per_access"],
)
POOL = pd.DataFrame(
    {
        "time_us": [0.0, 1000.0, 0.0, 3000.0],
        "vm": ["a", "a", "b", "b"],
        "event": ["grant", "grant", "grant", "spare"],
        "pages": [128, 64, 128, 28],
        "level": [127, 80, 120, 60],
    }
)
REFERENCES = pd.DataFrame(
    {
        "guest_level": [1, 1, 0, 1],
        "nested_level": [0, 1, 1, 0],
        "served": ["L1", "DRAM", "DRAM", "PWC"],
        "count": [50, 25, 25, 900],
        "cycles": [200, 25, 25, 0],
    }
)
DRAWN = [
    (figures.translation_cycles, CYCLES),
    (figures.pool_level, POOL),
    (figures.references_heatmap, REFERENCES),
]


def heights(ax: Axes) -> dict[str, list[float]]:
    return {str(bars.get_label()): [patch.get_height() for patch in bars] for bars in ax.containers}


def test_a_bar_is_as_high_as_translation_and_management_cost() -> None:
    with style.figure() as (_, ax):
        figures.translation_cycles(CYCLES, ax)
        drawn = heights(ax)
        assert drawn["guest-dimension walk"] == [0.5, 0.5, 0.0]
        assert drawn["nested-dimension walk"] == [0.0, 0.75, 0.0]
        assert drawn["wait for memory"] == [0.0, 0.75, 0.0]
        tops = [max(patch.get_y() + patch.get_height() for patch in bar) for bar in zip(*ax.containers, strict=True)]
        assert tops == [0.5, 2.0, 2.0]  # compute and waits for a pCPU are no part of it
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["native", "EPT", "EPT"]


def test_the_legend_names_what_is_drawn_and_nothing_else() -> None:
    with style.figure() as (_, ax):
        figures.translation_cycles(CYCLES, ax)
        legend = ax.get_legend()
        assert legend is not None
        named = {text.get_text() for text in legend.get_texts()}
        assert named == {"guest-dimension walk", "nested-dimension walk", "VM exit", "wait for memory"}


def test_each_pool_has_a_line_with_its_levels() -> None:
    with style.figure() as (_, ax):
        figures.pool_level(POOL, ax)
        lines = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
        assert lines == {
            "a": [[0.0, 127.0], [1.0, 80.0]],
            "b": [[0.0, 120.0], [3.0, 60.0]],
        }
        assert {line.get_drawstyle() for line in ax.lines} == {"steps-post"}  # no slope that nobody measured


def test_shares_in_the_heatmap_are_of_memory_references() -> None:
    with style.figure() as (_, ax):
        figures.references_heatmap(REFERENCES, ax)
        shares = ax.images[0].get_array()
        assert shares is not None
        assert shares.tolist() == [[0.25, 0.5], [0.25, 0.0]]
        assert sorted(text.get_text() for text in ax.texts) == ["25.0%", "25.0%", "50.0%"]


@pytest.mark.parametrize(("draw", "table"), DRAWN)
def test_no_letter_is_smaller_than_seven_points(draw, table: pd.DataFrame) -> None:
    from matplotlib.text import Text

    with style.figure() as (fig, ax):
        draw(table, ax)
        small = [text.get_text() for text in fig.findobj(Text) if text.get_text() and text.get_fontsize() < 7]
        assert not small
        assert fig.get_size_inches()[0] == 3.35


@pytest.mark.parametrize(("draw", "table"), DRAWN)
@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_a_figure_is_the_same_bytes_every_time(draw, table: pd.DataFrame, suffix: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        with style.figure() as (fig, ax):
            draw(table, ax)
            style.save(fig, tmp_path / f"{name}{suffix}")
    data = (tmp_path / f"one{suffix}").read_bytes()
    assert data == (tmp_path / f"two{suffix}").read_bytes()
    assert not re.search(rb"CreationDate|matplotlib\.org|<dc:date>20", data)
    if suffix == ".pdf":
        assert b"/Type3" not in data  # fonts stay text: fonttype 42


def test_empty_tables_make_empty_figures() -> None:
    for draw, table in DRAWN:
        with style.figure() as (_, ax):
            draw(table.iloc[:0], ax)
            assert not ax.patches
            assert not any(len(line.get_xdata()) for line in ax.lines)


def test_colours_of_what_every_run_may_have_are_those_of_okabe_and_ito() -> None:
    causes = {"l2_tlb", "walk_guest", "walk_nested", "guest_fault", "exit", "pool_wait", "host_wait"}
    assert causes < {cause for causes in figures.STACK.values() for cause in causes}
    assert {CAUSES[cause].colour for cause in causes} <= set(style.PALETTE)


def test_a_figure_of_no_known_kind_or_place_is_refused(tmp_path: Path) -> None:
    with style.figure() as (fig, _):
        with pytest.raises(InputError, match=r"\.png, \.pdf, \.svg"):
            style.save(fig, tmp_path / "figure.gif")
        with pytest.raises(InputError, match="cannot be written"):
            style.save(fig, tmp_path / "missing" / "figure.png")
