"""The weights of a network's layers again, from watching the user's own module run: for the re-check of a certificate.

Nothing of the prover is used: no traced graph, no folding, no rule about dimensions. The module runs in float64 on
random inputs while every call of torch is watched. Where a layer's output is read once, by a batch norm with fixed
statistics, the norm is applied to zeros and to ones in its place: that gives its gain and shift at every number of the
output. The layer itself is run with zero weights and the bias 0, 1, 2, ...: that gives the output each number belongs
to. If the gain and shift are the same wherever the output is the same, the two are one matrix product, and its weights
are these.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from torch.overrides import TorchFunctionMode

from bitline.errors import ConversionError
from bitline.layers import MatrixLayer

__all__ = ["disagreements"]

_LAYERS = (F.linear, torch.conv1d, torch.conv2d)
_NORMS = (F.batch_norm, torch.batch_norm)
_RECURRENT = (torch.lstm, torch.gru)
_CLOSE = 1e-6
"""Of half a step: what float64 may differ by where a weight lies between two codes."""


@dataclass(eq=False)
class _Call:
    """One call of a layer: what it was given, and what came out."""

    function: Any
    weight: torch.Tensor
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    groups: int
    output: torch.Tensor
    readers: list[tuple[Any, tuple[Any, ...], dict[str, Any]]]
    where: str
    owned: bool
    """Whether the module at ``where`` is the layer and not a function's caller."""


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in _tensors(part)]
    if isinstance(value, (tuple, list)):
        return [tensor for part in value for tensor in _tensors(part)]
    return []


class _Watch(TorchFunctionMode):
    """Notes every call of a layer, and every call that reads a layer's output."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self.stacks: list[tuple[torch.Tensor, ...]] = []
        """Flat weights of recurrent layers, in the order of their calls."""
        self.path: list[str] = []
        self.modules: list[nn.Module] = []
        self._of: dict[int, _Call] = {}

    def enter(self, name: str, module: nn.Module) -> None:
        """A module's forward begins."""
        self.path.append(name)
        self.modules.append(module)

    def leave(self) -> None:
        """It has ended."""
        self.path.pop()
        self.modules.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = kwargs or {}
        name = getattr(func, "__name__", "")
        if name not in ("__get__", "size", "dim", "numel", "stride", "is_floating_point", "is_complex"):
            for tensor in {id(t): t for t in _tensors((args, keywords))}.values():
                if id(tensor) in self._of:
                    self._of[id(tensor)].readers.append((func, tuple(args), dict(keywords)))
        result = func(*args, **keywords)
        if func in _LAYERS and isinstance(result, torch.Tensor):
            weight = keywords["weight"] if "weight" in keywords else args[1]
            groups = keywords.get("groups", args[6] if len(args) > 6 else 1)
            where = self.path[-1] if self.path else ""
            owned = bool(self.modules) and getattr(self.modules[-1], "weight", None) is weight
            call = _Call(func, weight, tuple(args), dict(keywords), groups, result, [], where, owned)
            self.calls.append(call)  # with its output, whose identity stays its own
            self._of[id(result)] = call
        elif func in _RECURRENT:
            self.stacks.append(tuple(t for t in _tensors(args[2:4]) if t.dim() == 2))
        return result


def _watched(module: nn.Module, input_shape: Sequence[int], seed: int) -> _Watch:
    """Run a float64 copy on two random inputs."""
    twin = copy.deepcopy(module).cpu().eval().double()
    watch = _Watch()
    for name, part in twin.named_modules():
        part.register_forward_pre_hook(lambda module, _, name=name: watch.enter(name, module), prepend=True)
        part.register_forward_hook(lambda *_: watch.leave())
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand((2, *input_shape), generator=generator, dtype=torch.float64)
    with torch.no_grad(), watch:
        twin(x)
    return watch


