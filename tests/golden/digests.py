"""Digests of every table of every scenario of `scenarios`, and of the files in results/.

python -m tests.golden.digests          # write digests.json anew: after a change of the model, on purpose
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tests.golden.scenarios import all_scenarios
from vmsim.base.errors import InputError
from vmsim.engine.simulation import Simulation
from vmsim.record import tables
from vmsim.scenario import Scenario

FILE = Path(__file__).with_name("digests.json")
RESULTS = Path(__file__).parents[2] / "results"
REFUSED = "refused"


def digest(rows: list[dict[str, Any]]) -> str:
    """Return a short digest of a table's rows and column names."""
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def digests_of(given: dict[str, Any]) -> dict[str, str] | str:
    """Simulate a scenario; return the digest of each of its tables that has rows, or that it is refused."""
    try:
        scenario = Scenario.model_validate(given)
    except (InputError, ValidationError):
        return REFUSED
    outcome = Simulation(scenario).run()
    made = {name: tables.rows(name, outcome) for name in tables.TABLES}
    return {name: digest(rows) for name, rows in made.items() if rows}


def scenario_digests(names: Iterable[str] | None = None) -> dict[str, dict[str, str] | str]:
    """Return the digests of all scenarios, or of those named."""
    wanted = None if names is None else set(names)
    return {name: digests_of(given) for name, given in all_scenarios() if wanted is None or name in wanted}


def result_digests() -> dict[str, str]:
    """Return a digest of each table in results/."""
    files = sorted(path for path in RESULTS.rglob("*") if path.suffix in (".csv", ".parquet", ".json"))
    return {str(path.relative_to(RESULTS)): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in files}


def main() -> None:
    """Write `FILE`."""
    found = {"scenarios": scenario_digests(), "results": result_digests()}
    FILE.write_text(json.dumps(found, indent=0, sort_keys=True) + "\n")
    refused = sum(each == REFUSED for each in found["scenarios"].values())
    print(f"{len(found['scenarios'])} scenarios ({refused} of them refused), {len(found['results'])} files of results")


if __name__ == "__main__":
    main()
