"""Elementary functions between crossbars, made independent of batch size and thread count.

torch computes ``exp`` and its relatives by vector instructions for most of a tensor and one by one for the rest; the
two differ in the last bit, and where the rest begins depends on the batch and on the threads. Evaluated in float64 and
rounded to float32 once, the difference is gone (but for a rounding tie in about one of 2^29 values). Operations that
IEEE arithmetic rounds exactly (ReLU, sums, products, pooling) need no such care.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import fx, nn

from bitline.network.aliases import disturbing

__all__ = ["evaluate_in_float64", "narrow", "widen"]

_MODULES = (
    nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Tanhshrink, nn.SiLU, nn.GELU, nn.Mish, nn.Softplus, nn.ELU, nn.SELU, nn.CELU,
    nn.Softmax, nn.Softmax2d, nn.Softmin, nn.LogSoftmax, nn.GLU,
)  # fmt: skip
_FUNCTIONS = {
    F.sigmoid, F.logsigmoid, F.tanh, F.tanhshrink, F.silu, F.gelu, F.mish, F.softplus, F.elu, F.selu, F.celu, F.softmax,
    F.softmin, F.log_softmax, F.glu, torch.sigmoid, torch.tanh, torch.softmax, torch.log_softmax, torch.exp, torch.exp2,
    torch.expm1, torch.log, torch.log1p, torch.log2, torch.log10, torch.sin, torch.cos, torch.erf, torch.rsqrt,
}  # fmt: skip
_METHODS = {
    "sigmoid", "tanh", "softmax", "log_softmax", "exp", "expm1", "log", "log1p", "log2", "log10", "exp2", "sin", "cos",
    "erf", "rsqrt", "sigmoid_", "tanh_", "exp_", "log_",
}  # fmt: skip


def widen(x: torch.Tensor) -> torch.Tensor:
    """Real numbers as a float64 tensor of their own; all else, complex numbers too, as it is."""
    return x.to(torch.float64, copy=True) if x.dtype in (torch.float32, torch.float64) else x


def narrow(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Undo :func:`widen` for what was computed of numbers of type ``dtype``."""
    return x.float() if dtype is torch.float32 and x.dtype is torch.float64 else x


def evaluate_in_float64(graph_module: fx.GraphModule) -> None:
    """Evaluate every elementary function of float32 numbers in float64 and round it to float32 once, in place.

    A function that overwrites what others look at still does: its result is copied there.
    """
    graph = graph_module.graph
    seen = disturbing(graph_module)
    for node in list(graph.nodes):
        if not node.args or not isinstance(node.args[0], fx.Node) or "dtype" in node.kwargs or "out" in node.kwargs:
            continue
        elementary = (
            (node.op == "call_module" and isinstance(graph_module.get_submodule(str(node.target)), _MODULES))
            or (node.op == "call_function" and node.target in _FUNCTIONS)
            or (node.op == "call_method" and node.target in _METHODS)
        )
        if not elementary:
            continue
        read = node.args[0]
        with graph.inserting_before(node):
            dtype = graph.call_function(getattr, (read, "dtype"))
            wide = graph.call_function(widen, (read,))
        node.args = (wide, *node.args[1:])
        with graph.inserting_after(node):
            result = graph.call_function(narrow, (node, dtype))
        if node in seen:
            with graph.inserting_after(result):
                result = graph.call_method("copy_", (read, result))
        node.replace_all_uses_with(result, delete_user_cb=lambda user: user.target is not narrow)
