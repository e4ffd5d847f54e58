"""`vmsim.advise`: ask a question of a scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vmsim.advice.asked import Asked
from vmsim.advice.questions import question_named
from vmsim.advice.result import Advice
from vmsim.api import scenario_of
from vmsim.base.errors import InputError
from vmsim.scenario import Scenario

if TYPE_CHECKING:
    from vmsim.sweeps.driver import Listener

__all__ = ["advise", "folder_for"]

_MOST_SEEDS: Final = 1000


def advise(
    question: str,
    scenario: Scenario | Mapping[str, Any] | str | Path,
    *,
    limit: str | float | None = None,
    seeds: int = 5,
    out: str | Path | None = None,
    jobs: int | None = None,
    progress: bool | Listener | None = None,
    modes: Sequence[str] | None = None,
    link: str | None = None,
    **settings: Any,
) -> Advice:
    """Answer a question about a scenario by simulation.

    Every point is simulated with several seeds, the same ones at all points, and intervals are Student's over the
    seeds, at 95 %.

    Parameters
    ----------
    question : {"mode", "pool", "overcommit", "balloon", "reporting", "migration"}
        Which paging mode takes the fewest cycles; the smallest page pool; how many of the VMs fit; how far their
        balloons may grow; which free blocks they should report; whether pre-copy migration converges.
        `docs/guides/advise.md` says how each is answered.
    scenario : Scenario, mapping or path
        As of `vmsim.run`.
    limit : float or str, optional
        What may be lost, as a multiple (1.5); of a migration, the downtime (``"300ms"``).
    seeds : int, optional
        Simulations of each point: 2 at least.
    out : path, optional
        The folder of the sweep, by default beside the scenario's file (``scenario.mode.advice``), else in the current
        one. Points that are there are not run again, so that the same call goes on where it was interrupted.
    jobs : int, optional
        Processes; all cores if left out, and 1 is this process.
    progress : bool or callable, optional
        As of `vmsim.sweep`.
    modes : sequence of str, optional
        Of the question ``mode``: which modes to rank.
    link : str, optional
        Of the question ``migration``: what the link carries, by default ``"128MiB/s"``, QEMU's max-bandwidth.
    **settings
        Other values at dotted keys, as of `vmsim.run`.

    Returns
    -------
    Advice
        Its ``answer``, ``table``, and the folder, ``sweep``.

    Raises
    ------
    InputError
        No such question, the scenario cannot be used, or says nothing about the question; a point failed.
    KeyboardInterrupt
        Ctrl-C. What was finished is in the folder.

    Examples
    --------
    >>> import tempfile
    >>> vm = {"memory": "8MiB", "workload": {"kind": "uniform", "footprint": "1MiB", "accesses": 1000}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = advise("mode", {"vm": [vm]}, modes=["ept", "shadow"], seeds=2, out=f"{folder}/a", jobs=1)
    >>> found.facts["mode"] in ("ept", "shadow")
    True
    """
    from vmsim.sweeps.api import listening

    about = question_named(question)
    if isinstance(seeds, bool) or not isinstance(seeds, int) or not 2 <= seeds <= _MOST_SEEDS:
        raise InputError(f"seeds: found {seeds!r}, expected a number from 2 to {_MOST_SEEDS}: one gives no interval.")
    if limit is not None and not about.limit:
        raise InputError(f"limit: the question {question} has none; leave it out.")
    options = {name: value for name, value in (("modes", modes), ("link", link)) if value is not None}
    for name in options:
        if name not in about.options:
            raise InputError(f"{name}: the question {question} does not ask for it; leave it out.")
    folder = Path(out) if out is not None else folder_for(question, scenario)
    made = scenario_of(scenario, **settings)
    if not made.vms:
        raise InputError("vm: there is no VM to ask about.")
    with listening(progress) as listener:
        asked = Asked(made, folder, about.limit if limit is None else str(limit), seeds, options, jobs, listener)
        answered: Advice = import_module(f"vmsim.advice.{question}").answer(asked)
    return answered


def folder_for(question: str, scenario: object) -> Path:
    """Return where the sweep of a question is kept if nothing else is said."""
    if isinstance(scenario, str | Path):
        return Path(scenario).with_suffix(f".{question}.advice")
    return Path(f"{question}.advice")
