"""``vmsim cpus``: the CPU presets, and where each of their figures comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from vmsim.base.units import PAGE_SIZES, format_frequency, format_size
from vmsim.cli.completing import cpus as cpus_completion
from vmsim.cli.screen import Side, print_facts, print_json, print_table, say

if TYPE_CHECKING:
    from vmsim.scenario.cpu import Array, Cpu, Figure, TlbLevel
    from vmsim.scenario.detect import Detected

_LINE: Final = 64  # bytes: a cache of one line stands for none
_RIGHT: Final = "right"
_VENDORS: Final = {"intel": "Intel", "amd": "AMD"}


@click.command()
@click.argument("name", required=False, shell_complete=cpus_completion)
@click.option("--detect", is_flag=True, help="Say which preset is nearest to this machine, and what is unknown of it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str | None, detect: bool, as_json: bool) -> None:
    """List the CPU presets, or every figure of one with its source.

    NAME is a preset, or the path of a CPU file.
    """
    from vmsim.base.errors import InputError
    from vmsim.scenario import cpu_names, load_cpu

    if detect:
        if name is not None:
            raise InputError(f"--detect looks at this machine: leave {name} out.")
        from vmsim.scenario.detect import detect as look

        found = look()
        if as_json:
            print_json(found.to_json())
        else:
            print_facts(*_detected(found))
        return
    if name is not None:
        cpu = load_cpu(name)
        if as_json:
            print_json(_described(cpu) | {"figures": [_plain(figure) for figure in cpu.figures()]})
        else:
            _print_figures(cpu)
        return
    cpus = [load_cpu(each) for each in cpu_names()]
    if as_json:
        print_json({"cpus": [cpu.canonical() | _described(cpu) for cpu in cpus]})
    else:
        for vendor, who in _VENDORS.items():
            _print_presets([cpu for cpu in cpus if cpu.vendor == vendor], who)
        say("TLB, PWC: entries/ways (FA: fully associative). vmsim cpus NAME shows every figure with its source.")


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


def _detected(found: Detected) -> tuple[str, dict[str, str]]:
    """Return a title, and what is known of the machine by label."""
    machine = found.identity
    there = [text for name, text in _FEATURES.items() if getattr(found.has, name)]
    absent = [text for name, text in _FEATURES.items() if not getattr(found.has, name)]
    virtual = ", virtual" if machine.hypervisor else ""
    place = f"{machine.vendor}, family {machine.family:X}h, model {machine.model:X}h, stepping {machine.stepping}"
    facts = {
        "nearest preset": f"{found.preset or 'none'}: {found.why}",
        "shows": ", ".join(there) or "none of what is asked for",
        "does not show": ", ".join(absent) or "nothing of what is asked for",
        'mode = "auto"': f"{found.choice.mode}: {found.choice.reason}",
        "not known": "\n".join(found.unknown),
    }
    return f"{machine.name} ({place}); {machine.cpus} CPUs{virtual}", facts


def _described(cpu: Cpu) -> dict[str, Any]:
    return {"name": cpu.name, "vendor": cpu.vendor, "description": cpu.description, "modes": list(cpu.modes)}


def _plain(figure: Figure) -> dict[str, Any]:
    value = list(figure.value) if isinstance(figure.value, tuple) else figure.value
    return {**figure._asdict(), "value": value}


def _print_presets(cpus: list[Cpu], title: str) -> None:
    """Print a table with a column for each preset, and what they are under it."""
    rows = [_summary(cpu) for cpu in cpus]
    columns: dict[str, Side] = {title: "left", **dict.fromkeys((cpu.name for cpu in cpus), _RIGHT)}
    print_table("", columns, [[label, *(row[label] for row in rows)] for label in rows[0]])
    print_facts("", {cpu.name: cpu.description for cpu in cpus})


def _summary(cpu: Cpu) -> dict[str, str]:
    rows = {"hardware modes": "\n".join(cpu.modes), "TSC": format_frequency(cpu.frequency)}
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
    rows |= {
        name: "–" if cache.size <= _LINE else f"{_size(cache.size)}/{cache.ways}" for name, cache in caches.items()
    }
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


def _print_figures(cpu: Cpu) -> None:
    print_table(
        cpu.description,
        {"figure": "left", "value": "right", "confidence": "left", "source": "text"},
        [[figure.key, _value(figure.key, figure.value), figure.confidence, figure.source] for figure in cpu.figures()],
    )


def _value(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key.startswith("cpuid.") and isinstance(value, int):
        return f"{value:#x}"  # a register, of which bits are read
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
