"""Does the stream that stands for a program have the figures that it is given, each by itself?"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.simulation.small import run, scenario, vm
from vmsim.base.errors import InputError
from vmsim.record.tables import rows
from vmsim.workloads import Op
from vmsim.workloads.generators import ADDRESS, DETAIL, random_source
from vmsim.workloads.powers import zipf_cumulative
from vmsim.workloads.stand_in import _AGAIN, _PAGE, REGION, StandIn

PAGE = 4096
MODES = ["native", "ept", "npt", "shadow", "agile", "paired", "vkernel"]


def standing(**keys: Any) -> StandIn:
    return StandIn(**{"size": 16 * REGION, "runs": 9001, **keys})


def addresses(stream: StandIn, thread: int = 0) -> np.ndarray:
    return np.concatenate([chunk.address for chunk in stream.chunks(thread)])


def events(stream: StandIn, thread: int = 0) -> list[tuple[int, Op, int, int, int]]:
    """Return each event with the number of accesses before it."""
    found, before = [], 0
    for chunk in stream.chunks(thread):
        found += [(before + each.position, each.op, each.address, each.length, each.argument) for each in chunk.events]
        before += len(chunk.address)
    return found


def twin(stream: StandIn) -> list[int]:
    """Return the addresses by the text of the class, one access after the other, in Python's integers."""
    sources = {use: random_source(stream.seed, use) for use in (ADDRESS, DETAIL, _PAGE, _AGAIN)}
    word = {use: (lambda source=source: int(source.random_raw())) for use, source in sources.items()}
    laws = [zipf_cumulative(len(stream._regions), stream.region_exponent), zipf_cumulative(512, stream.page_exponent)]
    weights = [[int(each) for each in law] for law in laws]
    visited: list[int] = []
    made: list[int] = []
    while len(made) < stream.runs:
        by_region, by_page, again, first = (word[use]() for use in (ADDRESS, _PAGE, _AGAIN, DETAIL))
        region = int(stream._regions[bisect_right(weights[0], by_region * weights[0][-1] >> 64)])
        rank = bisect_right(weights[1], by_page * weights[1][-1] >> 64)
        mixed = region * 0x7FEB352D
        page = 512 * region + (rank * (mixed >> 7 | 1) + (mixed >> 17)) % 512
        lately = visited[-stream.recent :]
        if lately and again >> 32 < round(stream.reuse * 2**32):
            place = (again % 2**32) * len(lately) >> 32
            # the ring's item number `place`, whichever of the last visits that is
            page = lately[place] if len(visited) <= stream.recent else lately[(place - len(visited)) % stream.recent]
        visited.append(page)
        for line in range(stream.lines):
            if len(made) < stream.runs:
                made.append(stream.base + PAGE * page + 64 * (((first >> 58) + line) % 64))
    return made


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"lines": 1, "region_exponent": 0.0},
        {"reuse": 0.6, "recent": 37, "page_exponent": 1.2},
        {"reuse": 1.0, "recent": 1, "lines": 64},
        {"reuse": 0.9, "recent": 5000, "region_exponent": 2.5, "lines": 3},
    ],
)
def test_the_stream_is_what_its_text_says(keys: dict[str, Any]) -> None:
    stream = standing(runs=3000, **keys)
    assert addresses(stream).tolist() == twin(stream)
    assert addresses(replace(stream, chunk=7)).tolist() == twin(stream)


