"""Weights to a ``.safetensors`` file, the same bytes for the same contents."""

from __future__ import annotations

import json
from collections.abc import Mapping

import safetensors.torch
from torch import Tensor

__all__ = ["checkpoint_bytes"]

_ALIGNMENT = 8


def checkpoint_bytes(state_dict: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The contents of a ``.safetensors`` file.

    safetensors writes metadata in an order that changes from call to call; here it is sorted, so that files with the
    same contents have the same hash.

    Parameters
    ----------
    state_dict : mapping of str to Tensor
        Weights and buffers, of any device and memory format.
    metadata : mapping of str to str
        Kept in the file's header.
    """
    plain = safetensors.torch.save({key: tensor.detach().cpu().contiguous() for key, tensor in state_dict.items()})
    length = int.from_bytes(plain[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(plain[8 : 8 + length])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text + plain[8 + length :]
