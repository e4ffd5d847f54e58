"""Is an LLC refused that no CPU has?"""

import re
from typing import Any

import pytest

from vmsim.base.errors import InputError
from vmsim.scenario.cpu_caches import Llc

DUEL = "QLRU_H11_M1_R1_U2/QLRU_H11_MR161_R1_U2"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"filled": "victims", "inclusive": True}, "filled by victims"),
        ({"replacement": DUEL}, "needs sets that lead"),
        ({"leaders": ["0", "1"]}, "with lru no sets duel"),
        ({"replacement": DUEL, "leaders": ["0-3", "3"]}, "set 3 leads for both"),
        ({"replacement": DUEL, "leaders": ["0-3", "64"]}, "found set 64, expected at most 63"),
        ({"replacement": DUEL, "leaders": ["0-3", "4..7"]}, "'4..7' in '4..7' is no set"),
        ({"replacement": DUEL, "leaders": ["0", "1"], "filled": "victims"}, "not known of any CPU"),
    ],
)
def test_an_llc_that_no_cpu_has_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises((ValueError, InputError), match=re.escape(said)):
        Llc(size=64 << 10, ways=16, cycles=40, **keys)


def test_leaders_are_counted_through_the_slices() -> None:
    llc = Llc(size=64 << 10, ways=16, slices=2, cycles=40, replacement=DUEL, leaders=("0-2, 32", "63"))
    assert llc.leading == ([0, 1, 2, 32], [63])
