"""Names of weights: what wrappers put around and into them is removed."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

__all__ = ["common_prefix", "odd_keys", "plain_name", "strip_wrappers"]

#: Prefixes that wrappers put before every key: data parallel, torch.compile, a module held by another.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")

#: Parts of a key that only a wrapper puts there: torch.compile, FSDP, activation checkpointing, DeepSpeed.
_WRAPPED = frozenset(
    {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "_fpw_module"}
)


def plain_name(key: str) -> str:
    """A key without what wrappers put into it: their private parts anywhere, ``module`` of data parallel anywhere."""
    parts = key.split(".")
    return ".".join([part for part in parts[:-1] if part not in _WRAPPED and part != "module"] + parts[-1:])


def strip_wrappers(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Remove what wrappers put into the middle of keys, then the known prefixes that all keys share, repeatedly.

    Returns
    -------
    dict, str
        The weights by their plain names, and what was removed from the front of every key.
    """
    removed = ""
    while (prefix := common_prefix(weights)) is not None:
        weights = {key.removeprefix(prefix): tensor for key, tensor in weights.items()}
        removed += prefix
    plain = {plain_name(key): tensor for key, tensor in weights.items()}
    if len(plain) < len(weights):  # two keys differ in nothing else: the names mean something
        return weights, removed
    while (prefix := common_prefix(plain)) is not None:
        plain = {key.removeprefix(prefix): tensor for key, tensor in plain.items()}
        removed += prefix
    return plain, removed


def common_prefix(keys: Iterable[str]) -> str | None:
    """A wrapper's prefix that all of the keys have, or None."""
    keys = list(keys)
    return next((p for p in _PREFIXES if keys and all(key.startswith(p) for key in keys)), None)


def odd_keys(keys: Iterable[str]) -> tuple[str, list[str]] | None:
    """The wrapper's prefix that nearly all keys have, and the few that lack it; None where there is none such."""
    keys = list(keys)
    for prefix in _PREFIXES:
        odd = [key for key in keys if not key.startswith(prefix)]
        if odd and len(odd) <= max(1, len(keys) // 4):
            return prefix, odd
    return None
