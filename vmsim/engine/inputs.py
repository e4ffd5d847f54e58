"""The files that a scenario reads."""

from __future__ import annotations

from pathlib import Path

from vmsim.base.files import open_regular, sha256
from vmsim.scenario import Scenario, cpu_names
from vmsim.scenario.daemons import host_daemons
from vmsim.workloads.trace import find

__all__ = ["files_of", "input_digests"]


def files_of(scenario: Scenario) -> dict[str, Path]:
    """Return where every file is that a scenario reads besides its CPU's, by the path that it gives.

    Raises
    ------
    InputError
        One does not exist, or is no ordinary file.
    """
    groups = [group for group in scenario.vm if group.count]
    traces = {path for group in groups for path in group.workload.files().values()}
    others = {
        path for name in scenario.daemons for path in host_daemons()[name].files(scenario.host.part(name)).values()
    }
    found = {path: find(path, scenario.folder) for path in sorted(traces)}
    for path in sorted(others - traces):
        found[path] = scenario.folder / path
        open_regular(found[path]).close()
    return dict(sorted(found.items()))


def input_digests(scenario: Scenario) -> dict[str, str]:
    """Return the SHA-256 of every file that a scenario reads, by the path it gives.

    Raises
    ------
    InputError
        A trace does not exist.
    """
    digests = {path: sha256(place) for path, place in files_of(scenario).items()}
    if scenario.host.cpu not in cpu_names():
        digests[scenario.host.cpu] = sha256(scenario.folder / scenario.host.cpu)
    return digests
