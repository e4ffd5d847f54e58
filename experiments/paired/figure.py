"""Which layout of paired page tables wins: by the share of processes that are VMs, table density and fragmentation.

Left: cycles of an update (a page mapped, the tables made for it included). Middle: memory of a process that is no VM,
from whole simulations (sweep.toml). Right: what fragmentation makes of a table that needs two contiguous pages.

    python experiments/paired/figure.py
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from vmsim.analysis.style import PALETTE, WIDE, figure, save
from vmsim.clock import Clock
from vmsim.files import replacing
from vmsim.host.memory import HostMemory
from vmsim.machine.buddy import State
from vmsim.machine.formats import EPT
from vmsim.machine.memory import physical_memory
from vmsim.monitor.paired_layout import PairedHost, price
from vmsim.monitor.paired_space import PairedSpace
from vmsim.scenario import Cpu, Marks
from vmsim.scenario.paired import Layout
from vmsim.sweeps import Sweep, read_results, run_sweep

HERE: Final = Path(__file__).resolve().parent
RESULTS: Final = HERE.parents[1] / "results" / HERE.name

LAYOUTS: Final[tuple[Layout, ...]] = ("contiguous", "pointer", "separate")
COLOURS: Final = dict(zip(LAYOUTS, PALETTE, strict=False))
DENSITIES: Final = tuple(1 << power for power in range(10))
HOLES: Final = (1.0, 0.3, 0.1, 0.05, 0.02)
FRAMES: Final = 1 << 13
PAGE: Final = 4096
SPAN: Final = 512 * PAGE
REGION: Final = 1 << 40

Costs = dict[str, int]


def fragmented(cpu: Cpu, holes: float, layout: Layout) -> tuple[PairedHost, np.ndarray]:
    """Return a host whose memory a VM has, but for a share of single pages here and there, and 64 frames for pages.

    With holes of 1 the memory is free and whole. The VM's pages can be moved, whatever the layout under test.
    """
    host = HostMemory(Clock(), FRAMES, Marks(0, 0, 0))
    shared = PairedHost(physical_memory(FRAMES), host, cpu, pointers=layout == "pointer")
    pages = host.take(1, 64, State.GUEST)
    if holes == 1:
        return shared, pages
    filler = PairedSpace(shared, EPT(ad_bits=True), owner=0, levels=4, layout="contiguous", guest=True)
    filler.install(_table(shared, filler))
    number = 0
    while host.free > 8:
        address = REGION + number * PAGE
        tables = [_table(shared, filler) for _ in range(max(0, filler.missing(address, 1)))]
        frames = host.take(0, 512 - number % 512, State.GUEST, reserve=8)
        run = frames[: int(np.argmin(np.append(np.diff(frames) == 1, False))) + 1]
        filler.map(address, 1, int(run[0]), tables, count=len(run))
        host.give(frames[len(run) :])
        number += len(run)
    random = np.random.default_rng(1)
    for hole in sorted(random.choice(number, int(holes * number), replace=False).tolist()):
        for frame, _ in filler.unmap(REGION + hole * PAGE, REGION + hole * PAGE + PAGE):
            host.give_block(frame, 0)
    return shared, pages


def _table(shared: PairedHost, space: PairedSpace) -> tuple[int, int]:
    pair = shared.take(space.owner, space.layout, guest=space.guest, work=space.work)
    assert pair is not None
    return pair


def measure(cpu: Cpu, layout: Layout, *, guest: bool, holes: float, density: int = 1) -> dict[str, Any]:
    """Map pages, `density` of them in each table, until tables have a quarter of the free memory (or 400 are made).

    Returns
    -------
    dict
        cycles of a page mapped in a table that is there, cycles of a table, tables, share of failures of order 1,
        pages moved for each table, and the fragmentation that was met.
    """
    shared, pages = fragmented(cpu, holes, layout)
    fragmentation = shared.fragmentation
    space = PairedSpace(shared, EPT(ad_bits=True), owner=1, levels=4, layout=layout, guest=guest)
    space.install(_table(shared, space))
    space.map(REGION, 1, int(pages[0]), [_table(shared, space) for _ in range(3)])
    shared.movable.pop(1, None)  # its pages are mapped many times over, and stay where they are
    before = space.work.copy()
    order_1 = shared.work.copy()
    count = min(400, int(shared.host.zone["free"][0]) // 8)
    for number in range(1, count + 1):
        for page in range(density):
            address = REGION + number * SPAN + page * PAGE
            new = [_table(shared, space) for _ in range(space.missing(address, 1))]
            space.map(address, 1, int(pages[page % len(pages)]), new)
    spent = space.work - before
    step = price(_update(shared, space, pages), shared.costs)
    cycles = price(spent, shared.costs)
    met = shared.work - order_1
    return {
        "layout": layout,
        "guest": guest,
        "fragmentation": fragmentation,
        "update_cycles": step,
        "table_cycles": (cycles - count * density * step) / count,
        "cycles": cycles / (count * density),
        "tables": count,
        "failures": met["failures"] / count,
        "moved": met["moved"] / count,
    }


def _update(shared: PairedHost, space: PairedSpace, pages: np.ndarray) -> Counter[str]:
    """Return the steps of mapping one page where no table is missing."""
    before = space.work.copy()
    space.map(REGION + 511 * PAGE, 1, int(pages[0]), [])
    return space.work - before


def costs(holes: tuple[float, ...] = HOLES) -> pd.DataFrame:
    """Return what `measure` does for every layout, process and VM, and share of holes."""
    cpu = Cpu.load("skylake-x")
    rows = [
        {"holes": share, **measure(cpu, layout, guest=guest, holes=share)}
        for layout in LAYOUTS
        for guest in (False, True)
        for share in holes
    ]
    return pd.DataFrame(rows)


def cycles(table: pd.DataFrame, layout: str, share: float, holes: float, density: float) -> float:
    """Return the cycles of an update on a host of which a share of the processes are VMs."""
    rows = table[(table["layout"] == layout) & (table["holes"] == holes)].set_index("guest")
    per_update = rows["update_cycles"] + rows["table_cycles"] / density
    return float((1 - share) * per_update[False] + share * per_update[True])


def boundary(table: pd.DataFrame, holes: float, density: float) -> float:
    """Return the share of VMs above which contiguous tables cost fewer cycles than separate ones; over 1: never."""
    contiguous = cycles(table, "contiguous", 0, holes, density)
    process, machine = (cycles(table, "separate", share, holes, density) for share in (0, 1))
    return (contiguous - process) / (machine - process)


def memory(folder: Path) -> pd.DataFrame:
    """Return, of whole simulations, the frames of tables by layout and pages per table."""
    if run_sweep(Sweep.load(HERE / "sweep.toml"), folder, jobs=1).interrupted:
        raise KeyboardInterrupt
    rows = read_results(folder)
    rows["density"] = np.minimum(512, SPAN // rows["stride"].map(_bytes))
    return rows[["layout", "density", "table_frames", "guest_frames"]].sort_values(["layout", "density"])


def _bytes(size: str | int) -> int:
    from vmsim.units import parse_size

    return parse_size(size) if isinstance(size, str) else int(size)


def draw(table: pd.DataFrame, tables: pd.DataFrame, axes: Any) -> None:
    """Draw the three panels."""
    _draw_cycles(table, axes[0])
    _draw_memory(tables, axes[1])
    _draw_fragmentation(table, axes[2])


def _draw_cycles(table: pd.DataFrame, ax: Axes) -> None:
    x = np.array(DENSITIES)
    met = table[table["layout"] == "contiguous"].groupby("holes")["fragmentation"].first()
    whole = [min(1.0, boundary(table, 1.0, density)) for density in x]
    ax.fill_between(x, whole, 1, color=COLOURS["contiguous"], alpha=0.18, lw=0)
    ax.fill_between(x, 0, whole, color=COLOURS["separate"], alpha=0.18, lw=0)
    for holes, style, (x_label, y_label) in ((1.0, "-", (1.2, 0.58)), (0.1, "--", (9, 1.01)), (0.02, ":", (26, 1.01))):
        ax.plot(x, [boundary(table, holes, density) for density in x], style, color="#000000")
        ax.text(x_label, y_label, f"{met[holes]:.0%}", fontsize=6.5)
    ax.set(xscale="log", xlim=(1, 512), ylim=(0, 1), xlabel="pages mapped in each table")
    ax.set_ylabel("processes that are VMs")
    ax.text(480, 0.88, "contiguous", color=COLOURS["contiguous"], ha="right")
    ax.text(480, 0.08, "separate", color=COLOURS["separate"], ha="right")
    ax.set_title("fewest cycles; lines: free memory in single pages", fontsize=7, pad=13)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    _densities(ax)


def _draw_memory(tables: pd.DataFrame, ax: Axes) -> None:
    for layout, style in zip(LAYOUTS, ("o-", "x:", "s-"), strict=True):
        rows = tables[tables["layout"] == layout]
        share = rows["table_frames"] / 512
        ax.plot(rows["density"], share, style, ms=3, color=COLOURS[layout], label=layout)
    ax.set(xscale="log", yscale="log", xlim=(0.9, 570), xlabel="pages mapped in each table")
    ax.set_ylabel("table pages for each page mapped")
    ax.text(560, 1.9, "pointer: and 0.2 % of\nthe host's memory", color=COLOURS["pointer"], ha="right", va="top")
    ax.legend(loc="lower left")
    ax.set_title("memory of a process that is no VM", fontsize=7, pad=13)
    _densities(ax)


def _draw_fragmentation(table: pd.DataFrame, ax: Axes) -> None:
    rows = table[table["guest"]]
    for layout, style in zip(LAYOUTS, ("o-", "x:", "s-"), strict=True):
        part = rows[rows["layout"] == layout].sort_values("fragmentation")
        ax.plot(part["fragmentation"], part["table_cycles"] / 1000, style, ms=3, color=COLOURS[layout], label=layout)
    part = rows[rows["layout"] == "contiguous"].sort_values("fragmentation")
    for x, y, failed in zip(part["fragmentation"], part["table_cycles"] / 1000, part["failures"], strict=True):
        if failed:
            ax.annotate(f"{failed:.0%}", (x, y), (-3, 3), textcoords="offset points", ha="right", fontsize=6.5)
    ax.set(xlabel="free memory in single pages", ylabel="kilocycles", ylim=(0, 4))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    ax.set_title("a table of a VM; %: order-1 failures", fontsize=7, pad=13)


def _densities(ax: Axes) -> None:
    ax.set_xticks([1, 8, 64, 512], ["1", "8", "64", "512"])
    ax.minorticks_off()


def main() -> None:
    """Measure everything; write the figure and its numbers into results/paired."""
    import tempfile

    table = costs()
    with tempfile.TemporaryDirectory(prefix="vmsim-") as folder:
        tables = memory(Path(folder, "sweep"))
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name, frame in {"costs": table, "memory": tables}.items():
        with replacing(RESULTS / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False, lineterminator="\n", float_format="%.4f")
    with figure(width=WIDE, height=2.5, columns=3) as (fig, axes):
        draw(table, tables, axes)
        save(fig, RESULTS / "layouts.png", RESULTS / "layouts.pdf")
    print(f"The figure is {RESULTS / 'layouts.png'}.", file=sys.stdout)


if __name__ == "__main__":
    main()
