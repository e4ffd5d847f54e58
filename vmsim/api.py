"""Run a scenario, or compare it under several paging modes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vmsim.errors import InputError, nearest
from vmsim.files import sha256
from vmsim.progress import Progress, progress_bar
from vmsim.record.comparison import Comparison
from vmsim.record.result import Result
from vmsim.scenario import HARDWARE_MODES, MODES, Mode, Scenario, Trace, cpu_names
from vmsim.workloads.trace import find

__all__ = ["compare", "input_digests", "modes_of", "run"]


def run(scenario: Scenario | str | Path, *, check: bool = False, progress: bool = False) -> Result:
    """Simulate a scenario.

    Parameters
    ----------
    scenario : Scenario or path
        What to simulate, or a scenario file.
    check : bool, optional
        Check the invariants of the whole host at every boundary: slow, for the doubtful.
    progress : bool, optional
        Show a bar on stderr if that is a terminal.

    Returns
    -------
    Result
        Tables; `Result.ending` says why the simulation stopped if it did before its VMs were done.

    Raises
    ------
    InputError
        The scenario or something that it reads cannot be used.
    """
    from vmsim.simulation import simulate

    scenario = _scenario(scenario)
    inputs = input_digests(scenario)
    with _showing("simulating", progress) as show:
        outcome = simulate(scenario, check=check, progress=show)
    return Result(scenario, outcome, inputs=inputs)


def compare(
    scenario: Scenario | str | Path,
    modes: Sequence[str] = HARDWARE_MODES,
    *,
    check: bool = False,
    progress: bool = False,
) -> Comparison:
    """Simulate a scenario once with all its VMs in each of several paging modes.

    A mode that the host's CPU does not have is simulated as a what-if (``host.what_if = true``), and
    `Comparison.notes` says so. `modes_of` gives all that it has.

    Parameters
    ----------
    scenario : Scenario or path
        What to simulate, or a scenario file.
    modes : sequence of str, optional
        From `MODES`, in the order to show. By default native, ept and npt.
    check, progress : bool, optional
        As of `run`.

    Raises
    ------
    InputError
        An unknown or repeated mode, or as of `run`.
    """
    scenario = _scenario(scenario)
    results: dict[str, Result] = {}
    notes: list[str] = []
    for mode in _checked(modes):
        variant = scenario
        if mode not in _allowed(scenario):
            variant = scenario.replace(**{"host.what_if": True})
            notes.append(f"{mode} on {scenario.cpu.name}: what-if ({scenario.cpu.name} has {_listed(scenario)})")
        results[mode] = run(variant.with_mode(mode), check=check, progress=progress)
    return Comparison(results, notes)


def modes_of(scenario: Scenario) -> tuple[Mode, ...]:
    """Return the paging modes that a scenario may have: those of its CPU, or with ``host.what_if`` all.

    Those that cannot run its VMs' depth of page tables are left out.
    The modes in software are for every CPU, but that paired tables need EPT, and agile paging either of the two.
    """
    modes = MODES if scenario.host.what_if else _allowed(scenario)
    memory = scenario.host.memory
    return tuple(mode for mode in modes if not any(any(group.level_problems(mode, memory)) for group in scenario.vm))


def _allowed(scenario: Scenario) -> tuple[Mode, ...]:
    needs: dict[str, set[str]] = {mode: {mode} for mode in HARDWARE_MODES}
    needs |= {"paired": {"ept"}, "agile": {"ept", "npt"}}
    return tuple(mode for mode in MODES if mode not in needs or needs[mode] & {*scenario.cpu.modes})


def input_digests(scenario: Scenario) -> dict[str, str]:
    """Return the SHA-256 of every file that a scenario reads, by the path it gives.

    Raises
    ------
    InputError
        A trace does not exist.
    """
    traces = {vm.workload.path for vm in scenario.vms if isinstance(vm.workload, Trace)}
    digests = {path: sha256(find(path, scenario.folder)) for path in sorted(traces)}
    if scenario.host.cpu not in cpu_names():
        digests[scenario.host.cpu] = sha256(scenario.folder / scenario.host.cpu)
    return digests


def _scenario(scenario: Scenario | str | Path) -> Scenario:
    return scenario if isinstance(scenario, Scenario) else Scenario.load(scenario)


def _checked(modes: Sequence[str]) -> list[Mode]:
    known: dict[str, Mode] = {mode: mode for mode in MODES}
    for mode in modes:
        if mode not in known:
            raise InputError(f"modes: {mode!r} is not a paging mode. {nearest(mode, known)}")
    if not modes or len({*modes}) < len(modes):
        raise InputError(f"modes: expected each of {', '.join(MODES)} at most once and one at least.")
    return [known[mode] for mode in modes]


def _listed(scenario: Scenario) -> str:
    return " and ".join(scenario.cpu.modes)


@contextmanager
def _showing(title: str, wanted: bool) -> Iterator[Progress | None]:
    if wanted:
        with progress_bar(title) as show:
            yield show
    else:
        yield None
