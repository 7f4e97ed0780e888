"""A network as a torch.fx graph that Bitline may rewrite: a private copy, in evaluation mode, traced and tidied."""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_arg
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from bitline.errors import ConversionError
from bitline.layers import LayerKind
from bitline.network.aliases import follow_overwritten, is_inplace, is_size
from bitline.network.recurrent import Recurrence, is_recurrent, unfold
from bitline.network.traps import WEIGHT_HOOKS, refuse_hooks, refuse_operations, refuse_training, special_tensor

__all__ = [
    "constant",
    "first_line",
    "fixed_batch_norm",
    "kind_of",
    "private_copy",
    "single_input",
    "tensor_arguments",
    "trace",
]

_KINDS: tuple[tuple[type[nn.Module], LayerKind], ...] = (
    (nn.Conv1d, LayerKind.CONV1D),
    (nn.Conv2d, LayerKind.CONV2D),
    (nn.Linear, LayerKind.LINEAR),
    (Recurrence, LayerKind.RECURRENT),
)
_BATCH_NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
_IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_DROPOUTS = {nn.functional.dropout, nn.functional.dropout1d, nn.functional.dropout2d, nn.functional.alpha_dropout}


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


class _Proxy(fx.Proxy):
    """A value while the network is traced; unlike fx's own, ``y += 5`` and ``y[0] = 1`` overwrite what they name."""

    def __getattr__(self, k: str) -> Any:
        return _Attribute(self, k)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("tracer", "node", "root", "attr", "_node"):
            raise TypeError(f"the forward sets the attribute {name} of a tensor")
        object.__setattr__(self, name, value)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})


class _Attribute(_Proxy):
    """An attribute of a value, such as ``shape``; becomes a node when it is used and no call."""

    def __init__(self, root: fx.Proxy, attr: str) -> None:
        self.root, self.attr, self.tracer = root, attr, root.tracer
        self._node: fx.Node | None = None

    @property
    def node(self) -> fx.Node:  # type: ignore[override]
        if self._node is None:
            self._node = self.tracer.create_proxy("call_function", getattr, (self.root, self.attr), {}).node
        return self._node

    def __call__(self, *args: Any, **kwargs: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_method", self.attr, (self.root, *args), kwargs)


def _overwriting(name: str) -> Any:
    overwrite: Any = getattr(operator, f"i{name}")
    compute: Any = getattr(operator, f"{name}_" if name in ("and", "or") else name)

    def method(self: fx.Proxy, other: Any) -> fx.Proxy:
        # a number is not overwritten: whoever else holds it keeps it
        function = compute if is_size(self.node) else overwrite
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return method


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "matmul"):
    setattr(_Proxy, f"__i{_name}__", _overwriting(_name))


class _Tracer(fx.Tracer):
    """Keeps matrix layers and batch norms whole, and notes where each node arose.

    ``node.meta["path"]`` is the module whose forward made it, ``node.meta["call"]`` of a called module its name and the
    number of the call.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[str, int] = {}
        self.random_module: str | None = None
        """The first module to end its forward after random numbers were drawn in it."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if "forward" in vars(m):  # replaced on this one object: it no longer does what its class does
            return False
        if kind_of(m) is not None or fixed_batch_norm(m) is not None or is_recurrent(m):
            return True
        return super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        before = torch.random.get_rng_state()
        result = super().call_module(m, forward, args, kwargs)
        if self.random_module is None and not torch.equal(before, torch.random.get_rng_state()):
            self.random_module = f"layer {self.path_of_module(m)}"
        return result

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node: fx.Node = super().create_node(*args, **kwargs)
        path = next(reversed(self.module_stack), "")
        node.meta["path"] = path
        if node.op == "call_module":
            number = self._calls[str(node.target)] = self._calls.get(str(node.target), 0) + 1
            node.meta["call"] = (str(node.target), number)
        if torch.is_autocast_enabled("cpu"):
            raise ConversionError(
                f"network: {path or 'its forward'} computes under torch.autocast, which rounds to shorter numbers; "
                "remove it, crossbars have number formats of their own"
            )
        return node


def first_line(error: BaseException) -> str:
    """What an error of the network's own code says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def private_copy(module: nn.Module) -> nn.Module:
    """Copy a network so that nothing done to the copy reaches the caller's: on the CPU, in evaluation mode.

    Weights that ``torch.nn.utils`` derives by a hook (pruning masks, weight and spectral norm) are brought up to date.

    Raises
    ------
    ConversionError
        Not a module, a scripted module, one whose weights do not exist yet; hooks, or layers that stay in training mode
        (:mod:`bitline.network.traps`).
    """
    for wrapped in ("module", "_orig_mod"):
        parallel = isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel))
        inner = getattr(module, wrapped, None) if parallel or wrapped == "_orig_mod" else None  # of torch.compile
        if isinstance(inner, nn.Module):
            refuse_hooks(module, inside=False)
            module = inner
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
    refuse_hooks(module)
    twin: nn.Module = copy.deepcopy(module, memo).cpu().eval()
    with torch.no_grad():
        for part in twin.modules():
            for hook in part._forward_pre_hooks.values():
                if isinstance(hook, WEIGHT_HOOKS):
                    hook(part, None)
    refuse_training(twin)
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
        The forward cannot be traced, takes other than one tensor, or does what a graph cannot carry
        (:mod:`bitline.network.traps`).
    """
    if isinstance(module, nn.Module) and (special := special_tensor(module)) is not None:
        raise ConversionError(f"network {type(module).__name__}: {special}")
    twin = private_copy(module)
    name = type(twin).__name__
    if is_recurrent(twin):
        twin = nn.Sequential(twin)  # a leaf needs a caller
    tracer = _Tracer()
    before = torch.random.get_rng_state()
    try:
        graph = tracer.trace(twin, concrete_args=_defaults(twin))
        graph_module = fx.GraphModule(tracer.root, graph, name)
    except ConversionError:
        raise
    except Exception as error:  # the network's own code runs here: anything may come out of it
        raise ConversionError(
            f"network {name}: torch.fx cannot trace its forward ({first_line(error)}); "
            "move data-dependent control flow out of it; what a function marked with torch.fx.wrap multiplies is not "
            "placed on crossbars, only listed"
            "move data-dependent control flow out of it; what a function marked with torch.fx.wrap multiplies is not "
            "placed on crossbars, only listed"
        ) from None
    if not torch.equal(before, torch.random.get_rng_state()):
        where = tracer.random_module or f"network {name}"
        raise ConversionError(f"{where}: its forward draws random numbers in evaluation mode, expected none")
    single_input(graph_module)
    refuse_operations(graph_module)
    _remove_identities(graph_module)
    follow_overwritten(graph_module)
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
        # nothing learns here
        identity = identity or (node.op == "call_method" and node.target in ("detach_", "requires_grad_"))
        if identity and len(node.args) >= 1 and isinstance(node.args[0], fx.Node):
            node.replace_all_uses_with(node.args[0])
            graph_module.graph.erase_node(node)


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
