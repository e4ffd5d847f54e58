"""Small scenarios that together use every mode, page size, level, workload, log, tag, pool and shadow setting."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

MODES = ("native", "ept", "npt", "shadow", "agile", "paired", "vkernel")
SECOND = ("ept", "npt")  # modes with nested tables of several shapes

REGION = {"footprint": "512KiB"}
WORKLOADS: dict[str, dict[str, Any]] = {
    "uniform": {**REGION, "accesses": 3000, "writes": 0.3},
    "zipf": {**REGION, "accesses": 3000, "writes": 0.3},
    "sequential": {**REGION, "accesses": 3000, "stride": 512, "writes": 0.5},
    "chase": {**REGION, "accesses": 3000, "order": "page"},
    "gups": {**REGION, "updates": 1500},
    "working-set": {**REGION, "accesses": 3000, "window": "64KiB", "phase": 300, "step": "32KiB"},
    "churn": {**REGION, "rounds": 24, "burst": "64KiB", "work": 40, "writes": 0.5},
    "forkwait": {"footprint": "128KiB", "forks": 6},
    "compile": {"footprint": "128KiB", "processes": 3, "text": "64KiB", "parent": "64KiB", "work": 50, "writes": 0.5},
    "disk": {**REGION, "reads": 6, "block": "64KiB", "work": 20, "writes": 0.3},
    "switcher": {"footprint": "128KiB", "accesses": 3000, "spaces": 3, "every": 200, "writes": 0.3},
}
EDITING = ("churn", "forkwait", "switcher")  # workloads that edit page tables or load CR3
POOLS = {
    "tight": {"min": 1, "max": 4, "batch": 4},
    "batch-over-max": {"min": 8, "max": 16, "batch": 64},
    "wide": {"min": 64, "max": 512, "batch": 128},
    "one": {"min": 0, "max": 1, "batch": 256},
}
CPUS = {"npt": "zen2", "asid": "zen2"}


def workload(kind: str, **keys: Any) -> dict[str, Any]:
    """Return a table ``[vm.workload]``."""
    return {"kind": kind, **WORKLOADS[kind], **keys}


def scenario(mode: str, kind: str, *, host: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    """Return two VMs of a mode that share two cores and begin at different times."""
    table = {"memory": "8MiB", "mode": mode, "workload": workload(kind), **keys}
    vms = [{"name": "a", **table}, {"name": "b", **table, "start": "30us"}]
    small = {
        "cpu": CPUS.get(mode, "skylake-x"),
        "cores": 2,
        "memory": "64MiB",
        "quantum": "50us",
        "pool": {"min": 16, "max": 64, "batch": 32},
    }
    return {"seed": 7, "host": {**small, **(host or {})}, "vm": vms}


def all_scenarios() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the tables of each scenario."""
    for mode, kind in product(MODES, WORKLOADS):
        yield f"workload/{mode}/{kind}", scenario(mode, kind)
    for mode in MODES:
        yield from _of_mode(mode)
    yield from _of_levels()
    yield from _of_shadow()
    yield from _of_logs()
    yield from _of_paired()
    yield from _of_hosts()
    for mode in MODES:
        yield f"swap/{mode}", _swapping(mode)
        wide = {"cores": 8, "pool": {"min": 64, "max": 2048, "batch": 512}}
        threads = workload("churn", rounds=48, work=100, threads=4)  # shoot one another's translations down
        yield f"vcpus/{mode}", scenario(mode, "churn", host=wide, vcpus=4, workload=threads)
    yield from _of_caches()


