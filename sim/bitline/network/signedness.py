"""Which activations can be negative: decided on the graph alone, without data, so that a certificate knows it too."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from bitline.network.aliases import disturbing, is_size, overwritten, shared_memory
from bitline.network.graph import argument, attribute, tensor_arguments

__all__ = ["non_negative_nodes"]

# The result is never negative, whatever comes in.
_CLIPS = {nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Softmax, nn.Softmax2d, nn.Softmin, nn.Softplus}
_CLIP_FUNCTIONS = {
    F.relu, F.relu_, F.relu6, F.sigmoid, F.hardsigmoid, F.softmax, F.softmin, F.softplus,
    torch.relu, torch.relu_, torch.sigmoid, torch.softmax, torch.abs, torch.square, torch.exp, abs,
}  # fmt: skip
_CLIP_METHODS = {
    "relu", "relu_", "sigmoid", "sigmoid_", "softmax", "abs", "abs_", "absolute", "square", "square_", "exp", "exp_"
}  # fmt: skip

# The result is not negative where every tensor that comes in is not.
_KEEPS = {
    nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.LPPool1d, nn.LPPool2d, nn.FractionalMaxPool2d,
    nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle,
    nn.ZeroPad1d, nn.ZeroPad2d, nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d,
    nn.CircularPad1d, nn.CircularPad2d, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d,
    nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Tanh, nn.Softsign,
}  # fmt: skip
_KEEP_FUNCTIONS = {
    F.max_pool1d, F.max_pool2d, torch.max_pool1d, torch.max_pool2d, F.avg_pool1d, F.avg_pool2d, F.adaptive_avg_pool1d,
    F.adaptive_avg_pool2d, F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.pixel_shuffle, F.channel_shuffle,
    F.leaky_relu, F.elu, F.celu, F.selu, F.gelu, F.silu, F.mish, F.hardswish, F.tanh, torch.tanh, F.softsign,
    torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.permute, torch.transpose, torch.t,
    torch.cat, torch.concat, torch.stack, torch.add, torch.mul, torch.multiply, torch.sum, torch.mean, torch.amax,
    torch.maximum, torch.minimum, torch.sqrt, torch.split, torch.chunk, torch.roll, torch.flip,
    operator.add, operator.mul, operator.iadd, operator.imul, operator.getitem,
}  # fmt: skip
_KEEP_METHODS = {
    "view", "reshape", "flatten", "contiguous", "squeeze", "unsqueeze", "permute", "transpose", "t", "expand",
    "expand_as", "repeat", "view_as", "reshape_as", "clone", "detach", "float", "double", "half", "to", "add", "add_",
    "mul", "mul_", "mean", "sum", "amax", "sqrt", "split", "chunk", "tanh", "tanh_", "roll", "flip",
}  # fmt: skip


def non_negative_nodes(graph_module: fx.GraphModule) -> set[fx.Node]:
    """Find the nodes whose values are provably never negative.

    The network's input, matrix layers and everything not listed above count as signed. NaN is not considered: it is
    refused when the network runs.

    Parameters
    ----------
    graph_module : GraphModule
        A traced network.

    Returns
    -------
    set of Node
    """
    found: set[fx.Node] = set()
    seen, roots = disturbing(graph_module), shared_memory(graph_module)
    for node in graph_module.graph.nodes:
        if _non_negative(graph_module, node, found):
            found.add(node)
        elif node in seen:
            # a value shown to be non-negative may be overwritten by one that is not, perhaps through a view
            memory = frozenset().union(*(roots[written] for written in overwritten(graph_module, node)))
            if any(roots[value] & memory for value in found):
                return set()
    return found


def _at_least_zero(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


def _non_negative(graph_module: fx.GraphModule, node: fx.Node, found: set[fx.Node]) -> bool:
    if node.op == "get_attr":
        value = attribute(graph_module, str(node.target))
        return isinstance(value, torch.Tensor) and not value.is_complex() and bool((value >= 0).all())
    if node.op == "call_module":
        return _module(graph_module.get_submodule(str(node.target)), node, found)
    if node.op == "call_function":
        return _call(node.target, _CLIP_FUNCTIONS, _KEEP_FUNCTIONS, node, found)
    if node.op == "call_method":
        return _call(node.target, _CLIP_METHODS, _KEEP_METHODS, node, found)
    return False


def _inputs_non_negative(node: fx.Node, found: set[fx.Node]) -> bool:
    """Whether everything that is read is non-negative: nodes, and for sums and products numbers too."""
    reads = [read for read in tensor_arguments(node) if not is_size(read)]
    return bool(reads) and all(read in found for read in reads)


def _module(module: nn.Module, node: fx.Node, found: set[fx.Node]) -> bool:
    kind = type(module)
    if kind in _CLIPS:
        return True
    inputs = _inputs_non_negative(node, found)
    if isinstance(module, (nn.Hardtanh,)):  # ReLU6 is one
        return module.min_val >= 0 or (inputs and module.max_val >= 0)
    if isinstance(module, nn.Threshold):
        return module.threshold >= 0 and module.value >= 0
    if isinstance(module, (nn.ConstantPad1d, nn.ConstantPad2d)) and kind not in _KEEPS:
        return inputs and module.value >= 0
    if isinstance(module, nn.PReLU):
        return inputs
    if isinstance(module, nn.Upsample):
        return inputs and module.mode != "bicubic"
    if kind is nn.LeakyReLU:
        return inputs
    return kind in _KEEPS and inputs


def _call(target: Any, clips: set[Any], keeps: set[Any], node: fx.Node, found: set[fx.Node]) -> bool:
    if target in clips:
        return True
    inputs = _inputs_non_negative(node, found)
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    if name in ("clamp", "clamp_", "clip", "clip_", "hardtanh", "hardtanh_"):
        low_name, high_name = ("min_val", "max_val") if name.startswith("hardtanh") else ("min", "max")
        default = (-1.0, 1.0) if name.startswith("hardtanh") else (None, None)
        low = argument(node, 1, low_name, default[0])
        high = argument(node, 2, high_name, default[1])
        # min is applied first and then max: a negative max makes everything negative
        return (high is None or _at_least_zero(high)) and (_at_least_zero(low) or inputs)
    if name in ("clamp_min", "clamp_min_"):
        return inputs or _at_least_zero(argument(node, 1, "min"))
    if name in ("pow", "pow_"):
        power = argument(node, 1, "exponent")
        return inputs or (isinstance(power, int) and power % 2 == 0)
    if name in ("pad",) or target is F.pad:
        value = argument(node, 3, "value")
        return inputs and (value is None or _at_least_zero(value))
    if name in ("interpolate", "upsample"):
        return inputs and argument(node, 3, "mode", "nearest") != "bicubic"
    if name in ("div", "div_", "truediv", "true_divide", "itruediv"):
        divisor = argument(node, 1, "other")
        return inputs and (isinstance(divisor, fx.Node) or _at_least_zero(divisor))
    if name in ("add", "add_", "iadd", "mul", "mul_", "imul", "multiply"):
        numbers = [value for value in (*node.args, *node.kwargs.values()) if not isinstance(value, fx.Node)]
        if not all(_at_least_zero(number) for number in numbers):
            return False
        # x * x is a square
        square = len(node.args) == 2 and node.args[0] is node.args[1] and name in ("mul", "imul", "multiply", "mul_")
        return inputs or square
    if target in ("max", "min") or target in (torch.max, torch.min):
        return inputs
    return target in keeps and inputs
