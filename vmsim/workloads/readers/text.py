"""How a piece of a broken file is shown in a message."""

from __future__ import annotations

__all__ = ["shown"]


def shown(found: bytes, most: int = 60) -> str:
    """Return bytes as a quoted string on one line, cut after `most` of them."""
    text = repr(found[:most].decode("ascii", "backslashreplace"))
    return text if len(found) <= most else f"{text}…"
