"""Is the page of a run whole in one file, right in its numbers, safe with any name, and usable in a browser?"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import vmsim
from tests.simulation.small import scenario, vm
from vmsim.reporting.charts import Series, areas, bars, lines, ticks
from vmsim.reporting.page import page
from vmsim.reporting.parts import figure, table
from vmsim.reporting.runs import line_looks

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVIL = "<script>alert(1)</script>\"'&<b>"
VOID = {"meta"}


@pytest.fixture(scope="module")
def result() -> vmsim.Result:
    return vmsim.run(scenario(vm("left", workload={"accesses": 600}), vm("right"), samples="1us"))


@pytest.fixture(scope="module")
def pages(result: vmsim.Result) -> dict[str, str]:
    both = vmsim.compare(scenario(vm("left"), vm("right")), ["native", "ept"])
    return {"run": page(result, "a run"), "both": page(both, "both"), "sweep": page(sweep(), "a sweep")}


def sweep(name: str = "min") -> pd.DataFrame:
    rows = [
        {"point": f"{least}-{mode}", "replicate": 0, "seed": 1, name: least, "vm": "a", "mode": mode}
        | {"cycles_per_access": least / 4 + (mode == "ept"), "exits": least}
        for least in (4, 8, 16)
        for mode in ("native", "ept")
    ]
    return pd.DataFrame(rows)


class Whole(HTMLParser):
    """Checks that elements nest, and notes what is asked of a reader of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_last_label_of_an_axis_is_not_cut_off() -> None:
    drawn = lines([Series("a", [(1.0, 0.5), (1000.0, 1.0)], "red")], "µs", "share", "t", log_x=True)
    place, label = re.findall(r'<text x="([\d.]+)" y="203"[^>]*>([^<]*)<', drawn)[-1]
    assert label == "1,000"
    assert float(place) + 3.6 * len(label) <= 420  # letters of 12 units, 7.2 wide at most


def test_neighbours_among_lines_differ_without_colours_and_no_two_look_alike() -> None:
    looks = [*line_looks([str(number) for number in range(24)]).values()]
    assert len({*looks}) == 24
    assert all(one[1] != two[1] for one, two in pairwise(looks))


@pytest.mark.parametrize("kind", ["run", "both", "sweep"])
def test_a_page_is_whole_needs_no_other_file_and_can_be_read_aloud(kind: str, pages: dict[str, str]) -> None:
    parsed = Whole(pages[kind])
    names = [name for name, _ in parsed.elements]
    assert names.count("h1") == 1
    assert not {"src", "href"} & {
        key
        for name, attributes in parsed.elements
        for key, value in attributes.items()
        if not (name == "a" and str(value).startswith("#"))
    }
    ids = {attributes["id"] for _, attributes in parsed.elements if "id" in attributes}
    anchors = {str(each["href"])[1:] for name, each in parsed.elements if name == "a"}
    assert anchors <= ids
    for name, attributes in parsed.elements:
        if name == "svg" and attributes.get("class") == "chart":
            assert attributes["aria-label"]
            assert attributes["tabindex"] == "0"
    charts = sum(each.get("class") == "chart" for name, each in parsed.elements if name == "svg")
    assert names.count("figure") == charts  # each with its data as a table
    assert pages[kind].count("<summary>Data</summary>") == charts


def test_the_page_says_what_the_tables_say(result: vmsim.Result, pages: dict[str, str]) -> None:
    for row in result.summary.itertuples():
        assert f'<td data-value="{row.accesses}">{row.accesses:,}</td>' in pages["run"]
    for row in result.cycles[result.cycles["cycles"] > 0].itertuples():
        assert re.search(rf"{row.vm} \(ept\), [^:\"]*: {row.per_access:.3g}|{row.per_access:,.0f}", pages["run"])
    assert html.escape(result.scenario.to_toml()) in pages["run"]


def test_names_are_text_wherever_they_stand() -> None:
    made = [
        bars([(EVIL, [(EVIL, EVIL, 1.0)])], EVIL, EVIL),
        lines([Series(EVIL, [(1.0, 2.0)], EVIL, EVIL)], EVIL, EVIL, EVIL, names={1.0: EVIL}),
        areas([1.0, 2.0], {EVIL: [1.0, 2.0]}, {EVIL: EVIL}, (EVIL, EVIL), EVIL, top=2.0),
        table(pd.DataFrame({EVIL: [EVIL]}), EVIL),
        figure("", EVIL, pd.DataFrame({"a": [1]}), [(EVIL, EVIL, EVIL)]),
        page(sweep(EVIL), EVIL),
    ]
    for text in made:
        body = re.sub(r"<script>\n.*?</script>|<style>.*?</style>", "", text, flags=re.DOTALL)
        assert "<script" not in body
        assert "<b>" not in body
        assert "alert" in body
        Whole(text)


def test_axes_have_round_numbers() -> None:
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(0, 0.5) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert ticks(3, 4000, log=True) == [10, 100, 1000]
    assert ticks(5, 5) == [5]


def test_the_command_writes_it_once_and_the_same_bytes(result: vmsim.Result, tmp_path: Path, vmsim: Any) -> None:
    result.save(tmp_path / "run")
    out = tmp_path / "r.html"
    assert vmsim("report", tmp_path / "run", "--out", out).status == 0
    first = out.read_bytes()
    again = vmsim("report", tmp_path / "run", "--out", out)
    assert (again.status, "--force" in again.err) == (2, True)
    assert json.loads(vmsim("report", tmp_path / "run", "--out", out, "--force", "--json").out)["bytes"] == len(first)
    assert out.read_bytes() == first
    assert vmsim("report", tmp_path / "nothing").status == 2


LOOK = """
<!DOCTYPE html><title>wait</title><iframe style="width:390px;height:844px;border:0" srcdoc="{page}"></iframe><script>
onload = () => {{
  const page = document.querySelector("iframe").contentDocument, say = {{}};
  say.width = page.documentElement.scrollWidth;
  say.letters = Math.min(...[...page.querySelectorAll(".chart text")].map((text) => text.getBoundingClientRect().height)
    .filter((height) => height > 0));
  say.figures = [...page.querySelectorAll("figure")].filter((figure) => !figure.hidden).length;
  const chart = page.querySelector(".chart");
  chart.focus();
  chart.dispatchEvent(new KeyboardEvent("keydown", {{key: "ArrowRight", bubbles: true}}));
  say.tip = chart.closest("figure").querySelector(".tip").textContent;
  const head = page.querySelector("table.sortable th:last-child"), body = head.closest("table").tBodies[0];
  head.querySelector("button").click();
  say.sorted = [...body.rows].map((row) => Number(row.lastElementChild.dataset.value));
  say.sort = head.getAttribute("aria-sort");
  document.title = JSON.stringify(say);
}};
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_a_browser_shows_it_on_a_phone_and_answers_the_keyboard(
    kind: str, pages: dict[str, str], tmp_path: Path
) -> None:
    assert BROWSER
    file = tmp_path / "look.html"
    file.write_text(LOOK.format(page=html.escape(pages[kind])), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [BROWSER, *options, "--virtual-time-budget=2000", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r"<title>(.*?)</title>", done.stdout)
    assert found, done.stderr[-2000:]
    said = json.loads(html.unescape(found[1]))
    assert said["width"] <= 390  # nothing is cut off, or makes the page wider than the screen
    assert said["letters"] >= 9
    assert ": " in said["tip"]
    assert said["sorted"] == sorted(said["sorted"])
    assert said["sort"] == "ascending"
    assert said["figures"] == (1 if kind == "sweep" else pages[kind].count("<figure>"))
