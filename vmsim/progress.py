"""How far a simulation is: a bar on a terminal, nothing in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

__all__ = ["Progress", "progress_bar", "status_line"]

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with a VM's name, the accesses that it has made, and those it will have made at its end."""


@contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """Give what shows a line of text on stderr until the next one; nothing where that is no terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("") as status:
        yield status.update


@contextmanager
def progress_bar(title: str) -> Iterator[Progress | None]:
    """Show a bar with all VMs' accesses and their rate on stderr; give None where that is no terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, rate="compiling")
        first = 0.0
        vms: dict[str, tuple[int, int]] = {}

        def show(vm: str, done: int, total: int) -> None:
            nonlocal first
            now = time.perf_counter()
            first = first or now  # compiling is over
            vms[vm] = done, total
            made, all_ = (sum(column) for column in zip(*vms.values(), strict=True))
            elapsed = now - first or 1.0
            bar.update(task, completed=made, total=all_, rate=f"{made:,} accesses, {made / elapsed / 1e6:.1f} M/s")

        yield show
