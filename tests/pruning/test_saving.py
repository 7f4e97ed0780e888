"""Checkpoint files: read back by safetensors, and the same bytes for the same contents."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load

from bitline.pruning.saving import checkpoint_bytes


def test_safetensors_reads_back_weights_and_metadata(tmp_path: Path) -> None:
    weights = {
        "a.weight": torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
        "a.count": torch.tensor(3),
        "b": torch.ones(5, dtype=torch.float16),
    }
    metadata = {"recipe": '{"rate": 16, "naïve": "é"}', "a": "1"}
    content = checkpoint_bytes(weights, metadata)
    read = load(content)
    assert read.keys() == weights.keys()
    for key, tensor in weights.items():
        assert read[key].dtype == tensor.dtype
        assert torch.equal(read[key], tensor)
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == metadata


def test_the_order_of_metadata_does_not_matter() -> None:
    weights = {"a": torch.zeros(3)}
    items = [(letter, letter * 3) for letter in "qwertyuiop"]
    assert len({checkpoint_bytes(weights, dict(order)) for order in (items, items[::-1], sorted(items))}) == 1
    assert checkpoint_bytes(weights, {"a": "1"}) != checkpoint_bytes(weights, {"a": "2"})
