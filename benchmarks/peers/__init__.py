"""Other simulators beside ours, from a checkout the user points to: the same layer, the same network, the same machine.

Nothing of theirs is kept here. Each adapter (:mod:`.crosssim`, :mod:`.neurosim`) runs in a process of its own, with its
threads limited from the start, and prints one JSON document.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.measure import ChildError, run_child, thread_counts
from bitline.errors import BitlineError

__all__ = ["PEERS", "PeerError", "check", "run"]

PEERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "crosssim": ("CrossSim", ("simulator/cores/bitsliced_core.py", "simulator/algorithms/dnn/torch/convert.py")),
    "neurosim": (
        "NeuroSim 1.5",
        ("pytorch-quantization/pytorch_quantization/cim/modules/macro.py", "quantize.py"),
    ),
}
"""Option -> what a person calls it, and files that a checkout of it has."""


class PeerError(BitlineError):
    """A path that is no checkout of the peer, or a peer that cannot run here."""


def check(peer: str, path: Path) -> None:
    """Make sure that ``path`` holds the peer and that it can be imported.

    Raises
    ------
    PeerError
        It does not, or it cannot.
    """
    name, files = PEERS[peer]
    for file in files:
        if not (path / file).is_file():
            raise PeerError(f"--{peer} {path}: expected a checkout of {name}, but it has no {file}")
    try:
        run_child([f"benchmarks.peers.{peer}", str(path.resolve()), "check"])
    except ChildError as error:
        raise PeerError(f"--{peer} {path}: {name} cannot be imported: {error}") from None


def run(peer: str, path: Path, quick: bool = False) -> dict[str, Any]:
    """Measure a checked peer with one thread and with all.

    Raises
    ------
    PeerError
        It fails.
    """
    results: dict[str, Any] = {}
    size = "quick" if quick else "full"
    for threads in thread_counts():
        try:
            found = run_child([f"benchmarks.peers.{peer}", str(path.resolve()), size], threads=threads)
        except ChildError as error:
            raise PeerError(f"--{peer} {path}: {PEERS[peer][0]} failed: {error}") from None
        for case, measured in found.items():
            results.setdefault(case, {})[f"{threads} threads"] = measured
    return results
