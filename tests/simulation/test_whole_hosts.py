"""Whatever VMs do on whatever host: does it end, with the invariants whole and every frame accounted for?"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.simulation.small import BASE, PAGE, READ, WRITE, Script, Threads, divided, run, scenario, touches, vm
from vmsim.engine.simulation import Simulation
from vmsim.frames.buddy import State
from vmsim.record.outcome import Outcome
from vmsim.scenario import Scenario

LAYOUTS = ("contiguous", "pointer", "separate", "shared")
RECLAIM: list[dict[str, Any]] = [
    {},
    {"rate": 20_000},
    {"rate": 100_000, "batch": 5},
    {"rate": 50_000, "policy": "clock"},
]
KSM: list[dict[str, Any]] = [
    {},
    {"run": 1, "sleep_millisecs": 0, "pages_to_scan": 40},
    {"run": 1, "sleep_millisecs": 0, "max_page_sharing": 2, "smart_scan": False},
]
BALLOONS: list[dict[str, Any]] = [
    {},
    {"size": 8 * PAGE, "message": 3},
    {"size": 6 * PAGE, "message": 2, "deflate_on_oom": True, "schedule": [["30us", 0], ["80us", 10 * PAGE]]},
    {"size": 4 * PAGE, "driver": False},
    {"reporting": True, "reporting_order": 0, "reporting_delay": "40us", "statistics": "50us"},
    {"reporting": True, "reporting_order": 1, "reporting_delay": "20us", "size": 5 * PAGE, "retry": "20us"},
]
HOTPLUG = ({}, {}, {}, {"region": "2MiB", "schedule": [["20us", 0], ["90us", "2MiB"]], "retry": "30us"})
QUICK = {"balloon_message": 20_000, "unplug_page": 2}  # of scripts that last for less than Linux's messages
SWAP: list[dict[str, Any]] = [
    {},
    {},
    {"device": "nvme"},
    {"device": "nvme", "policy": "mglru"},
    {"device": "zram", "size": "2MiB", "ratio": 3.0},
    {"device": "sata", "policy": "clock", "write_errors": 0.1},
    {"device": "nvme", "size": "64KiB", "read_errors": 0.01},
    {"device": "nvme", "zswap": True, "zswap_max_pool_percent": 3, "zswap_accept_threshold_percent": 50},
]
OVERCOMMIT: list[dict[str, Any]] = [
    {},
    {},
    {"high": 60.0, "soft": 50.0},
    {"high": 70.0, "soft": 60.0, "hard": 50.0, "low": 30.0, "sample_pages": 10},
]
QUICK_THP = {"enabled": "always", "scan_sleep_millisecs": 0, "alloc_sleep_millisecs": 0}
LIMITS = {"defrag": "never", "max_ptes_swap": 511, "max_ptes_shared": 511}
THP: list[dict[str, Any]] = [{}] * 3 + [
    QUICK_THP | each for each in ({"pages_to_scan": 512}, {"defrag": "defer"}, LIMITS)
]
FILES: list[dict[str, Any]] = [
    {},
    {},
    {"disk": "nvme", "dirty_background": 0, "dirty": 5},
    {"disk": "sata", "read_ahead": 4, "writeback_every": "30us", "dirty_expire": "10us"},
]
GUEST_RECLAIM: list[dict[str, Any]] = [
    {},
    {},
    {"policy": "two-list"},
    {"policy": "two-list", "swap": "nvme"},
    {"policy": "two-list", "swap": "nvme", "swap_size": "64KiB", "swappiness": 150, "page_cluster": 1},
]
PAGES = 60  # that a script reaches
MODES: list[dict[str, Any]] = [
    {"mode": "native"},
    {"mode": "ept"},
    {"mode": "npt"},
    {"mode": "npt", "host_page": "2M"},
    {"mode": "ept", "host_page": "2M", "dirty_log": {"method": "write-protect", "every": "20us", "stop": "70us"}},
    {"mode": "ept", "host_page": "2M", "nx_split": True, "nx_recovery_period": "20us", "nx_recovery_ratio": 1},
    {
        "mode": "ept",
        "host_page": "2M",
        "nx_split": True,
        "nx_recovery_period": "20us",
        "nx_recovery_ratio": 1,
        "dirty_log": {"method": "write-protect", "every": "15us", "stop": "50us"},
    },
    {"mode": "shadow", "shadow": {"preset": "kvm"}},
    {"mode": "shadow", "shadow": {"preset": "kvm-2007"}},
    {"mode": "shadow", "shadow": {"preset": "plex86", "limit": 16}},
    {"mode": "shadow", "guest_levels": 2},
    {"mode": "shadow", "guest_levels": 3, "shadow": {"preset": "plex86", "fill": "eager"}},
    {"mode": "shadow", "dirty_log": {"method": "write-protect", "every": "20us", "stop": "70us"}},
    {"mode": "agile", "agile": {"interval": "10us", "threshold": 2}},
    {"mode": "agile", "guest_levels": 3, "agile": {"interval": "10us", "threshold": 1}},
    {
        "mode": "agile",
        "agile": {"interval": "10us", "threshold": 2},
        "dirty_log": {"method": "write-protect", "every": "20us", "stop": "70us"},
    },
    {"mode": "vkernel"},
    {"mode": "vkernel", "guest_levels": 2},
    {"mode": "vkernel", "guest_levels": 3},
    *({"mode": "paired", "paired": {"layout": layout, "guest": True}} for layout in LAYOUTS),
    *({"mode": "paired", "paired": {"layout": layout, "guest": False}} for layout in LAYOUTS),
    *({"mode": "paired", "paired": {"layout": layout, "guest": True, "guest_at": 2}} for layout in LAYOUTS),
]


OLD = 0x1000_0000  # where a 32-bit program's addresses start


def base_of(table: dict[str, Any]) -> int:
    """Return where the addresses of a VM's program start."""
    return OLD if table.get("guest_levels", 4) < 4 else BASE


