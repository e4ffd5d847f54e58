"""``vmsim warm``: compile ahead."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import as_completed

import click

from vmsim.cli.completing import cpus as cpus_completion

# What all CPUs share, by the modes that use it.
SHARED = ("ept, npt, native", "shadow, agile, vkernel")


@click.command()
@click.option(
    "--cpu",
    "names",
    multiple=True,
    metavar="CPU",
    shell_complete=cpus_completion,
    help="A preset or CPU file; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(names: tuple[str, ...], as_json: bool) -> None:
    """Compile the kernels ahead of the first run.

    What a core runs is compiled for each CPU's geometry, as it is for the first run on that CPU, and all else once; the
    results are kept in the user's cache folder, or in NUMBA_CACHE_DIR. All presets are compiled unless CPUs are named.
    What only guests in 32-bit paging need is left to the first of them.
    """
    from vmsim.cli.screen import print_json
    from vmsim.scenario import cpu_names, load_cpu

    cpus = list(dict.fromkeys(names or cpu_names()))
    for name in cpus:
        load_cpu(name)  # a wrong name is found before any compiling
    started = time.perf_counter()
    done = {}
    for name, seconds in _compiled([*SHARED, *cpus]):
        done[name] = round(seconds, 3)
        if not as_json:
            click.echo(f"{name}: {seconds:.1f} s ({len(done)} of {len(SHARED) + len(cpus)})")
    if as_json:
        modes = [{"modes": name, "seconds": done[name]} for name in SHARED]
        listed = [{"cpu": name, "seconds": done[name]} for name in cpus]
        print_json({"cpus": listed, "shared": modes, "wall_seconds": round(time.perf_counter() - started, 3)})


def compile_for(name: str) -> tuple[str, float]:
    """Compile for a CPU, or what all share, or load what is in the cache; return the name and the seconds taken."""
    from vmsim.engine.warm import HARDWARE, rehearsed_modes, warm, warm_core
    from vmsim.scenario import load_cpu

    started = time.perf_counter()
    if name in SHARED:
        warm(load_cpu("yardstick"), dict(zip(SHARED, (HARDWARE, rehearsed_modes()), strict=True))[name])
    else:
        warm_core(load_cpu(name))
    return name, time.perf_counter() - started


def _compiled(names: list[str]) -> Iterator[tuple[str, float]]:
    """Yield names and seconds as they are done, two at a time where there are cores for it."""
    if (os.cpu_count() or 1) < 2:
        yield from map(compile_for, names)
        return
    from vmsim.jit.kernel_cache import root
    from vmsim.sweeps.executors import processes

    root()  # where there is no folder for kernels, both processes are to have the same temporary one
    with processes(2)() as pool:
        for future in as_completed([pool.submit(compile_for, name) for name in names]):
            yield future.result()
