"""``vmsim mrc``: miss-ratio curves of workloads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vmsim.base.files import printable, refuse_figure
from vmsim.cli.completing import traces as traces_completion

if TYPE_CHECKING:
    from vmsim.analysis.miss_ratio import MissRatios

_FILE = click.Path(path_type=Path)
_MORE = (0.1, 0.01, 0.001)
_UNITS = ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB"))


@click.command()
@click.argument("source", type=_FILE, metavar="TRACE|FILE|RUN", shell_complete=traces_completion)
@click.option("--vm", "vms", multiple=True, metavar="NAME", help="Only of this VM; may be given again.")
@click.option("--sample", type=float, metavar="SHARE", help="Follow this share of the pages (SHARDS), 0.01 say.")
@click.option("--pages", type=click.IntRange(min=1), metavar="N", help="Follow about N pages.")
@click.option("--figure", type=_FILE, metavar="FILE", help="Draw the curves: .png, .pdf, .svg.")
@click.option("--force", is_flag=True, help="Replace the figure's FILE if it is there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    source: Path,
    vms: tuple[str, ...],
    sample: float | None,
    pages: int | None,
    figure: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Say what share of accesses would miss in a memory of any size.

    Of a trace (of any known format, or the name of a bundled one), or of each VM of a scenario (a .toml) or of a run
    directory. Exact under LRU by pages of 4 KiB (Mattson), in one pass, or from a sample of the pages with its error
    (SHARDS). A page that is given back leaves its frame free; the first access to a page always misses.
    """
    if figure:
        refuse_figure(figure, force=force)
    from vmsim.analysis.miss_ratio import mrc

    curves = mrc(source, vms=vms, rate=sample, pages=pages, progress=True)
    if figure:
        _draw(curves, figure, force=force)
    if as_json:
        from vmsim.cli.screen import print_json

        print_json([_json(curve) for curve in curves])
        return
    _print(curves)
    if figure:
        click.echo(f"The curve{' is' if len(curves) == 1 else 's are'} in {printable(figure)}.")


def _draw(curves: list[MissRatios], path: Path, *, force: bool) -> None:
    from vmsim.analysis import style
    from vmsim.analysis.miss_ratio import draw

    with style.figure(width=style.COLUMN, height=2.2) as (fig, ax):
        draw(curves, ax)
        style.save(fig, path, force=force)


def _json(curve: MissRatios) -> dict[str, Any]:
    from vmsim.cli.screen import rows_of

    about = {"name": curve.name, "accesses": curve.accesses, "first_touch": curve.first, "sampled": curve.rate}
    return about | {"curve": rows_of(curve.table)}


def _print(curves: list[MissRatios]) -> None:
    from vmsim.cli.screen import Side, print_table, say
    from vmsim.workloads.stream import PAGE

    for curve in curves:
        table = curve.table
        columns: dict[str, Side] = {"memory": "right", "pages": "right", "misses": "right"}
        if curve.rate < 1:
            columns["±"] = "right"
        powers = table[(table["pages"] & (table["pages"] - 1) == 0) | (table.index == table.index[-1])]
        rows = [
            [_size(row.bytes), row.pages, f"{row.miss_ratio:.3%}", _error(row.error)][: len(columns)]
            for row in powers.itertuples()
        ]
        print_table(f"{curve.name}: misses of {curve.accesses:,} accesses, by memory", columns, rows)
        needs = [_size(curve.pages_for(more) * PAGE) for more in _MORE]
        first = f"First accesses are {curve.first:.3%}, and miss in any memory."
        say(f"{first} Besides these, 10 % miss at most with {needs[0]}, 1 % with {needs[1]}, 0.1 % with {needs[2]}.")
        if curve.rate < 1:
            say(f"Estimated from {curve.rate:.3%} of the pages; ± is the standard error, from 8 parts of the sample.")


def _error(error: float) -> str | None:
    """Return a standard error; None where the sample is too small to tell."""
    return None if error != error else f"{error:.3%}"


def _size(size: int) -> str:
    """Return bytes in a unit that leaves few digits."""
    unit, name = next(((1 << shift, name) for shift, name in _UNITS if size >= 1 << shift))
    return f"{size / unit:.4g} {name}"
