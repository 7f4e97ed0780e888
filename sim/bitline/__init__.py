"""Bitline: a cycle-approximate simulator of ReRAM crossbar accelerators for pruned neural networks.

The public names are loaded on first use, so that importing the package stays light (no torch, no numba).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bitline._version import __version__
from bitline.errors import BitlineError

if TYPE_CHECKING:
    from bitline.comparison import compare
    from bitline.crossbar.certificate import certify
    from bitline.crossbar.engines import matmul
    from bitline.hardware import Hardware, load_hardware
    from bitline.network.conversion import convert
    from bitline.pruner import prune
    from bitline.simulation import simulate

__all__ = [
    "BitlineError",
    "Hardware",
    "__version__",
    "certify",
    "compare",
    "convert",
    "load_hardware",
    "matmul",
    "prune",
    "simulate",
]

_HOME = {
    "Hardware": "bitline.hardware",
    "load_hardware": "bitline.hardware",
    "matmul": "bitline.crossbar.engines",
    "certify": "bitline.crossbar.certificate",
    "compare": "bitline.comparison",
    "convert": "bitline.network.conversion",
    "prune": "bitline.pruner",
    "simulate": "bitline.simulation",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
