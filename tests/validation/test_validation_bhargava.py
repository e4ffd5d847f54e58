"""Does the study of two-dimensional walks read the paper's table, switch off what it says, and count no fitted row?"""

import numpy as np
import pytest

from vmsim.machine.caches import Served
from vmsim.validation import bhargava
from vmsim.validation.bhargava import CONFIGURATIONS, LINES, PROGRAMS, Regions, measured, walks

MIB = 1 << 20


def test_the_table_is_read_as_it_stands() -> None:
    table = measured()
    assert table["T1 MiscServer", "walklat_2D_over_native"] == [4.01]
    assert table["T1 FpCpu", "perfectTLB_native/2D"] == [5.7, 27.5]
    assert table["F6 Misc/Web/Java/Int/Fp", "2D_PWC"] == [24.1, 18.5, 38.8, 23.2, 15.1]
    assert table["F8 gL2", "nL4..nL1"] == [0.18, 99.8, 70.9, 28.4, 0.4, 2.92, 31.7]
    assert table["F8 gPA", "nL4..nL1"] == [2.92, 99.9, 85.7, 26.3, 0.7]
    assert set(LINES) == set(PROGRAMS)


def test_regions_touch_a_few_lines_of_pages_spread_over_all_regions() -> None:
    stream = Regions(size=512 * MIB, runs=4000, exponent=0.5, seed=3, lines=4)
    made = np.concatenate([chunk.address for chunk in stream.chunks()])
    assert len(made) == stream.accesses == 4000
    pages = (made - stream.base) >> 12
    assert (pages.reshape(-1, 4) == pages[::4, None]).all()
    assert len(set(made[:4] & 4095)) == 4
    assert ((made >= stream.base) & (made < stream.base + 512 * MIB)).all()
    assert len(set(pages >> 9)) > 200  # of 256 regions
    assert len(set(pages & 511)) > 400  # of a region's 512 pages
    again = Regions(size=512 * MIB, runs=4000, exponent=0.5, seed=3, lines=4, chunk=64)
    assert (np.concatenate([chunk.address for chunk in again.chunks()]) == made).all()


@pytest.mark.slow
def test_a_configuration_has_what_its_name_says() -> None:
    assert next(iter(CONFIGURATIONS)) == "2D"
    none, guest, full = (walks(name, 2) for name in ("2D", "1D_PWC", "2D_PWC+NT"))
    assert none.refs.sum() == 24 * none.walks
    assert none.refs[:, :, Served.PWC].sum() == 0
    assert guest.refs[:, 1:, Served.PWC].sum() == 0 < guest.refs[:, 0, Served.PWC].sum()
    assert full.refs.sum() < 24 * full.walks
    assert full.hits(1, 0) == 0  # a leaf belongs in the TLB
    assert full.nested_walks(0) == 1
    assert none.latency > guest.latency > full.latency


@pytest.mark.slow
def test_scattered_tables_share_no_nested_tables_with_their_neighbours() -> None:
    """Nested walks for them find less in the page walk cache; the pages themselves lie as they did."""
    scattered = (("vm.table_span", "512MiB"), ("host.table_span", "512MiB"))
    near, far = (walks("2D_PWC+NT", 2, changes) for changes in ((), scattered))
    for guest, nested in ((1, 2), (1, 3)):
        assert far.hits(guest, nested) < near.hits(guest, nested) - 10
    assert far.hits(0, 2) == pytest.approx(near.hits(0, 2), abs=5)
    assert far.walks == pytest.approx(near.walks, rel=0.01)


def test_neither_the_fitted_nor_the_read_off_rows_count() -> None:
    refs = np.zeros((6, 6, 5), np.int64)
    refs[:, :, Served.PWC] = 60
    refs[:, :, Served.L2] = 40
    claims = {claim.quantity: claim for claim in bhargava._hits(measured(), bhargava.Walks(100.0, refs))}
    assert "F8 gL2, guest entry" not in claims
    assert "F8 gL3, guest entry" in claims
    leaves = [claim for name, claim in claims.items() if name.endswith("nL1") or name == "F8 gL1, guest entry"]
    assert len(leaves) == 6
    assert {claim.ok for claim in leaves} == {None}
    assert all("no evidence" in claim.note for claim in leaves)
    assert claims["F8 gPA, nL2"].ok is False  # 60 against 26.3
    assert claims["F8 gL3, nL3"].ok is True  # 60 against 61.9


def test_the_order_of_figure_6_holds_only_with_the_first_far_below() -> None:
    names = ("1D_PWC", "2D_PWC", "2D_PWC+NT", "2D_PWC+NT_2MBnested", "Native")
    good = dict(zip(names, (2.0, 24.0, 30.0, 50.0, 58.0), strict=True))
    assert bhargava._order("x", good, good).ok
    assert not bhargava._order("x", good | {"1D_PWC": 12.0}, good).ok
    assert not bhargava._order("x", good | {"Native": 40.0}, good).ok
