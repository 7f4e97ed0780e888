"""A network as a torch.fx graph that Bitline may rewrite: a private copy, in evaluation mode, traced and tidied."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_arg
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.nn.utils import prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from bitline.errors import ConversionError
from bitline.layers import LayerKind
from bitline.network.recurrent import Recurrence, is_recurrent, unfold

__all__ = ["constant", "fixed_batch_norm", "kind_of", "private_copy", "single_input", "tensor_arguments", "trace"]

_KINDS: tuple[tuple[type[nn.Module], LayerKind], ...] = (
    (nn.Conv1d, LayerKind.CONV1D),
    (nn.Conv2d, LayerKind.CONV2D),
    (nn.Linear, LayerKind.LINEAR),
    (Recurrence, LayerKind.RECURRENT),
)
_BATCH_NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
_IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_DROPOUTS = {nn.functional.dropout, nn.functional.dropout1d, nn.functional.dropout2d, nn.functional.alpha_dropout}
_WEIGHT_HOOKS = (prune.BasePruningMethod, SpectralNorm, WeightNorm)
"""Hooks of torch.nn.utils that compute ``weight`` from other parameters just before the forward."""


def _runs_forward_of(module: nn.Module, base: type[nn.Module]) -> bool:
    """Whether calling ``module`` runs the base class's arithmetic and not an override of a subclass."""
    methods = ("forward", "_conv_forward") if hasattr(base, "_conv_forward") else ("forward",)
    return "forward" not in vars(module) and all(getattr(type(module), m) is getattr(base, m) for m in methods)


def kind_of(module: nn.Module) -> LayerKind | None:
    """What kind of matrix layer a module is, or None where crossbars cannot hold it.

    Subclasses of ``nn.Conv1d``, ``nn.Conv2d`` and ``nn.Linear`` count when they keep the forward of their base.
    """
    for base, kind in _KINDS:
        if isinstance(module, base) and _runs_forward_of(module, base):
            return kind
    return None


def fixed_batch_norm(module: nn.Module) -> _BatchNorm | None:
    """Return the module where it is a batch norm with fixed statistics, one that can be folded, else None."""
    for base in _BATCH_NORMS:
        if isinstance(module, base) and _runs_forward_of(module, base):
            assert isinstance(module, _BatchNorm)
            return module if module.running_var is not None and module.running_mean is not None else None
    return None


class _Tracer(fx.Tracer):
    """Keeps matrix layers and batch norms whole, and notes in which module each node arose (``node.meta["path"]``)."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if kind_of(m) is not None or fixed_batch_norm(m) is not None or is_recurrent(m):
            return True
        return super().is_leaf_module(m, module_qualified_name)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node: fx.Node = super().create_node(*args, **kwargs)
        node.meta["path"] = next(reversed(self.module_stack), "")
        return node


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def private_copy(module: nn.Module) -> nn.Module:
    """Copy a network so that nothing done to the copy reaches the caller's: on the CPU, in evaluation mode.

    Weights that ``torch.nn.utils`` derives by a hook (pruning masks, weight and spectral norm) are brought up to date.

    Raises
    ------
    ConversionError
        Not a module, a scripted module, or one whose weights do not exist yet.
    """
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        module = module.module
    if not isinstance(module, nn.Module):
        raise ConversionError(f"network: expected a torch.nn.Module, got {type(module).__name__}")
    if isinstance(module, torch.jit.ScriptModule):
        raise ConversionError("network: a TorchScript module cannot be traced again; pass the original nn.Module")
    memo: dict[int, Any] = {}
    for name, part in module.named_modules():
        for key, value in [*part._parameters.items(), *part._buffers.items(), *vars(part).items()]:
            if not isinstance(value, torch.Tensor):
                continue
            if isinstance(value, (UninitializedParameter, UninitializedBuffer)) or value.is_meta:
                where = f"{name}.{key}" if name else key
                raise ConversionError(f"network: {where} has no values (lazy or meta); load or initialise it first")
            if not value.is_leaf:  # as pruning leaves it; deepcopy refuses tensors with a history
                memo[id(value)] = value.detach().clone()
    twin: nn.Module = copy.deepcopy(module, memo).cpu().eval()
    with torch.no_grad():
        for part in twin.modules():
            for hook in part._forward_pre_hooks.values():
                if isinstance(hook, _WEIGHT_HOOKS):
                    hook(part, None)
    return twin.requires_grad_(False)


def _defaults(module: nn.Module) -> dict[str, Any]:
    """Defaults of the forward's optional arguments: what a caller that gives one input leaves them at."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    return {
        p.name: p.default
        for p in parameters[1:]
        if p.default is not p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }


