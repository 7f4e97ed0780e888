"""A polarised mapping: rows are driven fragment by fragment, and a fragment of one sign needs one column.

Our reading of FORMS (its abstract and the idea are what we know). A row tile's rows are cut into fragments of equal
height, driven in turn. Where all weights of an output in a fragment have one sign, the magnitudes sit in one column and
a stored sign bit says whether the digital side adds or subtracts its code. A column sum is of one fragment only, so the
ADC is small; the price is a conversion for every fragment in turn.

FORMS trains networks until every fragment has one sign. This is for the weights as they are: an output whose fragments
in a row tile all have one sign takes one column a slice there, another takes a pair, as in the differential encoding;
of a pair, a fragment of one sign converts one column. A fragment of zeros is not converted. The integers are those of
the differential encoding with row tiles of a fragment's height, so its certificate and engines are the same.

References
----------
Yuan et al., "FORMS: Fine-grained Polarized ReRAM-based In-situ Computation for Mixed-signal DNN Accelerator",
ISCA 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitline.errors import ConfigError
from bitline.hardware import Digits, Encoding, Hardware, Readout
from bitline.layers import MatrixLayer

__all__ = ["PolarisedMapping", "fragment_hardware", "polarised_mapping"]


@dataclass(frozen=True, kw_only=True)
class PolarisedMapping:
    """Where one layer's weights go, and what one input vector costs."""

    name: str
    fragment: int
    """Rows driven at once."""
    columns: tuple[tuple[int, ...], ...]
    """Physical columns of each group's row tiles."""
    differential_columns: int
    """Physical columns that the differential encoding takes, over groups and row tiles."""
    fragments: int
    """Fragments of all outputs that hold a non-zero weight."""
    polarised: int
    """Those of one sign."""
    conversions: int
    """Conversions of one input vector, over all input cycles."""


def fragment_hardware(hw: Hardware, fragment: int) -> Hardware:
    """The description whose row tiles are the fragments: its certificate, integers and saturations are the mapping's.

    Raises
    ------
    ConfigError
        An encoding without a positive and a negative column, or rows that the fragment does not divide.
    """
    if hw.encoding is not Encoding.DIFFERENTIAL or hw.readout is not Readout.DIGITAL:
        raise ConfigError(
            f"polarised mapping: needs the differential encoding with digital readout, "
            f"hardware {hw.name} has {hw.encoding.value}, {hw.readout.value}"
        )
    if hw.digits is not Digits.MAGNITUDE:
        raise ConfigError(f"polarised mapping: needs digits: magnitude, hardware {hw.name} has {hw.digits.value}")
    if fragment < 1 or hw.rows % fragment:
        raise ConfigError(f"polarised mapping: fragment must divide {hw.rows} rows, got {fragment}")
    return hw.replace(rows=fragment, active_rows=None)


def polarised_mapping(layer: MatrixLayer, hw: Hardware, fragment: int) -> PolarisedMapping:
    """Count a layer's columns and conversions.

    Parameters
    ----------
    layer : MatrixLayer
        Weight codes (groups, rows, columns).
    hw : Hardware
        Of the whole crossbar.
    fragment : int
        Rows driven at once; divides ``hw.rows``.

    Raises
    ------
    ConfigError
        As :func:`fragment_hardware`.
    """
    fragment_hardware(hw, fragment)
    starts = np.arange(0, layer.rows, fragment)
    tile = starts // hw.rows  # row tile of each fragment: the fragment divides its height
    columns, single, fragments, signs = [], 0, 0, 0
    for codes in layer.codes:
        positive = np.logical_or.reduceat(codes > 0, starts, axis=0)  # (fragments, outputs)
        negative = np.logical_or.reduceat(codes < 0, starts, axis=0)
        present = positive.astype(np.int64) + negative
        fragments += int(np.count_nonzero(present))
        single += int(np.count_nonzero(present == 1))
        signs += int(present.sum())
        pairs = [(present[tile == t] == 2).any(axis=0) for t in range(int(tile[-1]) + 1)]
        columns.append(tuple(hw.slices * int(pair.size + np.count_nonzero(pair)) for pair in pairs))
    return PolarisedMapping(
        name=layer.name,
        fragment=fragment,
        columns=tuple(columns),
        differential_columns=2 * hw.slices * layer.groups * layer.columns * (int(tile[-1]) + 1),
        fragments=fragments,
        polarised=single,
        conversions=hw.input_passes(layer.signed_inputs) * hw.input_cycles * hw.slices * signs,
    )
