"""What a scenario cannot ask for of the limits of a VM's memory, and of where it lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from vmsim.base.units import PAGE, format_size
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.modes import PagingMode
from vmsim.scenario.nodes import ALL, MIGRATED, REPLICATED, Node
from vmsim.scenario.problems import Problem

__all__ = ["limit_problems", "numa_problems", "size_problems"]

MAX_MEMORY: Final = 4 << 40
"""Bytes of memory that can be simulated."""
_POPULATE: Final = ("ept", "npt")  # modes whose tables the host makes when it backs all memory before the start


def size_problems(key: str, memory: int) -> Iterator[Problem]:
    """Yield what is wrong with the size of a host's memory or a VM's."""
    if memory < PAGE:
        yield Problem((key,), f"{format_size(memory)} is smaller than a page of 4KiB")
    elif memory % PAGE:
        yield Problem((key,), f"{format_size(memory)} is not a whole number of 4KiB pages")
    elif memory > MAX_MEMORY:
        yield Problem((key,), f"{format_size(memory)} is more than vmsim can simulate ({format_size(MAX_MEMORY)})")


def limit_problems(group: VmKeys, mode: PagingMode) -> Iterator[Problem]:
    """Yield what is wrong with `memory_high` and `memory_max`, by the keys of the VM's table."""
    for key in ("memory_high", "memory_max"):
        size = getattr(group, key)
        if size is None:
            continue
        if size < PAGE:
            yield Problem((key,), f"{format_size(size)} is less than a page of 4KiB")
        elif mode.name == "paired" and mode.bare(group):
            yield Problem((key,), "a paired process without a guest keeps its pages, so that none could be taken")
        elif key == "memory_max" and group.populate == "eager" and size < group.memory:
            text = f"{format_size(size)} is less than the memory that is backed before the clock starts"
            yield Problem((key,), f'{text} ({format_size(group.memory)}); expected populate = "lazy"')


def numa_problems(group: VmKeys, mode: PagingMode, nodes: Sequence[Node]) -> Iterator[Problem]:
    """Yield what is wrong with a VM's place, by the keys of its table."""
    numa = group.numa
    places = {"node": numa.node, "memory": numa.memory, "tables": numa.tables}
    if not nodes:
        for key in numa.model_fields_set:
            if getattr(numa, key) != type(numa).model_fields[key].default:
                yield Problem(("numa", key), "the host has no nodes (host.nodes); leave it out")
        return
    for key, number in places.items():
        if isinstance(number, int) and number >= len(nodes):
            yield Problem(("numa", key), f"found {number}, and the nodes are 0 to {len(nodes) - 1}")
        elif key == "node" and isinstance(number, int) and not nodes[number].cpus:
            yield Problem(("numa", key), f"node {number} has no CPUs; expected one that has some")
    sockets = sum(node.cpus > 0 for node in nodes)
    if isinstance(numa.node, tuple):
        yield from _several_problems(numa.node, nodes, group.vcpus)
    elif numa.node == ALL and sockets > group.vcpus:
        yield Problem(("numa", "node"), f'found "{ALL}", and vcpus ({group.vcpus}) < sockets ({sockets})')
    if numa.tables == MIGRATED and numa.memory == "interleave":
        text = "NUMA balancing, which moves tables, leaves interleaved memory alone (vma_policy_mof)"
        yield Problem(("numa", "tables"), f"{text}; leave one of the two out")
    placed = numa.tables not in (None, REPLICATED, MIGRATED)
    if placed and not mode.bare(group) and not (mode.name in _POPULATE and group.populate == "eager"):
        text = "the monitor makes tables of pages of its pool, which lie where numa.memory says"
        yield Problem(("numa", "tables"), f'{text}; leave it out, or in modes ept and npt write populate = "eager"')


def _several_problems(numbers: Sequence[int], nodes: Sequence[Node], vcpus: int) -> Iterator[Problem]:
    """Yield why vCPUs cannot be spread over some nodes."""
    path, able = ("numa", "node"), [number for number, node in enumerate(nodes) if node.cpus]
    for number in numbers:
        if number not in able:
            yield Problem(path, f"found {number} among the nodes, and those with CPUs are {able}")
    if sorted({*numbers}) != [*numbers]:
        yield Problem(path, f"found {[*numbers]}, expected each node once, in ascending order")
    elif len(numbers) > vcpus:
        yield Problem(path, f"found {len(numbers)} nodes, and vcpus ({vcpus}) < nodes")
