"""Which batch norm may be folded into which matrix layer: only where it provably acts on that layer's outputs.

A batch norm scales along axis 1, whatever the layer before it was. That is a linear layer's output axis for inputs
(batch, features) and not for (batch, positions, features); it is a convolution's for batches of images. So the number
of dimensions decides, and it is taken from a run of the network where the shape of its inputs is known. Where it is
not, it is inferred from the graph as far as that holds for every input; what cannot be shown is not folded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from bitline.layers import LayerKind
from bitline.network.graph import argument, constant, fixed_batch_norm, kind_of, tensor_arguments
from bitline.network.shapes import Runs

__all__ = ["UNKNOWN_AXIS", "FixedNorm", "Ranks", "fixed_norm"]

UNKNOWN_AXIS = (
    "batch norm that acts on the layer before it for some shapes of the input and not for others; "
    "kept as a digital scale and shift until the input's shape is given"
)


@dataclass(frozen=True, eq=False)
class FixedNorm:
    """The numbers of a batch norm whose statistics do not depend on the batch; None where it has none."""

    running_mean: torch.Tensor
    running_var: torch.Tensor
    weight: torch.Tensor | None
    bias: torch.Tensor | None
    eps: float
    source: str
    """The module's name, or the node of a function's call: calls with one source have the same numbers."""
    images: bool
    """Whether it refuses everything but (batch, channels, height, width)."""


def fixed_norm(graph_module: fx.GraphModule, node: fx.Node) -> FixedNorm | None:
    """The batch norm that a node is, module or function, where its statistics are fixed and it reads one value."""
    if node.op == "call_module":
        module = graph_module.get_submodule(str(node.target))
        norm = fixed_batch_norm(module)
        if norm is None or len(node.args) != 1 or node.kwargs:
            return None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        checks = getattr(type(norm), "_check_input_dim", None)
        return FixedNorm(
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
            norm.eps,
            str(node.target),
            isinstance(norm, nn.BatchNorm2d) and checks is nn.BatchNorm2d._check_input_dim,
        )
    if node.op != "call_function" or node.target not in (F.batch_norm, torch.batch_norm):
        return None
    # torch.batch_norm has gain and shift before the statistics
    order = (3, 4, 1, 2) if node.target is F.batch_norm else (1, 2, 3, 4)
    names = ("weight", "bias", "running_mean", "running_var")
    try:
        gain, shift, mean, variance = (
            constant(graph_module, argument(node, place, name)) for place, name in zip(order, names, strict=True)
        )
        training = constant(graph_module, argument(node, 5, "training", False))
        eps = constant(graph_module, argument(node, 7, "eps", 1e-5))
    except LookupError:
        return None
    if training or not isinstance(mean, torch.Tensor) or not isinstance(variance, torch.Tensor):
        return None
    return FixedNorm(mean, variance, gain, shift, float(eps), node.name, False)


_SAME_RANK_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
    nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.LayerNorm, nn.GroupNorm,
    nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.ZeroPad1d, nn.ZeroPad2d,
)  # fmt: skip
_SAME_RANK = {
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardsigmoid",
    "hardtanh", "sigmoid", "tanh", "softplus", "softmax", "clamp", "abs", "exp", "sqrt", "contiguous", "clone", "float",
    "detach", "layer_norm", "group_norm", "dropout", "max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "permute", "transpose",
}  # fmt: skip
_ELEMENTWISE = {"add", "sub", "mul", "truediv", "div", "iadd", "isub", "imul", "itruediv"}
_CONV_RANKS = {LayerKind.CONV1D: 3, LayerKind.CONV2D: 4}
_CONV_FUNCTIONS = {F.conv1d: 3, F.conv2d: 4}
_INPUT = -1
"""As many dimensions as the network's input has, whose shape is not known."""


