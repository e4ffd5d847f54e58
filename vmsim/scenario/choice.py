"""Which paging modes a CPU has, and which one ``mode = "auto"`` stands for on it."""

from __future__ import annotations

from dataclasses import dataclass

from vmsim.scenario.cpu import Cpu
from vmsim.scenario.cpuid import Features, features
from vmsim.scenario.modes import paging_modes
from vmsim.scenario.names import Mode

__all__ = ["Choice", "choose", "choose_from"]


@dataclass(frozen=True, slots=True)
class Choice:
    """The paging mode that ``mode = "auto"`` stands for, and why."""

    mode: Mode
    reason: str


def choose(cpu: Cpu) -> Choice:
    """Return the best paging mode for VMs on `cpu`: ept or npt where it has them, else one in software.

    That is shadow where the CPU runs guests at all, and vkernel, which asks nothing of it, where it does not. What
    decides are the CPUID registers of its file; a file without any is believed in what it lists as `modes`.
    """
    return _chosen(features(cpu.cpuid) if cpu.cpuid else None, cpu.name, cpu.modes)


def choose_from(has: Features, name: str) -> Choice:
    """Return the best paging mode for VMs on a CPU called `name` that has these features."""
    return _chosen(has, name, ())


def _chosen(has: Features | None, name: str, listed: tuple[str, ...]) -> Choice:
    """Return the first registered mode that suits; vkernel suits every CPU."""
    suited = ((mode.name, mode.suits(has, name, listed)) for mode in paging_modes().values() if mode.automatic)
    return next(Choice(mode, reason) for mode, reason in suited if reason is not None)