def test_regions_and_pages_follow_their_laws() -> None:
    stream = standing(lines=1, runs=200_000, region_exponent=0.8, page_exponent=1.0)
    pages = (addresses(stream) - stream.base) // PAGE
    for counts, exponent, of in ((Counter(pages // 512), 0.8, 16), (Counter(pages[pages // 512 == 3]), 1.0, 512)):
        law = np.arange(1, of + 1) ** -exponent
        most = np.array(sorted(counts.values(), reverse=True))[:4] / sum(counts.values())
        assert most == pytest.approx(law[:4] / law.sum(), rel=0.1)


def test_each_page_of_a_region_has_a_rank_and_regions_differ_in_them() -> None:
    stream = standing(lines=1, runs=100_000, page_exponent=2.0, region_exponent=0.0)
    pages = (addresses(stream) - stream.base) // PAGE
    first = {int(Counter((pages[pages // 512 == region] % 512).tolist()).most_common(1)[0][0]) for region in range(16)}
    assert len(first) > 10


def test_reuse_goes_to_pages_visited_lately_and_no_farther() -> None:
    """Of a large footprint hardly a page is met twice by chance."""
    stream = StandIn(size=512 * REGION, runs=20_000, lines=1, region_exponent=0.0, reuse=0.5, recent=50)
    pages = (addresses(stream) // PAGE).tolist()
    last: dict[int, int] = {}
    ages = []
    for number, page in enumerate(pages):
        ages.append(number - last[page] if page in last else 0)
        last[page] = number
    again = [age for age in ages if age]
    assert len(again) / len(pages) == pytest.approx(0.5, abs=0.06)
    assert np.mean(np.array(again) <= 50) > 0.85  # the others are by chance


@pytest.mark.parametrize("edit", ["map", "protect", "discard"])
def test_edits_come_at_equal_distances(edit: str) -> None:
    stream = standing(edits=1000.0, edit=edit, block=4 * PAGE)
    found = events(stream)
    each = 1 if edit == "discard" else 2
    assert [at for at, *_ in found] == [1000 * number for number in range(1, 10) for _ in range(each)]
    pairs = {"map": [Op.UNMAP, Op.MAP], "protect": [Op.PROTECT, Op.PROTECT], "discard": [Op.DISCARD]}[edit]
    assert [op for _, op, *_ in found] == pairs * 9
    assert all(length == 4 * PAGE and (address - stream.base) % (4 * PAGE) == 0 for *_, address, length, _ in found)
    assert len({address for *_, address, _, _ in found}) > 5
    assert addresses(stream).tolist() == addresses(standing()).tolist()
    if edit == "protect":
        assert [argument for *_, argument in found] == [1, 3] * 9


@pytest.mark.parametrize("edits", [0.0, 3.0, 777.5, 1_000_000.0])
def test_there_are_as_many_edits_as_asked_for(edits: float) -> None:
    assert len(events(standing(edits=edits, edit="discard"))) in (int(9001e-6 * edits), round(9001e-6 * edits) - 1)


def test_huge_pages_are_wanted_for_a_share_of_the_regions_before_the_first_access() -> None:
    stream = standing(large=0.25)
    found = events(stream)
    assert [(at, op, argument) for at, op, _, _, argument in found] == [(0, Op.MAP, 3), (0, Op.ADVISE, 14)] * 4
    assert len({address for _, _, address, _, _ in found}) == 4
    assert all(address % REGION == 0 and length == REGION for _, _, address, length, _ in found)


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"size": REGION + PAGE}, "footprint"),
        ({"base": PAGE}, "base"),
        ({"region_exponent": 9.0}, "region_exponent"),
        ({"reuse": 1.5}, "reuse"),
        ({"recent": 0}, "recent"),
        ({"lines": 65}, "lines"),
        ({"edits": -1.0}, "edits"),
        ({"edit": "mop"}, "edit"),
        ({"block": 100}, "block"),
        ({"block": 17 * REGION}, "block"),
    ],
)
def test_what_does_not_fit_is_refused(keys: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=f"workload stand-in: {what} = "):
        standing(**keys)


@pytest.mark.parametrize(
    ("keys", "message"), [({"footprint": "3MiB"}, "found 3MiB"), ({"base": "0x10_0000_1000"}, "2MiB")]
)
def test_a_scenario_says_so_too(keys: dict[str, Any], message: str) -> None:
    plain = scenario(vm(workload={"kind": "stand-in", "footprint": "2MiB"}))
    with pytest.raises(InputError, match=message):
        plain.replace(**{f"vm.workload.{key}": value for key, value in keys.items()})


@pytest.mark.parametrize("edit", ["map", "protect", "discard"])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_runs_it_with_edits_and_two_threads(mode: str, edit: str) -> None:
    work = {"kind": "stand-in", "footprint": "4MiB", "accesses": 1500, "edits": 5000.0, "edit": edit, "writes": 0.5}
    table = vm(mode=mode, memory="12MiB", vcpus=2, workload=work | {"threads": 2, "reuse": 0.4, "block": "64KiB"})
    _, outcome = run(scenario(table, memory="32MiB", cores=2, what_if=True))
    (row,) = rows("summary", outcome)
    assert row["finished"]
    assert row["accesses"] == 1500


def test_what_is_wanted_large_is_mapped_so() -> None:
    faults = {}
    for large in (0.0, 1.0):
        work = {"kind": "stand-in", "footprint": "8MiB", "accesses": 4000, "lines": 1, "region_exponent": 0.0}
        table = vm(memory="16MiB", thp={"enabled": "madvise"}, workload=work | {"large": large})
        _, outcome = run(scenario(table, memory="64MiB"))
        (row,) = rows("summary", outcome)
        faults[large] = row["guest_faults"]
    assert faults[1.0] == 4
    assert faults[0.0] > 1000
