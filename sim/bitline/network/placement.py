"""What goes onto crossbars: the matrix layers of a traced graph, their call sites, and what stays in torch."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bitline.errors import CheckpointError, ConversionError
from bitline.layers import LayerKind, Window
from bitline.network.folding import as_float64, fold_batch_norm
from bitline.network.graph import argument, constant, fixed_batch_norm, kind_of, tensor_arguments
from bitline.network.recurrent import Recurrence
from bitline.network.signedness import non_negative_nodes

__all__ = ["FloatMatrix", "Kept", "Placement", "Site", "place"]


@dataclass(frozen=True)
class Kept:
    """A part of the network that holds or multiplies weights and stays in torch."""

    name: str
    kind: str
    reason: str


@dataclass(frozen=True, eq=False)
class Site:
    """One place in the graph where a matrix layer is called; a layer that is shared has several."""

    name: str
    """The layer's name, from the second call on with ``#2``, ``#3`` ..."""
    node: fx.Node
    batch_norm: fx.Node | None
    """The batch norm that is folded into the layer, to be skipped at this place."""
    signed: bool
    """Whether the input may be negative here."""


@dataclass(frozen=True, eq=False)
class FloatMatrix:
    """A matrix layer before quantisation, batch norm folded in, in float64."""

    name: str
    kind: LayerKind
    weight: NDArray[np.float64]
    """[shape=(groups, rows, columns)] rows in order channel, kernel row, kernel column."""
    bias: NDArray[np.float64] | None
    """[shape=(groups, columns)]"""
    window: Window
    padding_mode: str
    """``zeros``, or the mode of :func:`torch.nn.functional.pad`."""
    sites: tuple[Site, ...]

    @property
    def signed_inputs(self) -> bool:
        """One array of crossbars serves all calls: it takes signed codes where any of them may be negative."""
        return any(site.signed for site in self.sites)


@dataclass(frozen=True, eq=False)
class Placement:
    """A traced network with its matrix layers found."""

    graph_module: fx.GraphModule
    matrices: tuple[FloatMatrix, ...]
    kept: tuple[Kept, ...]

    def sites(self) -> Iterator[tuple[int, FloatMatrix, Site]]:
        """Every call of every matrix layer, with the layer's index."""
        for index, matrix in enumerate(self.matrices):
            for site in matrix.sites:
                yield index, matrix, site


@dataclass
class _Found:
    """A matrix layer as it stands in the graph, before folding."""

    name: str
    kind: LayerKind
    weight: torch.Tensor
    bias: torch.Tensor | None
    groups: int
    window: Window
    padding_mode: str
    nodes: list[fx.Node] = field(default_factory=list)


class _Unplaceable(Exception):
    """Why a node stays in torch."""


def place(graph_module: fx.GraphModule, *, values: bool = True) -> Placement:
    """Find the matrix layers of a traced network, fold batch norm into them and list what stays in torch.

    Parameters
    ----------
    graph_module : GraphModule
        From :func:`bitline.network.graph.trace`; not changed.
    values : bool
        False where shapes are all that is wanted: weights and biases are zeros that take no memory.

    Raises
    ------
    CheckpointError
        NaN or infinite weights, naming the layer.
    """
    found: dict[str, _Found] = {}
    kept: dict[str, Kept] = {}
    from_input: set[fx.Node] = set()
    for node in graph_module.graph.nodes:
        if node.op != "placeholder" and not any(read in from_input for read in tensor_arguments(node)):
            continue  # arithmetic on parameters alone
        from_input.add(node)
        try:
            _find(graph_module, node, found)
        except _Unplaceable as reason:
            name = str(node.target) if node.op == "call_module" else _functional_name(node)
            kept.setdefault(name, Kept(name, _kind_name(graph_module, node), str(reason)))
    non_negative = non_negative_nodes(graph_module)
    matrices = []
    folded: set[fx.Node] = set()
    for layer in found.values():
        norms = _foldable(graph_module, layer)
        folded.update(norm for norm in norms if norm is not None)
        matrices.append(_matrix(graph_module, layer, norms, non_negative, values))
    for node in graph_module.graph.nodes:
        if node not in folded:
            _keep_module(graph_module, node, found, kept, values)
    order = {node: i for i, node in enumerate(graph_module.graph.nodes)}
    matrices.sort(key=lambda matrix: order[matrix.sites[0].node])
    return Placement(graph_module, tuple(matrices), tuple(kept.values()))


