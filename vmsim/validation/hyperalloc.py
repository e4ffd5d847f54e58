"""Taking, giving back and touching again 18 GiB of a VM of 20 GiB (HyperAlloc, EuroSys 2025, section 5.3).

The rows of virtio-balloon with pages of 4 KiB. Two costs are fitted on two of them: what is left of a page that is
taken, without the steps of balloon_steps17.csv, is unmapping and freeing one that was touched (`discard_page`), and of
one given back freeing it in the guest (`balloon_release`). The first touch after that is predicted: the difference of
the rows "install" and "second alloc", which is the violation with all that the host does for it. A VM that had touched
nothing, and a balloon of large pages, are shown.

Of the rows of virtio-mem, on a host with pages of 2 MiB, what is left of a block that is taken without its request and
its discarding is isolating its pages in the guest (`unplug_page`), and of one given back `hotplug_page`. Its first
touch, with all of its pages cleared, is where `host_zero` is from, so that this row is fitted too.

HyperAlloc's own rows are not at hand. From the costs of the steps alone, on a host with pages of 2 MiB, it is
predicted what it takes for the host to take huge frames from the guest's allocator, of a VM that had touched all or
nothing, to give them back, and for the guest to ask for the memory of one.

A 64th of the VM is simulated, of virtio-mem a 16th, which has whole memory blocks; each page takes the same.
"""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import Any, Final

from vmsim.scenario import load_cpu
from vmsim.validation.ballooning import Inflation, inflate, share, unplug
from vmsim.validation.report import Claim, Fit, Report

__all__ = ["measured", "predict", "runs"]

_CPU: Final = "cascade-lake"
_FILE: Final = "hyperalloc25_inflate.csv"
_SCALE: Final = 64
_MEMORY: Final = (20 << 30) // _SCALE
_TAKEN: Final = (18 << 30) // _SCALE
_REGION: Final = (18 << 30) // 16
_BAND: Final = 0.25
_ROWS: Final = {"reclaim": "take", "return": "give back", "install": "install", "second": "second"}


def measured(mechanism: str = "virtio-balloon 4K") -> dict[str, float]:
    """Return the published ns of each page of 4 KiB, of the rows of a mechanism."""
    text = files("vmsim.validation").joinpath("data/hyperalloc25_inflate.csv").read_text()
    rows = [row for row in csv.DictReader(text.splitlines()) if row["mechanism"] == mechanism]
    return {
        name: float(row["ns_per_4k"]) for row in rows for key, name in _ROWS.items() if row["operation"].startswith(key)
    }


def runs() -> dict[str, Inflation]:
    """Return what each way takes: of a VM that had touched all, or nothing, and by pages of 2 MiB."""
    touched, back = _TAKEN // 4096 * 19 // 20, "600ms"
    whole: dict[str, Any] = {"memory": _MEMORY, "size": _TAKEN, "wait": 1_500_000_000}
    quick: dict[str, Any] = {"memory": _MEMORY, "size": _TAKEN, "back": "300ms", "wait": 600_000_000}
    return {
        "touched": inflate(_CPU, populate="eager", back=back, touched=touched, **whole),
        "untouched": inflate(_CPU, back=back, **whole),
        "2M": inflate(_CPU, populate="eager", back=back, page="2M", **whole),
        "virtio-mem": unplug(
            _CPU, memory=(20 << 30) // 16, region=_REGION, back="300ms", wait=600_000_000, touched=_REGION // 4096
        ),
        "shared": share(_CPU, populate="eager", touched=_TAKEN // 4096 * 19 // 20, **quick),
        "shared, untouched": share(_CPU, populate="lazy", touched=0, **quick),
        "2M on 2M": inflate(_CPU, populate="eager", back=back, page="2M", host_page="2M", **whole),
    }


def predict() -> Report:
    """Predict the rows of virtio-balloon with pages of 4 KiB, and of virtio-mem."""
    table, cpu, made = measured(), load_cpu(_CPU), runs()
    pages = _TAKEN // 4096

    def each(cycles: float) -> float:
        return cycles * 1e9 / cpu.frequency

    touched, plugged, of_mem = made["touched"], made["virtio-mem"], measured("virtio-mem")
    shared = made["shared"]
    blocks = _REGION // 4096
    cost = cpu.cost
    return Report(
        title="18 GiB taken from a VM of 20 GiB by its balloon, given back, and touched again: ns a page of 4 KiB",
        source="HyperAlloc, EuroSys 2025: github.com/luhsra/hyperalloc-bench, inflate; Xeon Gold 6252",
        fitted={
            "discard_page": Fit(cost.discard_page, "cycles", _FILE, "virtio-balloon 4K, reclaim"),
            "balloon_release": Fit(cost.balloon_release, "cycles", _FILE, "virtio-balloon 4K, return"),
            "unplug_page": Fit(cost.unplug_page, "cycles", _FILE, "virtio-mem, reclaim"),
            "hotplug_page": Fit(cost.hotplug_page, "cycles", _FILE, "virtio-mem, return"),
            "host_zero": Fit(cost.host_zero, "cycles", _FILE, "virtio-mem, install"),
        },
        claims=(
            Claim("take a page that was touched", each(touched.taking / pages), table["take"], _BAND, kind="fit"),
            Claim("give it back", each(touched.giving / pages), table["give back"], _BAND, kind="fit"),
            Claim("violation of its first touch", each(touched.violation), table["install"] - table["second"], _BAND),
            Claim("virtio-mem: take", each(plugged.taking / blocks), of_mem["take"], _BAND, kind="fit"),
            Claim("virtio-mem: give back", each(plugged.giving / blocks), of_mem["give back"], _BAND, kind="fit"),
            Claim(
                "virtio-mem: violation of the first touch",
                each(plugged.violation / 512),
                of_mem["install"] - of_mem["second"],
                _BAND,
                kind="fit",
            ),
            Claim("take a page that was not touched", each(made["untouched"].taking / pages), None, None),
            Claim("take by pages of 2 MiB, host of 4 KiB", each(made["2M"].taking / pages), None, None),
            Claim("take by pages of 2 MiB, host of 2 MiB", each(made["2M on 2M"].taking / pages), None, None),
            Claim("HyperAlloc: take what was touched", each(shared.taking / pages), None, None),
            Claim("HyperAlloc: take what was not touched", each(made["shared, untouched"].taking / pages), None, None),
            Claim("HyperAlloc: give back", each(shared.giving / pages), None, None),
            Claim("HyperAlloc: install", each(shared.violation / 512), None, None),
            Claim("give back by pages of 2 MiB", each(made["2M on 2M"].giving / pages), None, None),
        ),
        details={"simulated": f"a {_SCALE}th of it, on {cpu.name}"},
    )
