"""Does `vmsim messages` show what monitors and host said, and draw it?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vmsim.scenario.cpu_files import load_cpu


@pytest.fixture
def run(file: Path, tmp_path: Path, vmsim) -> Path:
    """Return the directory of a run of two VMs with pools."""
    out = tmp_path / "out"
    assert vmsim("run", file, "--out", out).status == 0
    return out


def test_the_messages_of_a_run_are_those_of_its_pools(run: Path, vmsim) -> None:
    from vmsim.record.result import Result

    told = json.loads(vmsim("messages", run, "--json").out)
    assert told["dropped"] == 0
    messages = told["messages"]
    pool = Result.load(run).pool
    moved = pool[~((pool["event"] == "return") & (pool["level"] == 0) & ~pool["vm"].duplicated(keep="last"))]
    for what in ("grant", "spare"):
        assert (
            sum(each["pages"] for each in messages if each["kind"] == what)
            == moved[moved["event"] == what]["pages"].sum()
        )
    first = {vm: next(each for each in messages if each["vm"] == vm) for vm in ("db-0", "db-1")}
    assert {vm: each["kind"] for vm, each in first.items()} == {"db-0": "need_pages", "db-1": "need_pages"}
    assert first["db-0"]["time_cycles"] == 0  # it waits, and the core is the other's once that is switched to
    assert first["db-1"]["time_cycles"] == load_cpu("skylake-x").cost.context_switch
    assert [each["time_cycles"] for each in messages] == sorted(each["time_cycles"] for each in messages)
    assert {(each["sender"], each["receiver"]) for each in messages} == {("monitor", "host"), ("host", "monitor")}


def test_a_window_and_a_vm_choose(run: Path, vmsim) -> None:
    everything = json.loads(vmsim("messages", run, "--json").out)["messages"]
    chosen = json.loads(vmsim("messages", run, "--vm", "db-1", "--from", "5us", "--to", "1.3ms", "--json").out)[
        "messages"
    ]
    assert chosen == [each for each in everything if each["vm"] == "db-1" and 5 <= each["time_us"] < 1300]
    assert 0 < len(chosen) < len(everything)


def test_the_table_says_how_many_there_are_and_their_sums(run: Path, vmsim) -> None:
    said = vmsim("messages", run)
    everything = json.loads(vmsim("messages", run, "--json").out)["messages"]
    assert f"{len(everything):,} messages" in said.out
    grants = [each for each in everything if each["kind"] == "grant"]
    (line,) = (line.split() for line in said.out.split("Total by kind")[1].splitlines() if line.startswith("grant"))
    assert line == [
        "grant",
        f"{len(grants):,}",
        *(f"{sum(each[key] for each in grants):,}" for key in ("pages", "cycles")),
    ]


def test_the_sequence_is_drawn(run: Path, tmp_path: Path, vmsim) -> None:
    for name in ("sequence.png", "sequence.pdf"):
        said = vmsim("messages", run, "--to", "100us", "--figure", tmp_path / name)
        assert (said.status, f"The sequence is in {tmp_path / name}." in said.out) == (0, True)
    assert (tmp_path / "sequence.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "sequence.pdf").read_bytes().startswith(b"%PDF")


def test_what_cannot_be_is_refused(run: Path, tmp_path: Path, vmsim) -> None:
    for words, text in (
        (("--vm", "bd-1"), "Did you mean 'db-1'?"),
        (("--from", "soon"), "'soon' is not a duration"),
        (("--to", "0", "--figure", tmp_path / "none.png"), "0 messages were chosen"),
        (("--figure", tmp_path / "sequence.gif", "--to", "20us"), "expected a name that ends in"),
    ):
        said = vmsim("messages", run, *words)
        assert (said.status, said.out) == (2, "")
        assert text in said.err
    assert not [*tmp_path.glob("*.png"), *tmp_path.glob("*.gif")]
    assert vmsim("messages", tmp_path / "nowhere").status == 2


def test_arrows_go_from_who_says_to_who_hears_in_the_order_of_time() -> None:
    import pandas as pd
    from matplotlib.patches import FancyArrowPatch

    from vmsim.analysis import style
    from vmsim.analysis.sequence import message_sequence

    table = pd.DataFrame(
        {
            "time_cycles": [2_000, 4_000],
            "time_us": [1.0, 2.0],
            "vm": ["a", "a"],
            "sender": ["monitor", "host"],
            "kind": ["need_pages", "grant"],
            "pages": [5, 16],
            "cycles": [1_000, 3_000],
        }
    )
    with style.figure() as (_, ax):
        message_sequence(table, ax)
        names = [label.get_text() for label in ax.get_xticklabels()]
        arrows = [each._posA_posB for each in ax.patches if isinstance(each, FancyArrowPatch)]
        places = {name: place for place, name in enumerate(names)}
        # One below the other in the order in which they were sent, with that time beside them.
        assert arrows == [[(places["a"], 0.0), (places["host"], 0.6)], [(places["host"], 1.0), (places["a"], 1.6)]]
        assert [label.get_text() for label in ax.get_yticklabels()] == ["1.00", "2.00"]
        assert [text.get_text() for text in ax.texts] == ["need_pages(5)", "grant(16)"]
        assert ax.get_ylim()[0] > ax.get_ylim()[1]  # time runs down
