"""Ctrl-C and its like: one line, one status, nothing half-written, at any moment of a command.

An exception that a signal handler raises can be lost: in a callback of LLVM, in a finaliser, in a library that catches
everything. And no handler runs before a long product or a compilation returns. So the handlers of a command do
nothing. The interpreter writes the signal's number to a pipe; a thread waits on it, removes what is unfinished, says
so, and ends the process. Work that must not be cut short, such as renaming files into place, runs under :func:`held`.

Without :func:`install`, as in a notebook, Ctrl-C is Python's own ``KeyboardInterrupt`` and the ``finally`` blocks of
the callers clean up.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

__all__ = ["asked_to_stop", "finish", "held", "install", "restoring", "temporary_folder"]

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "the terminal was closed"}
_POLL_S = 0.05

_lock = threading.RLock()
_depth = threading.local()
_stopping = threading.Event()
_unfinished: dict[Path, list[Path]] = {}
"""Temporary folders, and the parents that were made for them."""
_restorers: set[Callable[[], None]] = set()
_asked: threading.Event | None = None
_installed = False
_finished = False


def install() -> None:
    """Let Ctrl-C, SIGTERM and SIGHUP end this process with 128 + the signal's number, cleanly and at any moment.

    For a command, not for a library: the process ends without unwinding. A signal that the process was started to
    ignore, as by ``nohup``, stays ignored.
    """
    global _installed
    if _installed or threading.current_thread() is not threading.main_thread():
        return
    _installed = True
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), name="signals", daemon=True).start()
    for number in _WORDS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _nothing)


def _nothing(*_: object) -> None:
    """Nothing: the watching thread acts."""


def _watch(reading: int) -> NoReturn:
    while True:
        number = os.read(reading, 1)[0]
        if number not in _WORDS:  # some other handler's
            continue
        if number == signal.SIGINT and _asked is not None and not _asked.is_set():
            _asked.set()
            continue
        _leave(number, reading)


def _leave(number: int, reading: int) -> None:
    """End the process, once nothing is held; a second signal does not wait."""
    _stopping.set()
    os.set_blocking(reading, False)
    while not _lock.acquire(timeout=_POLL_S):
        with contextlib.suppress(BlockingIOError):
            if os.read(reading, 1)[0] in _WORDS:
                os._exit(128 + number)
    if _finished:  # all is written and said: too late to interrupt anything
        _stopping.clear()
        _lock.release()
        return
    try:
        for restore in list(_restorers):
            with contextlib.suppress(Exception):
                restore()
        for folder in list(_unfinished):
            _remove(folder)
        os.write(2, f"bitline: {_WORDS[signal.Signals(number)]}\n".encode())
    except OSError:  # nobody reads standard error
        pass
    finally:
        os._exit(128 + number)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """A piece of work that no signal cuts short: the process ends after it, and does not begin it once it is ending."""
    outermost = not getattr(_depth, "held", False)
    if outermost:
        _wait_where_it_ends()
    with _lock:
        _depth.held = True
        try:
            yield
        finally:
            _depth.held = not outermost
    if outermost:
        _wait_where_it_ends()


def _wait_where_it_ends() -> None:
    while _stopping.is_set() and not _finished:
        threading.Event().wait(_POLL_S)


def finish() -> None:
    """From here on nothing can be interrupted any more: what remains is to end with the status that was found."""
    global _finished
    with held():
        _finished = True
    if _installed:
        for number in _WORDS:
            signal.signal(number, signal.SIG_IGN)  # the interpreter would give them their defaults back as it ends


@contextlib.contextmanager
def temporary_folder(home: Path | None = None, *, prefix: str = "bitline-", suffix: str = ".tmp") -> Iterator[Path]:
    """A new folder that is gone afterwards, whether the work in it ends, fails or is stopped.

    Parameters
    ----------
    home : Path, optional
        Where; it is made, with its parents, and what was made for this goes again if nothing else came into it. The
        system's folder for temporary files by default.

    Raises
    ------
    OSError
        It cannot be made.
    """
    with held():
        parents: list[Path] = []
        try:
            if home is not None:
                _make(home, parents)
            made = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=home))
        except BaseException:
            _remove_empty(parents)
            raise
        _unfinished[made] = parents
    try:
        yield made
    finally:
        with held():
            _remove(made)


def _make(folder: Path, made: list[Path]) -> None:
    if not folder.exists():
        _make(folder.parent, made)
        folder.mkdir()
        made.append(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _remove_empty(_unfinished.pop(folder))


def _remove_empty(folders: list[Path]) -> None:
    for folder in reversed(folders):
        with contextlib.suppress(OSError):  # something came into it
            folder.rmdir()


@contextlib.contextmanager
def restoring(restore: Callable[[], None]) -> Iterator[None]:
    """Within it, ``restore`` is called before a signal ends the process: it must not wait for anything."""
    _restorers.add(restore)
    try:
        yield
    finally:
        _restorers.discard(restore)


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Within it, the first Ctrl-C only asks: the function that it gives returns True. A second one stops at once.

    Raises
    ------
    KeyboardInterrupt
        At the end, if the work was over before it heard that it was asked.
    """
    global _asked
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def handler(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    previous = None if _installed else signal.signal(signal.SIGINT, handler)
    _asked = asked if _installed else None
    try:
        yield asked.is_set
    finally:
        _asked = None
        if not _installed:
            signal.signal(signal.SIGINT, previous)
    if asked.is_set():
        raise KeyboardInterrupt
