"""What page tables of two levels (32-bit paging) and three (PAE) cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from vmsim.base.errors import listed
from vmsim.base.units import PageSize, format_size
from vmsim.scenario.modes import PagingMode, paging_modes
from vmsim.scenario.problems import Problem

__all__ = ["PROGRAMS_END", "level_problems", "name_of", "page_sizes"]

PROGRAMS_END: Final = 3 << 30  # of a 32-bit guest (Linux's default split, VMSPLIT_3G)
_REACH: Final = 4 << 30
_NAMES: Final = {2: "32-bit paging", 3: "PAE"}
# KVM offers long mode to guests on 64-bit hosts only (arch/x86/kvm/cpuid.c).
_HOSTS: Final = {
    2: "a host that is itself in 32-bit paging is modelled for guests in it alone",
    3: "a host that is itself in PAE mode runs no 64-bit guests",
}


def page_sizes(levels: int) -> tuple[PageSize, ...]:
    """Return the sizes of the pages that tables of so many levels map (SDM vol. 3A table 5-1)."""
    return {2: ("4K", "4M"), 3: ("4K", "2M")}.get(levels, ("4K", "2M", "1G"))  # type: ignore[return-value]


def name_of(levels: int) -> str:
    """Return what tables of so many levels are called."""
    return _NAMES.get(levels, f"{levels}-level paging")


def level_problems(
    mode: PagingMode,
    guest_levels: int,
    host_levels: int,
    guest_page: PageSize,
    host_page: PageSize,
    *,
    bare: bool,
    memory: int = 0,
    host_memory: int = 0,
) -> Iterator[Problem]:
    """Yield what tables of so many levels cannot do in a paging mode; `bare` has no nested ones.

    `memory` and `host_memory` are those of the VM and of the host, 0 where they do not matter.
    """
    what = name_of(guest_levels)
    if guest_levels not in mode.guest_levels:
        having = listed(name for name, each in paging_modes().items() if guest_levels in each.guest_levels)
        text = f"mode {mode.name} has no guests of {guest_levels} levels ({what}), only {having} have"
        if why := mode.unrun.get(guest_levels):
            text = f"mode {mode.name} has no guests of {guest_levels} levels ({what}): {why}. Modes {having} have"
        yield Problem(("guest_levels",), f"{text}; expected {listed(map(str, mode.guest_levels), 'or')}")
    yield from _page_problem("guest", guest_levels, guest_page)
    if guest_levels == 2:
        narrow = bare or mode.own_format
        for key, size in {("memory",): memory, ("host", "memory"): host_memory if narrow else 0}.items():
            yield from _reach_problem(key, "guest_levels", size)
    if bare:
        return
    if not mode.host_levels:
        yield from _page_problem("host", 4, host_page)
        if host_levels != 4:
            text = f"mode {mode.name} has no nested tables: nothing is between a guest's frames and the host's"
            yield Problem(("host_levels",), f"{text}; leave host_levels out")
        return
    yield from _page_problem("host", host_levels, host_page)
    if host_levels > 3:
        return
    if host_levels not in mode.host_levels:
        having = listed(name for name, each in paging_modes().items() if host_levels in each.host_levels)
        text = f"mode {mode.name} has no nested tables of {host_levels} levels ({name_of(host_levels)}), "
        text += f"only {having} {'have' if ' and ' in having else 'has'}"
        yield Problem(("host_levels",), f"{text}; expected 4 or 5")
    elif guest_levels > host_levels:
        text = f"nested tables of {host_levels} levels ({name_of(host_levels)}) with guest_levels = {guest_levels}"
        yield Problem(("host_levels",), f"{text}: {_HOSTS[host_levels]}; expected {host_levels} of both")
    if guest_levels > 2:  # or it has been told
        yield from _reach_problem(("memory",), "host_levels", memory, host_levels)
    if host_levels == 2:
        yield from _reach_problem(("host", "memory"), "host_levels", host_memory)


def _page_problem(which: str, levels: int, page: PageSize) -> Iterator[Problem]:
    sizes = page_sizes(levels)
    if page not in sizes:
        choices = listed(sizes, "or")
        text = f"{name_of(levels)} ({which}_levels = {levels}) has no pages of {page}; expected {choices}"
        yield Problem((f"{which}_page",), text)


def _reach_problem(key: tuple[str, ...], levels: str, size: int, count: int = 2) -> Iterator[Problem]:
    if size > _REACH:
        text = f"tables of {name_of(count)} ({levels} = {count}) reach 4GiB, and this is {format_size(size)}"
        yield Problem(key, f"{text}; expected at most 4GiB")
