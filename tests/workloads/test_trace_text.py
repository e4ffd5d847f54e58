"""Are traces read as editors and compressors leave them?"""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tests.workloads.samples import SAMPLE, TEXT, as_champsim, as_dinero, expected, found
from vmsim.base.errors import InputError
from vmsim.base.formats import TRACE_FORMATS
from vmsim.workloads import readers
from vmsim.workloads.export import export


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readers")


@pytest.mark.parametrize("form", TEXT)
@pytest.mark.parametrize(
    ("edit"),
    [
        lambda text: text[:-1],
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"\n", b"\r\n")[:-2],
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"),
    ],
    ids=["no last newline", "CRLF", "CRLF but the last", "byte order mark", "byte order mark and CRLF"],
)
def test_what_editors_do_to_text_does_not_matter(form: str, edit: Callable[[bytes], bytes], folder: Path):
    path = folder / f"edited-{form}"
    path.write_bytes(edit(TEXT[form](SAMPLE)))
    assert readers.detect(path) == form
    assert found(path) == expected(SAMPLE)


@pytest.mark.parametrize("form", TEXT)
def test_utf_16_is_named(form: str, folder: Path):
    path = folder / f"wide-{form}"
    path.write_bytes(TEXT[form](SAMPLE).decode().encode("utf-16"))
    with pytest.raises(InputError, match="UTF-16"):
        found(path, form)


@pytest.mark.parametrize(("form", "line"), [("dinero", b"0 1000"), ("lackey", b" L 1000,1"), ("csv", b"address\n4096")])
def test_one_line_is_enough_to_be_recognized(form: str, line: bytes, folder: Path):
    path = folder / f"one-{form}"
    path.write_bytes(line)
    assert readers.detect(path) == form
    assert found(path) == [(0x1000, 0, 1)]


def zstd(path: Path, _: str) -> Any:
    return zstandard.open(path, "wb")


def lz4(path: Path, _: str) -> Any:
    return pa.CompressedOutputStream(str(path), "lz4")


def write(form: str, path: Path) -> None:
    """Write the sample in any format."""
    if form == "vmtrace":
        export(folder_of(path, "lackey"), path.with_suffix(".vmtrace"), fetch=True)
        path.with_suffix(".vmtrace").rename(path)
    elif form == "parquet":
        address, kind = zip(*SAMPLE, strict=True)
        pq.write_table(pa.table({"address": address, "kind": [int(each) for each in kind]}), path)
    elif form == "u64":
        path.write_bytes(np.array([address for address, _ in SAMPLE], "<u8").tobytes())
    elif form.startswith("champsim"):
        path.write_bytes(as_champsim(SAMPLE, (2, 0) if form == "champsim" else (4, 8)))
    else:
        path.write_bytes(TEXT[form](SAMPLE))


def folder_of(path: Path, form: str) -> Path:
    source = path.with_name(f"{path.name}-source")
    source.write_bytes(TEXT[form](SAMPLE))
    return source


@pytest.mark.parametrize("form", TRACE_FORMATS)
def test_every_format_is_read_compressed(form: str, tmp_path: Path):
    plain = tmp_path / "plain"
    write(form, plain)
    whole = found(plain, form)
    assert len(whole) >= 1
    for opener in (lzma.open, gzip.open, bz2.open, zstd, lz4):
        packed = tmp_path / "packed"
        with opener(packed, "wb") as file:
            file.write(plain.read_bytes())
        assert found(packed, form) == whole
        assert readers.detect(packed.rename(tmp_path / f"named{readers.reader(form).ENDINGS[0]}.zst")) == form


def test_frames_of_zstandard_one_after_another_are_one_file(tmp_path: Path):
    path = tmp_path / "frames"
    path.write_bytes(b"".join(zstandard.compress(b"0 %d000\n" % page) for page in (1, 2, 3)))
    assert [run[0] for run in found(path)] == [0x1000, 0x2000, 0x3000]


@pytest.mark.parametrize("opener", [lzma.open, gzip.open, bz2.open, zstd, lz4])
def test_compressed_files_are_read_and_their_truncation_noticed(opener: Callable, folder: Path):
    path = folder / "compressed"
    with opener(path, "wb") as file:
        file.write(as_dinero(SAMPLE * 5000))
    assert readers.detect(path) == "dinero"
    assert found(path) == expected(SAMPLE * 5000)
    data = path.read_bytes()
    for length in (len(data) - 1, len(data) // 2, 12):
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match="cut short"):
            found(path, "dinero")
    if opener not in (zstd, lz4):  # which have no checksum unless the writer asks for one
        path.write_bytes(data[: len(data) // 2] + b"\xff\xff\xff" + data[len(data) // 2 + 3 :])
        with pytest.raises(InputError, match="compressed"):
            found(path, "dinero")
