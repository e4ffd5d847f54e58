"""The names of paging modes, as keys of a scenario and of CPU files give them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import AfterValidator

from vmsim import plugins

__all__ = ["Mode", "ModeName", "WantedMode"]


def _usable(name: str) -> str:
    """Refuse the mode of a package that is broken."""
    if name != "auto":
        plugins.load("modes", name)
    return name


Mode: TypeAlias = str
"""The name of a registered paging mode."""

if TYPE_CHECKING:
    ModeName: TypeAlias = str
    WantedMode: TypeAlias = str
else:
    ModeName = Annotated[Literal[plugins.names("modes")], AfterValidator(_usable)]
    WantedMode = Annotated[Literal[(*plugins.names("modes"), "auto")], AfterValidator(_usable)]
