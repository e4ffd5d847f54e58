"""Do pools on a host say and move exactly what a plain twin of the protocol does, whatever their monitors do?"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.host.test_pool import Site
from tests.oracle.pool import GRANT_FIXED, GRANT_PAGE, MESSAGE, RECLAIM_FIXED, RECLAIM_PAGE, Steps, TwinHost
from vmsim.frames.records import State
from vmsim.scenario import Marks
from vmsim.scenario.cpu_files import load_cpu

Work = list[tuple[str, int]]


def test_the_twin_has_the_costs_of_the_preset() -> None:
    cost = load_cpu("yardstick").cost
    assert (cost.message, cost.grant_fixed, cost.grant_page + cost.host_zero) == (MESSAGE, GRANT_FIXED, GRANT_PAGE)
    assert (cost.reclaim_fixed, cost.reclaim_page) == (RECLAIM_FIXED, RECLAIM_PAGE)


works = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 40)),
        st.tuples(st.just("put"), st.integers(1, 60)),
        st.tuples(st.just("wait"), st.sampled_from([1, 7, 500, 999, 1001, 13_392, 40_000, 1_000_000])),
    ),
    max_size=25,
)
pools = st.tuples(st.integers(0, 30), st.integers(0, 60), st.integers(1, 80)).map(
    lambda drawn: (drawn[0], max(1, drawn[0], drawn[1]), drawn[2])
)


def monitor(site: Site, owner: int, work: Work, got: list[Any], left: list[int]) -> Generator[simpy.Event, Any, None]:
    """Do what a VM's vCPU does to its pool; the last one closes it."""
    pool, held = site.pools[owner], list[int]()
    yield site.env.timeout(owner)
    for what, number in work:
        if what == "wait":
            yield site.env.timeout(number)
        elif what == "take":
            pages = pool.take(number) or (yield pool.request(number))
            held += pages
            got.append((site.env.cycle, owner, number))
        elif held:
            back, held = held[:number], held[number:]
            pool.put(back)
    left[owner] -= 1
    if left[owner] == 0:
        yield from pool.close()
        site.host.give_all(owner)


def twin_monitor(twin: TwinHost, owner: int, work: Work, got: list[Any], left: list[int], held: list[int]) -> Steps:
    pool, mine = twin.pools[owner], 0
    yield owner
    for what, number in work:
        if what == "wait":
            yield number
        elif what == "take":
            if signal := twin.take(pool, number):
                yield signal
            mine += number
            held[owner] += number
            got.append((twin.time.now, owner, number))
        elif mine:
            back = min(mine, number)
            mine -= back
            held[owner] -= back
            twin.put(pool, back)
    left[owner] -= 1
    if left[owner] == 0:
        yield from twin.close(pool)
        twin.give(held[owner])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(pools, st.lists(works, min_size=1, max_size=2)), min_size=1, max_size=4),
    st.integers(60, 900),
    st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 60)),
    st.sampled_from(["batch", "proportional", "predictive"]),
    st.sampled_from(["largest", "fair", "neediest", "shares"]),
)
def test_messages_grants_spares_and_levels_are_the_twins(
    vms: list[tuple[tuple[int, int, int], list[Work]]],
    frames: int,
    steps: tuple[int, int, int],
    refill: str,
    spares: str,
) -> None:
    shares = (1, 3, 2, 5)
    marks = steps[0], steps[0] + steps[1], steps[0] + steps[1] + steps[2]
    specs = [spec for spec, _ in vms]
    site = Site(frames, Marks(*marks), tuple(specs), refill=refill, spares=spares, shares=shares[: len(specs)])
    twin = TwinHost(frames, marks, specs, refill, spares, shares)
    got: tuple[list[Any], list[Any]] = ([], [])
    left = [len(threads) for _, threads in vms], [len(threads) for _, threads in vms]
    held = [0] * len(vms)
    for owner, (_, threads) in enumerate(vms):
        for work in threads:
            site.env.process(monitor(site, owner, work, got[0], left[0]))
            twin.time.start(twin_monitor(twin, owner, work, got[1], left[1], held))
    site.run(events=200_000)
    twin.time.run()
    assert sorted(site.said()) == sorted(twin.said)
    moved = [(e.time, int(e.vm[2:]), e.what, e.pages, e.level, e.host_free) for e in site.transfers]
    assert moved == twin.moved
    assert got[0] == got[1]
    assert [pool.level for pool in site.pools] == [pool.level for pool in twin.pools]
    assert site.host.free == twin.free == np.count_nonzero(site.host.frames["state"] == State.FREE)
