"""Kernels entered from pools of threads and of forked processes, in processes of their own: no abort, no waiting."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import bitline

PROGRAM = """
import multiprocessing, os
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import bitline
from bitline.errors import ProcessError

hw = bitline.load_hardware("tinyadc")
x, w = np.full((8, 64), 3), np.arange(64 * 8).reshape(64, 8) % 5 - 2
right = int((x @ w).sum())

def run(_):
    try:
        return int(bitline.matmul(x, w, hw).y.sum()) == right
    except ProcessError as error:
        return str(error)

with ThreadPoolExecutor(8) as pool:
    assert set(pool.map(run, range(400))) == {True}
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(set(pool.map_async(run, range(4)).get(timeout=60)))
assert run(0) is True
"""


def outcome(layer: str) -> str:
    environment = {**os.environ, "NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_workqueue_is_entered_by_one_thread_at_a_time_and_survives_a_fork() -> None:
    assert outcome("workqueue") == "{True}\n"


def test_a_fork_after_openmp_is_an_error_not_a_wait() -> None:
    bitline.matmul(np.ones((1, 1), np.int64), np.ones((1, 1), np.int64), bitline.load_hardware("tinyadc"))
    if numba.config.DISABLE_JIT or numba.threading_layer() != "omp":
        pytest.skip("no OpenMP here")
    message = outcome("omp")
    assert "forked after" in message
    assert "'spawn'" in message


def test_every_parallel_kernel_is_entered_through_the_one_door() -> None:
    sources = Path(bitline.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if "parallel=True" in path.read_text("utf-8")] == ["parallel.py"]
