"""Arrow schemas with the unit and the description of each column in the field's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import pyarrow as pa

from vmsim.record.columns import Column

__all__ = ["TYPES", "schema"]

TYPES: Final[Mapping[str, pa.DataType]] = MappingProxyType(
    {"str": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
)
"""Arrow's type for each kind of column."""


def schema(kinds: Mapping[str, str], columns: Mapping[str, Column]) -> pa.Schema:
    """Return a schema.

    Parameters
    ----------
    kinds : mapping of str to str
        Kind of each column, in order: a key of `TYPES`.
    columns : mapping of str to Column
        Known columns. A column that is not among them, such as what a sweep varies, gets no metadata.

    Raises
    ------
    KeyError
        A kind is not one of `TYPES`.
    """
    return pa.schema(
        [pa.field(name, TYPES[kind], metadata=_metadata(columns.get(name))) for name, kind in kinds.items()]
    )


def _metadata(column: Column | None) -> dict[str, str] | None:
    if column is None:
        return None
    unit = {"unit": column.unit} if column.unit else {}
    return unit | {"description": column.description}
