"""Is what a killed process left half-written removed at the next use, and nothing that somebody still writes?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vmsim.base import temporary
from vmsim.base.errors import InputError
from vmsim.base.files import replacing
from vmsim.base.temporary import beside, held, leftovers
from vmsim.record.folder import check_folder, replacing_folder, write_manifest

ROOT = Path(__file__).parents[1]
FILE = """
from pathlib import Path
from vmsim.base.files import replacing
with replacing(Path({path!r})) as temporary:
    temporary.write_text("half")
    {then}
"""
FOLDER = """
import os, signal
from pathlib import Path
from vmsim.record.folder import replacing_folder, write_manifest
with replacing_folder(Path({path!r}), force=True) as temporary:
    (temporary / "summary.csv").write_text("new")
    write_manifest(temporary, "vmsim run 1", {{}})
    {then}
"""
WAIT = "print(flush=True); input()"
DIE = "os.kill(os.getpid(), signal.SIGKILL)"
# the process dies in its second rename: the first put the earlier results aside
BETWEEN = """rename, renames = os.rename, []
    def killed(*names):
        renames.append(names)
        if len(renames) == {number}: os.kill(os.getpid(), signal.SIGKILL)
        return rename(*names)
    os.rename = killed"""


def child(text: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", text],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@contextmanager
def writing(text: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is within the block."""
    with child(text.format(path=str(path), then=WAIT)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        yield process


def results(path: Path, text: str) -> None:
    """Leave what a run leaves."""
    path.mkdir()
    (path / "summary.csv").write_text(text)
    write_manifest(path, "vmsim run 1", {})


def use_file(path: Path) -> None:
    with replacing(path) as there:
        there.write_text("whole")


def use_folder(path: Path) -> None:
    with replacing_folder(path, force=True) as there:
        (there / "summary.csv").write_text("whole")
        write_manifest(there, "vmsim run 1", {})


@pytest.mark.parametrize(("text", "use"), [(FILE, use_file), (FOLDER, use_folder)], ids=["file", "folder"])
def test_what_a_killed_process_left_goes_at_the_next_use(
    text: str, use: Callable[[Path], None], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    others = [tmp_path / name for name in (".out.7.bak", ".out.x.tmp", ".outer.99999999.tmp", "out.99999999.tmp")]
    for each in others:
        each.touch()
    with writing(text, out) as process:
        process.kill()
        process.wait()
    left = tmp_path / f".out.{process.pid}.tmp"
    assert left.exists()
    use(out)
    assert sorted(tmp_path.iterdir()) == sorted([*others, out])


@pytest.mark.parametrize(("text", "use"), [(FILE, use_file), (FOLDER, use_folder)], ids=["file", "folder"])
def test_what_is_being_written_stays(
    text: str, use: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with writing(text, out) as process:
        there = tmp_path / f".out.{process.pid}.tmp"
        use(out)
        assert there.exists()  # its process lives
        monkeypatch.setattr(temporary, "_lives", lambda _: False)
        use(out)
        assert there.exists()  # and holds it
        process.communicate("\n", timeout=30)
    assert not there.exists()
    assert process.returncode == 0  # its own ending came last
    assert "whole" not in (out / "summary.csv" if out.is_dir() else out).read_text()


def test_what_has_the_number_of_a_living_process_stays_though_nobody_locks_it(tmp_path: Path) -> None:
    """Where there are no locks, the number of a process that lives is enough."""
    there = tmp_path / f".out.{os.getppid()}.tmp"
    there.touch()
    assert leftovers(tmp_path / "out", "tmp") == []


def test_a_leftover_of_our_own_number_is_one_unless_it_is_held(tmp_path: Path) -> None:
    """In a container every start may have the same number."""
    there = beside(tmp_path / "out", "tmp")
    there.mkdir()
    with held(there):
        assert leftovers(tmp_path / "out", "tmp") == []
    assert leftovers(tmp_path / "out", "tmp") == [there]
    use_folder(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


def test_links_and_pipes_of_such_a_name_are_let_be(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / ".out.99999999.tmp").symlink_to("mine")
    os.mkfifo(tmp_path / ".out.99999998.tmp")
    use_folder(tmp_path / "out")
    assert len(os.listdir(tmp_path)) == 4


def test_killed_between_the_two_renames_the_earlier_results_come_back(tmp_path: Path) -> None:
    out = tmp_path / "out"
    results(out, "earlier")
    # a rename over results fails, then they are put aside: that is the second, and the third puts the new ones there
    process = child(FOLDER.format(path=str(out), then=BETWEEN.format(number=3)))
    assert process.wait(30) == -signal.SIGKILL
    assert sorted(os.listdir(tmp_path)) == [f".out.{process.pid}.old", f".out.{process.pid}.tmp"]
    with pytest.raises(InputError, match="results of an earlier run"):
        check_folder(out)
    assert os.listdir(tmp_path) == ["out"]
    assert (out / "summary.csv").read_text() == "earlier"


def test_killed_before_the_earlier_results_were_removed_the_new_ones_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    results(out, "earlier")
    then = "import shutil; shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)"
    process = child(FOLDER.format(path=str(out), then=then))
    assert process.wait(30) == -signal.SIGKILL
    check_folder(out, force=True)
    assert os.listdir(tmp_path) == ["out"]
    assert (out / "summary.csv").read_text() == "new"


def test_what_vmsim_did_not_write_is_never_removed(tmp_path: Path) -> None:
    aside = tmp_path / ".out.99999999.old"
    results(aside, "earlier")
    (aside / "thesis.txt").write_text("mine")
    results(tmp_path / "out", "new")
    check_folder(tmp_path / "out", force=True)
    assert (aside / "thesis.txt").read_text() == "mine"


def test_a_killed_merge_leaves_nothing_after_the_next(tmp_path: Path) -> None:
    import vmsim
    from tests.simulation.small import scenario, vm
    from vmsim.sweeps.merging import merge

    vmsim.sweep(scenario(vm("a")), {"seed": [1, 2]}, jobs=1, out=tmp_path / "one")
    code = (
        "import os, signal\nfrom pathlib import Path\nfrom vmsim.sweeps import merging\n"
        "merging.Store.finish = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"merging.merge([Path({str(tmp_path / 'one')!r})], Path({str(tmp_path / 'all')!r}))\n"
    )
    process = child(code)
    assert process.wait(60) == -signal.SIGKILL
    assert sorted(os.listdir(tmp_path)) == [f".all.{process.pid}.tmp", "one"]
    assert merge([tmp_path / "one"], tmp_path / "all").points == 2
    assert sorted(os.listdir(tmp_path)) == ["all", "one"]
