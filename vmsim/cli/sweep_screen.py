"""What a sweep shows while it runs: a live panel on a terminal, lines in a pipe, events as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

__all__ = ["listening"]

_LINE_SECONDS: Final = 10.0
_WIDEST: Final = 90

Event = dict[str, Any]


@contextmanager
def listening(as_json: bool) -> Iterator[Callable[[Event], None]]:
    """Give what listens to a sweep and shows it."""
    if as_json:
        yield _while_read(_print_json)
        return
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _while_read(_Lines())
        return
    from rich.live import Live

    panel = _Panel(console)
    with Live(get_renderable=panel.render, console=console, refresh_per_second=4, transient=True):
        yield panel


def _while_read(listener: Callable[[Event], None]) -> Callable[[Event], None]:
    """Go on without a word where nobody reads any more: the results are in the store."""
    reads = True

    def tell(event: Event) -> None:
        nonlocal reads
        if reads:
            try:
                listener(event)
            except OSError:
                reads = False

    return tell


def _print_json(event: Event) -> None:
    sys.stdout.write(json.dumps(event, ensure_ascii=False) + "\n")
    sys.stdout.flush()


class _Tally:
    """What has happened so far."""

    def __init__(self) -> None:
        self.points = self.recorded = self.done = self.failed = 0
        self.workers = 0
        self.enumerated = 0
        self.planned = False
        self.first = 0.0
        self.slowest: tuple[float, str] = (0.0, "")

    def __call__(self, event: Event) -> None:
        match event["event"]:
            case "planning":
                self.enumerated = event["points"]
            case "planned":
                self.planned = True
                self.points, self.recorded = event["points"], event["recorded"]
                self.done, self.failed, self.first = 0, 0, 0.0  # an experiment may have several sweeps
            case "started":
                self.workers = event["workers"]
            case "done" | "failed":
                self.first = self.first or time.monotonic() - event["seconds"]
                self.done += event["event"] == "done"
                self.failed += event["event"] == "failed"
                if event["seconds"] > self.slowest[0]:
                    self.slowest = event["seconds"], _values(event["values"])

    @property
    def left(self) -> int:
        return self.points - self.recorded - self.done - self.failed

    @property
    def rate(self) -> float:
        elapsed = time.monotonic() - self.first if self.first else 0.0
        return (self.done + self.failed) / elapsed if elapsed else 0.0

    @property
    def counts(self) -> str:
        there = f" ({self.recorded:,} were there)" if self.recorded else ""
        return f"{self.done:,} done{there}, {self.failed:,} failed, {self.left:,} left"

    @property
    def speed(self) -> str:
        if not self.rate:
            return "warming up" if self.workers else "enumerating"
        from vmsim.sweeps.estimate import told

        return f"{self.rate:,.1f} points/s, {told(self.left / self.rate)} left"


def _values(values: dict[str, Any]) -> str:
    text = ", ".join(f"{name} = {value}" for name, value in values.items())
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _trouble(event: Event) -> str | None:
    match event["event"]:
        case "failed":
            return f"failed: {_values(event['values'])}: {event['error']}"
        case "retry":
            return f"again: point {event['point'][:12]}: {event['error']}"
        case "lost":
            return f"a worker was lost with {event['points']} points, which run again: {event['error']}"
        case "interrupting":
            return "waiting for the points that run; Ctrl-C again drops them"
    return None


class _Lines:
    """A line now and then, on stderr."""

    def __init__(self) -> None:
        self._tally = _Tally()
        self._last = time.monotonic()

    def __call__(self, event: Event) -> None:
        tally = self._tally
        tally(event)
        trouble = _trouble(event)
        if trouble:
            click.echo(trouble, err=True)
        now = time.monotonic()
        if event["event"] == "planned" or (tally.planned and tally.left and now - self._last >= _LINE_SECONDS):
            self._last = now
            click.echo(f"{tally.points:,} points: {tally.counts}; {tally.speed}", err=True)


class _Panel:
    """A bar, counts, and the slowest point."""

    def __init__(self, console: Any) -> None:
        from rich.progress_bar import ProgressBar

        self._tally = _Tally()
        self._console = console
        self._bar: Any = ProgressBar(total=None, width=40)

    def __call__(self, event: Event) -> None:
        self._tally(event)
        trouble = _trouble(event)
        if trouble:
            from rich.text import Text

            self._console.print(Text(trouble, "yellow" if event["event"] != "failed" else "red"))

    def render(self) -> Any:
        """Return the panel as it is now."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        tally = self._tally
        if not tally.planned:
            return Text(f"enumerating: {tally.enumerated:,} points")
        self._bar.update(completed=tally.points - tally.left, total=max(1, tally.points))
        top = Table.grid(padding=(0, 2))
        top.add_row(self._bar, Text(f"{tally.points - tally.left:,} of {tally.points:,}"), Text(tally.speed))
        lines: list[Any] = [top, Text(tally.counts)]
        if tally.slowest[1]:
            lines.append(Text(f"slowest: {tally.slowest[0]:.2f} s: {tally.slowest[1]}", "dim"))
        return Group(*lines)
