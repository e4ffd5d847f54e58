"""The kinds of figures by name, and of what each can be drawn."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

__all__ = ["KINDS", "RUN", "SWEEP", "Kind"]

RUN: Final = "run"
SWEEP: Final = "sweep"


class Kind(NamedTuple):
    """A kind of figure.

    Attributes
    ----------
    of : str
        What it can be drawn of: a run (or a comparison), or a sweep.
    about : str
        What it shows.
    target : str
        Dotted name of what makes it.
    """

    of: Literal["run", "sweep"]
    about: str
    target: str


KINDS: Final = {
    "breakdown": Kind(RUN, "cycles per access of each VM, by cause", "vmsim.plotting.runs:breakdown"),
    "walk": Kind(RUN, "walk references by their position in the two-dimensional walk", "vmsim.plotting.runs:walk"),
    "pool": Kind(RUN, "pages in each monitor's pool, over time", "vmsim.plotting.runs:pool"),
    "memory": Kind(RUN, "the host's memory by who has it, over time", "vmsim.plotting.memory:memory"),
    "huge": Kind(RUN, "memory of VMs in huge pages of guest, host and both, over time", "vmsim.plotting.huge:huge"),
    "latency": Kind(RUN, "how long faults took: their distribution", "vmsim.plotting.runs:latency"),
    "heatmap": Kind(SWEEP, "one result by two parameters", "vmsim.plotting.sweeps:heatmap"),
    "lines": Kind(
        SWEEP, "one result by one parameter, a line for each value of another", "vmsim.plotting.sweeps:lines"
    ),
}
