"""Are the generators what their names say, and one stream for one seed?"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmsim.base.errors import InputError
from vmsim.workloads import Kind, open_stream
from vmsim.workloads.generators import Chase, Generator, Gups, Sequential, Uniform, WorkingSet, Zipf
from vmsim.workloads.normal import Normal
from vmsim.workloads.powers import powers

KINDS = ("uniform", "zipf", "normal", "sequential", "chase", "gups", "working-set")


@dataclass(frozen=True)
class Synthetic:
    """A workload as a scenario would hold it, without the scenario."""

    kind: str
    footprint: int = 1 << 20
    accesses: int = 1000
    writes: float = 0.0
    base: int = 0x10_0000_0000
    exponent: float = 0.99
    stride: int = 64
    order: str = "full"
    updates: int = 500
    window: int = 1 << 16
    phase: int = 100
    step: int = 4096
    filled: bool = False
    threads: int = 1
    turn: int = 1000


def joined(stream):
    chunks = list(stream.chunks())
    return tuple(np.concatenate([chunk[column] for chunk in chunks]) for column in range(3))


EVERY = [
    Uniform(size=1 << 22, runs=9001, writes=0.25),
    Gups(size=1 << 22, runs=9001),
    Zipf(size=1 << 22, runs=9001, writes=0.5),
    Normal(size=1 << 22, runs=9001, writes=0.2),
    Normal(size=1 << 22, runs=9001, writes=0.2, filled=True),
    Sequential(size=1 << 16, runs=9001, stride=24),
    Chase(size=1 << 16, runs=9001, stride=24),
    Chase(size=1 << 16, runs=9001, order="page"),
    WorkingSet(size=1 << 22, runs=9001, window=1 << 16, phase=700, step=4096),
]


@pytest.mark.parametrize("generator", EVERY, ids=lambda g: f"{g.name}-{getattr(g, 'order', '')}")
class TestEveryGenerator:
    def test_where_chunks_end_does_not_change_the_stream(self, generator: Generator):
        first = joined(replace(generator, chunk=1000))
        second = joined(replace(generator, chunk=4096))
        assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))

    def test_reads_the_same_twice(self, generator: Generator):
        assert all(np.array_equal(a, b) for a, b in zip(joined(generator), joined(generator), strict=True))

    def test_stays_in_its_footprint(self, generator: Generator):
        address, count, _ = joined(generator)
        (start,), (length,) = generator.footprint()
        assert start % 4096 == length % 4096 == 0
        assert address.min() >= start
        assert address.max() < start + generator.size
        assert not (address % 8).any()
        assert int(count.sum()) == generator.accesses

    def test_has_the_types_that_the_machine_compiles_for(self, generator: Generator):
        for chunk in generator.chunks():
            assert [column.dtype for column in chunk[:3]] == [np.int64, np.int32, np.uint8]
            assert all(column.flags.c_contiguous and column.flags.writeable for column in chunk[:3])
            assert chunk.events == ()

    def test_another_seed_is_another_identity(self, generator: Generator):
        other = replace(generator, seed=generator.seed + 1)
        assert generator.digest() != other.digest()
        assert generator.digest() == replace(generator, chunk=77).digest()


def test_a_seed_gives_the_words_that_numpy_promises():
    # By hand: PCG64's raw words, scaled in Python's own integers.
    generator = Uniform(size=3 << 30, runs=1000, seed=42)
    raw = np.random.PCG64(np.random.SeedSequence([42, 0])).random_raw(1000)
    words = generator.size // 8
    expected = [generator.base + 8 * (int(word) * words >> 64) for word in raw]
    assert joined(generator)[0].tolist() == expected


def test_uniform_covers_its_footprint_evenly():
    address = joined(Uniform(size=64 * 4096, runs=64_000))[0]
    pages = np.bincount((address - address.min()) >> 12, minlength=64)
    chi2 = float(((pages - 1000.0) ** 2 / 1000).sum())
    assert 30 < chi2 < 110  # 63 degrees of freedom: mean 63, standard deviation 11
    assert len(np.unique(address & 4095)) == 512


@pytest.mark.parametrize("exponent", [0.0, 0.5, 0.99, 1.5])
def test_zipf_follows_its_law(exponent: float):
    pages, runs = 256, 200_000
    generator = Zipf(size=pages * 4096, runs=runs, exponent=exponent)
    address = joined(generator)[0]
    rank = {int(page): k for k, page in enumerate(generator.ranking)}
    seen = np.bincount([rank[page] for page in (address & -4096).tolist()], minlength=pages)
    weight = np.array([(k + 1) ** -exponent for k in range(pages)])
    expected = runs * weight / weight.sum()
    chi2 = float(((seen - expected) ** 2 / expected).sum())
    assert 150 < chi2 < 370  # 255 degrees of freedom: mean 255, standard deviation 22.6


def test_normal_draws_the_mean_of_twelve_numbers():
    # By hand: PCG64's raw words, scaled in Python's own integers.
    generator = Normal(size=100 * 4096, runs=50, seed=3)
    raw = np.random.PCG64(np.random.SeedSequence([3, 0])).random_raw(12 * 50).reshape(50, 12)
    expected = [sum(int(word) * 100 >> 64 for word in row) // 12 for row in raw]
    assert ((joined(generator)[0] - generator.base) >> 12).tolist() == expected


def test_normal_follows_its_law():
    from scipy.stats import norm

    pages, runs = 1200, 200_000
    address = joined(Normal(size=pages * 4096, runs=runs))[0]
    numbers = (address - Normal(size=4096, runs=1).base) >> 12
    assert numbers.mean() == pytest.approx(pages / 2 - 1, abs=1)
    assert numbers.std() == pytest.approx(pages / 12, rel=0.01)
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert np.quantile(numbers, share) == pytest.approx(pages / 2 + pages / 12 * norm.ppf(share), abs=2)
    assert len(np.unique(address & 4095)) == 512


@pytest.mark.parametrize("threads", [1, 3])
def test_normal_first_writes_each_page_once_if_asked(threads: int):
    pages = 100
    generator = Normal(size=pages * 4096, runs=1000, filled=True, threads=threads, chunk=7)
    first: list[int] = []
    for thread in range(threads):
        chunks = list(generator.chunks(thread))
        address, kind = (np.concatenate([chunk[column] for chunk in chunks]) for column in (0, 2))
        own = pages // threads + (thread < pages % threads)
        assert kind.tolist() == [Kind.WRITE] * own + [Kind.READ] * (len(kind) - own)
        first += address[:own].tolist()
    assert first == [generator.base + 4096 * page for page in range(pages)]


def test_zipf_ranks_every_page_once():
    generator = Zipf(size=1000 * 4096, runs=1)
    assert sorted(generator.ranking) == [generator.base + 4096 * page for page in range(1000)]
    assert not np.array_equal(generator.ranking, np.sort(generator.ranking))


@given(st.floats(0, 8), st.integers(1, 1 << 40))
def test_powers_agree_with_the_c_library(exponent: float, k: int):
    assert powers(k, 1, exponent)[0] == pytest.approx(k**-exponent, rel=1e-13)


@given(slots=st.integers(1, 3000), stride=st.sampled_from([8, 24, 64, 4096, 8192]), seed=st.integers(0, 1 << 32))
@settings(max_examples=50)
def test_a_full_chase_visits_every_slot_once_a_round(slots: int, stride: int, seed: int):
    chase = Chase(size=slots * stride, runs=2 * slots, stride=stride, seed=seed)
    address = joined(chase)[0]
    visited = (address - chase.base) // stride
    assert sorted(visited[:slots]) == list(range(slots))
    assert np.array_equal(visited[:slots], visited[slots:])


@given(pages=st.integers(1, 20), bits=st.integers(3, 12), seed=st.integers(0, 1 << 32))
@settings(max_examples=50)
def test_a_chase_by_page_goes_through_one_page_after_another(pages: int, bits: int, seed: int):
    each = 4096 >> bits
    chase = Chase(size=pages * 4096, runs=pages * each, stride=1 << bits, order="page", seed=seed)
    visited = ((joined(chase)[0] - chase.base) >> bits).reshape(pages, each)
    for page, slots in enumerate(visited):
        assert sorted(slots) == list(range(page * each, (page + 1) * each))


def test_a_chase_is_in_no_simple_order():
    visited = np.diff(joined(Chase(size=1 << 20, runs=1 << 14))[0])
    assert len(np.unique(visited)) > 8000  # strides repeat little


def test_sequential_wraps():
    assert joined(Sequential(size=64, runs=6, stride=24))[0].tolist() == [
        0x10_0000_0000 + 24 * slot for slot in (0, 1, 0, 1, 0, 1)
    ]


def test_an_update_is_a_write_run_of_two():
    gups = Gups(size=1 << 20, runs=100)
    _, count, kind = joined(gups)
    assert gups.accesses == 200
    assert set(count) == {2}
    assert set(kind) == {Kind.WRITE}


def test_the_working_set_moves_by_its_step():
    workload = WorkingSet(size=1 << 20, runs=5000, window=8192, phase=1000, step=65536)
    phases = (joined(workload)[0] - workload.base).reshape(5, 1000)
    for number, offsets in enumerate(phases):
        assert offsets.min() >= 65536 * number
        assert offsets.max() < 65536 * number + 8192


def test_the_working_set_goes_round_the_end():
    workload = WorkingSet(size=65536, runs=2000, window=32768, phase=1000, step=49152)
    second = (joined(workload)[0][1000:] - workload.base) >> 12
    assert set(second) == {12, 13, 14, 15, 0, 1, 2, 3}


@pytest.mark.parametrize("writes", [0.0, 0.1, 0.5, 1.0])
def test_as_many_writes_as_asked_for(writes: float):
    kind = joined(Uniform(size=1 << 20, runs=40_000, writes=writes))[2]
    assert np.mean(kind == Kind.WRITE) == pytest.approx(writes, abs=0.01)  # 4 standard deviations


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_opens(kind: str, tmp_path: Path):
    stream = open_stream(Synthetic(kind), folder=tmp_path, memory=1 << 30, seed=1)
    assert stream.name == kind
    assert stream.accesses == 1000


def test_opening_hands_every_parameter_on(tmp_path: Path):
    spec = Synthetic("chase", footprint=1 << 16, stride=128, order="page", base=0x5000, accesses=10, writes=0.5)
    stream = open_stream(spec, folder=tmp_path, memory=1 << 30, seed=9)
    assert stream == Chase(size=1 << 16, stride=128, order="page", base=0x5000, runs=10, writes=0.5, seed=9)


@pytest.mark.parametrize(
    ("kind", "change", "key"),
    [
        ("uniform", {"footprint": 0}, "footprint"),
        ("uniform", {"footprint": 7}, "footprint"),
        ("uniform", {"accesses": 0}, "accesses"),
        ("gups", {"updates": 0}, "updates"),
        ("uniform", {"writes": 1.5}, "writes"),
        ("uniform", {"base": 5}, "base"),
        ("uniform", {"base": 0x8000_0000_0000}, "base"),
        ("uniform", {"base": -4096}, "base"),
        ("zipf", {"exponent": -1.0}, "exponent"),
        ("zipf", {"exponent": float("nan")}, "exponent"),
        ("zipf", {"footprint": 4104}, "footprint"),
        ("normal", {"footprint": 4104}, "footprint"),
        ("normal", {"filled": True, "accesses": 255}, "accesses"),
        ("sequential", {"stride": 0}, "stride"),
        ("sequential", {"stride": 12}, "stride"),
        ("chase", {"stride": 1 << 30}, "stride"),
        ("chase", {"order": "pages"}, "order"),
        ("chase", {"order": "page", "stride": 24}, "stride"),
        ("working-set", {"window": 0}, "window"),
        ("working-set", {"window": 1 << 30}, "window"),
        ("working-set", {"phase": 0}, "phase"),
        ("working-set", {"step": 0}, "step"),
        ("zipfian", {}, "kind"),
    ],
)
def test_a_wrong_parameter_is_named(kind: str, change: dict, key: str, tmp_path: Path):
    with pytest.raises(InputError, match=rf"\b{key} = "):
        open_stream(replace(Synthetic(kind), **change), folder=tmp_path, memory=1 << 40, seed=1)


def test_a_footprint_larger_than_memory_is_refused_with_both_sizes(tmp_path: Path):
    with pytest.raises(InputError, match=r"1048576 bytes .*1044480 bytes"):
        open_stream(Synthetic("uniform"), folder=tmp_path, memory=(1 << 20) - 4096, seed=1)


def test_a_digest_is_of_the_parameters():
    assert Uniform(size=8, runs=1).digest() != Uniform(size=16, runs=1).digest()
    assert len(Uniform(size=8, runs=1).digest()) == len(hashlib.sha256().hexdigest())
