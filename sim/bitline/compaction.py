"""Which zero rows, columns and crossbars the chip may leave out without touching what was proven and simulated.

Columns of zeros and crossbars of zeros change no other column's sum. Taking out rows of zeros moves the rows below them
up, so a column's non-zeros may meet in one row tile that were in two: the certificate is of other sums then. Rows are
therefore taken out of a layer only where the closed-up matrix is lossless too, at the same ADC bits; its product is
the exact one in both places. Prune rows in whole crossbars, as TinyADC does, and they always go. Nothing is taken out
where that would need more crossbars.

Where rows or columns are zero in crossbar-sized blocks only (BCR pruning), squeezing the blocks
(:mod:`bitline.chip.blocks`) is taken instead, where it is asked for and needs fewer crossbars: columns always may go,
rows under the same rule. It must be asked for, because its index tables are counted but not priced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitline.chip.blocks import closed_up_groups, squeeze_columns, squeeze_rows
from bitline.chip.mapping import WeightFacts, map_layer, weight_facts
from bitline.crossbar.certificate import Certificate, NetworkCertificate, certify_layers
from bitline.hardware import Hardware
from bitline.layers import MatrixLayer

__all__ = ["mapped_layer", "mapped_weights"]


def mapped_weights(
    layers: Sequence[MatrixLayer], certificate: NetworkCertificate, hw: Hardware, *, squeeze_blocks: bool = False
) -> tuple[dict[str, WeightFacts], list[str]]:
    """Find what the mapping may leave out of every layer.

    Parameters
    ----------
    layers : sequence of MatrixLayer
        The network's layers.
    certificate : NetworkCertificate
        Of the same layers, in the same order.
    hw : Hardware
        The description they were certified for.
    squeeze_blocks : bool
        Whether rows or columns may be squeezed out of crossbar-sized blocks.

    Returns
    -------
    dict of str to WeightFacts, list of str
        By layer name; and the layers whose zero rows stay although they take crossbars.
    """
    facts, kept = {}, []
    for layer, proof in zip(layers, certificate.layers, strict=True):
        facts[layer.name], costly = mapped_layer(layer, proof, hw, squeeze_blocks=squeeze_blocks)
        if costly:
            kept.append(layer.name)
    return facts, kept


def mapped_layer(
    layer: MatrixLayer, proof: Certificate, hw: Hardware, *, squeeze_blocks: bool = False
) -> tuple[WeightFacts, bool]:
    """Find what the mapping may leave out of one layer, and whether zero rows stay although they take crossbars."""
    found, costly = weight_facts(layer, hw), False
    if any(found.removed_rows) and not _survives(layer, proof, hw):
        in_place = weight_facts(layer, hw, keep_rows=True)
        costly = _crossbars(layer, found, hw) < _crossbars(layer, in_place, hw)
        found = in_place
    return _squeezed(layer, proof, hw, found) if squeeze_blocks else found, costly


def _squeezed(layer: MatrixLayer, proof: Certificate, hw: Hardware, found: WeightFacts) -> WeightFacts:
    """The facts with a layout of squeezed blocks where one takes fewer crossbars and keeps what was proven."""
    fewest = _crossbars(layer, found, hw)
    columns = squeeze_columns(layer, hw)
    if 0 < columns.crossbars < fewest:
        fewest = columns.crossbars
        found = replace(weight_facts(layer, hw, keep_rows=True), blocks=columns)
    rows = squeeze_rows(layer, hw)
    if 0 < rows.crossbars < fewest and _holds(proof, _column_groups(layer, hw), hw):
        found = replace(weight_facts(layer, hw), removed_columns=(0,) * layer.groups, blocks=rows)
    return found


def _column_groups(layer: MatrixLayer, hw: Hardware) -> list[MatrixLayer]:
    return [replace(layer, codes=group[None]) for codes in layer.codes for group in closed_up_groups(codes, hw)]


def _crossbars(layer: MatrixLayer, facts: WeightFacts, hw: Hardware) -> int:
    return map_layer(layer, hw, facts).crossbars


def _survives(layer: MatrixLayer, proof: Certificate, hw: Hardware) -> bool:
    """Whether the layer is lossless, and still is with its zero rows taken out."""
    return _holds(proof, [replace(layer, codes=_closed_up(layer.codes))], hw)


def _holds(proof: Certificate, matrices: Sequence[MatrixLayer], hw: Hardware) -> bool:
    """Whether a layer is lossless, and these matrices in its place are too, at the same bits."""
    if not proof.lossless:
        return False
    for certificate in certify_layers(matrices, hw).layers:
        for record in certificate.records:
            limit = proof.adc.unit if record.slice is None else proof.adc.per_slice[record.slice]
            if limit is None or record.bits > limit:
                return False
    return True


def _closed_up(codes: NDArray[np.int32]) -> NDArray[np.int32]:
    """Each group's rows without those of zeros; shorter groups are filled up with zeros at the end."""
    groups = [group[(group != 0).any(axis=1)] for group in codes]
    closed = np.zeros((len(groups), max(1, *(len(group) for group in groups)), codes.shape[2]), codes.dtype)
    for target, group in zip(closed, groups, strict=True):
        target[: len(group)] = group
    return closed
