"""``python -m fuzz`` (``make fuzz``): run seeded cases until the time is over; save and name what fails.

``--replay KIND:SEED`` runs one case again and shows all of it; ``FUZZ_SECONDS`` and ``FUZZ_SEED`` set the defaults.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import random
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fuzz.cases import KINDS, make_seeds
from fuzz.runner import Case, Outcome, run

_WARM = (
    "bitline.cli", "bitline.simulation", "bitline.certification", "bitline.pruner", "bitline.throughput",
    "bitline.comparison", "bitline.report.publish", "bitline.report.proof", "bitline.report.throughput_text",
)  # fmt: skip


def prepare(home: Path) -> Path:
    """Import what the forks need, and make the seeds; returns their folder."""
    for name in _WARM:
        importlib.import_module(name)
    (home / "home").mkdir()
    seeds = home / "seeds"
    seeds.mkdir()
    make_seeds(seeds)
    made = home / "made"
    made.mkdir()
    few = ["--images", "3", "--calibration-images", "3", "--threads", "1"]
    commands = [
        ["certify", "../seeds/mlp784.safetensors", "--adc-bits", "6", "--out", "proof"],
        [
            "simulate",
            "../seeds/mlp784.safetensors",
            "--data",
            "npz:../seeds/images.npz",
            *few,
            "--record-trace",
            "traces",
        ],
    ]
    for command in commands:
        outcome = run(Case(command, seconds=600), made)
        shutil.rmtree(home / "made.streams")
        if outcome.complaints or outcome.status:
            raise SystemExit(f"{shlex.join(command)}: {outcome.complaints}\n{outcome.stderr.decode()}")
    shutil.copy(made / "proof" / "certificate.json", seeds / "certificate.json")
    shutil.copy(next((made / "traces").glob("*.npz")), seeds / "trace.npz")
    return seeds


def one(kind: str, seed: int, home: Path, seeds: Path) -> tuple[Case, Outcome, Path]:
    """Make and run one case in a folder of its own."""
    folder = home / f"{kind}-{seed}"
    folder.mkdir()
    case = KINDS[kind](random.Random(f"{kind}:{seed}"), folder, seeds)
    return case, run(case, folder), folder


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _discard(folder: Path) -> None:
    for place in (folder, folder.with_name(f"{folder.name}.streams")):
        shutil.rmtree(place, ignore_errors=True)


def campaign(kinds: Sequence[str], seconds: float, first: int, home: Path, keep: Path) -> int:
    """Rounds over all kinds until the time is over; how many cases failed."""
    seeds = prepare(home)
    end, seed = time.monotonic() + seconds, first
    counts: Counter[str] = Counter()
    failed = 0
    while time.monotonic() < end:
        for kind in kinds:
            if time.monotonic() >= end:
                break
            case, outcome, folder = one(kind, seed, home, seeds)
            counts[f"{kind} {outcome.status}"] += 1
            if outcome.complaints:
                failed += 1
                _save(case, outcome, folder, keep, seeds)
                _say(f"FAILED {kind}:{seed}  bitline {shlex.join(case.arguments)[:200]!r}")
                _say("".join(f"\n    {complaint}" for complaint in outcome.complaints)[1:])
            _discard(folder)
        seed += 1
    _say(f"{sum(counts.values())} cases of {len(kinds)} kinds, seeds {first} to {seed}, {failed} failed")
    for name, count in sorted(counts.items()):
        _say(f"  {count:6}  {name}")
    if failed:
        _say(f"failing cases are in {keep}; again: make fuzz FUZZ_ARGS='--replay KIND:SEED'")
    return failed


def _save(case: Case, outcome: Outcome, folder: Path, keep: Path, seeds: Path) -> None:
    """The case's files, its streams, its command and the seeds it was made from."""
    place = keep / folder.name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for source in [*folder.rglob("*"), *folder.with_name(f"{folder.name}.streams").rglob("*")]:
        if source.is_file() and source.stat().st_size < 1 << 26 and not source.is_symlink():
            target = place / source.relative_to(folder.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                shutil.copyfile(source, target)
    kind, _, seed = folder.name.rpartition("-")
    (place / "case.txt").write_text(
        f"bitline {shlex.join(case.arguments)}\n{case}\nstatus {outcome.status}, {outcome.seconds:.1f} s, "
        f"{outcome.memory / 1e6:.0f} MB\n" + "\n".join(outcome.complaints)
        + f"\nagain: make fuzz FUZZ_ARGS='--replay {kind}:{seed}'\n",
        errors="backslashreplace",
    )  # fmt: skip
    with contextlib.suppress(OSError):
        shutil.copytree(seeds, keep / "seeds", dirs_exist_ok=True)


def main() -> int:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("FUZZ_SECONDS", "240")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("FUZZ_SEED", "0")), help="first seed")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of: " + ", ".join(KINDS))
    parser.add_argument("--replay", metavar="KIND:SEED")
    parser.add_argument("--keep", type=Path, default=Path("out/fuzz"), help="folder of failing cases (out/fuzz)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bitline-fuzz-") as name:
        home = Path(name)
        if options.replay:
            kind, _, seed = options.replay.partition(":")
            seeds = prepare(home)
            case, outcome, folder = one(kind, int(seed), home, seeds)
            _save(case, outcome, folder, options.keep, seeds)
            sys.stdout.write(f"{case}\nstatus {outcome.status}\n{outcome.stdout.decode(errors='replace')!r}\n")
            sys.stdout.write(f"{outcome.stderr.decode(errors='replace')}\n{outcome.complaints}\n")
            return bool(outcome.complaints)
        return bool(campaign(options.kinds.split(","), options.seconds, options.seed, home, options.keep.resolve()))


if __name__ == "__main__":
    sys.exit(main())
