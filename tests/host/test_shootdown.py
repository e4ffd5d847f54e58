"""Does a shootdown cost sender and targets what its steps sum to, and who is waited for, told later, or left alone?"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import simpy

from vmsim.base.clock import Clock
from vmsim.host.shootdown import BROADCAST_FROM, SHOOTDOWN, Shootdown, Whereabouts
from vmsim.scenario import Cpu
from vmsim.scenario.cpu_files import load_cpu

RUNS, IDLES, WAITS = Whereabouts.RUNS, Whereabouts.IDLES, Whereabouts.WAITS
SEND, LATENCY, HANDLE, INVLPG, BROADCAST = 7, 50, 100, 3, 400
EXIT = 1000 + 200


def cpu(interrupts: str = "exit", *, invlpgb: bool = False) -> Cpu:
    base = load_cpu("yardstick")
    costs = {
        **{"ipi_send": SEND, "ipi_latency": LATENCY, "ipi_handle": HANDLE, "invlpg": INVLPG, "invlpgb": BROADCAST},
        **{"vm_exit": 1000, "violation_resume": 200},
    }
    cost = base.cost.model_copy(update=costs)
    return base.model_copy(update={"cost": cost, "interrupts": interrupts, "invlpgb": invlpgb})


class Fake:
    """A vCPU that notes what it is asked for."""

    def __init__(self, env: simpy.Environment, whereabouts: Whereabouts = RUNS) -> None:
        self.env = env
        self.whereabouts = whereabouts
        self.spaces = self
        self.left = 0
        self.cycles: Counter[str] = Counter()
        self.work: list[Any] = []

    @property
    def now(self) -> int:
        return int(self.env.now)

    def exited(self) -> None:
        self.left += 1

    def owe(self, cause: str, cycles: int) -> None:
        self.cycles[cause] += cycles

    def impose(self, cycles: int) -> None:
        self.owe("exit", cycles)

    def interrupt(self, work: Any) -> None:
        self.work.append(work)

    def spin(self, event: simpy.Event, cause: str) -> Any:
        before = self.env.now
        yield event
        self.cycles[f"{cause} waited"] += self.env.now - before

    def take(self) -> Any:
        for work in self.work:
            yield from work(self)
        self.work.clear()


def flushed(vcpu: Fake) -> Any:
    vcpu.cycles["flushes"] += 1
    return
    yield


def run(shootdown: Shootdown, *where: Whereabouts, pages: int = 1, later: int = 5000) -> tuple[Fake, list[Fake]]:
    """Ask vCPUs; those that do not run go on so many cycles later."""
    env = Clock()
    sender, targets = Fake(env), [Fake(env, each) for each in where]

    def ask() -> Any:
        yield from shootdown.request(sender, targets, flushed, pages=pages)
        sender.cycles["back at"] = env.now

    def answer(target: Fake) -> Any:
        yield env.timeout(0 if target.whereabouts is RUNS else later)
        yield from target.take()

    env.process(ask())
    for target in targets:
        env.process(answer(target))
    env.run()
    assert [target.cycles["flushes"] for target in targets] == [1] * len(targets)
    return sender, targets


@pytest.mark.parametrize("pages", [1, 33])
def test_on_the_hardware_a_sender_pays_for_each_and_for_the_slowest_answer(pages: int) -> None:
    shootdown = Shootdown(cpu(), bare=True)
    sender, targets = run(shootdown, RUNS, RUNS, RUNS, pages=pages)
    assert sender.cycles == {SHOOTDOWN: 3 * SEND + LATENCY + HANDLE + pages * INVLPG, "back at": 0}
    for target in targets:
        assert target.cycles == {SHOOTDOWN: HANDLE + pages * INVLPG, "flushes": 1}
    assert shootdown.counts["interrupts"] == 3


@pytest.mark.parametrize(("interrupts", "sent", "taken"), [("exit", 2, 2), ("posted", 2, 0), ("virtual", 0, 0)])
def test_in_a_guest_interrupts_are_exits_unless_the_cpu_delivers_them(interrupts: str, sent: int, taken: int) -> None:
    """Two targets: an exit for each sent; two at each, for the interrupt and for its end."""
    sender, targets = run(Shootdown(cpu(interrupts), bare=False), RUNS, RUNS)
    assert sender.cycles["exit"] == sent * EXIT
    assert [target.cycles["exit"] for target in targets] == [taken * EXIT] * 2
    assert sender.left == (sent > 0)


def test_who_does_not_run_stalls_the_sender_until_it_does() -> None:
    shootdown = Shootdown(cpu(), bare=False)
    sender, _ = run(shootdown, RUNS, WAITS, later=5000)
    assert sender.cycles["back at"] == sender.cycles["shootdown waited"] == 5000
    assert shootdown.counts["stalled"] == 1


def test_with_pv_flush_who_does_not_run_is_told_and_not_waited_for() -> None:
    shootdown = Shootdown(cpu(), bare=False, pv_flush=True)
    sender, targets = run(shootdown, RUNS, WAITS, later=5000)
    assert sender.cycles["back at"] == 0
    assert sender.cycles[SHOOTDOWN] == SEND + LATENCY + HANDLE + INVLPG
    assert targets[1].cycles == {"flushes": 1}
    assert (shootdown.counts["deferred"], shootdown.counts["interrupts"]) == (1, 1)


def test_even_virtual_interrupts_need_an_exit_for_who_does_not_run() -> None:
    sender, _ = run(Shootdown(cpu("virtual"), bare=False), RUNS, WAITS)
    assert sender.cycles["exit"] == EXIT


def test_an_idle_cpu_is_left_alone() -> None:
    shootdown = Shootdown(cpu(), bare=False)
    sender, targets = run(shootdown, IDLES)
    assert sender.cycles == {"back at": 0}
    assert targets[0].cycles == {"flushes": 1}


@pytest.mark.parametrize("others", [BROADCAST_FROM - 2, BROADCAST_FROM - 1])
def test_a_broadcast_takes_the_place_of_interrupts_where_a_process_runs_on_many_cpus(others: int) -> None:
    shootdown = Shootdown(cpu(invlpgb=True), bare=True)
    sender, targets = run(shootdown, *[RUNS] * others)
    broadcast = others + 1 >= BROADCAST_FROM
    assert shootdown.counts["broadcasts"] == broadcast
    if broadcast:
        assert sender.cycles[SHOOTDOWN] == BROADCAST
        assert all(target.cycles == {"flushes": 1} for target in targets)


def test_no_guest_has_the_broadcast() -> None:
    shootdown = Shootdown(cpu("virtual", invlpgb=True), bare=False)
    run(shootdown, *[RUNS] * 8)
    assert (shootdown.counts["broadcasts"], shootdown.counts["interrupts"]) == (0, 8)


def test_a_host_kicks_those_that_run_out_of_the_guest() -> None:
    env = Clock()
    shootdown = Shootdown(cpu(), bare=False)
    vcpus = [Fake(env, where) for where in (RUNS, WAITS, RUNS, IDLES)]
    assert shootdown.kick(vcpus) == 2 * SEND + LATENCY + 1000 + HANDLE + INVLPG
    assert [len(vcpu.work) for vcpu in vcpus] == [1, 0, 1, 0]
    for _ in vcpus[0].take():
        pass
    assert vcpus[0].cycles == {"exit": EXIT + HANDLE + INVLPG}
    assert vcpus[0].left == 1
    assert shootdown.kick(vcpus[1:2]) == 0
