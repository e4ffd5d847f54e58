"""Accessed and dirty flags in nested tables: what they save and cost a VM whose writes or accesses are tracked.

Without a log and a host that looks for idle pages they change nothing: a monitor makes entries accessed and dirty, as
KVM does, so that no walk has to set a flag. With one, the flags spare the guest an exit for each page that it writes to
between two readings, 2,850 cycles on EPT here; to set D takes part of a walk, none where the page is walked for by a
write, and to note the page by PML some 24 cycles more. Read every millisecond, a VM that only writes takes 38 times as
long under write protection, and 6 % longer with PML. Where little is written what is left is the flush of each reading.
KVM does not use the flags of NPT for its logs, and write-protects there. Who scans for them looks at every entry,
written to or not: little for 16 MiB, but it grows with the memory. The flags cost something where little is written: a
walk of the guest's tables then counts as a write (SDM vol. 3C §30.3.3.2), so that each reading finds all tables that
were walked; so does NPT.

A host that reclaims pages, and wants those that were not accessed (the clock), reads A and clears it. Without the flag
it unmaps what it looks at, and the next access exits, as in KVM: with only 1,000 pages taken in a second a VM whose
accesses follow Zipf's law takes more than twice as long, and with 30,000 nearly five times. With the flags it takes 1 %
and 20 % longer, on EPT, as where pages are taken at random: nearly all of that is the pages that come back and the
interrupts.

The host's cycles for an entry are guesses of the presets, and of the 2,850 only the exit itself, 518, was measured.

    python experiments/ad-bits/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE, WIDE
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, width=WIDE, height=4.4, rows=2, columns=2)
# paging, accessed and dirty flags, log: label, colour, line, marker
LINES: Final = {
    ("ept", False, "write-protect"): ("EPT without A/D, protected", PALETTE[5], "-", "o"),
    ("ept", True, "write-protect"): ("EPT with A/D, protected", PALETTE[1], "--", "s"),
    ("ept", True, "ad-scan"): ("EPT with A/D, D scanned", PALETTE[4], "-", "v"),
    ("ept", True, "pml"): ("EPT with A/D, PML", PALETTE[0], "-", "^"),
    ("npt", True, "write-protect"): ("NPT, protected", PALETTE[3], "-", "D"),
    ("npt", True, "ad-scan"): ("NPT, D scanned", PALETTE[2], "-", "P"),
}
# paging, accessed and dirty flags: label, how far above its line at 3,000 pages, colour, marker
RECLAIM: Final = {
    ("ept", False): ("EPT without A/D", 5, PALETTE[5], "o"),
    ("ept", True): ("EPT with A/D", -15, PALETTE[0], "^"),
    ("npt", True): ("NPT", 5, PALETTE[2], "P"),
}
MIB: Final = 1 << 20


def data() -> pd.DataFrame:
    """Return a row for each VM whose writes are logged, 16 MiB large, and for those of all sizes that only read.

    Columns are paging, ad, log, footprint (bytes), stores (share of the accesses), readings (the last, when the VM has
    ended, included), found (pages that a reading finds, on average), slower (the guest's time over that without a log,
    less 1; of readers not known) and host (cycles that the host takes for a page that it finds).
    """
    table = EXPERIMENT.table()
    keys = ["cpu", "ad", "stores"]
    bare = table[table["log"] == "none"].set_index(keys)[["total_cycles"]]
    logged = table[table["log"] != "none"].join(bare.add_suffix("_bare"), on=keys)
    logged["footprint"] = 16 * MIB
    logged["slower"] = logged["total_cycles"] / logged["total_cycles_bare"] - 1
    rows = pd.concat([logged, EXPERIMENT.table("tables")], ignore_index=True)
    rows["readings"] = rows["log_readings"]
    rows["found"] = rows["log_pages"] / rows["log_readings"]
    rows["host"] = rows["log_host_cycles"] / rows["log_pages"]
    return rows[["paging", "ad", "log", "footprint", "stores", "readings", "found", "slower", "host"]]


def reclaimed() -> pd.DataFrame:
    """Return paging, ad, policy, rate (pages taken in a second) and slower (the guest's time over that with none)."""
    table = EXPERIMENT.table("reclaim")
    bare = table[table["rate"] == 0].set_index("paging")["total_cycles"]  # without a look at them the flags do nothing
    taken = table[table["rate"] > 0].copy()
    taken["slower"] = taken["total_cycles"] / taken["paging"].map(bare) - 1
    return taken[["paging", "ad", "policy", "rate", "slower", "exits", "exit_cycles"]]


def draw(table: pd.DataFrame, axes: Sequence[Sequence[Axes]]) -> None:
    """Draw what logging costs the guest and the host, what is found of a reader, and what reclaim costs the guest."""
    (guest, host), (readers, taken) = axes
    for (paging, flags, log), (label, colour, line, marker) in LINES.items():
        here = table[(table["paging"] == paging) & (table["ad"] == flags) & (table["log"] == log)]
        style: dict[str, Any] = {"c": colour, "ls": line, "marker": marker, "ms": 2.8, "label": label}
        writers = here[here["stores"] > 0]
        guest.plot(100 * writers["stores"], 100 * writers["slower"], **style)
        if log == "ad-scan":
            host.plot(writers["found"], writers["host"], **style)
        only = here[here["stores"] == 0]
        readers.plot(only["footprint"] / MIB, only["found"], **style)
    host.axhline(table.loc[table["log"] == "pml", "host"].iloc[0], c="#666666")
    host.annotate("protected, PML", (20, 100), (0, 2), textcoords="offset points", color="#666666")
    readers.annotate("its page tables", (72, 30))
    rows = reclaimed()
    for (paging, flags), (label, above, colour, marker) in RECLAIM.items():
        here = rows[(rows["paging"] == paging) & (rows["ad"] == flags) & (rows["policy"] == "clock")]
        taken.plot(here["rate"], 100 * here["slower"], c=colour, marker=marker, ms=2.8)
        place = 3_000, 100 * float(here.set_index("rate")["slower"].loc[3_000])
        taken.annotate(label, place, (0, above), textcoords="offset points", color=colour, ha="center")
    taken.set_xlabel("pages taken in a second")
    taken.set_ylabel("guest's time added (%)")
    for ax in (guest, host, taken):
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.minorticks_off()
    guest.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    guest.set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    guest.set_xlabel("stores (% of accesses)")
    guest.set_ylabel("guest's time added (%)")
    host.set_xticks([10, 100, 1000], ["10", "100", "1,000"])
    host.set_yticks([100, 200, 500, 1000], ["100", "200", "500", "1,000"])
    host.set_xlabel("pages found at a reading")
    host.set_ylabel("cycles for a page found")
    readers.set_xticks([8, 32, 64, 128])
    readers.set_ylim(-2)
    taken.set_xticks([1_000, 3_000, 10_000, 30_000], ["1,000", "3,000", "10,000", "30,000"])
    taken.set_yticks([1, 10, 100], ["1", "10", "100"])
    readers.set_xlabel("memory that is only read (MiB)")
    readers.set_ylabel("pages found")
    titles = (
        "a log: the guest pays",
        "a log: the host pays",
        "a log of a program that only reads",
        "reclaim: the guest pays",
    )
    for ax, title in zip((guest, host, readers, taken), titles, strict=True):
        ax.grid(axis="y")
        ax.set_title(title)
    fig = guest.get_figure(root=True)
    if fig is not None:
        fig.legend(*guest.get_legend_handles_labels(), loc="outside upper center", ncols=3)


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
