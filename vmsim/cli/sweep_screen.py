"""What a sweep shows while it runs: a live panel on a terminal, lines in a pipe, events as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from vmsim.base.progress import Tally, live

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

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
    panel = _Panel(console)
    with live(console, panel.lines):
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


class _Counts:
    """What has happened so far."""

    def __init__(self) -> None:
        self.tally = Tally("sweep", "points")
        self.points = self.recorded = self.done = self.failed = 0
        self.workers = 0
        self.enumerated = 0
        self.planned = False
        self.slowest: tuple[float, str] = (0.0, "")

    def __call__(self, event: Event) -> None:
        match event["event"]:
            case "planning":
                self.enumerated = event["points"]
            case "planned":
                self.planned = True
                self.points, self.recorded = event["points"], event["recorded"]
                self.done, self.failed = 0, 0  # an experiment may have several sweeps
                self.tally = Tally("sweep", "points")
                self._show()
            case "started":
                self.workers = event["workers"]
            case "done" | "failed":
                if not self.done + self.failed:
                    self.tally.begin(ago=event["seconds"])
                self.done += event["event"] == "done"
                self.failed += event["event"] == "failed"
                self._show()
                if event["seconds"] > self.slowest[0]:
                    self.slowest = event["seconds"], _values(event["values"])

    def _show(self) -> None:
        self.tally.show("", self.points - self.left, self.points)

    @property
    def left(self) -> int:
        return self.points - self.recorded - self.done - self.failed

    @property
    def counts(self) -> str:
        there = f" ({self.recorded:,} were there)" if self.recorded else ""
        return f"{self.done:,} done{there}, {self.failed:,} failed, {self.left:,} left"

    @property
    def speed(self) -> str:
        if not self.tally.rate:
            return "warming up" if self.workers else "enumerating"
        return f"{self.tally.rate}, {self.tally.left}"


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
        self._counts = _Counts()
        self._last = time.monotonic()

    def __call__(self, event: Event) -> None:
        counts = self._counts
        counts(event)
        trouble = _trouble(event)
        if trouble:
            click.echo(trouble, err=True)
        now = time.monotonic()
        if event["event"] == "planned" or (counts.planned and counts.left and now - self._last >= _LINE_SECONDS):
            self._last = now
            click.echo(f"{counts.points:,} points: {counts.counts}; {counts.speed}", err=True)


class _Panel:
    """A bar, counts, and the slowest point."""

    def __init__(self, console: Console) -> None:
        self._counts = _Counts()
        self._console = console

    def __call__(self, event: Event) -> None:
        self._counts(event)
        trouble = _trouble(event)
        if trouble:
            from rich.text import Text

            self._console.print(Text(trouble, "yellow" if event["event"] != "failed" else "red"))

    def lines(self) -> list[RenderableType]:
        """Return the panel as it is now."""
        from rich.text import Text

        counts = self._counts
        if not counts.planned:
            return [counts.tally.bar(), Text(f"enumerating: {counts.enumerated:,} points")]
        lines = [counts.tally.bar(), Text(f"{counts.points - counts.left:,} of {counts.points:,}: {counts.counts}")]
        if not counts.tally.rate:
            lines.append(Text(counts.speed, "dim"))
        if counts.slowest[1]:
            lines.append(Text(f"slowest: {counts.slowest[0]:.2f} s: {counts.slowest[1]}", "dim"))
        return lines
