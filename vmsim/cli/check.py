"""``vmsim check``: read scenarios, sweeps and CPU files without running them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from vmsim.base.errors import InputError
from vmsim.base.files import printable
from vmsim.scenario import toml

_MOST: Final = 10_000


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(files: tuple[Path, ...], as_json: bool) -> int:
    """Read scenarios, sweeps and CPU files without running them.

    Every file is read, and what it names: its CPU, its traces as far as their headers, the scenario of a sweep, and
    each point of it. Exit code 2 says that one cannot be used; all errors are printed.
    """
    from vmsim.cli.screen import print_json, print_table

    found: list[dict[str, Any]] = []
    for file in files:
        try:
            kind, what = _read(file)
            found.append({"file": str(file), "kind": kind, "what": what, "error": None})
        except InputError as error:
            found.append({"file": str(file), "kind": None, "what": None, "error": error.to_json()})
            if not as_json:
                click.echo(f"vmsim: {error}", err=True)
    if as_json:
        print_json({"files": found})
    elif good := [each for each in found if not each["error"]]:
        rows = [[printable(each["file"]), each["kind"], each["what"]] for each in good]
        print_table("", {"file": "left", "is a": "left", "of": "text"}, rows)
    return 2 if any(each["error"] for each in found) else 0


def _read(file: Path) -> tuple[str, str]:
    """Return what kind of file it is and what is in it."""
    tables = toml.parse(toml.read_text(file, "file"), printable(file))
    for kind, (marks, read) in _KINDS.items():
        if any(mark in tables for mark in marks):
            return kind, read(file)
    raise InputError(
        f"{printable(file)}: it has none of the keys by which files are told apart: expected [[vm]] (a scenario), base "
        "(a sweep, or with method a sensitivity file), or vendor (a CPU file).",
        file=str(file),
    )


def _scenario(file: Path) -> str:
    from vmsim.engine.inputs import files_of
    from vmsim.engine.streams import streams_of
    from vmsim.scenario import Scenario

    scenario = Scenario.load(file)
    files_of(scenario)
    streams_of(scenario)
    modes = ", ".join(dict.fromkeys(vm.mode for vm in scenario.vms))
    return f"{_counted(len(scenario.vms), 'VM')} on {scenario.cpu.name}, {modes}"


def _sweep(file: Path) -> str:
    from itertools import islice

    from vmsim.sweeps.sweep import Sweep

    points = sum(1 for _ in islice(Sweep.load(file).points(), _MOST))
    return f"{_counted(points, 'point')}{' and more, which were not looked at' if points == _MOST else ''}"


def _sensitivity(file: Path) -> str:
    from vmsim.sweeps.sensitivity import Sensitivity

    asked = Sensitivity.load(file)
    return f"{_counted(len(asked.parameters), 'parameter')}, {asked.method}"


def _cpu(file: Path) -> str:
    from vmsim.scenario import load_cpu

    cpu = load_cpu(str(file))
    return f"{cpu.name}, {cpu.vendor}; {_counted(len(list(cpu.figures())), 'figure')}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


_KINDS: Final[dict[str, tuple[tuple[str, ...], Callable[[Path], str]]]] = {
    "scenario": (("vm", "host"), _scenario),
    "sensitivity file": (("method", "ranges"), _sensitivity),
    "sweep": (("base", "axes"), _sweep),
    "CPU file": (("vendor", "inherit", "frequency", "tlb"), _cpu),
}
"""Kinds of files, each with keys of which it alone has one, and what reads it; the first that fits is taken."""
