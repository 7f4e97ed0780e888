"""Progress of a long run, on standard error: percent, images done, images per second, time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichBar
from rich.text import Text

__all__ = ["NullProgress", "PlainProgress", "Progress", "TerminalProgress", "progress_on"]


class Progress(Protocol):
    """What a long run tells about itself. ``finish`` may be called at any time, also after an error."""

    def start(self, total: int, what: str) -> None:
        """Begin a piece of work of ``total`` units (images, layers ...) called ``what``."""

    def advance(self, n: int = 1) -> None:
        """``n`` more units are done."""

    def finish(self) -> None:
        """End the piece of work and clear the display."""


class NullProgress:
    """Says nothing."""

    def start(self, total: int, what: str) -> None:
        """Do nothing."""

    def advance(self, n: int = 1) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


def rate_text(rate: float | None) -> str:
    """Units per second for a person: three digits."""
    if not rate:
        return "-/s"
    return f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.3g}/s"


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(rate_text(task.finished_speed or task.speed))


class TerminalProgress:
    """A live bar on a terminal, removed when the work ends."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream) if stream is not None else Console(stderr=True)
        self._bar: RichBar | None = None

    def start(self, total: int, what: str) -> None:
        """Show a bar for ``total`` units."""
        self.finish()
        self._bar = RichBar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            transient=True,
            # rich would otherwise route the report on standard output through this console
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._bar.start()
        self._bar.add_task(what, total=total)

    def advance(self, n: int = 1) -> None:
        """Move the bar by ``n`` units."""
        if self._bar is not None:
            self._bar.advance(self._bar.tasks[0].id, n)

    def finish(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class PlainProgress:
    """A line now and then, for a log file: the first after ``every_s`` seconds, none for short runs."""

    def __init__(
        self, stream: TextIO | None = None, every_s: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._every_s = every_s
        self._clock = clock
        self._what, self._total, self._done = "", 0, 0
        self._began = self._spoke = 0.0

    def start(self, total: int, what: str) -> None:
        """Begin counting."""
        self._what, self._total, self._done = what, total, 0
        self._began = self._spoke = self._clock()

    def advance(self, n: int = 1) -> None:
        """Count, and write a line if the last one is ``every_s`` seconds old."""
        self._done += n
        now = self._clock()
        if now - self._spoke < self._every_s:
            return
        self._spoke = now
        elapsed = now - self._began
        rate = self._done / elapsed if elapsed > 0 else 0.0
        left = f", {(self._total - self._done) / rate:,.0f} s left" if rate > 0 and self._total >= self._done else ""
        percent = f"{100 * self._done // self._total} %, " if self._total > 0 else ""
        stream = self._stream if self._stream is not None else sys.stderr
        stream.write(f"{self._what}: {percent}{self._done:,} of {self._total:,}, {rate_text(rate)}{left}\n")
        stream.flush()

    def finish(self) -> None:
        """Nothing is left to clear."""


def progress_on(stream: TextIO | None = None) -> Progress:
    """Return the reporter that suits a stream (standard error unless given): a bar on a terminal, else plain lines."""
    target = stream if stream is not None else sys.stderr
    return TerminalProgress(stream) if target.isatty() else PlainProgress(stream)
