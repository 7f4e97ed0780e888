"""What goes onto crossbars: the matrix layers of a traced graph, their call sites, and what stays in torch."""

from __future__ import annotations

import math
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
from bitline.layers import Coverage, LayerKind, Window
from bitline.network.folding import as_float64, fold_batch_norm
from bitline.network.graph import argument, attribute, constant, kind_of, tensor_arguments
from bitline.network.norms import UNKNOWN_AXIS, FixedNorm, Ranks, fixed_norm
from bitline.network.recurrent import Recurrence
from bitline.network.shapes import Runs, run_shapes
from bitline.network.signedness import non_negative_nodes

__all__ = ["FloatMatrix", "Kept", "Placement", "Site", "place"]


@dataclass(frozen=True)
class Kept:
    """A part of the network that holds or multiplies weights, or multiplies activations, and stays in torch."""

    name: str
    kind: str
    reason: str
    macs: int | None = None
    """Multiply-accumulates of one image, all calls together; None where not known."""


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
    kept_nodes: frozenset[fx.Node]
    """What ``kept`` lists, call by call."""
    runs: Runs | None
    """A run of the network, where the shape of its inputs was given."""

    def vectors(self, matrix: FloatMatrix, site: Site) -> int | None:
        """Input vectors of a layer at one call for one image; None where that is not the same for every image."""
        assert self.runs is not None
        node = site.node
        if matrix.kind.multiplies_vectors:
            return self.runs.vectors(node, self.runs.shapes[node][-1])
        return self.runs.vectors(node, matrix.weight.shape[0] * matrix.weight.shape[2])

    def coverage(self) -> Coverage:
        """How much of the network's multiply-accumulates crossbars do."""
        placed = total = None
        if self.runs is not None:
            counts = [(self.vectors(matrix, site), matrix.weight.size) for _, matrix, site in self.sites()]
            if all(count is not None for count, _ in counts):
                placed = sum((count or 0) * size for count, size in counts)
            rest = [entry.macs for entry in self.kept]
            if placed is not None and None not in rest:
                total = placed + sum(macs or 0 for macs in rest)
        return Coverage(
            input_shape=None if self.runs is None else self.runs.input_shape,
            on_crossbars=placed,
            total=total,
            unfolded_norms=sum(entry.reason.startswith(BATCH_NORM) for entry in self.kept),
            elsewhere=tuple((entry.name, entry.kind, entry.macs) for entry in self.kept),
        )

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


def place(
    graph_module: fx.GraphModule, *, values: bool = True, input_shape: tuple[int, ...] | None = None
) -> Placement:
    """Find the matrix layers of a traced network, fold batch norm into them and list what stays in torch.

    Parameters
    ----------
    graph_module : GraphModule
        From :func:`bitline.network.graph.trace`; not changed.
    values : bool
        False where shapes are all that is wanted: weights and biases are zeros that take no memory.
    input_shape : tuple of int, optional
        Shape of one image, without the batch. It decides where batch norm acts (:mod:`bitline.network.norms`) and
        gives the multiply-accumulates of what is listed.

    Raises
    ------
    CheckpointError
        NaN or infinite weights, naming the layer.
    ConversionError
        The network does not run on images of ``input_shape``.
    """
    runs = None if input_shape is None else run_shapes(graph_module, input_shape)
    found: dict[str, _Found] = {}
    refused: dict[fx.Node, str] = {}
    from_input: set[fx.Node] = set()
    for node in graph_module.graph.nodes:
        if node.op != "placeholder" and not any(read in from_input for read in tensor_arguments(node)):
            continue  # arithmetic on parameters alone
        from_input.add(node)
        try:
            _find(graph_module, node, found)
        except _Unplaceable as reason:
            refused[node] = str(reason)
    non_negative = non_negative_nodes(graph_module)
    ranks = Ranks(graph_module, runs)
    matrices = []
    folded: set[fx.Node] = set()
    for layer in found.values():
        norms = _foldable(graph_module, layer, ranks)
        folded.update(norm for norm, _ in norms if norm is not None)
        matrices.append(_matrix(layer, norms, non_negative, values))
    placed = {node for layer in found.values() for node in layer.nodes}
    stays = _Stays(graph_module, from_input, refused, ranks, runs, check=values)
    for node in graph_module.graph.nodes:
        if node not in placed and node not in folded:
            stays.look_at(node)
    order = {node: i for i, node in enumerate(graph_module.graph.nodes)}
    matrices.sort(key=lambda matrix: order[matrix.sites[0].node])
    return Placement(graph_module, tuple(matrices), stays.kept(), frozenset(stays.nodes), runs)


# --- finding matrix layers -------------------------------------------------------------------------------------------

