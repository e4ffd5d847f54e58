"""Can every figure be read in print: letters large enough, none over another, lines told apart without colours?"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text

from experiments.__main__ import HERE, experiments
from vmsim.analysis.style import COLUMN, WIDE, figure

pytestmark = pytest.mark.slow

SMALLEST = 6  # points
APART = 1  # dots, of 150 to an inch, by which boxes of two texts may meet
LINES, BARS = 30, 6  # differences of lightness (CIELAB's L*, 0 to 100) that are seen in grey: thin lines, areas


def lightness(colour: Any) -> float:
    """Return CIELAB's L* of an sRGB colour (IEC 61966-2-1; CIE 15)."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    return float(116 * np.cbrt(linear) - 16 if linear > 0.008856 else 903.3 * linear)


def texts(fig: Figure) -> Iterator[Text]:
    """Yield what is seen of texts: no labels of ticks beyond the axes, which matplotlib has all the same."""
    hidden = set()
    for ax in fig.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick, place in zip(axis.get_major_ticks(), axis.get_majorticklocs(), strict=True):
                if not low - 1e-9 <= place <= high + 1e-9:
                    hidden |= {tick.label1, tick.label2}
    for text in fig.findobj(Text):
        if isinstance(text, Text) and text.get_visible() and text.get_text().strip() and text not in hidden:
            yield text


def drawn(name: str, look: Callable[[Figure], list[str]]) -> list[str]:
    module = SimpleNamespace(**runpy.run_path(str(HERE / name / "figure.py")))
    with figure(**module.EXPERIMENT._layout) as (fig, axes):
        module.draw(module.data(), axes)
        fig.canvas.draw()
        return look(fig)


def letters(fig: Figure) -> list[str]:
    """Say which texts are small, cut off by the edge, or over one another."""
    width, height = fig.get_size_inches() * fig.dpi
    boxes = [(text.get_text(), text.get_window_extent(), float(text.get_fontsize())) for text in texts(fig)]
    found = [f"{text!r} has {size} points" for text, _, size in boxes if size < SMALLEST]
    found += [
        f"{text!r} is cut off"
        for text, box, _ in boxes
        if min(box.x0, box.y0) < -APART or box.x1 > width + APART or box.y1 > height + APART
    ]
    for (one, here, _), (two, there, _) in combinations(boxes, 2):
        wide = min(here.x1, there.x1) - max(here.x0, there.x0)
        high = min(here.y1, there.y1) - max(here.y0, there.y0)
        if min(wide, high) > APART:
            found.append(f"{one!r} and {two!r} overlap by {wide:.0f} x {high:.0f}")
    return found


def alike(ax: Axes) -> list[str]:
    """Say which lines, and which neighbours among bars, only colour tells apart."""
    lines = [line for line in ax.get_lines() if not str(line.get_label()).startswith("_")]
    found = [
        f"lines {one.get_label()!r} and {two.get_label()!r}"
        for one, two in combinations(lines, 2)
        if (one.get_marker(), one.get_linestyle()) == (two.get_marker(), two.get_linestyle())
        and abs(lightness(one.get_color()) - lightness(two.get_color())) < LINES
    ]
    bars = [(each.get_label(), each.patches[0]) for each in ax.containers if isinstance(each, BarContainer)]
    for (one_label, one_bar), (two_label, two_bar) in pairwise(bars):
        shades = [lightness(bar.get_facecolor()[:3]) for bar in (one_bar, two_bar)]
        if one_bar.get_hatch() == two_bar.get_hatch() and abs(shades[0] - shades[1]) < BARS:
            found.append(f"bars {one_label!r} and {two_label!r}")
    return found


def bare_thousands(ax: Axes) -> list[str]:
    labels = [label.get_text() for axis in (ax.xaxis, ax.yaxis) for label in axis.get_ticklabels()]
    return [label for label in labels if len(label.strip("-−")) > 4 and label.strip("-−").isdigit()]


@pytest.mark.parametrize("name", [*experiments()])
def test_a_figure_can_be_read_in_print(name: str) -> None:
    def look(fig: Figure) -> list[str]:
        assert fig.get_size_inches()[0] in (COLUMN, WIDE)
        return letters(fig) + [each for ax in fig.axes for each in (*alike(ax), *bare_thousands(ax))]

    assert drawn(name, look) == []


def test_what_cannot_be_read_is_found() -> None:
    with figure() as (fig, ax):
        for number, label in enumerate(("a", "b")):
            ax.plot([0, 1], [number, 20_000], "o-", label=label)
        ax.text(0.5, 0.5, "one", fontsize=5)
        ax.text(0.5, 0.5, "two")
        ax.text(1, 0, "beyond the edge").set_in_layout(False)
        fig.canvas.draw()
        told = letters(fig)
        assert [part in " ".join(told) for part in ("'one' has 5", "'one' and 'two'", "edge' is cut off")] == [True] * 3
        assert alike(ax) == ["lines 'a' and 'b'"]
        assert "20000" in bare_thousands(ax)
