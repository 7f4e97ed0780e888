"""Where feature maps may lie with the channels innermost, as integer convolutions read and write them.

The values do not depend on the layout, but the order in which an average is summed does, and some operations refuse any
but torch's usual layout. So only operations that treat every element alike, or move or compare elements, see it.
"""

from __future__ import annotations

import operator

import torch
import torch.nn.functional as F
from torch import fx, nn

from bitline.layers import LayerKind
from bitline.network.crossbar_modules import CrossbarModule
from bitline.network.graph import is_inplace

__all__ = ["keep_channels_last"]

_MODULES = (CrossbarModule, nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.LeakyReLU, nn.Identity, nn.Dropout, nn.MaxPool2d)
_FUNCTIONS = {
    operator.add, operator.iadd, operator.sub, operator.mul, operator.getitem, torch.add, torch.sub, torch.mul,
    torch.cat, torch.relu, torch.relu_, F.relu, F.relu_, F.relu6, F.hardtanh, F.leaky_relu, F.max_pool2d,
}  # fmt: skip
_METHODS = {"add", "add_", "relu", "relu_"}
_SHAPES = {"size", "dim"}
_COPIES = {"mean", "sum", "softmax", "sigmoid", "tanh", "adaptive_avg_pool2d", "avg_pool2d", "interpolate", "pad"}
"""Operations by name whose result never shares memory with what they read."""


def keep_channels_last(graph_module: fx.GraphModule) -> None:
    """Let convolutions on crossbars write channels last, and undo it before whatever is not known to be indifferent."""
    graph = graph_module.graph
    marked: set[fx.Node] = set()
    readers = []
    for node in graph.nodes:
        read = [argument for argument in node.all_input_nodes if argument in marked]
        if _indifferent(graph_module, node):
            module = graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None
            if isinstance(module, CrossbarModule):
                if module.runner.layer.kind is LayerKind.CONV2D:
                    marked.add(node)
            elif read:
                marked.add(node)
        elif read and not _asks_shape(node):
            readers.append((node, read))
    # an operation that overwrites a view of a feature map must not find a copy of it
    if any(is_inplace(graph_module, node) or _overwritten(graph_module, node) for node, _ in readers):
        return
    # and a view must not be a copy of what is overwritten after it was taken
    order = {node: place for place, node in enumerate(graph.nodes)}
    overwritten = {
        _base(graph_module, node): order[node] for node in order if node in marked and is_inplace(graph_module, node)
    }
    views = [(node, read) for node, read in readers if not _copies(graph_module, node)]
    bases = [(_base(graph_module, argument), order[node]) for node, read in views for argument in read]
    if any(overwritten.get(base, -1) > place for base, place in bases):
        return
    for node, read in readers:
        for argument in read:
            with graph.inserting_before(node):  # and not before something that overwrites the feature map in place
                usual = graph.call_method("contiguous", (argument,))
            node.replace_input_with(argument, usual)
    for node in marked:
        module = graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, CrossbarModule):
            module.channels_last = True


def _indifferent(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return type(graph_module.get_submodule(str(node.target))) in _MODULES
    if node.op == "call_function":
        return node.target in _FUNCTIONS
    return node.op == "call_method" and node.target in _METHODS


def _asks_shape(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in _SHAPES
    return node.op == "call_function" and node.target is getattr and node.args[1] in ("shape", "ndim")


def _overwritten(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether an operation overwrites this one's result, which may be a view of what it read."""
    return any(is_inplace(graph_module, user) and user.args and user.args[0] is node for user in node.users)


def _base(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The operation whose memory this result may share."""
    while node.args and isinstance(node.args[0], fx.Node) and _shares_memory(graph_module, node):
        node = node.args[0]
    return node


def _shares_memory(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        module = graph_module.get_submodule(str(node.target))
        return isinstance(module, (nn.Identity, nn.Dropout)) or is_inplace(graph_module, node)
    return node.target is operator.getitem or is_inplace(graph_module, node)


def _copies(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return not isinstance(graph_module.get_submodule(str(node.target)), (nn.Flatten, nn.Unflatten))
    return (node.target if node.op == "call_method" else getattr(node.target, "__name__", "")) in _COPIES