# --- finding matrix layers -------------------------------------------------------------------------------------------

_FUNCTIONS = {F.conv1d: LayerKind.CONV1D, F.conv2d: LayerKind.CONV2D, F.linear: LayerKind.LINEAR}
_DYNAMIC = {
    torch.matmul, torch.mm, torch.bmm, torch.einsum, torch.addmm, torch.baddbmm, operator.matmul, torch.mv,
    F.scaled_dot_product_attention, F.bilinear,
}  # fmt: skip
_DYNAMIC_METHODS = {"matmul", "mm", "bmm", "addmm", "baddbmm", "mv", "__matmul__"}
_OTHER_WEIGHTS = {
    F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d, F.embedding, F.batch_norm, F.layer_norm,
    F.group_norm, F.instance_norm,
}  # fmt: skip


def _find(graph_module: fx.GraphModule, node: fx.Node, found: dict[str, _Found]) -> None:
    if node.op == "call_module":
        name = str(node.target)
        module = graph_module.get_submodule(name)
        kind = kind_of(module)
        if kind is None:
            return
        if name not in found:
            found[name] = _from_module(name, kind, module)
        found[name].nodes.append(node)
    elif node.op == "call_function" and node.target in _FUNCTIONS:
        name = _unused_name(_functional_name(node), found)
        found[name] = _from_function(graph_module, name, _FUNCTIONS[node.target], node)
        found[name].nodes.append(node)
    elif (node.op == "call_function" and node.target in _DYNAMIC) or (
        node.op == "call_method" and node.target in _DYNAMIC_METHODS
    ):
        raise _Unplaceable("a matrix product outside a linear layer or convolution")
    elif node.op == "call_function" and node.target in _OTHER_WEIGHTS:
        raise _Unplaceable("no crossbar mapping for this operation")


def _functional_name(node: fx.Node) -> str:
    """Name of a layer that is a function call: its weight's, its module's, or its own."""
    weight = argument(node, 1, "weight")
    if node.target in _FUNCTIONS and isinstance(weight, fx.Node) and weight.op == "get_attr":
        name = str(weight.target).removesuffix("weight").rstrip("._")
        if name:
            return name
    return str(node.meta.get("path") or node.name)


def _unused_name(name: str, found: dict[str, _Found]) -> str:
    number = 2
    unique = name
    while unique in found:
        unique = f"{name}#{number}"
        number += 1
    return unique


def _pair(value: Any, dimensions: int) -> tuple[int, int]:
    values = [value] * dimensions if isinstance(value, int) else list(value)
    if len(values) == 1 and dimensions == 2:
        values *= 2
    if not all(isinstance(v, int) for v in values) or len(values) != dimensions:
        raise _Unplaceable("stride, padding or dilation depends on the input")
    return (1, values[0]) if dimensions == 1 else (values[0], values[1])


