"""The file from which an interrupted pruning run goes on: a line that says what it is, its hash, and torch's pickle."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from bitline.errors import CheckpointError
from bitline.input_files import read_bytes

__all__ = ["read_state", "state_bytes"]

_MAGIC = b"bitline prune state 1\n"
_HASH_LENGTH = 64
_MAX_BYTES = 1 << 34


def state_bytes(state: dict[str, Any]) -> bytes:
    """The contents of a state file: tensors and plain values only."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    return _MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


def read_state(path: str | Path) -> dict[str, Any]:
    """Read a state file; nothing in it is executed, and its hash is checked first.

    Raises
    ------
    CheckpointError
        Missing, unreadable, damaged, or no state of a pruning run.
    """
    content = read_bytes(path, "resume file", _MAX_BYTES, CheckpointError)
    if not content.startswith(_MAGIC):
        raise CheckpointError(f"resume file {path}: expected the state of a pruning run, found something else")
    start = len(_MAGIC) + _HASH_LENGTH + 1
    payload = content[start:]
    if content[len(_MAGIC) : start - 1] != hashlib.sha256(payload).hexdigest().encode():
        raise CheckpointError(f"resume file {path}: damaged: its contents do not have its hash")
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError) as error:
        reason = type(error).__name__
        raise CheckpointError(f"resume file {path}: cannot be read by this torch ({reason})") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"resume file {path}: expected a mapping, found {type(state).__name__}")
    return state
