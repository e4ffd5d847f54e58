"""The registry: what there is of each kind of part, by name; each is imported when it is first used.

A part is a paging mode, a kind of workload, a daemon of the host, a policy of one, a swap device, or a folder of CPU
files. vmsim's
own stand in one table here, those of other packages in their metadata, as entry points
(``[project.entry-points."vmsim.modes"]`` in a package's pyproject.toml; packaging.python.org, "Entry points
specification"). Both are found in the same way and asked the same questions; docs/extending/ shows how to add one.

A part that cannot be used, of a package that is broken, is told of where it is asked for, with the package's name;
scenarios that do not use it run as before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any, Final, NamedTuple

from vmsim.base.errors import InputError, nearest

__all__ = ["GROUPS", "Plugin", "add_check", "find", "load", "loaded", "names", "origin", "resolve"]

_BUILT_IN: Final[Mapping[str, Mapping[str, str]]] = {
    "modes": {
        "native": "vmsim.monitor.native.mode:NATIVE",
        "ept": "vmsim.monitor.tdp.mode:EPT",
        "npt": "vmsim.monitor.tdp.mode:NPT",
        "shadow": "vmsim.monitor.shadow.mode:SHADOW",
        "agile": "vmsim.monitor.agile.mode:AGILE",
        "paired": "vmsim.monitor.paired.mode:PAIRED",
        "vkernel": "vmsim.monitor.vkernel.mode:VKERNEL",
    },
    "workloads": {
        "trace": "vmsim.scenario.workload:Trace",
        "uniform": "vmsim.scenario.workload:Uniform",
        "zipf": "vmsim.scenario.workload:Zipf",
        "normal": "vmsim.scenario.workload:Normal",
        "sequential": "vmsim.scenario.workload:Sequential",
        "chase": "vmsim.scenario.workload:Chase",
        "gups": "vmsim.scenario.workload:Gups",
        "working-set": "vmsim.scenario.workload:WorkingSet",
        "churn": "vmsim.scenario.programs:Churn",
        "forkwait": "vmsim.scenario.programs:ForkWait",
        "compile": "vmsim.scenario.programs:Compile",
        "disk": "vmsim.scenario.programs:Disk",
        "files": "vmsim.scenario.programs:Files",
        "stand-in": "vmsim.scenario.programs:StandIn",
        "switcher": "vmsim.scenario.programs:Switcher",
    },
    "daemons": {
        "damon": "vmsim.host.daemons.damon.table:DAMON",
        "demotion": "vmsim.host.daemons.demotion.table:DEMOTION",
        "ksm": "vmsim.host.daemons.ksm.table:KSM",
        "numa_balancing": "vmsim.host.daemons.numa_balancing.table:NUMA_BALANCING",
        "overcommit": "vmsim.host.daemons.overcommit.table:OVERCOMMIT",
        "reclaim": "vmsim.host.daemons.reclaim.table:RECLAIM",
        "swap": "vmsim.host.daemons.swap.table:SWAP",
        "thp": "vmsim.host.daemons.thp.table:THP",
    },
    "policies": {
        "random": "vmsim.host.policies.table:RANDOM",
        "clock": "vmsim.host.policies.table:CLOCK",
        "two-list": "vmsim.host.policies.table:TWO_LIST",
        "mglru": "vmsim.host.policies.table:MGLRU",
        "batch": "vmsim.host.policies.table:BATCH",
        "proportional": "vmsim.host.policies.table:PROPORTIONAL",
        "predictive": "vmsim.host.policies.table:PREDICTIVE",
        "largest": "vmsim.host.policies.table:LARGEST",
        "fair": "vmsim.host.policies.table:FAIR",
        "neediest": "vmsim.host.policies.table:NEEDIEST",
        "shares": "vmsim.host.policies.table:SHARES",
        "esx": "vmsim.host.policies.esx_table:ESX",
        "mom": "vmsim.host.policies.table:MOM",
        "prorata": "vmsim.host.policies.table:PRORATA",
        "none": "vmsim.host.policies.table:NONE",
    },
    "swap_devices": {
        "hdd": "vmsim.host.swap.devices.hdd:HDD",
        "sata": "vmsim.host.swap.devices.sata:SATA",
        "nvme": "vmsim.host.swap.devices.nvme:NVME",
        "zram": "vmsim.host.swap.devices.zram:ZRAM",
    },
    "cpus": {"vmsim": "vmsim.scenario.cpus"},
}
GROUPS: Final = {
    "modes": "paging mode",
    "workloads": "kind of workload",
    "daemons": "daemon",
    "policies": "policy",
    "swap_devices": "swap device",
    "cpus": "folder of CPU files",
}
"""What a part of each group is called; the entry points of a group are in ``vmsim.<group>``."""


class Plugin(NamedTuple):
    """One registered part.

    Attributes
    ----------
    target : str
        Where it is: ``package.module:attribute``, or ``package.module``.
    package, version : str
        The distribution that registers it.
    rival : str
        Another distribution that registers the same name, which makes both unusable; else empty.
    """

    group: str
    name: str
    target: str
    package: str = "vmsim"
    version: str = ""
    rival: str = ""

    @property
    def foreign(self) -> bool:
        """Whether it comes from another package than vmsim."""
        return self.package != "vmsim"

    @property
    def label(self) -> str:
        """What errors call it."""
        return f"{GROUPS[self.group]} {self.name!r} of package {self.package} {self.version}".rstrip()

    def refused(self, why: str) -> InputError:
        """Return an error that says why it cannot be used."""
        advice = f"Mend or uninstall {self.package}." if self.foreign else "Install vmsim again."
        return InputError(f"{self.label} ({self.target}) cannot be used: {why}. {advice}")


@cache
def find(group: str) -> Mapping[str, Plugin]:
    """Return the registered parts of a group by name: vmsim's own first, then others in alphabetical order.

    Raises
    ------
    KeyError
        There is no such group.
    """
    from importlib.metadata import entry_points

    found = {name: Plugin(group, name, target) for name, target in _BUILT_IN[group].items()}
    others = sorted(entry_points(group=f"vmsim.{group}"), key=lambda point: (point.name, point.value))
    for point in others:
        package, version = (point.dist.name, point.dist.version) if point.dist else ("of no name", "")
        made = Plugin(group, point.name, point.value, package, version)
        before = found.setdefault(point.name, made)
        if (before.package, before.target) != (made.package, made.target):
            found[point.name] = made._replace(rival=before.package)
    return found


def names(group: str) -> tuple[str, ...]:
    """Return the registered names of a group, vmsim's own first."""
    return tuple(find(group))


