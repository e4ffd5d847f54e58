"""Are the results the same whatever is cached, compiled or hashed, and does compiled code stay fast?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit, types

import vmsim
from tests.machine.geometries import ENTRY
from vmsim.jit.sources import generics, implementations, sources_of
from vmsim.machine.layout import VM, make_cores, make_llc

ROOT = Path(__file__).parents[2]
WAYS = "fast", "plain"

WRAPS = ("-W", "ignore:overflow encountered in scalar multiply:RuntimeWarning:vmsim.host.identity")
"""A hash's products are of 64 bits: numpy's scalars warn of what machine code does silently."""


def python(*arguments: str, cwd: Path = ROOT, **environment: str) -> str:
    """Run the interpreter in a process of its own; return what it prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def cold(tmp_path_factory):
    """The sample run with nothing in the cache, and the cache it leaves."""
    folder = tmp_path_factory.mktemp("numba")
    out = json.loads(
        python("-m", "tests.machine.sample", "--ir", "--hosts", NUMBA_CACHE_DIR=str(folder), PYTHONHASHSEED="0")
    )
    return out, folder


@pytest.fixture(scope="module")
def sampled():
    """The sample run with the kernels of the tests' cache."""
    return json.loads(python("-m", "tests.machine.sample"))


@pytest.mark.slow
def test_every_kernel_is_compiled_and_counts_no_references(cold):
    out, _ = cold
    assert out["loaded"] == 0
    assert len(out["kernels"]) > 15
    assert [name for name, signatures in out["kernels"].items() if not signatures] == []
    assert out["specialised"] == {"machine.vcpu.run": 1}
    assert out["counted"] == []


def test_reference_counts_would_be_seen():
    def first(arrays):
        return arrays[0]

    counting = njit(first)
    counting((np.zeros(1), np.zeros(2)))
    assert "NRT_incref" in counting.inspect_llvm(counting.signatures[0])


@pytest.mark.slow
def test_a_warm_cache_and_another_hash_seed_change_nothing(cold):
    out, folder = cold
    made = [*folder.rglob("_run-*.nbc")]
    assert made
    made[0].unlink()  # what it is made from is in the cache too
    warm = json.loads(python("-m", "tests.machine.sample", "--hosts", NUMBA_CACHE_DIR=str(folder), PYTHONHASHSEED="1"))
    assert warm["loaded"] > 0
    assert warm["compiled"] == 0
    assert warm["specialised"] == {"machine.vcpu.run": 0}
    assert {*folder.rglob("_run-*.nbc")} == {*made}
    assert (warm["results"], warm["length"], warm["hosts"]) == (out["results"], out["length"], out["hosts"])


def test_plain_python_gives_the_same_result(sampled):
    plain = json.loads(python("-W", "error", *WRAPS, "-m", "tests.machine.sample", NUMBA_DISABLE_JIT="1"))
    assert "kernels" not in plain
    assert (plain["results"], plain["length"]) == (sampled["results"], sampled["length"])


@pytest.mark.slow
def test_kernels_just_compiled_give_the_result_of_those_kept(cold, sampled):
    out, _ = cold
    assert (out["results"], out["length"]) == (sampled["results"], sampled["length"])


@pytest.mark.slow
def test_the_plain_way_walks_as_the_fast_one():
    # in the cache of the tests, not in one of their own: compiling walks takes half a minute
    fast, plain = (json.loads(python("-m", "tests.machine.sample", "--walks", VMSIM_JIT=way)) for way in WAYS)
    assert (fast.pop("way"), plain.pop("way")) == WAYS
    assert (plain["results"], plain["length"]) == (fast["results"], fast["length"])
    assert fast["length"] > 10_000


