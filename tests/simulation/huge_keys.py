"""Rows as those of keys.py, of the keys of huge pages."""

from __future__ import annotations

from typing import Any, Final

from tests.simulation.key_worlds import KSMD, SHARERS, Row, vm, world

HOT = {"kind": "uniform", "footprint": "3MiB", "accesses": 3000, "compute": 2000, "writes": 0.5}


def huge(*vms: dict[str, Any], host: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    """Return a VM on a host whose free memory is in single pages, so that its huge pages have to be made."""
    told = {"enabled": "always", "defrag": "never", "scan_sleep_millisecs": 0, "alloc_sleep_millisecs": 0} | keys
    given: dict[str, Any] = {"memory": "32MiB", "fragmentation": 1.0} | (host or {})
    return world(*(vms or (vm(workload=HOT, memory="8MiB"),)), **given, thp=told)


def _huge_rows() -> dict[str, Row]:
    plenty = {"fragmentation": 0.0}
    return {
        "enabled": Row(world(vm(memory="8MiB")), "never", "always"),
        "defrag": Row(huge(), "never", "always"),
        "khugepaged": Row(huge(), True, False),
        "khugepaged_defrag": Row(huge(), True, False),
        "pages_to_scan": Row(huge(), 512, 4096),
        "scan_sleep_millisecs": Row(huge(), 0, 1),
        "alloc_sleep_millisecs": Row(huge(khugepaged_defrag=False), 0, 1000),
        "max_ptes_none": Row(huge(), 511, 0),
        "max_ptes_swap": Row(huge(host=plenty | {"reclaim": {"rate": 100_000}}), 0, 64),
        "max_ptes_shared": Row(huge(*SHARERS, host=plenty | {"ksm": KSMD}), 0, 256),
    }


def guests(workload: dict[str, Any] = HOT, **keys: Any) -> dict[str, Any]:
    """Return a guest whose free memory is in single pages, and whose pages khugepaged puts together."""
    told = {"enabled": "always", "khugepaged": True, "scan_sleep_millisecs": 0, "alloc_sleep_millisecs": 0}
    given: dict[str, Any] = {"memory": "12MiB", "fragmentation": 1.0, "populate": "lazy"} | keys.pop("guest", {})
    return world(vm(workload=workload, thp=told | keys, **given))


def _guest_rows() -> dict[str, Row]:
    presses = {"memory": "4MiB", "fragmentation": 0.0, "reclaim": {"policy": "two-list", "swap": "nvme"}}
    pressed = {**HOT, "footprint": "3900KiB"}
    forks = {"kind": "forkwait", "footprint": "64KiB", "forks": 3, "child": "16KiB", "parent": "16KiB"}
    return {
        "enabled": Row(world(vm(memory="8MiB")), "never", "always"),
        "defrag": Row(guests(khugepaged=False), "never", "always"),
        "khugepaged": Row(guests(), True, False),
        "khugepaged_defrag": Row(guests(), True, False),
        "pages_to_scan": Row(guests(), 512, 4096),
        "scan_sleep_millisecs": Row(guests(), 0, 1),
        "alloc_sleep_millisecs": Row(guests(khugepaged_defrag=False), 0, 1000),
        "max_ptes_none": Row(guests(), 511, 0),
        "max_ptes_swap": Row(guests(pressed, guest=presses), 0, 64),
        "max_ptes_shared": Row(guests(forks, guest={"fragmentation": 0.0}), 0, 511),
    }


HUGE_ROWS: Final = {
    **{f"host.thp.{key}": row for key, row in _huge_rows().items()},
    **{f"vm.thp.{key}": row for key, row in _guest_rows().items()},
}
