"""A log of a run that may be as long as it likes: where it would outgrow its limit, every second row is left out."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, Generic, NamedTuple, TypeVar

__all__ = ["LIMIT", "NOTHING", "Extent", "Log"]

LIMIT: Final = 1 << 18
"""Rows kept of a log: at least half as many are there once it has had so many."""

Row = TypeVar("Row", bound=tuple[object, ...])


class Extent(NamedTuple):
    """How much of a log is there.

    Attributes
    ----------
    noted : int
        Rows that it was given.
    left_out : int
        Those of them that it no longer has.
    every : int
        It has the first and then every so manieth: 1, all of them, or a power of two.
    """

    noted: int
    left_out: int
    every: int


NOTHING: Final = Extent(0, 0, 1)
"""Of a log without rows."""


class Log(Generic[Row]):
    """Rows of whole numbers and names, in columns of 8 bytes: the first of every 1, 2, 4, … noted, `limit` at most.

    Which rows are kept depends on their order alone. Sums over a log that has left rows out are no sums of the run:
    what has to be exact is counted where the row is made (`vmsim.base.ledger`).

    Parameters
    ----------
    make : callable
        Makes a row of its fields.
    fields : int
        How many.
    names : collection of int, optional
        Places of fields that are names.
    limit : int, optional
        Rows kept, 2 at least.

    Attributes
    ----------
    noted : int
        Rows that it was given.
    every : int
        It keeps the rows whose number, from 0, is a multiple of this.
    """

    def __init__(
        self, make: Callable[..., Row], fields: int, *, names: Collection[int] = (), limit: int | None = None
    ) -> None:
        self.limit = LIMIT if limit is None else limit
        self.noted = 0
        self.every = 1
        self._make = make
        self._names = frozenset(names)
        self._numbers: dict[str, int] = {}
        self._columns = [array("q") for _ in range(fields)]

    def append(self, row: Row) -> None:
        """Note a row."""
        number = self.noted
        self.noted += 1
        if number % self.every:
            return
        if len(self) == self.limit:
            self._columns = [column[::2] for column in self._columns]
            self.every *= 2
            if number % self.every:
                return
        for place, (column, value) in enumerate(zip(self._columns, row, strict=True)):
            column.append(self._numbers.setdefault(value, len(self._numbers)) if place in self._names else value)  # type: ignore[arg-type]

    @property
    def extent(self) -> Extent:
        """How much of it is there."""
        return Extent(self.noted, self.noted - len(self), self.every)

    def since(self, number: int) -> Iterator[Row]:
        """Yield the rows that are there of those noted after the first `number`."""
        names = [*self._numbers]
        for place in range(-(-number // self.every), len(self)):
            values: list[Any] = [column[place] for column in self._columns]
            for name in self._names:
                values[name] = names[values[name]]
            yield self._make(*values)

    def __len__(self) -> int:
        """Return how many rows it has."""
        return len(self._columns[0])

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows that are there, in the order in which they were noted."""
        return self.since(0)
