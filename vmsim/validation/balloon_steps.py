"""The steps of filling a balloon page by page, and what other sizes of a message would do (Wang and Li, 2017).

An idle guest of 8 GiB gives 7 GiB away, 256 pages to a message, in 4,126 ms; the cover letter has the shares of four
steps. The costs of a CPU have them from there (`balloon_page`, `balloon_message`, `balloon_entry`, `discard_call`), at
the clock of cascade-lake, since the machine is not named. What is left to see is that the protocol adds nothing else,
and what a message of another size takes: the way to the host and back is paid for once in each.

A 32nd of the guest is simulated; each page takes the same.
"""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import Final

from vmsim.scenario import load_cpu
from vmsim.validation.ballooning import inflate
from vmsim.validation.report import Claim, Fit, Report

__all__ = ["MESSAGES", "measured", "milliseconds", "predict"]

MESSAGES: Final = (64, 256, 512, 1024, 4096, 32768)
_CPU: Final = "cascade-lake"
_SCALE: Final = 32
_BAND: Final = 0.25
_WAIT: Final = 2_000_000_000  # ns: longer than any of the runs


def measured() -> dict[str, float]:
    """Return the published milliseconds of each step, and of the whole."""
    text = files("vmsim.validation").joinpath("data/balloon_steps17.csv").read_text()
    return {row["step"]: float(row["ms"]) for row in csv.DictReader(text.splitlines()) if row["share_pct"]}


def milliseconds(message: int) -> float:
    """Return what 7 GiB of an idle guest of 8 GiB take, so many pages to a message."""
    done = inflate(_CPU, memory=(8 << 30) // _SCALE, size=(7 << 30) // _SCALE, message=message, wait=_WAIT)
    return done.taking * _SCALE * 1000 / load_cpu(_CPU).frequency


def predict() -> Report:
    """Predict the whole, of several sizes of a message."""
    table, cpu = measured(), load_cpu(_CPU)
    pages = (7 << 30) // 4096
    parts = {
        "allocating pages": cpu.cost.balloon_page,
        "sending PFNs to host (256 to a message)": cpu.cost.balloon_message / 256,
        "address translation": cpu.cost.balloon_entry,
        "madvise": cpu.cost.discard_call,
    }
    return Report(
        title="Filling a balloon with 7 GiB of an idle guest of 8 GiB, page by page",
        source="W. Wang and L. Li, virtio-balloon: VIRTIO_BALLOON_F_SG, lkml 2017; the machine is not named",
        fitted={
            name: Fit(
                round(cycles),
                "cycles a page",
                "balloon_steps17.csv",
                "the share of this step",
                f"{pages * cycles * 1000 / cpu.frequency:.0f} ms of {table[name]:.0f}",
            )
            for name, cycles in parts.items()
        },
        claims=tuple(
            Claim(f"whole, {message} pages to a message, ms", milliseconds(message), table["whole"], _BAND, kind="fit")
            if message == 256
            else Claim(f"whole, {message} pages to a message, ms", milliseconds(message), None, None)
            for message in MESSAGES
        ),
        details={"simulated": f"a {_SCALE}nd of it, on {cpu.name}"},
    )