class Ranks:
    """Number of dimensions of the values of a graph.

    Parameters
    ----------
    graph_module : GraphModule
        A traced network.
    runs : Runs, optional
        A run of it; without one, dimensions are inferred, for batches of inputs of any shape.
    """

    def __init__(self, graph_module: fx.GraphModule, runs: Runs | None) -> None:
        self._graph_module = graph_module
        self._known: dict[fx.Node, int] = {}
        if runs is not None:
            self._known = {node: len(shape) for node, shape in runs.shapes.items()}
            return
        for node in graph_module.graph.nodes:
            rank = self._infer(node)
            if rank is not None:
                self._known[node] = rank

    def of(self, node: fx.Node) -> int | None:
        """Dimensions of a value with those of the batch; None where not known."""
        rank = self._known.get(node)
        return None if rank == _INPUT else rank

    def acts_on_outputs(self, layer: fx.Node, kind: LayerKind, norm: FixedNorm) -> bool | None:
        """Whether axis 1, on which a norm acts, is the output axis of the layer it reads; None where not known."""
        if kind is LayerKind.CONV2D and norm.images:
            return True  # the norm takes four dimensions alone, and the second of a batch of images is the channels
        rank = self.of(layer)
        if rank is None:
            return None
        return rank == _CONV_RANKS.get(kind, 2)

    # --- without a run -----------------------------------------------------------------------------------------------

    def _infer(self, node: fx.Node) -> int | None:
        if node.op == "placeholder":
            return _INPUT
        if node.op == "get_attr":
            value: Any = self._graph_module
            for part in str(node.target).split("."):
                value = getattr(value, part)
            return value.dim() if isinstance(value, torch.Tensor) else None
        reads = [self._known.get(read) for read in tensor_arguments(node)]
        given = argument(node, 0, "input")
        first = self._known.get(given) if isinstance(given, fx.Node) else next(iter(reads), None)
        if node.op == "call_module":
            return self._module(self._graph_module.get_submodule(str(node.target)), node, first)
        if node.op == "output" or first is None:
            return None
        return self._function(node, first, reads)

    def _module(self, module: nn.Module, node: fx.Node, first: int | None) -> int | None:
        kind = kind_of(module)
        if kind in _CONV_RANKS:
            return self._convolution(_CONV_RANKS[kind], first)
        if kind is LayerKind.LINEAR or type(module) in _SAME_RANK_MODULES:
            return first
        norm = fixed_norm(self._graph_module, node)
        if norm is not None:
            return 4 if norm.images else first
        if type(module) is nn.Flatten:
            return self._flattened(first, module.start_dim, module.end_dim)
        return None

    @staticmethod
    def _convolution(rank: int, first: int | None) -> int | None:
        """That of a convolution of batches. The network's input is a batch; what else is read is to be known."""
        return rank if first in (rank, _INPUT) else None

    @staticmethod
    def _flattened(first: int | None, start: Any, end: Any) -> int | None:
        if end == -1 and isinstance(start, int) and start >= 0:
            return start + 1  # torch refuses to flatten from a dimension that is not there
        return None

    def _function(self, node: fx.Node, first: int, reads: list[int | None]) -> int | None:
        name = str(node.target if node.op == "call_method" else getattr(node.target, "__name__", "")).rstrip("_")
        if node.op == "call_function" and node.target in _CONV_FUNCTIONS:
            return self._convolution(_CONV_FUNCTIONS[node.target], first)
        if name == "linear" or name == "batch_norm" or name in _SAME_RANK:
            return first
        if name in _ELEMENTWISE:
            return first if len(set(reads)) == 1 else None
        if name == "flatten":
            return self._flattened(first, argument(node, 1, "start_dim", 0), argument(node, 2, "end_dim", -1))
        if name in ("view", "reshape") and not node.kwargs:
            sizes = node.args[1] if len(node.args) == 2 and isinstance(node.args[1], (tuple, list)) else node.args[1:]
            # one argument that is computed may be a whole shape
            return len(sizes) if len(sizes) > 1 or (sizes and isinstance(sizes[0], int)) else None
        if name in ("mean", "amax", "sum") and first > 0:
            dims = argument(node, 1, "dim")
            many = [dims] if isinstance(dims, int) else dims
            if isinstance(many, (tuple, list)) and all(isinstance(d, int) for d in many):
                return first if argument(node, 2, "keepdim", False) is True else first - len(many)
        return None
