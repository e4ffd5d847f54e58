"""An interrupt between two vCPUs that the hypervisor delivers (Zeng and Gao, KVM: IPI virtualization, 2021).

Y. Norov's ipi_benchmark in a guest of two vCPUs, each on a core: the sender's time to send an interrupt, and until its
handler has answered. Both are taken from the loop of `shootdown` in a VM on sapphire-rapids, whose interrupts are
posted but not sent without an exit, or with IPI virtualization neither is one: a third thread adds what sending takes,
the second one sending, the way and the handler. What is fitted is the cost of one interrupt, on Haswell's row of two
threads, as in that study.

The row of a vCPU that interrupts itself is not attempted: Linux calls the function at once and sends no interrupt
(kernel/smp.c, generic_exec_single).
"""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import Final

from vmsim.engine.warm import warm
from vmsim.scenario import load_cpu
from vmsim.scenario.cpu import Cpu
from vmsim.validation.report import Claim, Fit, Report
from vmsim.validation.shootdown import Discarding, fitted_scale, loop_cycles

__all__ = ["measured", "predict"]

_CPU: Final = "sapphire-rapids"
_BAND: Final = 0.2


def measured() -> dict[tuple[str, str], float]:
    """Return the published ns of one interrupt by operation and column."""
    text = files("vmsim.validation").joinpath("data/ipi_guest21.csv").read_text(encoding="utf-8")
    return {(row["operation"], row["column"]): float(row["ns_each"]) for row in csv.DictReader(text.splitlines())}


def predict() -> Report:
    """Predict what sending an interrupt takes, and until it is answered."""
    table = measured()
    cpu, haswell = load_cpu(_CPU), load_cpu("haswell")
    warm(cpu, ("ept",))
    warm(haswell, ("native",))
    scale = fitted_scale()
    clock = haswell.frequency / cpu.frequency  # an interrupt takes so many ns, whatever the clock
    (send, total), virtual = (_nanoseconds(cpu, scale / clock, interrupts) for interrupts in ("posted", "virtual"))
    none = "no row is at hand"
    return Report(
        title="An interrupt from one vCPU to another, without IPI virtualization and with it: ns",
        source="Zeng Guang and Chao Gao, KVM: IPI virtualization, cover letter; the CPU is not named",
        fitted={
            "one interrupt on bare metal": Fit(
                scale, "of the preset's", "tlb_flush_micro.csv", "the row of two threads", "as in shootdown"
            )
        },
        claims=(
            Claim("send, ns", send, table["normal IPI", "send"], _BAND),
            Claim("until it is answered, ns", total, table["normal IPI", "total"], _BAND),
            Claim("send, IPI virtualization, ns", virtual[0], None, None, note=none),
            Claim("until it is answered, IPI virtualization, ns", virtual[1], None, None, note=none),
        ),
        details={"simulated": f"{cpu.name}, interrupts posted; the measured CPU's clock is not given"},
    )


def _nanoseconds(cpu: Cpu, scale: float, interrupts: str) -> tuple[float, float]:
    """Return what sending an interrupt takes, and until it is answered."""
    one, two, three = (
        loop_cycles(_CPU, Discarding, threads, scale, "ept", interrupts=interrupts) for threads in (1, 2, 3)
    )
    return (three - two) * 1e9 / cpu.frequency, (two - one - cpu.cost.invlpg) * 1e9 / cpu.frequency
