"""Do ESX's figures follow from its policy, from what a kernel keeps of a page, and from what equal VMs share?"""

from __future__ import annotations

import pytest

from vmsim.validation import idle_tax, waldspurger


def test_a_program_reads_each_page_once_and_then_waits() -> None:
    (chunk,) = waldspurger.Reading(3, 5).chunks()
    assert len({*chunk.address.tolist()}) == 3
    assert (chunk.events[-1].position, chunk.events[-1].argument) == (3, 5)


def test_what_a_balloon_costs_by_hand() -> None:
    """128 MB in the balloon: 2 MB of struct pages, at (13.70 - 11.47) / 32 MB/s for each, of 11.47."""
    assert waldspurger.balloon_cost(128) == pytest.approx(100 * 2 * (13.70 - 11.47) / 32 / 11.47)


def test_what_many_vms_share_by_hand() -> None:
    """A tenth of the pages is each VM's own, half the image's; ksmd has one frame for each page of it, and of zeros."""
    for vms in (1, 3):
        shared, reclaimed = waldspurger.sharing(vms, 0.5, 0.1)
        assert shared == pytest.approx(40 if vms == 1 else 90, abs=1.5)
        assert reclaimed == pytest.approx(40 if vms == 1 else 90 - 50 / vms, abs=1.5)


def test_vms_that_all_have_their_own_share_nothing_but_zeros() -> None:
    """As a planted error: were the image not the same in each, two VMs would share no more than one does."""
    shared, reclaimed = waldspurger.sharing(2, 0.0, 0.6)
    assert shared == pytest.approx(40, abs=1.5)
    assert reclaimed == pytest.approx(40, abs=1.5)


def test_a_program_writes_to_all_pages_and_then_to_the_first_of_them() -> None:
    (chunk,) = idle_tax.Using(8, 2, 100, 1).chunks()
    pages = (chunk.address - chunk.address[0]) // 4096
    assert pages[:8].tolist() == [*range(8)]
    assert {*pages[8:].tolist()} == {0, 1}


def test_the_idle_vm_pays_the_tax(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one each has 179 MB; what the idle VM pays goes to the busy one, and all of it is the host's."""
    monkeypatch.setattr(idle_tax, "_STEPS", 30_000)
    taxed = idle_tax.allotted.__wrapped__(75.0, 10.0, 358.0)
    assert taxed.idle < 170
    assert taxed.busy > 185
    assert taxed.idle + taxed.busy == pytest.approx(358, abs=8)
