"""How far something is: a bar on a terminal or in a notebook, nothing in a pipe."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Progress", "Wanted", "in_notebook", "progress_bar", "showing", "status_line", "wants_progress"]

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is under way (a VM's name), how much of it is done (accesses), and how much there is in all."""

Wanted: TypeAlias = bool | Progress | None
"""Whether to show progress; or who is told. None: in notebooks."""

_PATIENCE: Final = 0.5  # seconds before anything is shown in a notebook: what is over at once needs no bar
_PAUSE: Final = 0.2  # seconds between changes there
_NAME: Final = 28  # columns for what is under way

_lines: list[Callable[[str], None]] = []  # the status lines shown now, the outermost first


def in_notebook() -> bool:
    """Whether this runs in a Jupyter notebook."""
    if "IPython" not in sys.modules:
        return False
    from rich.console import Console

    return Console().is_jupyter


def wants_progress(wanted: bool | Callable[..., Any] | None) -> bool:
    """Whether something is to be shown by us: asked for, or in a notebook left to us."""
    return not callable(wanted) and (in_notebook() if wanted is None else wanted)


@contextmanager
def showing(title: str, wanted: Wanted) -> Iterator[Progress | None]:
    """Give what shows progress as it is wanted, or None."""
    if callable(wanted):
        yield wanted
    elif wants_progress(wanted):
        with progress_bar(title) as show:
            yield show
    else:
        yield None


@contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """Give what shows a line of text until the next one; nothing where there is no terminal and no notebook.

    Within another one, the text is put after that one's.
    """
    if _lines:
        yield _lines[-1]
        return
    console = _stderr()
    if console.is_jupyter:
        with _in_cell() as put:
            yield from _line(lambda text: put(html.escape(text)))
    elif console.is_terminal:
        from rich.progress import Progress as Bar
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
        with Bar(*columns, console=console, transient=True) as bar:
            task = bar.add_task("")
            yield from _line(lambda text: bar.update(task, description=text))
    else:
        yield lambda _: None


def _line(put: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    first = ""

    def outer(text: str) -> None:
        nonlocal first
        first = text
        put(text)

    _lines.append(lambda text: put(f"{first}: {text}" if first else text))
    try:
        yield outer
    finally:
        _lines.pop()


@contextmanager
def progress_bar(title: str, unit: str = "accesses") -> Iterator[Progress | None]:
    """Show a bar for all that is under way: percent, speed, time left; give None where nobody would see it."""
    console = _stderr()
    if console.is_jupyter:
        with _in_cell() as put:
            yield _Tally(title, unit, lambda tally: put(tally.html)).show
    elif console.is_terminal:
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        with Bar(*columns, console=console, transient=True) as bar:
            task = bar.add_task(f"{title}: starting", total=None, start=False, rate="")

            def change(tally: _Tally) -> None:
                if tally.done and bar.tasks[0].start_time is None:
                    bar.start_task(task)  # compiling is over
                bar.update(task, description=tally.name, completed=tally.done, total=tally.total, rate=tally.rate)

            yield _Tally(title, unit, change).show
    else:
        yield None


class _Tally:
    """What has been done of all that is under way: by all VMs together."""

    def __init__(self, title: str, unit: str, changed: Callable[[_Tally], None]) -> None:
        self.title = title
        self.unit = unit
        self.name = f"{title}: starting"
        self.changed = changed
        self.vms: dict[str, tuple[int, int]] = {}
        self.done = self.total = 0
        self.start = 0.0
        self.before = 0

    def show(self, vm: str, done: int, total: int) -> None:
        """Note what one of them has done."""
        self.vms[vm] = done, total
        self.done, self.total = (sum(column) for column in zip(*self.vms.values(), strict=True))
        if self.done and not self.start:
            self.start, self.before = time.perf_counter(), self.done
        if self.done:
            name = f"{self.title}: {vm}" if vm else self.title
            self.name = name if len(name) <= _NAME else name[: _NAME - 1] + "…"
        self.changed(self)

    @property
    def speed(self) -> float:
        """Return how much is done in a second."""
        elapsed = time.perf_counter() - self.start if self.start else 0.0
        return (self.done - self.before) / elapsed if elapsed > 0 else 0.0

    @property
    def rate(self) -> str:
        """Return the speed as text."""
        if not self.speed:
            return ""
        return f"{self.speed / 1e6:.1f} M {self.unit}/s" if self.speed >= 1e5 else f"{self.speed:,.1f} {self.unit}/s"

    @property
    def html(self) -> str:
        """Return a bar for a notebook."""
        left = f", {(self.total - self.done) / self.speed:.0f} s left" if self.speed else ""
        share = self.done / max(1, self.total)
        text = f"{html.escape(self.name)} {share:.0%} {self.rate}{left}"
        return f'<progress value="{self.done}" max="{max(1, self.total)}"></progress> {text}'


@contextmanager
def _in_cell() -> Iterator[Callable[[str], None]]:
    """Give what puts HTML in the place of what it put before, in a notebook's output; at the end there is none."""
    from IPython.display import HTML, display

    started = shown = time.perf_counter()
    handle: Any = None

    def put(text: str) -> None:
        nonlocal handle, shown
        now = time.perf_counter()
        if now - started < _PATIENCE or (handle and now - shown < _PAUSE):
            return
        shown = now
        if handle is None:
            handle = display(HTML(text), display_id=True)  # type: ignore[no-untyped-call]
        else:
            handle.update(HTML(text))  # type: ignore[no-untyped-call]

    try:
        yield put
    finally:
        if handle:
            handle.update(HTML(""))  # type: ignore[no-untyped-call]


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False)
