"""``vmsim trace``: record, convert and look at traces of real programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from vmsim.base.errors import InputError
from vmsim.base.files import printable, refuse_overwrite
from vmsim.base.formats import TRACE_FORMATS
from vmsim.base.progress import progress_bar
from vmsim.base.units import parse_size
from vmsim.cli.choice import Choice
from vmsim.cli.completing import traces as traces_completion

_FILE = click.Path(path_type=Path)
_GRANULE = click.option(
    "--granule",
    type=Choice(["4096", "64"]),
    default="4096",
    show_default=True,
    help="Bytes of a block: pages for TLBs, or cache lines (larger files).",
)
_FETCH = click.option("--fetch", is_flag=True, help="Keep instruction fetches as well as loads and stores.")
_FORMAT = click.option(
    "--format",
    "form",
    type=Choice(["auto", *TRACE_FORMATS]),
    metavar="FORMAT",
    default="auto",
    show_default=True,
    help=f"Format of the file that is read: {', '.join(TRACE_FORMATS)}; auto recognises it.",
)
_FORCE = click.option("--force", is_flag=True, help="Replace the file that is written if it is there.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(name="trace")
def command() -> None:
    """Record, convert and look at traces of real programs."""


@command.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "-o", "--output", type=_FILE, help="The trace to write.  [default: PROGRAM.vmtrace, or PROGRAM-2.vmtrace …]"
)
@_FETCH
@_GRANULE
@_FORCE
@click.option("--max-accesses", type=click.IntRange(min=1), help="Stop the program after so many accesses.")
@_JSON
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def record(
    output: Path | None,
    fetch: bool,
    granule: str,
    force: bool,
    max_accesses: int | None,
    as_json: bool,
    program: tuple[str, ...],
) -> None:
    """Run PROGRAM under valgrind and record its accesses.

    For example: vmsim trace record -o sort.vmtrace -- sort FILE. Mappings, heap changes, forks and the exit stay in
    place between the accesses. Only the process started is recorded, not its children. Ctrl-C stops the program; what
    came until then is kept as a valid trace.
    """
    from vmsim.workloads.recorder import record as run

    path = output or _unused(Path(program[0]).name, force=force)
    refuse_overwrite(path, force=force)
    with progress_bar("recording") as progress:
        done = run(program, path, fetch=fetch, granule=int(granule), limit=max_accesses, progress=progress, force=force)
    told = {"output": str(path), "bytes": path.stat().st_size, "exit_status": done.status}
    told |= {"interrupted": done.interrupted} | done.totals
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    if done.interrupted:
        how = "was interrupted; the trace holds what came until then"
    elif done.status is None:
        how = f"was stopped after {max_accesses:,} accesses"
    else:
        how = f"ended with exit status {done.status}"
    click.echo(f"{printable(program[0])} {how}.", err=True)
    click.echo(
        f"{printable(path)}: {told['accesses']:,} accesses in {told['runs']:,} runs, {told['bytes']:,} bytes.", err=True
    )


@command.command()
@click.argument("source", type=_FILE, metavar="IN", shell_complete=traces_completion)
@click.argument("target", type=_FILE, metavar="OUT")
@_FORMAT
@_FETCH
@_GRANULE
@_FORCE
@click.option(
    "--max-size", default="4GiB", show_default=True, help="The most that a .u64, .csv or .parquet file may have."
)
@_JSON
def convert(
    source: Path,
    target: Path,
    form: str,
    fetch: bool,
    granule: str,
    force: bool,
    max_size: str,
    as_json: bool,
) -> None:
    """Convert a trace to another format.

    IN is a trace of any known format, or the name of a bundled one.
    OUT's suffix says its format: .vmtrace, or for other tools .u64 (one address an access), .csv or .parquet (one row
    a run). What OUT does not hold of IN is said.
    """
    from vmsim.workloads.export import export
    from vmsim.workloads.trace import find

    largest = parse_size(max_size)
    refuse_overwrite(target, force=force)
    with progress_bar("converting") as progress:
        told = export(
            find(source, Path()),
            target,
            form=form,
            fetch=fetch,
            granule=int(granule),
            force=force,
            largest=largest,
            progress=progress,
        )
    told = {"output": str(target), "bytes": target.stat().st_size} | told
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(
        f"{printable(target)}: {told['accesses']:,} accesses in {told['runs']:,} runs, {told['bytes']:,} bytes.",
        err=True,
    )
    for line in _left_out(told, f"blocks of {granule} bytes"):
        click.echo(line, err=True)


@command.command()
@click.argument("file", type=_FILE, shell_complete=traces_completion)
@_FORMAT
@_JSON
def info(file: Path, form: str, as_json: bool) -> None:
    """Say what is in a trace.

    FILE is one of any known format, or the name of a bundled one.
    """
    from vmsim.workloads.export import describe
    from vmsim.workloads.trace import find

    told = describe(find(file, Path()), form)
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    from vmsim.cli.screen import print_facts, print_table

    print_facts(printable(told["path"]), _facts(told))
    print_table(
        "Reuse: other blocks used since a run's block was last used",
        {"blocks": "right", "runs": "right", "of all": "right", "with nearer ones": "right"},
        _reuse(told),
    )


@command.command()
@click.argument("file", type=_FILE, shell_complete=traces_completion)
@_FORMAT
@click.option(
    "--visits",
    type=click.IntRange(min=1000),
    default=300_000,
    show_default=True,
    help="Visits to pages that are looked at.",
)
@click.option(
    "--skip",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Visits before these: a server's start, say.",
)
@_JSON
def fit(file: Path, form: str, visits: int, skip: int, as_json: bool) -> None:
    """Fit a workload of kind stand-in to a trace.

    It is to miss in TLBs as often as FILE does, with small and large pages. Printed are its keys, how well each is
    known, and both at sizes of TLBs that nothing was fitted to.
    """
    from vmsim.base.progress import status_line
    from vmsim.workloads.fitting import FITTED, PAGES, REGIONS, visits_of
    from vmsim.workloads.fitting import fit as fitting
    from vmsim.workloads.trace import TraceStream, find

    with status_line() as say:
        say("reading")
        used, accesses = visits_of(TraceStream(find(file, Path()), form).chunks(), visits, skip)
        found = fitting(used, accesses, say=say)
    keys = {"footprint": f"{found.there.regions * 2}MiB", "recent": found.stream.recent, "lines": found.stream.lines}
    keys |= {key: getattr(found.stream, key) for key in FITTED}
    figures = [("the tenth of the pages used most", found.there.tenth, found.made.tenth, True)]
    for large, entries in ((False, PAGES), (True, REGIONS)):
        for size in (entries // 2, entries, 2 * entries, 4 * entries):
            there, made = (each.misses(size, large=large) for each in (found.there, found.made))
            page = "2 MiB" if large else "4 KiB"
            figures.append((f"misses with {page}, {size} entries", there, made, size == entries))
    if as_json:
        known = {key: None if error == float("inf") else error for key, error in found.errors.items()}
        told = [dict(zip(("figure", "program", "stream", "fitted"), figure, strict=True)) for figure in figures]
        click.echo(json.dumps({"keys": keys, "errors": known, "figures": told}, indent=2))
        return
    from vmsim.cli.screen import print_table

    click.echo(f'workload = {{ kind = "stand-in", {", ".join(f"{key} = {json.dumps(keys[key])}" for key in keys)} }}\n')
    print_table(
        "How well each is known if figures are known to 2 %",
        {"key": "left", "value": "right", "by all": "right", "by two columns": "right"},
        ([key, keys[key], _error(found.errors[key]), _error(found.of_two.get(key))] for key in FITTED),
    )
    print_table(
        "Shares of the visits",
        {"figure": "left", "program": "right", "stream": "right", "": "left"},
        ([name, f"{there:.2%}", f"{made:.2%}", "fitted" if by else ""] for name, there, made, by in figures),
    )


def _error(found: float | None) -> str:
    """Return a standard error as a text."""
    return "given" if found is None else "not known" if found == float("inf") else f"± {found:.2g}"


_REASONS = {
    "fetches": "{:,} instruction fetches (--fetch keeps them)",
    "sizes": "the sizes of {:,} accesses; one over the end of a block is an access to each block",
    "elements": "{:,} elements of rep movs and rep stos, which access each cache line once",
    "prefetches": "{:,} prefetches",
    "markers": "{:,} markers",
    "flushes": "{:,} flushes",
    "escapes": "{:,} escapes",
    "registers and branch outcomes": "registers and branch outcomes of {:,} instructions",
    "operations": "{:,} operations (mappings, forks …), which only .vmtrace has",
    "kinds of accesses": "that {:,} accesses are writes or fetches: .u64 has reads only",
}


def _left_out(told: dict[str, Any], blocks: str) -> Iterator[str]:
    """Say what a trace had that was not kept, and what a table's columns were taken for."""
    if columns := told.get("columns"):
        taken = ", ".join(f"{what} = {printable(name)}" for what, name in columns.items())
        unused = ", ".join(map(printable, told["unused_columns"][:8]))
        yield f"Columns: {taken}{f'; not used: {unused}' if unused else ''}."
    left = [_REASONS.get(what, f"{{:,}} {what}").format(count) for what, count in told.get("left_out", {}).items()]
    if left:
        yield f"Left out: {'; '.join([*left, f'where in {blocks} an access is'])}."


