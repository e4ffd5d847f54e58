"""What a vCPU's time is spent on: every cause of cycles by name, with what people call it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

__all__ = ["CAUSES", "MANAGEMENT", "TRANSLATION", "Cause", "cause_of", "in_order"]


class Cause(NamedTuple):
    """Something that takes time.

    Attributes
    ----------
    label : str
        What it is called where people read it.
    colour : str
        The same in every figure.
    part : str
        Of address translation in hardware, of memory management in software (waits for memory, for locks on it and for
        other processors to forget it included), or of neither.
    """

    label: str
    colour: str
    part: Literal["translation", "management", ""] = ""


# Okabe and Ito, "Color Universal Design" (2008): eight colours that colour-blind readers can tell apart, darker ones
# for what few runs have, and greys for what is neither translation nor memory management.
CAUSES: Final[Mapping[str, Cause]] = MappingProxyType(
    {
        "compute": Cause("compute", "#c8c8c8"),
        "data": Cause("data", "#909090"),
        "l2_tlb": Cause("L2 TLB look-up", "#F0E442", "translation"),
        "walk_guest": Cause("guest-dimension walk", "#56B4E9", "translation"),
        "walk_nested": Cause("nested-dimension walk", "#0072B2", "translation"),
        "overlap": Cause("at the same time", "#ffffff"),  # negative: what of those above went on at once
        "guest_fault": Cause("guest fault", "#E69F00", "management"),
        "exit": Cause("VM exit", "#D55E00", "management"),
        "pool_wait": Cause("wait for pool", "#CC79A7", "management"),
        "host_wait": Cause("wait for host", "#009E73", "management"),
        "swap_wait": Cause("wait for swap", "#7B3294", "management"),
        "limit_wait": Cause("wait for limit", "#5E3C99", "management"),
        "reclaim": Cause("guest reclaim", "#1B9E77", "management"),
        "guest_swap_wait": Cause("wait for guest swap", "#E7298A", "management"),
        "balloon": Cause("balloon", "#8C510A", "management"),
        "hotplug": Cause("memory hotplug", "#BF812D", "management"),
        "khugepaged": Cause("khugepaged", "#80B1D3", "management"),
        "compaction": Cause("compaction", "#FB8072", "management"),
        "files": Cause("files", "#A6761D"),
        "shootdown": Cause("TLB shootdown", "#B2182B", "management"),
        "lock_wait": Cause("wait for lock", "#F4A6B8", "management"),
        "switch": Cause("vCPU switch", "#606060"),
        "io_wait": Cause("wait for I/O", "#b0b0b0"),
        "barrier_wait": Cause("wait for threads", "#d4d4d4"),
        "pcpu_wait": Cause("wait for pCPU", "#e4e4e4"),
    }
)
"""Every cause, in the order of all tables and figures; the cycles of a VM sum to its total.

Those of `overlap` are negative: the time that the causes before it took at once, and that they count each.
"""

TRANSLATION: Final = tuple(name for name, cause in CAUSES.items() if cause.part == "translation")
"""Causes that are the hardware's address translation."""
MANAGEMENT: Final = tuple(name for name, cause in CAUSES.items() if cause.part == "management")
"""Causes that are memory management in software."""


def cause_of(name: str) -> Cause:
    """Return a cause; one that another package brings is called by its name."""
    return CAUSES.get(name) or Cause(name, "#404040")


def in_order(names: Iterable[str]) -> list[str]:
    """Return causes in the order of `CAUSES`, those of other packages last."""
    given = {*names}
    return [*(name for name in CAUSES if name in given), *sorted(given - {*CAUSES})]
