"""What may be opened and replaced, and that nothing else blocks, ends in a traceback or is left behind."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from vmsim.base.errors import InputError
from vmsim.base.files import open_regular, printable, read_text, replacing

SLASHES = "x/" * 2500


def test_a_text_is_read_without_its_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfk = 1\n")
    assert read_text(tmp_path / "a") == "k = 1\n"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("missing", "no such scenario"),
        ("folder", "this is a folder; expected a scenario"),
        ("pipe", "this is a pipe"),
        ("socket", "No such device or address"),
        ("/dev/zero", "this is a device"),
        ("/proc/self/mem", "pseudo-file"),
        ("/proc/kmsg", "pseudo-file|Operation not permitted|Permission denied"),
        ("a file/beneath", "Not a directory"),
        ("loop", "Too many levels of symbolic links"),
        (SLASHES, "File name too long"),
        ("y" * 300, "File name too long"),
        ("nul\0", "null"),
        ("latin-1", "not UTF-8 text .byte 1."),
        ("sparse", "at most 16,777,216"),
    ],
)
def test_what_is_no_ordinary_text_is_refused_at_once(path: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "latin-1").write_bytes(b"k\xe9")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(InputError, match=expected) as caught:
            read_text(tmp_path / path, "scenario")
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(InputError, match="this trace cannot be read: Permission denied"):
        open_regular(tmp_path / "a", "trace")


def test_a_failing_disk_is_an_error_of_the_file(tmp_path: Path) -> None:
    class Broken:
        def read(self, size: int) -> bytes:
            raise OSError(5, "Input/output error")

        def close(self) -> None: ...

    (tmp_path / "a").write_bytes(b"abc")
    with open_regular(tmp_path / "a", "trace") as file:
        file._file.close()  # type: ignore[attr-defined]
        file._file = Broken()  # type: ignore[attr-defined]
        with pytest.raises(InputError, match="cannot be read on after 0 bytes: Input/output error"):
            file.read()


def test_a_file_that_grows_is_read_to_where_it_ended(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with open_regular(tmp_path / "a") as file:
        with (tmp_path / "a").open("ab") as more:
            more.write(b"def")
        assert file.read() == b"abc"
        assert file.seek(0, os.SEEK_END) == 3


def test_a_name_is_shown_on_one_short_line() -> None:
    assert printable("a\n\x1b[31mb\udcff") == r"a\n\x1b[31mb\udcff"
    assert len(printable("x" * 5000)) <= 201


def test_a_file_is_complete_or_absent(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ZeroDivisionError), replacing(out) as temporary:
        temporary.write_bytes(bytes([1 // temporary.write_text("")]))
    assert list(tmp_path.iterdir()) == []
    with replacing(out) as temporary:
        temporary.write_text("whole")
    assert list(tmp_path.iterdir()) == [out]


def test_without_force_a_file_that_is_there_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    with pytest.raises(InputError, match="this file exists"), replacing(out, force=False):
        pytest.fail("the work began")
    with replacing(out, force=True) as temporary:
        temporary.write_text("new")
    assert out.read_text() == "new"


def test_without_force_a_file_that_appears_meanwhile_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def write() -> None:
        with replacing(out, force=False) as temporary:
            temporary.write_text("ours")
            out.write_text("theirs")

    with pytest.raises(InputError, match="--force"):
        write()
    assert out.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [out]


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    with replacing(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("path", ["/dev/null", "folder", SLASHES, "z" * 300, "absent/out", "a file/out", "nul\0"])
def test_a_place_that_is_no_file_is_not_written_to(path: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a file").touch()
    with pytest.raises(InputError), replacing(tmp_path / path) as temporary:
        temporary.write_text("x")
    assert Path("/dev/null").is_char_device()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a file", "folder"]


def test_a_name_of_255_bytes_can_be_written(tmp_path: Path) -> None:
    with replacing(tmp_path / ("z" * 255)) as temporary:
        temporary.write_text("x")
    assert [len(each.name) for each in tmp_path.iterdir()] == [255]
