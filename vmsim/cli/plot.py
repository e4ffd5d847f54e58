"""``vmsim plot``: figures of runs, comparisons and sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from vmsim.base.errors import InputError
from vmsim.base.files import printable
from vmsim.base.formats import FIGURE_FORMATS
from vmsim.cli.choice import Choice
from vmsim.plotting.kinds import KINDS

_FILE = click.Path(path_type=Path)
_FORMATS: Final = tuple(suffix.removeprefix(".") for suffix in FIGURE_FORMATS)


@click.command()
@click.argument("source", type=_FILE, metavar="RUN|SWEEP")
@click.argument("kind", type=Choice(tuple(KINDS)), required=False, metavar="[KIND]")
@click.option("--with", "beside", type=_FILE, metavar="RUN", help="Draw another run beside it, on the same scale.")
@click.option("--vm", "vms", multiple=True, metavar="NAME", help="Only of this VM; may be given again.")
@click.option("--x", metavar="NAME", help="Of a sweep: the parameter along x.")
@click.option("--y", metavar="NAME", help="Of a heat map: the parameter along y.")
@click.option("--by", metavar="NAME", help="Of a sweep: the parameter with a panel, or a line, for each value.")
@click.option("--value", metavar="COLUMN", help="Of a sweep: the result that is drawn.  [default: cycles_per_access]")
@click.option(
    "--where", multiple=True, metavar="NAME=VALUE", help="Of a sweep: only points with this value; may be given again."
)
@click.option("--width", type=Choice(("column", "page")), help="3.35 or 7 inches.  [default: what it needs]")
@click.option("--out", type=_FILE, metavar="FILE", help="Where to write it.  [default: RUN-KIND.png]")
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=Choice(_FORMATS),
    help="The format, where FILE does not end in it; may be given again.",
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print the data as JSON.")
def command(
    source: Path,
    kind: str | None,
    beside: Path | None,
    vms: tuple[str, ...],
    x: str | None,
    y: str | None,
    by: str | None,
    value: str | None,
    where: tuple[str, ...],
    width: str | None,
    out: Path | None,
    formats: tuple[str, ...],
    force: bool,
    as_json: bool,
) -> None:
    """Draw a figure of a run, a comparison or a sweep.

    RUN|SWEEP is a folder that vmsim run, compare or sweep has written. Of runs and comparisons KIND is breakdown (the
    default), walk, pool, memory, huge or latency; of sweeps heatmap or lines. The data is written beside the figure as
    CSV.
    """
    from vmsim.cli.screen import print_json, rows_of, say
    from vmsim.plotting.api import opened, plot

    found = opened(source)
    chosen = {name: text for name, _, text in (_pair(each) for each in where)}
    options: dict[str, Any] = {
        "beside": beside,
        "vms": vms,
        "x": x,
        "y": y,
        "by": by,
        "value": value,
        "where": chosen,
        "width": width,
    }
    if as_json and not out and not formats:
        made = plot(found, kind, **options)
        print_json({"kind": made.kind, "caption": made.caption, "data": rows_of(made.table)})
        return
    made = plot(source if beside else found, kind, **options)
    files = _files(source, made.kind, out, formats)
    data = made.save(*files, force=force)
    if as_json:
        written = [str(path) for path in (*files, data)]
        print_json({"kind": made.kind, "caption": made.caption, "files": written, "data": rows_of(made.table)})
        return
    say(made.caption)
    say(f"The figure is in {', '.join(map(printable, files))}, its data in {printable(data)}.")


def _files(source: Path, kind: str, out: Path | None, formats: tuple[str, ...]) -> list[Path]:
    """Return the files to write: one for each format."""
    if out is None:
        name = source.resolve().name or "run"
        return [Path(f"{name}-{kind}.{each}") for each in formats or ("png",)]
    if out.suffix in FIGURE_FORMATS:
        if formats and {out.suffix[1:]} != {*formats}:
            raise InputError(f"--format: found {', '.join(formats)}, and {printable(out)} ends in {out.suffix}.")
        return [out]
    if not formats:
        raise InputError(f"{printable(out)}: expected a name that ends in {', '.join(FIGURE_FORMATS)}, or --format.")
    return [out.with_name(f"{out.name}.{each}") for each in formats]


def _pair(text: str) -> tuple[str, str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"--where {text[:80]!r}: expected NAME=VALUE.")
    return name.strip(), equals, value.strip()
