"""Workloads: streams of guest accesses, made by generators or read from traces of real programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vmsim import plugins
from vmsim.base.errors import InputError
from vmsim.workloads.stream import WIDEST_END, Chunk, Event, Kind, Op, Place, Stream

__all__ = ["Chunk", "Event", "Kind", "Op", "Place", "Stream", "open_stream"]


def open_stream(
    spec: Any, *, folder: Path, memory: int, seed: int, lines: bool = False, end: int = WIDEST_END, cpus: int = 1
) -> Stream:
    """Open the stream that a scenario's workload describes, of at most as many threads as the guest has CPUs.

    Parameters
    ----------
    spec : object
        With the keys of its `kind` (`vmsim.scenario.workload`).
    folder : Path
        The folder that relative paths start from.
    memory : int
        The guest's memory in bytes.
    seed : int
        Of the generators; a trace has no chance in it.
    lines : bool
        The cache lines of data matter: a trace must have them. Generators always do.
    end : int
        The first address that is not user space in the guest; a trace's operations must stay below it.
    cpus : int
        Of the guest: thread t is on CPU t mod `cpus`, where threads have turns of `spec.turn` accesses.

    Raises
    ------
    InputError
        A parameter is not usable, a trace is missing, broken or in no known format, or what it has mapped at
        once is larger than the guest's memory.
    """
    try:
        make = plugins.resolve(plugins.load("workloads", spec.kind).stream)
    except InputError as error:
        raise InputError(f"workload: kind = {spec.kind!r}: {error}") from None
    stream: Stream = make(spec, Place(folder, seed, lines, end, cpus))
    needed, what = int(stream.footprint()[1].sum()), "its footprint"
    if needed > memory and (most := getattr(stream, "most_at_once", None)):
        needed, what = most(), "what it has mapped at once"
    if needed > memory:
        raise InputError(
            f"workload {stream.name}: {what}, {needed} bytes ({needed / 2**20:.1f} MiB), is larger than the guest's "
            f"memory of {memory} bytes ({memory / 2**20:.1f} MiB): give the guest more memory or choose a smaller "
            "workload."
        )
    if stream.threads > cpus:
        from vmsim.workloads.threads import OnCpus

        return OnCpus(stream, cpus, spec.turn)
    return stream
