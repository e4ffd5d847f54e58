"""The studies that `vmsim validate` knows, and what of them is known to miss."""

from __future__ import annotations

import multiprocessing
import time
import tomllib
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import replace
from importlib import import_module
from importlib.resources import files
from typing import Any, Final

from vmsim.base.errors import InputError, nearest
from vmsim.base.progress import in_notebook, status_line
from vmsim.base.spawning import Spawn, attend, cores, safely
from vmsim.validation.report import Report

__all__ = ["DRAWN", "PARTS", "STUDIES", "known_misses", "predict", "validate"]

# One module of vmsim.validation each, with a function predict() -> Report.
STUDIES: Final = {
    "adams-agesen": "single operations and forkwait under a shadow monitor (Adams & Agesen, ASPLOS 2006)",
    "agile": "page walks of eight programs, nested and shadow (Agile Paging, ISCA 2016)",
    "balloon-steps": "a balloon filled page by page, by the size of a message (Wang & Li, 2017)",
    "bhargava": "two-dimensional walks and their caching (Bhargava et al., ASPLOS 2008)",
    "dirty-lock": "writes to protected memory by vCPUs under one mmu_lock (Zhang, 2022)",
    "eager-split": "writes after logging was enabled, large pages split by them or before (Matlack, 2022)",
    "gups": "GUPS in a 64 GB guest (vMitosis, ASPLOS 2021)",
    "hyperalloc": "18 GiB taken by a balloon, given back and touched again (HyperAlloc, EuroSys 2025)",
    "instlat": "what translation adds to a load, by footprint (InstLatx64)",
    "ipi-guest": "an interrupt from one vCPU to another (Zeng and Gao, 2021)",
    "linux-watermarks": "watermarks of free memory (Linux mm/page_alloc.c)",
    "live-migration": "pre-copy of guests that do nothing, with free page hints and without (QEMU; Li, 2016)",
    "mglru": "programs that do not fit, with Linux's generations and with its two lists (Zhao, 2022)",
    "migrate-pages": "interrupts of pages that go to another node in batches (Huang Ying, 2022)",
    "pv-flush": "ebizzy in VMs that share their processors, with paravirtual flushes and without (Li, 2017)",
    "pvm-faults": "processes that touch 4 GiB each, under EPT and a shadow (PVM, SOSP 2023)",
    "reference-counts": "entries that a cold walk reads, by formula and paper",
    "reporting": "huge pages faulted in and freed under free page reporting (Duyck, 2020)",
    "shootdown": "a page discarded by one of several threads (Amit 2019), and tlb_flush2 (van Riel 2024)",
    "stage2-parallel": "4 GiB touched and written by vCPUs under one lock, arm64 (Upton, 2022)",
    "tiering": "pmbench on DRAM and persistent memory, by how pages are promoted (Huang, 2022)",
    "uffd-paging": "pages that user space brings in, by userfaultfd and by exits (Moorthy, 2023)",
    "vmitosis": "GUPS with its nested tables on another socket, and large pages (vMitosis, ASPLOS 2021)",
    "waldspurger": "balloons, equal pages and the idle memory tax of VMware ESX (Waldspurger, OSDI 2002)",
}
# Of these, a module of vmsim.analysis with the study's name has a function picture(curves, path).
DRAWN: Final = ("instlat",)

# Of these, predict() takes some of the names that the module has under this one, in place of all.
PARTS: Final = {"agile": "FOOTPRINTS", "instlat": "CPUS"}


# What takes longest, which is begun first where several run at a time.
LONGEST: Final = (
    "agile",
    "tiering",
    "vmitosis",
    "bhargava",
    "shootdown",
    "instlat",
    "reporting",
    "mglru",
    "hyperalloc",
    "gups",
    "pv-flush",
    "waldspurger",
)


