"""System calls that make processes and end them, and the switches between them: fork, vfork, execve, exit.

A process has as many threads as CPUs run it. It ends with the last of them; a CPU whose thread has ended is idle, and
keeps the address space in CR3 until the space is no more or another process is to run (Linux arch/x86/mm/tlb.c, "lazy
TLB mode").
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from vmsim.contracts import Steps, Vcpu
from vmsim.guest.calls import MemoryCalls
from vmsim.guest.flushes import Cpus
from vmsim.guest.locks import Held, Lock
from vmsim.guest.process import Process
from vmsim.guest.spaces import Space
from vmsim.scenario.cpu import Cost

__all__ = ["ProcessCalls"]


class ProcessCalls(MemoryCalls):
    """What a kernel does when processes begin, end or take turns."""

    costs: Cost
    cpus: Cpus
    dying: set[Space]  # spaces that are destroyed but for a root that some CPU has in CR3
    _idle: set[int]  # CPUs whose thread has ended
    _born: dict[int, Lock]  # processes that are being made, by pid: locked until they are

    @abstractmethod
    def _expect_nothing(self, cpu: int) -> None:
        """Have compiled code map nothing on a CPU until it is told what."""

    def fork(self, vcpu: Vcpu, pid: int, child: int) -> Steps[None]:
        """Fork: process `child` gets a copy of the address space, page by page when either writes."""
        with (yield from self._changing(vcpu, pid)) as space:
            if space and child not in self.processes and child not in self._born:
                vcpu.owe("guest_fault", self.costs.fork)
                with self._bear(child):
                    self.processes[child] = Process(child, pid, (yield from self.spaces.copy(vcpu, space)))

    def share(self, vcpu: Vcpu, pid: int, child: int) -> Steps[None]:
        """Vfork: process `child` uses the address space itself, until it replaces it (exec) or exits.

        It costs what a fork does but for its copying of entries (kernel/fork.c, copy_mm: CLONE_VM).
        """
        if (process := self.processes.get(pid)) and child not in self.processes and child not in self._born:
            vcpu.owe("guest_fault", self.costs.fork)
            process.space.users += 1
            self.processes[child] = Process(child, pid, process.space)
        return
        yield

    def execute(self, vcpu: Vcpu, pid: int) -> Steps[None]:
        """Execve: an empty address space in the place of the process's own, in which other threads of it go on."""
        if pid not in self.processes:
            return
        vcpu.owe("guest_fault", self.costs.exec)
        new = Space((yield from self.tables.new_root(vcpu)))
        with (yield from self._changing(vcpu, pid)) as old:
            if old is None:  # it has ended meanwhile
                yield from self.spaces.release(new, [])
                return
            process = self.processes[pid]
            process.space = new
            old.users -= 1
            yield from self._leave(vcpu, process)
            if not old.users:
                yield from self.spaces.destroy(vcpu, old)
                yield from self._release(vcpu, old)

    def exit(self, vcpu: Vcpu, pid: int) -> Steps[None]:
        """Exit: free all that a process has; its parent runs next, or the process of the lowest number.

        Of a process that other CPUs run, too, a thread ends. The last process leaves nothing to run: what it has goes
        when the VM does.
        """
        if pid not in self.processes or len(self.processes) == 1:
            return
        process, cpu = self.processes[pid], vcpu.number
        vcpu.owe("guest_fault", self.costs.exit)
        if any(each is process and other not in {cpu, *self._idle} for other, each in enumerate(self.current)):
            if self.current[cpu] is process:
                self._idle.add(cpu)
            return
        del self.processes[pid]
        space = process.space
        space.users -= 1
        alone = space.users == 0
        if alone:
            with (yield from space.lock.acquire(vcpu, write=True)):
                self._hold_back(vcpu, space)
                yield from self.spaces.destroy(vcpu, space)
        heir = self.processes[process.parent if process.parent in self.processes else min(self.processes)]
        for other, each in enumerate(self.current):
            if each is process and other != cpu:
                self.current[other] = heir
        self._tell(vcpu, heir)
        if self.current[cpu] is process:  # the dying process frees its memory itself, and leaves CR3 last
            yield from self.switch(vcpu, heir.pid)
        if self.current[cpu] is heir and self.cpus.loaded[cpu] is not heir.space:
            yield from self._catch_up(vcpu)
        if alone:
            yield from self._release(vcpu, space)

    def switch(self, vcpu: Vcpu, pid: int) -> Steps[None]:
        """Run another process; one that nobody has heard of starts with an empty address space."""
        cpu = vcpu.number
        self._idle.discard(cpu)
        if self.current[cpu] is self.processes.get(pid):  # and no dead one of the same number
            return
        while pid not in self.processes:
            if pid in self._born:  # by another CPU
                with (yield from self._born[pid].acquire(vcpu, write=False)):
                    continue
            with self._bear(pid):
                self.processes[pid] = Process(pid, 0, Space((yield from self.tables.new_root(vcpu))))
        vcpu.owe("guest_fault", self.costs.process_switch)
        self.current[cpu] = self.processes[pid]
        yield from self._catch_up(vcpu)  # of the same space CR3 stays (arch/x86/mm/tlb.c, switch_mm_irqs_off)

    def switch_thread(self, vcpu: Vcpu) -> None:
        """Run another thread of the process that runs: CR3 stays."""
        self._idle.discard(vcpu.number)
        vcpu.owe("guest_fault", self.costs.process_switch)

    @contextmanager
    def _bear(self, pid: int) -> Iterator[None]:
        """Have others that want to run a process wait until it is made."""
        lock = self._born[pid] = Lock()
        lock.take(write=True)
        try:
            yield
        finally:
            del self._born[pid]
            lock.release()

    def _leave(self, vcpu: Vcpu, process: Process) -> Steps[None]:
        """Have all CPUs that run a process load its address space, if they have another one in CR3."""
        self._tell(vcpu, process)
        if self.current[vcpu.number] is process and self.cpus.loaded[vcpu.number] is not process.space:
            yield from self._catch_up(vcpu)

    def _tell(self, vcpu: Vcpu, process: Process) -> None:
        """Have the other CPUs that run a process do so before they make another access."""
        for cpu, each in enumerate(self.current):
            target = self.cpus.vcpus[cpu]
            if each is process and self.cpus.loaded[cpu] is not process.space and target and cpu != vcpu.number:
                target.interrupt(self._catch_up)

    def _catch_up(self, vcpu: Vcpu) -> Steps[None]:
        """Load the address space of what a CPU runs, if it has another one in CR3."""
        space = self.current[vcpu.number].space
        self._expect_nothing(vcpu.number)
        if (left := self.cpus.loaded[vcpu.number]) is not space:
            yield from self.cpus.load(vcpu, space)
            if left in self.dying:
                yield from self._release(vcpu, left)

    def _release(self, vcpu: Vcpu, space: Space) -> Steps[None]:
        """Free the root of a destroyed space, or have the last CPU do so that leaves it (kernel/fork.c, mmdrop).

        A kernel's own accesses go through the root in CR3, whose upper half is its own.
        """
        self.dying.discard(space)
        if self.cpus.running(space):
            self.dying.add(space)
        else:
            yield from self.spaces.release(space, self.cpus.drop(vcpu, space))

    def _entries(self, vcpu: Vcpu, space: Space) -> Steps[Lock]:
        """Lock the entries of a space against other CPUs, which compiled code does not change meanwhile either."""
        if not space.entries.take(write=True):
            yield from space.entries.acquire(vcpu, write=True)
        self._hold_back(vcpu, space)
        return space.entries

    def _changing(self, vcpu: Vcpu, pid: int, *, entries: bool = False) -> Steps[AbstractContextManager[Space | None]]:
        while process := self.processes.get(pid):
            space = process.space
            if not space.lock.take(write=not entries):
                yield from space.lock.acquire(vcpu, write=not entries)
            if (again := self.processes.get(pid)) and again.space is space:
                break
            space.lock.release()  # it has replaced its space, or ended, while this CPU waited
        else:
            return nullcontext()
        if not entries:
            self._hold_back(vcpu, space)
            return Held(space, space.lock)
        return Held(space, (yield from self._entries(vcpu, space)), space.lock)

    def _hold_back(self, vcpu: Vcpu, space: Space) -> None:
        """Have compiled code map nothing on the other CPUs that run a space."""
        if len(self.current) > 1:
            for cpu in self.cpus.running(space):
                if cpu != vcpu.number:
                    self._expect_nothing(cpu)
