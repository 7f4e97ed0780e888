"""A traced network run on blank images: the shape of every value, which dimension is the batch, and what is multiplied.

Nothing about a shape is assumed. Two batches of different size go through the graph, and what changes with the batch is
the batch: dimension 0 of images, dimension 1 of (tokens, batch, features), or a multiple of it where an image is cut
into windows. Products are counted where they are computed, below every function and module, so that none is missed for
its name. The run needs no memory for values (torch's ``meta`` device), unless the network's own code wants them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from bitline.errors import ConversionError

__all__ = ["Runs", "Shape", "run_shapes"]

Shape = tuple[int, ...]

_BATCHES = (2, 3)
"""Batch sizes that are run; one image alone only where these do not run, for a batch of one may be squeezed away."""


@dataclass
class _Run:
    """One batch's way through a graph."""

    batch: int
    shapes: dict[fx.Node, Shape] = field(default_factory=dict)
    products: dict[fx.Node, int] = field(default_factory=dict)
    """Multiply-accumulates inside each node, of the whole batch."""


@dataclass(frozen=True)
class Runs:
    """What was seen of a traced network with batches of images of one shape."""

    input_shape: Shape
    """Of one image."""
    _runs: tuple[_Run, ...]

    @property
    def shapes(self) -> dict[fx.Node, Shape]:
        """Shape of every tensor in the first run; of several results of a node, the first."""
        return self._runs[0].shapes

    def vectors(self, node: fx.Node, length: int) -> int | None:
        """How many vectors of a length make one image's part of a value; None where that is not the same for all."""
        return self._per_image([math.prod(run.shapes[node]) // length for run in self._runs])

    def macs(self, node: fx.Node) -> int | None:
        """Multiply-accumulates inside a node for one image; None where that is not the same for all images."""
        return self._per_image([run.products.get(node, 0) for run in self._runs])

    def _per_image(self, totals: list[int]) -> int | None:
        shares = {divmod(total, run.batch) for total, run in zip(totals, self._runs, strict=True)}
        if len(shares) == 1:
            ((share, rest),) = shares
            if rest == 0:
                return share
        return None

    def image(self, node: fx.Node) -> Shape | None:
        """Shape of one image's part of a value, batch taken out; None where no dimension is the batch.

        Where a dimension is a multiple of the batch, an image's share of it is multiplied into the one after the next
        (the height of windows, the steps of sequences), so that what is left reads (channels, height, width).
        """
        first = list(self._runs[0].shapes[node])
        if len(self._runs) == 1:
            return tuple(first[1:] if first and first[0] == 1 else first)
        second = self._runs[1].shapes[node]
        if len(second) != len(first):
            return None
        changed = [d for d, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
        if len(changed) != 1:
            return None
        (at,) = changed
        share = self._per_image([run.shapes[node][at] for run in self._runs])
        if share is None:
            return None
        rest = first[:at] + first[at + 1 :]
        if share != 1:
            if len(rest) < 2:
                rest.append(1)
            rest[1] *= share
        return tuple(rest)


class _Interpreter(fx.Interpreter):
    """Runs a batch through a graph, on the input's device, and notes shapes and products of every node."""

    def __init__(self, graph_module: fx.GraphModule, run: _Run, counter: FlopCounterMode, meta: bool) -> None:
        super().__init__(graph_module)
        self.extra_traceback = False
        self._run, self._counter, self._meta = run, counter, meta

    def run_node(self, n: fx.Node) -> Any:
        before = self._counter.get_total_flops()
        result = super().run_node(n)
        done = self._counter.get_total_flops() - before
        if done:
            self._run.products[n] = done // 2
        first = result
        while isinstance(first, (tuple, list)) and first:  # of several results, as an LSTM's, the first
            first = first[0]
        if isinstance(first, torch.Tensor):
            self._run.shapes[n] = tuple(first.shape)
        return result

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().get_attr(target, args, kwargs)
        return value.to("meta") if self._meta and isinstance(value, torch.Tensor) else value

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        if not self._meta:
            return super().call_module(target, args, kwargs)
        module = self.fetch_attr(target)
        assert isinstance(module, nn.Module)
        tensors = {name: value.to("meta") for name, value in (*module.named_parameters(), *module.named_buffers())}
        # torch's older norms and masks work their weight out before each call and leave it as a plain attribute
        plain = [
            (part, {name: value for name, value in vars(part).items() if isinstance(value, torch.Tensor)})
            for part in module.modules()
        ]
        try:
            return functional_call(module, tensors, args, kwargs)
        finally:
            for part, before in plain:
                vars(part).update(before)


def _matrix_vector(matrix: Shape, vector: Shape, *_: Any, **__: Any) -> int:
    return 2 * math.prod(matrix)


def _added_matrix_vector(_: Shape, matrix: Shape, *__: Any, **___: Any) -> int:
    return 2 * math.prod(matrix)


def _trilinear(first: Shape, second: Shape, third: Shape, *added: Any, **__: Any) -> int:
    """A product of three, each with new dimensions of size 1, as ``torch.nn.Bilinear`` uses it."""
    sizes: list[list[int]] = []
    for shape, dimensions in zip((first, second, third), added, strict=False):
        wide = list(shape)
        for dimension in sorted(dimensions):
            wide.insert(dimension, 1)
        sizes.append(wide)
    return int(2 * math.prod(max(along) for along in zip(*sizes, strict=True)))


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return int(2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))


_FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.aten.mv: _matrix_vector,
    torch.ops.aten.dot: _matrix_vector,
    torch.ops.aten.vdot: _matrix_vector,
    torch.ops.aten.addmv: _added_matrix_vector,
    torch.ops.aten._trilinear: _trilinear,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
}
"""Products that torch's counter does not know."""


@contextmanager
def _no_fast_path() -> Iterator[None]:
    """Attention layers by their plain arithmetic, which can be counted."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _try(graph_module: fx.GraphModule, batch: int, shape: Shape, dtype: torch.dtype, meta: bool) -> _Run:
    run = _Run(batch)
    counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
    with torch.no_grad(), _no_fast_path(), counter:
        x = torch.zeros((batch, *shape), dtype=dtype, device="meta" if meta else "cpu")
        _Interpreter(graph_module, run, counter, meta).run(x, enable_io_processing=False)
    return run


def run_shapes(graph_module: fx.GraphModule, input_shape: tuple[int, ...]) -> Runs:
    """Run blank images through a traced network.

    Parameters
    ----------
    graph_module : GraphModule
        From :func:`bitline.network.graph.trace`; not changed.
    input_shape : tuple of int
        Shape of one image, without the batch.

    Raises
    ------
    ConversionError
        The network does not run on images of that shape.
    """
    shape = tuple(input_shape)
    parameter = next((p for p in graph_module.parameters() if p.is_floating_point()), None)
    dtype = torch.float32 if parameter is None else parameter.dtype
    failure: Exception | None = None
    for meta in (True, False):
        for kind in (dtype, torch.int64):  # a network of embeddings wants indices
            for batches in (_BATCHES, (1,)):
                try:
                    return Runs(shape, tuple(_try(graph_module, batch, shape, kind, meta) for batch in batches))
                except Exception as error:  # the network's own code runs here: anything may come out of it
                    if not meta:
                        failure = failure or error
    lines = str(failure).strip().splitlines() or [type(failure).__name__]
    raise ConversionError(f"network: does not run on an input of shape {shape}: {lines[0][:200]}")
