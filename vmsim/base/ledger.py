"""What the components of a VM count, side by side in one array: components register, a reader reads the array.

A component keeps its counters where it counts them up, in Python or in arrays that compiled code writes to, and says
once, when it is registered, under which names they are to be read. A reading is a copy of all of them; a warm-up is
taken off by subtracting the reading at its end (as ChampSim subtracts its warm-up's statistics).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vmsim.base.histogram import Histogram

__all__ = ["Ledger", "Reading", "Row"]


class Row(NamedTuple):
    """One figure of a component."""

    component: str
    figure: str
    value: int


class Copied(Protocol):
    """Times of which a reading has a copy."""

    def copy(self) -> Histogram:
        """Return them as they are now."""
        ...


class _Block(NamedTuple):
    """Where an array of a component lies among all counters, and how its axes are named."""

    first: int
    shape: tuple[int, ...]
    axes: tuple[tuple[str, ...], ...]


class _Places:
    """Which counter is where; places are given once and never change."""

    def __init__(self) -> None:
        self.size = 0
        self.slots: dict[str, dict[str, int]] = {}
        self.blocks: dict[str, _Block] = {}

    def slot(self, component: str, figure: str) -> int:
        """Return the slot of a counter, a new one if it has none yet."""
        named = self.slots.setdefault(component, {})
        if figure not in named:
            named[figure] = self.size
            self.size += 1
        return named[figure]


class Reading:
    """All counters of a ledger at one moment, or how far they moved between two.

    Parameters
    ----------
    places
        Of the ledger.
    values : int64[:]
        By slot; counters that were registered later have none yet, and are 0.
    histograms, kinds : mapping of str to Histogram
        By component; and of parts of these, which are no figures of their own, by kind.
    """

    def __init__(
        self,
        places: _Places,
        values: NDArray[np.int64],
        histograms: Mapping[str, Histogram],
        kinds: Mapping[str, Histogram] = MappingProxyType({}),
    ) -> None:
        self._places = places
        self._values = values
        self._histograms = histograms
        self.kinds = kinds

    def __sub__(self, earlier: Reading) -> Reading:
        """Return what was counted since an earlier reading of the same ledger."""
        values = self._values.copy()
        values[: len(earlier._values)] -= earlier._values
        histograms, kinds = (
            {name: each - old[name] if name in old else each for name, each in new.items()}
            for new, old in ((self._histograms, earlier._histograms), (self.kinds, earlier.kinds))
        )
        return Reading(self._places, values, histograms, kinds)

    def named(self, component: str) -> dict[str, int]:
        """Return the counters of a component by name, in the order in which it first had them; none: it has none."""
        named = self._places.slots.get(component, {})
        return {figure: int(self._values[slot]) for figure, slot in named.items() if slot < len(self._values)}

    def array(self, component: str) -> NDArray[np.int64]:
        """Return the counters of a component that registered an array, in its shape.

        Raises
        ------
        KeyError
            There is no such component.
        """
        first, shape, _ = self._places.blocks[component]
        return self._values[first : first + int(np.prod(shape))].reshape(shape)

    def histogram(self, component: str) -> Histogram:
        """Return what a component noted of its times.

        Raises
        ------
        KeyError
            There is no such component.
        """
        return self._histograms[component]

    def histograms(self) -> Mapping[str, Histogram]:
        """Return what components noted of their times, by component."""
        return self._histograms

    def rows(self) -> Iterator[Row]:
        """Yield every counter by component and name; of arrays those that are not 0."""
        for component in self._places.slots:
            for figure, value in self.named(component).items():
                yield Row(component, figure, value)
        for component, (_, _, axes) in self._places.blocks.items():
            counts = self.array(component).ravel()
            for name, value in zip(product(*axes), counts.tolist(), strict=True):
                if value:
                    yield Row(component, ".".join(name), value)
        for component, histogram in self._histograms.items():
            yield Row(component, "count", histogram.count)
            yield Row(component, "cycles", histogram.total)


class Ledger:
    """Who counts what, for one VM.

    Examples
    --------
    >>> hits = {"hits": 0}
    >>> ledger = Ledger()
    >>> ledger.counters("tlb", lambda: hits)
    >>> hits["hits"] = 3
    >>> warm = ledger.read()
    >>> hits["hits"] = 10
    >>> (ledger.read() - warm).named("tlb")
    {'hits': 7}
    """

    def __init__(self) -> None:
        self._places = _Places()
        self._counters: list[tuple[str, Callable[[], Mapping[str, int]]]] = []
        self._arrays: list[tuple[_Block, NDArray[Any]]] = []
        self._histograms: dict[str, Copied] = {}
        self._kinds: Callable[[], Iterable[tuple[str, Histogram]]] = tuple

    def counters(self, component: str, read: Callable[[], Mapping[str, int]]) -> None:
        """Register counters by name.

        Parameters
        ----------
        component : str
            Whose they are; several may register parts of one.
        read : callable
            Returns them as they are now. A name that it once gave is a counter from then on.
        """
        self._counters.append((component, read))

    def array(self, component: str, array: NDArray[Any], *axes: Sequence[str]) -> None:
        """Register an array of integers that is counted up in place, by compiled code for one.

        Parameters
        ----------
        component : str
            Whose it is: the only one of its name.
        array : int64[...]
            With one axis more than there are names, the first is summed over: a part of each vCPU.
        *axes : sequence of str
            What the places along each of its axes are called.

        Raises
        ------
        ValueError
            The names are not as many as the places, or the component has an array.
        """
        names = tuple(tuple(each) for each in axes)
        shape = array.shape[1:] if array.ndim > len(names) else array.shape
        if shape != tuple(map(len, names)) or component in self._places.blocks:
            raise ValueError(f"component {component}: an array of {array.shape} with names for {[*map(len, names)]}")
        block = _Block(self._places.size, shape, names)
        self._places.blocks[component] = block
        self._places.size += int(np.prod(shape))
        self._arrays.append((block, array))

    def histogram(self, component: str, histogram: Copied) -> None:
        """Register times: their number and sum are figures, and a reading has all that was noted of them."""
        self._histograms[component] = histogram

    def kinds(self, read: Callable[[], Iterable[tuple[str, Histogram]]]) -> None:
        """Register times by kind, which are no figures; `read` returns copies of them as they are now."""
        self._kinds = read

    def read(self) -> Reading:
        """Return a copy of every counter as it is now.

        Raises
        ------
        ValueError
            Two parts of a component gave the same name.
        """
        found: dict[int, int] = {}
        for component, read in self._counters:
            for figure, value in read().items():
                slot = self._places.slot(component, figure)
                if slot in found:
                    raise ValueError(f"component {component}: two counters are called {figure}")
                found[slot] = value
        values = np.zeros(self._places.size, np.int64)
        values[list(found)] = list(found.values())
        for (first, shape, axes), array in self._arrays:
            summed = array.sum(axis=0) if array.ndim > len(axes) else array
            values[first : first + int(np.prod(shape))] = summed.ravel()
        copies = {name: each.copy() for name, each in self._histograms.items()}
        return Reading(self._places, values, copies, dict(self._kinds()))
