"""Batch norm folded into the matrix before it, in float64 and from the checkpoint alone."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.modules.batchnorm import _BatchNorm

from bitline.network.norms import FixedNorm

__all__ = ["as_float64", "fold_batch_norm"]


def as_float64(tensor: torch.Tensor) -> NDArray[np.float64]:
    """A tensor's values as a float64 array of its own."""
    return np.asarray(tensor.detach().to(device="cpu", dtype=torch.float64, copy=True).numpy())


def fold_batch_norm(
    weight: NDArray[np.float64], bias: NDArray[np.float64] | None, norm: _BatchNorm | FixedNorm
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fold a batch norm's fixed affine map into the weights and bias of the layer before it.

    With ``g = gamma / sqrt(variance + eps)``: ``weight * g`` and ``(bias - mean) * g + beta``.

    Parameters
    ----------
    weight : ndarray [shape=(outputs, ...), float64]
    bias : ndarray [shape=(outputs,), float64] or None
    norm : torch.nn batch norm, or its numbers
        With running statistics, one of each for an output; it has to act on these outputs
        (:mod:`bitline.network.norms`).

    Returns
    -------
    weight, bias : ndarray
        Of the same shapes; not finite where the statistics are not usable.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):  # the caller reports what is not finite
        gain = 1.0 / np.sqrt(as_float64(norm.running_var) + norm.eps)
        if norm.weight is not None:
            gain = gain * as_float64(norm.weight)
        offset = -as_float64(norm.running_mean) if bias is None else bias - as_float64(norm.running_mean)
        offset = offset * gain
        if norm.bias is not None:
            offset = offset + as_float64(norm.bias)
        return weight * gain.reshape(-1, *([1] * (weight.ndim - 1))), offset
