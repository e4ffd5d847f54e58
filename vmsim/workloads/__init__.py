"""Workloads: streams of guest accesses, made by generators or read from traces of real programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vmsim.base.errors import InputError
from vmsim.workloads import generators, programs
from vmsim.workloads.stream import WIDEST_END, Chunk, Event, Kind, Op, Stream
from vmsim.workloads.trace import TraceStream, find

__all__ = ["Chunk", "Event", "Kind", "Op", "Stream", "open_stream"]


def _generator(spec: Any, seed: int) -> generators.Generator:
    shared = {"size": spec.footprint, "base": spec.base, "seed": seed}
    match spec.kind:
        case "gups":
            return generators.Gups(**shared, runs=spec.updates)
        case "forkwait":
            return programs.ForkWait(**shared, runs=spec.forks, child=spec.child, parent=spec.parent)
    shared["writes"] = float(spec.writes)
    match spec.kind:
        case "churn":
            keys = {"burst": spec.burst, "kept": float(spec.kept), "work": spec.work, "filled": spec.filled}
            return programs.Churn(**shared, **keys, runs=spec.rounds)
        case "disk":
            keys = {"burst": spec.block, "device": spec.device.cycles(10**9), "work": spec.work}
            return programs.Disk(**shared, **keys, runs=spec.reads)
        case "compile":
            keys = {"text": spec.text, "parent": spec.parent, "work": spec.work}
            return programs.Compile(**shared, **keys, runs=spec.processes)
    shared["runs"] = spec.accesses
    match spec.kind:
        case "uniform":
            return generators.Uniform(**shared)
        case "zipf":
            return generators.Zipf(**shared, exponent=float(spec.exponent))
        case "sequential":
            return generators.Sequential(**shared, stride=spec.stride)
        case "chase":
            return generators.Chase(**shared, stride=spec.stride, order=spec.order)
        case "working-set":
            return generators.WorkingSet(**shared, window=spec.window, phase=spec.phase, step=spec.step)
        case "switcher":
            return programs.Switcher(**shared, spaces=spec.spaces, every=spec.every)
    raise InputError(
        f"workload: kind = {spec.kind!r}: expected trace, uniform, zipf, sequential, chase, gups, working-set, churn, "
        "forkwait, compile, disk or switcher."
    )


def open_stream(
    spec: Any, *, folder: Path, memory: int, seed: int, lines: bool = False, end: int = WIDEST_END
) -> Stream:
    """Open the stream that a scenario's workload describes.

    Parameters
    ----------
    spec : object
        Its `kind` says which further attributes it has. `trace`: path, repeat, format. Generators: footprint (bytes),
        accesses, writes, base, and `zipf`: exponent; `sequential`: stride; `chase`: stride, order; `working-set`:
        window, phase, step; `switcher`: spaces, every; `gups`: updates in the place of accesses and writes; `churn`:
        rounds in the place of accesses, burst, kept, work, filled; `compile`: processes in its place, text, parent,
        work; `disk`: reads in its place, block, device, work; `forkwait`: forks in the place of accesses and writes,
        child, parent.
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

    Raises
    ------
    InputError
        A parameter is not usable, a trace is missing, broken or in no known format, or what it has mapped at
        once is larger than the guest's memory.
    """
    stream: Stream
    if spec.kind == "trace":
        stream = TraceStream(find(spec.path, folder), spec.format, spec.repeat, lines=lines, end=end)
    else:
        stream = _generator(spec, seed)
    needed, what = int(stream.footprint()[1].sum()), "its footprint"
    if needed > memory and isinstance(stream, TraceStream | programs.Churn):
        needed, what = stream.most_at_once(), "what it has mapped at once"
    if needed > memory:
        raise InputError(
            f"workload {stream.name}: {what}, {needed} bytes ({needed / 2**20:.1f} MiB), is larger than the guest's "
            f"memory of {memory} bytes ({memory / 2**20:.1f} MiB): give the guest more memory or choose a smaller "
            "workload."
        )
    return stream
