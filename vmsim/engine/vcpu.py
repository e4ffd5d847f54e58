"""A vCPU as a SimPy process: run until exit, pay the cycles, handle the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.base.clock import Clock
from vmsim.base.errors import InputError
from vmsim.contracts import NEVER, NONE, Exit, Monitor, Resume, Steps
from vmsim.engine.crew import Crew, Stopped
from vmsim.engine.files import FILE_OPERATIONS, operate_on_file
from vmsim.engine.hardware import Hardware
from vmsim.engine.idle import IdleVcpu
from vmsim.engine.loop import OPERATION_DUE, SETTLEMENT_DUE
from vmsim.engine.runs import Runs
from vmsim.engine.vcpu_time import IDLE_WAITS
from vmsim.guest.kernel import GuestKernel
from vmsim.host.scheduler import Scheduler
from vmsim.host.shootdown import Shootdown, Whereabouts
from vmsim.machine.layout import Count
from vmsim.machine.tags import Spaces
from vmsim.machine.vcpu import WRITES as _WRITE
from vmsim.machine.vcpu import Reason
from vmsim.workloads import Chunk, Event, Op, Stream

__all__ = ["Vcpu"]

_END_OF_TIME = NEVER >> 1  # cycles: far beyond any workload, and no sum of a few overflows

_BUDGET = int(Reason.BUDGET)


class Vcpu(IdleVcpu):
    """One virtual processor, its workload and where its time goes.

    A vCPU runs ahead of the simulated clock by what it owes: cycles used since it last settled. It settles before it
    touches anything that others share (the host's frames, a core, a pool that the host then must refill), and when what
    it owes reaches the horizon.

    Parameters
    ----------
    registers : record[1]
        Its register file.
    spaces : Spaces
        What processors cache of it.
    number, index : int
        Its number in the VM, and among all vCPUs of the host.
    crew : Crew
        What it shares with the VM's other vCPUs.
    shootdown : Shootdown
        How it interrupts them.
    quantum, horizon : int
        Cycles of a time slice, and how far it may run ahead.
    causes : sequence of str, optional
        What it may wait for beside WAITS.
    """

    def __init__(
        self,
        env: Clock,
        hardware: Hardware,
        scheduler: Scheduler,
        registers: NDArray[Any],
        stream: Stream,
        *,
        spaces: Spaces,
        number: int,
        index: int,
        crew: Crew,
        shootdown: Shootdown,
        quantum: int,
        horizon: int,
        switch_cycles: int,
        device: Callable[[NDArray[np.int64], int], simpy.Event],
        causes: Sequence[str] = (),
    ) -> None:
        super().__init__(env, causes)
        self.hardware = hardware
        self.scheduler = scheduler
        self.registers = registers
        self.stream = stream
        self.spaces = spaces
        self.number = number
        self.index = index
        self.crew = crew
        self.shootdown = shootdown
        self.quantum = quantum
        self.horizon = horizon
        self.switch_cycles = switch_cycles
        self.device = device  # has one work on guest frames for so many nanoseconds
        self.slice_ended: Callable[[], None] = lambda: None
        self.runs: Runs | None = None  # from its first access on
        self._serving = False  # does what it was interrupted for
        self._core = -1

    @property
    def running(self) -> bool:
        """Whether it has a core: what is to be made to leave the guest at once."""
        return self._core >= 0

    @property
    def left(self) -> int:
        """Cycles that it may still use ahead of simulated time; at 0 or less it is to settle."""
        return self.horizon - self.owed

    def wait(self, event: simpy.Event, cause: str) -> Steps[Any]:
        """Give up the core until `event`, which others run on meanwhile; return its value, or raise the error it is.

        What it was interrupted for while it did not run is done first: who asked may hold what it is to wait for.
        """
        if self.interrupts:
            yield from self.serve()
        yield self.settle()
        self.leave()
        wait = self.idle if self.wakes and cause in IDLE_WAITS else self.until
        value = yield from wait(event, cause)
        yield from self.enter()
        return self.crew.given(value)

    def enter(self, *, woken: bool = True) -> Steps[None]:
        """Get a core for a time slice: it slept until now, or its last slice is over."""
        core = self.scheduler.request(self.index, woken=woken)
        if isinstance(core, simpy.Event):
            core = yield from self.until(core, "pcpu_wait")
        self.resumed(None)
        self._core = core
        self.spaces.enter(core)
        if self.scheduler.last[core] not in (self.index, -1):
            self.owe("switch", self.switch_cycles)
        self.scheduler.slice_end[core] = self.now + self.quantum  # after the switch: a slice is the vCPU's own time

    def interrupt(self, work: Callable[[Vcpu], Steps[None]]) -> None:
        """Have it do work of its kernel's before it makes another access: what an IPI asks for."""
        self.interrupts.append(work)

    @property
    def whereabouts(self) -> Whereabouts:
        """What it does when another asks it for something."""
        if self._core >= 0:
            return Whereabouts.RUNS
        return Whereabouts.IDLES if self.since and self.since[0] in IDLE_WAITS else Whereabouts.WAITS

    def shoot_down(self, others: Sequence[Vcpu], work: Callable[[Vcpu], Steps[None]], *, pages: int) -> Steps[None]:
        """Have other vCPUs of the VM do work before they make another access, and wait until they have."""
        yield from self.shootdown.request(self, others, work, pages=pages)

    def kick_cycles(self) -> int:
        """Return what `kick_others` would cost now."""
        return self.shootdown.kick_cycles(self.crew.others(self))

    def kick_others(self) -> int:
        """Have the VM's other vCPUs leave the guest, for their processors to forget; return the cycles it takes."""
        return self.shootdown.kick(self.crew.others(self))

    def kick(self, vcpus: Sequence[Vcpu], paid: Callable[[Any, int], None]) -> int:
        """Have the host kick vCPUs of the VM; return the cycles it takes. `paid` counts the exit of each."""
        return self.shootdown.kick(vcpus, paid)

    def spin(self, event: simpy.Event, cause: str) -> Steps[None]:
        """Wait for an event in a loop, which gives up the core only at the end of a slice; take interrupts meanwhile.

        Raises
        ------
        Stopped
            The VM has ended.
        """
        yield self.settle()
        while not event.triggered:
            yield from self._take_interrupts()
            left = self.scheduler.slice_end[self._core] - self.env.cycle
            if left <= 0:
                yield from self._next_slice()
                continue
            if self.owed:
                yield self.settle()
                continue
            timer = self.env.timeout(min(left, self.horizon) if self.scheduler.queue.preempts else left)
            self.since = cause, self.env.cycle
            yield event | timer
            self.cycles[cause] += self.env.cycle - self.since[1]
            self.since = None
            self.env.abandon(timer)
            self.resumed(None)
        self.waits[cause] += 1

    def leave(self) -> None:
        """Give the core back."""
        self.spaces.leave()
        self.scheduler.release(self._core, self.index)
        self._core = -1

    def replay(self, kernel: GuestKernel, monitor: Monitor) -> Steps[None]:
        """Make every access of its part of the stream, and the operations between them; pause with the others.

        The `kernel` makes the operations, and the `monitor` handles exits, page faults among them.

        Raises
        ------
        Stopped
            The VM has ended.
        """
        crew = self.crew
        runs = self.runs = Runs(self.hardware, self, kernel, monitor)
        for chunk in self.stream.chunks(self.number) if self.number < self.stream.threads else ():
            runs.begin(chunk)
            position, turn, events = 0, 0, chunk.events
            while position < len(chunk.address) or turn < len(events):
                due = turn < len(events) and events[turn].position == position
                if position < len(chunk.address) and not (due and not runs.makes(events[turn])):
                    stop = crew.pause_at(chunk, position, turn)
                    position, turn = yield from self._access(runs, chunk, position, turn, stop, monitor)
                    while crew.due:
                        yield from crew.pauses.pop(0)[1](self)
                if turn < len(events) and events[turn].position == position:
                    yield from self._operate(events[turn], kernel, monitor)
                    turn += 1
            crew.progress(crew.done)
        runs.collect()
        self.runs = None  # and with it the last chunk
        yield from self._take_interrupts(between=True)

    def _access(
        self, runs: Runs, chunk: Chunk, cursor: int, turn: int, limit: int, monitor: Monitor
    ) -> Steps[tuple[int, int]]:
        """Make the accesses [cursor, limit) of a chunk, or as many as there are before a pause.

        The operations between them, from number `turn` on, are carried out up to the first that the kernel's process
        has to make. Returns the next access and the next operation.
        """
        crew, env, counted, ends = self.crew, self.env, cursor, self.scheduler.slice_end
        shares = crew.threads > 1
        runs.expect()
        ready = False  # the next access has what it needs, or had when this vCPU last looked
        while cursor < limit:
            if self.interrupts or crew.stopped:
                yield from self._take_interrupts(between=True)
            at_once = ready and self._imposed  # or others may undo it again and again
            owed = self.owed
            budget, ahead = ends[self._core] - env.cycle - owed, self.horizon - owed
            if budget <= 0 and not at_once:
                runs.collect()
                yield from self._next_slice()
                continue
            if ahead <= 0 and not at_once:
                yield self.settle()
                ready = True
                continue
            budget = min(budget, ahead)
            first, stop = cursor, limit
            if budget <= 0:
                budget, stop = 1, cursor + 1
            if monitor.reloads and not monitor.may_enter(self):
                yield from monitor.reload(self)
                continue
            self.enters()
            ended = runs(self._core, cursor, turn, stop, budget, max(env.next - env.cycle - owed, owed == 0))
            reason, cursor, cycles, gva, gpa, code, status, value, spent, ready, turn, _ = ended
            self.owed += cycles
            if reason > _BUDGET or status != NONE:
                times, write = int(chunk.count[cursor]), bool(chunk.kind[cursor] == _WRITE)
                exit = Exit(reason, gva, gpa, code, times, write, status, value, spent)
                if (yield from self._handling(monitor, exit)) is Resume.MADE:
                    self._count_made(times, write)
                    cursor += 1
                runs.expect()
                ready = True
            if cursor > first:
                self._imposed = False
            if reason == OPERATION_DUE:
                break
            if reason == SETTLEMENT_DUE:
                yield self.settle()
            if shares and crew.pauses:
                crew.done += int(chunk.count[counted:cursor].sum())
                counted = cursor
                if crew.due:
                    break
        runs.collect()
        crew.done += int(chunk.count[counted:cursor].sum())
        return cursor, turn

    def _handling(self, monitor: Monitor, exit: Exit) -> Steps[Resume]:
        """Return the steps in which the monitor handles an exit."""
        return monitor.handle(self, exit)

    def _take_interrupts(self, *, between: bool = False) -> Steps[None]:
        """Do what was asked for by interrupts; `between` two accesses, or at work for one of them.

        Raises
        ------
        Stopped
            The VM has ended.
        """
        if self.crew.stopped:
            self.crew.cut_short |= not between
            raise Stopped
        yield from self.serve()

    def serve(self) -> Steps[None]:
        """Do what interrupts ask for, one after the other, unless that is under way."""
        if self._serving:
            return
        self._serving = True
        while self.interrupts:
            yield from self.interrupts[0](self)
            self.interrupts.popleft()
        self._serving = False

    def _count_made(self, times: int, write: bool) -> None:
        """Count accesses that the monitor has made for the guest."""
        counters, compute = self.registers[0]["counters"], times * self.registers[0]["compute"]
        counters[Count.ACCESSES] += times
        counters[Count.WRITES] += times * write
        counters[Count.COMPUTE_CYCLES] += compute
        self.owed += int(compute)

    def _next_slice(self) -> Steps[None]:
        """Settle, and let a waiting vCPU have the core."""
        yield self.settle()
        self.slice_ended()
        if self.scheduler.passes_on(self.index):
            self.leave()
            yield from self.enter(woken=False)
        else:
            self.spaces.exited()  # the timer's interrupt is the host's
            self.scheduler.slice_end[self._core] = self.env.cycle + self.quantum

    def _check_time(self) -> None:
        """Refuse to go on where cycles no longer fit their counters."""
        if self.now >= _END_OF_TIME:
            raise InputError(
                f"workload {self.stream.name}: its operations take more than {_END_OF_TIME:,} cycles of simulated time."
            )

    def _operate(self, event: Event, kernel: GuestKernel, monitor: Monitor) -> Steps[None]:
        """Carry out an operation that is no access."""
        op, pid, address, length, argument = event.op, event.pid, event.address, event.length, event.argument
        if self.runs:
            self.runs.drain()
        if op == Op.COMPUTE:
            self.owe("compute", argument)
            self._check_time()
            return
        yield from self._take_interrupts(between=True)
        if op == Op.BARRIER:
            if others := self.crew.arrive():
                yield from self.wait(others, "barrier_wait")
            return
        if op == Op.THREAD:
            kernel.switch_thread(self)
            self._check_time()
            return
        monitor.system_call(self, op.name.lower(), pid)
        self._check_time()
        if self.runs and self.runs.settles(op):
            yield self.settle()
            yield from self._take_interrupts(between=True)  # that others have sent by then
        if op in FILE_OPERATIONS:
            yield from operate_on_file(self, kernel.files, event, self.stream.name)
            return
        kernel.editing += 1
        match op:
            case Op.MAP:
                yield from kernel.map(self, pid, address, length, argument)
            case Op.UNMAP:
                yield from kernel.unmap(self, pid, address, length)
            case Op.PROTECT:
                yield from kernel.protect(self, pid, address, length, argument)
            case Op.BRK:
                yield from kernel.set_break(self, pid, address)
            case Op.FORK:
                yield from kernel.fork(self, pid, argument)
            case Op.EXEC:
                yield from kernel.execute(self, pid)
            case Op.EXIT:
                yield from kernel.exit(self, pid)
            case Op.SHARE:
                yield from kernel.share(self, pid, argument)
            case Op.MOVE:
                yield from kernel.move(self, pid, address, length, argument)
            case Op.DISCARD:
                yield from kernel.discard(self, pid, address, length, argument != 0)
            case Op.ADVISE:
                yield from kernel.advise(self, pid, address, length, argument)
            case Op.POPULATE:
                yield from kernel.fault_in(self, pid, address, length)
            case Op.SWITCH:
                yield from kernel.switch(self, pid)
            case Op.IO if pid in kernel.processes:
                yield from kernel.bring_in(self, pid, address, length)
                monitor.io_exit(self)
                yield self.settle()
                gfns = yield from kernel.buffer(self, pid, address, length)
                yield from self.wait(self.device(gfns, argument), "io_wait")
        kernel.editing -= 1
