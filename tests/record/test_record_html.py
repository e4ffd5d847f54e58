"""Does a notebook show results as they are?"""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from vmsim.record.causes import CAUSES
from vmsim.record.comparison import Comparison
from vmsim.record.result import Result


def test_every_cause_has_a_label_and_a_colour_of_its_own() -> None:
    for field in ("label", "colour"):
        assert len({getattr(cause, field) for cause in CAUSES.values()}) == len(CAUSES)


def test_bars_are_as_long_as_their_cycles(result: Result) -> None:
    page = ElementTree.fromstring(result._repr_html_())
    bars = [rect for rect in page.iter("rect") if rect.find("title") is not None]
    told = {rect.find("title").text: float(rect.get("width")) for rect in bars[: len(bars) // 2]}
    assert told["VM exit: 0.700"] == pytest.approx(700 / 500 * told["guest fault: 0.500"], abs=0.1)
    assert told["compute: 1.000"] == pytest.approx(1000 / 500 * told["guest fault: 0.500"], abs=0.1)
    assert not any(name.startswith("data") for name in told)


def test_an_early_end_is_said_and_markup_in_names_is_text(stopped: Result, result: Result) -> None:
    html = stopped._repr_html_()
    ElementTree.fromstring(html)
    assert "Stopped at cycle 123,456." in html
    assert "VM &lt;a&gt; asked" in html
    assert "Stopped" not in result._repr_html_()


def test_a_comparison_shows_every_mode_and_its_notes(result: Result) -> None:
    html = Comparison({"native": result, "ept": result}, ["npt on <this>: what-if"])._repr_html_()
    assert "npt on &lt;this&gt;: what-if" in html
    assert len(re.findall("<tr><td", html)) == 4


def test_a_result_says_in_a_line_what_it_is(stopped: Result) -> None:
    assert repr(stopped).startswith("<Result of 2 VMs, 2,000 accesses, stopped: The host is out of memory")
