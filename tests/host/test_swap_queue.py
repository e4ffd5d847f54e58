"""Do pages wait for a swap device as long as queueing theory says, and is it what its data sheet describes?"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from vmsim import plugins
from vmsim.base.clock import Clock
from vmsim.base.errors import InputError
from vmsim.host.swap.area import SwapArea
from vmsim.host.swap.device import BlockDevice
from vmsim.host.swap.queue import DeviceQueue
from vmsim.host.swap.readahead import Window, window_size
from vmsim.host.swap.service import drawer, read_histogram
from vmsim.host.swap.traffic import DeviceTraffic
from vmsim.scenario.service import LONGEST, parse_service

MEAN = 100_000  # cycles of a request
REQUESTS = 200_000


def waits(channels: int, load: float, service: str) -> float:
    """Return how long requests of a Poisson stream wait on average, in times of a request's mean."""
    random, queue = Random(1), DeviceQueue(channels)
    draw = drawer(parse_service(f"{service} 100us"), Random(2), 10**9, Path())
    now = 0.0
    for _ in range(REQUESTS):
        now += random.expovariate(load * channels / MEAN)
        queue.submit(round(now), np.array([draw()]))
    assert queue.served / queue.requests == pytest.approx(MEAN, rel=0.01)
    return queue.waited / queue.requests / MEAN


def erlang_c(channels: int, load: float) -> float:
    offered = load * channels
    below = sum(offered**n / math.factorial(n) for n in range(channels))
    full = offered**channels / math.factorial(channels) / (1 - load)
    return full / (below + full)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_channel_with_exponential_times_is_m_m_1(load: float) -> None:
    """W = rho / (1 - rho) times the mean (L. Kleinrock, Queueing Systems vol. 1, 3.2)."""
    assert waits(1, load, "exponential") == pytest.approx(load / (1 - load), rel=0.05)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_channel_with_constant_times_is_m_d_1(load: float) -> None:
    """W = rho / (2 (1 - rho)): Pollaczek and Khinchine."""
    assert waits(1, load, "constant") == pytest.approx(load / (2 * (1 - load)), rel=0.05)


@pytest.mark.parametrize("channels", [2, 8])
def test_several_channels_with_exponential_times_are_m_m_c(channels: int) -> None:
    """W = C / (c (1 - rho)) times the mean, C by Erlang's formula."""
    load = 0.6
    assert waits(channels, load, "exponential") == pytest.approx(
        erlang_c(channels, load) / (channels * (1 - load)), rel=0.05
    )


def test_requests_are_served_in_their_order_by_hand() -> None:
    queue = DeviceQueue(2)
    assert [int(queue.submit(now, np.array([10]))[0]) for now in (0, 1, 2, 30)] == [10, 11, 20, 40]
    assert queue.waited == 8


@pytest.mark.parametrize(
    ("text", "mean"),
    [
        ("constant 5us", 5000),
        ("exponential 5us", 5000),
        ("uniform 2us 10us", 6000),
        ("lognormal 5us 0.5", 5000),
    ],
)
def test_what_is_drawn_has_the_mean_that_was_asked_for(text: str, mean: float) -> None:
    draw = drawer(parse_service(text), Random(3), 10**9, Path())
    assert sum(draw() for _ in range(50_000)) / 50_000 == pytest.approx(mean, rel=0.02)


