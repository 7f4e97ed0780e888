"""The data-flow graph of a network with the shapes of one image, as the chip model wants it."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from bitline.errors import ConversionError
from bitline.layers import Coverage, Gates, LayerKind, Operation, OperationKind, Window
from bitline.network.graph import argument, constant, single_input, tensor_arguments, trace
from bitline.network.placement import FloatMatrix, Placement, Site, place
from bitline.network.recurrent import Recurrence, both_directions
from bitline.network.shapes import Shape

__all__ = ["account", "operations", "positions"]


def positions(placement: Placement) -> dict[str, int]:
    """Input vectors of each matrix layer for one image, all calls together.

    Raises
    ------
    ConversionError
        Not the same number for every image.
    """
    return {
        matrix.name: sum(_vectors(placement, matrix, site) for site in matrix.sites) for matrix in placement.matrices
    }


def _vectors(placement: Placement, matrix: FloatMatrix, site: Site) -> int:
    assert placement.runs is not None
    count = placement.vectors(matrix, site)
    if count is None:
        raise ConversionError(
            f"layer {site.name}: its input vectors do not grow with the batch for inputs of shape "
            f"{placement.runs.input_shape}, so that there is no number of them for one image"
        )
    return count


_MAX_POOLS = {F.max_pool1d, F.max_pool2d, torch.max_pool1d, torch.max_pool2d}
_AVERAGE_POOLS = {F.avg_pool1d, F.avg_pool2d}
_GLOBAL_MAX = {F.adaptive_max_pool1d, F.adaptive_max_pool2d, torch.amax}
_GLOBAL_AVERAGE = {F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, torch.mean}
_ELEMENTWISE = {
    operator.add, operator.sub, operator.mul, operator.truediv, operator.iadd, operator.imul, operator.isub,
    torch.add, torch.sub, torch.mul, torch.div, torch.maximum, torch.minimum,
}  # fmt: skip
_ELEMENTWISE_METHODS = {"add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "maximum", "minimum"}
_CONCATS = {torch.cat, torch.concat, torch.stack}
_POOL_MODULES: tuple[tuple[type[nn.Module], OperationKind], ...] = (
    (nn.MaxPool1d, OperationKind.MAX_POOL),
    (nn.MaxPool2d, OperationKind.MAX_POOL),
    (nn.AdaptiveMaxPool1d, OperationKind.MAX_POOL),
    (nn.AdaptiveMaxPool2d, OperationKind.MAX_POOL),
    (nn.AvgPool1d, OperationKind.AVERAGE_POOL),
    (nn.AvgPool2d, OperationKind.AVERAGE_POOL),
    (nn.AdaptiveAvgPool1d, OperationKind.AVERAGE_POOL),
    (nn.AdaptiveAvgPool2d, OperationKind.AVERAGE_POOL),
)


def _image_shape(rest: Shape) -> tuple[int, int, int]:
    """(channels, height, width) of an image of this shape, which may have fewer dimensions or more."""
    if len(rest) == 0:
        return 1, 1, 1
    if len(rest) == 1:
        return rest[0], 1, 1
    if len(rest) == 2:
        return rest[0], 1, rest[1]
    return rest[0], math.prod(rest[1:-1]), rest[-1]


def operations(module: nn.Module, input_shape: tuple[int, ...]) -> list[Operation]:
    """Describe a network's data flow for one image.

    Activations, batch norm, dropout and changes of shape are passed through; zero padding in front of a window becomes
    part of it. A matrix layer that is called several times appears as ``name``, ``name#2`` ...

    Parameters
    ----------
    module : nn.Module
        Not changed; weights are not looked at beyond their shapes.
    input_shape : tuple of int
        Shape of one image, without the batch: (C, H, W), (C, L) or (features,).

    Returns
    -------
    list of Operation
        In topological order; the first is the input.

    Raises
    ------
    ConversionError
        The network cannot be traced, or does not run on an image of that shape.
    """
    return account(module, input_shape)[0]


def account(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[list[Operation], Coverage]:
    """As :func:`operations`, with how much of the network crossbars hold."""
    placement = place(trace(module), values=False, input_shape=tuple(input_shape))
    return _Flow(placement).build(), placement.coverage()


class _Flow:
    """Walks the graph once and keeps, for every node, the operation that its value comes from."""

    def __init__(self, placement: Placement) -> None:
        assert placement.runs is not None
        self._placement, self._runs = placement, placement.runs
        self._graph_module = placement.graph_module
        self._shapes = placement.runs.shapes
        self._sites: dict[fx.Node, tuple[FloatMatrix, Site]] = {
            site.node: (matrix, site) for _, matrix, site in placement.sites()
        }
        self._source: dict[fx.Node, str] = {}
        self._padding: dict[fx.Node, tuple[int, int, int, int]] = {}
        """Spatial zero padding that is not applied yet, by node."""
        self._operations: list[Operation] = []

    def build(self) -> list[Operation]:
        first = single_input(self._graph_module)
        for node in self._graph_module.graph.nodes:
            if node is first:
                self._emit(node, OperationKind.INPUT, name=node.name)
            elif node in self._shapes and node.op in ("call_module", "call_function", "call_method"):
                self._add(node)
        return self._operations

    def _image(self, node: fx.Node) -> tuple[int, int, int]:
        """(channels, height, width) of one image's part of a value."""
        shape = self._runs.image(node)
        if shape is not None:
            return _image_shape(shape)
        numbers = self._runs.vectors(node, 1)
        if numbers is None:
            raise ConversionError(
                f"network: {node.name} gives a tensor of shape {self._shapes[node]} for a batch of inputs of shape "
                f"{self._runs.input_shape}, in which no dimension is the batch: no part of it is one image's"
            )
        return numbers, 1, 1

    def _inputs(self, node: fx.Node) -> list[fx.Node]:
        return [read for read in tensor_arguments(node) if read in self._source]

    def _emit(self, node: fx.Node, kind: OperationKind, *, name: str | None = None, **fields: Any) -> None:
        inputs = tuple(self._source[read] for read in self._inputs(node))
        label = name or (str(node.target) if node.op == "call_module" else node.name)
        taken = {operation.name for operation in self._operations}
        unique, number = label, 2
        while unique in taken:
            unique, number = f"{label}#{number}", number + 1
        shape = fields.pop("output_shape", self._image(node))
        self._operations.append(Operation(name=unique, kind=kind, inputs=inputs, output_shape=shape, **fields))
        self._source[node] = unique

    def _add(self, node: fx.Node) -> None:
        inputs = self._inputs(node)
        if not inputs:  # arithmetic on parameters
            return
        if node in self._sites:
            self._add_matrix(node, *self._sites[node])
            return
        pool = self._pool(node)
        if pool is not None:
            kind, window = pool
            self._emit(node, kind, window=self._padded(inputs[0], window))
        elif self._is_pad(node):
            self._add_pad(node, inputs[0])
        elif self._calls(node, {both_directions}, set()):
            _, steps, features = self._shapes[node]
            self._emit(node, OperationKind.CONCAT, output_shape=(features, 1, steps))
        elif self._calls(node, {torch.flip}, {"flip"}):
            self._add_flip(node, inputs[0])
        elif self._calls(node, _CONCATS, {"cat"}):
            self._emit(node, OperationKind.CONCAT)
        elif self._calls(node, _ELEMENTWISE, _ELEMENTWISE_METHODS) and len(inputs) > 1:
            self._emit(node, OperationKind.ELEMENTWISE)
        elif self._transparent(node, inputs):
            self._source[node] = self._source[inputs[0]]
            if inputs[0] in self._padding:
                self._padding[node] = self._padding[inputs[0]]
        else:
            self._emit(node, OperationKind.OTHER)

    @staticmethod
    def _calls(node: fx.Node, functions: set[Any], methods: set[str]) -> bool:
        return (node.op == "call_function" and node.target in functions) or (
            node.op == "call_method" and node.target in methods
        )

    def _transparent(self, node: fx.Node, inputs: list[fx.Node]) -> bool:
        """Whether as many numbers come out as go in, from one place, without weights between."""
        if node in self._placement.kept_nodes:
            norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
            return node.op == "call_module" and isinstance(self._module(node), norms)
        if len({self._source[read] for read in inputs}) != 1:
            return False
        return math.prod(self._shapes[node]) == math.prod(self._shapes[inputs[0]])

    def _module(self, node: fx.Node) -> nn.Module:
        return self._graph_module.get_submodule(str(node.target))

    def _add_matrix(self, node: fx.Node, matrix: FloatMatrix, site: Site) -> None:
        groups, rows, columns = matrix.weight.shape
        shape = self._shapes[node]
        vectors = _vectors(self._placement, matrix, site)
        output = (groups * columns, 1, vectors)
        if matrix.kind is LayerKind.RECURRENT:
            output = (shape[-1], 1, vectors)
        elif not matrix.kind.multiplies_vectors:
            image = self._image(node)
            output = image if image == (output[0], *image[1:]) and image[1] * image[2] == vectors else output
        window = self._padded(self._inputs(node)[0], matrix.window)
        self._emit(
            node,
            OperationKind.MATRIX,
            name=site.name,
            output_shape=output,
            window=window,
            groups=groups,
            rows=rows,
            columns=columns,
            gates=self._gates(node),
            signed_inputs=matrix.signed_inputs,
        )

    def _gates(self, node: fx.Node) -> Gates | None:
        module = self._module(node) if node.op == "call_module" else None
        return module.cell.gates(module.hidden) if isinstance(module, Recurrence) else None

    def _add_flip(self, node: fx.Node, read: fx.Node) -> None:
        """An operation that waits for all of its input: what it gives first came last."""
        shape = next(o.output_shape for o in self._operations if o.name == self._source[read])
        self._emit(node, OperationKind.OTHER, output_shape=shape, window=Window(kernel=shape[1:]))

    # --- pooling and padding -----------------------------------------------------------------------------------------

    def _padded(self, read: fx.Node, window: Window) -> Window:
        """The window with the padding that stands before it."""
        extra = self._padding.get(read)
        if extra is None:
            return window
        left, right, top, bottom = (a + b for a, b in zip(window.padding, extra, strict=True))
        return Window(
            kernel=window.kernel, stride=window.stride, padding=(left, right, top, bottom), dilation=window.dilation
        )

    def _pool(self, node: fx.Node) -> tuple[OperationKind, Window] | None:
        if node.op == "call_module":
            module = self._module(node)
            for base, kind in _POOL_MODULES:
                if isinstance(module, base):
                    if hasattr(module, "output_size"):
                        return kind, self._covering(node)
                    return kind, self._window(node, module.kernel_size, module.stride, module.padding, module)
            return None
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        if self._calls(node, _GLOBAL_MAX, {"amax"}) or "adaptive_max_pool" in str(name):
            return (OperationKind.MAX_POOL, self._covering(node)) if self._spatial(node) else None
        if self._calls(node, _GLOBAL_AVERAGE, {"mean"}):
            return (OperationKind.AVERAGE_POOL, self._covering(node)) if self._spatial(node) else None
        # F.max_pool2d is wrapped by torch's dispatch on return_indices, so it is known by its name
        if node.op == "call_function" and (node.target in _MAX_POOLS | _AVERAGE_POOLS or str(name).startswith("max_p")):
            kind = OperationKind.AVERAGE_POOL if node.target in _AVERAGE_POOLS else OperationKind.MAX_POOL
            kernel = self._value(argument(node, 1, "kernel_size"))
            stride = self._value(argument(node, 2, "stride"))
            padding = self._value(argument(node, 3, "padding", 0))
            if kernel is None:
                return kind, self._covering(node)
            return kind, self._window(node, kernel, stride, padding, None)
        return None

    def _value(self, value: Any) -> Any:
        """A number given to a call; None where it is computed from shapes."""
        try:
            return constant(self._graph_module, value)
        except LookupError:
            return None

    def _spatial(self, node: fx.Node) -> bool:
        """Whether what is reduced is the image and not the channels."""
        before, after = self._shapes[self._inputs(node)[0]], self._shapes[node]
        return len(before) > 2 and after[:2] == before[:2]

    def _window(self, node: fx.Node, kernel: Any, stride: Any, padding: Any, module: nn.Module | None) -> Window:
        dimensions = len(self._shapes[node]) - 2
        if dimensions not in (1, 2):
            return self._covering(node)

        def pair(value: Any, first: int) -> tuple[int, int]:
            values = [value] * dimensions if isinstance(value, int) else list(value)
            if len(values) == 1:
                values *= dimensions
            return (first, int(values[0])) if dimensions == 1 else (int(values[0]), int(values[1]))

        size = pair(kernel, 1)
        step = pair(kernel if stride is None or stride == [] else stride, 1)
        high, wide = pair(padding, 0)
        dilation = pair(getattr(module, "dilation", 1), 1)
        right, bottom = wide, high
        # ceil_mode lets the last window hang over the edge
        _, after_h, after_w = self._image(node)
        _, before_h, before_w = self._image(self._inputs(node)[0])
        right += max(0, (after_w - 1) * step[1] + dilation[1] * (size[1] - 1) + 1 - (before_w + 2 * wide))
        bottom += max(0, (after_h - 1) * step[0] + dilation[0] * (size[0] - 1) + 1 - (before_h + 2 * high))
        return Window(kernel=size, stride=step, padding=(wide, right, high, bottom), dilation=dilation)

    def _covering(self, node: fx.Node) -> Window:
        """Window of an adaptive pooling: of equal size at every output, as where the sizes divide."""
        _, before_h, before_w = self._image(self._inputs(node)[0])
        _, after_h, after_w = self._image(node)
        step = before_h // after_h or 1, before_w // after_w or 1
        kernel = before_h - (after_h - 1) * step[0], before_w - (after_w - 1) * step[1]
        return Window(kernel=(max(1, kernel[0]), max(1, kernel[1])), stride=step)

    def _is_pad(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self._module(node), (nn.ZeroPad1d, nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d))
        return node.op == "call_function" and node.target is F.pad

    def _add_pad(self, node: fx.Node, read: fx.Node) -> None:
        """Remember a padding of height and width that only windows read; anything else is an operation."""
        before, after = self._shapes[read], self._shapes[node]
        raw = self._module(node).padding if node.op == "call_module" else self._value(argument(node, 1, "pad"))
        sides = list(raw) if isinstance(raw, (tuple, list)) else None
        windows = all(user in self._sites or self._is_window(user) for user in node.users)
        spatial = len(before) in (3, 4) and before[:2] == after[:2] and sides is not None
        if not (windows and spatial and sides is not None and all(isinstance(s, int) and s >= 0 for s in sides)):
            self._emit(node, OperationKind.OTHER)
            return
        left, right, top, bottom = ([*sides, 0, 0, 0, 0])[:4]
        held = self._padding.get(read, (0, 0, 0, 0))
        self._padding[node] = (left + held[0], right + held[1], top + held[2], bottom + held[3])
        self._source[node] = self._source[read]

    def _is_window(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self._module(node), (nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d))
        name = getattr(node.target, "__name__", "")
        return node.op == "call_function" and (node.target in _MAX_POOLS | _AVERAGE_POOLS or "max_pool" in name)