def known_misses(study: str) -> dict[str, str]:
    """Return the quantities of a study that are known to miss, and why."""
    text = files("vmsim.validation").joinpath("data/known_misses.toml").read_text(encoding="utf-8")
    groups: list[dict[str, Any]] = tomllib.loads(text).get(study, [])
    return {quantity: group["why"] for group in groups for quantity in group["quantities"]}


def validate(
    studies: str | Sequence[str] | None = None,
    *,
    only: Sequence[str] | None = None,
    jobs: int | None = 1,
    progress: bool | Callable[[str, int, int], None] | None = None,
) -> dict[str, Report]:
    """Predict published measurements, and say how far off.

    Parameters
    ----------
    studies : str or sequence of str, optional
        Of `STUDIES`; all if left out.
    only : sequence of str, optional
        Some parts of the one study that is named: programs of ``agile``, CPUs of ``instlat``. Where none is named,
        some studies.
    jobs : int, optional
        Studies at a time, each in a process of its own: 1 is this process, and None as many as there are cores.
        Processes are spawned: a script needs the usual ``if __name__ == "__main__":``. They change no figure.
    progress : bool or callable, optional
        Show the studies under way on a terminal or in a notebook. By default only in notebooks. A callable is given
        the name of one, how many are done, and how many there are.

    Returns
    -------
    dict of str to Report
        By study, in the order asked for. `Report.unexpected` has what misses and is not known to.

    Raises
    ------
    InputError
        There is no such study or part.
    """
    if studies is None and only:
        studies, only = only, None
    names = [studies] if isinstance(studies, str) else list(dict.fromkeys(STUDIES if studies is None else studies))
    for name in names:
        if name not in STUDIES:
            raise InputError(f"There is no study {name!r}. {nearest(name, STUDIES)}")
    if only and len(names) != 1:
        raise InputError(f"--only: name one study that has parts: {' or '.join(PARTS)}.")
    if only and names[0] not in PARTS:
        raise InputError(f"--only: the study {names[0]} has no parts; {' and '.join(PARTS)} have.")
    jobs = min(cores() if jobs is None else jobs, len(names))
    with status_line() as line:

        def show(running: Sequence[str], done: int) -> None:
            if callable(progress):
                progress(running[0] if running else "", done, len(names))
            elif progress or (progress is None and in_notebook()):
                line(f"{done} of {len(names)} done; {', '.join(running)}" if len(names) > 1 else names[0])

        if jobs == 1:
            reports = {}
            for number, name in enumerate(names):
                show([name], number)
                reports[name] = predict(name, only)
            return reports
        return _side_by_side(names, jobs, show)


def predict(name: str, only: Sequence[str] | None = None) -> Report:
    """Predict one study, or some parts of it; the report says what it took, and what is known to miss.

    Raises
    ------
    InputError
        There is no such part.
    """
    module = import_module(f"vmsim.validation.{name.replace('-', '_')}")
    parts = [_parts(only, [*getattr(module, PARTS[name])])] if only else []
    start = time.perf_counter()
    made: Report = module.predict(*parts)
    return replace(made, known=known_misses(name), seconds=time.perf_counter() - start)


def _side_by_side(names: list[str], jobs: int, show: Callable[[Sequence[str], int], None]) -> dict[str, Report]:
    """Predict several studies at a time, those first that take long."""
    order = sorted(names, key=lambda name: LONGEST.index(name) if name in LONGEST else len(LONGEST))
    with safely():
        pool = ProcessPoolExecutor(jobs, Spawn(), initializer=attend)
    with pool:
        waiting = {pool.submit(predict, name): name for name in order}
        reports: dict[str, Report] = {}
        try:
            while waiting:
                show([*waiting.values()][:jobs], len(reports))
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    reports[waiting.pop(future)] = future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return {name: reports[name] for name in names}


def _parts(names: Sequence[str], known: list[str]) -> list[str]:
    """Return the parts named, in the study's order."""
    for name in names:
        if name not in known:
            raise InputError(f"--only: there is no {name!r}. {nearest(name, known)}")
    return [name for name in known if name in names]
