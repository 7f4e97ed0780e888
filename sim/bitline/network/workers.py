"""Independent parts of a layer on several threads, each of which runs torch alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

__all__ = ["each"]

_Part = TypeVar("_Part")


def each(work: Callable[[_Part], None], parts: Sequence[_Part]) -> None:
    """Call ``work`` for every part, on as many threads as torch may use; raises what the first failing part raised.

    A part's torch operations run on its own thread alone. A part stays in a core's cache from its first operation to
    its last, and no operation waits for the threads of the one before.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(parts) < 2:
        for part in parts:
            work(part)
        return
    inference = torch.is_inference_mode_enabled()

    def in_mode(part: _Part) -> None:
        with torch.inference_mode(inference):  # torch's modes are a thread's own: the caller's tensors are of its mode
            work(part)

    list(_pool(os.getpid(), threads).map(in_mode, parts))


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads whose torch has one thread each; of this process only, as a fork has the object but not the threads."""
    started = threading.Barrier(threads + 1)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="bitline", initializer=_alone)
    for _ in range(threads):
        pool.submit(started.wait)
    started.wait()
    torch.set_num_threads(threads)  # torch keeps the last number set, on any thread, for threads still to come
    return pool


def _alone() -> None:
    """Have torch run on this thread alone."""
    torch.get_num_threads()  # torch sets a thread's number when first asked: it must not do so after the next line
    torch.set_num_threads(1)
