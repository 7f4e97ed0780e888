"""The traced, folded and rewritten network against the user's own module, on inputs, before anything is claimed.

A graph carries what torch.fx saw of a forward, and folding and rewriting change it once more. Whatever they miss, known
or not, shows when both are run: outputs of every module that the graph calls and of the network are compared. An image
is run alone and in a batch, too, since a chip has no batches. All in float32; where that is not close enough float64
decides, in which rounding does not hide an error, or excuse one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.utils._pytree import tree_leaves

from bitline.errors import BitlineError, ConfigError, ConversionError
from bitline.layers import LayerKind
from bitline.network.crossbar_modules import CrossbarModule
from bitline.network.graph import argument, first_line, private_copy, trace
from bitline.network.placement import FloatMatrix, Placement, place

__all__ = ["Examples", "Guard", "RandomInputs", "check_network", "first_images"]

_CLOSE, _LOOSE, _EXACT = 1e-4, 1e-3, 1e-6
"""Largest difference, of the largest magnitude: in float32; in float32 where float64 does not run; in float64."""
_SAMPLE = 1 << 14
"""Numbers of a module's output that are compared."""
_SEED = 0
_SIDES = (32, 28, 224, 64, 96, 128, 16, 8, 299)
_LENGTHS = (128, 1000, 16, 8000, 8)
_STEPS = 16

Call = tuple[str, int]
"""A module's name and which of its calls."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Two inputs, and what they are."""

    inputs: torch.Tensor
    """[shape=(2, ...)]"""
    what: str
    given: int = 2
    """How many of the two are the user's own; a network may take no more than it was given."""


def first_images(batches: list[torch.Tensor]) -> Examples:
    """The first two calibration images; where there is one, it and what it is upside down and half as bright."""
    found = batches[0][:2]
    if len(found) == 1 and len(batches) > 1 and batches[1].shape[1:] == found.shape[1:]:
        found = torch.cat([found, batches[1][:1]])
    given = len(found)
    if given == 1:
        other = found.flip(tuple(range(1, found.dim()))) if found.dim() > 1 else found
        found = torch.cat([found, other * 0.5 if other.is_floating_point() else other])
    return Examples(found.clone(), "calibration inputs", given)


@dataclass(frozen=True)
class RandomInputs:
    """Inputs for a network of which no data is at hand."""

    shape: tuple[int, ...] | None
    """Of one input; None: the first usual shape that the network takes."""
    network: str
    """Its name, for messages."""

    def of(self, module: nn.Module, placement: Placement) -> Examples:
        """Two seeded random inputs: standard normal numbers and uniform ones in 0..1; or indices for look-up tables.

        Raises
        ------
        ConfigError
            The shape is not known, and none of the usual ones fits.
        ConversionError
            The network does not run on an input of its shape.
        """
        twin = private_copy(module).float()
        tables = [part.num_embeddings for part in twin.modules() if isinstance(part, (nn.Embedding, nn.EmbeddingBag))]
        shapes = [self.shape] if self.shape is not None else list(_usual_shapes(twin, placement))
        reason = ""
        for shape in shapes:
            generator = torch.Generator().manual_seed(_SEED)
            real = torch.cat([kind((1, *shape), generator=generator) for kind in (torch.randn, torch.rand)])
            kinds = [("inputs", real)]
            if tables:
                kinds.insert(0, ("inputs of indices", torch.randint(min(tables), (2, *shape), generator=generator)))
            for what, inputs in kinds:
                try:
                    if self.shape is None or tables:
                        with torch.no_grad(), torch.random.fork_rng(devices=[]):
                            twin(inputs[:1].clone())
                except Exception as error:  # the network's own code runs here: anything may come out of it
                    reason = reason or first_line(error)
                    continue
                return Examples(inputs, f"2 random {what} of shape {'x'.join(map(str, shape)) or '()'}")
        if self.shape is not None:
            raise ConversionError(f"network: does not run on an input of shape {self.shape}: {reason}")
        raise ConfigError(
            f"input: {self.network} does not say the shape of its inputs, and no usual one fits; give it by --input, "
            "as in 3x224x224, or name the data (a network is compared with its graph before anything is claimed)"
        )


