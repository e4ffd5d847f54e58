"""Do the examples of the documentation work as they stand?"""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest

import vmsim
from vmsim.api import scenario_of

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*/*.md"))]
SMALL = """\
[host]
memory = "64MiB"
cores = 2
pool = { min = 16, max = 256, batch = 64 }
[[vm]]
name = "db"
count = 2
memory = "8MiB"
mode = "ept"
workload = { kind = "zipf", footprint = "1MiB", accesses = 2000 }
"""
NODES = [{"memory": "16GiB", "cpus": 2}, {"memory": "16GiB", "cycles": 700}]
OF_NODES = {"distances", "demotion", "numa_balancing", "damon"}  # what a host without nodes refuses
LEFT_OUT = ("...", "polars")  # blocks with a gap, or of a library that no test has


def blocks(language: str, *folders: str) -> Iterator[Any]:
    """Yield the folder and text of each block of a language, of pages in some folders."""
    for page in (each for each in PAGES if each.parent.name in folders):
        found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        for number, text in enumerate(found):
            if any(word in text for word in LEFT_OUT):
                continue
            yield pytest.param(text, id=f"{page.stem}-{number}")


@pytest.mark.parametrize("text", list(blocks("toml", ROOT.name, "guides", "reference")))
def test_tables_are_toml_and_of_scenarios_what_they_may_be(text: str) -> None:
    tables = tomllib.loads(text)
    if set(tables) <= {"seed", "warmup", "host", "vm"}:
        vms = tables.get("vm", {})
        tables["vm"] = [
            {"memory": "2GiB", "workload": {"kind": "churn"}} | vm for vm in (vms if isinstance(vms, list) else [vms])
        ]
        host = {"what_if": True} | tables.get("host", {})
        scenario_of({**tables, "host": ({"nodes": NODES} if OF_NODES & {*host} else {}) | host})


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Have a run and a sweep that the examples look at."""
    made = tmp_path_factory.mktemp("kept")
    (made / "scenario.toml").write_text(SMALL)
    vmsim.run(made / "scenario.toml").save(made / "runs/large")
    vmsim.sweep(made / "scenario.toml", {"host.pool.min": [8, 16]}, replicates=2, out=made / "pool.results", jobs=1)
    return made


@pytest.fixture
def folder(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a folder that has what the examples name."""
    monkeypatch.chdir(tmp_path)
    for name in ("scenario.toml", "bench.toml"):
        Path(name).write_text(SMALL)
    shutil.copytree(kept / "runs", "runs")
    shutil.copytree(kept / "pool.results", "pool.results")
    monkeypatch.setattr(vmsim, "sweep", partial(vmsim.sweep, jobs=1), raising=False)
    return tmp_path


# Those of docs/extending are excerpts of tests/plugins, which are tested there.
@pytest.mark.parametrize("text", list(blocks("python", ROOT.name, "guides", "reference")))
def test_programs_run(text: str, folder: Path) -> None:
    names = {"__name__": "example", "__file__": "example.py", "vmsim": vmsim, "pandas": pd}
    exec(text, {**names, "result": vmsim.load("runs/large")})
    plt.close("all")