@pytest.mark.slow
def test_the_plain_way_gives_the_same_result_and_counts_no_references(cold):
    out, folder = cold
    plain = json.loads(
        python("-m", "tests.machine.sample", "--ir", "--hosts", VMSIM_JIT="plain", NUMBA_CACHE_DIR=str(folder))
    )
    assert plain["way"] == "plain"
    assert plain["kernels"].keys() == out["kernels"].keys()
    assert [name for name, signatures in plain["kernels"].items() if not signatures] == []
    assert plain["counted"] == []
    assert (plain["results"], plain["length"], plain["hosts"]) == (out["results"], out["length"], out["hosts"])


PROBE = """
import numpy as np
from vmsim.jit import source_digest
from vmsim.tables.edit import translate
memory = np.zeros(1024, np.int64)
memory[:] = np.arange(1024) << 12
print(translate(memory, 0, 1, 5 << 12), source_digest(), *translate.stats.cache_hits.values())
"""


def test_editing_a_helper_in_another_file_recompiles_its_cached_callers(tmp_path):
    package = tmp_path / "vmsim"
    shutil.copytree(Path(vmsim.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "*.vmtrace"))
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "."}

    def probe() -> list[str]:
        return python("-c", PROBE, cwd=tmp_path, **environment).split()

    before = probe()
    assert before[0] == str(5 << 12)
    assert before[2:] == []  # compiled
    assert probe() == [*before, "1"]  # from the cache
    helper = package / "machine" / "memory.py"
    text = helper.read_text()
    edited = text.replace("return (address >> (PAGE_SHIFT - width + width * level)) & ((1 << width) - 1)", "return 7")
    assert edited != text
    helper.write_text(edited)
    after = probe()
    assert after[0] == str(7 << 12)
    assert after[1] != before[1]
    assert after[2:] == []
    other = package / "machine" / "tlb.py"  # which `translate` has no use for
    other.write_text(other.read_text() + "\nOTHER = 1\n")
    assert probe() == [after[0], other_digest := probe()[1], "1"]
    assert other_digest != after[1]


def records():
    from vmsim.frames.records import FRAME_RECORD, ZONE

    core, llc = make_cores(ENTRY, 1), make_llc(ENTRY)
    return [VM, ZONE, FRAME_RECORD, core.dtype, llc.dtype, core["l1"].dtype, core["pwc"].dtype]


@pytest.mark.parametrize("record", records(), ids=lambda record: record.names[0])
def test_no_field_hides_behind_an_attribute_of_numpys(record):
    # Plain Python finds the attribute first, compiled code the field.
    assert not {*record.names} & {*dir(np.record)}


def test_the_digest_covers_every_file_that_defines_kernels():
    from vmsim.jit import jitted_sources

    root = Path(vmsim.__file__).parent
    compiled = {path for path in root.rglob("*.py") if "@kernel" in path.read_text() or "@leaf" in path.read_text()}
    assert compiled
    assert compiled <= {*jitted_sources()}


def called_by(function, found):
    """Add the files of the functions that a function names, but for those that are chosen by type, and so on."""
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        value = getattr(value, "py_func", value)
        if callable(value) and hasattr(value, "__code__") and value not in found and not hasattr(value, "registry"):
            found.add(value)
            called_by(value, found)
    return {Path(each.__code__.co_filename) for each in found}


def test_a_kept_kernel_depends_on_the_files_of_all_that_it_calls():
    from tests.machine.sample import kernels

    files = 0
    for kernel in kernels().values():
        own = Path(kernel.py_func.__code__.co_filename)
        called = called_by(kernel.py_func, set())
        assert called <= {*sources_of(own)}
        files += len(called - {own})
    assert files > 100


def test_a_kernel_kept_for_a_paging_mode_depends_on_what_the_mode_does():
    import vmsim.monitor.shadow.commit
    import vmsim.monitor.vkernel.commit  # noqa: F401

    kinds = {kind for generic in generics for kind in generic.registry if kind is not object}
    assert len(kinds) > 2
    others = implementations((types.int64, types.float64))
    for kind in kinds:
        record = types.NamedTuple((types.int64,) * len(kind._fields), kind)
        assert implementations((types.int64, types.Tuple((types.int64, record)))) != others
