"""Charts as SVG. They are readable without any script; `page.js` answers the pointer and the keyboard on each mark."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Final, NamedTuple

__all__ = ["Series", "areas", "bars", "lines", "ticks"]

WIDTH: Final = 420  # units of the drawing, of which letters have 12: as wide as a phone, or magnified
_HEIGHT: Final = 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 10, 42
_BAR: Final = 22
_LETTER: Final = 7.2  # a wide one of a label
_MARKS: Final = 60  # of a line that can be pointed at


class Series(NamedTuple):
    """A line.

    Attributes
    ----------
    name : str
    points : sequence of (float, float)
        In the order of x.
    colour, dash : str
        As CSS and SVG have them.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    dash: str = ""


def ticks(low: float, high: float, *, log: bool = False, most: int = 6) -> list[float]:
    """Return round numbers from `low` to `high`, as marks of an axis: powers of ten, or steps of 1, 2 or 5 of them."""
    if log:
        first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
        every = max(1, -(-(last - first + 1) // most))
        return [10.0**power for power in range(first, last + 1, every)]
    span = high - low
    if span <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * times for times in (1, 2, 5, 10, 20) if span / (power * times) <= most)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def bars(rows: Sequence[tuple[str, Sequence[tuple[str, str, float]]]], unit: str, title: str) -> str:
    """Draw stacked bars, one below the other.

    Parameters
    ----------
    rows : sequence of (str, sequence of (str, str, float))
        Name, and parts with their names, colours and values.
    unit : str
        Of the values.
    title : str
        What a screen reader says.
    """
    longest = max((sum(value for _, _, value in parts) for _, parts in rows), default=0.0) or 1.0
    height = len(rows) * (_BAR + 20) + 8
    pieces = []
    for place, (name, parts) in enumerate(rows):
        y = place * (_BAR + 20) + 14
        total = sum(value for _, _, value in parts)
        pieces.append(f'<text x="0" y="{y}">{escape(name)}</text>')
        pieces.append(f'<text x="{WIDTH}" y="{y}" text-anchor="end">{_short(total)}</text>')
        x = 0.0
        for part, colour, value in parts:
            length = value / longest * WIDTH
            if length > 0:
                tip = f"{name}, {part}: {_short(value)} {unit}"
                pieces.append(
                    f'<rect class="mark" x="{x:.2f}" y="{y + 5}" width="{length:.2f}" height="{_BAR - 6}" '
                    f'fill="{escape(colour)}" data-tip="{escape(tip)}"><title>{escape(tip)}</title></rect>'
                )
            x += length
    return _svg(height, pieces, title)


def lines(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    title: str,
    *,
    step: bool = False,
    log_x: bool = False,
    names: Mapping[float, str] | None = None,
) -> str:
    """Draw lines.

    Parameters
    ----------
    series : sequence of Series
    x_label, y_label : str
        With their units.
    title : str
        What a screen reader says.
    step : bool, optional
        A value holds until the next one.
    log_x : bool, optional
        Along x the scale is logarithmic.
    names : mapping of float to str, optional
        What places along x are called, in place of numbers.
    """
    points = [point for each in series for point in each.points]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    frame = _Frame(min(xs), max(xs), min(0.0, *ys), max(ys) or 1.0, log_x)
    pieces = [*frame.axes(x_label, y_label, names)]
    for each in series:
        style = f'fill="none" stroke="{escape(each.colour)}" stroke-width="1.8" stroke-dasharray="{escape(each.dash)}"'
        pieces.append(f'<g data-series="{escape(each.name)}"><path d="{_path(each.points, frame, step)}" {style}/>')
        every = max(1, len(each.points) // _MARKS)
        for x, y in each.points[::every]:
            where = names[x] if names else _short(x)
            tip = f"{each.name + ': ' if each.name else ''}{_short(y)} at {where}"
            pieces.append(
                f'<circle class="mark dot" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3" '
                f'fill="{escape(each.colour)}" data-tip="{escape(tip)}"><title>{escape(tip)}</title></circle>'
            )
        pieces.append("</g>")
    return _svg(_HEIGHT, pieces, title)


def areas(
    times: Sequence[float],
    layers: Mapping[str, Sequence[float]],
    colours: Mapping[str, str],
    labels: tuple[str, str],
    title: str,
    *,
    top: float,
) -> str:
    """Draw layers on top of each other, each holding its value until the next time; `top` is where the axis ends."""
    frame = _Frame(times[0], max(times[-1], times[0] + 1e-9), 0.0, top, False)
    pieces = [*frame.axes(*labels, None)]
    bottom = [0.0] * len(times)
    for name, values in layers.items():
        upper = [min(low + value, top) for low, value in zip(bottom, values, strict=True)]
        outline = _path(list(zip(times, upper, strict=True)), frame, True)
        back = _path(list(zip(times, bottom, strict=True)), frame, True, backwards=True)
        last = _short(values[-1])
        tip = f"{name}: {last} at the end, {_short(max(values))} at most"
        pieces.append(
            f'<path class="mark" d="{outline} {back} Z" fill="{escape(colours[name])}" data-tip="{escape(tip)}">'
            f"<title>{escape(tip)}</title></path>"
        )
        bottom = [low + value for low, value in zip(bottom, values, strict=True)]
    return _svg(_HEIGHT, pieces, title)


class _Frame:
    """Where numbers lie on a drawing."""

    def __init__(self, x0: float, x1: float, y0: float, y1: float, log: bool) -> None:
        self._log = log and x0 > 0
        self._x0, self._x1 = (x0, x1 if x1 > x0 else (x0 * 10 if self._log else x0 + 1))
        self._y0, self._y1 = y0, y1 if y1 > y0 else y0 + 1

    def x(self, value: float) -> float:
        place: Callable[[float], float] = math.log10 if self._log else float
        share = (place(value) - place(self._x0)) / (place(self._x1) - place(self._x0))
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self._y0) / (self._y1 - self._y0)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def axes(self, x_label: str, y_label: str, names: Mapping[float, str] | None) -> Iterator[str]:
        bottom = _HEIGHT - _BOTTOM
        for value in ticks(self._y0, self._y1):
            y = self.y(value)
            yield f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>'
        marks = list(names) if names else ticks(self._x0, self._x1, log=self._log, most=5)
        every = max(1, -(-len(marks) // 8))
        for value in marks[::every]:
            text = names[value] if names else _short(value)
            x = min(self.x(value), WIDTH - _LETTER * len(text) / 2)  # not cut off by the edge
            yield f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{escape(text)}</text>'
        yield f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>'
        middle = (_LEFT + WIDTH - _RIGHT) / 2
        yield f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>'
        up = (_TOP + bottom) / 2
        yield f'<text transform="translate(12 {up}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'


def _path(points: Sequence[tuple[float, float]], frame: _Frame, step: bool, *, backwards: bool = False) -> str:
    corners: list[tuple[float, float]] = []
    for x, y in points:
        if step and corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    if backwards:
        corners.reverse()
    drawn = [f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in corners]
    return f"{'L' if backwards else 'M'}{' L'.join(drawn)}"


def _svg(height: float, pieces: Sequence[str], title: str) -> str:
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}" tabindex="0">'
    return f"{head}{''.join(pieces)}</svg>"


def _short(number: float) -> str:
    """Return a number in few characters."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= limit:
            return f"{number / (1e3 if unit == 'k' else limit):.3g} {unit}"
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"
