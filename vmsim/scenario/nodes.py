"""NUMA: nodes of a host with CPUs and memory of their own, and where on them a VM runs and its memory lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple

from pydantic import BeforeValidator, Field, Strict

from vmsim.base.errors import InputError, nearest
from vmsim.base.units import PAGE, format_size
from vmsim.scenario.problems import Problem
from vmsim.scenario.types import MAX_CORES, Cycles, Model, Size

__all__ = [
    "INTERLEAVED",
    "LOCAL",
    "MAX_NODES",
    "MIGRATED",
    "Distances",
    "Node",
    "Numa",
    "Placement",
    "latencies",
    "make_room",
    "node_problems",
    "placement_of",
    "sums",
    "written",
]

MAX_NODES: Final = 16
LOCAL: Final = 10
"""The distance of a node from itself (Linux include/linux/topology.h, LOCAL_DISTANCE)."""
MAX_DISTANCE: Final = 254
"""The largest that is one; 255 says that there is no way (ACPI 6.5, 5.2.17)."""
INTERLEAVED: Final = -1
"""In place of a node: those that have CPUs, in turn."""
TOUCHED: Final = -2
"""In place of a node: that of the vCPU which touches a page first."""
ALL: Final = "all"
REPLICATED: Final = "replicate"
MIGRATED: Final = "migrate"

_WORDS: Final = ("local", "interleave")


class Node(Model):
    """A NUMA node: a socket with its memory, or without CPUs a tier of slower memory."""

    memory: Size = Field(description="Of the node; the host has that of all of them.")
    cpus: Annotated[int, Strict(), Field(ge=0, le=MAX_CORES)] = Field(
        default=0, description="Its pCPUs; 0: it has memory only, a tier such as CXL or persistent memory."
    )
    cycles: Cycles | None = Field(
        default=None,
        description="Load-to-use cycles of its memory, from its own CPUs, or of a tier from any. Default: the CPU's.",
    )
    bandwidth: Size | None = Field(
        default=None, description="What its memory serves in a second at most. Default: nothing waits for it."
    )


def _parse_place(value: object) -> str | int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_NODES:
        return value
    if isinstance(value, str) and value in _WORDS:
        return value
    near = f" {nearest(value, _WORDS)}" if isinstance(value, str) else ""
    raise InputError(f'found {value!r}, expected "local", "interleave" or the number of a node.{near}')


def _parse_tables(value: object) -> str | int:
    if value in (REPLICATED, MIGRATED):
        return str(value)
    try:
        return _parse_place(value)
    except InputError:
        near = f" {nearest(value, (*_WORDS, REPLICATED, MIGRATED))}" if isinstance(value, str) else ""
        words = '"local", "interleave", "replicate", "migrate" or the number of a node'
        raise InputError(f"found {value!r}, expected {words}.{near}") from None


Place = Annotated[Literal["local", "interleave"] | int, BeforeValidator(_parse_place)]
Tables = Annotated[Literal["local", "interleave", "replicate", "migrate"] | int, BeforeValidator(_parse_tables)]

NodeNumbers = Annotated[tuple[Annotated[int, Strict(), Field(ge=0, lt=MAX_NODES)], ...], Field(min_length=1)]
Distances = tuple[tuple[Annotated[int, Strict()], ...], ...]


class Numa(Model):
    """Where a VM runs, and where its memory lies, on a host with nodes."""

    about: ClassVar[str] = "Where it runs and where its memory lies, on a host with nodes."

    node: Annotated[int, Strict(), Field(ge=0, lt=MAX_NODES)] | Literal["all"] | NodeNumbers | None = Field(
        default=None,
        description="The node whose pCPUs run it. all: its vCPUs are spread over the nodes that have some, the first "
        "of them on the first; [0, 2]: over these. Default: the VMs are put on the nodes in turn.",
    )
    memory: Place = Field(
        default="local",
        description="Which node is asked first for its pages: local, that which runs it (of a VM on several, the vCPU "
        "that touches a page first), or the number of another; interleave: those with pCPUs, or of a VM on several "
        "these, in turn. One without a free frame is passed over, for the nearest that has one.",
    )
    tables: Tables | None = Field(
        default=None,
        description="The same of page tables that are the host's own. Default: as its pages. "
        "replicate: as its pages, with copies on each node that runs it. migrate: as its pages, and later where most "
        "of what each leads to lies (host.numa_balancing).",
    )


class Placement(NamedTuple):
    """Where a VM is, and nodes that are asked first for its pages and tables, or INTERLEAVED or TOUCHED.

    Attributes
    ----------
    node : int
        That runs it, or its first vCPU.
    pages, tables : int
    sockets : int
        Nodes from `node` on that its vCPUs are spread over.
    copies : bool
        Its tables have copies on all of these.
    some : tuple of int
        Those nodes, where they are not all of the host's that have pCPUs.
    moves : bool
        Its tables move after what they lead to.
    """

    node: int
    pages: int
    tables: int
    sockets: int = 1
    copies: bool = False
    some: tuple[int, ...] = ()
    moves: bool = False

    def node_of(self, vcpu: int, vcpus: int) -> int:
        """Return the node that runs one of so many vCPUs."""
        at = vcpu * self.sockets // vcpus
        return self.some[at] if self.some else self.node + at

    @property
    def canonical(self) -> tuple[int | str, ...]:
        """What of it decides results."""
        if self.moves:
            return (*self._replace(moves=False).canonical, MIGRATED)
        if self.some:
            return (*self[:5], *self.some)
        return self[:5] if self.copies else self[:4] if self.sockets > 1 else self[:3]


def placement_of(numa: Numa, index: int, nodes: Sequence[Node]) -> Placement | None:
    """Return where a VM, the `index`-th of the host, is; None: the host has no nodes."""
    if not nodes:
        return None
    sockets = sum(node.cpus > 0 for node in nodes)
    runs: tuple[int, ...]
    match numa.node:
        case None:
            runs = (index % sockets,)
        case str():
            runs = tuple(range(sockets))
        case int():
            runs = (numa.node,)
        case _:
            runs = numa.node
    home, spread = runs[0], len(runs) > 1
    places: dict[Any, int] = {"local": TOUCHED if spread else home, "interleave": INTERLEAVED}
    copies, moves = (numa.tables == each for each in (REPLICATED, MIGRATED))
    pages, tables = numa.memory, numa.memory if numa.tables is None or copies or moves else numa.tables
    some = runs if spread and runs != tuple(range(sockets)) else ()
    return Placement(home, places.get(pages, pages), places.get(tables, tables), len(runs), copies, some, moves)  # type: ignore[arg-type]


def sums(nodes: Sequence[Node]) -> dict[str, int]:
    """Return the memory and the pCPUs of all nodes, by the keys of the host's table."""
    return {"memory": sum(node.memory for node in nodes), "cores": sum(node.cpus for node in nodes)}


