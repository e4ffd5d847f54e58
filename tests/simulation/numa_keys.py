"""As tests/simulation/keys.py, for the keys of nodes."""

from __future__ import annotations

from typing import Any, Final

from tests.simulation.keys import Row, vm, world

SOCKETS = [{"memory": "8MiB", "cpus": 1}, {"memory": "8MiB", "cpus": 1}]


def sockets(**first: Any) -> list[dict[str, Any]]:
    return [SOCKETS[0] | first, SOCKETS[1]]


def numa(*vms: dict[str, Any], **host: Any) -> dict[str, Any]:
    made = world(*vms, nodes=SOCKETS, remote_cycles=100, **host)
    del made["host"]["memory"]
    return made


NUMA_ROWS: Final = {
    "host.nodes.memory": Row(numa(), SOCKETS, sockets(memory="1MiB"), "host.nodes"),
    "host.nodes.cpus": Row(numa(vm(), vm(numa={"node": 0})), SOCKETS, sockets(cpus=2), "host.nodes"),
    "host.nodes.cycles": Row(numa(), SOCKETS, sockets(cycles=999), "host.nodes"),
    "host.remote_cycles": Row(numa(vm(numa={"memory": 1})), 100, 200),
    "vm.numa.node": Row(numa(), 0, 1),
    "vm.numa.memory": Row(numa(), "local", "interleave"),
    "vm.numa.tables": Row(numa(vm("native")), 0, 1),
}
