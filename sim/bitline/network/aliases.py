"""Which operations of a graph overwrite what they read, and whose memory a result may share.

A traced graph keeps torch's own order, so in-place operations mean what they mean in torch. Passes that put a copy
between two operations must know where somebody else looks at the memory that is overwritten.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx.node import map_arg

__all__ = ["bound", "disturbing", "follow_overwritten", "is_inplace", "is_size", "overwritten", "shared_memory"]

_INPLACE_OPERATORS = {
    operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ifloordiv, operator.imod, operator.ipow,
    operator.iand, operator.ior, operator.ixor, operator.ilshift, operator.irshift, operator.imatmul, operator.setitem,
    operator.iconcat, operator.delitem,
}  # fmt: skip
_INPLACE_METHODS = {f"__{function.__name__}__" for function in _INPLACE_OPERATORS}

_NEW_FUNCTIONS = {
    "add", "sub", "mul", "truediv", "true_divide", "div", "floordiv", "neg", "pow", "abs", "sqrt", "rsqrt", "exp",
    "log", "matmul", "mm", "bmm", "cat", "concat", "stack", "mean", "sum", "softmax", "log_softmax", "clone", "maximum",
    "minimum", "conv1d", "conv2d", "conv3d", "linear", "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "mish",
    "sigmoid", "tanh", "hardtanh", "hardswish", "hardsigmoid", "softplus", "batch_norm", "layer_norm", "group_norm",
    "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "max_pool1d", "max_pool2d",
}  # fmt: skip
"""Functions of torch, torch.nn.functional and operator whose result is always memory of its own, by name."""
_NEW_METHODS = (_NEW_FUNCTIONS - {"linear", "conv1d", "conv2d", "conv3d"}) | {"size", "dim", "numel"}
_NEW_MODULES = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm,
    nn.GroupNorm, nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh,
    nn.Hardswish, nn.Hardsigmoid, nn.Softmax, nn.Softplus, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.Embedding,
)  # fmt: skip


@lru_cache(maxsize=1024)
def _parameters(function: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # most of torch's own functions are written in C++
        return None


def bound(node: fx.Node, name: str, default: Any = None) -> Any:
    """Argument ``name`` of a call of a Python function, however it was given: by name, by position or not at all."""
    if name in node.kwargs:
        return node.kwargs[name]
    signature = _parameters(node.target) if node.op == "call_function" else None
    if signature is None or name not in signature.parameters:
        return default
    try:
        given = signature.bind_partial(*node.args, **node.kwargs)
    except TypeError:
        return default
    given.apply_defaults()
    return given.arguments.get(name, default)


def is_inplace(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node overwrites what it reads, so that it matters even when its result is not used."""
    if node.op == "call_module":
        return bool(getattr(graph_module.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        name = str(node.target)
        return name in _INPLACE_METHODS or (name.endswith("_") and not name.endswith("__"))
    if node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        ends = name.endswith("_") and not name.endswith("__")
        return node.target in _INPLACE_OPERATORS or ends or "out" in node.kwargs or bound(node, "inplace") is True
    return False


def is_size(node: fx.Node) -> bool:
    """Whether a node is a plain number, a shape, a type or arithmetic on them: nothing that can be overwritten."""
    if node.op == "call_method" and node.target in ("size", "dim", "numel", "stride", "item", "tolist"):
        return True
    if node.op == "call_function" and node.target is getattr:
        return len(node.args) > 1 and node.args[1] in ("shape", "ndim", "dtype", "device")
    if node.op == "call_function" and node.target is len:
        return True
    reads = list(_reads(node))
    return node.op == "call_function" and bool(reads) and all(is_size(read) for read in reads)


def _reads(value: Any) -> Iterator[fx.Node]:
    found: list[fx.Node] = []
    map_arg((value.args, value.kwargs) if isinstance(value, fx.Node) else value, found.append)
    return iter(found)


def _is_new(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a result surely lies in memory of its own."""
    if node.op == "call_module":
        module = graph_module.get_submodule(str(node.target))
        return isinstance(module, _NEW_MODULES) or getattr(module, "makes_new_tensors", False)
    if node.op == "call_method":
        return node.target in _NEW_METHODS
    return node.op == "call_function" and getattr(node.target, "__name__", "") in _NEW_FUNCTIONS and _is_torchs(node)


def overwritten(graph_module: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """What a node overwrites: its first argument, or what was given as ``out``; nothing where it is not in place."""
    if not is_inplace(graph_module, node):
        return []
    if node.kwargs.get("out") is not None:
        return list(_reads(node.kwargs["out"]))
    return [read for read in list(_reads(node))[:1] if not is_size(read)]


def follow_overwritten(graph_module: fx.GraphModule) -> None:
    """Let what reads a tensor after torch overwrote it read the result of that operation, which is the same tensor."""
    order = {node: place for place, node in enumerate(graph_module.graph.nodes)}
    for node, place in order.items():
        written = overwritten(graph_module, node)
        if len(written) == 1 and _returns_overwritten(graph_module, node):
            for user in list(written[0].users):
                if order[user] > place:
                    user.replace_input_with(written[0], node)


def _returns_overwritten(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return type(graph_module.get_submodule(str(node.target))).__module__.startswith("torch.nn.")
    if node.op == "call_method":
        return not str(node.target).startswith("__")
    return node.target not in (operator.setitem, operator.delitem, operator.iconcat) and _is_torchs(node)


def _is_torchs(node: fx.Node) -> bool:
    """Whether a call is of a function of torch, torch.nn.functional or operator."""
    name = getattr(node.target, "__name__", "")
    return bool(name) and any(getattr(home, name, None) is node.target for home in (torch, F, operator))


def shared_memory(graph_module: fx.GraphModule) -> dict[fx.Node, frozenset[fx.Node]]:
    """For every node the nodes in whose memory its result may lie; what is not known to be new may be a view."""
    roots: dict[fx.Node, frozenset[fx.Node]] = {}
    for node in graph_module.graph.nodes:
        written = overwritten(graph_module, node)
        if written:
            roots[node] = frozenset().union(*(roots[read] for read in written))
        elif is_size(node):
            roots[node] = frozenset()
        elif node.op in ("placeholder", "get_attr") or _is_new(graph_module, node):
            roots[node] = frozenset((node,))
        else:
            roots[node] = frozenset((node,)).union(*(roots[read] for read in _reads(node)))
    return roots


def disturbing(graph_module: fx.GraphModule) -> set[fx.Node]:
    """In-place operations whose effect somebody sees other than through their result.

    Somebody reads, later on, a value from before the operation that may lie in the memory it overwrites. All others
    could as well write to new memory.
    """
    roots = shared_memory(graph_module)
    order = {node: place for place, node in enumerate(graph_module.graph.nodes)}
    last: dict[fx.Node, list[tuple[int, int]]] = {}
    """By root: (where a value in its memory was made, where it is last read)."""
    for node, place in order.items():
        final = max((order[user] for user in node.users), default=-1)
        for root in roots[node]:
            last.setdefault(root, []).append((place, final))
    found = set()
    for node, place in order.items():
        for written in overwritten(graph_module, node):
            values = [value for root in roots[written] for value in last[root]]
            if any(made < place < read for made, read in values):
                found.add(node)
    return found
