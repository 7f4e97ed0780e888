"""A checkpoint's network, built and loaded: recognised from its weights, named, or the user's own module."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from bitline.errors import ArchitectureError, ShapeError
from bitline.network.checkpoint import Checkpoint, printable
from bitline.network.key_names import odd_keys, plain_name
from bitline.network.recognition import ARCHITECTURES, Recognised, Shapes, Standard, recognise
from bitline.network.traps import special_tensor
from bitline.printable import clean

__all__ = ["Network", "build_architecture", "build_network", "check_input", "list_architectures"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A network in evaluation mode with its weights, and what is known about its inputs."""

    module: nn.Module
    architecture: str
    """One of :func:`list_architectures`, or ``package.module:factory``."""
    classes: int | None
    """Outputs; None where the module is the user's own."""
    input_shape: tuple[int, int, int] | None = None
    """Usual (channels, height, width) of one input, where it is known."""
    normalisation: str | None = None
    """Name of the input normalisation that the weights expect, where it is known."""
    resize: int | None = None
    """Short side to resize images to before the crop, where it is known."""
    crop: int | None = None
    """Side of the centre crop, where it is known."""
    assumptions: tuple[str, ...] = ()
    """What neither names nor shapes tell and was taken as usual, a sentence each."""
    alternatives: tuple[str, ...] = ()
    """Other architectures that have the same weights, where nobody said which it is."""
    label_offset: int = 0
    """What to add to a class number to get its output: 1 where output 0 is the background."""


def list_architectures() -> list[str]:
    """Names that ``arch`` may be, besides ``package.module:factory``."""
    return sorted(ARCHITECTURES)


def build_network(checkpoint: Checkpoint, arch: str | None = None) -> Network:
    """The network of a checkpoint, with its weights, ready to run.

    Parameters
    ----------
    checkpoint : Checkpoint
        Loaded weights.
    arch : str, optional
        One of :func:`list_architectures` (widths, depth and classes still come from the shapes), or
        ``package.module:factory``: an ``nn.Module`` class or a function without arguments that returns one, imported
        from the current folder or the Python path. By default the checkpoint's own ``architecture`` entry,
        else recognised.

    Returns
    -------
    Network

    Raises
    ------
    ArchitectureError
        Unknown architecture, a factory that fails, or weights of another architecture (the first keys that differ).
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in checkpoint.state_dict.items()}
    named = checkpoint.metadata.get("architecture")
    if arch is None and named in ARCHITECTURES:
        arch = named
    if arch is not None and ":" in arch:
        module = _users_module(arch)
        _load(module, checkpoint, arch)
        return _finished(Network(module=module, architecture=arch, classes=None), checkpoint)
    if arch is not None:
        found = _as_named(arch, shapes, checkpoint)
    else:
        recognised = recognise(shapes)
        if recognised is None:
            some = _first(list(shapes))
            raise ArchitectureError(
                f"{_name(checkpoint)}: no known architecture has these weights ({len(shapes)} tensors: {some}"
                f"{_odd(shapes)}); name one with --arch NAME or --arch package.module:factory"
            )
        found = recognised
    module = _without_memory(found.build)
    _load(module, checkpoint, found.name)
    network = Network(
        module=module,
        architecture=found.name,
        classes=found.classes,
        input_shape=found.input_shape,
        normalisation=found.normalisation,
        resize=found.resize,
        crop=found.crop,
        assumptions=found.assumptions,
        alternatives=found.alternatives,
        label_offset=found.label_offset,
    )
    return _finished(network, checkpoint)


def build_architecture(
    name: str, *, classes: int | None = None, in_channels: int | None = None, seed: int = 0
) -> Network:
    """A network of ours without a checkpoint, its weights random; for prices and shapes, not for accuracies.

    Parameters
    ----------
    name : str
        One of :func:`list_architectures`, or ``package.module:factory``.
    classes, in_channels : int, optional
        Outputs and input channels; by default the architecture's usual ones.
    seed : int, default 0
        Of the random weights.

    Raises
    ------
    ArchitectureError
        Unknown architecture, or a factory that fails.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if ":" in name:
            network = Network(module=_users_module(name), architecture=name, classes=None)
        else:
            standard = _standard(name)
            wanted = classes or standard.classes, in_channels or standard.in_channels
            module = standard.build(*wanted)
            shapes = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
            found = standard.recognise(shapes)
            assert found is not None, f"{name} does not recognise its own weights"
            network = Network(
                module=module,
                architecture=name,
                classes=wanted[0],
                input_shape=found.input_shape,
                normalisation=found.normalisation,
                resize=found.resize,
                crop=found.crop,
                label_offset=found.label_offset,
            )
    return replace(network, module=_frozen(network.module))


