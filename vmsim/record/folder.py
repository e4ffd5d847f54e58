"""Folders of results: complete or absent, described by a manifest, and never written over by accident."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, Final

from vmsim.base.errors import InputError
from vmsim.base.files import printable, read_bytes, sha256
from vmsim.base.temporary import beside, held, leftovers
from vmsim.record.tables import TABLES

__all__ = ["MANIFEST", "check_folder", "digests", "read_manifest", "read_output", "replacing_folder", "write_manifest"]

MANIFEST: Final = "manifest.json"
_LARGEST: Final = 1 << 30
_LARGEST_MANIFEST: Final = 1 << 26


def check_folder(path: Path, *, force: bool = False, whose: str | None = None) -> None:
    """Make sure that results can be put at `path`; a long simulation need not end with the news that they cannot.

    Parameters
    ----------
    path : Path
        Links are followed.
    force : bool, optional
        Results of an earlier run may be there.
    whose : str, optional
        What to do about a folder that is not empty, where nothing may be replaced.

    Raises
    ------
    InputError
        There is a file, a folder that vmsim did not write, or (without `force`) one that it did; or the folder
        above cannot be written to.
    """
    if "\0" in str(path):
        raise InputError(f"{printable(path)}: this can be no folder's name.")
    try:
        target = path.resolve() if path.is_symlink() else path
        if path.is_symlink() and not os.path.lexists(target):
            raise InputError(f"{printable(path)}: this is a link to {printable(target)}, where nothing is.")
        _clear(target.absolute())
        if target.is_dir():
            if any(target.iterdir()):
                if whose:
                    raise InputError(f"{printable(path)}: there are results in it; {whose}.")
                _check_ours(target, path, force=force)
        elif os.path.lexists(target):
            raise InputError(f"{printable(path)}: this is a file; expected the name of a folder to write results to.")
        above = next(each for each in target.absolute().parents if os.path.lexists(each))
        if not above.is_dir():
            raise InputError(f"{printable(path)}: cannot be written: {printable(above)} is not a folder.")
        if not os.access(above, os.W_OK | os.X_OK):
            raise InputError(f"{printable(path)}: cannot be written: the folder {printable(above)} is read-only.")
        os.rmdir(tempfile.mkdtemp(prefix=".vmsim-", dir=above))  # rights do not say all: /proc, a read-only disk
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle
        told = getattr(error, "strerror", None) or error
        raise InputError(f"{printable(path)}: cannot be written: {told}.") from error


@contextmanager
def replacing_folder(path: Path, *, force: bool = False, whose: str | None = None) -> Iterator[Path]:
    """Give a temporary folder beside `path`; rename it to `path` when the block ends well, else remove it.

    Parameters
    ----------
    path : Path
        Absent, an empty folder, or with `force` results of an earlier run, which then are replaced. Of a link, what
        it leads to.
    force, whose
        As of `check_folder`.

    Raises
    ------
    InputError
        As of `check_folder`, something came to be there meanwhile, or the disk is full.
    """
    check_folder(path, force=force, whose=whose)
    target = path.resolve() if path.is_symlink() else path.absolute()
    temporary, made = beside(target, "tmp"), []
    try:
        made = [each for each in temporary.parents if not each.exists()]
        temporary.mkdir(parents=True)
        with held(temporary):
            yield temporary
            _put(temporary, target, path, force=force)
        made = []
    except OSError as error:
        raise InputError(
            f"{printable(path)}: cannot be written: {error.strerror or error}. Nothing was left there."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for each in made:
            with suppress(OSError):  # somebody else has put something there
                each.rmdir()


def _put(temporary: Path, target: Path, path: Path, *, force: bool) -> None:
    """Rename a folder to where nothing is, or over an empty one, or over results of an earlier run."""
    try:
        os.rename(temporary, target)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not force:
            raise InputError(f"{printable(path)}: somebody else has put something there meanwhile.") from error
    old = beside(target, "old")
    with held(target):
        os.rename(target, old)
        try:
            _check_ours(old, path, force=True)
            os.rename(temporary, target)
        except BaseException:
            os.rename(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _clear(target: Path) -> None:
    """Remove what processes that were killed left half-written beside a folder, and put back what one had put aside."""
    for each in leftovers(target, "old"):
        if not os.path.lexists(target):
            os.rename(each, target)
            continue
        with suppress(InputError):  # never removed: what vmsim did not write
            _check_ours(each, each, force=True)
            shutil.rmtree(each, ignore_errors=True)
    for each in leftovers(target, "tmp"):
        shutil.rmtree(each, ignore_errors=True)


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below `folder` by its relative path, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def write_manifest(folder: Path, form: str, facts: Mapping[str, Any]) -> None:
    """Write the manifest of a complete folder: `form`, `facts`, and the digests of all files and of itself."""
    manifest = {"format": form, **facts, "outputs": digests(folder)}
    manifest["manifest_sha256"] = _digest(manifest)
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    # a path need not be text: its other bytes become \\udc80 and so on, which is how JSON escapes them too
    (folder / MANIFEST).write_bytes(text.encode("utf-8", "backslashreplace") + b"\n")


def read_manifest(folder: Path, form: str) -> dict[str, Any]:
    """Return the manifest of a folder, whose files are as it says.

    Raises
    ------
    InputError
        It is not a folder of this form, or a file in it is missing or damaged.
    """
    manifest = _manifest(folder)
    name = printable(folder / MANIFEST)
    if manifest.get("format") != form:
        raise InputError(f"{name}: found format {str(manifest.get('format'))[:80]!r}, expected {form!r}.")
    stated = manifest.pop("manifest_sha256", None)
    if stated != _digest(manifest):
        raise InputError(f"{name}: damaged or edited: its own SHA-256 is not what it says.")
    for output, digest in manifest["outputs"].items():
        _expect(folder / output, digest)
    return manifest


def read_output(folder: Path, name: str, outputs: Mapping[str, str]) -> bytes:
    """Return the bytes of a file that a manifest lists, if they are those that it lists.

    Parameters
    ----------
    folder : Path
    name : str
        Relative to it.
    outputs : mapping of str to str
        SHA-256 by name, as of the manifest.

    Raises
    ------
    InputError
        It is not listed, missing or damaged.
    """
    path = folder / name
    if name not in outputs:
        raise InputError(f"{printable(path)}: {MANIFEST} does not list it.")
    if not path.is_file():
        raise InputError(f"{printable(path)}: missing, though {MANIFEST} lists it.")
    data = read_bytes(path, "table", limit=_LARGEST)
    if hashlib.sha256(data).hexdigest() != outputs[name]:
        raise _damaged(path, outputs[name])
    return data


def _expect(path: Path, digest: str) -> None:
    try:
        if not path.is_file():
            raise InputError(f"{printable(path)}: missing, though {MANIFEST} lists it.")
        found = sha256(path)
    except OSError as error:
        raise InputError(f"{printable(path)}: cannot be read: {error.strerror or error}.") from error
    if found != digest:
        raise _damaged(path, digest)


def _damaged(path: Path, digest: str) -> InputError:
    return InputError(f"{printable(path)}: damaged: its SHA-256 is not the {digest[:12]}… that {MANIFEST} gives.")


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        data = read_bytes(path, "manifest", limit=_LARGEST_MANIFEST)
    except InputError as error:
        if not os.path.lexists(folder):
            raise InputError(f"{printable(folder)}: there is no such folder.") from error
        cause = getattr(error.__cause__, "strerror", None)
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise InputError(f"{printable(folder)}: not a folder of vmsim results: {MANIFEST}: {cause}.") from error
        raise
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{printable(path)}: damaged: not JSON ({error}).") from error
    if isinstance(manifest, dict) and str(manifest.get("format")).startswith("vmsim sweep "):
        raise InputError(
            f"{printable(folder)}: this is the store of a sweep; expected the folder of a run or of a comparison. "
            "For sweeps there are vmsim results, plot and report."
        )
    outputs = manifest.get("outputs") if isinstance(manifest, dict) else None
    if not isinstance(outputs, dict) or not all(
        isinstance(digest, str) and _is_inside(name) for name, digest in outputs.items()
    ):
        raise InputError(f"{printable(path)}: damaged: not a manifest of vmsim.")
    return dict(manifest)


def _is_inside(name: str) -> bool:
    parts = name.split("/")
    return "\0" not in name and not {"", ".", ".."} & {*parts}


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _check_ours(folder: Path, path: Path, *, force: bool) -> None:
    """Make sure that a folder has nothing but what vmsim writes; `path` is its name in messages.

    A manifest can be forged to list the user's own files. So a name counts only if vmsim writes such a file into such
    a folder, and one that is not a table of this version only with the bytes that the manifest gives.
    """
    try:
        manifest = _manifest(folder)
    except InputError:
        raise InputError(
            f"{printable(path)}: the folder is not empty and vmsim did not write it; name another one for the results."
        ) from None
    if not force:
        raise InputError(f"{printable(path)}: there are results of an earlier run here; --force replaces them.")
    listed = {MANIFEST: None, **manifest["outputs"]}
    folders = {each.as_posix() for name in listed for each in PurePosixPath(name).parents}
    pattern = _WRITTEN.get(manifest.get("format") or "", _NOTHING)
    for file in sorted(_below(folder)):
        name = file.relative_to(folder).as_posix()
        kind = file.lstat().st_mode
        if stat.S_ISDIR(kind) and name in folders:
            continue
        ours = stat.S_ISREG(kind) and name in listed and pattern.fullmatch(name)
        if ours and file.name not in _NAMES:
            ours = sha256(file) == listed[name]
        if not ours:
            raise InputError(
                f"{printable(path)}: --force would delete {printable(name)}, which vmsim did not write; move it away "
                "first."
            )


def _below(folder: Path) -> Iterator[Path]:
    """Yield all that is below a folder, through no link."""
    for each in folder.iterdir():
        yield each
        if each.is_dir() and not each.is_symlink():
            yield from _below(each)


_NAMES: Final = {MANIFEST, "summary.csv", *(f"{name}.parquet" for name in TABLES)}
_RUN: Final = r"(manifest\.json|summary\.csv|[a-z][a-z_]*\.parquet)"
_FIGURE: Final = r"(translation|comparison)\.(png|pdf)"
_WRITTEN: Final = {
    "vmsim run 1": re.compile(_RUN),
    "vmsim run 2": re.compile(_RUN),
    "vmsim run 3": re.compile(_RUN),
    "vmsim comparison 1": re.compile(rf"([a-z][a-z0-9_-]*/)?{_RUN}|{_FIGURE}"),
    "vmsim validation 1": re.compile(r"manifest\.json|index\.html|validation\.json|[a-z-]+\.(csv|svg)"),
    "vmsim tables 1": re.compile(r"manifest\.json|[^/]+\.([0-9]+\.guest|host)\.txt"),
}
_NOTHING: Final = re.compile("manifest[.]json")