def times_add_up(outcome: Outcome, what: Scenario) -> bool:
    """Whether a VM's cycles by cause are its time, to the cycle; of several vCPUs each may live a part of it.

    Both are 0 where the warm-up ends with the run that the last access is in. One vCPU ends it, and what the others did
    by then is known when they settle, a horizon later at most, also where it is the VM's last moment.
    """
    late = 0 if what.warmup in (0, "0%") else what.horizon
    total = [(sum(each.cycles.values()), each.finish - each.start) for each in outcome.vms]
    counts = [spec.vcpus for spec in what.vms]
    return all(
        used == time
        if count == 1
        else used <= count * (time + late) and (used > 0 or not time) and (time > 0 or late > 0 or not used)
        for (used, time), count in zip(total, counts, strict=True)
    )


def conserved(simulation: Simulation) -> None:
    """Assert that free, pool, guest, table and host frames are all frames; no pool is over its maximum."""
    host = simulation.host
    owned = sum(sum(host.count(each.spec.index).values()) for each in simulation.vms)
    states = np.bincount(host.frames["state"], minlength=len(State))
    hosts_own = int(((host.frames["owner"] == -1) & (host.frames["state"] != State.FREE)).sum())
    assert host.free + owned + hosts_own == host.size == states.sum()
    for each in simulation.vms:
        if each.pool and each.pool.spec.supply == "grant":
            assert each.pool.level <= each.pool.spec.max + each.pool.wanted
    assert states[State.FREE] == host.free


SCANS: dict[str, Any] = {"scan_delay": "5us", "scan_period_min": "20us", "scan_period_max": "200us"}
SCANS["scan_size"] = "256KiB"
SAMPLES: dict[str, Any] = {"sample_interval": "5us", "aggr_interval": "20us", "max_nr_regions": 20}
DEMOTES = {"demotion": {"enabled": True, "scale_factor": 0.2}}
MOVES: list[dict[str, Any]] = [
    {},
    {},
    DEMOTES | {"numa_balancing": SCANS | {"mode": "both", "hot_threshold": "1ms"}},
    DEMOTES | {"damon": SAMPLES | {"action": "migrate_hot", "target": 0}},
    {"damon": SAMPLES | {"action": "migrate_cold", "target": 1}, "numa_balancing": SCANS | {"mode": "normal"}},
]


