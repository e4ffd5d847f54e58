"""Run a scenario, or compare it under several paging modes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from vmsim.base.errors import InputError, listed
from vmsim.base.progress import Wanted, showing
from vmsim.engine.inputs import input_digests
from vmsim.record.comparison import Comparison
from vmsim.record.result import Result
from vmsim.scenario import Mode, Scenario, mode_names
from vmsim.scenario.modes import mode_named, paging_modes

__all__ = ["ScenarioLike", "compare", "modes_of", "run", "scenario_of"]

ScenarioLike: TypeAlias = Scenario | Mapping[str, Any] | str | Path
"""A scenario, its tables, or its file."""


def run(
    scenario: ScenarioLike,
    *,
    seed: int | None = None,
    check: bool = False,
    progress: Wanted = None,
    timeline: bool = False,
    **settings: Any,
) -> Result:
    """Simulate a scenario.

    Parameters
    ----------
    scenario : Scenario, mapping or path
        What to simulate: a scenario, its tables as a dictionary, or a scenario file.
    seed : int, optional
        In the place of the scenario's.
    check : bool, optional
        Check the invariants of the whole host at every boundary: slow, for the doubtful.
    progress : bool or callable, optional
        Show a bar on a terminal or in a notebook; nothing where output goes into a pipe. By default only in notebooks.
        A callable is given a VM's name, the accesses that it has made, and those that it will have made at its end.
    timeline : bool, optional
        Note what vCPUs, cores and daemons do when (`Result.timeline`): slower, and the same figures.
    **settings
        Other values at dotted keys, as of `Scenario.replace`: ``run(scenario, **{"vm.mode": "ept"})``.

    Returns
    -------
    Result
        Tables; `Result.ending` says why the simulation stopped if it did before its VMs were done.

    Raises
    ------
    InputError
        The scenario or something that it reads cannot be used.
    """
    scenario = scenario_of(scenario, seed=seed, **settings)
    return _run(scenario, "simulating", check=check, progress=progress, timeline=timeline)


def _run(scenario: Scenario, title: str, *, check: bool, progress: Wanted, timeline: bool = False) -> Result:
    from vmsim.engine.run import simulate

    inputs = input_digests(scenario)
    with showing(title, progress) as show:
        outcome = simulate(scenario, check=check, progress=show, timeline=timeline)
    return Result(scenario, outcome, inputs=inputs)


def compare(
    scenario: ScenarioLike,
    modes: Sequence[str] | None = None,
    *,
    seed: int | None = None,
    check: bool = False,
    progress: Wanted = None,
    **settings: Any,
) -> Comparison:
    """Simulate a scenario once with all its VMs in each of several paging modes.

    A mode that the host's CPU does not have is simulated as a what-if (``host.what_if = true``), and
    `Comparison.notes` says so. `modes_of` gives all that it has.

    Parameters
    ----------
    scenario : Scenario, mapping or path
        As of `run`.
    modes : sequence of str, optional
        Names of registered modes, in the order to show. By default all that the scenario may have: `modes_of`.
    seed, check, progress, **settings
        As of `run`.

    Raises
    ------
    InputError
        An unknown or repeated mode, or as of `run`.
    """
    scenario = scenario_of(scenario, seed=seed, **settings)
    results: dict[str, Result] = {}
    notes: list[str] = []
    wanted = _checked(modes_of(scenario) if modes is None else modes)
    for number, mode in enumerate(wanted, 1):
        variant = scenario
        if mode not in _allowed(scenario):
            variant = scenario.replace(**{"host.what_if": True})
            notes.append(
                f"{mode} on {scenario.cpu.name}: what-if ({scenario.cpu.name} has {listed(scenario.cpu.modes)})"
            )
        title = f"{mode} ({number} of {len(wanted)})"
        results[mode] = _run(variant.with_mode(mode), title, check=check, progress=progress)
    return Comparison(results, notes)


def modes_of(scenario: Scenario) -> tuple[Mode, ...]:
    """Return the paging modes that a scenario may have: those of its CPU, or with ``host.what_if`` all.

    Those that cannot run its VMs' depth of page tables are left out.
    The modes in software are for every CPU, but that paired tables and agile paging need EPT or NPT.
    """
    modes = mode_names() if scenario.host.what_if else _allowed(scenario)
    known, memory = paging_modes(), scenario.host.memory
    return tuple(
        mode for mode in modes if not any(any(group.level_problems(known[mode], memory)) for group in scenario.vm)
    )


def _allowed(scenario: Scenario) -> tuple[Mode, ...]:
    return tuple(name for name, mode in paging_modes().items() if mode.runs_on(scenario.cpu))


def scenario_of(scenario: ScenarioLike, *, seed: int | None = None, **settings: Any) -> Scenario:
    """Return a scenario, read from a file or made of a dictionary, with other values at some dotted keys.

    Raises
    ------
    InputError
        It cannot be.
    """
    if isinstance(scenario, Mapping):
        scenario = Scenario.from_tables(dict(scenario), folder=Path())
    elif not isinstance(scenario, Scenario):
        scenario = Scenario.load(scenario)
    if seed is not None:
        settings["seed"] = seed
    return scenario.replace(**settings) if settings else scenario


def _checked(modes: Sequence[str]) -> list[Mode]:
    for mode in modes:
        try:
            mode_named(mode)
        except InputError as error:
            raise InputError(f"modes: {error}") from None
    if not modes or len({*modes}) < len(modes):
        raise InputError(f"modes: expected each of {', '.join(mode_names())} at most once and one at least.")
    return [*modes]
