"""Do ESX's figures follow from its policy, from what a kernel keeps of a page, and from what equal VMs share?"""

from __future__ import annotations

import pytest

from vmsim.validation import waldspurger


def test_every_row_at_hand_agrees() -> None:
    report = waldspurger.predict()
    assert report.ok
    assert sum(claim.ok is True for claim in report.claims) == 6
    assert report.findings[0].ok


def test_what_a_balloon_costs_by_hand() -> None:
    """128 MB in the balloon: 2 MB of struct pages, at (13.70 - 11.47) / 32 MB/s for each, of 11.47."""
    assert waldspurger.balloon_cost(128) == pytest.approx(100 * 2 * (13.70 - 11.47) / 32 / 11.47)


def test_what_many_vms_share_by_hand() -> None:
    """Two VMs: 61.1 % shared, 36.4 % reclaimed: 49.4 % of a VM are different shared pages, which five have once."""
    one, two = (16.8, 12.6), (61.1, 36.4)
    assert waldspurger.sharing(1, one, two) == one
    assert waldspurger.sharing(2, one, two) == pytest.approx(two)
    assert waldspurger.sharing(5, one, two) == pytest.approx((61.1, 61.1 - 49.4 / 5))


def test_the_idle_vm_pays_the_tax() -> None:
    assert waldspurger.parts(0, (10.0, 198.1), 357.9) == pytest.approx([178.95, 178.95], abs=0.01)
    idle, busy = waldspurger.parts(75, (10.0, 198.1), 357.9)
    assert idle + busy == pytest.approx(357.9, abs=0.01)
    assert idle - 10 == pytest.approx((4 * 10 - 10 + 198.1 * 1 + (busy - 198.1) * 4 - 40) / 4, abs=0.2)
