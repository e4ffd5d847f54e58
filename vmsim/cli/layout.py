"""How a table is laid out in a given width: numbers and headings stay whole.

What is too wide for the terminal gets its headings wrapped at words; then it is turned, if it has few rows; then its
counts get SI suffixes; and last it is cut into blocks of columns, one below the other, that all begin with the key.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Final, Literal, NamedTuple, TypeAlias

from rich.cells import cell_len

__all__ = ["GAP", "Best", "Grid", "Side", "arrange", "hundredths", "number", "short_number"]

Side: TypeAlias = Literal["left", "right", "text"]
"""How a column is set. left: names and other keys; right: numbers; text: sentences, which may be wrapped at words."""

GAP: Final = 2
"""Blanks between columns."""

_NARROWEST: Final = 24  # of a column of sentences
_SHORTEST: Final = 8  # of a column of names
_TURNED: Final = 10  # rows that a table has at most if it is to be turned
_RIGHT: Final[Side] = "right"
_SUFFIXES: Final = ("", " k", " M", " G", " T", " P", " E")
_LONG: Final = 100_000  # from here on counts are shortened, where that is needed
_WHOLE: Final = 10_000  # from here on decimals tell nothing
_SMALL: Final = 0.01  # below this two decimals tell nothing


class Best(NamedTuple):
    """A value that is to stand out."""

    value: object


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in a field, and whether it stands out."""

    text: str
    best: bool = False

    @property
    def width(self) -> int:
        """Return the columns that it takes on a terminal."""
        return max(map(cell_len, self.text.split("\n")))


