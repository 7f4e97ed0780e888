"""LSTM and GRU matrices are pruned like linear layers, in place, from the constraint set to the certificate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from bitline.models.lstm import RowLSTM
from torch import nn

from bitline.errors import ConfigError
from bitline.hardware import load_hardware
from bitline.network.architectures import build_network
from bitline.network.checkpoint import load_checkpoint
from bitline.network.conversion import matrix_layers
from bitline.pruner import prune
from bitline.pruning.constraints import ColumnProportional, project_layers, violations
from bitline.pruning.layers import prunable_layers


def test_every_matrix_by_the_name_of_its_tensor():
    network = nn.ModuleDict(
        {"a": nn.GRU(3, 4, num_layers=2, bidirectional=True), "b": nn.Linear(8, 2), "c": nn.LSTM(3, 4, proj_size=2)}
    )
    names = [layer.name for layer in prunable_layers(network, exempt_first=False)]
    gru = [f"a.weight_{side}_l{n}{way}" for n in range(2) for way in ("", "_reverse") for side in ("ih", "hh")]
    assert names == [*gru, "b"]
    assert [layer.name for layer in prunable_layers(nn.LSTM(3, 4), exempt={"weight_ih_l0"}, exempt_first=False)] == [
        "weight_hh_l0"
    ]
    with pytest.raises(ConfigError, match="'a' is no convolution or linear layer of the network, nor a matrix of an"):
        prunable_layers(network, exempt={"a"})


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_projection_reaches_the_network_and_its_crossbars(cell):
    torch.manual_seed(0)
    module = cell(20, 24, batch_first=True)
    layers = prunable_layers(module, exempt_first=False)
    constraint = ColumnProportional(rate=16)
    x = torch.randn(2, 3, 20)
    before = module(x)[0]
    project_layers(layers, constraint)
    assert violations(layers, constraint) == 0
    assert not torch.allclose(before, module(x)[0])  # torch's own forward reads the pruned tensors
    found = matrix_layers(module, load_hardware("tinyadc")).layers
    assert [np.count_nonzero(layer.codes, axis=1).max() for layer in found] == [8, 8]


@pytest.fixture(scope="module")
def dense(trained_on_digits: Callable[..., Path]) -> Path:
    """An LSTM over the rows of the digits in 8 x 8."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = RowLSTM(8, 32, 8, 10)
    return trained_on_digits(network, epochs=6, learning_rate=0.5)


@pytest.mark.parametrize(("method", "rate", "solver"), [("cp", 16, "admm"), ("bcr", 4, "oneshot")])
def test_an_lstm_is_pruned_and_certified(dense: Path, tmp_path: Path, method: str, rate: int, solver: str) -> None:
    out = tmp_path / "pruned.safetensors"
    report = prune(
        dense, out=out, data="digits:8", method=method, rate=rate, solver=solver, epochs=2, learning_rate=0.2
    )
    assert report["violation"] == 0
    saved = load_checkpoint(out)
    assert [entry["name"] for entry in json.loads(saved.metadata["masks"])] == ["lstm.weight_hh_l0", "fc"]
    weight = build_network(saved).module.lstm.weight_hh_l0.detach().numpy().T  # (32, 128)
    if method == "cp":
        assert np.count_nonzero(weight, axis=0).max() == 8
        # eight levels of at most 3 sum to 24
        assert report["certificate"]["after"]["pruned"]["weight_aware"] <= 5
    else:
        blocks = weight.reshape(4, 8, 16, 8).swapaxes(1, 2)
        assert (blocks.any(axis=3).sum(axis=2) <= 4).all()
        assert (blocks.any(axis=2).sum(axis=2) <= 4).all()
        assert np.count_nonzero(weight) == 32 * 128 // 4
    assert report["accuracy"]["after"] > 0.6  # chance is 0.1; two epochs