def _unused(name: str, *, force: bool) -> Path:
    """Return a name for a recording of a program that no file has."""
    if not name:
        raise InputError("vmsim trace record: expected the name of a program after --.")
    path, number = Path(f"{name}.vmtrace"), 2
    while not force and path.exists():
        path, number = Path(f"{name}-{number}.vmtrace"), number + 1
    return path


def _facts(told: dict[str, Any]) -> dict[str, str]:
    """Return what is in a trace, by label."""
    accesses, runs = told["accesses"], max(1, told["runs"])
    facts = {"format": told["format"]}
    for key, label in (("command", "command"), ("tool", "recorded with"), ("source", "converted from")):
        if key in told:
            value = told[key]
            facts[label] = printable(value if isinstance(value, str) else " ".join(value))
    facts["size"] = f"{told['bytes']:,} bytes, {8 * told['bytes'] / max(1, accesses):.2f} bits an access"
    raw = told["format"] != "vmtrace"
    facts["granule"] = f"{told['granule']} bytes" + (" here; in a run with data_caches, 64 bytes" if raw else "")
    facts |= {kind: f"{told[kind]:,} ({told[kind] / max(1, accesses):.1%})" for kind in ("reads", "writes", "fetches")}
    if told["replayed"] != accesses:
        facts["fetches"] += ": a run leaves them out; `vmsim trace convert --fetch` keeps them"
    facts["accesses"] = f"{accesses:,}"
    if told["replayed"] != accesses:
        facts["of them in a run"] = f"{told['replayed']:,}"
    facts["runs"] = f"{told['runs']:,}: {accesses / runs:.2f} accesses each, the longest {told['longest_run']:,}"
    facts["pages touched"] = f"{told['pages']:,} ({told['pages'] / 256:.1f} MiB) in {told['regions']:,} regions"
    facts["processes"] = str(told["processes"])
    if "threads" in told:
        facts["threads"] = str(told["threads"])
    facts["events"] = ", ".join(f"{count:,} {op}" for op, count in told["events"].items()) or "none"
    for line in _left_out(told, "its page"):
        label, _, text = line.partition(": ")
        facts[label.lower()] = text.rstrip(".")
    return facts


def _reuse(told: dict[str, Any]) -> Iterator[list[object]]:
    """Yield rows: how many blocks, runs with so many, their share, and the share of all with as many or fewer."""
    from vmsim.workloads.summary import REUSE

    runs = max(1, told["runs"])
    below = first = 0
    for end, count in zip(REUSE, told["reuse"], strict=True):
        below += count
        label = "more, or first use" if end == REUSE[-1] else str(end) if first == end else f"{first}–{end}"
        yield [label, count, f"{count / runs:.2%}", f"{below / runs:.2%}"]
        first = end + 1
