"""Does what is printed keep within the terminal, with every number and heading whole, and is it plain in a pipe?"""

import io
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from vmsim.cli.layout import Best, Side, arrange, hundredths, number, short_number
from vmsim.cli.screen import print_facts, print_table, say

RUN: dict[str, Side] = {
    "VM": "left",
    "mode": "left",
    "workload": "left",
    "accesses": "right",
    "L1 TLB misses": "right",
    "L2 TLB misses": "right",
    "walk references": "right",
    "guest faults": "right",
    "VM exits": "right",
    "cycles per access": "right",
}
ROWS: list[list[Any]] = [
    ["database-0", "ept", "sqlite", 59_722_106, 48_089, 28_084, 63_025, 3_133, 3_116, 1.95],
    ["cache", "shadow", "zipf", 5_000_000, 772_822, 431_439, 1_432_854, 32_418, 129_740, 12_264.94],
]


def shown(columns: Mapping[str, Side], rows: list[list[Any]], width: int | None) -> list[str]:
    """Return the lines on a terminal of that width; in a pipe without one."""
    console = Console(
        file=io.StringIO(), width=width or 80, force_terminal=width is not None, highlight=False, color_system=None
    )
    print_table("Title", columns, rows, console=console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def words(lines: list[str]) -> list[str]:
    return " ".join(lines).split()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("count", [1, 2, 9, 24])
def test_a_table_of_a_run_keeps_within_the_width_and_every_number_is_whole(width: int, count: int) -> None:
    rows = [[f"{name}-{place}", *rest] for place in range(count // 2 or 1) for name, *rest in ROWS[:count]]
    lines = shown(RUN, rows, width)
    assert max(map(len, lines)) <= width
    said = words(lines)
    for row in rows:
        assert row[0] in said
        for value in row[3:]:
            # A shortened number is two words: 59.7 M.
            assert number(value) in said or short_number(value) in " ".join(said), value
    for heading in RUN:
        assert all(word in said for word in heading.split()), heading


@pytest.mark.parametrize("width", [80, 120, None])
def test_a_table_of_two_vms_shows_all_digits_at_80_columns(width: int | None) -> None:
    said = words(shown(RUN, ROWS, width))
    assert {number(value) for row in ROWS for value in row} <= {*said}


def test_in_a_pipe_there_is_a_line_a_row_without_boxes_colours_or_blanks_at_the_end() -> None:
    source = "Intel SDM volume 3C, " + "a long explanation " * 20
    lines = shown({"figure": "left", "value": "right", "source": "text"}, [["cost.exit", 1234567, source]], None)
    assert lines == ["Title", f"figure         value  {'source'}", f"cost.exit  1,234,567  {source}".rstrip(), ""]
    assert not any(line != line.rstrip() for line in lines)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_sentences_are_wrapped_at_words(width: int) -> None:
    source = "Intel SDM volume 3C section 28.2.6 says that " * 4
    lines = shown({"figure": "left", "value": "right", "source": "text"}, [["cost.exit", 1234567, source]], width)
    assert max(len(line.rstrip()) for line in lines) <= width
    assert words(lines[2:]) == ["cost.exit", "1,234,567", *source.split()]


def test_what_no_terminal_is_wide_enough_for_comes_in_blocks_that_repeat_the_key() -> None:
    columns: dict[str, Side] = {"parameter": "left", **{f"point {place}": "right" for place in range(30)}}  # type: ignore[dict-item]
    rows = [[f"key-{line}", *(10**6 * place + line for place in range(30))] for line in range(12)]
    lines = shown(columns, rows, 60)
    assert max(map(len, lines)) <= 60
    blocks = "\n".join(lines[1:]).strip().split("\n\n")
    assert len(blocks) > 1
    for block in blocks:
        assert "parameter" in block
        assert all(f"key-{line}" in block for line in range(12))


def test_a_name_longer_than_the_terminal_is_folded_and_the_numbers_are_not() -> None:
    lines = shown({"folder": "left", "points": "right"}, [["/x" * 80, 1_234]], 60)
    assert max(map(len, lines)) <= 60
    assert "1,234" in words(lines)
    assert "".join(words(lines[2:])).replace("1,234", "") == "/x" * 80


def test_the_best_value_stands_out_on_a_terminal_only() -> None:
    for terminal in (True, False):
        console = Console(file=io.StringIO(), width=80, force_terminal=terminal, color_system="standard")
        print_table("", {"VM": "left", "ept": "right"}, [["a", Best(1.5)]], console=console)
        said = console.file.getvalue()  # type: ignore[attr-defined]
        assert ("\x1b[1;32m1.50" in said) == terminal
        assert "1.50" in said


def test_markup_in_names_is_text() -> None:
    assert "[/x]" in words(shown({"VM[red]": "left", "n": "right"}, [["[/x]", 1]], 80))
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    say("[/x] ran", console=console)
    assert "[/x] ran" in console.file.getvalue()  # type: ignore[attr-defined]


def test_facts_have_no_heading(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts("file", {"format": "vmtrace", "pages": "3"})
    assert capsys.readouterr().out == "file\nformat  vmtrace\npages   3\n\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (59_722_106, "59,722,106"),
        (0.0, "0"),
        (1.0, "1.00"),
        (10418.0, "10,418"),
        (161.0567, "161.06"),
        (0.0123, "0.01"),
        (0.00119, "0.0012"),
        (-0.5, "-0.50"),
        (float("nan"), "–"),
        (None, "–"),
        (True, "yes"),
        ("name", "name"),
    ],
)
def test_numbers_have_the_decimals_that_their_size_asks_for(value: object, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (99_999, "99,999"),
        (100_000, "100 k"),
        (999_499, "999 k"),
        (999_500, "1.00 M"),
        (59_722_106, "59.7 M"),
        (-59_722_106, "-59.7 M"),
        (1_432_854, "1.43 M"),
        (527_104_000_000, "527 G"),
        (1.5, "1.50"),
    ],
)
def test_large_counts_are_shortened_to_three_digits(value: float, text: str) -> None:
    assert short_number(value) == text


@given(st.integers(-(10**17), 10**17))
def test_a_short_number_is_right_to_three_digits_and_at_most_seven_wide(value: int) -> None:
    text = short_number(value)
    assert len(text.lstrip("-")) <= 7
    size, _, suffix = text.partition(" ")
    scale = 1000 ** ("", "k", "M", "G", "T", "P").index(suffix)
    assert abs(float(size.replace(",", "")) * scale - value) <= max(0.5, abs(value) * 0.00501)


def test_hundredths_line_up() -> None:
    values = {0.0: "0", 0.004: "<0.01", 0.005: "0.01", 1.0: "1.00", 1234.5: "1,234.50"}
    assert {value: hundredths(value) for value in values} == values


@given(
    st.lists(st.lists(st.integers(0, 10**12), min_size=8, max_size=8), min_size=1, max_size=30),
    st.sampled_from([40, 60, 80, 120]),
)
def test_any_counts_keep_within_any_width(rows: list[list[int]], width: int) -> None:
    columns: dict[str, Side] = {f"heading {place}": "right" for place in range(8)}
    for grid in arrange(columns, rows, width):
        widths = grid.widths(width)
        assert sum(widths) + 2 * (len(widths) - 1) <= width
        for row in grid.rows:
            assert all(cell.width <= limit for cell, limit in zip(row, widths, strict=True))
