"""Run a scenario: simulate(scenario) → Outcome."""

from __future__ import annotations

from collections.abc import Sequence

from vmsim.base.progress import Progress
from vmsim.engine.resident import check_memory
from vmsim.engine.simulation import Simulation
from vmsim.engine.warm import warm_for
from vmsim.record.outcome import Outcome
from vmsim.scenario import Scenario
from vmsim.workloads import Stream

__all__ = ["simulate"]


def simulate(
    scenario: Scenario,
    *,
    check: bool = False,
    progress: Progress | None = None,
    streams: Sequence[Stream] | None = None,
    timeline: bool = False,
) -> Outcome:
    """Run a scenario.

    Parameters
    ----------
    scenario : Scenario
        What to simulate.
    check : bool, optional
        Check the invariants at every moment that can be observed, which is slow.
    progress : callable, optional
        Called now and then with a VM's name, the accesses it has made and all it will make.
    streams : sequence of Stream, optional
        The VMs' workloads in order, in place of those the scenario names.
    timeline : bool, optional
        Note what vCPUs, cores and daemons do when: slower, and the same figures.

    Returns
    -------
    Outcome
        The figures. If memory ran out, `ending` says whose and why, and the figures are those up to then.

    Raises
    ------
    InputError
        A workload cannot be opened.
    vmsim.engine.check.host.BrokenInvariant
        `check` was asked for and something that must always hold does not.
    """
    check_memory(scenario)
    warm_for(scenario)
    if not check:
        return Simulation(scenario, progress=progress, streams=streams, timeline=timeline).run()
    from vmsim.engine.check.host import check_invariants

    observers = [check_invariants]
    return Simulation(scenario, observers=observers, progress=progress, streams=streams, timeline=timeline).run()