def _usual_shapes(module: nn.Module, placement: Placement) -> Iterator[tuple[int, ...]]:
    """Shapes that a network's first matrix layer may be meant for."""
    if any(isinstance(part, (nn.Embedding, nn.EmbeddingBag)) for part in module.modules()):
        yield (_STEPS,)
    if not placement.matrices:
        return
    matrix = placement.matrices[0]
    groups, rows, _ = matrix.weight.shape
    channels = groups * rows // (matrix.window.kernel[0] * matrix.window.kernel[1])
    if matrix.kind is LayerKind.CONV2D:
        yield from ((channels, side, side) for side in _SIDES)
    elif matrix.kind is LayerKind.CONV1D:
        yield from ((channels, length) for length in _LENGTHS)
    # a layer that takes a sequence may take a single vector for one, too
    sequences = any(isinstance(part, (nn.RNNBase, nn.MultiheadAttention)) for part in module.modules())
    vectors = [(channels,), (_STEPS, channels)]
    yield from reversed(vectors) if sequences else vectors
    yield from ((1, side, side) for side in _SIDES)
    yield from ((3, side, side) for side in _SIDES)


def check_network(module: nn.Module, inputs: RandomInputs) -> str:
    """Compare a network with its traced and folded graph, where nothing but that is wanted.

    Returns
    -------
    str
        On what they were compared.

    Raises
    ------
    ConfigError, ConversionError
        As :class:`RandomInputs` and :class:`Guard` say.
    """
    placement = place(trace(module))
    examples = inputs.of(module, placement)
    Guard(module, examples, placement.graph_module).check_placement(placement)
    return examples.what


class _Differs(Exception):
    """What differs, in one line."""


