"""From ADC bits to what each layer may keep: ``bitline prune --adc-bits N``.

The rule. With N bits a column's levels may sum to ``2^N - 1``. Of every column of every row tile the largest weights
stay, as many as the sums of their own codes allow, slice by slice and sign by sign: the weights that must go are those
whose loss is least by magnitude, and no column gives up more because another one is worse. The most non-zeros that any
column of a layer then has is the layer's ``l``, and ``R / l`` its rate. Beside it stands the ``l`` of plain CP pruning,
at which *every* column could keep ``l`` weights: the largest that certifies, found by bisection (more weights never
need fewer bits, since the scale, of the largest weight, stays).

Training moves the weights, so their columns are fitted again after every epoch, and at the very end against the codes
that the certificate sees, batch norm folded in. The claim itself is the certificate of the saved file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bitline.crossbar.adc import AdcBits, max_digit
from bitline.crossbar.certificate import NetworkCertificate, lossless_columns
from bitline.errors import ConfigError, VerificationError
from bitline.hardware import Digits, Encoding, Hardware, Readout
from bitline.layers import MatrixLayer
from bitline.network.conversion import matrix_layers
from bitline.pruning.adc_fit import AdcFit, fitting_mask
from bitline.pruning.constraints import ConstraintSet
from bitline.pruning.layers import PrunableLayer, weight_from_matrices, weight_matrices
from bitline.pruning.value_bit import ValueBit

__all__ = ["AdcTarget", "fit_adc", "plan_adc_target", "target_report"]

_REPAIRS = 8


@dataclass(frozen=True, kw_only=True)
class AdcTarget:
    """What one layer may keep at the ADC bits asked for."""

    name: str
    nonzeros: int
    """Most non-zeros of a column of a row tile, ``l``, when every column keeps what fits; ``value_bit``: of the dense
    weights' projection, and training may keep more."""
    uniform_nonzeros: int
    """The largest ``l`` that every column could keep; 0 where one column does not even hold its largest weight."""
    kept: float
    """Share of the layer's weights that stays, 0..1."""
    limit: int
    """Largest sum of levels a column may have."""
    bit_level: bool
    """Cells may be lowered one by one (``value_bit``); otherwise whole weights go."""

    def constraint(self, hw: Hardware, share: float = 1.0) -> ConstraintSet:
        """The constraint set; below share 1 an easier one."""
        whole = hw.read_rows * hw.max_level
        limit = self.limit + round((1 - share) * (whole - self.limit))
        if self.bit_level:
            return ValueBit(limit=limit, rows=hw.read_rows, weight_bits=hw.weight_bits, cell_bits=hw.cell_bits)
        return AdcFit(
            limit=limit,
            nonzeros=self.nonzeros + round((1 - share) * (hw.read_rows - self.nonzeros)),
            rows=hw.read_rows,
            weight_bits=hw.weight_bits,
            cell_bits=hw.cell_bits,
        )


def plan_adc_target(
    module: nn.Module, layers: Sequence[PrunableLayer], hw: Hardware, bits: int, *, bit_level: bool = False
) -> dict[str, AdcTarget]:
    """What every layer may keep so that its proven resolution is at most ``bits``, from the dense weights.

    Raises
    ------
    ConfigError
        An encoding in which zeros are not zero cells, bits that do not hold one full cell, or a layer that is not on
        crossbars.
    """
    if hw.encoding is not Encoding.DIFFERENTIAL:
        raise ConfigError(f"adc_bits: pruning lowers the bits of the differential encoding only, found {hw.encoding}")
    if hw.digits is Digits.CANONICAL:
        raise ConfigError(
            "adc_bits: what is kept is counted in digits: magnitude, and balanced ones need no more; found "
            "digits: canonical, which may"
        )
    matrices = _matrices(module, layers, hw)
    targets = {}
    for layer in layers:
        matrix = matrices[layer.name]
        limit = _limit(hw, bits, matrix.signed_inputs)
        weights = weight_matrices(layer.module.weight, layer.groups)
        if bit_level:
            fitted = ValueBit(limit=limit, rows=hw.read_rows, weight_bits=hw.weight_bits, cell_bits=hw.cell_bits)
            masks = list(weight_matrices(fitted.project(layer.module.weight, layer.groups), layer.groups) != 0)
        else:
            masks = [_mask(w, c, hw, limit) for w, c in zip(weights, matrix.codes, strict=True)]
        tiles = np.arange(0, weights.shape[1], hw.read_rows)
        most = max(
            int(np.add.reduceat(mask & (w != 0), tiles, axis=0).max()) for mask, w in zip(masks, weights, strict=True)
        )
        targets[layer.name] = AdcTarget(
            name=layer.name,
            nonzeros=max(1, most),
            uniform_nonzeros=_largest_uniform(weights, matrix, hw, bits),
            kept=float(np.mean(np.stack(masks) & (weights != 0))),
            limit=limit,
            bit_level=bit_level,
        )
    return targets