def trace(module: nn.Module) -> fx.GraphModule:
    """Trace a network into a graph of its own copy, without dropout, identities and unused results.

    Leaves are the modules of ``torch.nn``; everything else is traced through. LSTM and GRU layers become their two
    products and a recurrence (:func:`bitline.network.recurrent.unfold`).

    Raises
    ------
    ConversionError
        The forward cannot be traced, or takes other than one tensor.
    """
    twin = private_copy(module)
    name = type(twin).__name__
    if is_recurrent(twin):
        twin = nn.Sequential(twin)  # a leaf needs a caller
    tracer = _Tracer()
    try:
        graph = tracer.trace(twin, concrete_args=_defaults(twin))
        graph_module = fx.GraphModule(tracer.root, graph, name)
    except Exception as error:  # the network's own code runs here: anything may come out of it
        raise ConversionError(
            f"network {name}: torch.fx cannot trace its forward ({_first_line(error)}); "
            "move data-dependent control flow out of it, or into a function marked with torch.fx.wrap"
        ) from None
    single_input(graph_module)
    _remove_identities(graph_module)
    unfold(graph_module)
    remove_unused(graph_module)
    graph_module.recompile()
    return graph_module


def single_input(graph_module: fx.GraphModule) -> fx.Node:
    """Return the node of the network's only input.

    Raises
    ------
    ConversionError
        None, or several without default values.
    """
    inputs: list[fx.Node] = [node for node in graph_module.graph.nodes if node.op == "placeholder" and not node.args]
    if len(inputs) != 1:
        names = ", ".join(node.name for node in inputs) or "none"
        raise ConversionError(f"network: expected a forward with one tensor argument, found {len(inputs)} ({names})")
    return inputs[0]


def tensor_arguments(node: fx.Node) -> Iterator[fx.Node]:
    """All nodes a node reads, in order of its arguments, each as often as it is read."""
    found: list[fx.Node] = []
    map_arg((node.args, node.kwargs), found.append)
    return iter(found)


def argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    """Argument of a call by position or, where it was not given so, by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _remove_identities(graph_module: fx.GraphModule) -> None:
    for node in list(graph_module.graph.nodes):
        identity = (
            node.op == "call_module" and isinstance(graph_module.get_submodule(str(node.target)), _IDENTITIES)
        ) or (node.op == "call_function" and node.target in _DROPOUTS and not argument(node, 2, "training", True))
        if identity and len(node.args) >= 1 and isinstance(node.args[0], fx.Node):
            node.replace_all_uses_with(node.args[0])
            graph_module.graph.erase_node(node)


def is_inplace(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node overwrites what it reads, so that it matters even when its result is not used."""
    if node.op == "call_module":
        return bool(getattr(graph_module.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    if node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        in_operator = getattr(node.target, "__module__", "") == "_operator" and name in _INPLACE_OPERATORS
        ends = name.endswith("_") and not name.endswith("__")
        # F.relu(input, inplace=False) and its like may be called by position
        by_position = name in _INPLACE_SECOND and len(node.args) > 1 and node.args[1] is True
        return bool(in_operator or ends or by_position or node.kwargs.get("inplace") or "out" in node.kwargs)
    return False


_INPLACE_OPERATORS = {"iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "setitem"}
_INPLACE_SECOND = {"relu", "relu6", "selu", "silu", "mish", "hardswish", "hardsigmoid"}


def remove_unused(graph_module: fx.GraphModule) -> None:
    """Erase nodes whose result nobody reads, except those that overwrite their argument."""
    for node in reversed(list(graph_module.graph.nodes)):
        if node.users or node.op in ("placeholder", "output") or is_inplace(graph_module, node):
            continue
        graph_module.graph.erase_node(node)


def attribute(graph_module: fx.GraphModule, target: str) -> Any:
    """Value of a ``get_attr`` node's dotted target."""
    value: Any = graph_module
    for part in target.split("."):
        value = getattr(value, part)
    return value


def constant(graph_module: fx.GraphModule, value: Any) -> Any:
    """Evaluate an argument that depends on the network's parameters alone.

    Returns
    -------
    Any
        The value; a tensor for a parameter or for arithmetic on parameters.

    Raises
    ------
    LookupError
        It depends on the network's input.
    """
    if not isinstance(value, fx.Node):
        if any(True for _ in _nodes_in(value)):
            return map_arg(value, lambda node: constant(graph_module, node))
        return value
    if value.op == "get_attr":
        return attribute(graph_module, str(value.target))
    if value.op not in ("call_function", "call_method") or not list(tensor_arguments(value)):
        raise LookupError(value.name)
    arguments = map_arg(value.args, lambda node: constant(graph_module, node))
    keywords = map_arg(value.kwargs, lambda node: constant(graph_module, node))
    with torch.no_grad():
        if value.op == "call_method":
            return getattr(arguments[0], str(value.target))(*arguments[1:], **keywords)
        return value.target(*arguments, **keywords)  # type: ignore[operator]


def _nodes_in(value: Any) -> Iterator[fx.Node]:
    found: list[fx.Node] = []
    map_arg(value, found.append)
    return iter(found)
