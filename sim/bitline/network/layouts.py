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
from bitline.network.aliases import disturbing, is_size
from bitline.network.crossbar_modules import CrossbarModule

__all__ = ["keep_channels_last"]

_MODULES = (CrossbarModule, nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.LeakyReLU, nn.Identity, nn.Dropout, nn.MaxPool2d)
_FUNCTIONS = {
    operator.add, operator.iadd, operator.sub, operator.mul, operator.getitem, torch.add, torch.sub, torch.mul,
    torch.cat, torch.relu, torch.relu_, F.relu, F.relu_, F.relu6, F.hardtanh, F.leaky_relu, F.max_pool2d,
}  # fmt: skip
_METHODS = {"add", "add_", "relu", "relu_"}


def keep_channels_last(graph_module: fx.GraphModule) -> None:
    """Let convolutions on crossbars write channels last, and undo it before whatever is not known to be indifferent."""
    graph = graph_module.graph
    if disturbing(graph_module):  # a copy would hide what is overwritten from those who look at it
        return
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
        elif read and not is_size(node):
            readers.append((node, read))
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
