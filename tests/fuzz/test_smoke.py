"""A few seconds of the campaign, and that its judge sees what is wrong; all of it is ``make fuzz``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fuzz.runner import CANARY, Case, Outcome, _complaints

TESTS = Path(__file__).resolve().parents[1]


def test_a_few_cases_of_the_quick_kinds(tmp_path: Path) -> None:
    """In a process of its own: the campaign forks, which a process with threads must not."""
    kinds = "mutated_hardware,mutated_recipe,yaml_bomb,mutated_checkpoint,hostile_checkpoint,tampered_certificate"
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "--seconds", "4", "--kinds", kinds, "--keep", str(tmp_path / "kept")],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout


def test_the_judge_sees_what_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "case"
    folder.mkdir()

    def judged(status: int = 0, out: bytes = b"", err: bytes = b"", memory: int = 1) -> str:
        outcome = Outcome(status=status, stdout=out, stderr=err, seconds=1, memory=memory)
        return "; ".join(_complaints(Case([]), outcome, folder, set()))

    assert judged() == ""
    assert judged(2, err=b"bitline: no such file\n") == ""
    assert "exit status 1" in judged(1)
    assert "exit status -6" in judged(-6)
    assert "Traceback" in judged(err=b"Traceback (most recent call last):\n")
    assert "control characters" in judged(out=b"\x1b[31m")
    assert "control characters" in judged(out="\u202e".encode())
    assert "not with a line of bitline's" in judged(2, err=b"oops\n")
    assert "GB of memory" in judged(memory=1 << 40)
    (folder / "out").mkdir()
    assert judged() == ""
    assert "half-written" in judged(2, err=b"bitline: no\n")
    (folder / "out" / ".bitline-x.tmp").mkdir()
    assert "left behind" in judged()
    (folder / CANARY).touch()
    assert "executed" in judged()
