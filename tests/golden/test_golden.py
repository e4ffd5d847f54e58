"""Does every table of every small scenario still hold the same bytes, and every file of results/?

A change that means to move figures writes digests.json anew (`python -m tests.golden.digests`), raises the model's
version and says why.
"""

from __future__ import annotations

import json

import pytest

from tests.golden.digests import FILE, result_digests, scenario_digests
from tests.golden.scenarios import all_scenarios

GOLDEN = json.loads(FILE.read_text())
NAMES = [name for name, _ in all_scenarios()]


def test_every_scenario_has_a_digest_and_a_name_of_its_own() -> None:
    assert sorted(NAMES) == sorted(GOLDEN["scenarios"])


@pytest.mark.parametrize("part", sorted({name.split("/")[0] for name in NAMES}))
def test_scenarios_give_the_same_tables(part: str) -> None:
    names = [name for name in NAMES if name.split("/")[0] == part]
    found = scenario_digests(names)
    changed = {name: found[name] for name in names if found[name] != GOLDEN["scenarios"][name]}
    assert not changed, f"{len(changed)} of {len(names)} scenarios differ"


def test_results_are_the_files_that_were_last_accepted() -> None:
    assert result_digests() == GOLDEN["results"]
