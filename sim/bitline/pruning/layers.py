"""The layers of a network that pruning touches, and their weights as the matrices that crossbars hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitline.errors import ConfigError, ShapeError

__all__ = ["PrunableLayer", "prunable_layers", "weight_from_matrices", "weight_matrices"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PrunableLayer:
    """A convolution or linear layer of a network, or one matrix of an LSTM or GRU."""

    name: str
    """The module's; of a recurrent matrix the tensor's, as in ``lstm.weight_hh_l0``."""
    module: nn.Conv1d | nn.Conv2d | nn.Linear
    """Its ``weight``; a recurrent matrix stands in a linear layer that shares the tensor with the network."""

    @property
    def groups(self) -> int:
        """Separate weight matrices of the layer."""
        return 1 if isinstance(self.module, nn.Linear) else self.module.groups


def prunable_layers(
    module: nn.Module, *, exempt_first: bool = True, exempt: frozenset[str] | set[str] = frozenset()
) -> list[PrunableLayer]:
    """Convolution and linear layers of a network, in the order the network registers them, less the exempt ones.

    Every matrix of an LSTM or GRU counts as a linear layer: the names are those of the network's matrix layers.
    Batch norm that is folded later scales whole columns, so it changes no pattern of zeros.

    Parameters
    ----------
    module : nn.Module
    exempt_first : bool, default True
        Leave out the first layer, as the paper does.
    exempt : set of str
        Names of further layers to leave out.

    Raises
    ------
    ConfigError
        An exempt name that is no such layer.
    """
    found = []
    for name, layer in module.named_modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            found.append(PrunableLayer(name=name, module=layer))
        elif isinstance(layer, (nn.LSTM, nn.GRU)) and not layer.proj_size:
            found += _recurrent_matrices(name, layer)
    unknown = sorted(set(exempt) - {layer.name for layer in found})
    if unknown:
        raise ConfigError(
            f"exempt: '{unknown[0]}' is no convolution or linear layer of the network, nor a matrix of an LSTM or GRU"
        )
    return [layer for layer in (found[1:] if exempt_first else found) if layer.name not in exempt]


def _recurrent_matrices(name: str, layer: nn.LSTM | nn.GRU) -> list[PrunableLayer]:
    """Every weight matrix of a recurrent layer as a linear layer around the same parameter."""
    found = []
    for tensor, parameter in layer.named_parameters():
        if tensor.startswith("weight_"):
            linear = nn.Linear(parameter.shape[1], parameter.shape[0], bias=False, device="meta")
            linear.weight = parameter
            found.append(PrunableLayer(name=f"{name}.{tensor}" if name else tensor, module=linear))
    return found


def weight_matrices(weight: Tensor, groups: int = 1) -> NDArray[np.floating]:
    """A layer's weights as its groups' matrices.

    Parameters
    ----------
    weight : Tensor [shape=(outputs, channels / groups, kernel...)]
        Of a convolution or (no kernel) a linear layer.
    groups : int

    Returns
    -------
    ndarray [shape=(groups, K, outputs / groups)]
        Rows in the order channel, kernel row, kernel column; float64 stays, all else becomes float32. May share the
        tensor's memory.

    Raises
    ------
    ShapeError
        Outputs that the groups do not divide, or less than two dimensions.
    """
    if weight.ndim < 2 or groups < 1 or weight.shape[0] % groups:
        raise ShapeError(
            f"weight: expected shape (outputs, inputs, ...) with outputs a multiple of {groups} groups, "
            f"found {tuple(weight.shape)}"
        )
    values = weight.detach().to(device="cpu", dtype=torch.promote_types(weight.dtype, torch.float32))
    array: NDArray[np.floating] = values.reshape(groups, weight.shape[0] // groups, -1).numpy()
    return array.transpose(0, 2, 1)


def weight_from_matrices(matrices: NDArray[np.floating], like: Tensor) -> Tensor:
    """The inverse of :func:`weight_matrices`: a new tensor of ``like``'s shape, dtype and device."""
    values = np.ascontiguousarray(matrices.transpose(0, 2, 1))
    return torch.from_numpy(values).reshape(like.shape).to(device=like.device, dtype=like.dtype)
