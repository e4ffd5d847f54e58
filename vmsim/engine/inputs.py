"""The files that a scenario reads."""

from __future__ import annotations

from vmsim.base.files import sha256
from vmsim.scenario import Scenario, cpu_names
from vmsim.scenario.daemons import host_daemons
from vmsim.workloads.trace import find

__all__ = ["input_digests"]


def input_digests(scenario: Scenario) -> dict[str, str]:
    """Return the SHA-256 of every file that a scenario reads, by the path it gives.

    Raises
    ------
    InputError
        A trace does not exist.
    """
    paths = {path for vm in scenario.vms for path in vm.workload.files().values()}
    paths |= {path for name in scenario.daemons for path in host_daemons()[name].files(scenario.host.part(name))}
    digests = {path: sha256(find(path, scenario.folder)) for path in sorted(paths)}
    if scenario.host.cpu not in cpu_names():
        digests[scenario.host.cpu] = sha256(scenario.folder / scenario.host.cpu)
    return digests
