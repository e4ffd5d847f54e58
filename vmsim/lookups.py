"""What can be looked up without a simulation: a walk, the CPU presets, results saved earlier."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vmsim.base.errors import InputError
from vmsim.base.units import PageSize
from vmsim.observe.anatomy import Walk, WalkMode
from vmsim.observe.anatomy import explain as walk_twice
from vmsim.scenario import Cpu, cpu_names, load_cpu

if TYPE_CHECKING:
    import pandas as pd

    from vmsim.record.comparison import Comparison
    from vmsim.record.result import Result

__all__ = ["Explanation", "cpus", "explain", "load"]

_CPUS = {"npt": "zen4"}  # skylake-x for the other modes


class Explanation(NamedTuple):
    """Every memory reference of one page walk: with all caches empty, and with only the TLB entry gone."""

    cold: Walk
    warm: Walk

    def _repr_html_(self) -> str:
        return "\n".join(_html(self))


def explain(
    mode: WalkMode = "ept",
    *,
    cpu: Cpu | str | None = None,
    guest_levels: int = 4,
    host_levels: int = 4,
    guest_page: PageSize = "4K",
    host_page: PageSize = "4K",
    switch: int = 1,
) -> Explanation:
    """Show every memory reference of one page walk, cold and warm. In a notebook it is a grid.

    Parameters
    ----------
    mode : {"ept", "npt", "native", "agile"}, optional
        How guests are walked.
    cpu : Cpu or str, optional
        A CPU, a preset, or the path of a CPU file. By default zen4 for npt, and skylake-x.
    guest_levels, host_levels, guest_page, host_page, switch : optional
        As of `vmsim.observe.anatomy.explain`.

    Raises
    ------
    InputError
        There is no such CPU, or tables of so many levels cannot do this.
    """
    machine = cpu if isinstance(cpu, Cpu) else load_cpu(cpu or _CPUS.get(mode, "skylake-x"))
    return Explanation(
        *walk_twice(
            machine,
            mode,
            guest_levels=guest_levels,
            host_levels=host_levels,
            guest_page=guest_page,
            host_page=host_page,
            switch=switch,
        )
    )


def cpus(name: str | Path | None = None) -> pd.DataFrame:
    """List the CPU presets, or every number of one with its source.

    Parameters
    ----------
    name : str or path, optional
        A preset, or a CPU file.

    Returns
    -------
    DataFrame
        Without a name: name, vendor, frequency (Hz), modes, description. With one: key, value, confidence, source.

    Raises
    ------
    InputError
        There is no such CPU.
    """
    import pandas as pd

    if name is None:
        all_ = [load_cpu(each) for each in cpu_names()]
        rows = [(cpu.name, cpu.vendor, cpu.frequency, ", ".join(cpu.modes), cpu.description) for cpu in all_]
        return pd.DataFrame(rows, columns=["name", "vendor", "frequency", "modes", "description"])
    figures = [(each.key, each.value, each.confidence, each.source) for each in load_cpu(str(name)).figures()]
    return pd.DataFrame(figures, columns=["key", "value", "confidence", "source"])


def load(path: str | Path) -> Result | Comparison:
    """Read what `Result.save` or `Comparison.save` wrote.

    Raises
    ------
    InputError
        It is no folder of a run or of a comparison, or a file in it is missing or damaged.
    """
    from vmsim.record.comparison import Comparison
    from vmsim.record.result import Result

    try:
        return Result.load(path)
    except InputError as error:
        if "vmsim comparison" not in str(error):
            raise
    return Comparison.load(path)


def _html(walks: Explanation) -> Iterator[str]:
    """Yield a grid for each walk: a row for each table of the guest, a column for each nested level."""
    cell = "<td style='padding: 0 0.6em'>"
    for name, walk in zip(walks._fields, walks, strict=True):
        made = {(each.guest_level, each.nested_level): each for each in walk.references}
        guests = sorted({guest for guest, _ in made}, reverse=True)
        nesteds = sorted({nested for _, nested in made} - {0}, reverse=True)
        columns = [*nesteds, 0]
        heads = "".join(f"<th>{f'nL{level}' if level else 'entry'}</th>" for level in columns)
        title = f"{name}: {walk.count} references, {walk.cycles:,} cycles"
        yield f"<table><caption style='white-space: nowrap'>{escape(title)}</caption><tr><th></th>{heads}</tr>"
        for guest in guests:
            cells = [made.get((guest, nested)) for nested in columns]
            fields = "".join(f"{cell}{f'{each.position}: {each.served}' if each else ''}</td>" for each in cells)
            yield f"<tr><th>{f'gL{guest}' if guest else 'data'}</th>{fields}</tr>"
        yield "</table>"
