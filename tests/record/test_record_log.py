"""Does a log that is full keep rows of the whole run, evenly, and say how many it has not?"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmsim.record.log import Log
from vmsim.record.messages import Kind, MessageLog
from vmsim.record.outcome import Transfer, transfer_log


class Step(NamedTuple):
    number: int
    twice: int


@given(st.integers(2, 9), st.integers(0, 200))
def test_a_log_keeps_every_so_manieth_row_and_no_more_than_its_limit(limit: int, noted: int) -> None:
    log: Log[Step] = Log(Step, 2, limit=limit)
    for number in range(noted):
        log.append(Step(number, 2 * number))
        every = log.every
        assert [*log] == [Step(each, 2 * each) for each in range(0, number + 1, every)]
        assert len(log) <= limit
    every = log.every
    assert every & (every - 1) == 0
    assert every == 1 or noted > limit * every // 2  # no sparser than it must be
    assert log.extent == (noted, noted - len(log), every)


@given(st.integers(0, 60), st.integers(0, 60))
def test_rows_noted_after_a_warm_up_are_those_whose_number_is_not_below_its_count(before: int, after: int) -> None:
    log: Log[Step] = Log(Step, 2, limit=8)
    for number in range(before + after):
        log.append(Step(number, 0))
    assert [each.number for each in log.since(before)] == [each.number for each in log if each.number >= before]


def test_names_come_back_as_they_were() -> None:
    log = transfer_log(limit=4)
    for number, name in enumerate("abcabcabc"):
        log.append(Transfer(number, name, "spare" if number % 3 else "grant", 1, 2, 3))
    # The fifth halves the four: 0 and 2 are left, and 4; 6 fills it, and 8 halves it again.
    assert [(each.time, each.vm, each.what) for each in log] == [
        (0, "a", "grant"),
        (4, "b", "spare"),
        (8, "c", "spare"),
    ]


def test_messages_come_by_time_and_are_counted_by_kind_whether_kept_or_not() -> None:
    log = MessageLog(limit=2)
    for time in (50, 10, 30, 20, 40):
        log.add(time, 0, Kind.GRANT, time, 0)
    log.add(5, 1, Kind.SPARE, 1, 0)
    # 50, 10; the third leaves 50, 30; the fifth 50, 40.
    assert [each.pages for each in log] == [40, 50]
    assert (len(log), log.extent.left_out, log.every) == (2, 4, 4)
    assert [log.sent(0)["grant"], log.sent(0)["spare"], log.sent(1)["spare"]] == [5, 0, 1]


@pytest.mark.parametrize("what", ["transfers", "messages"])
def test_a_result_says_what_is_left_out(what: str, scenario, make_outcome) -> None:
    from vmsim.record.result import Result

    log = transfer_log(limit=4) if what == "transfers" else MessageLog(limit=4)
    for time in range(9):
        if isinstance(log, MessageLog):
            log.add(time, 0, Kind.GRANT, 1, 0)
        else:
            log.append(Transfer(time, "a", "grant", 1, 1, 1))
    result = Result(scenario, make_outcome(**{what: log}))
    component = "pool" if what == "transfers" else what
    table = result.table(component)
    assert table["time_cycles"].tolist() == [0, 4, 8]
    rows = result.figures.query("vm == '' and component == @component").set_index("figure")["value"]
    assert rows.to_dict() == {"noted": 9, "left_out": 6, "every": 4}
    if what == "messages":
        assert (result.facts.messages_dropped, result.facts.messages_every) == (6, 4)
