"""Whatever VMs do on whatever host: does it end, with the invariants whole and every frame accounted for?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.simulation.drawn import (
    BALLOONS,
    FETCH,
    FILES,
    GUEST_RECLAIM,
    GUEST_THP,
    HOTPLUG,
    KSM,
    MODES,
    MOVES,
    OVERCOMMIT,
    PAGES,
    QUICK,
    RECLAIM,
    SCANS,
    SHARED_ALLOCATOR,
    SWAP,
    THP,
    base_of,
    conserved,
    conserved_spoilt,
    times_add_up,
)
from tests.simulation.small import PAGE, READ, WRITE, Script, Threads, divided, run, scenario, touches, vm
from vmsim.engine.simulation import Simulation


class Hosts(RuleBasedStateMachine):
    """Draw a host, then VMs with their scripts step by step; each run must end well, and may then go on with more."""

    operations = 0  # that VMs have made in all runs

    @initialize(
        frames=st.integers(120, 700),
        cores=st.integers(1, 3),
        quantum=st.sampled_from(["3us", "20us", "1ms"]),
        scheduler=st.sampled_from(["round-robin", "fair", "credit"]),
        pool=st.tuples(st.integers(0, 20), st.integers(1, 40), st.integers(1, 40)),
        supply=st.sampled_from(["grant", "grant", "fault"]),
        low=st.integers(1, 60),
        fragmentation=st.sampled_from([0, 0, 0.6, 1]),
        reclaim=st.sampled_from(RECLAIM),
        ksm=st.sampled_from(KSM),
        swap=st.sampled_from(SWAP),
        thp=st.sampled_from(THP),
        esx=st.sampled_from(OVERCOMMIT),
        nodes=st.sampled_from([0, 0, 2, 3]),
        moves=st.sampled_from(MOVES),
    )
    def host(
        self,
        frames: int,
        cores: int,
        quantum: str,
        scheduler: str,
        pool: tuple[int, int, int],
        supply: str,
        low: int,
        fragmentation: float,
        reclaim: dict[str, Any],
        ksm: dict[str, Any],
        swap: dict[str, Any],
        thp: dict[str, Any],
        esx: dict[str, Any],
        nodes: int,
        moves: dict[str, Any],
    ) -> None:
        marks = {"min": low * PAGE, "low": (low + 5) * PAGE, "high": (low + 20) * PAGE}
        self.keys: dict[str, Any] = {
            "memory": frames * PAGE,
            "cores": cores,
            "quantum": quantum,
            "scheduler": scheduler,
            "watermarks": marks,
            "pool": {"min": min(pool[:2]), "max": max(pool[:2]), "batch": pool[2]}
            if supply == "grant"
            else {"supply": supply},
            "what_if": True,
            "cpu_override": {"cost": QUICK},
        }
        if frames > 2 * (low + 60):
            self.keys["fragmentation"] = fragmentation
        if reclaim and pool[0] + pool[1] < 20:  # and what one access needs is to be had, whatever pools keep
            self.keys |= {"reclaim": reclaim, "memory": (frames + 500) * PAGE}
        if thp:
            self.keys |= {"thp": thp, "memory": self.keys["memory"] + 1500 * PAGE}
        if ksm:
            self.keys["ksm"] = ksm
        if swap:
            self.keys["swap"] = swap
        if esx:
            self.keys["esx"] = esx | {"sample_period": "40us"}
            # who looks more often than a page comes back from the device takes it away before it is used, for ever
            self.keys["overcommit"] = {"policy": "esx", "every": "1ms" if swap else "20us"}
        if nodes:
            self.keys |= divided(self.keys["memory"] // PAGE, cores, nodes)
            tiers = any(not each["cpus"] for each in self.keys["nodes"])
            self.keys |= {name: table for name, table in moves.items() if tiers or name == "numa_balancing"}
            if not tiers and moves:
                self.keys["numa_balancing"] = SCANS | {"mode": "normal"}
        self.tables: list[dict[str, Any]] = []
        self.scripts: list[list[list[Any]]] = []  # of each VM's threads
        self.ran = 0

    @precondition(lambda self: len(self.tables) < 4)
    @rule(
        keys=st.sampled_from(MODES),
        populate=st.sampled_from(["lazy", "lazy", "eager"]),
        memory=st.integers(16, 200),
        levels=st.tuples(st.sampled_from([4, 5]), st.sampled_from([4, 5])),
        start=st.integers(0, 300_000),
        lives=st.sampled_from([None, None, None, 1, 50_000, 400_000]),
        vcpus=st.sampled_from([1, 1, 2, 3, 4]),
        balloon=st.sampled_from(BALLOONS),
        files=st.sampled_from(FILES),
        kernel=st.sampled_from(GUEST_RECLAIM),
        numa=st.sampled_from(["local", "interleave", 1]),
        tables=st.sampled_from([None, "replicate", "migrate"]),
        spread=st.booleans(),
        hotplug=st.sampled_from(HOTPLUG),
        hints=st.booleans(),
        huge=st.sampled_from(GUEST_THP),
        shared=st.sampled_from(({}, {}, *SHARED_ALLOCATOR)),
    )
    def add(
        self,
        keys: dict[str, Any],
        populate: str,
        memory: int,
        levels: tuple[int, int],
        start: int,
        lives: int | None,
        vcpus: int,
        balloon: dict[str, Any],
        files: dict[str, Any],
        kernel: dict[str, Any],
        numa: str | int,
        tables: str | None,
        spread: bool,
        hotplug: dict[str, Any],
        hints: bool,
        huge: dict[str, Any],
        shared: dict[str, Any],
    ) -> None:
        paired = keys.get("paired", {})
        process = not paired.get("guest", True) or "guest_at" in paired
        given = {"guest_levels": levels[0]} | keys
        table = vm(
            f"vm{len(self.tables)}",
            populate=populate,
            memory=memory * PAGE,
            start=f"{start} cycles",
            vcpus=vcpus,
            workload={"base": base_of(given)},
            **given,
            **({"content": {"image": "x", "image_share": 0.7}} if "ksm" in self.keys else {}),
        )
        if tables == "migrate" and (numa == "interleave" or "numa_balancing" not in self.keys):
            tables = None
        if "nodes" in self.keys:
            table["numa"] = {"memory": numa} | ({"tables": tables} if tables else {})
        if lives:
            table["stop"] = f"{start + lives} cycles"
        if "guest_at" in paired:
            table["vcpus"] = vcpus = 1  # refused on more
        if spread and vcpus >= sum(each["cpus"] > 0 for each in self.keys.get("nodes", ())) > 0:
            table["numa"]["node"] = "all"
        if balloon and keys["mode"] != "native" and not process:
            table["balloon"] = balloon
            if "esx" in self.keys and "size" in balloon:
                table["balloon"] = {"max": memory // 2 * PAGE, "message": 3, "deflate_on_oom": True}
        if hints and "dirty_log" in keys:
            table["balloon"] = {**table.get("balloon", {}), "hinting": True}
            table["balloon"].pop("driver", None)
        if hotplug and keys["mode"] != "native" and not process:  # of 4 MiB; with large pages of 6
            table["virtio_mem"] = hotplug
            memory = 512 if "host_page" not in keys and "thp" not in self.keys else 1024
            table |= {"memory": (512 + memory) * PAGE, "populate": "lazy"}
        if shared and keys["mode"] != "native" and not process:  # of which there must be a few huge frames
            table |= {"bilateral": shared, "memory": (1536 + memory) * PAGE, "populate": "lazy"}
        if files:
            table["files"] = files
        if kernel and keys["mode"] != "native" and not process:
            table["reclaim"] = kernel
        if keys["mode"] in ("ept", "npt"):
            table["host_levels"] = levels[1]
        if not paired.get("guest", True) or "guest_at" in paired:
            table["populate"] = "lazy"
        if ("host_page" in keys or "thp" in self.keys) and not table.keys() & {"virtio_mem", "bilateral"}:
            table["memory"] = (512 + memory) * PAGE
        if (
            "thp" in self.keys
            and levels[0] == 4
            and given["guest_levels"] > 2
            and not process
            and "guest_page" not in keys
        ):
            table["thp"] = huge
        self.tables.append(table)
        self.scripts.append([[("touch", 0, READ), *touches(range(2))] for _ in range(vcpus)])

    @precondition(lambda self: self.tables)
    @rule(
        which=st.integers(0, 3),
        pages=st.lists(st.integers(0, PAGES), min_size=1, max_size=30),
        kind=st.sampled_from([READ, WRITE, FETCH]),
        times=st.integers(1, 2000),
    )
    def touch(self, which: int, pages: list[int], kind: int, times: int) -> None:
        self.script(which).extend(("touch", page, kind, times) for page in pages)

    @precondition(lambda self: self.tables)
    @rule(which=st.integers(0, 3), first=st.integers(0, PAGES), count=st.integers(1, PAGES))
    def touch_in_order(self, which: int, first: int, count: int) -> None:
        self.script(which).extend(("touch", page, WRITE) for page in range(first, first + count))

    @precondition(lambda self: self.tables)
    @rule(
        which=st.integers(0, 3),
        what=st.sampled_from(["unmap", "map"]),
        page=st.integers(0, PAGES),
        count=st.integers(1, 50),
    )
    def unmap(self, which: int, what: str, page: int, count: int) -> None:
        self.script(which).append((what, page, count))

    @precondition(lambda self: self.tables)
    @rule(which=st.integers(0, 3))
    def ask_for_huge_pages(self, which: int) -> None:
        self.script(which).append(("advise", 0, 512, 14))

    @precondition(lambda self: self.tables)
    @rule(which=st.integers(0, 3), first=st.integers(0, PAGES), count=st.integers(1, 40), time=st.integers(0, 200_000))
    def read_from_a_device(self, which: int, first: int, count: int, time: int) -> None:
        self.script(which).append(("io", first, count, time))

    @precondition(lambda self: self.tables)
    @rule(
        which=st.integers(0, 3),
        writes=st.lists(st.integers(0, PAGES), min_size=1, max_size=10),
        reads=st.lists(st.integers(0, PAGES), min_size=1, max_size=10),
    )
    def fork(self, which: int, writes: list[int], reads: list[int]) -> None:
        if "guest_at" in self.tables[which % len(self.tables)].get("paired", {}):
            return  # a VM's process on Akaros has no children
        child = 2 + sum(map(len, self.scripts[which % len(self.scripts)]))
        steps = [("fork", child), ("switch", child), *touches(writes, WRITE), *touches(reads), ("exit", child)]
        self.script(which).extend([*steps, ("by", 1)])

    @precondition(lambda self: self.tables)
    @rule(
        which=st.integers(0, 3),
        what=st.sampled_from(["read_file", "read_file", "write_file", "drop_file", "sync_file"]),
        place=st.tuples(st.integers(0, 1), st.integers(0, 300_000), st.integers(1, 150_000)),
    )
    def use_a_file(self, which: int, what: str, place: tuple[int, int, int]) -> None:
        if "files" in self.tables[which % len(self.tables)]:
            self.script(which).append((what, *place) if what != "sync_file" else (what, place[0]))

    @precondition(lambda self: self.tables)
    @rule(which=st.integers(0, 3), cycles=st.integers(0, 200_000))
    def compute(self, which: int, cycles: int) -> None:
        self.script(which).append(("compute", cycles))

    def script(self, which: int) -> list[Any]:
        threads = self.scripts[which % len(self.scripts)]
        return min(threads, key=len)  # each has its turn

    @property
    def drawn(self) -> int:
        """Return how many operations there are."""
        return sum(len(steps) for threads in self.scripts for steps in threads)

    @precondition(lambda self: self.drawn > self.ran)
    @rule(chunk=st.sampled_from([1, 7, 1 << 16]), warmup=st.sampled_from(["0%", "30%", 5]))
    def go(self, chunk: int, warmup: str | int) -> None:
        streams = [
            Threads([Script(steps, chunk=chunk, base=base_of(table)) for steps in threads])
            for table, threads in zip(self.tables, self.scripts, strict=True)
        ]
        if warmup == 5 and min(stream.accesses for stream in streams) <= 5:
            warmup = "0%"  # or nothing would be left
        if any("stop" in table for table in self.tables):  # perhaps before the warm-up's end
            warmup = "0%"
        if isinstance(warmup, int):  # something must be left to measure
            warmup = max(0, min(warmup, *(stream.accesses - 1 for stream in streams)))
        what = scenario(*self.tables, warmup=warmup, **self.keys)
        free = Simulation(what, streams=streams).host.free
        simulation, outcome = run(what, streams, every=41_777, look=conserved_spoilt, events=10**6)
        self.ran = self.drawn
        Hosts.operations += self.drawn
        conserved(simulation)
        assert times_add_up(outcome, what)
        for figures, stream, table in zip(outcome.vms, streams, self.tables, strict=True):
            assert figures.finish >= figures.start
            if figures.finished:  # the warm-up ends with the run that its last access is in
                left_out = stream.accesses - figures.counters["accesses"]
                asked = what.warmup_accesses(stream.accesses)
                ahead = max(script.longest for script in stream.scripts)
                if stream.threads > 1:  # each may be ahead of what is known of it
                    ahead = stream.threads * (ahead + what.horizon)
                assert left_out == asked or 0 < asked < left_out < asked + ahead
            else:
                assert outcome.ending is not None or "stop" in table
        if outcome.ending is None:
            assert simulation.host.free == free
            assert not simulation.host.pins.any()
        else:
            assert outcome.ending.vm in [table["name"] for table in self.tables]
            assert 0 <= outcome.ending.time <= outcome.end

    def teardown(self) -> None:
        if getattr(self, "tables", None) and self.drawn > self.ran:
            self.go(1 << 16, "0%")


Hosts.TestCase.settings = settings(max_examples=50, stateful_step_count=12, deadline=None)
TestHosts = Hosts.TestCase
PARTS = 16


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_million_operations_break_nothing(part: int) -> None:
    """An operation is one of a VM's program: pages touched or unmapped, a fork, a file's pages read, and so on."""
    done, drawn = Hosts.operations, 0
    while Hosts.operations - done < 10**6 / PARTS:
        host = seed(part + PARTS * drawn)(type("Hosts", (Hosts,), {}))
        run_state_machine_as_test(host, settings=settings(max_examples=50, stateful_step_count=30, deadline=None))
        drawn += 1
