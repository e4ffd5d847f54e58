"""A prediction beside the measurement it predicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Claim", "Report"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One predicted quantity; agreement is a relative deviation of at most `band` (a fraction)."""

    quantity: str
    predicted: float
    measured: float
    band: float

    @property
    def deviation(self) -> float:
        """Relative deviation of the prediction."""
        return self.predicted / self.measured - 1

    @property
    def ok(self) -> bool:
        """Whether the prediction lies in the band."""
        return abs(self.deviation) <= self.band


@dataclass(frozen=True, slots=True)
class Report:
    """What was predicted, from what, and how it came out."""

    title: str
    source: str
    fitted: dict[str, str]
    claims: tuple[Claim, ...]
    details: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every claim holds."""
        return all(claim.ok for claim in self.claims)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {
            "title": self.title,
            "source": self.source,
            "fitted": self.fitted,
            "claims": [
                {
                    "quantity": claim.quantity,
                    "predicted": claim.predicted,
                    "measured": claim.measured,
                    "deviation": claim.deviation,
                    "band": claim.band,
                    "ok": claim.ok,
                }
                for claim in self.claims
            ],
            "details": self.details,
            "ok": self.ok,
        }

    def __str__(self) -> str:
        width = max(len(claim.quantity) for claim in self.claims)
        lines = [self.title, f"Measured by: {self.source}", ""]
        lines += [f"  fitted    {name}: {value}" for name, value in self.fitted.items()]
        lines += [f"  {name}: {value}" for name, value in self.details.items()]
        lines += ["", f"  {'':{width}}  predicted  measured  deviation    band"]
        lines += [
            f"  {claim.quantity:{width}}  {claim.predicted:9.2f}  {claim.measured:8.2f}  {claim.deviation:+9.1%}"
            f"  ±{claim.band:5.0%}  {'agrees' if claim.ok else 'MISS'}"
            for claim in self.claims
        ]
        return "\n".join(lines)
