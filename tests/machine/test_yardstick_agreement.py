"""Does the machine count what the C yardstick counts, on its geometry?"""

from __future__ import annotations

import pytest

from benchmarks.reference import Reference, compiler
from benchmarks.world import World, real, uniform, zipf

pytestmark = pytest.mark.skipif(compiler() is None, reason="the yardstick needs a C compiler")


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    folder = tmp_path_factory.mktemp("yardstick")
    return {nested: Reference(folder, nested=nested) for nested in (False, True)}


@pytest.fixture(
    scope="module", params=[(uniform, 2_000_000), (zipf, 3_000_000), (real, 10_500_000)], ids=lambda p: p[0].__name__
)
def trace(request, tmp_path_factory):
    """A stream, and the file that the yardstick reads."""
    make, accesses = request.param
    runs = make(accesses)
    path = runs.write(tmp_path_factory.mktemp("trace") / "trace.u64")
    yield runs, path
    path.unlink()


@pytest.mark.parametrize("nested", [False, True], ids=["native", "nested"])
def test_every_counter_agrees_with_the_yardstick(references, trace, nested):
    runs, path = trace
    theirs = references[nested].run(path)
    ours = World(runs, nested=nested).run(runs)
    assert ours.exact == theirs.exact
    assert min(theirs.exact["walks"], theirs.near["references"], theirs.near["psc2_hits"]) > 0
    for name, expected in theirs.near.items():
        assert ours.near[name] == expected, name  # frames are numbered alike: not even the caches differ


def test_the_real_trace_has_ten_million_accesses_and_long_runs():
    runs = real(10_500_000)
    assert runs.accesses >= 10_000_000
    assert runs.count.max() > 1
