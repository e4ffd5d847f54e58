"""The formats of traces by name, once: scenarios, the command line and the readers take them from here.

Each has a reader in the module of its name in `vmsim.workloads.readers`, whose import takes longer than that of this.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

__all__ = ["TRACE_FORMATS", "TraceFormat"]

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
