"""Shootdowns: how one processor makes others forget, and what that costs each of them.

A kernel that has changed entries interrupts the processors that may have cached them, and goes on when all have
forgotten (Linux kernel/smp.c, `smp_call_function_many_cond`; arch/x86/mm/tlb.c, `native_flush_tlb_multi`). In a guest
the processors are vCPUs. Sending an interrupt is an exit, unless the CPU delivers interrupts of guests by itself
(Intel: IPI virtualization; AMD: AVIC, APM vol. 2 §15.29); taking one is two, for the interrupt and for its end, unless
the CPU posts interrupts (SDM vol. 3C §30.6). A vCPU that does not run answers when it runs again, and so long the
sender waits; under `pv_flush` it is told by a word in memory, flushes when it is entered, and nobody waits
(arch/x86/kernel/kvm.c, `kvm_flush_tlb_multi`).

The host itself interrupts the processors that run a VM's vCPUs, which leave the guest for it; those that do not run
find out when they are entered (virt/kvm/kvm_main.c, `kvm_make_all_cpus_request`).

Who runs has made its accesses up to the simulated moment, and forgets before the next. So what is paid for its answer
is known at once, in closed form; only who does not run is waited for. A processor to which an
interrupt is on its way is sent no second one: it finds all work when it takes the first (kernel/smp.c, a
call_single_queue that is not empty; one bit a vector in the IRR, SDM vol. 3A §12.8.4). The sender waits all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from typing import Any, Protocol

import simpy

from vmsim.base.clock import Clock
from vmsim.base.ledger import Ledger
from vmsim.contracts import Steps
from vmsim.scenario.cpu import Cpu

__all__ = ["SHOOTDOWN", "Paid", "Processor", "Shootdown", "Whereabouts", "Work"]

SHOOTDOWN = "shootdown"  # the cause of the time that is used for it
_GUEST, _HOST = "guest", "host"  # who sends an interrupt
BROADCAST_FROM = 4  # CPUs of a process from which Linux uses INVLPGB for it (arch/x86/mm/tlb.c, consider_global_asid)

Work = Callable[[Any], Steps[None]]
Paid = Callable[[Any, int], None]
"""Told of a vCPU that has left the guest for a kick, and what that took."""


class Whereabouts(Enum):
    """What a vCPU does when somebody asks it for something."""

    RUNS = "runs"  # it has a core
    IDLES = "idles"  # it has nothing to do, and looks at the generation of its address space when it has
    WAITS = "waits"  # it would go on if its host let it


class Processor(Protocol):
    """A vCPU, as far as shootdowns know it."""

    env: Clock

    @property
    def now(self) -> int:
        """The cycle it has reached."""
        ...

    @property
    def whereabouts(self) -> Whereabouts:
        """What it does now."""
        ...

    @property
    def spaces(self) -> Any:
        """What processors cache of it."""
        ...

    def interrupt(self, work: Work) -> None:
        """Have it do work before it makes another access."""

    def owe(self, cause: str, cycles: int) -> None:
        """Use cycles."""

    def impose(self, cycles: int) -> None:
        """Use cycles for an exit that another makes it take."""

    def spin(self, event: simpy.Event, cause: str) -> Steps[None]:
        """Wait for an event on the core."""


class _Answers:
    """Those that a sender waits for: how many are `due`, and the event that comes with the last."""

    def __init__(self, complete: simpy.Event) -> None:
        self.due = 0
        self.complete = complete

    def add(self) -> None:
        """Take one."""
        self.due -= 1
        if not self.due:
            self.complete.succeed()


class Shootdown:
    """The shootdowns of one VM, or of one program that runs on the host itself.

    Parameters
    ----------
    cpu : Cpu
        Which CPU, and what things cost on it.
    bare : bool
        There is no VM: interrupts are the hardware's.
    pv_flush : bool
        vCPUs that do not run are told by a word in memory.

    Attributes
    ----------
    counts : dict
        `requests` of a kernel, `interrupts` that it sent, vCPUs that were `idle`, `deferred` to (`pv_flush`) or waited
        for (`stalled`), `broadcasts` in place of interrupts; `kicks` of running vCPUs by the host; of both, those that
        were `merged` with one that was on its way.
    exits, exit_cycles : Counter
        By reason: `IPI` to send an interrupt, `INTERRUPT` to take one, `KICK` where the host has sent it.
    """

    def __init__(self, cpu: Cpu, *, bare: bool, pv_flush: bool = False) -> None:
        cost = cpu.cost
        names = ("requests", "interrupts", "idle", "deferred", "stalled", "broadcasts", "kicks", "merged")
        self.counts = dict.fromkeys(names, 0)
        self.exits: Counter[str] = Counter()
        self.exit_cycles: Counter[str] = Counter()
        self._coming: dict[tuple[Any, str], int] = {}  # when a processor was sent what it has still to take, by whom
        self._costs = cost
        self._exit = cost.vm_exit + cost.violation_resume
        self._sending_exits = not bare and cpu.interrupts != "virtual"
        self._receiving_exits = not bare and cpu.interrupts == "exit"
        self._bare = bare
        self._broadcasts = bare and cpu.invlpgb
        self._pv_flush = pv_flush and not bare

    def register(self, ledger: Ledger, *, whole: bool) -> None:
        """Say what it counts; of a VM that has none of its own (not `whole`) the exits alone."""
        if whole:
            ledger.counters("shootdowns", lambda: self.counts)
        ledger.counters("exits", lambda: self.exits)
        ledger.counters("exit_cycles", lambda: self.exit_cycles)

    def request(self, sender: Any, targets: Sequence[Any], work: Work, *, pages: int = 1) -> Steps[None]:
        """Have other CPUs of the same kernel do work before they make another access, and wait until they have.

        Parameters
        ----------
        sender : Processor
            Who asks, and pays for it.
        targets : sequence of Processor
            The others, by number.
        work : callable
            Called with each.
        pages : int, optional
            Pages that each forgets in it; 1 for a whole address space.
        """
        if not targets:
            return
        self.counts["requests"] += 1
        if self._broadcasts and len(targets) + 1 >= BROADCAST_FROM:
            self.counts["broadcasts"] += 1
            sender.owe(SHOOTDOWN, self._costs.invlpgb)
            for target in targets:
                target.interrupt(work)
            return
        asked, sent, exits = 0, 0, 0
        answers = _Answers(sender.env.event())
        for target in targets:
            where = target.whereabouts
            if where is Whereabouts.IDLES:
                self.counts["idle"] += 1
                target.interrupt(work)
            elif where is Whereabouts.WAITS and self._pv_flush:
                self.counts["deferred"] += 1
                target.interrupt(work)
            else:
                waits = where is Whereabouts.WAITS
                answers.due += waits
                asked += 1
                first = self._send(target, _GUEST, sender.now, waits=waits)
                sent += first
                exits += first and (self._sending_exits or (waits and not self._bare))
                answer = partial(self._answer, work=work, pages=pages, answers=answers if waits else None, first=first)
                target.interrupt(answer)
        if asked:
            self.counts["interrupts"] += sent
            self.counts["stalled"] += answers.due
            self._leave(sender, exits, "IPI")
            sender.owe(SHOOTDOWN, sent * self._costs.ipi_send + self._costs.ipi_latency + self._handling(pages))
        if answers.due:
            yield from sender.spin(answers.complete, SHOOTDOWN)

    def notify(self, vcpu: Any, reason: str) -> None:
        """Have a vCPU tell a device that there is work for it: an exit, or in a vkernel a system call."""
        self._leave(vcpu, 1, reason, self._costs.vkernel_call if self._bare else self._exit)

    def spend(self, vcpu: Any, reason: str, cycles: int, *, paid: bool = False) -> None:
        """Count cycles in an exit of `notify`'s that is under way, which the vCPU uses unless it has `paid`."""
        self.exit_cycles[reason] += cycles
        if not paid:
            vcpu.owe("exit", cycles)

    def deliver(self, vcpu: Any, cause: str) -> None:
        """Have a vCPU take a device's interrupt, with its handler; no work of a driver's is in it."""
        if self._receiving_exits:
            self._leave(vcpu, 2, "INTERRUPT")
        vcpu.owe(cause, self._costs.ipi_handle)

    def kick(self, vcpus: Sequence[Any], paid: Paid | None = None, *, times: int = 1) -> int:
        """Have those vCPUs that run leave the guest, as the host does to make them forget.

        What they forget is dropped by whoever asks. Those that do not run find out when they are entered.

        Parameters
        ----------
        vcpus : sequence of Processor
            Of the VM.
        paid : callable, optional
            Counts the exit of each; None: it is a `KICK`.
        times : int, optional
            How often, one after the other.

        Returns
        -------
        int
            Cycles that the host's processor takes until the last has left.
        """
        running = self._running(vcpus)
        cycles = self._until_out(running)
        if times > 1 and running:  # each but the first is sent to a vCPU that is in the guest again
            cycles += (times - 1) * (len(running) * self._costs.ipi_send + self._answering)
        for vcpu in running:
            sent = times - 1 + self._send(vcpu, _HOST, vcpu.env.cycle)
            if sent:
                self.counts["kicks"] += sent
                vcpu.interrupt(partial(self._kicked, paid=paid, times=sent))
        return cycles

    def kick_cycles(self, vcpus: Sequence[Any]) -> int:
        """Return what `kick` would take now."""
        return self._until_out(self._running(vcpus))

    def _running(self, vcpus: Sequence[Any]) -> list[Any]:
        return [vcpu for vcpu in vcpus if vcpu.whereabouts is Whereabouts.RUNS]

    def _until_out(self, running: Sequence[Any]) -> int:
        """Return the cycles until these vCPUs have left the guest."""
        if not running:
            return 0
        sent = sum(self._is_first(vcpu, _HOST, vcpu.env.cycle) for vcpu in running)
        return sent * self._costs.ipi_send + self._answering

    @property
    def _answering(self) -> int:
        """Cycles from a kick's sending until its vCPU has left the guest, and forgotten."""
        return self._costs.ipi_latency + self._handling(1) + (0 if self._bare else self._costs.vm_exit)

    def _send(self, target: Any, whose: str, now: int, *, waits: bool = False) -> bool:
        """Have a processor find work; return whether that takes an interrupt, since none is on its way."""
        first = self._is_first(target, whose, now, waits=waits)
        if first:
            self._coming[target, whose] = now
        self.counts["merged"] += not first
        return first

    def _is_first(self, target: Any, whose: str, now: int, *, waits: bool = False) -> bool:
        """Whether no interrupt is on its way to a processor: to one that runs it takes `ipi_latency`."""
        sent = self._coming.get((target, whose))
        return sent is None or not (waits or abs(now - sent) < self._costs.ipi_latency)

    def _handling(self, pages: int) -> int:
        return self._costs.ipi_handle + pages * self._costs.invlpg

    def _answer(self, vcpu: Any, *, work: Work, pages: int, answers: _Answers | None, first: bool) -> Steps[None]:
        """Take the interrupt, if this is the first work that it is for: do the work, and tell the sender."""
        self._coming.pop((vcpu, _GUEST), None)
        if first and self._receiving_exits:
            self._leave(vcpu, 1 if answers else 2, "INTERRUPT")  # who was not running is given it when it is entered
        vcpu.owe(SHOOTDOWN, self._handling(pages) if first else pages * self._costs.invlpg)
        yield from work(vcpu)
        if answers:
            answers.add()

    def _kicked(self, vcpu: Any, *, paid: Paid | None, times: int = 1) -> Steps[None]:
        """Leave the guest, or the program, for the host's interrupt, and come back."""
        self._coming.pop((vcpu, _HOST), None)
        if self._bare:
            vcpu.owe("guest_fault", times * self._handling(1))  # of a program: its kernel's work
        else:
            cycles = self._exit + self._handling(1)
            vcpu.spaces.exited()
            vcpu.impose(times * cycles)
            if paid is None:
                self.exits["KICK"] += times
                self.exit_cycles["KICK"] += times * cycles
            else:
                for _ in range(times):
                    paid(vcpu, cycles)
        return
        yield

    def _leave(self, vcpu: Any, exits: int, reason: str, each: int | None = None) -> None:
        if exits:
            cycles = exits * (self._exit if each is None else each)
            vcpu.spaces.exited()
            vcpu.owe("exit", cycles)
            self.exits[reason] += exits
            self.exit_cycles[reason] += cycles
