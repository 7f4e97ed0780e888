"""Multi-layer perceptrons: linear layers with ReLU between them, under whatever numbered names they were saved."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """Flatten, then linear layers with a ReLU between each two.

    Parameters
    ----------
    names : sequence of str
        Full names of the linear layers in order, such as ``fc1``, ``fc2`` or ``layers.0``, ``layers.2``.
    sizes : sequence of int
        Features of the input and of every layer's output; one more than names.
    bias : bool
        Whether the layers have a bias.
    """

    def __init__(self, names: Sequence[str], sizes: Sequence[int], bias: bool = True) -> None:
        super().__init__()
        self.names = tuple(names)
        for name, inputs, outputs in zip(names, sizes[:-1], sizes[1:], strict=True):
            parent: nn.Module = self
            *path, leaf = name.split(".")
            for part in path:
                if part not in parent._modules:
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            parent.add_module(leaf, nn.Linear(inputs, outputs, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        """(n, ...) inputs, flattened, to (n, sizes[-1]) logits."""
        x = torch.flatten(x, 1)
        for index, name in enumerate(self.names):
            x = self.get_submodule(name)(x if index == 0 else F.relu(x))
        return x
