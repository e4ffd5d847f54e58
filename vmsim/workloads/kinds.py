"""What makes the stream of each kind of workload of the keys of its table (`vmsim.scenario.workload`)."""

from __future__ import annotations

from typing import Any

from vmsim.workloads import files, generators, normal, programs, stand_in
from vmsim.workloads.stream import Place, Stream
from vmsim.workloads.trace import TraceStream, find


def trace(spec: Any, place: Place) -> Stream:
    """Open a recorded trace."""
    path = find(spec.path, place.folder)
    return TraceStream(path, spec.format, spec.repeat, lines=place.lines, end=place.end, cpus=place.cpus)


def uniform(spec: Any, place: Place) -> Stream:
    """Make a stream of uniform accesses."""
    return generators.Uniform(**_accesses(spec, place))


def zipf(spec: Any, place: Place) -> Stream:
    """Make a stream that chooses pages by Zipf's law."""
    return generators.Zipf(**_accesses(spec, place), exponent=float(spec.exponent))


def normal_law(spec: Any, place: Place) -> Stream:
    """Make a stream that chooses pages by the normal law."""
    return normal.Normal(**_accesses(spec, place), filled=spec.filled)


def sequential(spec: Any, place: Place) -> Stream:
    """Make a stream that goes through its footprint in order."""
    return generators.Sequential(**_accesses(spec, place), stride=spec.stride)


def chase(spec: Any, place: Place) -> Stream:
    """Make a chase along pointers."""
    return generators.Chase(**_accesses(spec, place), stride=spec.stride, order=spec.order)


def gups(spec: Any, place: Place) -> Stream:
    """Make a stream of updates, as of RandomAccess."""
    return generators.Gups(**_region(spec, place), runs=spec.updates)


def working_set(spec: Any, place: Place) -> Stream:
    """Make a stream whose window moves through its footprint."""
    return generators.WorkingSet(**_accesses(spec, place), window=spec.window, phase=spec.phase, step=spec.step)


def churn(spec: Any, place: Place) -> Stream:
    """Make a process that maps and unmaps blocks."""
    keys = {"burst": spec.burst, "kept": float(spec.kept), "work": spec.work, "filled": spec.filled}
    return programs.Churn(**_written(spec, place), **keys, runs=spec.rounds)


def forkwait(spec: Any, place: Place) -> Stream:
    """Make a process that forks children and waits for them."""
    return programs.ForkWait(**_region(spec, place), runs=spec.forks, child=spec.child, parent=spec.parent)


def compile(spec: Any, place: Place) -> Stream:
    """Make a process that runs many short programs."""
    keys = {"text": spec.text, "parent": spec.parent, "work": spec.work}
    return programs.Compile(**_written(spec, place), **keys, runs=spec.processes)


def disk(spec: Any, place: Place) -> Stream:
    """Make a process that reads blocks from a device."""
    keys = {"burst": spec.block, "device": spec.device.cycles(10**9), "work": spec.work}
    return programs.Disk(**_written(spec, place), **keys, runs=spec.reads)


def read_files(spec: Any, place: Place) -> Stream:
    """Make a program that reads and writes a file."""
    keys = {"data": spec.data, "burst": spec.block, "exponent": float(spec.exponent), "order": spec.order}
    keys |= {"written": float(spec.written), "synced": spec.synced, "drop": spec.drop, "work": spec.work}
    return files.Files(**_written(spec, place), **keys, runs=spec.operations)


def switcher(spec: Any, place: Place) -> Stream:
    """Make processes that run in turn."""
    return programs.Switcher(**_accesses(spec, place), spaces=spec.spaces, every=spec.every)


def standing_in(spec: Any, place: Place) -> Stream:
    """Make a stream that stands for a program."""
    keys = {key: getattr(spec, key) for key in ("recent", "lines", "edit", "block")}
    keys |= {key: float(getattr(spec, key)) for key in ("region_exponent", "page_exponent", "reuse", "large", "edits")}
    return stand_in.StandIn(**_accesses(spec, place), **keys)


def _region(spec: Any, place: Place) -> dict[str, Any]:
    return {"size": spec.footprint, "base": spec.base, "seed": place.seed, "threads": spec.threads}


def _written(spec: Any, place: Place) -> dict[str, Any]:
    return _region(spec, place) | {"writes": float(spec.writes)}


def _accesses(spec: Any, place: Place) -> dict[str, Any]:
    return _written(spec, place) | {"runs": spec.accesses}
