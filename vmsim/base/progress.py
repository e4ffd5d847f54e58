"""How far something is: a bar on a terminal or in a notebook, nothing in a pipe."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = [
    "Progress",
    "Tally",
    "Wanted",
    "in_notebook",
    "in_words",
    "live",
    "progress_bar",
    "showing",
    "status_line",
    "wants_progress",
]

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is under way (a VM's name), how much of it is done (accesses), and how much there is in all.

The last is 0 where nobody knows."""

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
            tally = Tally(title, unit)

            def show(name: str, done: int, total: int) -> None:
                tally.show(name, done, total)
                put(tally.html)

            yield show
    elif console.is_terminal:
        tally = Tally(title, unit)
        with live(console, lambda: [tally.bar()]):
            yield tally.show
    else:
        yield None


@contextmanager
def live(console: Console, lines: Callable[[], list[RenderableType]]) -> Iterator[None]:
    """Show on a terminal, while the block runs, the lines that it is asked for four times a second."""
    from rich.console import Group
    from rich.live import Live

    with Live(get_renderable=lambda: Group(*lines()), console=console, refresh_per_second=4, transient=True):
        yield


class Tally:
    """What has been done of all that is under way: by all VMs together.

    Parameters
    ----------
    title : str
        What is being done.
    unit : str
        What is counted: accesses, points.
    """

    def __init__(self, title: str, unit: str) -> None:
        self.title = title
        self.unit = unit
        self.name = f"{title}: starting"
        self.done = self.total = 0
        self._vms: dict[str, tuple[int, int]] = {}
        self._made = time.perf_counter()
        self._start = 0.0
        self._before = 0

    def show(self, vm: str, done: int, total: int) -> None:
        """Note what one of them has done, of how much in all; 0: nobody knows."""
        self._vms[vm] = done, total
        before = self.done
        self.done, self.total = (sum(column) for column in zip(*self._vms.values(), strict=True))
        if self.done < before:  # something new has begun
            self._start = 0.0
        elif self.done > before and not self._start:
            self.begin()
        if self.done:
            name = f"{self.title}: {vm}" if vm else self.title
            self.name = name if len(name) <= _NAME else name[: _NAME - 1] + "…"

    def begin(self, ago: float = 0.0) -> None:
        """Start the clock, or have started it some seconds ago: what is done from now on makes the speed."""
        self._start, self._before = time.perf_counter() - ago, self.done

    @property
    def begun(self) -> bool:
        """Whether the clock runs."""
        return self._start > 0

    @property
    def speed(self) -> float:
        """How much is done in a second; 0 before that can be said."""
        elapsed = time.perf_counter() - self._start if self._start else 0.0
        return (self.done - self._before) / elapsed if elapsed > 0 else 0.0

    @property
    def share(self) -> str:
        """How much is done: a part of the whole, if that is known."""
        return f"{self.done / self.total:.0%}" if self.total else f"{self.done:,} {self.unit}" if self.done else ""

    @property
    def rate(self) -> str:
        """The speed as text."""
        if not self.speed:
            return ""
        return f"{self.speed / 1e6:.1f} M {self.unit}/s" if self.speed >= 1e5 else f"{self.speed:,.1f} {self.unit}/s"

    @property
    def left(self) -> str:
        """The time left as text; where the whole is not known, the time since the beginning."""
        if not self.total:
            return in_words(time.perf_counter() - self._made)
        left = self.total - self.done
        return f"{in_words(left / self.speed)} left" if self.speed and left else ""

    @property
    def html(self) -> str:
        """A bar for a notebook."""
        bar = f' value="{self.done}" max="{self.total}"' if self.total else ""
        text = " ".join(each for each in (html.escape(self.name), self.share, self.rate) if each)
        return f"<progress{bar}></progress> {text}{f', {self.left}' if self.left else ''}"

    def bar(self) -> RenderableType:
        """Return a bar for a terminal."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        line = Table.grid(padding=(0, 1))
        known = self.total > 0 and self.done > 0
        bar = ProgressBar(total=self.total if known else None, completed=self.done, width=20, pulse=not known)
        cells = ((self.name, ""), (self.share, "magenta"), (self.rate, ""), (self.left, "cyan"))
        name, *rest = (Text(text, style, no_wrap=True) for text, style in cells)
        line.add_row(name, bar, *rest)
        return line


def in_words(seconds: float) -> str:
    """Return a length of time in words: 40 s, 12 min, 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 1 else "1 s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60:,} h {minutes % 60} min"


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