def test_a_histogram_file_is_drawn_from(tmp_path: Path) -> None:
    path = tmp_path / "disk.csv"
    path.write_text("from_us,to_us,count\n10,10,3\n100,200,1\n")
    assert read_histogram(path) == [(10, 10, 3), (100, 200, 1)]
    draw = drawer(parse_service("file disk.csv"), Random(4), 10**9, tmp_path)
    drawn = [draw() for _ in range(20_000)]
    assert sum(each == 10_000 for each in drawn) / len(drawn) == pytest.approx(0.75, abs=0.02)
    assert all(each == 10_000 or 100_000 <= each <= 200_000 for each in drawn)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("from_us,to_us,count\n5,3,1\n", "disk.csv:2: "),
        ("from_us,to_us,count\n1,2,x\n", "disk.csv:2: "),
        ("from_us,to_us,count\n1,2\n", "disk.csv:2: "),
        ("from_us,to_us,count\n1,1e300,1\n", "0 to 1000s"),
        ("from_us,to_us,count\n1,2,1e308\n1,2,1e308\n", "empty|sum"),
        ('from_us,to_us,count\n1,2,"3\n', "no CSV|no bin"),
        ("a,b\n1,2\n", "from_us, to_us, count"),
        ("from_us,to_us,count\n", "empty"),
    ],
)
def test_what_is_no_histogram_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "disk.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_histogram(path)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "missing", "long", "latin"])
def test_a_histogram_that_is_no_ordinary_file_of_text_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "disk.csv"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "long":
            path = tmp_path / ("x" * 300)
        case "latin":
            path.write_bytes(b"from_us,to_us,count\n\xff,2,1\n")
    with pytest.raises(InputError, match=path.name[:8]):
        read_histogram(path)


def test_the_path_of_a_histogram_may_have_blanks() -> None:
    assert parse_service(" file  my disk.csv ").path == "my disk.csv"
    assert parse_service("file my disk.csv").text == "file my disk.csv"


@pytest.mark.parametrize("text", ["lognormal 1000s 1", "exponential 1000s"])
def test_no_time_that_is_drawn_is_longer_than_the_longest(text: str) -> None:
    draw = drawer(parse_service(text), Random(1), 10**11, Path())
    assert max(draw() for _ in range(1000)) == LONGEST.cycles(10**11)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "constant 5us\n",
        "constant 1001s",
        "constant\t5us",
        "gamma 1us",
        "constant",
        "uniform 2us 1us",
        "constant 5cycles",
        "lognormal 1us x",
        3,
    ],
)
def test_what_is_no_distribution_is_refused(text: object) -> None:
    with pytest.raises(InputError, match=r"longest|xpected|less than|no standard|no duration|not a duration"):
        parse_service(text)


@pytest.mark.parametrize(
    ("name", "reads", "writes", "alone_read", "alone_write"),
    [("nvme", 600_000, 550_000, 19_000, 60_000), ("sata", 98_000, 90_000, 10_000, 40_000)],
)
def test_a_device_does_what_its_data_sheet_says(
    name: str, reads: int, writes: int, alone_read: int, alone_write: int
) -> None:
    """Requests of 4 KiB a second, one by one and with 32 on their way."""
    device = BlockDevice(plugins.load("swap_devices", name), seed=1, frequency=10**9, folder=Path())
    for call, alone, many in ((device.read, alone_read, reads), (device.write, alone_write, writes)):
        start = now = 10**12 if call == device.write else 0
        for slot in range(100):
            now = int(call(now, np.array([slot]))[0][0])
        assert 100 * 10**9 / (now - start) == pytest.approx(alone, rel=0.01)
        base = now + 10**9
        on_way = [base] * 32
        for slot in range(3200):
            at = min(range(32), key=on_way.__getitem__)
            on_way[at] = int(call(on_way[at], np.array([slot]))[0][0])
        assert 3200 * 10**9 / (max(on_way) - base) == pytest.approx(many, rel=0.12)


def test_a_disk_seeks_and_turns_unless_a_page_follows() -> None:
    """7.4 ms of seeking and 4.17 of turning on average; the page behind takes 20 us."""
    device = BlockDevice(plugins.load("swap_devices", "hdd"), seed=1, frequency=10**9, folder=Path())
    now, far = 0, []
    for number in range(2000):
        done = int(device.read(now, np.array([10 * number]))[0][0])
        far.append(done - now)
        now = done
    assert sum(far) / len(far) == pytest.approx(7.4e6 + 8.333e6 / 2, rel=0.02)
    done = int(device.read(now, np.array([10 * 1999 + 1]))[0][0])
    assert done - now == 20_000