def number(value: object) -> str:
    """Return a count with marks every three digits, a ratio with decimals as its size asks for, a dash for nothing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return f"{int(value):,}"
    if isinstance(value, Real):
        return _decimals(float(value))
    return "–" if value is None or type(value).__name__ in ("NAType", "NaTType") else str(value)


def hundredths(value: float) -> str:
    """Return a number with two decimals, so that a column of them lines up; a smaller one as <0.01, nothing as 0."""
    if value != value or value == 0:
        return number(value)
    return "<0.01" if 0 < value < 0.005 else f"{value:,.2f}"


def _decimals(value: float) -> str:
    if value != value:
        return "–"
    size = abs(value)
    if size == 0:
        return "0"
    if size >= _WHOLE:
        return f"{value:,.0f}"
    return f"{value:,.2f}" if round(size, 4) >= _SMALL else f"{value:.2g}"


def short_number(value: object) -> str:
    """Return what `number` gives, but three digits and an SI suffix for a large count: 59.7 M."""
    if isinstance(value, bool) or not isinstance(value, Real) or not _LONG <= abs(float(value)) < float("inf"):
        return number(value)
    size, power = float(value), 0
    while abs(size) >= 999.5 and power < len(_SUFFIXES) - 1:
        size, power = size / 1000, power + 1
    digits = 2 if abs(size) < 9.995 else 1 if abs(size) < 99.95 else 0
    return f"{size:,.{digits}f}{_SUFFIXES[power]}"


@dataclass(frozen=True, slots=True)
class Grid:
    """A table whose columns have their widths."""

    headings: tuple[str, ...]
    sides: tuple[Side, ...]
    values: tuple[tuple[object, ...], ...]
    short: bool = False
    wrapped: bool = False

    @property
    def rows(self) -> list[list[Cell]]:
        """Return what stands in its fields."""
        form = short_number if self.short else number
        return [
            [Cell(form(value.value), best=True) if isinstance(value, Best) else Cell(form(value)) for value in row]
            for row in self.values
        ]

    def head(self, widths: Sequence[int]) -> list[str]:
        """Return the headings, in lines if they are wrapped, all ending on the same line."""
        lines = [
            textwrap.wrap(text, max(1, width), break_long_words=False, break_on_hyphens=False)
            if self.wrapped
            else [text]
            for text, width in zip(self.headings, widths, strict=True)
        ]
        most = max(map(len, lines))
        return ["\n".join([*[""] * (most - len(each)), *each]) for each in lines]

    def widths(self, limit: int | None = None) -> list[int]:
        """Return the columns' widths; sentences get what the others leave of `limit`."""
        rows = self.rows
        least, most = [], []
        for place, (heading, side) in enumerate(zip(self.headings, self.sides, strict=True)):
            head = max(map(cell_len, heading.split() or [""])) if self.wrapped else cell_len(heading)
            body = max((row[place].width for row in rows), default=0)
            most.append(max(head, body))
            least.append(max(head, min(body, _NARROWEST)) if side == "text" else max(head, body))
        if limit is None:
            return most
        left = limit - sum(least) - GAP * (len(least) - 1)
        names = [place for place, side in enumerate(self.sides) if side == "left"]
        while limit and left < 0 and names and least[widest := max(names, key=least.__getitem__)] > _SHORTEST:
            least[widest] -= 1  # a name that is longer than the terminal is wide goes over several lines
            left += 1
        for place, (few, many) in enumerate(zip(least, most, strict=True)):
            more = max(0, min(many - few, left))
            least[place] += more
            left -= more
        return least

    @property
    def least(self) -> int:
        """Return the narrowest that it can be."""
        widths = self.widths(0)
        return sum(widths) + GAP * (len(widths) - 1)

    def turned(self) -> Grid:
        """Return it with a column for each row, named by the first field."""
        first, *rest = self.headings
        names = (first, *(number(row[0]) for row in self.values))
        columns = zip(*(row[1:] for row in self.values), strict=True)
        values = tuple((name, *column) for name, column in zip(rest, columns, strict=True))
        sides: tuple[Side, ...] = ("left", *[_RIGHT] * len(self.values))
        return replace(self, headings=names, sides=sides, values=values)

    def blocks(self, limit: int) -> list[Grid]:
        """Return blocks of its columns, each no wider than `limit` if a key and one column fit in that."""
        widths = self.widths(0)
        keys = next((place for place, side in enumerate(self.sides) if side != "left"), len(self.sides)) or 1
        while keys > 1 and sum(widths[:keys]) + GAP * keys > limit // 2:
            keys -= 1
        made: list[list[int]] = []
        for place in range(keys, len(widths)):
            taken = [*range(keys), *(made[-1] if made else []), place]
            if made and sum(widths[each] for each in taken) + GAP * (len(taken) - 1) <= limit:
                made[-1].append(place)
            else:
                made.append([place])
        return [self._only([*range(keys), *block]) for block in made] or [self]

    def _only(self, places: Sequence[int]) -> Grid:
        return replace(
            self,
            headings=tuple(self.headings[place] for place in places),
            sides=tuple(self.sides[place] for place in places),
            values=tuple(tuple(row[place] for place in places) for row in self.values),
        )


def arrange(columns: Mapping[str, Side], rows: Iterable[Sequence[object]], width: int | None) -> list[Grid]:
    """Return the grids that show a table, one below the other.

    Parameters
    ----------
    columns : mapping of str to str
        Heading of each column, and how it is set.
    rows : iterable of sequence
        Strings and numbers, some of them as `Best`.
    width : int or None
        Of the terminal. None: as wide as it needs to be, for a file or a pipe.
    """
    plain = Grid(tuple(columns), tuple(columns.values()), tuple(map(tuple, rows)))
    if width is None or plain.least <= width:
        return [plain]
    wrapped = replace(plain, wrapped=True)
    may_turn = 0 < len(plain.values) <= _TURNED and len(plain.headings) > 1 and "text" not in plain.sides
    turned = [wrapped.turned()] if may_turn else []
    short = replace(wrapped, short=True)
    for grid in (wrapped, *turned, short):
        if grid.least <= width:
            return [grid]
    return short.blocks(width)
