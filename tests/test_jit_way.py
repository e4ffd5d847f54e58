"""Does vmsim run on a numba that it is not tested with, or that is not what it was, and does it say so?"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.forks import forked
from vmsim.jit.way import TESTED

ROOT = Path(__file__).parents[1]
SLOWER = "kernels are compiled the plain way, which gives the same results but is slower."
CHOSEN = "import os, vmsim.jit; print(vmsim.jit.WAY, os.environ.get('VMSIM_JIT', ''))"


def variables(changes: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("VMSIM_JIT", "NUMBA_DISABLE_JIT")}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=variables(environment),
        capture_output=True,
        text=True,
        check=False,
    )


def forked_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code where numba is imported already."""
    return forked(code, ROOT, variables(environment))


def chosen(before: str = "", **environment: str) -> tuple[list[str], str]:
    """Return the way chosen after some code has run, what VMSIM_JIT then is, and what was said on stderr."""
    done = (forked_python if before else python)(before + CHOSEN, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


@pytest.mark.parametrize(
    ("environment", "way"),
    [
        ({}, ["fast"]),
        ({"VMSIM_JIT": ""}, ["fast"]),
        ({"VMSIM_JIT": "fast"}, ["fast", "fast"]),
        ({"VMSIM_JIT": "plain"}, ["plain", "plain"]),
        ({"NUMBA_DISABLE_JIT": "1"}, ["python"]),
        ({"NUMBA_DISABLE_JIT": "1", "VMSIM_JIT": "plain"}, ["python", "plain"]),
    ],
)
def test_the_environment_chooses_and_nothing_is_said(environment: dict[str, str], way: list[str]) -> None:
    assert chosen(**environment) == (way, "")


@pytest.mark.parametrize("version", ["0.60.0", "0.69.0rc1", "0.70.2", "1.0.0", "next"])
def test_a_numba_that_is_not_tested_is_used_plainly_and_one_line_says_so(version: str) -> None:
    way, said = chosen(f"import numba; numba.__version__ = {version!r}; ")
    assert way == ["plain", "plain"]  # and processes that this one starts need not find that out
    assert said == (
        f"vmsim: numba {version} is not one of those that vmsim is tested with (0.61 up to 0.68): {SLOWER}\n"
    )


@pytest.mark.parametrize("version", ["0.61.2", "0.68.0"])
def test_a_numba_that_is_tested_is_used_fast(version: str) -> None:
    assert chosen(f"import numba; numba.__version__ = {version!r}; ") == (["fast"], "")


@pytest.mark.parametrize(
    ("module", "lost"),
    [
        ("numba.core.codegen", "CPUCodeLibrary._optimize_final_module"),
        ("numba.core.codegen", "CPUCodeLibrary._finalize_final_module"),
        ("numba.core.caching", "_CacheLocator"),
        ("numba.core.dispatcher", "Dispatcher"),
        ("numba.np.linalg", "ensure_blas"),
    ],
)
def test_a_numba_without_what_the_fast_way_needs_is_used_plainly_and_one_line_says_so(module: str, lost: str) -> None:
    way, said = chosen(f"import {module}; del {module}.{lost}; ")
    assert way == ["plain", "plain"]
    assert said.count("\n") == 1
    assert said.startswith("vmsim: numba 0.")
    assert lost.rpartition(".")[2] in said
    assert said.endswith(f"): {SLOWER}\n")


def test_the_fast_way_that_cannot_be_had_is_no_other_one() -> None:
    done = forked_python("import numba.np.linalg as linalg; del linalg.ensure_blas; import vmsim.jit", VMSIM_JIT="fast")
    assert done.returncode == 1
    assert "VMSIM_JIT=fast: numba 0." in done.stderr


def test_a_way_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    code = "import sys; from vmsim.cli import main; sys.argv = ['vmsim', 'warm', '--cpu', 'yardstick']; main()"
    done = forked_python(code, VMSIM_JIT="plane")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "vmsim: VMSIM_JIT: expected fast or plain, found 'plane'. Did you mean 'plain'?\n"


def test_the_versions_tested_are_those_that_are_installed_with_vmsim() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [numba] = [each for each in project["dependencies"] if each.startswith("numba")]
    first, after = (".".join(map(str, version)) for version in TESTED)
    assert numba == f"numba>={first},<{after}"


def test_numbas_insides_are_named_in_one_room_and_by_its_fast_way() -> None:
    """All else has public numba: `njit`, its types, its extension interface."""
    private = re.compile(r"numba\.(core|np|cpython)\b|llvmlite|from numba import|^import numba|numba\.", re.M)
    for path in sorted((ROOT / "vmsim").rglob("*.py")):
        inside = path.relative_to(ROOT / "vmsim").parts
        code = "\n".join(line for line in path.read_text().splitlines() if re.match(r"\s*(from|import) ", line))
        if inside[0] != "jit":
            assert not private.search(code), path
        elif inside[1] == "plain":
            found = {*re.findall(r"numba\.(?:core|np|cpython)\S*(?: import .*)?", code)}
            assert found <= {"numba.core import cgutils"}, path  # which the manual's extension pages use
