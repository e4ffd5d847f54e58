"""The manifest of a store: which parts count, and their digests.

It is written when a part is, never made from what happens to be there: a part that was damaged or exchanged since
differs from it, and that shows whenever the part is read.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from vmsim.base.errors import InputError
from vmsim.base.files import printable, read_bytes
from vmsim.sweeps.parts import FAILURES, FORMAT, RESULTS, durable, part_of

__all__ = ["MANIFEST", "REPAIR", "Listed", "Manifest"]

MANIFEST: Final = "manifest.json"
REPAIR: Final = "vmsim results verify --repair {} makes it again from parts that are whole in themselves."
_LARGEST: Final = 1 << 28


class Listed(NamedTuple):
    """A part as the manifest has it.

    Attributes
    ----------
    sha256 : str
        Of the file, in hexadecimal.
    points, rows : int
        That it has.
    was : str or None
        SHA-256 of the file that is being replaced by this one.
    """

    sha256: str
    points: int
    rows: int
    was: str | None = None


class Manifest:
    """What a store is said to have.

    Attributes
    ----------
    parts : dict of str to dict of str to Listed
        By folder (results, failures) and name.
    """

    def __init__(self) -> None:
        self.parts: dict[str, dict[str, Listed]] = {RESULTS: {}, FAILURES: {}}

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return the manifest of a store; None if there is no such file.

        Raises
        ------
        InputError
            It is damaged, or no manifest.
        """
        path = folder / MANIFEST
        try:
            data = read_bytes(path, "manifest", limit=_LARGEST, links=False)
        except InputError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        try:
            found = json.loads(data)
            stated = found.pop("manifest_sha256")
            if stated != _digest(found):
                raise ValueError("its own SHA-256 is not what it says")
            if found.get("format") != FORMAT:
                raise ValueError(f"expected the format {FORMAT!r}")
            made = cls()
            for kind, parts in made.parts.items():
                parts |= {str(name): _listed(str(name), entry) for name, entry in found[kind].items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{printable(path)}: damaged: {error}. {REPAIR.format(printable(folder))}") from error
        return made

    def write(self, folder: Path) -> None:
        """Write it, whole or not at all.

        Raises
        ------
        InputError
            It cannot be written.
        """
        with durable(folder / MANIFEST) as temporary:
            temporary.write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        made: dict[str, Any] = {"format": FORMAT}
        for kind, parts in self.parts.items():
            made[kind] = {
                name: {key: value for key, value in parts[name]._asdict().items() if value is not None}
                for name in sorted(parts)
            }
        for kind, parts in self.parts.items():
            made[f"{kind}_points"] = sum(part.points for part in parts.values())
        return made | {"manifest_sha256": _digest(made)}


def _listed(name: str, entry: Any) -> Listed:
    made = Listed(**entry)
    if part_of(name) is None:
        raise ValueError(f"{name[:80]!r} is not the name of a part")
    if not all(isinstance(text, str) for text in (made.sha256, made.was or "")):
        raise TypeError(f"{name}: a SHA-256 is a text")
    if not all(type(count) is int and count >= 0 for count in (made.points, made.rows)):
        raise TypeError(f"{name}: points and rows are numbers")
    return made


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
