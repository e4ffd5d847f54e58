"""Does a store that was killed at any moment end like one that nobody disturbed?

``python -m tests.sweeps.kill 50`` does the same more often.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.sweeps import kill
from tests.sweeps.fake import contents


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return kill.undisturbed(tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
def test_a_crash_within_any_call_that_changes_files_loses_nothing(
    tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    chance = random.Random(3)
    total = kill.calls(tmp_path)
    died = [kill.crash(tmp_path, number) for number in sorted(chance.sample(range(1, total - 2), 6))]
    assert all(died)
    for out in tmp_path.glob("crash-*"):
        assert contents(out) == undisturbed, out


@pytest.mark.slow
def test_drivers_and_workers_may_be_killed_at_any_moment(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    chance = random.Random(4)
    for number in range(4):
        told = kill.kill(tmp_path / str(number), chance)
        assert contents(tmp_path / str(number)) == undisturbed, told
