"""A guest written out by hand under a shadow monitor: no simulation, no clock; and the same guest on bare hardware."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import combinations
from random import Random
from typing import Any

import numpy as np

from tests.oracle.bits import ADDRESS, PS, RW, US, P, span
from tests.oracle.shadow import BareGuest
from vmsim.base import ledger
from vmsim.contracts import PagePrices
from vmsim.frames.buddy import allocate, allocate_many, free, make_zone
from vmsim.frames.records import NO_FRAME, State
from vmsim.frames.stack import Stack
from vmsim.host.guest_memory import GuestMemory
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.machine.layout import Geometry, Unit, make_cores, make_llc, make_vm
from vmsim.machine.memory import physical_memory
from vmsim.machine.tags import Spaces, Tags
from vmsim.machine.vcpu import Reason, run
from vmsim.machine.vm_spaces import VmSpaces
from vmsim.monitor.backing.pages import HostPages
from vmsim.monitor.shadow.mode import ShadowSpec
from vmsim.monitor.shadow.monitor import Shadow
from vmsim.scenario.cpu_files import load_cpu
from vmsim.scenario.dirty_log import DirtyLogSpec

OWNER = 3
CORE = Geometry(
    [Unit(4, 2), Unit(2, 2), Unit(1, 2)],
    [Unit(8, 2)],
    Unit(4, 2),
    Unit(4, 2),
    Unit(8, 4),
    l2_home=(0, 0, -1),
    pwc={"pde": Unit(2, 2), "pdpte": Unit(1, 2)},
)


def figures_of(part: Any) -> dict[tuple[str, str], int]:
    """Return what a monitor, or another part of a VM, has counted, by component and figure."""
    counters = ledger.Ledger()
    part.register(counters)
    return {(component, figure): value for component, figure, value in counters.read().rows()}


class Words(dict[int, int]):
    """Memory as the oracle reads it: words by hpa."""

    def __init__(self, memory: np.ndarray) -> None:
        super().__init__()
        self.memory = memory

    def get(self, hpa: int, _: int = 0) -> int:  # type: ignore[override]
        return int(self.memory[hpa >> 3])


class Ledger:
    """A vCPU that only adds up."""

    number = 0
    left = 1  # it never has to settle
    kind = 0
    running = False

    def __init__(self, registers: np.ndarray, spaces: Spaces) -> None:
        self.now = 0
        self.registers = registers
        self.spaces = spaces
        self.first_touch: Counter[str] = Counter()

    def first(self) -> AbstractContextManager[None]:
        return nullcontext()

    def owe(self, cause: str, cycles: int) -> None:
        assert cause == "exit"
        self.now += cycles

    def impose(self, cycles: int) -> None:
        self.owe("exit", cycles)

    def settle(self) -> None:
        return None

    def kick(self, vcpus: Any, paid: Any) -> int:
        return 0  # none runs

    def kick_others(self) -> int:
        return 0  # there are none

    def wait(self, event: Any, cause: str) -> Generator[Any, Any, Any]:
        raise AssertionError("the pool is never empty here")


class Host:
    def __init__(self, size: int) -> None:
        self.zone, self.frames = make_zone(size)
        self.failures: Counter[tuple[int, int]] = Counter()

    def take_block(self, owner: int, order: int, state: State) -> int:
        return int(allocate(self.zone, self.frames, order, int(state), owner))

    def give_block(self, pfn: int, order: int) -> None:
        free(self.zone, self.frames, pfn, order)


class Pool:
    """A pool that is as large as the host."""

    floor = 0
    prices = PagePrices(page=295, copied=295, table=0, large=(2435 + 1650, 1438))  # of a pool, on the yardstick

    def __init__(self, host: Host) -> None:
        self.host = host
        self.pages = Stack()

    @property
    def level(self) -> int:
        return len(self.pages) + int(self.host.zone["free"][0])

    def reach(self, count: int) -> int:
        return min(count, self.level)

    def take(self, count: int) -> list[int]:
        while len(self.pages) < count:
            pfn = np.empty(1, np.int64)
            assert allocate_many(self.host.zone, self.host.frames, 0, int(State.POOL), OWNER, pfn) == 1
            assert pfn[0] != NO_FRAME
            self.pages.put([int(pfn[0])])
        return [self.pages.pop() for _ in range(count)]

    def take_block(self, order: int) -> int:
        return self.host.take_block(OWNER, order, State.GUEST)

    def put(self, pages: list[int]) -> None:
        self.pages.put(pages)


class World:
    """A guest of `frames` frames, its monitor, a core, and the guest's twin on bare hardware."""

    def __init__(
        self,
        spec: ShadowSpec,
        *,
        frames: int = 2048,
        levels: int = 4,
        host_order: int = 0,
        chunk: int = 1,
        entries: int = 0,
        size: int = 8192,
        pcid: bool = False,
        backed: bool = True,
        log: DirtyLogSpec | None = None,
    ) -> None:
        self.memory = physical_memory(size)
        self.host = Host(size)
        self.pool = Pool(self.host)
        self.cores = make_cores(CORE, 1)
        self.llc = make_llc(CORE)
        self.walked = max(levels, 3)  # the shadow's: of 32-bit guests, PAE's
        self.registers = self.make_registers(levels)
        spaces = Tags(self.cores, limit=100, amd=False).spaces(
            self.registers, OWNER, tags="vpid", apart="tag" if pcid else None
        )
        self.vcpu = Ledger(self.registers, spaces)
        costs = load_cpu("yardstick").cost
        slot = GuestMemory(self.host, self.memory, owner=OWNER, pages=frames)  # type: ignore[arg-type]
        host_pages = self.host_pages(slot, owner=OWNER, page_order=host_order, costs=costs, chunk=chunk)
        each = VmSpaces([spaces])
        rest = {"chunk": chunk, "entries": entries, "costs": costs, "spaces": each, "levels": levels}
        self.shadow = self.monitor(host_pages, spec, **rest, **({"log": log} if log else {}))
        self.spec = spec
        self.bare = BareGuest(frames, levels)
        self.delivered: int | None = None
        self.shadow.deliver = self._deliver  # type: ignore[assignment]
        self.drive(self.shadow.create(self.vcpu))  # type: ignore[arg-type]
        self.shadow.provide(self.pool.take(Shadow.first_frames))
        if backed:
            self.shadow.host_pages.populate()
        spaces.enter(0)
        self.root = 0

    def make_registers(self, levels: int) -> np.ndarray:
        """Return the registers of the processor that walks the shadow."""
        registers = make_vm()
        registers["levels"] = 2 if self.walked == 3 else levels  # PDPTEs are kept in registers
        return registers

    def host_pages(self, slot: GuestMemory, **rest: Any) -> HostPages:
        """Return where guest memory comes from."""
        return HostPages(self.memory, self.host, self.pool, slot, **rest)  # type: ignore[arg-type]

    def monitor(self, host_pages: HostPages, spec: ShadowSpec, **rest: Any) -> Shadow:
        """Return the monitor under test."""
        return Shadow(self.memory, self.registers, host_pages, spec=spec, **rest)

    def hpa(self, gpa: int) -> int | None:
        """Return where the host says that a gpa lies."""
        word = int(self.shadow.backing[gpa >> PAGE_SHIFT])
        return word & ADDRESS | gpa & 0xFFF if word & P else None

    def violation(self, gpa: int, code: int) -> None:
        """Handle a fault of the second dimension, which a shadow has not."""
        raise AssertionError(hex(gpa))

    def _deliver(self, vcpu: Any, gva: int, code: int) -> Iterator[None]:
        self.delivered = code
        return iter(())

    def drive(self, process: Generator[Any, Any, Any]) -> Any:
        """Run a process that never waits for anything."""
        while True:
            try:
                next(process)
            except StopIteration as end:
                return end.value

    @property
    def exits(self) -> dict[str, int]:
        return {reason: count for reason, count in self.shadow.exits.items() if count}

    def store(self, *pairs: tuple[int, int]) -> None:
        """Store entries, (gpa, value) each, on both machines."""
        if self.bare.size == 4:
            pairs = tuple((gpa, value & 0xFFFF_FFFF) for gpa, value in pairs)
        places, values = (np.array([pair[n] for pair in pairs], np.int64) for n in (0, 1))
        self.drive(self.shadow.write(self.vcpu, places, values))
        for gpa, value in pairs:
            self.bare.store(gpa, value)

    def load(self, *places: int) -> list[int]:
        """Load entries; both machines must give the same."""
        values = self.drive(self.shadow.read(self.vcpu, np.array(places, np.int64))).tolist()
        assert values == [self.bare.words.get(place, 0) for place in places]
        return values

    def clear(self, gfn: int) -> None:
        self.drive(self.shadow.clear(self.vcpu, gfn << PAGE_SHIFT, 0, table=True))
        self.bare.clear(gfn)

    def load_root(self, root: int, *, keep: bool = False) -> None:
        self.drive(self.shadow.load_root(self.vcpu, root, 0, keep=keep))
        self.root = root
        self.bare.load_root(root)

    def flush(self) -> None:
        self.drive(self.shadow.flush(self.vcpu))
        self.bare.load_root(self.root)

    def invalidate(self, first: int = 0, last: int = (1 << 47) - 1) -> None:
        self.drive(self.shadow.invalidate(self.vcpu, first, last))

    def access(self, gva: int, write: bool = False) -> int | None:
        """Make an access on both machines; return the error code of the fault that the guest gets, or None."""
        code = self.attempt(gva, write)
        bare = self.bare.walk(self.root, gva, write)
        assert code == (bare if isinstance(bare, int) else None), (code, bare)
        return code

    def attempt(self, gva: int, write: bool) -> int | None:
        """Make an access under the monitor alone."""
        stream = np.array([gva], np.int64), np.array([1], np.int32), np.array([write], np.uint8)
        code = None
        for _ in range(12):
            reason, _, _, fault, gpa, bits = run(
                self.cores, 0, self.llc, self.registers, self.memory, *stream, 0, 1, 1 << 40
            )
            if reason == Reason.VIOLATION:
                self.violation(gpa, bits)
                continue
            if reason != Reason.GUEST_FAULT:
                break
            assert fault == gva
            self.delivered = None
            if self.drive(self.shadow.page_fault(self.vcpu, gva, bits, 1)):
                break
            if self.delivered is not None:
                code = self.delivered
                break
        else:
            raise AssertionError("the access never ends")
        return code

    def leaves(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield (gva, level, hpa, rights) of all that the shadow maps, found by reading its tables."""
        words = Words(self.memory)

        def below(table: int, level: int, gva: int, rights: int) -> Iterator[tuple[int, int, int, int]]:
            entries = self.memory[table >> 3 : (table >> 3) + 512]
            for number in np.flatnonzero(entries).tolist():
                entry = words.get(table + 8 * number)
                here = gva + number * span(level)
                assert entry & P
                if level == 1 or entry & PS:
                    yield here, level, entry & ADDRESS, rights & entry
                else:
                    if level == 3 == self.walked:
                        entry |= RW | US  # a PDPTE of PAE has no rights
                    yield from below(entry & ADDRESS, level - 1, here, rights & entry)

        yield from below(int(self.registers["cr3"][0]), self.walked, 0, P | RW | US)

    def audit(self) -> int:
        """The shadow is guest∘host wherever it is present, and gives no more rights; return how much it maps."""
        count = 0
        frames = self.host.frames
        for gva, level, hpa, rights in self.leaves():
            count += 1
            for offset in (0, span(level) - 4096):
                found = self.bare.walk(self.root, gva + offset, False, mark=False)
                assert not isinstance(found, int) or not rights & US, (hex(gva), found)
                if isinstance(found, int):
                    continue
                assert self.hpa(found[0]) == hpa + offset
                if rights & RW:
                    assert not isinstance(self.bare.walk(self.root, gva + offset, True, mark=False), int)
                    held = set(self.guarded_frames())
                    assert self.spec.ad == "read-sync" or found[1] & 1 << 6
                    assert found[0] >> PAGE_SHIFT not in held or not rights & US or not rights & RW
                pfn = hpa + offset >> PAGE_SHIFT
                assert (frames["owner"][pfn], frames["state"][pfn]) == (OWNER, State.GUEST)
        return count

    def guarded_frames(self) -> Iterator[int]:
        pages = self.shadow.pages
        for page in pages[(pages["level"] > 0) & (pages["origin"] < 0) & (pages["unsync"] == 0)]:
            yield int(page["gfn"])

    def conserved(self) -> None:
        """Every frame of the VM is a nested table, guest memory, a shadow page, in stock or in the pool."""
        shadow, frames = self.shadow, self.host.frames
        pages = shadow.pages[shadow.pages["level"] > 0]
        used = (pages["hpa"] >> PAGE_SHIFT).tolist()
        pointers = int(shadow.cpus["pae_root"][0]) >> PAGE_SHIFT
        stock = shadow.of[0].stock[: int(shadow.cpus["stock"][0])].tolist()
        assert len(used) == int(shadow.state["used"][0]) <= self.spec.limit
        pooled = self.pool.pages.held().tolist()
        assert len(set(used + stock + pooled)) == len(used) + len(stock) + len(pooled)
        assert (frames["state"][used] == State.TABLE).all()
        assert (frames["state"][stock + pooled] == State.POOL).all()
        mine = Counter(frames["state"][(frames["owner"] == OWNER) & (frames["state"] != State.FREE)].tolist())
        assert mine[State.POOL] == len(stock) + len(pooled)
        assert mine[State.TABLE] == len(used) + self.nested_tables() + (pointers >= 0)
        assert (pointers >= 0) == (self.walked == 3)
        assert pointers not in used + stock + pooled
        # The links: every entry is in the list of what it points to, once.
        present = {
            page << 9 | int(at)
            for page in np.flatnonzero(shadow.pages["level"] > 0).tolist()
            for at in np.flatnonzero(self.memory[int(shadow.pages["hpa"][page]) >> 3 :][:512])
        }
        linked: list[int] = []
        heads = [*shadow.gfns["leaves"][shadow.gfns["leaves"] > 0], *pages["parents"][pages["parents"] > 0]]
        for head in heads:
            node = int(head)
            while node:
                linked.append(node - 1)
                node = int(shadow.tables.links["next"][node - 1])
        assert sorted(linked) == sorted(present)

    def nested_tables(self) -> int:
        """Return how many tables lead from gpas to hpas: none does."""
        return 0


def all_pairs(choices: dict[str, list[Any]], allowed: Any) -> list[dict[str, Any]]:
    """Return combinations in which every pair of choices that is allowed occurs."""
    random = Random(1)

    def pairs(each: dict[str, Any]) -> set[tuple[Any, ...]]:
        return {(a, each[a], b, each[b]) for a, b in combinations(choices, 2)}

    some = [{name: random.choice(values) for name, values in choices.items()} for _ in range(1000)]
    covers = [(each, pairs(each)) for each in some if allowed(each)]
    missing = set().union(*(covered for _, covered in covers))
    picked = []
    while missing:
        best = max(covers, key=lambda cover: len(cover[1] & missing))
        picked.append(best[0])
        missing -= best[1]
    return picked


__all__ = ["OWNER", "World", "all_pairs"]
