"""Do long runs of hosts on which everything happens together break no invariant?"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.simulation.drawn import (
    BALLOONS,
    FETCH,
    GUEST_RECLAIM,
    KSM,
    MODES,
    PAGES,
    QUICK,
    RECLAIM,
    SWAP,
    THP,
    base_of,
    conserved_spoilt,
    times_add_up,
)
from tests.simulation.small import PAGE, READ, WRITE, Script, Threads, divided, run, scenario, touches, vm


def long_script(random: Random, operations: int, pid: int = 2, *, files: bool = False) -> list[Any]:
    """Return so many operations of a process and its children, pids from `pid` on, most of them accesses."""
    steps: list[Any] = []
    for number in range(operations):
        what = random.random()
        page, count = random.randrange(PAGES), random.randint(1, 12)
        if what < 0.9:
            steps.append(("touch", page, random.choice((READ, WRITE, FETCH)), random.randint(1, 20)))
        elif what < 0.95:
            steps.append((random.choice(("unmap", "map", "discard")), page, count))
        elif what < 0.96 and files:
            file = random.choice(("read_file", "read_file", "write_file", "drop_file", "sync_file"))
            place = random.randrange(2), random.randrange(300_000), random.randint(1, 150_000)
            steps.append((file, *place) if file != "sync_file" else (file, place[0]))
        elif what < 0.98:
            steps.append(("compute", random.randrange(20_000)))
        elif what < 0.99:
            steps.append(("io", page, count, random.randrange(30_000)))
        else:
            child = pid + number
            steps += [("fork", child), ("switch", child), *touches([page], WRITE), ("exit", child), ("by", 1)]
    return steps


LONG = 10_000  # operations of each of four VMs, in 25 hosts: a million in all


def long_host(seed: int, operations: int, *, more: bool = False) -> None:
    """Run four VMs in modes that are drawn on a host that takes their pages, and check everything on the way.

    With `more` the host may swap, make huge pages and have nodes, and guests have files and reclaim for themselves.
    """
    random = Random(seed)
    guests = [keys for keys in MODES if "guest_at" not in keys.get("paired", {})]
    guests = [keys for keys in guests if keys.get("paired", {}).get("guest", True)]
    thp = random.choice(THP) if more else {}
    tables, streams = [], []
    for number, keys in enumerate(random.sample(guests, 4)):
        memory = (512 if "host_page" in keys or thp else 0) + random.randint(120, 300)
        given: dict[str, Any] = {"populate": random.choice(("lazy", "eager")), "vcpus": random.randint(1, 4), **keys}
        given |= {"content": {"image": "x", "image_share": 0.7}}
        if keys["mode"] != "native" and (balloon := random.choice(BALLOONS)):
            given["balloon"] = balloon
        if more and keys["mode"] != "native" and (kernel := random.choice(GUEST_RECLAIM)):
            given["reclaim"] = kernel
        given |= {"files": {"disk": "nvme"}} if more else {}
        base, vcpus = base_of(keys), given["vcpus"]
        tables.append(vm(f"vm{number}", memory=memory * PAGE, workload={"base": base}, **given))
        parts = [long_script(random, operations // vcpus, 2 + operations * each, files=more) for each in range(vcpus)]
        streams.append(Threads([Script(part, chunk=4096, base=base) for part in parts]))
    host: dict[str, Any] = {"cores": random.randint(1, 3), "quantum": "20us", "what_if": True, "memory": 4000 * PAGE}
    host |= {
        "pool": random.choice(({"min": 2, "max": 16, "batch": 8}, {"supply": "fault"})),
        "reclaim": random.choice(RECLAIM[1:]),
    }
    host |= {"ksm": random.choice(KSM[1:]), "cpu_override": {"cost": QUICK}}
    if more:
        host |= {"swap": random.choice([each for each in SWAP if "read_errors" not in each])}
    if thp:
        host |= {"thp": thp, "memory": 8000 * PAGE}
    if nodes := random.choice((0, 0, 2, 3)) if more else 0:
        host |= divided(host["memory"] // PAGE, host["cores"], nodes)
    simulation, outcome = run(scenario(*tables, **host), streams, every=5_000_077, look=conserved_spoilt, events=10**8)
    assert outcome.ending is None
    assert all(figures.finished for figures in outcome.vms)
    assert times_add_up(outcome, simulation.scenario)
    assert sum(each.pages.taken for each in simulation.vms if each.pages) > 0
    assert sum(each.pages.merged for each in simulation.vms if each.pages) > 0
    assert simulation.host.free == simulation.host.size - sum(simulation.host.count(-1).values())


@pytest.mark.parametrize("seed", range(2))
def test_a_short_part_of_the_long_run_holds(seed: int) -> None:
    long_host(1000 + seed, 300)


@pytest.mark.slow
def test_a_guest_keeps_its_tables_where_its_host_swaps_them_to_frames_of_a_vm_that_has_ended() -> None:
    """Its VM 1, whose root is empty yet, gets it back in a frame that was a root of VM 2's."""
    long_host(1000, 300, more=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(25))
def test_a_million_operations_break_no_invariant(seed: int) -> None:
    long_host(seed, LONG, more=seed % 2 > 0)
