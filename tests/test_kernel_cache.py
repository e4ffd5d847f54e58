"""Can a file of the current folder, of another user or of a crash have a say in which code runs?"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.forks import forked
from vmsim.base.errors import InputError
from vmsim.jit import kernel_cache

ROOT = Path(__file__).parents[1]
PROBE = """
import numpy as np
from vmsim.machine.memory import clear_frame  # compiled in no time, which is most of what a test here takes
memory = np.full(1024, 7)
clear_frame(memory, 4096)
print(memory.sum(), sum(clear_frame.stats.cache_hits.values()))
"""
ANSWER = str(7 * 512)


def variables(changes: dict[str, str | None]) -> dict[str, str]:
    given = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", **changes}
    return {name: value for name, value in given.items() if value is not None}


def python(code: str, cwd: Path, **environment: str | None) -> tuple[list[str], str]:
    """Run code in a process that imports vmsim; return the words it prints, and what it says on stderr."""
    done = forked(code, cwd, variables(environment))
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


def new_python(code: str, cwd: Path, **environment: str | None) -> tuple[list[str], str]:
    """Do so in one that imports numba as well."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=cwd, env=variables(environment), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


def test_every_module_that_imports_numba_imports_it_clean() -> None:
    for path in sorted((ROOT / "vmsim").rglob("*.py")):
        text = path.read_text()
        first = re.search(r"^(import numba|from numba)", text, re.M)
        clean = re.search(r"^import vmsim\.jit\.clean_numba", text, re.M)
        if first and path.name != "clean_numba.py":
            assert clean, path
            assert clean.start() < first.start(), path


def test_numba_does_not_read_settings_of_the_current_folder(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    (tmp_path / ".numba_config.yaml").write_text("cache_dir: evil\nopt: 1\ncache_locator_classes: evil.Locator\n")
    code = "import vmsim.jit; from numba.core import config; config.reload_config(); "
    code += "print(int(config.OPT), config.CACHE_DIR)"
    printed, _ = new_python(code, tmp_path, NUMBA_CACHE_DIR=None, NUMBA_OPT=None)
    assert printed == ["3"]
    printed, _ = new_python(PROBE, tmp_path, NUMBA_CACHE_DIR=None, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert printed == [ANSWER, "0"]
    assert not (tmp_path / "evil").exists()
    assert {*(tmp_path / "cache").rglob("*.nbi")}


def test_a_numba_that_was_there_first_is_left_as_it_is(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    (tmp_path / ".numba_config.yaml").write_text("cache_dir: evil\n")
    code = "import numba, vmsim.jit; from numba.core import config; print(config.CACHE_DIR)" + PROBE
    printed, _ = new_python(code, tmp_path, NUMBA_CACHE_DIR=None, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert printed == ["evil", ANSWER, "0"]
    assert not (tmp_path / "evil").exists()


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("warm")
    assert python(PROBE, folder, NUMBA_CACHE_DIR=str(folder))[0] == [ANSWER, "0"]
    assert python(PROBE, folder, NUMBA_CACHE_DIR=str(folder))[0] == [ANSWER, "1"]
    return folder


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", ["empty", "cut", "flip", "a pickle that is nothing", "pipe"])
def test_a_damaged_file_is_made_again(warm: Path, suffix: str, damage: str) -> None:
    [path] = warm.rglob(f"memory.clear_frame-*.{suffix}")
    whole = path.read_bytes()
    if damage == "pipe":
        path.unlink()
        os.mkfifo(path)
    else:
        middle = len(whole) // 2
        path.write_bytes(
            {
                "empty": b"",
                "cut": whole[:-1],
                "flip": whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :],
                "a pickle that is nothing": b"\x80\x04N.",
            }[damage]
        )
    printed, told = python(PROBE, warm, NUMBA_CACHE_DIR=str(warm))
    assert printed == [ANSWER, "0"]
    if damage == "pipe":  # it is no file, so it is left alone, and that is said
        assert "kept" in told
        path.unlink()
        python(PROBE, warm, NUMBA_CACHE_DIR=str(warm))
    else:
        assert told == ""
    assert kernel_cache.kept(path) is not None


def test_no_pickle_is_loaded_that_is_not_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    kernel_cache.keep(path, b"code")
    assert kernel_cache.kept(path) == b"code"
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert kernel_cache.kept(path) is None
        assert not path.exists()


def test_without_a_home_kernels_are_kept_for_the_run_and_that_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = {"NUMBA_CACHE_DIR": None, "XDG_CACHE_HOME": None, "HOME": str(tmp_path / "file")}
    code = PROBE + "import os; print(os.environ['NUMBA_CACHE_DIR'])"
    printed, told = python(code, tmp_path, TMPDIR=str(tmp_path), **environment)
    assert printed[:2] == [ANSWER, "0"]
    assert told.count("vmsim: ") == 1
    assert "NUMBA_CACHE_DIR can name a folder" in told
    assert Path(printed[2]).parent == tmp_path
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "vmsim"
    folder.mkdir()
    folder.chmod(0o777)
    printed, told = python(PROBE, tmp_path, NUMBA_CACHE_DIR=None, XDG_CACHE_HOME=str(tmp_path))
    assert printed == [ANSWER, "0"]
    assert "others may write to it" in told
    assert list(folder.iterdir()) == []


def test_a_folder_of_another_user_is_not_used(tmp_path: Path, fresh: Callable[[], None]) -> None:
    if os.geteuid():
        pytest.skip("only root can give files away")
    (tmp_path / "vmsim").mkdir()
    os.chown(tmp_path / "vmsim", 65534, 65534)
    printed, told = python(PROBE, tmp_path, NUMBA_CACHE_DIR=None, XDG_CACHE_HOME=str(tmp_path))
    assert printed == [ANSWER, "0"]
    assert "belongs to another user" in told


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Give what has the cache find its folder anew; afterwards it does so again."""
    monkeypatch.setattr(kernel_cache, "_told", set())
    return kernel_cache.root.cache_clear


def test_the_users_own_folder_is_made_for_the_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: Callable[[], None]
) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fresh()
    try:
        assert kernel_cache.root() == tmp_path / "cache" / "vmsim"
        assert (tmp_path / "cache" / "vmsim").stat().st_mode & 0o777 == 0o700
        fresh()
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # as the standard has it, that does not count
        monkeypatch.setenv("HOME", str(tmp_path))
        folder = kernel_cache.root()
        assert folder is not None
        assert folder.is_relative_to(tmp_path)
        assert folder.parent.name in (".cache", "Caches")
    finally:
        fresh()


def test_a_folder_that_is_read_only_will_do_and_what_is_missing_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fresh: Callable[[], None]
) -> None:
    kernel_cache.keep(tmp_path / "there", b"code")

    def refuse(*_: object, **__: object) -> None:
        raise InputError("x: cannot be written") from OSError(30, "Read-only file system")

    monkeypatch.setattr(kernel_cache, "replacing", refuse)
    assert kernel_cache.kept(tmp_path / "there") == b"code"
    assert capsys.readouterr().err == ""
    for name in ("a", "b"):
        kernel_cache.keep(tmp_path / name, b"code")
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "Read-only file system" in told
