"""`calibrate`: from measurements to figures of a CPU, and the paging mode that explains them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from vmsim.calibration.derive import Found, Reaches, derive, overrides, toml_of
from vmsim.calibration.explain import Explained, Modelled, explain, modelled
from vmsim.calibration.measure import measure
from vmsim.calibration.measured import Measured

__all__ = ["Calibration", "calibrate"]

_MOST: Final = 1 << 14  # pages of a simulated chase
_POINTS: Final = 7


@dataclass(frozen=True, slots=True)
class Calibration:
    """A machine measured, and what that says.

    Attributes
    ----------
    found : list of Found
        Figures of its CPU.
    knees : Reaches
        What its TLBs reach.
    models : Modelled
        What was simulated with these figures, by mode.
    explained : Explained
        Which of the modes is nearest.
    """

    measured: Measured
    found: list[Found]
    knees: Reaches
    models: Modelled
    explained: Explained

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types, the samples among it."""
        curves = [
            {"mode": mode, "fault_cycles": fault, "curve": [[pages, cycles] for pages, cycles in curve.items()]}
            for mode, (curve, fault) in self.models.items()
        ]
        return {
            "measured": self.measured.to_json(),
            "figures": [each.to_json() for each in self.found],
            "explained": self.explained.to_json(),
            "simulated": curves,
        }

    def to_toml(self, name: str) -> str:
        """Return a CPU file of that name."""
        return toml_of(self.measured, self.found, name)

    def curves(self) -> list[dict[str, Any]]:
        """Return rows for a figure: line, pages, cycles, deviation."""
        rows = [
            {"line": "measured", "pages": pages, "cycles": cycles, "deviation": deviation}
            for pages, (cycles, deviation) in self.measured.difference().items()
        ]
        for mode, (curve, _) in self.models.items():
            rows += [
                {"line": mode, "pages": pages, "cycles": value, "deviation": 0.0} for pages, value in curve.items()
            ]
        return rows


def calibrate(
    measured: Measured | None = None, *, quick: bool = False, say: Callable[[str], None] = lambda _: None
) -> Calibration:
    """Measure this machine, and say what it is.

    Parameters
    ----------
    measured : Measured, optional
        Measurements of another machine, or of this one made earlier.
    quick : bool, optional
        Shorter chases and fewer repetitions.
    say : callable, optional
        Told what is under way.

    Raises
    ------
    InputError
        It cannot be measured.
    """
    measured = measured or measure(quick=quick, say=say)
    found, knees = derive(measured)
    models = modelled(measured.preset, overrides(found), _pages(measured, knees), say)
    return Calibration(measured, found, knees, models, explain(measured, models))


def _pages(measured: Measured, knees: Reaches) -> list[int]:
    """Return which numbers of pages are simulated: of those beyond the first TLB some, spread evenly."""
    beyond = [count for count in measured.difference() if knees.first[0] < count <= _MOST]
    step = max(1, -(-len(beyond) // _POINTS))
    return sorted({*beyond[::step], *beyond[-1:]})
