"""Does the traps figure's message hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

EDITING, REAL = ["churn", "compile", "forkwait"], ["cc1", "sort"]
STEP, EMULATE, LIMIT, UNSYNC = (
    ("shadow", "single-step", 0),
    ("shadow", "emulate", 0),
    ("shadow", "emulate", 3),
    ("shadow", "unsync", 3),
)
EPT = ("ept", "unsync", 3)


@pytest.fixture(scope="module")
def table(figure_of: Callable[[str], SimpleNamespace]) -> pd.DataFrame:
    made: pd.DataFrame = figure_of("traps").data()
    return made.pivot_table(index="vm", columns=["paging", "trap", "write_flood"], values=["relative", "exits"])


@pytest.fixture(scope="module")
def time(table: pd.DataFrame) -> pd.DataFrame:
    """Return run times over native by program, a column for each way."""
    return table["relative"]


def test_each_program_is_there(time: pd.DataFrame) -> None:
    assert {*time.index} == {*EDITING, *REAL}
    assert (time[("native", "unsync", 3)] == 1).all()


def test_emulation_is_cheaper_than_stepping_and_unsync_than_both(time: pd.DataFrame) -> None:
    assert (time[EMULATE] < time[STEP]).all()
    assert (time[UNSYNC] < time[EMULATE]).all()
    assert (time[UNSYNC] < time[LIMIT]).drop("forkwait").all()
    assert time.loc["forkwait", UNSYNC] == pytest.approx(time.loc["forkwait", LIMIT], rel=0.02)  # few stores to a table


def test_a_step_takes_two_exits_where_emulation_takes_one(table: pd.DataFrame) -> None:
    forkwait = table.loc["forkwait", "exits"]  # nearly all of them are stores
    assert forkwait[STEP] == pytest.approx(2 * forkwait[EMULATE], rel=0.01)


def test_programs_that_edit_pay_several_times_their_run_and_real_ones_up_to_two_and_a_half(
    time: pd.DataFrame,
) -> None:
    assert (time.loc[EDITING, [STEP, EMULATE, UNSYNC]] > 2).all(axis=None)
    assert (time.loc[REAL, [STEP, EMULATE, LIMIT, UNSYNC]] < 2.5).all(axis=None)
    assert (time.loc[REAL, UNSYNC] < 1.75).all()


def test_none_comes_near_ept(time: pd.DataFrame) -> None:
    """cc1 is recorded up to its 24 millionth access: the first touches of a program of 30 MiB are a good part of it."""
    assert (time[EPT].drop("cc1") < 1.25).all()
    assert 1.25 < time.loc["cc1", EPT] < 1.4
    for way in (STEP, EMULATE, LIMIT, UNSYNC):
        assert (time[way] - 1 > 2 * (time[EPT] - 1)).drop("cc1").all()
        assert time.loc["cc1", way] - 1 > 1.7 * (time.loc["cc1", EPT] - 1)


def test_the_limit_saves_short_lived_processes_and_ruins_a_table_that_is_edited_in_use(time: pd.DataFrame) -> None:
    for program in ("compile", "forkwait"):
        assert time.loc[program, LIMIT] < time.loc[program, EMULATE] / 3
        assert time.loc[program, LIMIT] < 1.5 * time.loc[program, UNSYNC]
    assert time.loc["forkwait", EMULATE] > 20
    assert time.loc["churn", LIMIT] > 2 * time.loc["churn", EMULATE]
    assert time.loc["churn", LIMIT] > time.loc["churn", STEP]
