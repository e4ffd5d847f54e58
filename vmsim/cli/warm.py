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


def compile_one(name: str, whole: bool) -> tuple[str, float]:
    """Compile for one CPU, or load what is in the cache; return its name and the seconds that took.

    Unless `whole`, leave out what does not depend on the CPU.
    """
    from vmsim.scenario import Cpu
    from vmsim.simulation import warm, warm_core

    started = time.perf_counter()
    (warm if whole else warm_core)(Cpu.load(name))
    return name, time.perf_counter() - started


def _compiled(cpus: list[str]) -> Iterator[tuple[str, float]]:
    """Yield names and seconds as they are done, two CPUs at a time where there are cores for it."""
    workers = min(2, os.cpu_count() or 1, len(cpus))
    if workers < 2:
        yield from (compile_one(name, name == cpus[0]) for name in cpus)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for future in as_completed([pool.submit(compile_one, name, name == cpus[0]) for name in cpus]):
            yield future.result()
