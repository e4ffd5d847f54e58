"""What a page costs that the host takes and that comes back, under each paging mode, with one vCPU and with four.

The same program runs on a host that has enough memory, and on one that has a page too few for every sixth of its own,
and swaps by Linux's two lists to an NVMe disk. What the second takes more is divided by the pages that came back:

- the host's own work, which kswapd does on another core: looking at pages, unmapping, waiting until vCPUs have left;
- `kicks`: what the vCPUs lose by leaving the guest for it, or a program's processors by an interrupt;
- `return`: the exit or page fault by which the page is missed, and mapped again; where the host has no free frame at
  once, what it does on behalf of who asks, too;
- `walks`: walks of page tables for what processors had to forget.

Waiting for the disk, some 60 µs, is the same for all, and is left out. A kick empties what the processor keeps of the
VM, and there is one for every page that was found accessed or is unmapped, for every vCPU that runs then. With one
vCPU there are few, for it waits for the disk most of the time. With four they and what the host waits for them, with
mmu_lock held, are nine tenths of the bill under EPT and NPT: a page that costs 10,000 cycles with one vCPU costs
43,500. A program on the host itself is told once a batch, and of accessed flags never: it pays a tenth of that. What
comes back is one exit and its work where the hardware walks both tables (3,700 cycles), and for a page that is read
first and written to later another (3,200), for it keeps its copy on the disk until then, and with four the way of its
lock's cache line from one vCPU to the next; a shadow is filled again in two or three exits.

    python experiments/reclaimed-page/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE, WIDE
from vmsim.cli.experiment import make
from vmsim.scenario import load_cpu
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, width=WIDE, height=2.4, columns=2)
MODES: Final = {"native": "native", "ept": "EPT", "npt": "NPT"} | {
    name: name for name in ("paired", "vkernel", "shadow", "agile")
}
PARTS: Final = ("host", "kicks", "return", "walks")
_WAITS: Final = ("pool_wait_cycles", "host_wait_cycles")


def kick(paging: str) -> int:
    """Return the cycles that one costs a vCPU: the interrupt, and of a VM the exit and the way back."""
    cost = load_cpu("skylake-x").cost
    interrupt = cost.ipi_handle + cost.invlpg
    return interrupt if paging in ("native", "vkernel") else interrupt + cost.vm_exit + cost.violation_resume


def data() -> pd.DataFrame:
    """Return paging, vcpus, pages that came back, and cycles for each of them: host, kicks, return, walks."""
    table = EXPERIMENT.table()
    keys = ["paging", "vcpus"]
    short = table[table["memory"] == 10 << 20].set_index(keys)
    enough = table[table["memory"] == 64 << 20].set_index(keys).reindex(short.index)
    more = short.select_dtypes("number") - enough.select_dtypes("number")
    made = pd.DataFrame({"back": short["back"], "taken": short["taken"], "swap_wait": short["swap_wait"]})
    each = pd.Series({(paging, vcpus): kick(paging) for paging, vcpus in short.index})
    kicks = short["kicks"] * each
    made["host"] = short["host"] / short["back"]
    made["kicks"] = kicks / short["back"]
    software = more["exit_cycles"] + more["guest_fault_cycles"] - kicks + sum(more[name] for name in _WAITS)
    made["return"] = software / short["back"]
    made["walks"] = (more["walk_cycles"] + more["l2_tlb_cycles"]) / short["back"]
    return made.reset_index()


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw a panel for each number of vCPUs, and a bar for each mode."""
    for ax, (vcpus, title) in zip(axes, ((1, "1 vCPU"), (4, "4 vCPUs")), strict=True):
        here = table[table["vcpus"] == vcpus].set_index("paging").loc[list(MODES)]
        bottom = pd.Series(0.0, here.index)
        for colour, part in zip((*PALETTE[:3], "black"), PARTS, strict=True):
            ax.bar(range(len(MODES)), here[part] / 1000, bottom=bottom / 1000, color=colour, width=0.7, label=part)
            bottom += here[part]
        ax.set_xticks(range(len(MODES)), [*MODES.values()], rotation=30, ha="right")
        ax.set_title(title, loc="left")
        ax.set_ylabel("1,000 cycles a page that came back")
        ax.grid(axis="y")
    axes[0].legend()


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
