"""``vmsim cpus``: the CPU presets, and where each of their figures comes from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from vmsim.units import PAGE_SIZES, format_frequency, format_size

if TYPE_CHECKING:
    from rich.table import Table

    from vmsim.detect import Detected
    from vmsim.scenario.cpu import Array, Cpu, Figure, TlbLevel

_VENDORS: Final = {"intel": "Intel", "amd": "AMD"}
_COLUMNS: Final = 7  # presets side by side
_STYLES: Final = {"measured": "green", "manual": "green", "paper": "green", "derived": "yellow", "guess": "red"}


@click.command()
@click.argument("name", required=False)
@click.option("--detect", is_flag=True, help="Say which preset is nearest to this machine, and what is unknown of it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str | None, detect: bool, as_json: bool) -> None:
    """List the CPU presets, or every figure of one with its source.

    NAME is a preset, or the path of a CPU file.
    """
    from vmsim.errors import InputError
    from vmsim.scenario import Cpu, cpu_names

    if detect:
        if name is not None:
            raise InputError(f"--detect looks at this machine: leave {name} out.")
        from vmsim.detect import detect as look

        found = look()
        if as_json:
            _echo(found.to_json())
        else:
            click.echo(_detected(found))
        return
    if name is not None:
        cpu = Cpu.load(name)
        if as_json:
            _echo(_described(cpu) | {"figures": [_plain(figure) for figure in cpu.figures()]})
        else:
            _print(_figures(cpu))
        return
    cpus = [Cpu.load(each) for each in cpu_names()]
    if as_json:
        _echo({"cpus": [cpu.canonical() | _described(cpu) for cpu in cpus]})
    else:
        for vendor, who in _VENDORS.items():
            mine = [cpu for cpu in cpus if cpu.vendor == vendor]
            columns = -(-len(mine) // -(-len(mine) // _COLUMNS))  # of as few tables as will do, equally wide
            for first in range(0, len(mine), columns):
                _print(_presets(mine[first : first + columns], who))
        click.echo(
            "TLB, PWC: entries/ways (FA: fully associative). vmsim cpus NAME shows every figure with its source."
        )


_FEATURES: Final = {
    "long_mode": "64-bit mode",
    "la57": "5-level paging",
    "pages_1g": "1 GiB pages",
    "vmx": "VMX",
    "ept": "EPT",
    "ept_5level": "5-level EPT",
    "ept_1g": "1 GiB pages in EPT",
    "ept_ad": "accessed and dirty bits in EPT",
    "vpid": "VPID",
    "pml": "PML",
    "svm": "SVM",
    "npt": "nested paging",
}


def _detected(found: Detected) -> str:
    machine = found.identity
    there = [text for name, text in _FEATURES.items() if getattr(found.has, name)]
    absent = [text for name, text in _FEATURES.items() if not getattr(found.has, name)]
    virtual = ", virtual" if machine.hypervisor else ""
    place = f"{machine.vendor}, family {machine.family:X}h, model {machine.model:X}h, stepping {machine.stepping}"
    return "\n".join(
        [
            f"{machine.name} ({place}); {machine.cpus} CPUs{virtual}",
            f"nearest preset  {found.preset or 'none'}: {found.why}",
            f"shows           {', '.join(there) or 'none of what is asked for'}",
            f"does not show   {', '.join(absent) or 'nothing of what is asked for'}",
            f'mode = "auto"   {found.choice.mode}: {found.choice.reason}',
            "not known",
            *(f"  {line}" for line in found.unknown),
        ]
    )


def _described(cpu: Cpu) -> dict[str, Any]:
    return {"name": cpu.name, "vendor": cpu.vendor, "description": cpu.description, "modes": list(cpu.modes)}


def _plain(figure: Figure) -> dict[str, Any]:
    value = list(figure.value) if isinstance(figure.value, tuple) else figure.value
    return {**figure._asdict(), "value": value}


def _presets(cpus: list[Cpu], title: str) -> Table:
    """Return a table with a column for each preset, and what they are under it."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    about = "\n".join(f"{cpu.name}: {cpu.description}" for cpu in cpus)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=f"{about}\n", caption_justify="left")
    table.add_column(title, no_wrap=True)
    for cpu in cpus:
        table.add_column(cpu.name, overflow="fold")
    rows = [_summary(cpu) for cpu in cpus]
    for label in rows[0]:
        table.add_row(label, *(row[label] for row in rows))
    return table


def _summary(cpu: Cpu) -> dict[str, str]:
    rows = {"modes": "\n".join(cpu.modes), "TSC": format_frequency(cpu.frequency)}
    rows |= {f"L1 TLB {page}": _tlb(cpu.tlb.l1, page) for page in PAGE_SIZES}
    rows |= {f"L2 TLB {page}": _tlb(cpu.tlb.l2, page) for page in PAGE_SIZES}
    rows["PWC style"] = cpu.pwc.style
    if cpu.pwc.style == "prefix":
        rows |= {"PML4E cache": _array(cpu.pwc.pml4e), "PDPTE cache": _array(cpu.pwc.pdpte)}
        rows |= {"PDE cache": _array(cpu.pwc.pde)}
    else:
        rows |= {"PML4E cache": _array(cpu.pwc), "PDPTE cache": "together", "PDE cache": "together"}
    rows["nested TLB"] = _array(cpu.ntlb)
    caches = {"L1": cpu.cache.l1, "L2": cpu.cache.l2, "LLC": cpu.cache.llc}
    rows |= {name: f"{_size(cache.size)}/{cache.ways}" for name, cache in caches.items()}
    rows["walks enter"] = cpu.cache.walker.upper()
    rows["cycles: L2 TLB"] = f"+{cpu.tlb.l2_cycles}"
    rows |= {f"  {name}": str(cache.cycles) for name, cache in caches.items()}
    rows |= {"  DRAM": str(cpu.memory.cycles), "  VM exit": str(cpu.cost.vm_exit)}
    return rows | {"  violation": str(cpu.cost.violation)}


def _tlb(level: TlbLevel, page: Any) -> str:
    array = level[page]
    if array is None:
        return "–"
    return f"with {array.shared}" if array.shared else _array(array)


def _array(array: Array) -> str:
    if not array.entries:
        return "–"
    return f"{array.entries} FA" if array.ways == array.entries else f"{array.entries}/{array.ways}"


def _size(size: int) -> str:
    """Return a size in MiB with quarters where it has them: 13.75MiB reads better than 14080KiB."""
    quarters, rest = divmod(size, 256 << 10)
    if rest or quarters < 4:
        return format_size(size)
    return f"{quarters // 4}{('', '.25', '.5', '.75')[quarters % 4]}MiB"


def _figures(cpu: Cpu) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=cpu.description, title_justify="left")
    table.add_column("figure", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("confidence", no_wrap=True)
    table.add_column("source")
    for figure in cpu.figures():
        sure = Text(figure.confidence, style=_STYLES.get(figure.confidence, ""))
        table.add_row(figure.key, _value(figure.key, figure.value), sure, Text(figure.source))
    return table


def _value(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key.startswith("cpuid.") and isinstance(value, int):
        return f"{value:#x}"  # a register, of which bits are read
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _print(table: Table) -> None:
    """Print a table; as wide as it needs when it goes into a file or a pipe."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=max(80, Console(width=1000).measure(table).maximum))
    console.print(table)


def _echo(data: object) -> None:
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))
