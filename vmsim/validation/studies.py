"""The studies that `vmsim validate` knows, and what of them is known to miss."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.resources import files
from typing import Any, Final

from vmsim.base.errors import InputError, nearest
from vmsim.base.progress import in_notebook, status_line
from vmsim.validation.report import Report

__all__ = ["DRAWN", "PARTS", "STUDIES", "known_misses", "validate"]

# One module of vmsim.validation each, with a function predict() -> Report.
STUDIES: Final = {
    "adams-agesen": "single operations and forkwait under a shadow monitor (Adams & Agesen, ASPLOS 2006)",
    "agile": "page walks of eight programs, nested and shadow (Agile Paging, ISCA 2016)",
    "balloon-steps": "a balloon filled page by page, by the size of a message (Wang & Li, 2017)",
    "bhargava": "two-dimensional walks and their caching (Bhargava et al., ASPLOS 2008)",
    "gups": "GUPS in a 64 GB guest (vMitosis, ASPLOS 2021)",
    "hyperalloc": "18 GiB taken by a balloon, given back and touched again (HyperAlloc, EuroSys 2025)",
    "instlat": "what translation adds to a load, by footprint (InstLatx64)",
    "linux-watermarks": "watermarks of free memory (Linux mm/page_alloc.c)",
    "mglru": "programs that do not fit, with Linux's generations and with its two lists (Zhao, 2022)",
    "reporting": "huge pages faulted in and freed under free page reporting (Duyck, 2020)",
    "shootdown": "a page discarded by one of several threads (Amit 2019), and tlb_flush2 (van Riel 2024)",
    "vmitosis": "GUPS with its nested tables on another socket, and large pages (vMitosis, ASPLOS 2021)",
    "waldspurger": "balloons, equal pages and the idle memory tax of VMware ESX (Waldspurger, OSDI 2002)",
}
# Of these, a module of vmsim.analysis with the study's name has a function picture(curves, path).
DRAWN: Final = ("instlat",)

# Of these, predict() takes some of the names that the module has under this one, in place of all.
PARTS: Final = {"agile": "FOOTPRINTS", "instlat": "CPUS"}


def known_misses(study: str) -> dict[str, str]:
    """Return the quantities of a study that are known to miss, and why."""
    text = files("vmsim.validation").joinpath("data/known_misses.toml").read_text(encoding="utf-8")
    groups: list[dict[str, Any]] = tomllib.loads(text).get(study, [])
    return {quantity: group["why"] for group in groups for quantity in group["quantities"]}


def validate(
    studies: str | Sequence[str] | None = None,
    *,
    only: Sequence[str] | None = None,
    progress: bool | Callable[[str, int, int], None] | None = None,
) -> dict[str, Report]:
    """Predict published measurements, and say how far off.

    Parameters
    ----------
    studies : str or sequence of str, optional
        Of `STUDIES`; all if left out.
    only : sequence of str, optional
        Some parts of the one study that is named: programs of ``agile``, CPUs of ``instlat``.
    progress : bool or callable, optional
        Show the study under way on a terminal or in a notebook. By default only in notebooks. A callable is given its
        name, how many are done, and how many there are.

    Returns
    -------
    dict of str to Report
        By study. `Report.unexpected` has what misses and is not known to.

    Raises
    ------
    InputError
        There is no such study or part.
    """
    names = [studies] if isinstance(studies, str) else list(STUDIES if studies is None else studies)
    for name in names:
        if name not in STUDIES:
            raise InputError(f"There is no study {name!r}. {nearest(name, STUDIES)}")
    if only and len(names) != 1:
        raise InputError(f"--only: name one study that has parts: {' or '.join(PARTS)}.")
    if only and names[0] not in PARTS:
        raise InputError(f"--only: the study {names[0]} has no parts; {' and '.join(PARTS)} have.")
    reports = {}
    with status_line() as line:
        for number, name in enumerate(names):
            if callable(progress):
                progress(name, number, len(names))
            elif progress or (progress is None and in_notebook()):
                line(f"{name} ({number + 1} of {len(names)})")
            module = import_module(f"vmsim.validation.{name.replace('-', '_')}")
            parts = [_parts(only, [*getattr(module, PARTS[name])])] if only else []
            reports[name] = replace(module.predict(*parts), known=known_misses(name))
    return reports


def _parts(names: Sequence[str], known: list[str]) -> list[str]:
    """Return the parts named, in the study's order."""
    for name in names:
        if name not in known:
            raise InputError(f"--only: there is no {name!r}. {nearest(name, known)}")
    return [name for name in known if name in names]
