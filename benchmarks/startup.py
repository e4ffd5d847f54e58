"""How long the start takes: import, --help, a small warm run, compiling everything."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.table import ROOT, Row, child

__all__ = ["measure"]

IMPORT = "import time; start = time.perf_counter(); import vmsim; print(time.perf_counter() - start)"
SMALL = """
[host]
cpu = "skylake-x"
memory = "64MiB"
pool = { min = 16, max = 256, batch = 64 }
[[vm]]
name = "small"
memory = "16MiB"
mode = "ept"
workload = { kind = "uniform", footprint = "4MiB", accesses = 10000 }
"""
TURNS = 5


def measure(*, compiling: bool = True) -> Iterator[Row]:
    """Yield the times of each kind of start; medians of five but for compiling."""
    yield Row("import vmsim", median(float(child("-c", IMPORT)) for _ in range(TURNS)), "s", 0.3)
    yield Row("vmsim --help", median(_timed("--help") for _ in range(TURNS)), "s", 0.4)
    with TemporaryDirectory() as folder:
        scenario = Path(folder) / "small.toml"
        scenario.write_text(SMALL)
        command = ("run", str(scenario), "--json")
        out = json.loads(child(*command, program="vmsim"))  # compiles what was not
        warm = median(_timed(*command) for _ in range(TURNS))
        yield Row("small run, warm", warm, "s", 2, note=f"{out['vms'][0]['accesses']:,} accesses")
        readme = Path(folder) / "readme.toml"
        readme.write_text((ROOT / "README.md").read_text().split("```toml\n")[1].split("```")[0])
        yield Row(
            "the README's scenario, warm, besides simulating", min(_besides(readme) for _ in range(TURNS)), "s", 1.5
        )
        if compiling:
            empty = {"NUMBA_CACHE_DIR": str(Path(folder) / "cache")}
            yield Row("compiling everything, vmsim warm", _timed("warm", environment=empty), "s", 40)


def _besides(scenario: Path) -> float:
    """Return the seconds of a run of a scenario besides those that it says it has simulated for."""
    start = time.perf_counter()
    out = json.loads(child("run", str(scenario), "--json", program="vmsim"))
    return time.perf_counter() - start - float(out["wall_seconds"])


def _timed(*arguments: str, environment: dict[str, str] | None = None) -> float:
    start = time.perf_counter()
    child(*arguments, program="vmsim", environment=environment)
    return time.perf_counter() - start
