"""How many entries a cold walk reads: exact counts, by a formula or as the papers have them.

The simulator's own walker walks real tables for one address, with every TLB and cache empty and without walk caches or
a nested TLB. (g + 1)(h + 1) - 1 entries for g levels of the guest's and h nested ones (Bhargava et al., ASPLOS 2008);
under agile paging h for each of the guest's levels past the switch (Gandhi et al., ISCA 2016).
"""

from __future__ import annotations

import csv
import re
from importlib.resources import files
from typing import Final

from vmsim.observe.anatomy import WalkMode, explain
from vmsim.scenario import Cpu, load_cpu
from vmsim.scenario.cpu_files import apply_override
from vmsim.validation.report import Claim, Report

__all__ = ["measured", "predict", "references"]

_PAGES: Final = {1: "4K", 2: "2M", 3: "1G"}
_PAE: Final = 3


def measured() -> list[dict[str, str]]:
    """Return the rows of the table."""
    text = files("vmsim.validation").joinpath("data/reference_counts.csv").read_text(encoding="utf-8")
    return [*csv.DictReader(text.splitlines())]


def _bare(name: str) -> Cpu:
    """Return a preset without walk caches and without a nested TLB."""
    arrays = ("pml4e", "pdpte", "pde", "pml5e", "nested_pml4e", "nested_pdpte", "nested_pde", "nested_pml5e")
    none: list[tuple[tuple[str, ...], int]] = [
        (("pwc", array, key), 0) for array in arrays for key in ("entries", "ways")
    ]
    none += [(("ntlb", key), 0) for key in ("entries", "ways")]
    return apply_override(load_cpu(name), tuple(none))


def references(row: dict[str, str]) -> int:
    """Walk once as a row says, and return how many entries were read.

    Three guest levels are walked as NPT walks them; under EPT the first of them is in registers.
    """
    guest, nested = int(row["guest_levels"]), int(row["nested_levels"])
    agile = re.match(r"agile: (\d) nested level", row["case"])
    mode: WalkMode = "agile" if agile else "native" if not nested else "npt" if guest == _PAE else "ept"
    cold, _ = explain(
        _bare("skylake-x"),
        mode,
        guest_levels=guest,
        host_levels=nested or 4,
        guest_page=_PAGES[int(row["guest_leaf_level"])],  # type: ignore[arg-type]
        host_page=_PAGES[int(row["nested_leaf_level"] or 1)],  # type: ignore[arg-type]
        switch=int(agile[1]) if agile else 1,
    )
    return cold.count


def predict() -> Report:
    """Count the entries of each row's walk."""
    return Report(
        title="Entries that a cold walk reads",
        source="Bhargava et al., ASPLOS 2008; Gandhi et al., ISCA 2016; SagePTE's artifact; and the formula",
        fitted={},
        claims=tuple(
            Claim(row["case"], references(row), float(row["references"]), 0.0, kind="conformance") for row in measured()
        ),
        details={"walk caches": "none, and no nested TLB; every TLB and cache is empty"},
    )
