"""What a traced graph cannot carry, found without running the network and refused by name.

What is only seen when the network runs is found by :mod:`bitline.network.guard`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules import module as torch_module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.nn.utils import prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from bitline.errors import ConversionError
from bitline.network.aliases import bound, overwritten, shared_memory
from bitline.printable import clean

__all__ = ["WEIGHT_HOOKS", "refuse_hooks", "refuse_operations", "refuse_training", "special_tensor"]

WEIGHT_HOOKS = (prune.BasePruningMethod, SpectralNorm, WeightNorm)
"""Hooks of torch.nn.utils that compute ``weight`` from other parameters just before the forward."""

_RANDOM = {
    "rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm", "bernoulli", "multinomial",
    "normal", "poisson", "gumbel_softmax",
}  # fmt: skip
_RANDOM_METHODS = {
    "bernoulli", "bernoulli_", "multinomial", "normal_", "uniform_", "random_", "exponential_", "cauchy_",
    "log_normal_", "geometric_",
}  # fmt: skip
_RANDOM_IN_TRAINING = ("drop", "rrelu", "stochastic_depth")


def _where(name: str, module: nn.Module) -> str:
    return f"layer {name}" if name else f"network {type(module).__name__}"


def refuse_hooks(module: nn.Module, *, inside: bool = True) -> None:
    """Refuse hooks that change what a module reads or returns: a graph calls some modules and not others.

    Parameters
    ----------
    module : nn.Module
    inside : bool
        False for a module of torch's that wraps the network: it alone is looked at.

    Raises
    ------
    ConversionError
        A forward hook or forward pre-hook on any module or on all (the first is named), other than
        ``torch.nn.utils``'s own that compute a weight; or a network whose ``__call__`` is its own.
    """
    for kind, hooks in (
        ("forward hook", torch_module._global_forward_hooks),
        ("forward pre-hook", torch_module._global_forward_pre_hooks),
    ):
        for hook in hooks.values():
            raise ConversionError(
                f"network {type(module).__name__}: a {kind} on all modules ({_hook_name(hook)}) is registered; "
                "remove it before, crossbars do not run it"
            )
    for name, part in module.named_modules() if inside else [("", module)]:
        for kind, hooks in (("forward hook", part._forward_hooks), ("forward pre-hook", part._forward_pre_hooks)):
            for hook in hooks.values():
                if not isinstance(hook, WEIGHT_HOOKS):
                    raise ConversionError(
                        f"{_where(name, part)}: has a {kind} ({_hook_name(hook)}), which crossbars do not run; remove "
                        "it by its handle, and write what it changes into a forward or into the weights"
                    )
    if inside and type(module).__call__ is not nn.Module.__call__:
        raise ConversionError(
            f"network {type(module).__name__}: has a __call__ of its own, expected all of it in its forward"
        )


def _hook_name(hook: Any) -> str:
    return str(getattr(hook, "__qualname__", type(hook).__name__))


def refuse_training(module: nn.Module) -> None:
    """Refuse layers that stay in training mode when the network is put into evaluation mode.

    Raises
    ------
    ConversionError
        A dropout, batch or instance norm does (a network may override ``train``); it is named.
    """
    for name, part in module.named_modules():
        if part.training and isinstance(part, (_DropoutNd, _BatchNorm, _InstanceNorm, nn.RNNBase, nn.RReLU)):
            raise ConversionError(
                f"{_where(name, part)}: {type(part).__name__} stays in training mode after eval(), so its outputs are "
                "random or depend on the batch; expected a network that eval() puts into evaluation mode"
            )


def refuse_operations(graph_module: fx.GraphModule) -> None:
    """Refuse operations whose result is not a function of one image and the weights.

    Raises
    ------
    ConversionError
        Statistics of the batch, random numbers, or parameters and buffers that the forward overwrites; the layer or
        operation is named.
    """
    roots = shared_memory(graph_module)
    for node in graph_module.graph.nodes:
        place = f" in {node.meta['path']}" if node.meta.get("path") else ""
        name = str(node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.target))
        if node.op == "call_module":
            module = graph_module.get_submodule(name)
            if isinstance(module, _BatchNorm) and (module.running_mean is None or module.running_var is None):
                raise ConversionError(
                    f"layer {name}: a {type(module).__name__} without running statistics takes those of the batch, so "
                    "that images influence each other; expected track_running_stats"
                )
        elif _is_batch_statistics(node):
            raise ConversionError(
                f"network: {name}{place} normalises by the batch's own statistics, so that images influence each "
                "other; expected running statistics in evaluation mode"
            )
        elif _is_random(node, name):
            raise ConversionError(
                f"network: {name}{place} draws random numbers in evaluation mode; expected the same outputs at every "
                "call (dropout: pass training=self.training)"
            )
        for written in overwritten(graph_module, node):
            for root in roots[written]:
                if root.op == "get_attr":
                    raise ConversionError(
                        f"network: {name}{place} overwrites {root.target}, so that outputs depend on earlier calls; "
                        "expected a forward that leaves parameters and buffers alone"
                    )


def _is_batch_statistics(node: fx.Node) -> bool:
    if node.op != "call_function" or node.target is not nn.functional.batch_norm:
        return False
    return bool(bound(node, "training")) or bound(node, "running_mean") is None or bound(node, "running_var") is None


def _is_random(node: fx.Node, name: str) -> bool:
    if node.op == "call_method":
        return name in _RANDOM_METHODS
    if node.op != "call_function":
        return False
    if any(part in name for part in _RANDOM_IN_TRAINING):
        # torch.dropout and its like are written in C++: (input, p, train)
        third = node.args[2] if len(node.args) > 2 else node.kwargs.get("train", False)
        return bound(node, "training", third if getattr(torch, name, None) is node.target else False) is True
    return name in _RANDOM and getattr(torch, name, getattr(nn.functional, name, None)) is node.target


def special_tensor(module: nn.Module) -> str | None:
    """A parameter or buffer of a class of another library, such as torchao's quantised weights, in words; or None.

    Their values are no array of numbers that can be read off; NumPy and folding meet them with errors of their own.
    """
    plain = (torch.Tensor, nn.Parameter, nn.Buffer, UninitializedParameter, UninitializedBuffer)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if type(tensor) not in plain:
            return (
                f"its '{clean(name)}' is a tensor of a special class ({type(tensor).__name__}), as quantising "
                "libraries use; expected a module of plain float weights, before it is quantised"
            )
    return None
