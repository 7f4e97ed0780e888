"""Entering kernels that run on several threads, from whatever thread or process calls them.

Numba's threading layers have limits of their own. ``workqueue`` ends the process when two threads enter it at once, so
there a lock lets one in at a time. GNU OpenMP ends a process that was forked after it had run, and a pool of such
workers waits for ever; there an error says what to do.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any

from numba import njit
from numba.np.ufunc.parallel import threading_layer

from bitline.errors import ProcessError

__all__ = ["parallel_kernel"]


class _Entry:
    """The threading layer in use, once it is known, and what it allows."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.layer: str | None = None
        self.unusable = False

    def find_layer(self) -> None:
        try:
            self.layer = threading_layer()  # type: ignore[no-untyped-call]
        except ValueError:  # no parallel kernel has run: there is no compiler, or nothing was parallel in it
            self.layer = None

    def forked(self) -> None:
        """In a child process: a lock of its own, and no threads if it inherits OpenMP's state without them."""
        self.lock = threading.RLock()
        self.unusable = self.layer == "omp"


_entry = _Entry()
os.register_at_fork(after_in_child=_entry.forked)


def parallel_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function with ``prange`` loops; what is returned is called from Python, not from another kernel.

    Raises
    ------
    ProcessError
        When called, in a process that was forked after a kernel had run on OpenMP's threads.
    """
    kernel = njit(parallel=True, cache=True)(function)

    @functools.wraps(function)
    def enter(*arguments: Any) -> Any:
        if _entry.unusable:
            raise ProcessError(
                "this process was forked after Bitline had computed on several threads, which OpenMP does not survive; "
                "start workers with multiprocessing's 'spawn' or 'forkserver', or set NUMBA_THREADING_LAYER=workqueue"
            )
        if _entry.layer in ("omp", "tbb"):  # safe to enter from several threads
            return kernel(*arguments)
        with _entry.lock:
            result = kernel(*arguments)
            _entry.find_layer()
        return result

    return enter
