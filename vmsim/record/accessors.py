"""The tables of a result as attributes: one for each of `vmsim.record.tables.TABLES`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vmsim import plugins
from vmsim.record.tables import TABLES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Drawing", "Tables"]


class Drawing(Protocol):
    """A figure that `Tables.plot` has drawn (`vmsim.plotting.Plot`)."""

    table: pd.DataFrame
    caption: str
    figure: Any

    def save(self, *paths: str | Path, force: bool = False) -> Path:
        """Write the figure, and its data beside it as CSV."""
        ...


class Tables(ABC):
    """What has tables; each is made when it is first asked for. docs/reference/tables.md describes every column.

    Attributes
    ----------
    summary : DataFrame
        A row for each VM.
    cycles : DataFrame
        Where each VM's time went, by cause.
    exits : DataFrame
        VM exits by reason.
    walk_references : DataFrame
        Walk references by position in the walk and by where they were served.
    pwc : DataFrame
        Look-ups of page walk caches.
    data : DataFrame
        Data references, where data goes through the caches.
    pool : DataFrame
        Pages that changed hands between the host and monitors' pools.
    messages : DataFrame
        What monitors and the host said to each other.
    memory : DataFrame
        The memory of each VM and of the host, sampled (`host.samples`).
    shadow : DataFrame
        What a monitor did to tables of its own.
    pagers : DataFrame
        Page faults under a shadow monitor, by where the address leads and by privilege.
    dirty : DataFrame
        Readings of dirty logs.
    waits : DataFrame
        Waits of vCPUs by cause.
    fault_latency : DataFrame
        Faults that left the guest, by how long they took.
    fault_kinds : DataFrame
        How long faults took by what they had to do: percentiles of each kind.
    figures : DataFrame
        Everything that was counted, a row for each figure.
    """

    # For type checkers and editors; `_add` makes them, and a test compares.
    summary: pd.DataFrame
    cycles: pd.DataFrame
    exits: pd.DataFrame
    walk_references: pd.DataFrame
    pwc: pd.DataFrame
    data: pd.DataFrame
    pool: pd.DataFrame
    messages: pd.DataFrame
    memory: pd.DataFrame
    shadow: pd.DataFrame
    pagers: pd.DataFrame
    dirty: pd.DataFrame
    waits: pd.DataFrame
    fault_latency: pd.DataFrame
    fault_kinds: pd.DataFrame
    figures: pd.DataFrame

    @abstractmethod
    def table(self, name: str) -> pd.DataFrame:
        """Return a table by its name."""

    def plot(self, kind: str = "breakdown", **options: Any) -> Drawing:
        """Draw it: in a notebook the figure shows itself, and `save` writes it and its data.

        Parameters
        ----------
        kind : str, optional
            ``breakdown``, ``walk``, ``pool``, ``memory`` or ``latency``.
        **options
            ``vms``, ``beside`` and ``width``, as of `vmsim.plot`.

        Raises
        ------
        InputError
            There is no such kind or VM, or nothing of it in the results.
        """
        made: Drawing = plugins.resolve("vmsim.plotting.api:plot")(self, kind, **options)
        return made


def _add(name: str) -> None:
    def get(self: Tables) -> pd.DataFrame:
        return self.table(name)

    get.__name__ = name
    columns = ", ".join(TABLES[name][0])
    setattr(Tables, name, property(get, doc=f"The table `{name}`: {columns}."))


for _name in TABLES:
    _add(_name)