def _window(dimensions: int, kernel: tuple[int, ...], stride: Any, padding: Any, dilation: Any) -> Window:
    size = (1, kernel[0]) if dimensions == 1 else (kernel[0], kernel[1])
    steps = _pair(dilation, dimensions)
    if padding == "valid":
        padding = 0
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(steps, size, strict=True)]
        before = [t // 2 for t in total]  # torch puts the odd one after
        sides = (before[1], total[1] - before[1], before[0], total[0] - before[0])
    elif isinstance(padding, str):
        raise _Unplaceable(f"padding {padding!r}")
    else:
        if dimensions == 1:
            high, wide = 0, _pair(padding, 1)[1]
        else:
            high, wide = _pair(padding, 2)
        sides = (wide, wide, high, high)
    return Window(kernel=size, stride=_pair(stride, dimensions), padding=sides, dilation=steps)


def _from_module(name: str, kind: LayerKind, module: nn.Module) -> _Found:
    weight, bias = module.weight, module.bias
    assert isinstance(weight, torch.Tensor)
    assert bias is None or isinstance(bias, torch.Tensor)
    if weight.is_complex():
        raise _Unplaceable("complex weights")
    if isinstance(module, (nn.Linear, Recurrence)):
        return _Found(name, kind, weight, bias, 1, Window(), "zeros")
    assert isinstance(module, (nn.Conv1d, nn.Conv2d))
    dimensions = 1 if kind is LayerKind.CONV1D else 2
    window = _window(dimensions, module.kernel_size, module.stride, module.padding, module.dilation)
    mode = module.padding_mode
    return _Found(name, kind, weight, bias, module.groups, window, mode)


def _from_function(graph_module: fx.GraphModule, name: str, kind: LayerKind, node: fx.Node) -> _Found:
    try:
        weight = constant(graph_module, argument(node, 1, "weight"))
        bias = constant(graph_module, argument(node, 2, "bias"))
        stride = constant(graph_module, argument(node, 3, "stride", 1))
        padding = constant(graph_module, argument(node, 4, "padding", 0))
        dilation = constant(graph_module, argument(node, 5, "dilation", 1))
        groups = constant(graph_module, argument(node, 6, "groups", 1))
    except LookupError as error:
        raise _Unplaceable(f"weights or geometry are computed from the input ({error.args[0]})") from None
    if not isinstance(weight, torch.Tensor) or weight.is_complex():
        raise _Unplaceable("weights are not real numbers of the network")
    if kind is LayerKind.LINEAR:
        if weight.dim() != 2:
            raise _Unplaceable("a linear product with a vector")
        return _Found(name, kind, weight, bias, 1, Window(), "zeros")
    dimensions = 1 if kind is LayerKind.CONV1D else 2
    window = _window(dimensions, tuple(weight.shape[2:]), stride, padding, dilation)
    return _Found(name, kind, weight, bias, groups, window, "zeros")


# --- batch norm ------------------------------------------------------------------------------------------------------


def _norm_after(graph_module: fx.GraphModule, node: fx.Node, outputs: int) -> fx.Node | None:
    """The batch norm that alone reads this node, if there is one."""
    if len(node.users) != 1:
        return None
    (user,) = node.users
    if user.op != "call_module" or len(user.args) != 1 or user.args[0] is not node:
        return None
    norm = fixed_batch_norm(graph_module.get_submodule(str(user.target)))
    return user if norm is not None and norm.num_features == outputs else None


def _foldable(graph_module: fx.GraphModule, layer: _Found) -> list[fx.Node | None]:
    """The batch norm to fold at each call of a layer: the same one at all of them, or none."""
    norms = [_norm_after(graph_module, node, layer.weight.shape[0]) for node in layer.nodes]
    if len({None if norm is None else norm.target for norm in norms}) == 1:
        return norms
    return [None] * len(norms)


def _batch_norm(graph_module: fx.GraphModule, node: fx.Node) -> _BatchNorm:
    norm = fixed_batch_norm(graph_module.get_submodule(str(node.target)))
    assert norm is not None
    return norm


def _check_finite(layer: str, what: str, values: NDArray[np.float64] | None) -> None:
    if values is not None and not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise CheckpointError(f"layer {layer}: {what} has {count} NaN or infinite values, expected finite numbers")


def _float_weights(
    graph_module: fx.GraphModule, layer: _Found, norm: fx.Node | None
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Weights (outputs, ...) and bias (outputs,) with the batch norm folded in, checked to be finite."""
    weight = as_float64(layer.weight)
    bias = None if layer.bias is None else as_float64(layer.bias)
    _check_finite(layer.name, "weight", weight)
    _check_finite(layer.name, "bias", bias)
    if norm is not None:
        weight, bias = fold_batch_norm(weight, bias, _batch_norm(graph_module, norm))
        _check_finite(layer.name, f"weight with batch norm {norm.target} folded in", weight)
        _check_finite(layer.name, f"bias with batch norm {norm.target} folded in", bias)
    return weight, bias


def _matrix(
    graph_module: fx.GraphModule,
    layer: _Found,
    norms: list[fx.Node | None],
    non_negative: set[fx.Node],
    values: bool,
) -> FloatMatrix:
    shape = tuple(layer.weight.shape)
    if 0 in shape:
        raise ConversionError(f"layer {layer.name}: has no weights (shape {shape})")
    bias: NDArray[np.float64] | None
    if values:
        weight, bias = _float_weights(graph_module, layer, norms[0])
    else:
        zero = np.zeros((), np.float64)
        has_bias = layer.bias is not None or norms[0] is not None
        weight, bias = np.broadcast_to(zero, shape), np.broadcast_to(zero, shape[:1]) if has_bias else None
    sites = []
    for number, (node, norm) in enumerate(zip(layer.nodes, norms, strict=True), start=1):
        name = layer.name if number == 1 else f"{layer.name}#{number}"
        read = argument(node, 0, "input")
        sites.append(Site(name, node, norm, read not in non_negative))
    return FloatMatrix(
        name=layer.name,
        kind=layer.kind,
        # (outputs, channels, kernel row, kernel column) -> (groups, rows, columns), a view
        weight=weight.reshape(layer.groups, shape[0] // layer.groups, -1).transpose(0, 2, 1),
        bias=None if bias is None else bias.reshape(layer.groups, -1),
        window=layer.window,
        padding_mode=layer.padding_mode,
        sites=tuple(sites),
    )


# --- what stays ------------------------------------------------------------------------------------------------------


def _kind_name(graph_module: fx.GraphModule, node: fx.Node) -> str:
    if node.op == "call_module":
        return type(graph_module.get_submodule(str(node.target))).__name__
    return str(getattr(node.target, "__name__", node.target))


def _reason(graph_module: fx.GraphModule, node: fx.Node, module: nn.Module) -> str:
    if isinstance(module, (_BatchNorm, nn.SyncBatchNorm)):
        if module.running_var is None:
            return "batch norm without running statistics depends on the batch"
        return "batch norm that no matrix layer feeds alone; kept as a digital scale and shift"
    if isinstance(module, nn.RNNBase):
        return "recurrent layer other than an LSTM or GRU without projection (proj_size)"
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        return "transposed convolution has no crossbar mapping here"
    if isinstance(module, nn.Conv3d):
        return "three-dimensional convolution has no crossbar mapping here"
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return "table look-up, not a matrix product"
    if isinstance(module, nn.MultiheadAttention):
        return "attention multiplies activations with each other"
    return "no crossbar mapping for this module"


def _keep_module(
    graph_module: fx.GraphModule, node: fx.Node, found: dict[str, _Found], kept: dict[str, Kept], check: bool
) -> None:
    """List a called module that has weights and was neither placed nor folded; check that they are finite."""
    if node.op != "call_module" or str(node.target) in found:
        return
    name = str(node.target)
    module = graph_module.get_submodule(name)
    tensors = [*module.named_parameters(), *module.named_buffers()]
    if not tensors and not isinstance(module, (_BatchNorm,)):
        return
    for what, values in tensors:
        if check and values.is_floating_point():
            _check_finite(name, what, as_float64(values))
    kept.setdefault(name, Kept(name, type(module).__name__, _reason(graph_module, node, module)))