def _with(call: _Call, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The layer's call with other weights and another bias."""
    arguments = list(call.arguments)
    keywords = dict(call.keywords)
    for place, name, value in ((1, "weight", weight), (2, "bias", bias)):
        if len(arguments) > place:
            arguments[place] = value
        else:
            keywords[name] = value
    result = call.function(*arguments, **keywords)
    assert isinstance(result, torch.Tensor)
    return result


def _norm_of(call: _Call) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Gain and shift of each output, if a batch norm alone reads them and is the same wherever an output is."""
    if len(call.readers) != 1:
        return None
    function, arguments, keywords = call.readers[0]
    read = arguments[0] if arguments else keywords.get("input")
    training = keywords.get("training", arguments[5] if len(arguments) > 5 else False)
    if function not in _NORMS or read is not call.output or training:
        return None

    def norm(x: torch.Tensor) -> torch.Tensor:
        rest = {**keywords, "input": x} if not arguments else keywords
        result = function(*((x, *arguments[1:]) if arguments else ()), **rest)
        assert isinstance(result, torch.Tensor)
        return result

    shift = norm(torch.zeros_like(call.output))
    gain = norm(torch.ones_like(call.output)) - shift
    outputs = call.weight.shape[0]
    number = torch.arange(outputs, dtype=call.output.dtype)
    owner = _with(call, torch.zeros_like(call.weight), number).round().long()
    found = []
    for values in (gain, shift):
        each = torch.zeros(outputs, dtype=values.dtype)
        each[owner.reshape(-1)] = values.reshape(-1)
        if not torch.allclose(each[owner], values, rtol=1e-9, atol=1e-12 * float(values.abs().max())):
            return None
        found.append(np.asarray(each.numpy()))
    return found[0], found[1]


def _matrix(weight: torch.Tensor, groups: int, gain: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """[shape=(groups, rows, columns)]"""
    flat = np.asarray(weight.detach().double().numpy()).reshape(weight.shape[0], -1)
    if gain is not None:
        flat = flat * gain[:, None]
    parts = np.split(flat, groups)
    return np.stack([part.T for part in parts])


def _holds(layer: MatrixLayer, matrix: NDArray[np.float64], weight_bits: int) -> bool:
    """Whether a layer's codes and scales are those of a real matrix: symmetric, one scale an output, nearest code."""
    if layer.codes.shape != matrix.shape:
        return False
    largest = np.abs(matrix).max(axis=1, keepdims=True)
    step = np.where(largest == 0, 1.0, largest / (2 ** (weight_bits - 1) - 1))
    scales = np.abs(layer.weight_scale[:, None, :] - step) <= _CLOSE * step
    return bool((scales | (largest == 0)).all() and (np.abs(matrix / step - layer.codes) <= 0.5 + _CLOSE).all())


def disagreements(
    module: nn.Module, layers: Sequence[MatrixLayer], weight_bits: int, input_shape: Sequence[int], seed: int = 0
) -> list[str]:
    """Find the layers whose certified codes are not those of the module's own weights, batch norm included.

    Parameters
    ----------
    module : nn.Module
        The float network; not changed.
    layers : sequence of MatrixLayer
        What was certified.
    weight_bits : int
        Of the hardware description.
    input_shape : sequence of int
        Shape of one input.
    seed : int
        Of the random inputs; where a layer's output goes does not depend on them.

    Returns
    -------
    list of str
        One line for each layer without a match; empty if all have one.

    Raises
    ------
    ConversionError
        The module does not run on inputs of that shape.
    """
    try:
        watch = _watched(module, input_shape, seed)
    except Exception as error:  # the network's own code runs here: anything may come out of it
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConversionError(f"network: does not run on an input of shape {input_shape}: {lines[0][:200]}") from None
    calls: dict[int, list[_Call]] = {}
    for call in watch.calls:
        calls.setdefault(id(call.weight), []).append(call)
    named: dict[str, NDArray[np.float64]] = {}
    others: list[NDArray[np.float64]] = [_matrix(weight, 1, None) for stack in watch.stacks for weight in stack]
    with torch.no_grad():
        for same in calls.values():
            norms = [_norm_of(call) for call in same]
            gains = [None if norm is None else norm[0] for norm in norms]
            first = gains[0]
            alike = first is not None and all(gain is not None and np.array_equal(gain, first) for gain in gains)
            matrix = _matrix(same[0].weight, same[0].groups, first if alike else None)
            others.append(matrix)
            if same[0].owned:
                named.setdefault(same[0].where, matrix)
    complaints = []
    for layer in layers:
        if layer.name in named:
            fits = _holds(layer, named[layer.name], weight_bits)
        else:  # a function's call, or a recurrent layer's product
            fits = any(_holds(layer, matrix, weight_bits) for matrix in others)
        if not fits:
            complaints.append(
                f"layer {layer.name}: its weight codes are not those of the network's own weights with the batch norm "
                "that acts on its outputs, if there is one"
            )
    return complaints
