"""What a daemon, or a policy of one, is made of: its `build` is given this and returns it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from vmsim.scenario.cpu import Cost

__all__ = ["DaemonParts"]


class DaemonParts(NamedTuple):
    """What the scenario says of a daemon or a policy.

    Attributes
    ----------
    table : object
        Its table of ``[host]``; None if it has none.
    frequency : int
        Cycles of the clock in a second.
    seed : int
        Of whatever it draws: another for each daemon, and that of its daemon for a policy.
    policy : callable
        Returns a policy by its name.
    costs : Cost
        What the host's work takes.
    folder : Path
        The scenario's, which paths of files are relative to.
    """

    table: Any
    frequency: int
    seed: int
    policy: Callable[[str], Any]
    costs: Cost
    folder: Path = Path()
