"""The table ``[vm.paired]``: how the two page tables of an Akaros process lie in memory."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vmsim.scenario.types import Flag, Model

__all__ = ["Layout", "Paired", "bare"]

Layout = Literal["contiguous", "pointer", "separate"]


class Paired(Model):
    """``[vm.paired]``."""

    layout: Layout = Field(
        default="contiguous",
        description="How a table's EPT half is found from its KPT half: it is the next page; a pointer for each page "
        "frame of the host says where it is; or the EPT is a tree of its own, made when the process becomes a VM.",
    )
    guest: Flag = Field(
        default=True, description="A guest runs in the process. Without, it is a process that is no VM, on its KPT."
    )


def bare(mode: str, paired: Paired) -> bool:
    """Return whether no guest runs in a VM: it is a program on the host itself."""
    return mode == "native" or (mode == "paired" and not paired.guest)
