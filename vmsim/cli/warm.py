"""``vmsim warm``: compile ahead."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import click


@click.command()
@click.option("--cpu", "names", multiple=True, metavar="CPU", help="A preset or CPU file; again for more.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(names: tuple[str, ...], as_json: bool) -> None:
    """Compile the kernels ahead of the first run.

    The page walker is compiled once for each CPU's geometry, as it is for the first run on that CPU; the results are
    kept in numba's cache. All presets are compiled unless CPUs are named.
    """
    from vmsim.cli.screen import print_json
    from vmsim.scenario import Cpu, cpu_names

    cpus = list(dict.fromkeys(names or cpu_names()))
    for name in cpus:
        Cpu.load(name)  # a wrong name is found before minutes of compiling
    started = time.perf_counter()
    done = []
    for name, seconds in _compiled(cpus):
        done.append({"cpu": name, "seconds": round(seconds, 3)})
        if not as_json:
            click.echo(f"{name}: {seconds:.1f} s ({len(done)} of {len(cpus)})")
    if as_json:
        print_json({"cpus": done, "wall_seconds": round(time.perf_counter() - started, 3)})


def compile_group(names: list[str], whole: bool) -> list[tuple[str, float]]:
    """Compile for CPUs that share a geometry, or load what is in the cache; return names and the seconds each took.

    Unless `whole`, leave out what does not depend on the CPU.
    """
    from vmsim.scenario import Cpu
    from vmsim.warm import warm, warm_core

    done = []
    for name in names:
        started = time.perf_counter()
        (warm if whole else warm_core)(Cpu.load(name))
        done.append((name, time.perf_counter() - started))
    return done


def _groups(cpus: list[str]) -> list[list[str]]:
    """Return the CPUs by what is compiled for them: the shapes of a core and of the LLC's sets."""
    from vmsim.hardware import Hardware
    from vmsim.scenario import Cpu

    groups: dict[object, list[str]] = {}
    for name in cpus:
        hardware = Hardware.of(Cpu.load(name), cores=1, frames=1)
        groups.setdefault((hardware.cores.dtype, hardware.llc.dtype), []).append(name)
    return list(groups.values())


def _compiled(cpus: list[str]) -> Iterator[tuple[str, float]]:
    """Yield names and seconds as they are done, two geometries at a time where there are cores for it."""
    groups = _groups(cpus)
    workers = min(2, os.cpu_count() or 1, len(groups))
    if workers < 2:
        for names in groups:
            yield from compile_group(names, names is groups[0])
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for future in as_completed([pool.submit(compile_group, names, names is groups[0]) for names in groups]):
            yield from future.result()
