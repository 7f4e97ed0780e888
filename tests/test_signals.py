"""Signals at any moment of a command: one status, one line, nothing half-written; and what killed runs leave."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from bitline.models.mlp import MLP
from safetensors.torch import save_file

from bitline import signals
from bitline.report.staging import remove_abandoned, staging_folder
from bitline.report.writer import OutputFolder


@pytest.fixture(scope="module")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("mlp") / "mlp.safetensors"
    save_file(MLP(("fc1", "fc2"), (256, 24, 10)).state_dict(), path)
    return path


def _catches(process: subprocess.Popen[str], number: signal.Signals) -> bool:
    """Whether the process has a handler of its own for a signal: the kernel says so."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return True  # over already
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def _stopped_after(argv: list[str], seconds: float, number: signal.Signals) -> tuple[int, str, str]:
    """Status, standard output and standard error of a command that got a signal so long after its handlers stood."""
    with subprocess.Popen(
        [sys.executable, "-m", "bitline", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not _catches(process, signal.SIGTERM):  # SIGINT has Python's handler from the start
            time.sleep(0.001)
        time.sleep(seconds)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def _check(argv: list[str], folder: Path, seconds: float, number: signal.Signals, words: str) -> bool:
    """Whether it was stopped; if it was not, it must have been over."""
    out = folder / "new" / "out"
    status, _, err = _stopped_after([*argv, "--out", str(out)], seconds, number)
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    if status == 0:
        assert any(out.iterdir())
        assert not list(folder.rglob(".*"))
        shutil.rmtree(folder / "new")
        return False
    assert (status, err.splitlines()[-1]) == (128 + number, f"bitline: {words}"), (seconds, err)
    assert err.count(words) == 1
    assert not list(folder.iterdir())
    return True


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated"), (signal.SIGHUP, "the terminal was closed")],
)
def test_a_stopped_command_says_so_in_one_line(tmp_path: Path, mlp: Path, number: signal.Signals, words: str) -> None:
    for seconds in (0.0, 0.6):  # as soon as handlers stand, before heavy imports; and amid them
        assert _check(["simulate", str(mlp), "--images", "2"], tmp_path, seconds, number, words)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(int(os.environ.get("BITLINE_INTERRUPTS", "2")) // 2))
def test_interrupted_at_random_moments(tmp_path: Path, mlp: Path, seed: int) -> None:
    """Two runs a seed; ``BITLINE_INTERRUPTS=100`` makes fifty seeds of it."""
    moments = random.Random(seed)
    _check(["certify", str(mlp)], tmp_path, moments.uniform(0, 3), signal.SIGINT, "interrupted")
    simulate = ["simulate", str(mlp), "--images", "20"]
    _check(simulate, tmp_path, moments.uniform(0, 9), signal.SIGINT, "interrupted")


def test_a_signal_ignored_from_the_start_stays_ignored(tmp_path: Path) -> None:
    """As by ``nohup``."""
    code = "import signal\nfrom bitline import signals\nsignals.install()\nprint(signal.getsignal(signal.SIGHUP).name)"
    done = subprocess.run(
        [sys.executable, "-c", f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "SIG_IGN\n"


def _run(code: str, *argv: object) -> subprocess.CompletedProcess[str]:
    """A process with a command's handlers that sends itself Ctrl-C."""
    head = "import os, pathlib, signal, sys, time\nfrom bitline import signals\nsignals.install()\n"
    head += "stop = lambda: os.kill(os.getpid(), signal.SIGINT)\n"
    return subprocess.run(
        [sys.executable, "-c", head + code, *map(str, argv)], capture_output=True, text=True, check=False, timeout=60
    )


def test_held_work_is_finished_first_and_none_begins_after_it(tmp_path: Path) -> None:
    done = _run(
        "with signals.held():\n"
        "    stop(); time.sleep(0.3)\n"
        "    with signals.held(): print('whole', flush=True)\n"
        "print('not reached')\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "whole\n", "bitline: interrupted\n")


def test_a_second_one_does_not_wait() -> None:
    began = time.monotonic()
    done = _run(
        "import threading\nthreading.Timer(0.3, stop).start()\nwith signals.held():\n    stop(); time.sleep(30)\n"
    )
    assert done.returncode == 130
    assert time.monotonic() - began < 20


def test_it_is_not_lost_in_a_callback_that_swallows_everything() -> None:
    """What ctypes does with an exception in a callback, as of LLVM: printed and forgotten."""
    done = _run(
        "import ctypes\nkind = ctypes.CFUNCTYPE(None)\n"
        "def back():\n    stop()\n    for _ in range(10**6): pass\n"
        "while True: kind(back)()\n"
    )
    assert (done.returncode, done.stderr) == (130, "bitline: interrupted\n")


def test_when_all_is_said_it_is_too_late() -> None:
    done = _run("signals.finish(); stop(); time.sleep(0.2); print('said'); sys.exit(3)")
    assert (done.returncode, done.stdout, done.stderr) == (3, "said\n", "")


def test_temporary_folders_and_their_parents_go_with_the_process(tmp_path: Path) -> None:
    done = _run(
        "home = pathlib.Path(sys.argv[1]) / 'a' / 'b'\n"
        "with signals.temporary_folder(home) as folder:\n"
        "    (folder / 'file').write_text('x'); stop(); time.sleep(30)\n",
        tmp_path,
    )
    assert done.returncode == 130
    assert not list(tmp_path.iterdir())
    with signals.temporary_folder(tmp_path / "c" / "d") as folder:
        (folder.parent / "mine").write_text("stays")
    assert [path.name for path in tmp_path.rglob("*")] == ["c", "d", "mine"]


def test_training_is_asked_first(tmp_path: Path) -> None:
    done = _run(
        "with signals.asked_to_stop() as asked:\n"
        "    stop()\n    while not asked(): time.sleep(0.01)\n    print('saved', flush=True)\n"
        "    stop(); time.sleep(30)\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "saved\n", "bitline: interrupted\n")

    def work() -> None:
        with signals.asked_to_stop() as asked:
            assert not asked()
            os.kill(os.getpid(), signal.SIGINT)
            assert asked()

    with pytest.raises(KeyboardInterrupt):  # it ended by itself, without a command's handlers: the request is not lost
        work()


# --- what killed runs leave ------------------------------------------------------------------------------------------

KILLED = (
    "import os, pathlib, sys\nfrom bitline.report.writer import OutputFolder\n"
    "with OutputFolder(sys.argv[1]) as folder:\n"
    "    folder.write('report.json', '{}')\n    print('ready', flush=True)\n    sys.stdin.read()\n"
)


def test_the_next_result_removes_what_a_killed_run_left_and_nothing_of_a_living_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-c", KILLED, str(out)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as dead, subprocess.Popen(command, text=True, **pipes) as alive:
        for process in (dead, alive):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        dead.kill()
        dead.wait()
        assert len(list(out.glob(".bitline-*.tmp"))) == 2
        with OutputFolder(out) as folder:
            folder.write("report.json", '{"schema_version": 1}')
        (left,) = out.glob(".bitline-*.tmp")
        assert (left / "owner").read_text() == f"{alive.pid}\n"
        assert (left / "new" / "report.json").exists()
        alive.kill()


def test_what_is_not_ours_or_not_yet_claimed_stays(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "owner").write_text("1\n")
    for name in (".bitline-a.tmp", ".bitline-notmine1.tmp.d", "bitline-abcdefgh.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "owner").write_text("1\n")
    (tmp_path / ".bitline-link0000.tmp").symlink_to(elsewhere)
    (tmp_path / ".bitline-file0000.tmp").write_text("a file")
    (tmp_path / ".bitline-young000.tmp").mkdir()  # its owner has not come to locking it
    before = sorted(tmp_path.rglob("*"))
    old = tmp_path / ".bitline-old00000.tmp"
    old.mkdir()
    os.utime(old, (0, 0))
    with staging_folder(tmp_path) as mine:
        remove_abandoned(tmp_path)
        assert mine.exists()
    assert sorted(tmp_path.rglob("*")) == before