class Hosts(RuleBasedStateMachine):
    """Draw a host, then VMs with their scripts step by step; each run must end well, and may then go on with more."""

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
        hotplug=st.sampled_from(HOTPLUG),
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
        hotplug: dict[str, Any],
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
        if "nodes" in self.keys:
            table["numa"] = {"memory": numa}
        if lives:
            table["stop"] = f"{start + lives} cycles"
        if "guest_at" in paired:
            table["vcpus"] = vcpus = 1  # refused on more
        if balloon and keys["mode"] != "native" and not process:
            table["balloon"] = balloon
            if "esx" in self.keys and "size" in balloon:
                table["balloon"] = {"max": memory // 2 * PAGE, "message": 3, "deflate_on_oom": True}
        if hotplug and keys["mode"] != "native" and not process:  # of 4 MiB; with large pages of 6
            table["virtio_mem"] = hotplug
            memory = 512 if "host_page" not in keys and "thp" not in self.keys else 1024
            table |= {"memory": (512 + memory) * PAGE, "populate": "lazy"}
        if files:
            table["files"] = files
        if kernel and keys["mode"] != "native" and not process:
            table["reclaim"] = kernel
        if keys["mode"] in ("ept", "npt"):
            table["host_levels"] = levels[1]
        if not paired.get("guest", True) or "guest_at" in paired:
            table["populate"] = "lazy"
        if ("host_page" in keys or "thp" in self.keys) and "virtio_mem" not in table:  # of which it must have one
            table["memory"] = (512 + memory) * PAGE
        if "thp" in self.keys and levels[0] == 4 and given["guest_levels"] > 2 and not process:
            table["thp"] = {"enabled": "always"}  # and others of their own accord alone
        self.tables.append(table)
        self.scripts.append([[("touch", 0, READ), *touches(range(2))] for _ in range(vcpus)])

    @precondition(lambda self: self.tables)
    @rule(
        which=st.integers(0, 3),
        pages=st.lists(st.integers(0, PAGES), min_size=1, max_size=30),
        kind=st.sampled_from([READ, WRITE]),
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

    @precondition(lambda self: self.tables)
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
        simulation, outcome = run(what, streams, every=41_777, look=conserved)
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
        if getattr(self, "tables", None):
            self.go(1 << 16, "0%")


Hosts.TestCase.settings = settings(max_examples=50, stateful_step_count=12, deadline=None)
TestHosts = Hosts.TestCase


def long_script(random: Random, operations: int, pid: int = 2) -> list[Any]:
    """Return so many operations of a process and its children, pids from `pid` on, most of them accesses."""
    steps: list[Any] = []
    for number in range(operations):
        what = random.random()
        page, count = random.randrange(PAGES), random.randint(1, 12)
        if what < 0.9:
            steps.append(("touch", page, random.choice((READ, WRITE)), random.randint(1, 20)))
        elif what < 0.95:
            steps.append((random.choice(("unmap", "map", "discard")), page, count))
        elif what < 0.98:
            steps.append(("compute", random.randrange(20_000)))
        elif what < 0.99:
            steps.append(("io", page, count, random.randrange(30_000)))
        else:
            child = pid + number
            steps += [("fork", child), ("switch", child), *touches([page], WRITE), ("exit", child), ("by", 1)]
    return steps


LONG = 10_000  # operations of each of four VMs, in 25 hosts: a million in all


def long_host(seed: int, operations: int) -> None:
    """Run four VMs in modes that are drawn on a host that takes their pages, and check everything on the way."""
    random = Random(seed)
    guests = [keys for keys in MODES if "guest_at" not in keys.get("paired", {})]
    guests = [keys for keys in guests if keys.get("paired", {}).get("guest", True)]
    tables, streams = [], []
    for number, keys in enumerate(random.sample(guests, 4)):
        memory = (512 if "host_page" in keys else 0) + random.randint(120, 300)
        given = {"populate": random.choice(("lazy", "eager")), "vcpus": random.randint(1, 4), **keys}
        given |= {"content": {"image": "x", "image_share": 0.7}}
        if keys["mode"] != "native" and (balloon := random.choice(BALLOONS)):
            given["balloon"] = balloon
        base, vcpus = base_of(keys), given["vcpus"]
        tables.append(vm(f"vm{number}", memory=memory * PAGE, workload={"base": base}, **given))
        parts = [long_script(random, operations // vcpus, 2 + operations * each) for each in range(vcpus)]
        streams.append(Threads([Script(part, chunk=4096, base=base) for part in parts]))
    host: dict[str, Any] = {"cores": random.randint(1, 3), "quantum": "20us", "what_if": True, "memory": 4000 * PAGE}
    host |= {
        "pool": random.choice(({"min": 2, "max": 16, "batch": 8}, {"supply": "fault"})),
        "reclaim": random.choice(RECLAIM[1:]),
    }
    host |= {"ksm": random.choice(KSM[1:]), "cpu_override": {"cost": QUICK}}
    simulation, outcome = run(scenario(*tables, **host), streams, every=5_000_077, look=conserved, events=10**8)
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
@pytest.mark.parametrize("seed", range(25))
def test_a_million_operations_break_no_invariant(seed: int) -> None:
    long_host(seed, LONG)
