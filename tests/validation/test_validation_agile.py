"""Is column B of the agile study fitted and no other, and are its ratios those of runs with one exponent?"""

import csv
from math import exp
from pathlib import Path

import pytest
from click.testing import CliRunner

from vmsim.base.errors import InputError
from vmsim.cli.validate import command
from vmsim.scenario import Scenario
from vmsim.validation import agile
from vmsim.validation.agile import FOOTPRINTS, fit, measured, predict, walk_share
from vmsim.validation.report import Report

DATA = Path(__file__).parents[2] / "vmsim/validation/data/agile16_fig5.csv"
SMALL = """
[host]
cpu = "yardstick"
memory = "64MiB"
data_caches = true
[[vm]]
name = "program"
memory = "32MiB"
mode = "ept"
populate = "eager"
fill_chunk = 512
workload = { kind = "zipf", footprint = "16MiB", exponent = 1.0, accesses = 40000, compute = 24 }
"""


def test_the_table_is_read_as_it_stands() -> None:
    table = measured()
    assert len(table) == sum(1 for _ in csv.DictReader(DATA.open()))
    assert {program for program, _ in table} == set(FOOTPRINTS)
    assert (table["mcf", "B"], table["mcf", "N"]) == (50.4, 93.1)
    assert all(size % (2 << 20) == 0 for size in FOOTPRINTS.values())


@pytest.mark.parametrize("target", [0.01, 1.0, 30.0, 90.0])
def test_the_fit_meets_its_target(target: float) -> None:
    exponent, share = fit(lambda at: 100 * exp(-1.2 * at), target)
    assert 0 <= exponent <= 8
    assert share == pytest.approx(target, rel=0.02)
    assert share == pytest.approx(100 * exp(-1.2 * exponent))


def test_a_fit_out_of_reach_says_how_near_it_came() -> None:
    for target, exponent in ((500.0, 0.0), (0.5, 8.0)):
        at, share = fit(lambda at: 100 * exp(-at) + 1, target)
        assert at == exponent
        assert share == pytest.approx(100 * exp(-exponent) + 1)


def test_more_locality_means_fewer_walks_and_nested_walks_are_longer() -> None:
    machine = Scenario.from_toml(SMALL)
    spread, near, nested, shadow = (
        walk_share(letter, 16 << 20, exponent, machine=machine)
        for letter, exponent in (("B", 0.5), ("B", 4.0), ("N", 0.5), ("S", 0.5))
    )
    assert near < spread < nested
    assert shadow == pytest.approx(spread, rel=0.1)  # the shadow is as deep as the guest's tables


def test_a_part_of_the_study_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def remember(programs: list[str]) -> Report:
        asked.append(programs)
        return Report("t", "s", {}, ())

    monkeypatch.setattr(agile, "predict", remember)
    assert CliRunner().invoke(command, ["agile", "--only", "tigr,canneal"]).exit_code == 0
    assert asked == [["canneal", "tigr"]]
    for words, said in ((["agile", "--only", "cannel"], "canneal"), (["gups", "--only", "x"], "no parts")):
        result = CliRunner().invoke(command, words)
        assert isinstance(result.exception, InputError)
        assert said in str(result.exception)


def test_only_b_is_fitted_and_the_rest_are_ratios_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, set[float]] = {}

    def share(letter: str, footprint: int, exponent: float, *, machine: Scenario | None) -> float:
        assert machine is not None
        assert footprint == FOOTPRINTS["mcf"]
        asked.setdefault(letter, set()).add(exponent)
        return {"B": 1.0, "N": 1.9, "S": 1.5}.get(letter, 1.0) * 200 * exp(-exponent)

    monkeypatch.setattr(agile, "walk_share", share)
    monkeypatch.setattr(agile, "warm", lambda *_, **__: None)
    report = predict(["mcf"])
    assert len(asked["B"]) > 1
    assert len(asked["N"] | asked["S"]) == 1
    claims = {claim.quantity: claim for claim in report.claims}
    assert claims["mcf N/B"].predicted == pytest.approx(1.9)
    assert claims["mcf N/B"].measured == pytest.approx(93.1 / 50.4)
    assert (claims["mcf N/B"].ok, claims["mcf S/B"].ok) == (True, False)
