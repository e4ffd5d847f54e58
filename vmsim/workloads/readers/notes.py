"""What a reader leaves out of a trace, so that it can be said."""

from __future__ import annotations

from collections import Counter

__all__ = ["Notes"]


class Notes:
    """Counts what was read over, and what a table's columns were taken for.

    Attributes
    ----------
    left_out : Counter
        Records, or properties of accesses, that the chunks do not hold, by name (`fetches`, `sizes`, `elements` of
        strings, `prefetches`, `markers`, `flushes` …).
    columns : dict
        For tables: which column (by the file's own name) was taken for the address, kind, size and count.
    unused : list of str
        For tables: the other columns.
    """

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()
        self.columns: dict[str, str] = {}
        self.unused: list[str] = []

    def drop(self, what: str, count: int = 1) -> None:
        """Note that `count` more of something were left out."""
        if count:
            self.left_out[what] += int(count)

    def told(self) -> dict[str, object]:
        """Return what there is to say, ready for JSON."""
        told: dict[str, object] = {"left_out": dict(sorted(self.left_out.items()))}
        if self.columns:
            told |= {"columns": self.columns, "unused_columns": self.unused}
        return told
