"""Masks of pruning tools, beside the weights or among them, multiplied in; what cannot be attributed is refused.

A checkpoint whose masks are overlooked is certified as the dense network that it no longer is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bitline.network.key_names import plain_name, strip_wrappers
from bitline.printable import clean

__all__ = ["Resolved", "UnreadArray", "apply_masks", "masks_beside", "names_masks"]

_DEPTH = 4
#: torch.nn.utils.parametrize keeps the raw weight and a pruner's mask (torch.ao.pruning) here.
_ORIGINAL, _PARAMETRIZATIONS = ".original", "parametrizations."


@dataclass(kw_only=True)
class Resolved:
    """What :func:`apply_masks` did."""

    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stored: dict[str, Tensor] = field(default_factory=dict)
    """Raw weights and masks by the names they had, where they were among the weights."""


def names_masks(key: str) -> bool:
    """Whether an entry beside a state dict is called like masks."""
    return "mask" in key.lower()


class UnreadArray:
    """Stands for a NumPy array of the file, which is not read."""


def masks_beside(level: Mapping[str, object], where: str = "", seen: set[int] | None = None) -> dict[str, object]:
    """Entries called like masks, by their path in the file, also those within dicts such as ``compression_sched``.

    Numbers and text so called are options, not masks. ``seen`` has the dicts looked into, for one may hold itself.
    """
    found: dict[str, object] = {}
    seen = set() if seen is None else seen
    for key, value in level.items():
        path = f"{where}.{key}" if where else key
        if names_masks(key) and _holds_arrays(value):
            found[path] = value
        elif isinstance(value, dict) and id(value) not in seen and path.count(".") < _DEPTH:
            seen.add(id(value))
            inner = {name: entry for name, entry in dict.items(value) if isinstance(name, str)}
            if not any(isinstance(entry, Tensor) for entry in inner.values()):  # another state dict has its own
                found |= masks_beside(inner, path, seen)
    return found


def _holds_arrays(value: object) -> bool:
    entries = dict.values(value) if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
    return any(isinstance(entry, Tensor | UnreadArray) for entry in entries)


def apply_masks(weights: dict[str, Tensor], beside: Mapping[str, object]) -> tuple[dict[str, Tensor], Resolved]:
    """Multiply every weight by its mask.

    Masks among the weights: ``NAME_orig`` with ``NAME_mask`` (torch.nn.utils.prune, any NAME), ``NAME`` with
    ``NAME_mask``, ``MODULE.weight`` with ``MODULE.mask``, and the mask of a parametrized weight. Masks beside them:
    dicts of tensors by the weights' names.

    Parameters
    ----------
    weights : dict of str to Tensor
        By plain names.
    beside : mapping
        What :func:`masks_beside` found.

    Raises
    ------
    ValueError
        A mask that is not 0 and 1, of another shape than its weight, or of no weight that is there.
    """
    result, resolved = _among(weights)
    notes = list(resolved.notes)
    for path, masks in beside.items():
        if isinstance(masks, Tensor) and path in weights:
            continue  # an entry of a bare state dict; what is next to it decided
        if not isinstance(masks, dict):
            raise ValueError(
                f"'{_shown(path)}' holds masks without the names of their weights; multiply them in and save the "
                "weights alone"
            )
        names = []
        for key, mask in dict.items(masks):
            if not isinstance(mask, Tensor | UnreadArray):  # Distiller keeps None for a layer that is not pruned
                continue
            name = _owner(key, result) if isinstance(key, str) else None
            if name is None:
                raise ValueError(f"mask '{_shown(f'{path}.{key}')}' belongs to no weight of the state dict")
            if isinstance(mask, UnreadArray):
                raise ValueError(f"mask '{_shown(f'{path}.{key}')}' is a NumPy array; expected a tensor")
            result[name] = _masked(result[name], mask, f"{path}.{key}")
            names.append(name)
        if names:
            notes.append(f"masks '{_shown(path)}' beside the weights were multiplied in ({len(names)} weights)")
            resolved.names += tuple(name for name in names if name not in resolved.names)
    resolved.notes = tuple(notes)
    return result, resolved


def _owner(key: str, weights: Mapping[str, Tensor]) -> str | None:
    """The weight that a mask of this name is of: named alike, with a wrapper's prefix, without ``.weight``."""
    alone, _ = strip_wrappers({key: torch.empty(0)})
    for name in (key, plain_name(key), *alone):
        for base in (name, name.removesuffix("_mask"), name.removesuffix(".mask")):
            for candidate in (base, f"{base}.weight"):
                if candidate in weights:
                    return candidate
    return None