def written(host: dict[str, Any]) -> dict[str, Any]:
    """Return the host's table as it is written: without empty tables, and without what its nodes say."""
    said = ("memory", "cores") if host["nodes"] else ()
    kept = {key: value for key, value in host.items() if value not in ({}, ()) and key not in said}
    return kept | ({"nodes": list(host["nodes"])} if said else {})


def make_room(tables: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scenario's tables; its host's memory and cores are left out if it is to get other nodes, which say both.

    What is set beside the nodes comes later.
    """
    if "host.nodes" in settings:
        tables["host"].pop("memory", None)
        tables["host"].pop("cores", None)
    return tables


def latencies(
    nodes: Sequence[Node], usual: int, remote: int, distances: Sequence[Sequence[int]] = ()
) -> list[list[int]]:
    """Return the cycles of a load from the pCPUs of each node that the memory of each serves: [of][to].

    A tier has no pCPUs; from where it is, the way to every socket counts as nothing. Distances say how much longer than
    from its own CPUs a load takes, where 10 is as long (ACPI 6.5, section 5.2.17, System Locality Information Table).

    Parameters
    ----------
    nodes : sequence of Node
    usual : int
        Of the CPU's memory, for nodes that do not say.
    remote : int
        What the way to another socket adds, without distances.
    distances : sequence of sequence of int
        By the same indices.
    """
    own = [usual if node.cycles is None else node.cycles for node in nodes]
    if distances:
        said = [node.cycles is not None and not node.cpus for node in nodes]  # a tier's cycles are those from any CPU
        ways = [[LOCAL if said[to] else each for to, each in enumerate(row)] for row in distances]
        return [[cycles * way // LOCAL for cycles, way in zip(own, row, strict=True)] for row in ways]
    return [
        [own[to] + (remote if to != of and nodes[to].cpus and nodes[of].cpus else 0) for to in range(len(nodes))]
        for of in range(len(nodes))
    ]


def _distance_problems(nodes: Sequence[Node], distances: Sequence[Sequence[int]]) -> Iterator[Problem]:
    """Yield what is wrong with the distances between nodes."""
    count, path = len(nodes), ("distances",)
    if len(distances) != count or any(len(row) != count for row in distances):
        text = f"expected {count} rows of {count} numbers, one of each for every node, found rows of "
        yield Problem(path, f"{text}{[len(row) for row in distances]}")
        return
    for of, row in enumerate(distances):
        if row[of] != LOCAL:
            yield Problem(path, f"found {row[of]} from node {of} to itself, expected {LOCAL}")
        elif min(row) < LOCAL or max(row) > MAX_DISTANCE:
            wrong = next(each for each in row if not LOCAL <= each <= MAX_DISTANCE)
            yield Problem(path, f"found {wrong} from node {of}, expected {LOCAL} to {MAX_DISTANCE}")


def node_problems(
    nodes: Sequence[Node], given: Any, remote: int | None, distances: Sequence[Sequence[int]] = ()
) -> Iterator[Problem]:
    """Yield what is wrong with a host's nodes, by the keys of its table, of which `given` has those that were given."""
    if not nodes:
        for key, value in (("remote_cycles", remote), ("distances", distances or None)):
            if value is not None:
                yield Problem((key,), "there are no nodes (host.nodes) to go to; leave it out")
        return
    if distances:
        yield from _distance_problems(nodes, distances)
    if len(nodes) > MAX_NODES:
        yield Problem(("nodes",), f"{len(nodes)} nodes, expected at most {MAX_NODES}")
    sockets = sum(node.cpus > 0 for node in nodes)
    if not sockets:
        yield Problem(("nodes",), "none of the nodes has CPUs; expected cpus of 1 or more in the first")
    elif any(node.cpus for node in nodes[sockets:]):
        first = next(number for number, node in enumerate(nodes) if not node.cpus)
        text = "a node without CPUs comes before one that has some; expected those with CPUs first"
        yield Problem(("nodes", first), text)
    if remote is not None and distances:
        yield Problem(("remote_cycles",), "the distances say how far the nodes are; leave one of the two out")
    elif sockets > 1 and remote is None and not distances:
        text = "this key is missing; expected what the memory of another socket takes longer, such as 100, or distances"
        yield Problem(("remote_cycles",), text)
    elif sockets < 2 and remote is not None:
        yield Problem(("remote_cycles",), "there is one socket only, and a tier's cycles say all; leave it out")
    for number, node in enumerate(nodes):
        if node.memory % PAGE:
            text = f"{format_size(node.memory)} is not a whole number of 4KiB pages"
            yield Problem(("nodes", number, "memory"), text)
    for key, total in sums(nodes).items():
        if key in given and given[key] != total:
            shown = [format_size(each) if key == "memory" else each for each in (given[key], total)]
            yield Problem((key,), f"found {shown[0]}, but the nodes have {shown[1]} together; leave it out")
