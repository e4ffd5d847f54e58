"""`Result`: a scenario and the tables of what it cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vmsim.base.errors import InputError, nearest
from vmsim.base.files import printable
from vmsim.record import html, tables, timeline
from vmsim.record.accessors import Tables
from vmsim.record.outcome import Ending, Outcome
from vmsim.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Facts", "Result"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is said of a simulation as a whole.

    Attributes
    ----------
    end : int
        Its last cycle.
    frequency : int
        Hertz of the host's TSC: cycles in a second.
    latency : tuple of int
        Cycles of a walk's reference by where it was served: L1, L2, LLC, DRAM, …
    wall_seconds : float
        Time that it took to simulate, without loading and compiling.
    ending : Ending or None
        Why it stopped before its VMs were done.
    messages_dropped : int
        Messages that the table of messages has no place for.
    messages_every : int
        It has the first and then every so manieth.
    """

    end: int
    frequency: int
    latency: tuple[int, ...]
    wall_seconds: float
    ending: Ending | None
    messages_dropped: int = 0
    messages_every: int = 1

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        """Take them from an outcome."""
        return cls(
            int(outcome.end),
            int(outcome.frequency),
            tuple(int(cycles) for cycles in outcome.latency),
            float(outcome.wall_seconds),
            outcome.ending,
            outcome.messages.extent.left_out,
            outcome.messages.every,
        )

    def to_json(self) -> dict[str, Any]:
        """Return them as JSON types."""
        return asdict(self) | {"latency": list(self.latency)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Take them from what `to_json` gave.

        Raises
        ------
        ValueError
            Something is missing or of another type.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            made: Self = TypeAdapter(cls).validate_json(json.dumps(data), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        if made.frequency <= 0 or made.end < 0:
            raise ValueError(f"expected a frequency above 0 and an end; found {made.frequency} and {made.end}")
        return made


class Result(Tables):
    """What a simulation measured, as tables.

    Each table is an attribute, made when it is first asked for: `summary`, `cycles`, `exits`, … (`Tables`). All times
    are cycles of the host's TSC unless a column's name says otherwise.

    Parameters
    ----------
    scenario : Scenario
        What was simulated.
    outcome : Outcome
        What the simulation handed over.
    inputs : mapping of str to str, optional
        SHA-256 of each file that was read, by its path.
    """

    _spans: Callable[[], pd.DataFrame] | None = None
    _shown: pd.DataFrame | None = None  # the timeline, once it was made

    def __init__(self, scenario: Scenario, outcome: Outcome, *, inputs: Mapping[str, str] | None = None) -> None:
        self._fill(scenario, Facts.of(outcome), dict(inputs or {}), partial(tables.build, outcome=outcome))
        self.outcome: Outcome | None = outcome
        if (log := outcome.timeline) is not None:
            self._spans = partial(timeline.table_of, log)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a run directory.

        Raises
        ------
        InputError
            It is no run directory, or a file in it is missing or damaged.
        """
        from vmsim.record import directory

        path = Path(path)
        manifest = directory.read_run(path)
        folder = Path(manifest["folder"].replace("\0", ""))
        source = f"the scenario in {path / 'manifest.json'}"
        scenario = Scenario.from_toml(manifest["scenario"], source=source, folder=folder if folder.is_dir() else path)
        result = cls.__new__(cls)
        result.outcome = None
        try:
            facts = Facts.from_json(manifest["outcome"])
        except ValueError as error:
            raise InputError(f"{printable(path / 'manifest.json')}: outcome: {error}.") from error
        make = partial(directory.read_table, path, manifest["outputs"])
        result._spans = directory.spans_of(path, manifest["outputs"])
        result._fill(scenario, facts, manifest["inputs"], make)
        return result

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write a run directory: ``manifest.json``, a Parquet file for each table, and ``summary.csv``.

        Parameters
        ----------
        path : path
            Absent or an empty folder, or with `force` one of an earlier run.
        force : bool, optional
            Replace an earlier run.

        Raises
        ------
        InputError
            It cannot be written there; then nothing is.
        """
        from vmsim.record import directory  # pyarrow takes a while to import

        outcome = self.facts.to_json()
        facts: dict[str, Any] = {"outcome": outcome, "inputs": self.inputs}
        directory.write_run(Path(path), self, self.scenario, **facts, timeline=self.timeline, force=force)

    def table(self, name: str) -> pd.DataFrame:
        """Return a table by its name: ``summary``, ``cycles``, ``exits`` and so on.

        Raises
        ------
        InputError
            There is no such table.
        """
        if name not in tables.TABLES:
            raise InputError(f"There is no table {name!r}. {nearest(name, tables.TABLES)}")
        if name not in self._tables:
            self._tables[name] = self._make(name)
        return self._tables[name]

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return a table's rows as plain Python values."""
        if self.outcome is not None:
            return tables.rows(name, self.outcome)
        table = self.table(name)
        columns = [table[column].to_list() for column in table]
        return [dict(zip(map(str, table.columns), row, strict=True)) for row in zip(*columns, strict=True)]

    @property
    def timeline(self) -> pd.DataFrame | None:
        """What vCPUs, cores and daemons did when, if it was noted (`vmsim.run(…, timeline=True)`); else None.

        Columns: start_cycle, cycles, track, what, pages. ``attrs["every"]`` is 1 where all of it is there; of a run
        that was longer only every so manieth span.
        """
        if self._shown is None and self._spans:
            self._shown = self._spans()
        return self._shown

    @property
    def ending(self) -> Ending | None:
        """Why the simulation stopped before its VMs were done, or None."""
        return self.facts.ending

    @property
    def warmed(self) -> bool:
        """Whether the scenario has a warm-up, which no table counts."""
        return str(self.scenario.warmup).rstrip("%") not in ("0", "0.0")

    @cached_property
    def accesses_per_second(self) -> float:
        """Simulated accesses of all VMs in a second of wall time, without loading and compiling."""
        accesses = sum(row["accesses"] for row in self.rows("summary"))
        return accesses / self.facts.wall_seconds if self.facts.wall_seconds else 0.0

    def __repr__(self) -> str:
        vms = self.rows("summary")
        stopped = f", stopped: {self.ending.message}" if self.ending else ""
        return f"<Result of {len(vms)} VMs, {sum(vm['accesses'] for vm in vms):,} accesses{stopped}>"

    def _repr_html_(self) -> str:
        return html.page(self.summary, self.cycles, self.ending)

    def _fill(
        self,
        scenario: Scenario,
        facts: Facts,
        inputs: Mapping[str, str],
        make: Callable[[str], pd.DataFrame],
    ) -> None:
        self.scenario = scenario
        self.facts = facts
        self.inputs = inputs
        self._make = make
        self._tables: dict[str, pd.DataFrame] = {}
