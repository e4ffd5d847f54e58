"""Does the InstLatx64 study take the difference that was measured, find knees, and judge by the stated band?"""

import csv
import json
from math import log2
from pathlib import Path

import pytest
from click.testing import CliRunner

from vmsim.analysis.instlat import picture
from vmsim.base.errors import InputError
from vmsim.cli.validate import command
from vmsim.validation.instlat import CPUS, knee, measured, predict
from vmsim.validation.report import Claim, Finding, Report

DATA = Path(__file__).parents[2] / "vmsim/validation/data/instlat_load_latency.csv"


def test_the_measurements_are_those_of_the_table() -> None:
    rows = list(csv.DictReader(DATA.open()))
    for cpu in CPUS:
        loads = measured(cpu)
        assert set(loads) == {"full", "page"}
        assert sum(map(len, loads.values())) == sum(r["preset"] == cpu and r["stride"] == "64" for r in rows)
        assert list(loads["full"]) == sorted(loads["full"])
    assert (measured("sandy-bridge")["full"][131072], measured("sandy-bridge")["page"][131072]) == (263, 226)


def test_a_knee_is_where_a_curve_stays_above() -> None:
    steps = {1: 0.0, 2: 0.0, 4: 10.0, 8: 0.0, 16: 8.0, 32: 16.0}
    assert knee(steps, 8) == 16
    assert knee(steps, 12) == pytest.approx(16 * 2**0.5)
    assert knee(steps, 17) is None
    assert knee(steps, -1) == 1


@pytest.mark.slow
def test_sandy_bridge_pays_for_translation_from_the_reach_of_its_second_tlb_on() -> None:
    report = predict(["sandy-bridge"], largest=6144)
    assert not report.fitted.keys() - {"nothing"}
    cost = {row["kib"]: row["predicted"] for row in report.curves}
    assert min(cost) > 256  # 64 entries of 4 KiB
    assert cost[1024] < cost[2048] < 7 < cost[4096]  # the L2 TLB: 7 cycles for a hit, 2 MiB of reach
    assert report.ok, str(report)
    assert any("octave" in claim.quantity for claim in report.claims)


def test_the_band_is_eight_cycles_or_thirty_percent() -> None:
    def ok(predicted: float, there: float) -> bool | None:
        return Claim("x", predicted, there, 0.3, slack=8).ok

    assert ok(8, 0)
    assert not ok(8.1, 0)
    assert ok(-7, 1)
    assert ok(130, 100)
    assert not ok(131, 100)
    assert Claim("knee", log2(1000), log2(2100), 0.0, slack=1).ok is False
    assert Claim("knee", log2(1100), log2(2100), 0.0, slack=1).ok is True


def test_a_report_counts_its_misses_and_what_has_no_verdict() -> None:
    claims = (Claim("hit", 1, 1, 0.1), Claim("miss", 2, 1, 0.1), Claim("shown", 9, 1, None, note="read off"))
    report = Report("t", "s", {}, claims, findings=(Finding("order", "a < b", "b < a", ok=False),))
    assert (report.judged, report.misses, report.ok) == (3, 2, False)
    text = str(report)
    assert "read off" in text
    assert "1 of 3 agree" in text
    assert json.loads(json.dumps(report.to_json()))["claims"][2]["ok"] is None


def test_the_figure_is_written_in_the_format_that_its_name_asks_for(tmp_path: Path) -> None:
    curves = [
        {"cpu": "x", "kib": 1 << k, "measured": k - 9.0, "predicted": k - 8.0, "slack": 8.0} for k in range(9, 15)
    ]
    picture(curves, tmp_path / "a.png")
    picture(curves, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with pytest.raises(InputError, match="png"):
        picture(curves, tmp_path / "a.bmp")


def test_a_study_without_a_figure_says_which_has_one() -> None:
    result = CliRunner().invoke(command, ["gups", "--figure", "x.png"])
    assert isinstance(result.exception, InputError)
    assert "instlat" in str(result.exception)
