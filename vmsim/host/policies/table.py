"""The policies of vmsim's own, as a scenario knows them."""

from __future__ import annotations

from typing import Final

from vmsim.scenario.daemons import Policy

__all__ = ["CLOCK", "RANDOM"]


class _Random(Policy):
    name = "random"
    build = "vmsim.host.policies.random:build"


class _Clock(Policy):
    name = "clock"
    build = "vmsim.host.policies.clock:build"


RANDOM: Final = _Random()
CLOCK: Final = _Clock()
