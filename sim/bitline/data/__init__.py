"""Data sets and activation traces."""

from __future__ import annotations

from bitline.data.dataset import Dataset, Split
from bitline.data.normalisation import PRESETS, Normalisation, parse_normalisation
from bitline.data.opening import DEFAULT_SPEC, KINDS, open_dataset
from bitline.data.traces import ActivationTrace, load_trace, save_trace

__all__ = [
    "DEFAULT_SPEC",
    "KINDS",
    "PRESETS",
    "ActivationTrace",
    "Dataset",
    "Normalisation",
    "Split",
    "load_trace",
    "open_dataset",
    "parse_normalisation",
    "save_trace",
]
