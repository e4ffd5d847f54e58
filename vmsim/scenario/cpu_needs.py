"""What a table of VMs needs of the CPU that it runs on; what the CPU lacks is a problem, unless what_if says so."""

from __future__ import annotations

from collections.abc import Iterator

from vmsim.scenario.cpu import Cpu
from vmsim.scenario.cpuid import features
from vmsim.scenario.modes import PagingMode
from vmsim.scenario.problems import Problem
from vmsim.scenario.tables import VmGroup

__all__ = ["cpu_problems", "window_problems"]

_ANYWAY = "host.what_if = true allows it anyway"


def cpu_problems(group: VmGroup, mode: PagingMode, cpu: Cpu) -> Iterator[Problem]:
    """Yield what a CPU lacks for the tags, page sizes, dirty log and levels of a table of VMs.

    Paths are relative to the table.
    """
    yield from _tag_problems(group, cpu)
    yield from _page_problems(group, mode, cpu)
    yield from _dirty_log_problems(group, mode, cpu)
    yield from _level_problems(group, cpu)


def window_problems(overlap: bool, cpu: Cpu) -> Iterator[Problem]:
    """Yield what is not known of a CPU on whose host accesses are to overlap."""
    if overlap and not (cpu.window and cpu.fill_buffers):
        text = f"how many instructions and lines {cpu.name} has under way is not known"
        yield Problem(("host", "overlap"), f"{text}; set window and fill_buffers in host.cpu_override, or leave it out")


def _tag_problems(group: VmGroup, cpu: Cpu) -> Iterator[Problem]:
    owner = {"vpid": "intel", "asid": "amd"}.get(group.tags or "", cpu.vendor)
    if owner != cpu.vendor:
        names = {"intel": "Intel", "amd": "AMD"}
        text = f"{group.tags} is a tag of {names[owner]} CPUs, and {cpu.name} is not one; {_ANYWAY}"
        yield Problem(("tags",), text)


def _page_problems(group: VmGroup, mode: PagingMode, cpu: Cpu) -> Iterator[Problem]:
    """Yield the pages of 1 GiB that a CPU does not have; without CPUID registers, its file is believed."""
    has = features(cpu.cpuid) if cpu.cpuid else None
    if has is None:
        return
    by_ept = mode.by_ept(cpu)
    there = {"guest_page": has.pages_1g} | ({} if group.bare else {"host_page": has.ept_1g if by_ept else has.pages_1g})
    for key, had in there.items():
        if getattr(group, key) == "1G" and not had:
            where = " in EPT" if key == "host_page" and by_ept else ""
            text = f"{cpu.name} has no pages of 1G{where}; expected 4K or 2M"
            yield Problem((key,), f"{text}. {_ANYWAY}")


def _dirty_log_problems(group: VmGroup, mode: PagingMode, cpu: Cpu) -> Iterator[Problem]:
    """Yield what a CPU lacks for a method of dirty logging, and what the mode that auto chose does."""
    if group.mode == "auto":
        yield from mode.log_problems(group)
    method, by_ept = group.dirty_log.method, mode.by_ept(cpu)
    path = ("dirty_log", "method")
    if method == "ad-scan" and by_ept and not cpu.ept_ad:
        text = f"ad-scan needs dirty flags, and EPT of {cpu.name} has none; choose write-protect"
        yield Problem(path, f"{text}. {_ANYWAY}")
    if method == "pml" and not (by_ept and cpu.cpuid and features(cpu.cpuid).pml):
        where = f"{cpu.name} has none" if by_ept else "NPT has none"
        text = f"pml needs the page-modification log of EPT, and {where}"
        yield Problem(path, f"{text}; choose write-protect. {_ANYWAY}")


def _level_problems(group: VmGroup, cpu: Cpu) -> Iterator[Problem]:
    nested = {"host_levels": group.host_levels} if not group.bare else {}
    for key, levels in {"guest_levels": group.guest_levels, **nested}.items():
        if levels > 3 and levels not in cpu.levels:  # the others every x86-64 CPU has, in legacy mode
            yield Problem((key,), f"{cpu.name} has no {levels}-level paging; {_ANYWAY}")
