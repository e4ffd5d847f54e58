"""Folders of results: complete or absent, described by a manifest, and never written over by accident."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from vmsim.errors import InputError
from vmsim.files import sha256

__all__ = ["MANIFEST", "check_folder", "digests", "read_manifest", "replacing_folder", "write_manifest"]

MANIFEST: Final = "manifest.json"


def check_folder(path: Path, *, force: bool = False) -> None:
    """Make sure that results can be put at `path`; a long simulation need not end with the news that they cannot.

    Raises
    ------
    InputError
        There is a file, a folder that vmsim did not write, or (without `force`) one that it did; or the folder
        above cannot be written to.
    """
    if path.is_dir():
        names = sorted(os.listdir(path))
        if names:
            _check_ours(path, force=force)
    elif os.path.lexists(path):
        raise InputError(f"{path}: this is a file; expected the name of a folder to write results to.")
    above = next(each for each in path.absolute().parents if os.path.lexists(each))
    if not above.is_dir():
        raise InputError(f"{path}: cannot be written: {above} is not a folder.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{path}: cannot be written: the folder {above} is read-only.")


@contextmanager
def replacing_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside `path`; rename it to `path` when the block ends well, else remove it.

    Parameters
    ----------
    path : Path
        Absent, an empty folder, or with `force` results of an earlier run, which then are replaced.
    force : bool, optional
        Replace earlier results.

    Raises
    ------
    InputError
        As of `check_folder`, or the disk is full.
    """
    check_folder(path, force=force)
    path = path.absolute()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if path.is_dir():
            os.rename(path, old)
        try:
            os.rename(temporary, path)
        except OSError:
            if old.is_dir():
                os.rename(old, path)
            raise
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}. Nothing was left there.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below `folder` by its relative path, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def write_manifest(folder: Path, form: str, facts: Mapping[str, Any]) -> None:
    """Write the manifest of a complete folder: `form`, `facts`, and the digests of all files and of itself."""
    manifest = {"format": form, **facts, "outputs": digests(folder)}
    manifest["manifest_sha256"] = _digest(manifest)
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path, form: str) -> dict[str, Any]:
    """Return the manifest of a folder, whose files are as it says.

    Raises
    ------
    InputError
        It is not a folder of this form, or a file in it is missing or damaged.
    """
    manifest = _manifest(folder)
    if manifest.get("format") != form:
        raise InputError(f"{folder / MANIFEST}: found format {manifest.get('format')!r}, expected {form!r}.")
    stated = manifest.pop("manifest_sha256", None)
    if stated != _digest(manifest):
        raise InputError(f"{folder / MANIFEST}: damaged or edited: its own SHA-256 is not what it says.")
    for name, digest in manifest["outputs"].items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: missing, though {MANIFEST} lists it.")
        if sha256(path) != digest:
            raise InputError(f"{path}: damaged: its SHA-256 is not the {digest[:12]}… that {MANIFEST} gives.")
    return manifest


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{folder}: not a folder of vmsim results: {MANIFEST}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged: not JSON ({error}).") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("outputs"), dict):
        raise InputError(f"{path}: damaged: not a manifest of vmsim.")
    return manifest


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _check_ours(path: Path, *, force: bool) -> None:
    try:
        listed = {MANIFEST, *_manifest(path)["outputs"]}
    except InputError:
        raise InputError(
            f"{path}: the folder is not empty and vmsim did not write it; name another one for the results."
        ) from None
    if not force:
        raise InputError(f"{path}: there are results of an earlier run here; --force replaces them.")
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if name not in listed and not file.is_dir():
            raise InputError(f"{path}: --force would delete {name}, which vmsim did not write; move it away first.")
