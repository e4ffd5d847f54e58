"""The base of tables that are whole TOML files: scenarios, sweeps and their like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import PrivateAttr, ValidationError, ValidationInfo, model_validator

from vmsim.base.errors import listed
from vmsim.base.files import printable
from vmsim.scenario import toml
from vmsim.scenario.locate import locate
from vmsim.scenario.problems import KeyPath, Problem, input_error, problems_of
from vmsim.scenario.types import Model

__all__ = ["Document"]


class Document(Model):
    """A table that is read from a file of its own, and refused with file, line and key."""

    what: ClassVar[str] = "file"
    """What errors call such a file."""

    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """Folder that relative paths in it start from; no part of its identity."""
        return self._folder

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file.

        Raises
        ------
        InputError
            The file cannot be read, is not TOML, or says something that cannot be: with file, line and key.
        """
        path = Path(path)
        return cls.from_toml(toml.read_text(path, cls.what), source=printable(path), folder=path.parent)

    @classmethod
    def from_toml(cls, text: str, *, source: str = "<string>", folder: str | Path = ".") -> Self:
        """Return what a TOML text describes.

        Parameters
        ----------
        text : str
            A whole file.
        source : str, optional
            What errors call the text.
        folder : path, optional
            Folder that relative paths in it start from.

        Raises
        ------
        InputError
            The text is not TOML, or says something that cannot be: with line and key.
        """
        return cls.from_tables(toml.parse(text, source), folder=folder, source=source, text=text)

    @classmethod
    def from_tables(
        cls,
        tables: Mapping[str, Any],
        *,
        folder: str | Path = ".",
        source: str | None = None,
        text: str = "",
        options: Mapping[KeyPath, str] | None = None,
    ) -> Self:
        """Return what tables, as of a parsed file, describe.

        Parameters
        ----------
        tables : mapping
            As `tomllib` gives them.
        folder : path, optional
            Folder that relative paths in them start from.
        source : str, optional
            What errors call them.
        text : str, optional
            The file, where errors look up lines.
        options : mapping of key path to str, optional
            Keys that do not come from the file, and what errors call the option that each comes from.

        Raises
        ------
        InputError
            They say something that cannot be: with key, and line where there is a text.
        """
        try:
            return cls.model_validate(tables, context={"folder": Path(folder)})
        except ValidationError as error:
            problems = problems_of(error, cls)
            if len(tables) > 1 and not {*tables} & {*cls.model_fields}:
                said = f"this is no {cls.what}: none of its keys is one of a {cls.what}'s ({listed(tables)})"
                problems = [Problem((), f"{said}; `vmsim check` says what a file is")]
        except RecursionError:
            problems = [Problem((), "tables are nested too deeply")]
        places: dict[KeyPath, int | str] = {**(locate(text) if text else {}), **(options or {})}
        raise input_error(source or cls.what, problems, places, dict(_names(tables)))

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema (draft 2020-12) of such files."""
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **cls.model_json_schema()}
        schema["title"] = f"vmsim {cls.what}"
        return schema

    @model_validator(mode="after")
    def _place(self, info: ValidationInfo) -> Self:
        self._folder = (info.context or {}).get("folder", Path())
        return self


def _names(table: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Yield the path of each table in an array that has a name, and the name."""
    if not isinstance(table, Mapping) or len(path) > 2:
        return
    for key, value in table.items():
        if isinstance(value, list):
            for number, each in enumerate(value):
                if isinstance(each, Mapping) and isinstance(name := each.get("name"), str):
                    yield (*path, key, number), name if name.isprintable() and len(name) <= 64 else f"{name[:64]!r}"
        else:
            yield from _names(value, (*path, key))
