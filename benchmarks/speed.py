"""Accesses a second against the C yardstick: same trace, same counters, by turns in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.reference import Reference
from benchmarks.table import Row
from benchmarks.world import Runs, World, real, uniform, zipf

__all__ = ["measure"]

ACCESSES = 12_000_000
TURNS = 5
TRACES: tuple[Callable[[int], Runs], ...] = (uniform, zipf, real)


def measure(accesses: int = ACCESSES, turns: int = TURNS) -> Iterator[Row]:
    """Yield the median ratio of speeds for each trace, in one dimension and in two.

    Raises
    ------
    RuntimeError
        There is no C compiler, or the two count differently.
    """
    with TemporaryDirectory() as folder:
        references = {nested: Reference(Path(folder), nested=nested) for nested in (False, True)}
        for make in TRACES:
            runs = make(accesses)
            path = runs.write(Path(folder) / "trace.u64")
            for nested, reference in references.items():
                yield _cell(reference, World(runs, nested=nested), runs, path, nested=nested, turns=turns)


def _cell(reference: Reference, world: World, runs: Runs, path: Path, *, nested: bool, turns: int) -> Row:
    ours, theirs = [], []
    for _ in range(turns):
        world.cool()
        mine, his = world.run(runs), reference.run(path)
        if mine.exact != his.exact:
            raise RuntimeError(f"{runs.name}: vmsim counted {mine.exact}, the yardstick {his.exact}")
        ours.append(runs.accesses / mine.seconds / 1e6)
        theirs.append(runs.accesses / his.seconds / 1e6)
    ratio = median(mine / his for mine, his in zip(ours, theirs, strict=True))
    return Row(
        f"speed, {'nested' if nested else 'native'}, {runs.name}",
        ratio,
        "x",
        1.0,
        at_least=True,
        note=f"{median(ours):.1f} against {median(theirs):.1f} M accesses/s, {runs.accesses:,} accesses",
    )
