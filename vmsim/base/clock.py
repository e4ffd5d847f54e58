"""Simulated time: a SimPy environment that counts cycles."""

from __future__ import annotations

import simpy

__all__ = ["Clock"]


class Clock(simpy.Environment):
    """Time in integer cycles of the host's TSC, so that ties are exact."""

    @property
    def cycle(self) -> int:
        """The current cycle."""
        return self._now  # type: ignore[return-value]  # SimPy also allows fractions; nothing here makes one
