"""The table ``[vm.content]``: what pages hold, as far as the host can tell pages from one another by it."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from vmsim.scenario.types import Model

__all__ = ["Content"]

_Share = Annotated[float, Field(ge=0, le=1)]


class Content(Model):
    """``[vm.content]``."""

    about: ClassVar[str] = "What pages hold, for a host that shares equal ones."

    image: str = Field(
        default="",
        max_length=64,
        description="Pages hold what this image has at their address until they are written to; VMs with the same "
        "image hold the same. Left out: zeros.",
    )
    image_share: _Share = Field(
        default=1.0, description="Share of a program's pages that are the image's; others hold zeros."
    )
    unique_share: _Share = Field(
        default=0.0, description="Share of a program's pages that hold what no other has, from the start."
    )
    volatile: _Share = Field(
        default=0.0, description="Share of written pages that hold something else each time the host looks."
    )
