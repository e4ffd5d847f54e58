"""Watermarks of free memory as Linux sets them (mm/page_alloc.c): what a host has that is told none."""

from __future__ import annotations

import csv
from importlib.resources import files

from vmsim.scenario import Scenario
from vmsim.scenario.vm import Marks
from vmsim.validation.report import Claim, Report

__all__ = ["marks_of", "measured", "predict"]

_KIB = 4  # of a page
_SHARES = {"low": 5 / 4, "high": 6 / 4}


def measured() -> list[dict[str, str]]:
    """Return the rows of the table."""
    text = files("vmsim.validation").joinpath("data/linux_watermarks.csv").read_text()
    return [*csv.DictReader(text.splitlines())]


def marks_of(kib: int) -> Marks:
    """Return the watermarks, in pages, of a host with so many KiB that is told none."""
    vm = {
        "name": "a",
        "memory": "4MiB",
        "mode": "native",
        "workload": {"kind": "uniform", "footprint": "4KiB", "accesses": 1},
    }
    return Scenario.model_validate({"host": {"memory": kib << 10}, "vm": [vm]}).watermarks


def predict() -> Report:
    """Compare min with the examples, and low and high with their shares of it."""
    claims = []
    for row in measured():
        if row["quantity"] == "min_free_kbytes":
            kib = int(row["example_in"].split()[0])
            marks = marks_of(kib)
            claims.append(
                Claim(f"min of {kib} KiB, KiB", marks.min * _KIB, float(row["example_out"]), 0.0, kind="conformance")
            )
            for name, share in _SHARES.items():
                claims.append(
                    Claim(
                        f"{name} of {kib} KiB, of min", getattr(marks, name) / marks.min, share, 0.0, kind="conformance"
                    )
                )
    return Report(
        title="Watermarks of a host's free memory",
        source="Linux mm/page_alloc.c: min_free_kbytes and the watermarks that follow from it",
        fitted={},
        claims=tuple(claims),
        details={"watermark_scale_factor": "left out: low and high are further from min on hosts of more than 1 GiB"},
    )