def _among(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], Resolved]:
    """Masks that are entries of the state dict itself."""
    result: dict[str, Tensor] = {}
    pairs: dict[str, tuple[str, str, str]] = {}  # mask or raw weight -> (name, raw weight, mask)
    silent = set()
    for key in weights:
        found = _pair(key, weights)
        if found is not None:
            pairs[found[1]] = pairs[found[2]] = found
            if key.endswith("_orig"):
                silent.add(found[0])  # torch.nn.utils.prune's own form, which means nothing else
    stored, names, noted = {}, [], []
    for key, tensor in weights.items():
        if key not in pairs:
            result[key] = tensor
            continue
        stored[key] = tensor
        name, raw, mask = pairs[key]
        if key == raw:
            if name != raw and name in weights:
                raise ValueError(f"both '{_shown(name)}' and '{_shown(raw)}' are there; expected one of them")
            result[name] = _masked(tensor, weights[mask], mask)
            names.append(name)
            noted += [name] if name not in silent else []
    notes: tuple[str, ...] = ()
    if noted:
        some = ", ".join(_shown(name) for name in noted[:3]) + (", ..." if len(noted) > 3 else "")
        notes = (f"masks among the weights were multiplied in: of {some} ({len(noted)} in all)",)
    return result, Resolved(names=tuple(names), notes=notes, stored=stored)


def _pair(key: str, weights: Mapping[str, Tensor]) -> tuple[str, str, str] | None:
    """(name, raw weight, mask) where a key is one of a weight and its mask; None where it is neither."""
    module, dot, leaf = key.rpartition(".")
    if leaf.endswith("_orig"):
        name = key.removesuffix("_orig")
        if f"{name}_mask" in weights:
            return name, key, f"{name}_mask"
        if leaf in ("weight_orig", "bias_orig"):
            raise ValueError(f"'{_shown(key)}' has no '{_shown(name)}_mask' of torch.nn.utils.prune beside it")
    elif leaf.endswith("_mask"):
        name = key.removesuffix("_mask")
        if f"{name}_orig" in weights:
            return name, f"{name}_orig", key
        if name in weights:
            return name, name, key
        if leaf in ("weight_mask", "bias_mask"):
            raise ValueError(f"mask '{_shown(key)}' has no '{_shown(name)}_orig' to apply to, nor '{_shown(name)}'")
    elif (
        leaf == "mask" and (weight := f"{module}{dot}weight") in weights and weights[weight].shape == weights[key].shape
    ):
        return weight, weight, key
    elif _PARAMETRIZATIONS in key and key.endswith(_ORIGINAL):
        place, _, parameter = key.removesuffix(_ORIGINAL).rpartition(_PARAMETRIZATIONS)
        own = [other for other in weights if other.startswith(key.removesuffix("original")) and other != key]
        if len(own) == 1 and own[0].endswith(".mask"):
            return f"{place}{parameter}", key, own[0]
    return None


def _masked(tensor: Tensor, mask: Tensor, name: str) -> Tensor:
    """Weights times a mask, in float32."""
    if type(mask) not in (Tensor, torch.nn.Parameter):
        raise ValueError(f"mask '{_shown(name)}' is a tensor of a special class ({type(mask).__name__})")
    mask = Tensor.detach(mask)
    if mask.layout != torch.strided or mask.is_quantized or mask.dtype.is_complex or mask.device.type != "cpu":
        raise ValueError(f"mask '{_shown(name)}' is no plain tensor")
    if mask.shape != tensor.shape:
        raise ValueError(f"mask '{_shown(name)}' has shape {tuple(mask.shape)}, its weight {tuple(tensor.shape)}")
    values = mask.to(torch.float32)
    if not bool(((values == 0) | (values == 1)).all()):
        raise ValueError(f"mask '{_shown(name)}' has values other than 0 and 1")
    return tensor.to(torch.float32) * values


def _shown(name: str) -> str:
    return clean(name[:120])
