"""``bitline prune --method value_bit``: from a dense checkpoint to codes whose columns fit the ADC asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bitline.models.mlp import MLP

from bitline.cli import main
from bitline.crossbar.certificate import certify_layers
from bitline.errors import ConfigError, VerificationError
from bitline.hardware import load_hardware
from bitline.network.architectures import build_network
from bitline.network.checkpoint import load_checkpoint
from bitline.network.conversion import matrix_layers
from bitline.pruner import make_recipe, prune, state_path
from bitline.pruning.layers import weight_matrices
from bitline.pruning.value_bit import ValueBit

HARDWARE = load_hardware("tinyadc")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def dense(trained_on_digits: Callable[..., Path]) -> Path:
    """A small network trained on the digits in 8 x 8."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = MLP(["fc1", "fc2", "fc3"], [64, 24, 32, 10])
    return trained_on_digits(net, epochs=6, learning_rate=0.1)


def _prune(dense: Path, out: Path, **options: Any) -> dict[str, Any]:
    fixed = {"method": "value_bit", "data": "digits:8", "epochs": 2, "learning_rate": 0.05}
    return prune(dense, out=out, **{**fixed, **options})


@pytest.mark.parametrize("solver", ["admm", "oneshot"])
def test_the_saved_file_is_proven_at_two_bits(dense: Path, tmp_path: Path, solver: str) -> None:
    out = tmp_path / "pruned.safetensors"
    report = _prune(dense, out, adc_bits=2, solver=solver, epochs=4, exempt_first=False)
    network = build_network(load_checkpoint(out)).module
    layers = matrix_layers(network, HARDWARE).layers
    certificate = certify_layers(layers, HARDWARE)
    assert [layer.bits for layer in certificate.layers] == [2, 2, 2]
    assert report["certificate"]["after"]["chip"]["weight_aware"] == 2
    assert report["violation"] == 0
    assert report["epochs"][-1]["distance"] == 0
    assert report["accuracy"]["after"] > 0.8
    for layer in layers:
        # Every weight of the file is its code times its column's scale, to the precision of float32.
        (weights,) = weight_matrices(network.get_submodule(layer.name).weight)
        assert np.allclose(weights, layer.codes[0] * layer.weight_scale[0], rtol=1e-6, atol=0)


def test_killed_in_the_retraining_it_goes_on_exactly(dense: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    _prune(dense, whole, adc_bits=3, epochs=3, solver_epochs=1)

    def stop(seen: Any) -> None:
        if seen.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _prune(dense, cut, adc_bits=3, epochs=3, solver_epochs=1, progress=stop)
    assert state_path(cut).exists()
    _prune(dense, cut, adc_bits=3, epochs=3, solver_epochs=1, resume=True)
    assert whole.read_bytes() == cut.read_bytes()


def test_a_file_that_needs_more_bits_is_an_error(dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bitline.pruner as pruner

    monkeypatch.setattr(pruner, "fit_adc", lambda *_: 0)
    monkeypatch.setattr(ValueBit, "__post_init__", lambda self: object.__setattr__(self, "limit", 7))
    with pytest.raises(VerificationError, match="needs 3 bits, 2 were asked for"):
        _prune(dense, tmp_path / "pruned.safetensors", adc_bits=2)
    assert VerificationError.exit_status == 3


def test_recipes() -> None:
    with pytest.raises(ConfigError, match="value_bit needs adc_bits, not rates"):
        make_recipe(checkpoint="x", method="value_bit", rate=4)
    with pytest.raises(ConfigError, match="a rate or adc_bits is needed"):
        make_recipe(checkpoint="x", method="value_bit")
    with pytest.raises(ConfigError, match="adc_bits needs method: cp or value_bit, got filter"):
        make_recipe(checkpoint="x", method="filter", adc_bits=3)


def test_command_line(dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pruned.safetensors"
    options = ["--method", "value_bit", "--data", "digits:8", "--epochs", "1", "--solver", "oneshot", "--json"]
    assert main(["prune", str(dense), *options, "--adc-bits", "4", "--out", str(out)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["certificate"]["after"]["pruned"]["weight_aware"] <= 4
    assert report["recipe"]["pruning"]["method"] == "value_bit"
    # Two bits do not hold one full cell of four bits.
    hw = tmp_path / "wide.yaml"
    hw.write_text(_wide())
    assert main(["prune", str(dense), *options, "--adc-bits", "2", "--hw", str(hw), "--out", str(out)]) == 2
    assert "2 bits do not hold one full cell" in capsys.readouterr().err


def _wide() -> str:
    from importlib import resources

    text = (resources.files("bitline.hwconfigs") / "tinyadc.yaml").read_text("utf-8")
    assert text.count("cell_bits: 2") == 1
    return text.replace("cell_bits: 2", "cell_bits: 4")
