"""Measure, and say which targets are reached."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial

import click

from benchmarks import memory, operations, pressure, scale, shadow, speed, startup, storms, ways
from benchmarks.table import Row, as_json, show

FULL: dict[str, Callable[[], Iterator[Row]]] = {
    "speed": speed.measure,
    "ways": ways.measure,
    "storms": storms.measure,
    "shadow": shadow.measure,
    "operations": operations.measure,
    "scale": scale.measure,
    "pressure": pressure.measure,
    "startup": startup.measure,
    "memory": memory.measure,
}
QUICK: dict[str, Callable[[], Iterator[Row]]] = {
    "speed": partial(speed.measure, accesses=2_000_000, turns=3),
    "ways": partial(ways.measure, accesses=1_000_000, turns=3),
    "storms": partial(storms.measure, pages=50_000, each=2048),
    "shadow": partial(shadow.measure, pages=30_000),
    "operations": partial(operations.measure, rounds=400, forks=4),
    "scale": partial(scale.measure, vms=50),
    "pressure": partial(pressure.measure, vms=8, pages=4096),
    "startup": partial(startup.measure, compiling=False),
    "memory": partial(memory.measure, accesses=50_000_000),
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("what", nargs=-1, type=click.Choice([*FULL]))
@click.option("--json", "as_text", is_flag=True, help="Print JSON instead of a table.")
@click.option("--quick", is_flag=True, help="Smaller inputs, fewer turns: to see whether it works.")
@click.option("--strict", is_flag=True, help="Exit with 1 if a target is missed.")
def main(what: tuple[str, ...], as_text: bool, quick: bool, strict: bool) -> None:
    """Measure speed, fault storms, shadow exits, kernels' operations, start-up, memory and ways to compile, or WHAT."""
    rows: list[Row] = []
    for name in what or FULL:
        for row in (QUICK if quick else FULL)[name]():
            rows.append(row)
            if not as_text:
                click.echo(f"{row.what}: {row.value:.4g} {row.unit}  {row.note}", err=True)
    if as_text:
        click.echo(json.dumps(as_json(rows), indent=2))
    else:
        show(rows)
    if strict and not all(row.met for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