def _of_mode(mode: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield page sizes, tags, PCIDs, populate, chunks, pools and warm-up of one mode."""
    for guest, host in product(("4K", "2M"), repeat=2):
        large = {"memory": "32MiB", "guest_page": guest, "host_page": host}
        for kind in ("uniform", "churn"):
            yield f"pages/{mode}/{guest}-{host}/{kind}", scenario(mode, kind, **large, host={"memory": "256MiB"})
    for tags, pcid in product(("none", "vpid"), (False, True)):
        cpu = {"cores": 1}
        name = f"tags/{mode}/{tags}-{'pcid' if pcid else 'plain'}"
        yield (
            name,
            scenario(mode, "switcher", tags="asid" if mode == "npt" and tags != "none" else tags, pcid=pcid, host=cpu),
        )
    for kind in ("uniform", "forkwait"):
        yield f"eager/{mode}/{kind}", scenario(mode, kind, populate="eager")
    for chunk in (4, 64):
        yield f"chunk/{mode}/{chunk}", scenario(mode, "uniform", fill_chunk=chunk)
    for name, pool in POOLS.items():
        yield f"pool/{mode}/{name}", scenario(mode, "churn", host={"pool": pool})
    yield f"warmup/{mode}", scenario(mode, "zipf") | {"warmup": "50%"}
    yield f"small/{mode}", scenario(mode, "churn", memory="512KiB")  # the guest runs out of memory
    yield f"poor/{mode}", scenario(mode, "uniform", host={"memory": "1MiB", "pool": POOLS["tight"]})  # the host does
    yield f"data/{mode}", scenario(mode, "zipf", host={"data_caches": True})
    yield f"one-core/{mode}", scenario(mode, "churn", host={"cores": 1, "quantum": "20us"})


def _of_levels() -> Iterator[tuple[str, dict[str, Any]]]:
    base = {"base": 0x1000_0000}
    for mode, guest, host in product(("native", *SECOND), (2, 3, 4, 5), (2, 3, 4, 5)):
        levels = {"guest_levels": guest} | ({"host_levels": host} if mode != "native" else {})
        table = scenario(mode, "uniform", host={"what_if": True}, **levels, workload=workload("uniform", **base))
        yield f"levels/{mode}/{guest}-{host}", table
    for mode, guest, kind in product(("shadow", "vkernel"), (2, 3), ("churn", "forkwait", "switcher")):
        yield f"levels/{mode}/{guest}/{kind}", scenario(mode, kind, guest_levels=guest, workload=workload(kind, **base))
    for preset, guest in product(("kvm", "kvm-2007", "plex86"), (2, 3)):
        keys = {"guest_levels": guest, "guest_page": "4M" if guest == 2 else "2M", "shadow": {"preset": preset}}
        table = scenario("shadow", "churn", memory="32MiB", **keys)
        table["vm"] = [vm | {"workload": workload("churn", **base)} for vm in table["vm"]]
        yield f"levels/shadow/{guest}/{preset}-large", table
    for mode in ("shadow", "agile", "vkernel", "paired"):
        yield f"levels/{mode}/5", scenario(mode, "churn", host={"what_if": True}, guest_levels=5)


def _of_shadow() -> Iterator[tuple[str, dict[str, Any]]]:
    traps, hides = ("single-step", "emulate", "unsync"), ("write-protect", "user-bit", "present-bit")
    for trap, hide, fill, cr3 in product(traps, hides, ("lazy", "eager"), ("flush", "cache")):
        shadow = {"trap": trap, "hide": hide, "fill": fill, "on_cr3": cr3}
        yield f"shadow/{trap}-{hide}-{fill}-{cr3}", scenario("shadow", "forkwait", shadow=shadow)
    for preset, kind in product(("kvm", "plex86"), (*EDITING, "compile")):
        yield f"shadow/{preset}/{kind}", scenario("shadow", kind, shadow={"preset": preset})
    yield "shadow/limit", scenario("shadow", "switcher", shadow={"limit": 16})
    yield "shadow/debug-register", scenario("shadow", "forkwait", shadow={"preset": "plex86", "step": "debug-register"})
    yield (
        "shadow/software-tlb",
        scenario("shadow", "switcher", shadow={"preset": "plex86"}, software_tlb={"entries": 64}),
    )
    for kind in EDITING:
        yield f"agile/{kind}", scenario("agile", kind, agile={"interval": "20us"})


def _of_logs() -> Iterator[tuple[str, dict[str, Any]]]:
    for mode, method, page in product(MODES, ("write-protect", "ad-scan", "pml"), ("4K", "2M")):
        log = {"method": method, "every": "100us"}
        host = {"cpu": CPUS.get(mode, "sapphire-rapids"), "memory": "256MiB"}
        yield (
            f"log/{mode}/{method}-{page}",
            scenario(mode, "zipf", dirty_log=log, host_page=page, memory="32MiB", host=host),
        )
    for mode in MODES:
        host = {"memory": "256MiB"}
        keys = {"nx_split": True, "host_page": "2M", "memory": "32MiB"}
        yield f"nx-split/{mode}", scenario(mode, "compile", host=host, **keys)


def _of_paired() -> Iterator[tuple[str, dict[str, Any]]]:
    for layout, guest, share in product(("contiguous", "pointer", "separate"), (True, False), (0.0, 0.5)):
        paired = {"layout": layout, "guest": guest}
        yield (
            f"paired/{layout}-{'vm' if guest else 'process'}-{share}",
            scenario("paired", "compile", paired=paired, host={"fragmentation": share, "memory": "16MiB"}),
        )


def _swapping(mode: str) -> dict[str, Any]:
    """Return a host that swaps: the four vCPUs of each VM wait for frames, and read around their own pages meanwhile.

    A read around a page that another vCPU looked for changes digests of all modes with a monitor.
    """
    host = {"cores": 4, "memory": "6MiB", "pool": {"min": 4, "max": 16, "batch": 8}, "swap": {"device": "nvme"}}
    work = {"footprint": "5MiB", "accesses": 2500, "stride": "4KiB", "compute": 3000, "threads": 4}
    return scenario(mode, "sequential", host=host, vcpus=4, workload=workload("sequential", **work))


def _of_hosts() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield hosts that VMs of different modes share."""
    groups = [
        {"name": f"under-{mode}", "memory": "8MiB", "mode": mode, "start": f"{10 * at}us", "workload": workload(kind)}
        for at, (mode, kind) in enumerate(zip(MODES, WORKLOADS, strict=False))
    ]
    for cores, share in product((1, 3), (0.0, 0.7)):
        host = {"cpu": "skylake-x", "cores": cores, "memory": "64MiB", "quantum": "30us", "fragmentation": share}
        host |= {"what_if": True, "pool": {"min": 8, "max": 32, "batch": 16}}
        yield f"mixed/{cores}-{share}", {"seed": 3, "host": host, "vm": groups}


def _of_caches() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield vCPUs that share small caches, with each kind of LLC, and accesses that overlap."""
    small = {"l1": {"size": "8KiB"}, "l2": {"size": "16KiB", "ways": 4}}
    kinds: dict[str, dict[str, Any]] = {
        "inclusive": {"inclusive": True},
        "victims": {"filled": "victims", "peer_cycles": 90},
        "duel": {"replacement": "QLRU_H11_M1_R1_U2/QLRU_H11_MR161_R1_U2", "leaders": ["0-7", "8-15"]},
    }
    for mode, (kind, llc) in product(MODES, kinds.items()):
        cache = {**small, "llc": {"size": "64KiB", "ways": 16, "slices": 1, **llc}}
        host = {"data_caches": True, "cpu_override": {"cache": cache}}
        table = scenario(mode, "zipf", vcpus=2, host=host, workload=workload("zipf", threads=2))
        yield f"caches/{mode}/{kind}", table
    for mode in MODES:
        keys = {"data_caches": True, "overlap": True, "cpu_override": {"window": 224, "fill_buffers": 12}}
        yield f"caches/{mode}/overlap", scenario(mode, "zipf", host=keys)