def origin(group: str, name: str) -> Plugin | None:
    """Return what registers a name where that is another package than vmsim: its version decides results too."""
    plugin = find(group).get(name)
    return plugin if plugin is not None and plugin.foreign else None


_CHECKS: Final[dict[str, Callable[[Plugin, Any], str | None]]] = {}


def add_check(group: str, check: Callable[[Plugin, Any], str | None]) -> None:
    """Have each part of a group looked at when it is loaded: `check` returns what is wrong with it, or None."""
    _CHECKS[group] = check


def load(group: str, name: str) -> Any:
    """Return a part by its name, imported at the first call.

    Raises
    ------
    InputError
        No such name (with the nearest one), or its package is broken (with the package's name and what is wrong).
    """
    plugin = find(group).get(name)
    if plugin is None:
        raise InputError(f"{name!r} is not a {GROUPS[group]}. {nearest(name, find(group))}")
    return _part(plugin)


@cache
def _part(plugin: Plugin) -> Any:
    if plugin.rival:
        raise plugin.refused(f"package {plugin.rival} registers the same name")
    try:
        part = resolve(plugin.target)
    except Exception as error:  # a package's own code runs here, and may raise anything
        if not plugin.foreign:
            raise
        raise plugin.refused(f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}") from error
    wrong = _CHECKS[plugin.group](plugin, part) if plugin.group in _CHECKS else None
    if wrong is not None:
        raise plugin.refused(wrong)
    return part


def loaded(group: str) -> dict[str, Any]:
    """Return every part of a group that can be used, by name."""
    parts = {}
    for name in names(group):
        try:
            parts[name] = load(group, name)
        except InputError:  # told where it is asked for
            continue
    return parts


def resolve(target: str) -> Any:
    """Return what a dotted name stands for: ``package.module:attribute``, or ``package.module``."""
    module, _, attribute = target.partition(":")
    found: Any = import_module(module)
    for part in attribute.split(".") if attribute else ():
        found = getattr(found, part)
    return found
