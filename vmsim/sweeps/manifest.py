"""The manifest of a store: what its parts are, and their digests. It says nothing that the parts do not say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from vmsim.files import sha256
from vmsim.sweeps.parts import FAILURES, FORMAT, RESULTS, durable, list_parts, part_facts

__all__ = ["MANIFEST", "build_manifest", "write_manifest"]

MANIFEST: Final = "manifest.json"


def build_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest that a store's parts make.

    Raises
    ------
    InputError
        A part is damaged.
    """
    tables: dict[str, Any] = {}
    written = list_parts(folder / RESULTS)
    for name in (RESULTS, FAILURES):
        tables[name] = {
            path.name: _described(path) for part, path in list_parts(folder / name).items() if part in written
        }
    manifest: dict[str, Any] = {"format": FORMAT, **tables}
    for name in tables:
        manifest[f"{name}_points"] = sum(part["points"] for part in tables[name].values())
    text = json.dumps(manifest, sort_keys=True)
    return manifest | {"manifest_sha256": hashlib.sha256(text.encode()).hexdigest()}


def write_manifest(folder: Path) -> None:
    """Make the manifest of a store from its parts, and write it."""
    text = json.dumps(build_manifest(folder), indent=2) + "\n"
    with durable(folder / MANIFEST) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _described(path: Path) -> dict[str, Any]:
    facts = part_facts(path)
    return {"sha256": sha256(path), "points": facts["points"], "rows": pq.read_metadata(path).num_rows}