class Guard:
    """The user's module, run on examples once, to be compared with graphs of it.

    Parameters
    ----------
    module : nn.Module
        Not changed.
    examples : Examples
    graph_module : GraphModule
        The module, traced; names operations for messages.

    Raises
    ------
    ConversionError
        It does not run on them, its outputs are random, or images influence each other.
    """

    def __init__(self, module: nn.Module, examples: Examples, graph_module: fx.GraphModule) -> None:
        self._module, self.examples, self._graph = private_copy(module), examples, graph_module
        self._name = type(self._module).__name__
        self._runs: dict[torch.dtype, _Run] = {}
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            try:
                try:
                    self._run(torch.float32)
                except Exception:
                    if examples.given > 1:
                        raise
                    self.examples = Examples(examples.inputs[:1], examples.what, 1)
                    self._run(torch.float32)
            except Exception as error:  # the network's own code runs here: anything may come out of it
                shape = tuple(examples.inputs.shape)
                raise ConversionError(
                    f"network: does not run on {examples.what} (a batch of shape {shape}): {first_line(error)}"
                ) from None
            self._decide(self._independent)

    @torch.no_grad()
    def check_placement(self, placement: Placement) -> None:
        """Compare the traced graph, batch norm folded into its matrix layers, with the module.

        Raises
        ------
        ConversionError
            They differ; the first module that does is named. Or an input is negative that was shown not to be.
        """
        matrices = {site.node: matrix for _, matrix, site in placement.sites()}
        folded = {site.batch_norm for _, _, site in placement.sites() if site.batch_norm is not None}
        unsigned = {site.node: site.name for _, matrix, site in placement.sites() if not matrix.signed_inputs}

        def check(dtype: torch.dtype, limit: float) -> None:
            run = _Folded(_of_type(placement.graph_module, dtype), matrices, folded, unsigned)
            self._compare(run, dtype, limit)

        try:
            self._decide(check)
        finally:
            placement.graph_module.float()

    @torch.no_grad()
    def check_rewritten(self, graph_module: fx.GraphModule, matrices: dict[str, FloatMatrix]) -> None:
        """Compare the graph whose layers run on crossbars with the module, its products done in floating point.

        Parameters
        ----------
        graph_module : GraphModule
        matrices : dict
            The float layer of every call's name.

        Raises
        ------
        ConversionError
            They differ; the first module that does is named.
        """

        def check(dtype: torch.dtype, limit: float) -> None:
            self._compare(_GraphRun(_of_type(graph_module, dtype)), dtype, limit)
            # and the code made of the graph, which is what runs
            self._compare_outputs(_leaves(graph_module.forward(_as(self.examples.inputs, dtype).clone())), dtype, limit)

        try:
            with _float_products(graph_module, matrices):
                self._decide(check)
        finally:
            graph_module.float()

    # --- comparing ---------------------------------------------------------------------------------------------------

    def _decide(self, check: Any) -> None:
        """Check in float32, and where that finds a difference in float64, which decides where it runs."""
        try:
            check(torch.float32, _CLOSE)
            return
        except _Differs as difference:
            found = difference
        try:
            check(torch.float64, _EXACT)
        except _Differs as difference:
            found = difference
        except Exception:  # a network with types of its own may run in float32 alone
            try:
                check(torch.float32, _LOOSE)
            except _Differs as difference:
                found = difference
            else:
                return
        else:
            return
        raise ConversionError(str(found)) from None

    def _run(self, dtype: torch.dtype) -> _Run:
        if dtype not in self._runs:
            self._runs[dtype] = _Run(_of_type(self._module, dtype), _as(self.examples.inputs, dtype))
        return self._runs[dtype]

    def _independent(self, dtype: torch.dtype, limit: float) -> None:
        """Compare outputs of each image alone with those in the batch."""
        inputs, run = _as(self.examples.inputs, dtype), self._run(dtype)
        for image in range(len(inputs)):
            try:
                alone = _leaves(_of_type(self._module, dtype)(inputs[image : image + 1].clone()))
            except Exception as error:  # the network's own code runs here: anything may come out of it
                raise _Differs(
                    f"network {self._name}: runs on a batch of {len(inputs)} and not on one image: {first_line(error)}"
                ) from None
            if len(alone) != len(run.outputs) or not all(
                _same_image(whole, one, image, len(inputs), limit)
                for whole, one in zip(run.outputs, alone, strict=False)
            ):
                raise _Differs(self._why_dependent(inputs, image, limit))

    def _why_dependent(self, inputs: torch.Tensor, image: int, limit: float) -> str:
        """Which part gives different outputs for one input, or for one image alone and in a batch."""
        one = inputs[image : image + 1]
        runs = [_Values(self._module, given) for given in (one, one, inputs)]
        whole_network = f"network {self._name}"
        for name, first, second in _paired(runs[0], runs[1], whole_network):
            if _difference(first, second)[0] > limit:
                return (
                    f"{name}: gives other outputs for the same input at another call (random numbers, or state that "
                    "its forward changes); expected a function of input and weights in evaluation mode"
                )

        def dependent(alone: _Calls, batch: _Calls) -> Iterator[str]:
            for name, mine, whole in _paired(alone, batch, whole_network):
                if not _same_image(whole, mine, image, len(inputs), limit):
                    yield name

        where = next(dependent(runs[0], runs[2]), whole_network)
        try:  # operations of the graph are finer than modules
            graphs = [_Nodes(_of_type(self._graph, inputs.dtype), given) for given in (one, inputs)]
            where = next(dependent(*graphs), where)
        except Exception:  # it was not compared with the module yet
            pass
        finally:
            self._graph.float()
        return (
            f"{where}: an image's outputs depend on the other images of its batch (something takes the batch, the "
            "first dimension of the input, for steps or reduces over it); expected images that do not influence each "
            "other"
        )

    def _compare(self, graph: _GraphRun, dtype: torch.dtype, limit: float) -> None:
        run = self._run(dtype)
        try:
            outputs = _leaves(graph.run(_as(self.examples.inputs, dtype).clone(), enable_io_processing=False))
        except (RuntimeError, TypeError, IndexError, AttributeError, AssertionError, ValueError) as error:
            if isinstance(error, BitlineError) or dtype is not torch.float32:
                raise
            shape = tuple(self.examples.inputs.shape)
            raise ConversionError(
                f"network: its graph does not run on {self.examples.what} (a batch of shape {shape}): "
                f"{first_line(error)}"
            ) from None
        last = "its input"
        for call, mine in run.calls.items():
            theirs = graph.calls.get(call)
            if theirs is None:
                continue
            if mine.shape != theirs.shape or _difference(mine, theirs)[0] > limit:
                raise _Differs(self._different(f"layer {call[0]}", last, mine, theirs))
            last = f"layer {call[0]}"
        if graph.negative is not None:
            raise _Differs(f"layer {graph.negative}: reads negative numbers that its graph says it never reads")
        self._compare_outputs(outputs, dtype, limit, last)

    def _compare_outputs(
        self, outputs: list[torch.Tensor], dtype: torch.dtype, limit: float, last: str = "its modules"
    ) -> None:
        expected = self._run(dtype).outputs
        if len(outputs) != len(expected):
            raise _Differs(
                f"network {self._name}: its graph returns {len(outputs)} tensors, the module {len(expected)}"
            )
        for mine, theirs in zip(expected, outputs, strict=True):
            if mine.shape != theirs.shape or _difference(mine, theirs)[0] > limit:
                raise _Differs(self._different(f"network {self._name}", last, mine, theirs))

    def _different(self, what: str, last: str, mine: torch.Tensor, theirs: torch.Tensor) -> str:
        if mine.shape != theirs.shape:
            how = f"has another shape there, {tuple(theirs.shape)} for {tuple(mine.shape)}"
        else:
            relative, scale = _difference(mine, theirs)
            how = f"is off by {relative * scale:.2g} of {scale:.2g}"
        return (
            f"{what}: the traced network {how}, on {self.examples.what} (equal up to {last}); its forward does "
            "something that cannot be carried over to crossbars"
        )


