"""What a daemon of the host, and a policy of one, is to a scenario: `HostDaemon`, `Policy`, and those registered.

Each brings one table of ``[host]``, named for it, says what it refuses and what of the table decides results. Its
`build` names what makes it, which is imported when a simulation is: nothing here needs compiled code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Final

from vmsim import plugins
from vmsim.base.errors import InputError
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.problems import Problem
from vmsim.scenario.types import Model

__all__ = ["RESERVED", "HostDaemon", "HostTable", "Policy", "host_daemons", "policies", "policy_problem"]

Groups = Sequence[VmKeys]
RESERVED: Final = frozenset(
    {
        "cpu",
        "cpu_override",
        "cores",
        "memory",
        "nodes",
        "remote_cycles",
        "distances",
        "quantum",
        "horizon",
        "samples",
        "scheduler",
        "data_caches",
        "overlap",
        "fragmentation",
        "table_span",
        "what_if",
        "pool",
        "spares",
        "watermarks",
        "oom",
    }
)
"""The keys that every ``[host]`` has."""


class HostTable(Model):
    """A table of ``[host]`` that a daemon or a policy brings. Every key has a default.

    Attributes
    ----------
    about : str
        What the JSON Schema says of it: a sentence.
    """

    about: ClassVar[str] = ""

    @property
    def given(self) -> bool:
        """Whether a key's value is not the default."""
        return any(getattr(self, key) != field.get_default() for key, field in type(self).model_fields.items())


class _Part:
    """A daemon or a policy, as far as a scenario is concerned.

    Attributes
    ----------
    name : str
        The name of its entry point, and of its table in ``[host]``.
    table : class or None
        Of its keys, a subclass of `HostTable`; None: it has none.
    build : str
        Dotted name of what makes it, ``package.module:function``, called with a `vmsim.host.daemons.parts.DaemonParts`.
    """

    name: ClassVar[str]
    table: ClassVar[type[HostTable] | None] = None
    build: ClassVar[str] = ""

    def problems(self, table: Any, vms: Groups) -> Iterator[Problem]:
        """Yield what its table cannot ask for, by the keys of the table; `vms` are the ``[[vm]]`` tables."""
        yield from ()

    def canonical(self, table: Any) -> dict[str, Any]:
        """Return what of its table decides results, by key."""
        return table.model_dump(exclude_none=True) if table is not None else {}


class HostDaemon(_Part):
    """A process of the host's that works on the memory of VMs. Subclass it to add a daemon."""

    def runs(self, table: Any) -> bool:
        """Return whether a scenario with this table has it run: one that says anything of it does."""
        return bool(table.given)

    def host_problems(self, table: Any, host: Any) -> Iterator[Problem]:
        """Yield what its table cannot ask for beside the other keys of ``[host]``, by the keys of the table."""
        yield from ()

    def files(self, table: Any) -> dict[str, str]:
        """Return the files that it then reads, by key of its table, as paths relative to the scenario's folder."""
        return {}

    def naming(self, key: str, path: str) -> str:
        """Return the value with which a key names a file: the path alone, unless a subclass says otherwise."""
        return path

    def policies(self, table: Any) -> tuple[str, ...]:
        """Return the names of the policies that it then uses."""
        return ()


class Policy(_Part):
    """How a daemon, or the host's side of page pools, chooses. Subclass it to add a policy.

    Attributes
    ----------
    chooses : str
        What: "victims", pages to be taken from VMs one by one; "lists", the order in which a host that is short of
        memory takes them; "refills", what is granted to a pool and when; "spares", which pools give pages when the host
        is short, and who gets frames first; "allotments", how much of the host's memory each VM has.
    about : str
        What it does, in a sentence: `vmsim policies` prints it.
    ignores : tuple of str
        Of policies that choose refills: keys of ``[host.pool]`` that they make no use of.
    weighs : bool
        Of policies that choose spares or allotments: whether they go by the VMs' shares.
    asks, takes : bool
        Of policies that choose allotments: whether guests must tell them of their memory (`vm.balloon.statistics`), and
        whether they take pages to the swap device as well, so that VMs need no balloon.
    """

    chooses: ClassVar[str] = "victims"
    about: ClassVar[str] = ""
    ignores: ClassVar[tuple[str, ...]] = ()
    weighs: ClassVar[bool] = False
    asks: ClassVar[bool] = False
    takes: ClassVar[bool] = False


def _wrong(plugin: plugins.Plugin, part: Any) -> str | None:
    """Return what is wrong with a registered daemon or policy."""
    kind = HostDaemon if plugin.group == "daemons" else Policy
    if not isinstance(part, kind):
        return f"it is {type(part).__name__}, expected an instance of a subclass of {kind.__module__}.{kind.__name__}"
    if getattr(part, "name", None) != plugin.name:
        return f"it calls itself {getattr(part, 'name', None)!r}"
    table = part.table
    if table and plugin.name in RESERVED:
        return f"its table would be {plugin.name!r}, which is a key of [host] already"
    if table is None:
        return None if kind is Policy else "it has no table, so that nobody could ask for it"
    if not (isinstance(table, type) and issubclass(table, HostTable)):
        return "its table is no subclass of vmsim.scenario.daemons.HostTable"
    if any(field.is_required() for field in table.model_fields.values()):
        return "a key of its table has no default"
    return None


plugins.add_check("daemons", _wrong)
plugins.add_check("policies", _wrong)


@cache
def host_daemons() -> Mapping[str, HostDaemon]:
    """Return the registered daemons that can be used, by name: vmsim's own first."""
    return plugins.loaded("daemons")


def policy_problem(name: str, wanted: str) -> str | None:
    """Return why a name is none of a policy that chooses what is `wanted`, None if it is one."""
    try:
        chooses = plugins.load("policies", name).chooses
    except InputError as error:
        return str(error)
    return None if chooses == wanted else f"{name!r} chooses {chooses}; expected one that chooses {wanted}"


@cache
def policies() -> Mapping[str, Policy]:
    """Return the registered policies that can be used, by name: vmsim's own first."""
    return plugins.loaded("policies")
