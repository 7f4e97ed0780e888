"""Progress goes to standard error and stays quiet where nobody watches."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time

import pytest

from bitline.report.progress import NullProgress, PlainProgress, Progress, TerminalProgress, progress_on


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_line_now_and_then() -> None:
    now = 0.0
    stream = io.StringIO()
    progress: Progress = PlainProgress(stream, every_s=30, clock=lambda: now)
    progress.start(10_000, "simulating")
    for _ in range(100):
        now += 1.0
        progress.advance(50)
    progress.finish()
    # 50 images a second: after 30 s 1,500 are done, 8,500 left at 50/s take 170 s
    assert stream.getvalue().splitlines() == [
        "simulating: 15 %, 1,500 of 10,000, 50/s, 170 s left",
        "simulating: 30 %, 3,000 of 10,000, 50/s, 140 s left",
        "simulating: 45 %, 4,500 of 10,000, 50/s, 110 s left",
    ]


def test_plain_says_nothing_in_a_short_run_and_survives_odd_totals() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream, every_s=0, clock=lambda: 0.0)
    progress.start(0, "nothing")
    progress.advance(3)
    assert stream.getvalue() == "nothing: 3 of 0, -/s\n"
    quiet = PlainProgress(stream, every_s=1e9)
    quiet.start(5, "short")
    quiet.advance(5)
    quiet.finish()
    assert "short" not in stream.getvalue()


def test_the_time_left_is_of_the_pace_after_the_first_units() -> None:
    """A first batch that waits for a compilation says nothing about the rest."""
    now = 0.0
    stream = io.StringIO()
    progress = PlainProgress(stream, every_s=5, clock=lambda: now)
    progress.start(320, "images")
    now = 60.0  # compiling
    progress.advance(16)
    for _ in range(2):
        now += 3.0
        progress.advance(16)
    # 32 more in 6 s; 272 left at 16/3 a second take 51 s, and not 272 / (48 / 66) = 374
    assert stream.getvalue().splitlines() == [
        "images: 5 %, 16 of 320, 0.267/s",
        "images: 15 %, 48 of 320, 5.33/s, 51 s left",
    ]


def test_work_that_does_not_advance_is_heard_of() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream, every_s=0.05, first_s=0.01, tick_s=0.01)
    progress.start(0, "compiling \x1b[31mkernels")
    deadline = time.monotonic() + 20
    while stream.getvalue().count("\n") < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    progress.finish()
    assert stream.getvalue().splitlines()[0] == r"compiling \x1b[31mkernels: 0 s"
    time.sleep(0.05)
    said = stream.getvalue()
    time.sleep(0.2)
    assert stream.getvalue() == said


def test_a_stream_that_nobody_reads_stops_nothing() -> None:
    with open("/dev/full", "w") as full:
        progress = PlainProgress(full, every_s=0, clock=lambda: 0.0)
        progress.start(2, "work")
        progress.advance(1)
        progress.finish()
        with pytest.raises(OSError, match="No space"):
            full.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


def test_terminal_bar_shows_the_work(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    progress = TerminalProgress(stream)
    progress.start(40, "simulating")
    progress.advance(10)
    progress.finish()
    progress.finish()
    progress.advance()
    text = stream.getvalue()
    assert "simulating" in text
    assert "25%" in text
    assert "10/40" in text
    assert capsys.readouterr().out == ""


def test_choice_by_stream() -> None:
    assert isinstance(progress_on(Terminal()), TerminalProgress)
    assert isinstance(progress_on(io.StringIO()), PlainProgress)
    null: Progress = NullProgress()
    null.start(1, "x")
    null.advance()
    null.finish()


def test_default_stream_is_standard_error() -> None:
    code = (
        "from bitline.report.progress import PlainProgress, TerminalProgress, progress_on\n"
        "p = progress_on(); assert isinstance(p, PlainProgress)\n"
        "p._first_s = 0; p.start(2, 'work'); p.advance(1); p.finish()\n"
        "t = TerminalProgress(); t.start(2, 'bar'); t.advance(2); t.finish()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "work: 50 %, 1 of 2" in done.stderr