def _as(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return x.to(dtype) if x.is_floating_point() else x


def _of_type(module: Any, dtype: torch.dtype) -> Any:
    return module.float() if dtype is torch.float32 else module.double()  # and leave complex numbers alone


def _leaves(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _difference(a: torch.Tensor, b: torch.Tensor) -> tuple[float, float]:
    """Largest difference, of the largest finite magnitude of ``a``, and that; numbers not finite must be the same."""
    if a.numel() == 0:
        return 0.0, 0.0
    wide = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
    a, b = a.to(wide), b.to(wide)
    finite = torch.isfinite(a)
    if not torch.equal(finite, torch.isfinite(b)) or not torch.equal(
        torch.nan_to_num(torch.view_as_real(a) if a.is_complex() else a)[~finite],
        torch.nan_to_num(torch.view_as_real(b) if b.is_complex() else b)[~finite],
    ):
        return float("inf"), 1.0
    a, b = a[finite], b[finite]
    if a.numel() == 0:
        return 0.0, 0.0
    scale = float(a.abs().max())
    largest = float((a - b).abs().max())
    return (0.0 if largest == 0 else largest / scale if scale else float("inf")), scale or 1.0


def _same_image(whole: torch.Tensor, alone: torch.Tensor, image: int, images: int, limit: float) -> bool:
    """Whether what belongs to one image of a batch's tensor equals that of the image alone, whatever its layout."""
    if whole.numel() == alone.numel():  # nothing of an image, such as a table of positions
        return whole.shape == alone.shape and _difference(whole, alone)[0] <= limit
    if whole.numel() != images * alone.numel():
        return False
    one = alone.reshape(-1)
    for dimension, size in enumerate(whole.shape):
        if size % images:
            continue
        rest = size // images
        for outer in (True, False):  # all of an image together, or image after image at every place
            shape = (images, rest) if outer else (rest, images)
            parts = whole.reshape(*whole.shape[:dimension], *shape, *whole.shape[dimension + 1 :])
            mine = parts.select(dimension if outer else dimension + 1, image).reshape(-1)
            if _difference(mine, one)[0] <= limit:
                return True
    return False


def _sample(value: Any) -> torch.Tensor | None:
    """Evenly spaced numbers of a result's first tensor, copied before anything overwrites it."""
    first = next(iter(_leaves(value)), None)
    if first is None:
        return None
    flat = first.detach().reshape(-1)
    return flat[:: max(1, -(-flat.numel() // _SAMPLE))].clone()


def _listened(module: nn.Module, inputs: torch.Tensor, hear: Any) -> list[torch.Tensor]:
    """Run a module and tell every call of a part of it: name, number of the call, result. Its outputs."""
    counts: dict[str, int] = {}
    handles = []

    def hook_of(name: str) -> Any:
        def hook(part: nn.Module, arguments: Any, result: Any) -> None:
            hear(name, counts[name], result)

        return hook

    def before_of(name: str) -> Any:
        def before(part: nn.Module, arguments: Any) -> None:
            counts[name] = counts.get(name, 0) + 1

        return before

    for name, part in module.named_modules():
        if name and not isinstance(part, torch.jit.ScriptModule):
            handles.append(part.register_forward_pre_hook(before_of(name)))
            handles.append(part.register_forward_hook(hook_of(name)))
    try:
        return [leaf.clone() for leaf in _leaves(module(inputs.clone()))]
    finally:
        for handle in handles:
            handle.remove()


class _Run:
    """Outputs of the module, and a sample of those of every call of its parts, in the order in which they end."""

    def __init__(self, module: nn.Module, inputs: torch.Tensor) -> None:
        self.calls: dict[Call, torch.Tensor] = {}
        self.outputs = _listened(module, inputs, self._hear)

    def _hear(self, name: str, number: int, result: Any) -> None:
        sample = _sample(result)
        if sample is not None:
            self.calls[name, number] = sample


class _Calls(Protocol):
    """Named results in the order in which they came, and what came out."""

    calls: list[tuple[str, torch.Tensor]]
    outputs: list[torch.Tensor]


class _Values:
    """Whole results of a module's parts."""

    def __init__(self, module: nn.Module, inputs: torch.Tensor) -> None:
        self.calls: list[tuple[str, torch.Tensor]] = []
        self.outputs = _listened(module, inputs, self._hear)

    def _hear(self, name: str, number: int, result: Any) -> None:
        self.calls += [(f"layer {name}", leaf.clone()) for leaf in _leaves(result)]


class _Nodes(fx.Interpreter):
    """Whole results of a graph's operations."""

    def __init__(self, graph_module: fx.GraphModule, inputs: torch.Tensor) -> None:
        super().__init__(graph_module)
        self.extra_traceback = False
        self.calls: list[tuple[str, torch.Tensor]] = []
        self.outputs = _leaves(self.run(inputs.clone(), enable_io_processing=False))

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        name = f"layer {n.target}" if n.op == "call_module" else f"network: {n.name}"
        if n.op != "call_module" and n.meta.get("path"):
            name += f" in {n.meta['path']}"
        if n.op not in ("output", "placeholder"):
            self.calls += [(name, leaf.clone()) for leaf in _leaves(result)]
        return result


def _paired(a: _Calls, b: _Calls, whole: str) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Results of two runs of the same, as long as both do the same; then what came out."""
    for (name, first), (other, second) in zip(a.calls, b.calls, strict=False):
        if name != other:
            break
        yield name, first, second
    for first, second in zip(a.outputs, b.outputs, strict=False):
        yield whole, first, second


# --- graphs ----------------------------------------------------------------------------------------------------------


def product(matrix: FloatMatrix, x: torch.Tensor) -> torch.Tensor:
    """What a matrix layer with its batch norm folded in makes of an input, in the input's own type."""
    groups, _, columns = matrix.weight.shape
    weight = torch.from_numpy(np.ascontiguousarray(matrix.weight.transpose(0, 2, 1))).to(x.dtype)
    bias = None if matrix.bias is None else torch.from_numpy(matrix.bias.reshape(-1)).to(x.dtype)
    window = matrix.window
    if matrix.kind.multiplies_vectors:
        return F.linear(x, weight.reshape(groups * columns, -1), bias)
    left, right, top, bottom = window.padding
    mode = "constant" if matrix.padding_mode == "zeros" else matrix.padding_mode
    flat = matrix.kind is LayerKind.CONV1D
    sides = (left, right) if flat else (left, right, top, bottom)
    if any(sides):
        x = F.pad(x, sides, mode=mode)
    if flat:
        weight = weight.reshape(groups * columns, -1, window.kernel[1])
        return F.conv1d(x, weight, bias, window.stride[1], 0, window.dilation[1], groups)
    weight = weight.reshape(groups * columns, -1, *window.kernel)
    return F.conv2d(x, weight, bias, window.stride, 0, window.dilation, groups)


class _GraphRun(fx.Interpreter):
    """Runs a graph and samples what every call of a module gives."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        self.extra_traceback = False  # messages stay one line
        self.calls: dict[Call, torch.Tensor] = {}
        self.negative: str | None = None
        """The first layer that reads negative numbers, though its inputs were shown not to be."""

    def run_node(self, n: fx.Node) -> Any:
        return self._note(n, super().run_node(n))

    def _note(self, node: fx.Node, result: Any) -> Any:
        call, sample = node.meta.get("call"), _sample(result)
        if call is not None and sample is not None:
            self.calls[call] = sample
        return result


class _Folded(_GraphRun):
    """The traced graph, its matrix layers with batch norm folded in."""

    def __init__(
        self,
        graph_module: fx.GraphModule,
        matrices: dict[fx.Node, FloatMatrix],
        folded: set[fx.Node],
        unsigned: dict[fx.Node, str],
    ) -> None:
        super().__init__(graph_module)
        self._matrices, self._norms, self._unsigned = matrices, folded, unsigned

    def run_node(self, n: fx.Node) -> Any:
        if n in self._unsigned and self.negative is None:
            read = self.env.get(argument(n, 0, "input"))
            recurrent = self._matrices[n].kind is LayerKind.RECURRENT
            if not recurrent and isinstance(read, torch.Tensor) and bool((read < 0).any()):
                self.negative = self._unsigned[n]
        if n in self._norms:
            return self._note(n, self.fetch_args_kwargs_from_env(n)[0][0])
        matrix = self._matrices.get(n)
        if matrix is None or matrix.kind is LayerKind.RECURRENT:
            return super().run_node(n)
        result = product(matrix, self.env[argument(n, 0, "input")])
        if any(user in self._norms for user in n.users):
            return result
        return self._note(n, result)


@contextmanager
def _float_products(graph_module: fx.GraphModule, matrices: dict[str, FloatMatrix]) -> Iterator[None]:
    """Let the layers on crossbars compute float products, and lay them out as they do theirs."""

    def forward_of(module: CrossbarModule) -> Any:
        def forward(x: torch.Tensor) -> torch.Tensor:
            result = product(matrices[module.name], x)
            return result.contiguous(memory_format=torch.channels_last) if module.channels_last else result

        return forward

    modules = [module for module in graph_module.modules() if isinstance(module, CrossbarModule)]
    for module in modules:
        vars(module)["forward"] = forward_of(module)
    try:
        yield
    finally:
        for module in modules:
            del vars(module)["forward"]
