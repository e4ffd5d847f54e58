"""What tests of traces share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workloads.samples import LACKEY


@pytest.fixture
def lackey(tmp_path: Path) -> Path:
    """Return the file of a small Lackey trace."""
    path = tmp_path / "tiny.lackey.txt"
    path.write_bytes(LACKEY)
    return path
