"""Is base alone fitted, does each variant differ in what it says, and are orders compared once there are rows?"""

from __future__ import annotations

import pytest

from vmsim.validation import tiering
from vmsim.validation.tiering import VARIANTS, Found


def given(variant: str) -> tuple[dict[str, object], dict[str, object]]:
    host = tiering.scenario(variant, 10.0).model_dump()["host"]
    return host["numa_balancing"], host["demotion"]


def test_the_machine_is_scaled_by_memory_and_by_rate() -> None:
    scenario = tiering.scenario("hot page selection", 10.0)
    host = scenario.host
    assert [node.memory for node in host.nodes] == [16 << 20, 32 << 20]
    assert host.nodes[1].bandwidth == round(19.7e8)  # a tenth of a quarter of 2 * 39.4 GB/s
    second = 10 / 4096
    table = host.part("numa_balancing")
    assert table.hot_threshold.cycles(10**9) == round(second * 1e9)
    # 256 MiB of the machine's 128 GiB are scanned in a tenth of its second
    parts = (32 << 20) // table.scan_size
    assert table.scan_period_min.cycles(10**9) / parts == pytest.approx(second * 1e8, rel=1e-3)
    # each page has the accesses of the machine's seconds
    accesses = scenario.vms[0].workload.accesses
    assert accesses / ((32 << 20) / 4096) == pytest.approx(1.5e8 * 300 / ((128 << 30) / 4096), rel=1e-3)


def test_variants_differ_in_what_they_are_named_for() -> None:
    base, hot = given("base")[0], given("hot page selection")[0]
    assert {key for key in base if base[key] != hot[key]} == {"hot_threshold"}
    limited = given("hot page selection, a tenth of the limit")[0]
    assert {key for key in hot if hot[key] != limited[key]} == {"promote_rate_limit"}
    adjusted = given("automatic threshold, a tenth of the limit")[0]
    assert {key for key in limited if limited[key] != adjusted[key]} == {"scan_period_max"}
    assert given("demotion alone")[0]["mode"] == "off"
    assert all(given(variant)[1]["enabled"] for variant in VARIANTS)


def test_base_alone_is_fitted_and_its_row_the_only_one_at_hand() -> None:
    assert [name for name in VARIANTS if tiering.row_of(name)] == ["base"]


def faked(variant: str, slower: float) -> Found:
    return Found(7e6 * slower * (1 + [*VARIANTS].index(variant) / 100), 100.0)


def test_the_scale_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiering, "run", faked)
    assert tiering.fit_scale(1.4e8) == pytest.approx(20, rel=0.01)


def test_without_rows_there_is_no_verdict_but_on_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiering, "run", faked)
    claims = tiering.predict().claims
    assert [claim.ok for claim in claims] == [True, *[None] * (len(claims) - 1)]
    assert len(claims) == 2 * len(VARIANTS)


@pytest.mark.parametrize(("rates", "agree"), [((150e6, 160e6), 3.0), ((160e6, 150e6), 2.0)])
def test_rows_that_come_later_are_compared_by_their_order(
    monkeypatch: pytest.MonkeyPatch, rates: tuple[float, float], agree: float
) -> None:
    rows = [dict(tiering.measured()[0])]
    for name, rate in zip(("hot page selection", "rate limit"), rates, strict=True):
        rows.append(rows[0] | {"variant": name, "pmbench_accesses_per_s": str(rate)})
    monkeypatch.setattr(tiering, "measured", lambda: rows)
    monkeypatch.setattr(tiering, "run", faked)
    order = tiering.predict().claims[-1]
    assert (order.predicted, order.measured) == (agree, 3)
    assert order.ok is (agree == 3)
