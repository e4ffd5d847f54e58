"""numba's decorators as this package uses them, and everything that touches numba's insides."""

from vmsim.jit.decorators import FIGURES, jitted_sources, kernel, leaf, routine, source_digest, specialise

__all__ = ["FIGURES", "jitted_sources", "kernel", "leaf", "routine", "source_digest", "specialise"]
