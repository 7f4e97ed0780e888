"""Folded weights again, by running the user's float module on basis inputs; nothing of the folding is used.

``derived`` runs a layer and the norm that was taken into it, in the shape in which the network calls them: on zeros,
which gives the bias, and on inputs that are 1 in one row of the matrix at every position, which gives that row of
weights. A norm that acts on another axis gives other numbers at other positions, and is found there. ``check`` compares
with what was placed, and the network with its folded weights in place of layers and norms with the user's own, number
by number.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from bitline.layers import LayerKind
from bitline.network.graph import trace
from bitline.network.placement import FloatMatrix, Placement, Site, place

MOST_ROWS = 16
"""Rows of a large matrix that are looked at, spread evenly."""


def stirred(module: nn.Module, seed: int = 0) -> nn.Module:
    """In float64 and evaluation mode, with norms that have been trained: every gain and shift its own."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for part in module.modules():
            for name in ("running_mean", "running_var", "weight", "bias"):
                values = getattr(part, name, None)
                if isinstance(values, torch.Tensor) and isinstance(part, nn.modules.batchnorm._BatchNorm):
                    values.copy_(0.5 + torch.rand(values.shape, generator=generator, dtype=values.dtype))
    return module


def calls(module: nn.Module, shape: tuple[int, ...]) -> dict[str, torch.Size]:
    """Shape of the input of every module, as a batch of two calls it."""
    found: dict[str, torch.Size] = {}

    def note(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs and isinstance(inputs[0], torch.Tensor):
                found[name] = inputs[0].shape

        return hook

    twin = copy.deepcopy(module)
    for name, part in twin.named_modules():
        part.register_forward_pre_hook(note(name))
    with torch.no_grad():
        twin(torch.rand((2, *shape), dtype=torch.float64))
    return found


@torch.no_grad()
def derived(layer: nn.Module, norm: nn.Module | None, shape: torch.Size, rows: list[int]) -> tuple[Any, Any]:
    """Weights [shape=(len(rows), outputs)] and bias [shape=(outputs,)]; NaN where positions differ."""
    layer = copy.deepcopy(layer)
    if isinstance(layer, nn.Linear):
        place_of = {row: (..., row) for row in rows}
        axis = -1
    else:  # one output position: an image as large as the kernel reaches, and no padding
        layer.padding, layer.padding_mode = (0,) * len(layer.kernel_size), "zeros"
        reach = [d * (k - 1) + 1 for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
        shape = torch.Size((*shape[: -len(reach)], *reach))
        axis = len(shape) - len(reach) - 1
        place_of = {}
        for row in rows:
            channel, *offset = np.unravel_index(row, (layer.in_channels // layer.groups, *layer.kernel_size))
            at = tuple(int(o) * d for o, d in zip(offset, layer.dilation, strict=True))
            each_group = slice(int(channel), None, layer.in_channels // layer.groups)
            place_of[row] = (*[slice(None)] * axis, each_group, *at)

    # inputs stand side by side in dimension 0, along which no layer and no norm mixes
    inputs = torch.zeros((1 + len(rows), *shape), dtype=torch.float64)
    for number, row in enumerate(rows, start=1):
        inputs[number][place_of[row]] = 1
    y = layer(inputs.flatten(0, 1))
    y = y if norm is None else norm(y)
    y = y.unflatten(0, (1 + len(rows), -1)).movedim(axis if axis < 0 else axis + 1, -1)
    found = y.reshape(1 + len(rows), -1, y.shape[-1])
    found[1:] -= found[0].clone()
    differs = (found - found[:, :1]).abs().amax(dim=(1, 2)) > 1e-9
    found[differs] = torch.nan
    return found[1:, 0].numpy(), found[0, 0].numpy()


def check_layer(module: nn.Module, matrix: FloatMatrix, shapes: dict[str, torch.Size]) -> None:
    """A placed layer's weights and bias are those of running it."""
    if matrix.name not in shapes:
        return  # a function's call or a recurrent layer's product: see `check_network`
    norm = matrix.sites[0].batch_norm
    if norm is not None and norm.op != "call_module":
        return
    count = matrix.weight.shape[1]
    rows = list(range(count)) if count <= MOST_ROWS else list(range(0, count, count // MOST_ROWS))
    part = None if norm is None else module.get_submodule(str(norm.target))
    weights, bias = derived(module.get_submodule(matrix.name), part, shapes[matrix.name], rows)
    placed = np.concatenate(list(matrix.weight), axis=1)[rows]  # groups' outputs side by side
    np.testing.assert_allclose(placed, weights, rtol=1e-9, atol=1e-12, err_msg=matrix.name)
    mine = np.zeros(placed.shape[1]) if matrix.bias is None else matrix.bias.reshape(-1)
    np.testing.assert_allclose(mine, bias, rtol=1e-9, atol=1e-12, err_msg=matrix.name)


class _Folded(fx.Interpreter):
    """Runs the network with its placed weights, norms that were folded left out."""

    def __init__(self, placement: Placement) -> None:
        super().__init__(placement.graph_module)
        self._sites = {site.node: (matrix, site) for _, matrix, site in placement.sites()}
        self._norms = {site.batch_norm for _, _, site in placement.sites()} - {None}

    def run_node(self, n: fx.Node) -> Any:
        if n in self._norms:
            return self.fetch_args_kwargs_from_env(n)[0][0]
        if n in self._sites and self._sites[n][0].kind is not LayerKind.RECURRENT:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            return self._multiply(*self._sites[n], args[0] if args else kwargs["input"])
        return super().run_node(n)

    @staticmethod
    def _multiply(matrix: FloatMatrix, site: Site, x: torch.Tensor) -> torch.Tensor:
        groups, _, columns = matrix.weight.shape
        weight = torch.from_numpy(np.ascontiguousarray(matrix.weight.transpose(0, 2, 1)))
        bias = None if matrix.bias is None else torch.from_numpy(matrix.bias.reshape(-1).copy())
        if matrix.kind is LayerKind.LINEAR:
            return F.linear(x, weight[0], bias)
        window = matrix.window
        flat = matrix.kind is LayerKind.CONV1D
        x = x.unsqueeze(-2) if flat else x
        x = F.pad(x, window.padding, mode="constant" if matrix.padding_mode == "zeros" else matrix.padding_mode)
        shaped = weight.reshape(groups * columns, x.shape[-3] // groups, *window.kernel)
        y = F.conv2d(x, shaped, bias, window.stride, 0, window.dilation, groups)
        return y.squeeze(-2) if flat else y


@torch.no_grad()
def check_network(module: nn.Module, placement: Placement, shape: tuple[int, ...]) -> None:
    """The network with its placed weights computes what the user's own computes."""
    x = torch.rand((2, *shape), generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.3
    wanted, found = module(x.clone()), _Folded(placement).run(x.clone())
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-9 * float(wanted.abs().max()))


def check(module: nn.Module, shape: tuple[int, ...], *, known: bool = True) -> list[str]:
    """Compare all that was placed with the module's own runs; returns the names of the layers with a norm folded in."""
    placement = place(trace(module), input_shape=shape if known else None)
    shapes = calls(module, shape)
    for matrix in placement.matrices:
        check_layer(module, matrix, shapes)
    check_network(module, placement, shape)
    return [matrix.name for matrix in placement.matrices if matrix.sites[0].batch_norm is not None]
