"""Progress of a long run, on standard error: percent, images done, images per second, time left."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
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
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichBar
from rich.text import Text

from bitline.printable import clean
from bitline.signals import restoring

__all__ = ["NullProgress", "PlainProgress", "Progress", "TerminalProgress", "progress_on"]


class Progress(Protocol):
    """What a long run tells about itself. ``finish`` may be called at any time, also after an error."""

    def start(self, total: int, what: str) -> None:
        """Begin a piece of work of ``total`` units (images, layers ...; 0: not known) called ``what``."""

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
        self._stack = contextlib.ExitStack()

    def start(self, total: int, what: str) -> None:
        """Show a bar for ``total`` units."""
        self.finish()
        known = (TaskProgressColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(), TextColumn("left"))
        self._bar = RichBar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            *(known if total else (TimeElapsedColumn(),)),
            console=self._console,
            transient=True,
            # rich would otherwise route the report on standard output through this console
            redirect_stdout=False,
            redirect_stderr=True,  # other lines for standard error appear above the bar
        )
        self._stack.enter_context(restoring(self._restore))
        self._bar.start()
        self._bar.add_task(clean(what), total=total or None)

    def advance(self, n: int = 1) -> None:
        """Move the bar by ``n`` units."""
        if self._bar is not None:
            self._bar.advance(self._bar.tasks[0].id, n)

    def finish(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._stack.close()

    def _restore(self) -> None:
        """Clear the line and show the cursor, without a word to the bar's own threads."""
        os.write(self._console.file.fileno(), b"\r\x1b[2K\x1b[?25h")


class PlainProgress:
    """A line now and then, for a log file: when a piece of work has taken a second, then every ``every_s`` seconds.

    The lines come from a thread, for what takes long, as a compilation, need not advance.

    Parameters
    ----------
    stream : TextIO, optional
        Standard error by default.
    every_s, first_s : float
        Seconds between lines, and before the first one of a piece of work.
    clock : callable
        Seconds.
    tick_s : float, optional
        How often the thread looks; None for no thread: then lines come when the work advances.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        every_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        first_s: float | None = None,
        tick_s: float | None = None,
    ) -> None:
        self._stream = stream
        self._every_s = every_s
        self._first_s = every_s if first_s is None else first_s
        self._clock = clock
        self._tick_s = tick_s
        self._what, self._total, self._done = "", 0, 0
        self._began = self._next = 0.0
        self._warm: tuple[float, int] | None = None
        self._working = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self, total: int, what: str) -> None:
        """Begin counting."""
        with self._lock:
            self._what, self._total, self._done, self._warm = clean(what), total, 0, None
            self._began = self._clock()
            self._next = self._began + self._first_s
        self._working.set()
        if self._tick_s is not None and self._thread is None:
            self._thread = threading.Thread(target=self._tick, args=(self._tick_s,), name="progress", daemon=True)
            self._thread.start()

    def advance(self, n: int = 1) -> None:
        """Count, and write a line if it is time for one."""
        with self._lock:
            self._done += n
            if self._warm is None:  # what is done once, at first, says nothing about the rest
                self._warm = (self._clock(), self._done)
        self._speak()

    def finish(self) -> None:
        """Nothing is left to clear; no more lines until the next piece of work."""
        self._working.clear()

    def _tick(self, every_s: float) -> None:
        while self._working.wait():
            time.sleep(every_s)
            if self._working.is_set():
                self._speak()

    def _speak(self) -> None:
        with self._lock:
            now = self._clock()
            if now < self._next:
                return
            self._next = now + self._every_s
            line = self._line(now)
        with contextlib.suppress(OSError, ValueError):  # nobody reads it; the work goes on
            stream = self._stream if self._stream is not None else sys.stderr
            stream.write(line + "\n")
            stream.flush()

    def _line(self, now: float) -> str:
        elapsed = now - self._began
        if not self._done:
            return f"{self._what}: {elapsed:,.0f} s"
        left = ""
        rate = self._done / elapsed if elapsed > 0 else 0.0
        if self._warm is not None and now > self._warm[0] and self._done > self._warm[1]:
            rate = (self._done - self._warm[1]) / (now - self._warm[0])
            left = f", {(self._total - self._done) / rate:,.0f} s left" if self._total >= self._done else ""
        percent = f"{100 * self._done // self._total} %, " if self._total > 0 else ""
        return f"{self._what}: {percent}{self._done:,} of {self._total:,}, {rate_text(rate)}{left}"


def progress_on(stream: TextIO | None = None) -> Progress:
    """Return the reporter that suits a stream (standard error unless given): a bar on a terminal, else plain lines."""
    target = stream if stream is not None else sys.stderr
    return TerminalProgress(stream) if target.isatty() else PlainProgress(stream, first_s=1.0, tick_s=0.25)