def test_errors_come_as_often_as_they_are_asked_for() -> None:
    spec = plugins.load("swap_devices", "nvme")
    device = BlockDevice(spec, seed=1, frequency=10**9, folder=Path(), read_errors=0.1, write_errors=0.3)
    page = np.array([0])
    good = [[bool(call(0, page)[1]) for _ in range(20_000)] for call in (device.read, device.write)]
    assert sum(good[0]) / 20_000 == pytest.approx(0.9, abs=0.01)
    assert sum(good[1]) / 20_000 == pytest.approx(0.7, abs=0.015)


def test_slots_are_given_side_by_side_and_come_back() -> None:
    area = SwapArea(4)

    def allocate(pages: int) -> list[int]:
        zeros = np.zeros(pages, np.int64)
        found: list[int] = area.allocate(None, zeros, zeros, None).tolist()
        return found

    def free(slot: int) -> list[int]:
        found: list[int] = area.free_each(np.array([slot])).tolist()
        return found

    assert allocate(3) == [0, 1, 2]
    assert allocate(2) == [3]
    assert free(1) == [1]
    area.share(2)
    assert free(2) == []
    assert allocate(1) == [1]
    assert free(2) == [2]
    assert (area.used, area.most, allocate(1)) == (3, 4, [2])


def test_windows_of_readahead_by_hand() -> None:
    """mm/swap_state.c, __swapin_nr_pages: one page without hits or a neighbour, else a power of two.

    The last fault, this one, hits, pages at most, the last window.
    """
    assert window_size(100, 5, 0, 8, 0) == 1
    assert window_size(4, 5, 0, 8, 0) == 2
    assert window_size(100, 5, 1, 8, 0) == 4
    assert window_size(100, 5, 3, 8, 0) == 8
    assert window_size(100, 5, 9, 8, 0) == 8
    assert window_size(100, 5, 0, 8, 8) == 4
    window = Window()
    assert window.around(50, 8) == range(47, 55)  # as if four had been wanted: 8 pages, 3 of them before
    window.found(50, 8, turns=False)
    assert window.around(51, 8) == range(51, 59)  # forwards
    window.found(51, 8, turns=False)
    assert window.around(50, 8) == range(43, 51)  # backwards


def test_a_window_of_readahead_ends_where_its_page_table_does() -> None:
    """mm/swap_state.c, swap_vma_ra_win: not below faulting address & PMD_MASK, nor from there + PMD_SIZE on."""
    window = Window()
    assert window.around(511, 8) == range(508, 512)
    window.found(511, 8, turns=False)
    assert window.around(512, 8) == range(512, 520)
    window.found(514, 8, turns=False)
    assert window.around(513, 8) == range(512, 514)


class _Host:
    """Notes when frames are free again."""

    def __init__(self) -> None:
        self.env = Clock()
        self.freed: list[tuple[int, list[int]]] = []

    def give(self, pfns: Any) -> None:
        self.freed.append((self.env.cycle, pfns.tolist()))


def test_pages_side_by_side_are_one_request_that_is_done_with_its_last() -> None:
    """One channel, 10 cycles a page: slots 4, 5, 6 are done after 30, 8 and 9 after 50, and 33 in a row after 370, 380.

    A request has 32 pages at most.
    """
    host = _Host()
    spec = replace(plugins.load("swap_devices", "nvme"), write="constant 10ns", write_channels=1)
    device = BlockDevice(spec, seed=1, frequency=10**9, folder=Path())
    traffic = DeviceTraffic(host, SwapArea(100), device)
    slots = np.array([4, 5, 6, 8, 9])
    traffic.submit_writes(slots, slots + 200)
    assert traffic.writing == 5
    traffic.submit_writes(np.arange(20, 53), np.arange(20, 53))
    host.env.run()
    first, second, third, fourth = host.freed
    assert (first, second) == ((30, [204, 205, 206]), (50, [208, 209]))
    assert (third, fourth) == ((370, [*range(20, 52)]), (380, [52]))
    assert traffic.writing == 0
