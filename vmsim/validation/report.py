"""A prediction beside the measurement it predicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

__all__ = ["NOTHING", "Claim", "Finding", "Fit", "Kind", "Report", "plain"]

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
"""No changes to the scenario of a study."""

Kind: TypeAlias = Literal["prediction", "conformance", "fit"]
"""What agreement is worth.

prediction: of a measurement that nothing was fitted to. conformance: to a formula, a manual or an exact count.
fit: to the row that something was fitted to, which proves only that the fit was found.
"""


@dataclass(frozen=True, slots=True)
class Fit:
    """A number that was fitted, and to what.

    Attributes
    ----------
    value : float
    unit : str
    file, rows : str
        Of the published data, in `vmsim/validation/data`: what it was fitted to.
    note : str
        How well that came out, or what the number would have been else.
    """

    value: float
    unit: str
    file: str
    rows: str
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the fit as JSON types."""
        return {"value": self.value, "unit": self.unit, "file": self.file, "rows": self.rows, "note": self.note}

    def __str__(self) -> str:
        number = f"{self.value:,.0f}" if self.value == int(self.value) else plain(self.value)
        told = f"{number} {self.unit}".strip()
        return f"{told}, on {self.rows} of {self.file}" + (f"; {self.note}" if self.note else "")


@dataclass(frozen=True, slots=True)
class Claim:
    """One predicted quantity beside the measured one.

    Attributes
    ----------
    measured : float or None
        None: no measurement is at hand, and there is no verdict.
    band : float or None
        Deviation that still agrees, as a fraction of what was measured. None: shown without a verdict.
    slack : float
        Difference that agrees whatever fraction it is, in the quantity's own unit.
    inside : tuple of float, optional
        Interval that agrees, in place of a band around what was measured.
    note : str
        Why there is no verdict.
    kind : str
        What its agreement is worth (`Kind`).
    """

    quantity: str
    predicted: float
    measured: float | None
    band: float | None
    slack: float = 0.0
    inside: tuple[float, float] | None = None
    note: str = ""
    kind: Kind = "prediction"

    @property
    def deviation(self) -> float | None:
        """Relative deviation of the prediction; None where nothing was measured to be relative to."""
        return self.predicted / self.measured - 1 if self.measured else None

    @property
    def ok(self) -> bool | None:
        """Whether the prediction lies in the band; None where there is none."""
        if self.measured is None:
            return None
        if self.inside is not None:
            return self.inside[0] <= self.predicted <= self.inside[1]
        if self.band is None:
            return None
        return abs(self.predicted - self.measured) <= max(self.slack, self.band * abs(self.measured))

    @property
    def interval(self) -> tuple[float, float] | None:
        """What agrees, from and to; None where there is no verdict."""
        if self.measured is None or (self.inside is None and self.band is None):
            return None
        if self.inside is not None:
            return self.inside
        half = max(self.slack, (self.band or 0.0) * abs(self.measured))
        return self.measured - half, self.measured + half

    @property
    def bands(self) -> float | None:
        """How far the prediction lies off, 1 being the edge of what agrees; None where nothing but equality does."""
        if self.measured is None or self.interval is None:
            return None
        low, high = self.interval
        if low == high:
            return None
        middle = self.measured if self.inside is None else (low + high) / 2
        return abs(self.predicted - middle) / ((high - low) / 2)

    def to_json(self) -> dict[str, Any]:
        """Return the claim as JSON types."""
        return {
            "quantity": self.quantity,
            "predicted": self.predicted,
            "measured": self.measured,
            "deviation": self.deviation,
            "band": self.band,
            "slack": self.slack,
            "inside": list(self.inside) if self.inside else None,
            "note": self.note,
            "kind": self.kind,
            "ok": self.ok,
        }

    def cells(self) -> tuple[str, ...]:
        """Return the claim as the text of a table's row."""
        if self.measured is None:
            return self.quantity, plain(self.predicted), "–", "", "", _verdict(self)
        deviation = f"{self.predicted - self.measured:+.2f}" if self.slack else f"{self.deviation or 0:+.1%}"
        band = "" if self.band is None else f"±{self.band:.0%}"
        if self.slack and self.band is not None:
            band = f"±{self.slack:g} or {self.band:.0%}" if self.band else f"±{self.slack:g}"
        if self.inside is not None:
            band = f"{self.inside[0]:g}–{self.inside[1]:g}"
        return self.quantity, plain(self.predicted), plain(self.measured), deviation, band, _verdict(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """A statement that holds or does not, such as an order."""

    quantity: str
    predicted: str
    measured: str
    ok: bool
    kind: Kind = "prediction"

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON types."""
        said = {"quantity": self.quantity, "predicted": self.predicted, "measured": self.measured}
        return said | {"kind": self.kind, "ok": self.ok}


@dataclass(frozen=True, slots=True)
class Report:
    """What was predicted, from what, and how it came out.

    Attributes
    ----------
    fitted : mapping of str to Fit or str
        What was fitted, and to what; a text says why nothing was.
    known : mapping of str to str
        Quantities that are known to miss, and why.
    curves : list of dict
        Rows of a table for a figure, where the study has one (`vmsim.analysis`).
    axes : (str, str)
        What the curves' axes are called, where the study has no figure of its own.
    seconds : float
        What it took.
    """

    title: str
    source: str
    fitted: Mapping[str, Fit | str]
    claims: tuple[Claim, ...]
    details: dict[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    known: Mapping[str, str] = field(default_factory=dict)
    curves: list[dict[str, Any]] = field(default_factory=list)
    axes: tuple[str, str] = ("", "")
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every claim that has a band, and every finding, holds."""
        return self.misses == 0

    @property
    def misses(self) -> int:
        """Claims and findings that do not hold."""
        return self._verdicts.count(False)

    @property
    def all(self) -> list[Claim | Finding]:
        """All claims and findings."""
        return [*self.claims, *self.findings]

    @property
    def unexpected(self) -> list[str]:
        """Quantities that miss and are not known to."""
        return [each.quantity for each in self.all if each.ok is False and not self._is_known(each)]

    @property
    def better(self) -> list[str]:
        """Quantities that are known to miss, and agree."""
        return [each.quantity for each in self.all if each.ok and self._is_known(each)]

    def _is_known(self, each: Claim | Finding) -> bool:
        return each.quantity in self.known

    @property
    def judged(self) -> int:
        """Claims and findings that can hold or not."""
        return len(self._verdicts) - self._verdicts.count(None)

    @property
    def counts(self) -> dict[Kind, tuple[int, int]]:
        """By kind, how many agree of how many that can agree or not; kinds that are not there are left out."""
        found: dict[Kind, tuple[int, int]] = {}
        for each in self.all:
            if each.ok is not None:
                agree, many = found.get(each.kind, (0, 0))
                found[each.kind] = agree + each.ok, many + 1
        return found

    @property
    def _verdicts(self) -> list[bool | None]:
        return [each.ok for each in self.all]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {
            "title": self.title,
            "source": self.source,
            "fitted": {name: fit if isinstance(fit, str) else fit.to_json() for name, fit in self.fitted.items()},
            "claims": [self._json(claim) for claim in self.claims],
            "findings": [self._json(finding) for finding in self.findings],
            "details": self.details,
            "judged": self.judged,
            "misses": self.misses,
            "unexpected": self.unexpected,
            "better": self.better,
            "counts": {kind: {"agree": agree, "of": many} for kind, (agree, many) in self.counts.items()},
            "seconds": round(self.seconds, 1),
            "ok": self.ok,
        }

    def _json(self, each: Claim | Finding) -> dict[str, Any]:
        return each.to_json() | {"known_miss": self.known.get(each.quantity)}

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Return the claims as rows of a table: quantity, predicted, measured, deviation, band, verdict."""
        return [(*claim.cells()[:-1], self.verdict(claim)) for claim in self.claims]

    def verdict(self, each: Claim | Finding) -> str:
        """Return whether something agrees, in words."""
        if each.ok is False:
            return "MISS, known" if self._is_known(each) else "MISS"
        if each.ok:
            word = _AGREES[each.kind]
            return f"{word}, known to miss" if self._is_known(each) else word
        return _verdict(each) if isinstance(each, Claim) else ""

    @property
    def conclusion(self) -> str:
        """Return how many agree, in words."""
        told = [
            f"{agree} of {many} {_KINDS[kind]}" for kind, (agree, many) in self.counts.items() if kind != "prediction"
        ]
        agree, many = self.counts.get("prediction", (0, 0))
        if many or not told:
            told.insert(0, f"{agree} of {many} agree")
        text = ", ".join(told)
        known = self.misses - len(self.unexpected)
        if known:
            text += f"; {known} known {'miss' if known == 1 else 'misses'}"
        if self.unexpected:
            text += f"; {len(self.unexpected)} unexpected {'miss' if len(self.unexpected) == 1 else 'misses'}"
        if self.better:
            text += f"; {len(self.better)} known to miss agree now"
        return f"{text}."

    def __str__(self) -> str:
        lines = [self.title, f"Measured by: {self.source}", ""]
        lines += [f"  fitted    {name}: {value}" for name, value in self.fitted.items()]
        lines += [f"  {name}: {value}" for name, value in self.details.items()]
        rows = [("", "predicted", "measured", "deviation", "band", ""), *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines.append("")
        for first, *rest in rows:
            cells = [text.rjust(width) for text, width in zip(rest[:-1], widths[1:-1], strict=True)]
            lines.append("  ".join(["", first.ljust(widths[0]), *cells, rest[-1]]).rstrip())
        if self.findings:
            lines.append("")
        for finding in self.findings:
            lines.append(f"  {finding.quantity}: {self.verdict(finding)}")
            lines += [f"    predicted  {finding.predicted}", f"    measured   {finding.measured}"]
        return "\n".join([*lines, "", self.conclusion])


def plain(value: float) -> str:
    """Return a number with the decimals that its size asks for: 10,418, 106.2, 5.48, 0.34, 0.0012."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.095 or size == 0 else f"{value:.2g}"


_AGREES = {"prediction": "agrees", "conformance": "conforms", "fit": "fitted"}
_KINDS = {"prediction": "agree", "conformance": "conform", "fit": "as fitted"}


def _verdict(claim: Claim) -> str:
    unsure = claim.note or ("not measured" if claim.measured is None else "no band")
    return {True: _AGREES[claim.kind], False: "MISS", None: unsure}[claim.ok]