_FUNCTIONS = {F.conv1d: LayerKind.CONV1D, F.conv2d: LayerKind.CONV2D, F.linear: LayerKind.LINEAR}
_DYNAMIC = {
    torch.matmul, torch.mm, torch.bmm, torch.einsum, torch.addmm, torch.baddbmm, operator.matmul, torch.mv,
    F.scaled_dot_product_attention, F.bilinear,
}  # fmt: skip
_DYNAMIC_METHODS = {"matmul", "mm", "bmm", "addmm", "baddbmm", "mv", "__matmul__"}
_OTHER_WEIGHTS = {
    F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d, F.embedding, F.layer_norm, F.group_norm,
    F.instance_norm,
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

_Norm = tuple[fx.Node | None, FixedNorm | None]


def _norm_after(graph_module: fx.GraphModule, node: fx.Node, layer: _Found, ranks: Ranks) -> _Norm:
    """The batch norm that alone reads this node and acts on the layer's outputs, if there is one."""
    if len(node.users) == 1:
        (user,) = node.users
        norm = fixed_norm(graph_module, user)
        if norm is not None and argument(user, 0, "input") is node:
            sizes = {t.numel() for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias) if t is not None}
            if sizes == {layer.weight.shape[0]} and ranks.acts_on_outputs(node, layer.kind, norm):
                return user, norm
    return None, None


def _foldable(graph_module: fx.GraphModule, layer: _Found, ranks: Ranks) -> list[_Norm]:
    """The batch norm to fold at each call of a layer: the same one at all of them, or none."""
    norms = [_norm_after(graph_module, node, layer, ranks) for node in layer.nodes]
    if len({None if norm is None else norm.source for _, norm in norms}) == 1:
        return norms
    return [(None, None)] * len(norms)


def _check_finite(layer: str, what: str, values: NDArray[np.float64] | None) -> None:
    if values is not None and not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise CheckpointError(f"layer {layer}: {what} has {count} NaN or infinite values, expected finite numbers")


