"""``vmsim calibrate``: the machine that this runs on, measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vmsim.base.files import printable, read_text, refuse_figure, refuse_overwrite, replacing

if TYPE_CHECKING:
    from vmsim.calibration.api import Calibration

_PATH = click.Path(path_type=Path)


@click.command()
@click.option("--quick", is_flag=True, help="Shorter chases and fewer repetitions: less sure.")
@click.option("--out", type=_PATH, metavar="FILE", help="Write a CPU file (.toml) with what was measured.")
@click.option("--save", type=_PATH, metavar="FILE", help="Write all samples as JSON.")
@click.option("--from", "source", type=_PATH, metavar="FILE", help="Take samples that --save wrote; measure nothing.")
@click.option("--figure", type=_PATH, metavar="FILE", help="Draw measured and simulated curves: .png, .pdf, .svg.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    quick: bool,
    out: Path | None,
    save: Path | None,
    source: Path | None,
    figure: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Measure this machine, propose a CPU file, and say which paging mode explains it.

    Loads of chases through memory mapped by 4 KiB and by 2 MiB, and the kernel's work on pages, are timed on one CPU.
    Other programs that run meanwhile make it less sure. Linux with transparent huge pages is needed.
    """
    from vmsim.base.progress import status_line
    from vmsim.calibration.api import calibrate
    from vmsim.calibration.measured import Measured

    for path in (out, save):
        if path:
            refuse_overwrite(path, force=force)
    if figure:
        refuse_figure(figure, force=force)
    given = Measured.from_json(read_text(source, "file of measurements"), printable(source)) if source else None
    with status_line() as say:
        made = calibrate(given, quick=quick, say=say)
    texts = {save: json.dumps(made.measured.to_json()) + "\n" if save else ""}
    if out:
        texts[out] = made.to_toml(out.stem)
    for path, text in texts.items():
        if path:
            with replacing(path, force=force) as temporary:
                temporary.write_text(text, encoding="utf-8")
    if figure:
        _draw(made, figure, force=force)
    if as_json:
        from vmsim.cli.screen import print_json

        print_json(made.to_json())
        return
    _print(made)
    for path in (out, save, figure):
        if path:
            click.echo(f"Written: {printable(path)}")


def _draw(made: Calibration, path: Path, *, force: bool) -> None:
    import pandas as pd

    from vmsim.analysis.calibration import translation
    from vmsim.analysis.style import COLUMN, figure, save

    with figure(width=COLUMN, height=2.6) as (fig, ax):
        translation(pd.DataFrame(made.curves()), ax)
        save(fig, path, force=force)


def _print(made: Calibration) -> None:
    from vmsim.calibration.measured import robust
    from vmsim.calibration.operations import ABOUT
    from vmsim.cli.screen import Side, print_facts, print_table, say

    measured = made.measured
    virtual = ", a virtual machine" if measured.virtual else ""
    say(f"{measured.cpu}, Linux {measured.kernel}{virtual}; nearest preset: {measured.preset}\n")
    if measured.clock:
        faster = f"the core's clock runs {measured.clock / measured.hertz:.2f} times as fast"
        say(f"A cycle is one of the TSC, {measured.hertz / 1e9:.2f} GHz; {faster}.\n")
    if measured.disturbed:
        say(
            f"Disturbed: {measured.disturbed}. Medians leave out what is short; what others took from shared caches, "
            "memory and the clock is in the figures. Measure again on a quiet machine.\n"
        )
    columns: dict[str, Side] = {"figure": "left", "measured": "right", "±": "right", "preset": "right", "by": "text"}
    rows = [[each.key, each.value, f"{each.deviation:.1f}", each.preset, each.source] for each in made.found]
    print_table("Figures of the CPU, in cycles or entries", columns, rows)
    taken = {name: robust(values) for name, values in measured.operations.items() if values}
    columns = {"operation": "left", "ns": "right", "±": "right", "what": "text"}
    rows = [[name, f"{middle:.1f}", f"{off:.1f}", ABOUT.get(name, "")] for name, (middle, off) in taken.items()]
    print_table("Operations, ns", columns, rows)
    if measured.skipped:
        print_facts("Not measured", measured.skipped)
    curve = {count: f"{cycles:.1f} ± {deviation:.1f}" for count, (cycles, deviation) in measured.difference().items()}
    modes: dict[str, Side] = {"pages": "right", "measured": "right", **dict.fromkeys(made.models, "right")}
    shown = next(iter(made.models.values()))[0]
    rows = [[count, curve[count], *(f"{model[0][count]:.1f}" for model in made.models.values())] for count in shown]
    print_table("Cycles that translation by 4 KiB adds to a load", modes, rows)
    faults = {mode: f"{cycles:,.0f} cycles" for mode, (_, cycles) in made.models.items()}
    if "page_fault" in taken:
        faults = {"measured": f"{measured.cycles(taken['page_fault'][0]):,.0f} cycles"} | faults
    print_facts("A page fault", faults)
    say(f"{made.explained}")
