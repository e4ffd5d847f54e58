"""Has a host the watermarks that Linux would give it?"""

from __future__ import annotations

import pytest

from vmsim.validation.linux_watermarks import marks_of, predict


def test_every_row_of_the_table_is_met() -> None:
    report = predict()
    assert len(report.claims) == 6
    assert all(claim.ok for claim in report.claims)


@pytest.mark.parametrize(
    ("kib", "pages"), [(1 << 20, 1024), (1 << 24, 4096), (1 << 14, 128), (1 << 30, 32768), (1 << 32, 65536)]
)
def test_min_by_hand(kib: int, pages: int) -> None:
    """The root of 16 times the KiB, in pages of 4: 4,096, 16,384, 512, 131,072 and, at the ceiling, 262,144 KiB."""
    assert marks_of(kib).min == pages