def _float_weights(layer: _Found, norm: FixedNorm | None) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Weights (outputs, ...) and bias (outputs,) with the batch norm folded in, checked to be finite."""
    weight = as_float64(layer.weight)
    bias = None if layer.bias is None else as_float64(layer.bias)
    _check_finite(layer.name, "weight", weight)
    _check_finite(layer.name, "bias", bias)
    if norm is not None:
        weight, bias = fold_batch_norm(weight, bias, norm)
        _check_finite(layer.name, f"weight with batch norm {norm.source} folded in", weight)
        _check_finite(layer.name, f"bias with batch norm {norm.source} folded in", bias)
    return weight, bias


def _matrix(
    layer: _Found,
    norms: list[_Norm],
    non_negative: set[fx.Node],
    values: bool,
) -> FloatMatrix:
    shape = tuple(layer.weight.shape)
    if 0 in shape:
        raise ConversionError(f"layer {layer.name}: has no weights (shape {shape})")
    bias: NDArray[np.float64] | None
    if values:
        weight, bias = _float_weights(layer, norms[0][1])
    else:
        zero = np.zeros((), np.float64)
        has_bias = layer.bias is not None or norms[0][0] is not None
        weight, bias = np.broadcast_to(zero, shape), np.broadcast_to(zero, shape[:1]) if has_bias else None
    sites = []
    for number, (node, (norm, _)) in enumerate(zip(layer.nodes, norms, strict=True), start=1):
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

BATCH_NORM = "batch norm"
"""How the reasons of batch norms that stay begin."""
_NOT_PRODUCTS = {
    "add", "sub", "rsub", "mul", "multiply", "div", "truediv", "floordiv", "mod", "pow", "iadd", "isub", "imul",
    "itruediv", "maximum", "minimum", "where", "clamp", "clip", "lerp", "addcmul", "addcdiv", "neg", "abs", "exp",
    "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "cat", "concat", "concatenate", "stack", "hstack", "vstack",
    "expand", "expand_as", "broadcast_to", "repeat", "repeat_interleave", "getitem", "setitem", "copy", "masked_fill",
    "masked_scatter", "index_select", "index_put", "index_add", "index_copy", "gather", "scatter", "scatter_add",
    "take", "take_along_dim", "embedding", "embedding_bag", "to", "type_as", "view_as", "reshape_as", "new_tensor",
    "prelu", "rms_norm", "dropout", "isclose", "logical_and", "logical_or", "bucketize", "searchsorted", "threshold",
}  # fmt: skip
"""Functions and methods that multiply weights element by element at most, as a digital unit does."""
_SCALES = {"mul", "multiply", "imul"}
_LOOKED_INTO = ("torch", "_operator", "operator", "builtins", "math", "bitline")


class _Stays:
    """Goes through the nodes that are neither placed nor folded and lists those that hold weights or multiply."""

    def __init__(
        self,
        graph_module: fx.GraphModule,
        from_input: set[fx.Node],
        refused: dict[fx.Node, str],
        ranks: Ranks,
        runs: Runs | None,
        *,
        check: bool,
    ) -> None:
        self._graph_module, self._from_input, self._refused = graph_module, from_input, refused
        self._ranks, self._runs, self._check = ranks, runs, check
        self._entries: dict[tuple[str, str], tuple[str, list[int | None]]] = {}
        self.nodes: set[fx.Node] = set()

    def kept(self) -> tuple[Kept, ...]:
        """What was listed, in the order in which it is first called."""
        return tuple(
            Kept(name, kind, reason, None if None in macs else sum(count or 0 for count in macs))
            for (name, kind), (reason, macs) in self._entries.items()
        )

    def look_at(self, node: fx.Node) -> None:
        """List the node if it holds or multiplies weights, or multiplies activations by each other."""
        macs = self._macs(node)
        reason = self._refused.get(node)
        if node.op == "call_module":
            reason = reason or self._module(node, macs)
        elif node.op in ("call_function", "call_method"):
            reason = reason or self._function(node, macs)
            if reason is not None and self._grows(node):
                shape = self._runs.shapes[node] if self._runs is not None else ()
                macs = None if self._runs is None or not shape else self._runs.vectors(node, 1)
        if reason is None:
            return
        name = str(node.target) if node.op == "call_module" else _functional_name(node)
        self.nodes.add(node)
        entry = self._entries.setdefault((name, _kind_name(self._graph_module, node)), (reason, []))
        entry[1].append(macs)

    def _macs(self, node: fx.Node) -> int | None:
        """Multiply-accumulates of a call for one image, as torch's own operations do them; None where not known."""
        if node not in self._from_input:
            return 0  # computed once and for all
        return None if self._runs is None else self._runs.macs(node)

    def _reads_weights(self, node: fx.Node) -> bool:
        return any(
            read not in self._from_input and _holds_numbers(self._graph_module, read) for read in tensor_arguments(node)
        )

    def _grows(self, node: fx.Node) -> bool:
        """Whether an element-wise product with weights is larger than the activations: one that is to be summed."""
        name = str(node.target if node.op == "call_method" else getattr(node.target, "__name__", "")).rstrip("_")
        if self._runs is None or name not in _SCALES or not self._reads_weights(node):
            return False
        shapes = self._runs.shapes
        sizes = [math.prod(shapes[read]) for read in tensor_arguments(node) if read in shapes]
        return node in shapes and bool(sizes) and math.prod(shapes[node]) > max(sizes)

    def _function(self, node: fx.Node, macs: int | None) -> str | None:
        if node not in self._from_input:
            return None
        name = str(node.target if node.op == "call_method" else getattr(node.target, "__name__", "")).rstrip("_")
        if node.op == "call_function" and node.target in (F.batch_norm, torch.batch_norm):
            return self._norm(node)
        if node.op == "call_function" and _package(node.target) not in _LOOKED_INTO:
            if macs == 0 and not self._reads_weights(node):
                return None
            return "a function that tracing does not look into (torch.fx.wrap)"
        if self._reads_weights(node):
            if name not in _NOT_PRODUCTS:
                return "weights in an operation that has no crossbar mapping"
            if self._grows(node):
                return "a product with weights outside a linear layer or convolution"
        return "a matrix product outside a linear layer or convolution" if macs else None

    def _norm(self, node: fx.Node) -> str:
        norm = fixed_norm(self._graph_module, node)
        if norm is None:
            return f"{BATCH_NORM} without running statistics depends on the batch"
        read = argument(node, 0, "input")
        if isinstance(read, fx.Node) and len(read.users) == 1 and self._is_matrix(read):
            if self._ranks.of(read) is None:
                return UNKNOWN_AXIS
            return f"{BATCH_NORM} that does not act on the outputs of the layer before it; " + _DIGITAL
        return f"{BATCH_NORM} that no matrix layer feeds alone; " + _DIGITAL

    def _is_matrix(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return kind_of(self._graph_module.get_submodule(str(node.target))) is not None
        return node.op == "call_function" and node.target in _FUNCTIONS

    def _module(self, node: fx.Node, macs: int | None) -> str | None:
        name = str(node.target)
        module = self._graph_module.get_submodule(name)
        norm = isinstance(module, (_BatchNorm, nn.SyncBatchNorm))
        tensors = [*module.named_parameters(), *module.named_buffers()]
        for what, values in tensors:
            if self._check and values.is_floating_point():
                _check_finite(name, what, as_float64(values))
        if not tensors and not norm:
            return "a matrix product outside a linear layer or convolution" if macs else None
        if node not in self._from_input:
            return "reads the network's own numbers alone: computed once, the same for every image"
        return self._norm(node) if norm else _reason(module)


_DIGITAL = "kept as a digital scale and shift"


def _package(target: Any) -> str:
    return str(getattr(target, "__module__", None) or "builtins").split(".")[0]


def _holds_numbers(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node that does not depend on the input is a tensor of real or complex numbers of the network."""
    if node.op == "get_attr":
        value = attribute(graph_module, str(node.target))
        return isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex())
    return any(_holds_numbers(graph_module, read) for read in tensor_arguments(node))


def _kind_name(graph_module: fx.GraphModule, node: fx.Node) -> str:
    if node.op == "call_module":
        return type(graph_module.get_submodule(str(node.target))).__name__
    return str(getattr(node.target, "__name__", node.target))


def _reason(module: nn.Module) -> str:
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
