"""One command line under hostile circumstances, and what must hold of it whatever it was given.

Most cases run in a fork of this process, which has imported everything: ten a second instead of one in ten seconds. The
fork is the program in all else: ``python -m bitline`` by ``runpy``, its own streams, folder, limits and signals. Where
the start of the interpreter is what is tried, a fresh process is run.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import runpy
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MEMORY_BYTES = 3 << 30
"""Most memory a command may have resident; torch and Numba alone take 0.6 GB."""
ADDRESS_BYTES = 24 << 30
FILE_BYTES = 1 << 28
PROCESSOR_SECONDS = 120
STATUSES = frozenset({0, 2, 3, 130, 143})
CANARY = "canary"
"""A file that exists once anything hostile has been executed."""


@dataclass
class Case:
    """A command line and what is done to it."""

    arguments: list[str]
    statuses: frozenset[int] = STATUSES
    stdin: bytes = b""
    environment: dict[str, str] = field(default_factory=dict)
    closed: tuple[int, ...] = ()
    """Descriptors that are closed, of 0, 1, 2."""
    full: tuple[int, ...] = ()
    """Descriptors that write to a full device."""
    signal_after: tuple[int, float] | None = None
    """Signal and seconds."""
    fresh: bool = False
    """An interpreter of its own."""
    seconds: float = 240.0
    check: Callable[[Path, int], str | None] | None = None
    """A further property of the folder and the exit status: what is wrong, or None."""
    then: Case | None = None
    """A second command in the same folder."""


@dataclass
class Outcome:
    """What came of a case."""

    status: int
    stdout: bytes
    stderr: bytes
    seconds: float
    memory: int
    complaints: list[str] = field(default_factory=list)


def run(case: Case, folder: Path, python: str = sys.executable) -> Outcome:
    """Run a case in its folder and find what is wrong with how it ended."""
    before = _listing(folder)
    streams = folder.parent / f"{folder.name}.streams"
    streams.mkdir()
    (streams / "stdin").write_bytes(case.stdin)
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(case, folder, streams, python)
    status, usage, timed_out = _wait(child, case, start)
    outcome = Outcome(
        status=status,
        stdout=(streams / "stdout").read_bytes(),
        stderr=(streams / "stderr").read_bytes(),
        seconds=time.monotonic() - start,
        memory=usage.ru_maxrss * 1024,
    )
    if timed_out:
        outcome.complaints.append(f"still running after {case.seconds:g} s")
    outcome.complaints += _complaints(case, outcome, folder, before)
    if case.then is not None and not outcome.complaints:
        shutil.rmtree(streams)
        return run(case.then, folder, python)
    return outcome


def _child(case: Case, folder: Path, streams: Path, python: str) -> None:
    """In the fork: limits, streams and folder, then the program; never returns."""
    status = 99
    try:
        os.setsid()
        for kind, limit in (
            (resource.RLIMIT_AS, ADDRESS_BYTES),
            (resource.RLIMIT_FSIZE, FILE_BYTES),
            (resource.RLIMIT_CPU, PROCESSOR_SECONDS),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(kind, (limit, limit))
        os.environ.update({"HOME": str(folder.parent / "home"), "COLUMNS": "100", **case.environment})
        os.chdir(folder)
        out = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        for descriptor, name, flags in ((0, "stdin", os.O_RDONLY), (1, "stdout", out), (2, "stderr", out)):
            opened = os.open(streams / name, flags, 0o600)
            if descriptor in case.full:
                opened = os.open("/dev/full", os.O_WRONLY)
            os.dup2(opened, descriptor)
            os.close(opened)
        for descriptor in case.closed:
            os.close(descriptor)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if case.fresh:
            os.execv(python, [python, "-m", "bitline", *case.arguments])
        status = _program(case)
    except BaseException:
        traceback.print_exc()
    os._exit(status)


def _program(case: Case) -> int:
    """What the interpreter does with ``-m bitline``, and its ending."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            errors = "strict" if number < 2 else "backslashreplace"
            stream = open(number, mode, encoding="utf-8", errors=errors)  # noqa: SIM115
        except OSError:
            stream = None
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.argv = ["bitline", *case.arguments]
    status = 0
    try:
        runpy.run_module("bitline", run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            sys.stderr.write(f"{stop.code}\n")
        status = stop.code if isinstance(stop.code, int) else 1 if stop.code else 0
    except BaseException:
        if sys.stderr is not None:
            traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            status = 120
    return status


def _wait(child: int, case: Case, start: float) -> tuple[int, resource.struct_rusage, bool]:
    """Wait for the end, sending the signal on the way, and killing what does not end."""
    timed_out = False
    with _descriptor(os.pidfd_open(child)) as descriptor:
        if case.signal_after is not None:
            number, delay = case.signal_after
            if not select.select([descriptor], [], [], delay)[0]:
                os.kill(child, number)
        left = max(0.0, start + case.seconds - time.monotonic())
        if not select.select([descriptor], [], [], left)[0]:
            timed_out = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # the child and what it started, in the session it made
    _, raw, usage = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(raw), usage, timed_out


@contextlib.contextmanager
def _descriptor(number: int):
    try:
        yield number
    finally:
        os.close(number)


def _listing(folder: Path) -> set[str]:
    found = set()
    for base, folders, files in os.walk(folder):
        found |= {os.path.relpath(os.path.join(base, name), folder) for name in (*folders, *files)}
    return found


_FORBIDDEN = (
    b"Traceback (most recent",
    b"Exception ignored",
    b"Fatal Python error",
    b"FATAL ERROR",
    b"Aborted",
    b"core dumped",
)


def _complaints(case: Case, outcome: Outcome, folder: Path, before: set[str]) -> list[str]:
    """Everything that must hold and does not."""
    found = []
    if outcome.status not in case.statuses:
        found.append(f"exit status {outcome.status}, expected one of {sorted(case.statuses)}")
    for name, content in (("standard output", outcome.stdout), ("standard error", outcome.stderr)):
        found += [f"{name} has {words.decode()!r}" for words in _FORBIDDEN if words in content]
        text = content.decode("utf-8", "replace")
        raw = {c for c in text if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 or c in "\u202e\u2028"}
        if raw:
            found.append(f"{name} has control characters {sorted(raw)!r}")
        if max((len(line) for line in text.split("\n")), default=0) > 5000 and "--json" not in case.arguments:
            found.append(f"{name} has a line of more than 5000 characters")
    if outcome.status in (2, 3) and not ({2} & {*case.closed, *case.full}):
        last = outcome.stderr.decode("utf-8", "replace").rstrip("\n").split("\n")[-1]
        if not last.startswith("bitline"):
            found.append(f"standard error ends with {last[:80]!r}, not with a line of bitline's")
    if outcome.memory > MEMORY_BYTES:
        found.append(f"{outcome.memory / 1e9:.1f} GB of memory")
    if (folder / CANARY).exists() or (folder.parent / CANARY).exists():
        found.append("something in a file was executed")
    new = _listing(folder) - before
    left = sorted(name for name in new if ".tmp" in name or ".bitline-" in name)
    if left and outcome.status != -signal.SIGKILL:
        found.append(f"left behind: {left[:3]}")
    finished = [name for name in new if not (name.endswith(".state") or ".tmp" in name)]
    if outcome.status != 0 and finished:
        found.append(f"half-written: {sorted(finished)[:3]}")
    report = folder / "out" / "report.json"
    if outcome.status == 0 and report.exists():
        try:
            json.loads(report.read_bytes())
        except ValueError:
            found.append("report.json is not JSON")
    if case.check is not None and (wrong := case.check(folder, outcome.status)) is not None:
        found.append(wrong)
    return found
