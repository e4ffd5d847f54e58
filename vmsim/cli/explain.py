"""``vmsim explain``: every memory reference of one page walk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from vmsim.base.errors import InputError
from vmsim.cli.choice import Choice
from vmsim.cli.completing import cpus as cpus_completion

if TYPE_CHECKING:
    from vmsim.base.units import PageSize
    from vmsim.observe.anatomy import Walk, WalkMode

_LEVELS = click.IntRange(2, 5)
_PAGE = Choice(["4K", "2M", "4M", "1G"])
_CPUS: Final = {"native": "skylake-x", "ept": "skylake-x", "npt": "zen4", "agile": "skylake-x"}


@click.command()
@click.option("--mode", type=Choice([*_CPUS]), default="ept", show_default=True, help="How the host maps its guest.")
@click.option(
    "--guest-levels", type=_LEVELS, default=4, show_default=True, help="Levels of its tables; 3: PAE, 2: 32-bit."
)
@click.option("--host-levels", type=_LEVELS, help="Levels of the nested tables; 3 and 2: npt only.  [default: 4]")
@click.option("--guest-page", type=_PAGE, default="4K", show_default=True, help="Page that maps the address.")
@click.option("--host-page", type=_PAGE, help="Page that maps guest memory.  [default: 4K]")
@click.option(
    "--switch",
    type=int,
    help="Agile mode: how many of the guest's levels are nested, 0 (all shadow) to 5 (as ept).  [default: 1]",
)
@click.option(
    "--cpu",
    "name",
    metavar="CPU",
    shell_complete=cpus_completion,
    help="A preset or CPU file.  [default: skylake-x; zen4 for npt]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    mode: WalkMode,
    guest_levels: int,
    host_levels: int | None,
    guest_page: PageSize,
    host_page: PageSize | None,
    switch: int | None,
    name: str | None,
    as_json: bool,
) -> None:
    """Show every memory reference of one page walk, cold and warm.

    The simulator's own walker walks real tables twice: first with empty caches, then with only the address's TLB
    entry gone. gL4 is the guest's level-4 table, nL4 the nested (EPT or NPT) one, sL4 a shadow of the guest's.
    """
    from vmsim.scenario import load_cpu

    if mode == "native" and (host_levels or host_page):
        raise InputError("--host-levels and --host-page: native mode has no nested tables; expected --mode ept or npt.")
    if mode != "agile" and switch is not None:
        raise InputError(f"--switch: {mode} walks do not switch; expected --mode agile.")
    switch = 1 if switch is None else switch
    cpu = load_cpu(name or _CPUS[mode])
    from vmsim.observe.anatomy import explain, references_of

    cold, warm = explain(
        cpu,
        mode,
        guest_levels=guest_levels,
        host_levels=host_levels or 4,
        guest_page=guest_page,
        host_page=host_page or "4K",
        switch=switch,
    )
    levels = {guest_levels, host_levels or guest_levels}
    has = mode in cpu.modes and levels <= {2, 3, *cpu.levels}  # all have legacy mode; none has agile walks
    about = {
        "cpu": cpu.name,
        "what_if": not has,
        "mode": mode,
        "guest_levels": guest_levels,
        "guest_page": guest_page,
    }
    if mode != "native":
        about |= {"host_levels": host_levels or 4, "host_page": host_page or "4K"}
    if mode == "agile":
        about |= {"switch": switch}
    full = references_of(mode, guest_levels, host_levels or 4, guest_page, host_page or "4K", switch)
    about |= {"without_walk_caches": full, "note": _note(cold.count, full)}
    if as_json:
        from vmsim.cli.screen import print_json

        nested = mode != "native"
        first = _json(cold, nested=nested)
        print_json({**about, **first, "cold": first, "warm": _json(warm, nested=nested)})
    else:
        _print(about, cold, warm)


def _note(count: int, full: int) -> str | None:
    """Say why the cold walk makes fewer references than are published for its shape; None where it does not."""
    if count == full:
        return None
    return (
        f"Without walk caches this walk makes {full} references, the number that is published ((g + 1)(h + 1) - 1). "
        f"Here it makes {count}: the guest's 4 GiB lie below one entry of the nested root table, which the page walk "
        "caches hold after the first of the nested walks, cold as they were."
    )


def _json(walk: Walk, *, nested: bool) -> dict[str, Any]:
    references = [
        {
            "position": reference.position,
            "guest_level": reference.guest_level,
            "nested_level": reference.nested_level,
            "reads": reference.reads(nested=nested),
            "hpa": reference.hpa,
            "served": reference.served,
            "cycles": reference.cycles,
        }
        for reference in walk.references
    ]
    extras = [{"kind": extra.what, "count": extra.count, "cycles": extra.cycles} for extra in walk.extras]
    totals = {"count": walk.count, "cycles": walk.cycles, "pwc_hits": walk.pwc_hits, "ntlb_hits": walk.ntlb_hits}
    return totals | {"references": references, "extras": extras}


def _of(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _print(about: dict[str, Any], cold: Walk, warm: Walk) -> None:
    from vmsim.cli.screen import Side, print_table, say

    nested = about["mode"] != "native"
    tables = f"{about['guest_levels']} levels, a {about['guest_page']} page"
    if about["guest_levels"] == 3 and about["mode"] != "npt":
        tables += " (PAE: the first level is in registers)"
    if nested:
        tables += f"; nested: {about['host_levels']} levels, {about['host_page']} pages"
    what_if = f" (what-if: {about['cpu']} cannot do this)" if about["what_if"] else ""
    say(f"One {about['mode']} walk on {about['cpu']}{what_if}. {'Guest' if nested else 'Tables'}: {tables}.\n")
    columns: dict[str, Side] = {"#": "right", "reads": "left", "hpa": "right", "served by": "left", "cycles": "right"}
    for name, walk, what in (
        ("Cold", cold, "all caches empty"),
        ("Warm", warm, "only the TLB entry is gone"),
    ):
        rows = [
            (str(each.position), each.reads(nested=nested), f"{each.hpa:#x}", each.served, each.cycles)
            for each in walk.references
        ]
        rows += [("", _of(each.count, each.what), "", "", each.cycles) for each in walk.extras]
        counts = [_of(walk.count, "reference"), f"{walk.cycles:,} cycles", _of(walk.pwc_hits, "PWC hit")]
        if nested:
            counts.append(_of(walk.ntlb_hits, "nested TLB hit"))
        print_table(f"{name} ({what}): {', '.join(counts)}", columns, rows)
    if about["note"]:
        say(about["note"])
