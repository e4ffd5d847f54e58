"""Does every key of a scenario and of a CPU change some table, in a small scenario in which it should?

The keys are those of the schema: one that has no row in `tests.simulation.keys` or `cpu_keys` fails here.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from pydantic import BaseModel

from tests.simulation.cost_keys import COST_ROWS
from tests.simulation.cpu_keys import COMPILED, CPU_ROWS, TOLD
from tests.simulation.huge_keys import HUGE_ROWS
from tests.simulation.keys import ROWS as OTHER_ROWS
from tests.simulation.keys import effect
from tests.simulation.numa_keys import NUMA_ROWS
from vmsim.scenario import Cpu, Scenario
from vmsim.scenario.problems import _tables


def leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the dotted keys of a table and of the tables in it."""
    for name, field in model.model_fields.items():
        here = (*path, field.alias or name)
        tables = _tables(field.annotation)
        for table in tables:
            yield from leaves(table, here)
        if not tables:
            yield ".".join(here)


ROWS: Final = OTHER_ROWS | HUGE_ROWS | NUMA_ROWS | COST_ROWS
SCENARIO_KEYS: Final = tuple(key for key in dict.fromkeys(leaves(Scenario)) if key != "host.cpu_override")
CPU_KEYS: Final = tuple(dict.fromkeys(leaves(Cpu)))


ROOT = Path(__file__).parents[2]
INTERPRETED = tuple(key for key in CPU_ROWS if key not in COMPILED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folder with the traces that rows name; `words` is a trace in two formats."""
    made = tmp_path_factory.mktemp("keys")
    for name, pages in (("one.csv", 8), ("two.csv", 11)):
        (made / name).write_text("address,kind\n" + "".join(f"{4096 * page},w\n" for page in range(1, pages + 1)))
    (made / "words").write_bytes(4 * struct.pack("<8Q", 0x40_0000, 0, 0, 0, 0x1000, 0x2000, 0, 0))
    return str(made)


def test_every_key_has_a_row_and_every_row_a_key() -> None:
    costs = {key for key in ROWS if key.startswith("cost.")}
    assert {key.partition(", ")[0] for key in ROWS} - costs == {*SCENARIO_KEYS}  # a key may have more rows
    assert costs | {*CPU_ROWS} | {*TOLD} == {*CPU_KEYS}
    assert not {*TOLD} & {*CPU_ROWS}


@pytest.mark.parametrize("key", ROWS)
def test_a_key_has_an_effect(key: str, folder: str) -> None:
    assert effect(ROWS[key], key, folder)


@pytest.mark.slow
@pytest.mark.parametrize("key", COMPILED)
def test_a_geometry_with_pages_of_1g_has_an_effect(key: str) -> None:
    assert effect(CPU_ROWS[key], key)


@pytest.mark.slow
def test_every_figure_of_a_cpu_has_an_effect() -> None:
    """In one process without compilation, which would take a minute for each geometry."""
    command = [sys.executable, "-m", "tests.simulation.cpu_keys", *INTERPRETED]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert [*told] == [*INTERPRETED]
    assert [key for key, changed in told.items() if not changed] == []