def fit_adc(
    module: nn.Module, layers: Sequence[PrunableLayer], targets: Mapping[str, AdcTarget], hw: Hardware, bits: int
) -> int:
    """Zero what does not fit the ADC, by the codes of the network as it is converted; in place.

    Returns
    -------
    int
        Weights that went.

    Raises
    ------
    VerificationError
        Columns that do not fit in the end: a bug.
    """
    gone = 0
    for _ in range(_REPAIRS):
        matrices = _matrices(module, layers, hw)
        left = [layer for layer in layers if not _fits(matrices[layer.name], hw, bits)]
        if not left:
            return gone
        for layer in left:
            weights = weight_matrices(layer.module.weight, layer.groups)
            codes, target = matrices[layer.name].codes, targets[layer.name]
            masks = np.stack([_mask(w, c, hw, target.limit) for w, c in zip(weights, codes, strict=True)])
            gone += int(np.count_nonzero(weights) - np.count_nonzero(weights * masks))
            with torch.no_grad():
                fitted = np.where(masks, weights, weights.dtype.type(0))
                layer.module.weight.copy_(weight_from_matrices(fitted, layer.module.weight))
    raise VerificationError(f"layer {left[0].name}: does not fit {bits} bits after {_REPAIRS} rounds; this is a bug")


def _matrices(module: nn.Module, layers: Sequence[PrunableLayer], hw: Hardware) -> dict[str, MatrixLayer]:
    matrices = {layer.name: layer for layer in matrix_layers(module, hw).layers}
    for layer in layers:
        if layer.name not in matrices:
            raise ConfigError(f"adc_bits: layer {layer.name} is not on crossbars; exempt it")
    return matrices


def _limit(hw: Hardware, bits: int, signed_inputs: bool) -> int:
    # Analog readout converts the difference of both signs; a negative gain of batch norm swaps them.
    largest = (1 << bits) - 1 if hw.readout is Readout.DIGITAL else (1 << (bits - 1)) - 1
    limit = largest // max_digit(hw, signed_inputs)
    if limit < hw.max_level:
        raise ConfigError(
            f"adc_bits: {bits} bits do not hold one full cell ({hw.max_level} levels x digit "
            f"{max_digit(hw, signed_inputs)}); more are needed"
        )
    return limit


def _mask(weights: NDArray[np.floating], codes: NDArray[np.int32], hw: Hardware, limit: int) -> NDArray[np.bool_]:
    return fitting_mask(weights, codes, hw.read_rows, limit, cell_bits=hw.cell_bits, slices=hw.slices)


def _fits(matrix: MatrixLayer, hw: Hardware, bits: int, codes: NDArray[np.int32] | None = None) -> bool:
    wanted = AdcBits.uniform(bits, hw)
    return all(
        bool(lossless_columns(group, hw, wanted, matrix.signed_inputs).all())
        for group in (matrix.codes if codes is None else codes)
    )


def _largest_uniform(weights: NDArray[np.floating], matrix: MatrixLayer, hw: Hardware, bits: int) -> int:
    unlimited = hw.read_rows * hw.max_level

    def certifies(most: int) -> bool:
        masks = [
            fitting_mask(w, c, hw.read_rows, unlimited, cell_bits=hw.cell_bits, slices=hw.slices, most=most)
            for w, c in zip(weights, matrix.codes, strict=True)
        ]
        return _fits(matrix, hw, bits, np.where(np.stack(masks), matrix.codes, 0).astype(np.int32))

    low, high = 0, min(hw.read_rows, weights.shape[1])  # low certifies
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if certifies(middle) else (low, middle - 1)
    return low


def target_report(bits: int, targets: Mapping[str, AdcTarget], after: NetworkCertificate) -> dict[str, Any]:
    """What was asked for, what every layer may keep for it, and what is proven of the saved file.

    Parameters
    ----------
    bits : int
        ADC bits asked for.
    targets : mapping of str to AdcTarget
        By layer.
    after : NetworkCertificate
        Of the saved file.
    """
    binding = min(targets.values(), key=lambda target: (target.kept, target.name))
    proven = {layer.name: layer.bits for layer in after.layers}
    return {
        "adc_bits": bits,
        "binds": binding.name,
        "layers": [
            {
                "name": target.name,
                "nonzeros": target.nonzeros,
                "uniform_nonzeros": target.uniform_nonzeros,
                "kept": target.kept,
                "proven": proven[target.name],
            }
            for target in targets.values()
        ],
    }