def check_input(network: Network, shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Run one blank input of a shape through a network.

    Parameters
    ----------
    network : Network
        Any network.
    shape : tuple of int
        (channels, height, width) of one input.

    Returns
    -------
    tuple of int
        Shape of one output.

    Raises
    ------
    ShapeError
        The network does not take inputs of this shape.
    """
    try:
        with torch.no_grad():
            output = network.module(torch.zeros(1, *shape))
    # The user's own module may raise anything for inputs it was not made for.
    except Exception as error:
        usual = f"; it usually takes {_times(network.input_shape)}" if network.input_shape else ""
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ShapeError(
            f"network '{network.architecture}' does not take inputs of {_times(shape)}{usual} ({reason})"
        ) from None
    return tuple(output.shape[1:]) if isinstance(output, Tensor) else ()


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _finished(network: Network, checkpoint: Checkpoint) -> Network:
    """With what the checkpoint itself says about its inputs, and no gradients."""
    metadata = checkpoint.metadata
    changes: dict[str, object] = {}
    if "normalisation" in metadata:
        changes["normalisation"] = metadata["normalisation"]
    if match := re.fullmatch(r"(\d{1,4})x(\d{1,5})x(\d{1,5})", metadata.get("input_shape", "")):
        changes["input_shape"] = tuple(int(size) for size in match.groups())
    if re.fullmatch(r"-?\d{1,6}", offset := metadata.get("label_offset", "")):
        changes["label_offset"] = int(offset)
    changes["assumptions"] = (*network.assumptions, *checkpoint.notes)
    return replace(network, module=_frozen(network.module), **changes)  # type: ignore[arg-type]


def _frozen(module: nn.Module) -> nn.Module:
    return module.float().eval().requires_grad_(False)


# ---- loading -------------------------------------------------------------------------------------------------------


def _odd(shapes: Shapes) -> str:
    """The keys that do not go with the others, in words; nothing where there are none."""
    found = odd_keys(shapes)
    if found is None:
        return ""
    prefix, odd = found
    return f"; all but {_first(odd)} begin with '{prefix}', and without {'it' if len(odd) == 1 else 'them'} may fit"


def _as_expected(weights: dict[str, Tensor], checkpoint: Checkpoint, expected: Collection[str]) -> dict[str, Tensor]:
    """The weights by the names that a module has for them.

    A module may hold its layers under names that a wrapper would use (``model.``), be wrapped itself, or multiply its
    masks in by itself: then it takes the weights and masks of the file.
    """
    if set(expected) <= set(weights):
        return weights
    stored = checkpoint.stored
    if stored and any(key in expected and key not in weights for key in stored):
        weights = {key: tensor for key, tensor in weights.items() if key not in checkpoint.masked or key in expected}
        weights |= {key: _float(tensor) for key, tensor in stored.items() if key in expected}
    restored = {checkpoint.prefix + key: tensor for key, tensor in weights.items()}
    if checkpoint.prefix and len(set(restored) & set(expected)) > len(set(weights) & set(expected)):
        weights = restored
    by_plain_name = {plain_name(key): key for key in expected}
    if len(by_plain_name) == len(expected):
        weights = {key if key in expected else by_plain_name.get(plain_name(key), key): t for key, t in weights.items()}
    return weights


def _float(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32) if tensor.is_floating_point() else tensor


def _load(module: nn.Module, checkpoint: Checkpoint, name: str) -> None:
    """Load strictly; what differs is told in one line."""
    weights = checkpoint.state_dict
    expected = {key: tensor for key, tensor in module.state_dict().items() if not key.endswith("num_batches_tracked")}
    weights = _as_expected(weights, checkpoint, expected)
    missing = [key for key in expected if key not in weights]
    unexpected = [key for key in weights if key not in expected]
    other = [key for key in expected if key in weights and weights[key].shape != expected[key].shape]
    if missing or unexpected or other:
        parts = []
        if missing:
            parts.append(f"{len(missing)} missing ({_first(missing)})")
        if unexpected:
            parts.append(f"{len(unexpected)} unexpected ({_first(unexpected)})")
        if other:
            key = other[0]
            parts.append(
                f"{len(other)} of another shape ('{printable(key)}': {tuple(weights[key].shape)} in the file, "
                f"{tuple(expected[key].shape)} in the network)"
            )
        shapes = {key: tuple(tensor.shape) for key, tensor in weights.items()}
        found = recognise(shapes)
        hint = f"; it looks like '{found.name}'" if found is not None and found.name != name else ""
        raise ArchitectureError(
            f"{_name(checkpoint)} does not fit architecture '{name}': weights {'; '.join(parts)}{hint}"
        )
    # Copies, so that changes to the network (folding, pruning) do not reach the checkpoint. Not strict: the counters of
    # batch norm are not among the weights.
    module.load_state_dict({key: tensor.clone() for key, tensor in weights.items()}, strict=False, assign=True)
    for name_of, buffer in list(module.named_buffers()):
        if buffer.is_meta:
            owner, _, leaf = name_of.rpartition(".")
            setattr(module.get_submodule(owner), leaf, torch.zeros(buffer.shape, dtype=buffer.dtype))


def _without_memory(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a module of ours whose tensors have shapes only, so that odd shapes in a file cost nothing."""
    with torch.device("meta"):
        return build()


def _name(checkpoint: Checkpoint) -> str:
    return f"checkpoint '{printable(str(checkpoint.path), 1000)}'"


def _first(keys: list[str], number: int = 3) -> str:
    more = ", ..." if len(keys) > number else ""
    return ", ".join(f"'{printable(key)}'" for key in keys[:number]) + more


def _as_named(arch: str, shapes: Shapes, checkpoint: Checkpoint) -> Recognised:
    """The architecture the user named, with the widths of the checkpoint; at its usual widths where they do not fit."""
    standard = _standard(arch)
    found = standard.recognise(shapes)
    if found is None:
        # Loading strictly into the network at its usual widths names the keys that differ.
        _load(_without_memory(lambda: standard.build(standard.classes, standard.in_channels)), checkpoint, arch)
        raise ArchitectureError(f"{_name(checkpoint)} does not fit architecture '{arch}'")
    return replace(found, name=arch, assumptions=(), alternatives=())


def _standard(name: str) -> Standard:
    if name not in ARCHITECTURES:
        known = difflib.get_close_matches(name, ARCHITECTURES, n=5, cutoff=0.5) or list_architectures()
        raise ArchitectureError(
            f"unknown architecture '{printable(name)}'; expected package.module:factory, or a name: {_first(known, 99)}"
        )
    return ARCHITECTURES[name]


# ---- the user's own module -----------------------------------------------------------------------------------------


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _users_module(arch: str) -> nn.Module:
    """Import and call ``package.module:factory``."""
    where, _, factory_name = arch.partition(":")
    if not all(part.isidentifier() for part in where.split(".")) or not factory_name.isidentifier():
        raise ArchitectureError(f"architecture '{arch}' is not of the form package.module:factory")
    with _current_folder_importable():
        # The user's code may raise anything (a script without a main guard even exits); it becomes one line.
        try:
            imported = importlib.import_module(where)
        except (Exception, SystemExit) as error:
            raise ArchitectureError(
                f"architecture '{arch}': cannot import '{where}' ({_reason(error)}); looked in the current folder "
                f"'{clean(str(Path.cwd()))}', then along the Python path (PYTHONPATH)"
            ) from error
        factory = getattr(imported, factory_name, None)
        if factory is None:
            raise ArchitectureError(f"architecture '{arch}': module '{where}' has no '{factory_name}'")
        if not callable(factory):
            raise ArchitectureError(
                f"architecture '{arch}': '{factory_name}' is a {type(factory).__name__}, not callable"
            )
        try:
            module = factory()
        except (Exception, SystemExit) as error:
            raise ArchitectureError(
                f"architecture '{arch}': calling '{factory_name}()' failed ({_reason(error)}); expected a class or "
                "function that needs no arguments and returns an nn.Module"
            ) from error
    if not isinstance(module, nn.Module):
        raise ArchitectureError(
            f"architecture '{arch}': '{factory_name}()' returned a {type(module).__name__}; expected an nn.Module"
        )
    if (special := special_tensor(module)) is not None:
        raise ArchitectureError(f"architecture '{arch}': {special}")
    return module


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
