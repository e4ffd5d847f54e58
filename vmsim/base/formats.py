"""The formats of traces and of figures by name, once: scenarios, the command line and the readers take them from here.

A format of traces has a reader in the module of its name in `vmsim.workloads.readers`, which takes longer to import.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

__all__ = ["FIGURE_FORMATS", "TRACE_FORMATS", "TraceFormat"]

FIGURE_FORMATS = (".png", ".pdf", ".svg")

TraceFormat: TypeAlias = Literal[
    "vmtrace",
    "lackey",
    "champsim",
    "champsim-cloudsuite",
    "drmemtrace",
    "dinero",
    "u64",
    "csv",
    "parquet",
]
TRACE_FORMATS: tuple[str, ...] = get_args(TraceFormat)
