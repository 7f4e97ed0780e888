"""``bitline prune`` from a dense checkpoint to a certified one: constraints, resume, ADC target, bad input."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from bitline.models.mlp import MLP

import bitline
from bitline import pruner
from bitline.adc_target import fit_adc, plan_adc_target
from bitline.cli import main
from bitline.crossbar.certificate import certify_layers
from bitline.errors import BitlineError, CheckpointError, ConfigError, DataError, OutputError
from bitline.hardware import load_hardware
from bitline.network.architectures import build_network
from bitline.network.checkpoint import load_checkpoint
from bitline.network.conversion import matrix_layers
from bitline.pruner import _rate_of, make_recipe, prune, state_path
from bitline.pruning.layers import prunable_layers, weight_matrices
from bitline.pruning.projections import nonzeros_per_column
from bitline.pruning.saving import checkpoint_bytes
from bitline.pruning.state import read_state

HARDWARE = load_hardware("tinyadc")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def dense(trained_on_digits: Callable[..., Path]) -> Path:
    """A small network trained on the digits in 8 x 8."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = MLP(["fc1", "fc2", "fc3"], [64, 48, 160, 10])
    return trained_on_digits(net, epochs=6, learning_rate=0.1)


def _prune(dense: Path, out: Path, **options: Any) -> dict[str, Any]:
    return prune(dense, out=out, **{"data": "digits:8", "epochs": 2, "learning_rate": 0.05, **options})


def _matrices(path: Path) -> dict[str, np.ndarray]:
    network = build_network(load_checkpoint(path))
    layers = prunable_layers(network.module, exempt_first=False)
    return {layer.name: weight_matrices(layer.module.weight, layer.groups)[0] for layer in layers}


def _most(matrix: np.ndarray, rows: int = 128) -> int:
    return int(np.add.reduceat(matrix != 0, np.arange(0, len(matrix), rows), axis=0).max())


@pytest.mark.parametrize("solver", ["admm", "oneshot", "gradual", "straight_through"])
def test_every_solver_makes_a_checkpoint_that_keeps_the_rate(dense: Path, tmp_path: Path, solver: str) -> None:
    out = tmp_path / "pruned.safetensors"
    report = _prune(dense, out, rate=16, solver=solver, epochs=4)
    matrices = _matrices(out)
    assert _most(matrices["fc1"]) == 64  # exempt
    assert [_most(matrices[name]) for name in ("fc2", "fc3")] == [8, 8]
    assert report["accuracy"]["after"] > 0.9
    assert report["violation"] == 0
    assert len(report["epochs"]) == 4
    assert report["epochs"][-1]["distance"] == 0
    # eight non-zeros of at most level 3 sum to at most 24: five bits, and the paper's 8 - log2(16) = 4
    assert report["certificate"]["after"]["pruned"]["equation"] == 5
    assert report["certificate"]["after"]["pruned"]["paper"] == 4
    assert report["certificate"]["after"]["pruned"]["weight_aware"] <= 5
    assert report["certificate"]["before"]["pruned"]["weight_aware"] >= 6
    assert not state_path(out).exists()


@pytest.mark.parametrize(
    ("options", "check"),
    [
        ({"method": "unstructured", "rate": 4}, lambda m: np.count_nonzero(m["fc2"]) == 48 * 160 // 4),
        # 160 outputs / 4 = 40, the next multiple of 16 outputs a crossbar is 48
        ({"method": "filter", "rate": 4}, lambda m: np.count_nonzero(m["fc2"].any(axis=0)) == 48),
        # 160 rows over 2, the next multiple of 128 rows; a layer of 48 rows keeps them
        ({"method": "filter_shape", "rate": 2}, lambda m: np.count_nonzero(m["fc3"].any(axis=1)) == 128),
        (
            {"method": "combined", "rate": 32, "shape_rate": 2, "filter_rate": 2},
            lambda m: (
                np.count_nonzero(m["fc3"].any(axis=1)) <= 128
                and np.count_nonzero(m["fc2"].any(axis=0)) == 80
                and np.count_nonzero(m["fc3"], axis=0).max() == 4
            ),
        ),
        (
            {"method": "bcr", "rate": 4},
            lambda m: max(np.count_nonzero(m["fc2"][i : i + 8, 0:8].any(axis=1)) for i in range(0, 48, 8)) == 4,
        ),
        ({"rate": 8, "kind_rates": {"linear": 32}, "layer_rates": {"fc3": 64}}, lambda m: _most(m["fc3"]) == 2),
        ({"rate": 8, "kind_rates": {"linear": 32}}, lambda m: _most(m["fc3"]) == 4),
        ({"rate": 8, "exempt": ["fc3"]}, lambda m: _most(m["fc3"]) > 100 and _most(m["fc2"]) == 16),
        ({"rate": 8, "exempt_first": False}, lambda m: _most(m["fc1"]) == 16),
        ({"layer_rates": {"fc2": 8}}, lambda m: _most(m["fc3"]) > 100 and _most(m["fc2"]) == 16),
    ],
)
def test_constraints_and_rates(dense: Path, tmp_path: Path, options: dict[str, Any], check: Any) -> None:
    out = tmp_path / "pruned.safetensors"
    report = _prune(dense, out, solver="gradual", **options)
    assert check(_matrices(out))
    assert report["violation"] == 0


def test_adc_bits_instead_of_a_rate(dense: Path, tmp_path: Path) -> None:
    out = tmp_path / "pruned.safetensors"
    report = _prune(dense, out, adc_bits=4, epochs=4)
    after = certify_layers(matrix_layers(build_network(load_checkpoint(out)).module, HARDWARE).layers, HARDWARE)
    bits = {layer.name: layer.bits for layer in after.layers}
    assert bits["fc2"] == bits["fc3"] == 4
    assert report["certificate"]["after"]["pruned"]["weight_aware"] == 4
    assert report["certificate"]["after"]["exempt"] == {"fc1": bits["fc1"]}
    target = report["adc_target"]
    kept = {layer["name"]: layer["kept"] for layer in target["layers"]}
    assert target["binds"] == min(kept, key=lambda name: kept[name])
    for layer in target["layers"]:
        # three levels of five weights make 15, the most that 4 bits hold: five always fit
        assert 5 <= layer["uniform_nonzeros"] <= layer["nonzeros"]
        assert _most(_matrices(out)[layer["name"]]) <= layer["nonzeros"]
    assert report["accuracy"]["after"] > 0.9


@pytest.mark.parametrize("wanted", [3, 4, 5, 6])
def test_uniform_l_is_the_largest_that_certifies(dense: Path, wanted: int) -> None:
    network = build_network(load_checkpoint(dense))
    layers = prunable_layers(network.module)
    targets = plan_adc_target(network.module, layers, HARDWARE, wanted)
    for layer in layers:
        found = targets[layer.name].uniform_nonzeros
        assert found >= 1
        for nonzeros, fits in ((found, True), (found + 1, False)):
            if nonzeros > min(128, layer.module.weight.shape[1]):
                continue
            other = build_network(load_checkpoint(dense))
            (pruned,) = [x for x in prunable_layers(other.module) if x.name == layer.name]
            with torch.no_grad():  # by torch's own sorting, not by ours
                for start in range(0, pruned.module.weight.shape[1], 128):
                    part = pruned.module.weight[:, start : start + 128]
                    if nonzeros > part.shape[1]:
                        continue  # a short last tile keeps all it has
                    part[part.abs() < part.abs().sort(1, descending=True).values[:, nonzeros - 1 : nonzeros]] = 0
            certificate = certify_layers(matrix_layers(other.module, HARDWARE).layers, HARDWARE)
            (bits,) = [x.bits for x in certificate.layers if x.name == layer.name]
            assert (bits <= wanted) == fits


def test_the_last_fit_is_by_the_codes_of_the_certificate(dense: Path) -> None:
    network = build_network(load_checkpoint(dense))
    layers = prunable_layers(network.module)
    targets = plan_adc_target(network.module, layers, HARDWARE, 4)
    before = sum(int(torch.count_nonzero(layer.module.weight)) for layer in layers)
    gone = fit_adc(network.module, layers, targets, HARDWARE, 4)
    after = sum(int(torch.count_nonzero(layer.module.weight)) for layer in layers)
    assert gone == before - after > 0
    certificate = certify_layers(matrix_layers(network.module, HARDWARE).layers, HARDWARE)
    assert [layer.bits for layer in certificate.layers][1:] == [4, 4]
    assert fit_adc(network.module, layers, targets, HARDWARE, 4) == 0


def test_rates_give_back_their_non_zeros() -> None:
    for rows in (7, 64, 100, 128, 512):
        for nonzeros in range(1, rows + 1):
            assert nonzeros_per_column(_rate_of(nonzeros, rows), rows) == nonzeros


def test_the_file_says_how_it_was_made_and_repeats(dense: Path, tmp_path: Path) -> None:
    outs = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    report = _prune(dense, outs[0], rate=16)
    _prune(dense, outs[1], rate=16)
    assert outs[0].read_bytes() == outs[1].read_bytes()
    saved = load_checkpoint(outs[0])
    recipe = json.loads(saved.metadata["recipe"])
    assert recipe["pruning"]["rate"] == 16
    assert saved.metadata["start_sha256"] == hashlib.sha256(dense.read_bytes()).hexdigest()
    masks = {layer["name"]: layer for layer in json.loads(saved.metadata["masks"])}
    matrices = _matrices(outs[0])
    assert masks.keys() == {"fc2", "fc3"}
    for name, layer in masks.items():
        assert layer["nonzeros"] == np.count_nonzero(matrices[name])
    assert report["sha256"] == hashlib.sha256(outs[0].read_bytes()).hexdigest()
    # the recipe in the file is one that makes it again
    again = tmp_path / "again.safetensors"
    prune(out=again, recipe=recipe)
    assert again.read_bytes() == outs[0].read_bytes()
    other = tmp_path / "other.safetensors"
    _prune(dense, other, rate=16, seed=1)
    assert load_checkpoint(other).metadata["weights_sha256"] != saved.metadata["weights_sha256"]


def test_simulate_and_certify_take_the_file(dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pruned.safetensors"
    report = _prune(dense, out, adc_bits=5)
    simulated = bitline.simulate(out, data="digits:8", images=20)
    assert simulated["accuracy"]["float_top1"] is not None
    assert main(["certify", str(out), "--require-lossless"]) == 0
    assert "PROVEN LOSSLESS" in capsys.readouterr().out
    fit = bitline.simulate(out, data="digits:8", engine="certified")["accuracy"]["float_top1"]
    assert fit == report["accuracy"]["after"]


# --- projection only -------------------------------------------------------------------------------------------------


def _projected(matrix: np.ndarray, kept: int, rows: int = 128) -> np.ndarray:
    """CP's projection by NumPy's own sorting: the largest ``kept`` of every column of every row tile stay."""
    result = matrix.copy()
    for start in range(0, len(matrix), rows):
        tile = result[start : start + rows]
        for column in tile.T:
            column[np.argsort(-np.abs(column), kind="stable")[kept:]] = 0
    return result


def test_no_epochs_project_without_data_and_are_certified(
    dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_data(*_: Any, **__: Any) -> Any:
        raise AssertionError("data was opened")

    monkeypatch.setattr("bitline.preparation.open_dataset", no_data)
    out = tmp_path / "projected.safetensors"
    assert main(["prune", str(dense), "--rate", "16", "--epochs", "0", "--out", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    before, after = _matrices(dense), _matrices(out)
    assert np.array_equal(after["fc1"], before["fc1"])  # exempt
    for name in ("fc2", "fc3"):
        assert np.array_equal(after[name], _projected(before[name], 8))
    assert report["accuracy"] is None
    assert report["epochs"] == []
    assert report["certificate"]["after"]["pruned"]["equation"] == 5
    assert "nothing was trained" in report["notes"][0]
    metadata = load_checkpoint(out).metadata
    assert "float_top1" not in metadata
    assert "dataset" not in metadata
    assert metadata["normalisation"] == load_checkpoint(dense).metadata["normalisation"]
    assert main(["certify", str(out), "--require-lossless"]) == 0
    capsys.readouterr()
    assert main(["prune", str(dense), "--rate", "16", "--epochs", "0", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "by projection alone" in text
    assert "not measured" in text
    assert "Projected only" in text
    # the file's recipe makes it again
    again = tmp_path / "again.safetensors"
    prune(out=again, recipe=json.loads(metadata["recipe"]))
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        {"adc_bits": 4},
        {"adc_bits": 4, "method": "value_bit"},
        {"rate": 4, "method": "bcr"},
        {"rate": 8, "method": "combined"},
        {"rate": 4, "solver": "oneshot"},
    ],
)
def test_no_epochs_with_every_kind_of_target(dense: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    out = tmp_path / "out.safetensors"
    report = prune(dense, out=out, epochs=0, **options)
    assert report["violation"] == 0
    if "adc_bits" in options:
        assert report["certificate"]["after"]["pruned"]["weight_aware"] <= 4


def test_no_epochs_with_data_measure(dense: Path, tmp_path: Path) -> None:
    report = prune(dense, out=tmp_path / "out.safetensors", rate=64, epochs=0, data="digits:8")
    fit = bitline.simulate(tmp_path / "out.safetensors", data="digits:8", engine="certified")["accuracy"]["float_top1"]
    assert report["accuracy"]["after"] == fit < report["accuracy"]["before"]


def test_fewer_training_images_and_a_fine_tune_that_falls_apart(dense: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    class Stages:
        def start(self, total: int, what: str) -> None:
            if what.endswith("steps"):
                seen.append(total)

        def advance(self, n: int = 1) -> None: ...
        def finish(self) -> None: ...

    options = {"rate": 2, "solver": "oneshot", "epochs": 3, "batch_size": 20, "stages": Stages()}
    kept = _prune(dense, tmp_path / "kept.safetensors", training_images=100, **options)
    assert seen == [3 * 100 // 20]
    assert kept["notes"] == []
    assert "training_images" in kept["recipe"]
    lost = _prune(dense, tmp_path / "lost.safetensors", training_images=100, **options | {"learning_rate": 3.0})
    assert lost["notes"][0].startswith("WARNING: the accuracy fell from 9")


def test_what_is_cheap_is_refused_before_anything_is_read(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("was loaded, or ran")

    options: dict[str, Any] = {"out": tmp_path / "out.safetensors", "data": "digits:8"}
    with monkeypatch.context() as patched:
        patched.setattr(pruner, "load_network", forbidden)
        for epochs, solver_epochs in ((1, None), (4, 4)):
            with pytest.raises(ConfigError, match="admm needs at least one before and one after"):
                prune(dense, rate=2, epochs=epochs, solver_epochs=solver_epochs, **options)
    with monkeypatch.context() as patched:
        patched.setattr("bitline.preparation.open_dataset", forbidden)
        with pytest.raises(ConfigError, match="'fc9' is no layer to prune"):
            prune(dense, rate=2, layer_rates={"fc9": 2}, **options)
    np.savez(tmp_path / "test_only.npz", images=np.zeros((4, 1, 8, 8), np.uint8), labels=np.arange(4))
    with monkeypatch.context() as patched:
        patched.setattr("bitline.preparation.fit", forbidden)
        with pytest.raises(DataError, match=r"it has no labelled training images; .* arrays x_train and y_train"):
            prune(dense, rate=2, **options | {"data": f"npz:{tmp_path / 'test_only.npz'}"})


# --- resume ----------------------------------------------------------------------------------------------------------

KILLS = 10 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 3
RESUMED = {"rate": 16.0, "epochs": 24, "batch_size": 16, "learning_rate": 0.02, "shift": 1}


def _command(dense: Path, out: Path, *more: str) -> list[str]:
    recipe = out.with_suffix(".yaml")
    fields = {
        "start": str(dense),
        "data": "digits:8",
        "pruning": {"rate": 16.0},
        "training": {key: value for key, value in RESUMED.items() if key != "rate"},
    }
    recipe.write_text(yaml.safe_dump(fields))
    return [
        sys.executable,
        "-m",
        "bitline",
        "prune",
        "--recipe",
        str(recipe),
        "--out",
        str(out),
        "--threads",
        "1",
        *more,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_at_random_moments_and_resumed_it_makes_the_same_file(
    dense: Path, tmp_path: Path, number: signal.Signals
) -> None:
    whole = tmp_path / "whole.safetensors"
    prune(dense, out=whole, data="digits:8", **RESUMED)
    out = tmp_path / "killed.safetensors"
    moments = random.Random(int(number))
    kills, began = 0, 0
    for attempt in range(KILLS + 5):
        with subprocess.Popen(_command(dense, out, "--resume"), stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            if attempt < KILLS:
                # kill at a moment after the first line of an epoch, so that every run gets somewhere
                first = process.stderr.readline()
                began += bool(first)
                time.sleep(moments.uniform(0, 0.15))
                process.send_signal(number)
            process.stderr.read()
            status = process.wait()
        kills += status in (-signal.SIGKILL, -signal.SIGINT, 130)
        if status == 0:
            break
    assert status == 0
    assert kills >= 1  # how many depends on the machine; the file must not
    assert out.read_bytes() == whole.read_bytes()
    assert not state_path(out).exists()
    assert not list(tmp_path.glob(".*.tmp"))
    # once more: the file is there, and nothing is done but checking it
    assert (
        subprocess.run(_command(dense, out, "--resume"), capture_output=True, check=True).stderr.count(b"retrain") == 0
    )
    assert out.read_bytes() == whole.read_bytes()


def _stop_at(epoch: int) -> Any:
    def progress(seen: Any) -> None:
        if seen.epoch == epoch:
            raise KeyboardInterrupt

    return progress


def test_resumes_within_one_process(dense: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.safetensors", tmp_path / "out.safetensors"
    report = _prune(dense, whole, rate=16, epochs=6, solver="straight_through")
    for epoch in (2, 4, 6):
        with pytest.raises(KeyboardInterrupt):
            _prune(dense, out, rate=16, epochs=6, solver="straight_through", progress=_stop_at(epoch), resume=True)
        assert not out.exists()
    resumed = _prune(dense, out, rate=16, epochs=6, solver="straight_through", resume=True)
    assert out.read_bytes() == whole.read_bytes()
    keys = ("phase", "epoch", "loss", "accuracy", "violation", "distance")
    assert [[e[k] for k in keys] for e in resumed["epochs"]] == [[e[k] for k in keys] for e in report["epochs"]]


def test_states_that_do_not_belong(dense: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    with pytest.raises(KeyboardInterrupt):
        _prune(dense, out, rate=16, epochs=6, progress=_stop_at(3))
    state = state_path(out).read_bytes()
    with pytest.raises(ConfigError, match=r"out\.safetensors\.state: holds an unfinished run; go on with --resume"):
        _prune(dense, out, rate=16, epochs=6)
    with pytest.raises(ConfigError, match=r"of another recipe: pruning\.rate is 16\.0 there, 8\.0 here") as caught:
        _prune(dense, out, rate=8, epochs=6, resume=True)
    assert "\n" not in str(caught.value)
    other = tmp_path / "other.safetensors"
    content = load_checkpoint(dense)
    changed = {key: tensor.clone() for key, tensor in content.state_dict.items()}
    changed["fc1.bias"][0] += 1
    path = dense.with_name("dense.safetensors")
    original = path.read_bytes()
    try:
        path.write_bytes(checkpoint_bytes(changed, content.metadata))
        with pytest.raises(ConfigError, match="of another start: found"):
            _prune(dense, out, rate=16, epochs=6, resume=True)
    finally:
        path.write_bytes(original)
    for damage, message in (
        (state[:-100], "damaged"),
        (state[:5000] + bytes([state[5000] ^ 1]) + state[5001:], "damaged"),
        (b"hello", "expected the state of a pruning run"),
        (b"", "expected the state of a pruning run"),
    ):
        state_path(out).write_bytes(damage)
        with pytest.raises(CheckpointError, match=message) as caught:
            _prune(dense, out, rate=16, epochs=6, resume=True)
        assert "\n" not in str(caught.value)
    assert not out.exists()
    assert not other.exists()


def test_a_loss_that_becomes_nan_keeps_the_last_good_state(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.safetensors"
    training_images = pruner._training_images
    seen_images: list[torch.Tensor] = []

    def kept(*given: Any) -> Any:
        images, labels, normalise = training_images(*given)
        seen_images.append(images)
        return images, labels, normalise

    def progress(seen: Any) -> None:
        if seen.epoch == 4:
            seen_images[-1][7] = torch.nan

    monkeypatch.setattr(pruner, "_training_images", kept)
    with pytest.raises(BitlineError, match=r"^admm training: .* not finite in epoch 5 of 6 ") as caught:
        _prune(dense, out, rate=16, epochs=12, progress=progress)
    assert str(caught.value).endswith(f"the weights of epoch 4 are kept; {state_path(out)} holds them")
    assert "\n" not in str(caught.value)
    assert not out.exists()
    assert len(read_state(state_path(out))["history"]) == 4
    # with images that are fine again it goes on from there
    whole = tmp_path / "whole.safetensors"
    _prune(dense, out, rate=16, epochs=12, resume=True)
    _prune(dense, whole, rate=16, epochs=12)
    assert out.read_bytes() == whole.read_bytes()
    with pytest.raises(BitlineError, match=r"not finite in epoch 1 of 6 .*; the weights of epoch 0 are kept$"):
        _prune(dense, tmp_path / "wild.safetensors", rate=16, epochs=12, learning_rate=1e30)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.5}, r"pruning\.rate: .*greater than or equal to 1"),
        ({"rate": 129}, r"layer fc2: rate must be at most 128, R, found 129"),
        ({"rate": float("nan")}, r"pruning\.rate: "),
        ({}, "a rate or adc_bits is needed"),
        ({"rate": 2, "adc_bits": 4}, "exclude each other"),
        ({"adc_bits": 1}, "1 bits do not hold one full cell"),
        ({"adc_bits": 4, "method": "filter"}, "adc_bits needs method: cp or value_bit, got filter"),
        ({"rate": 2, "method": "magic"}, r"pruning\.method: "),
        ({"rate": 2, "solver": "magic"}, r"pruning\.solver: "),
        ({"rate": 2, "layer_rates": {"fc9": 2}}, "'fc9' is no layer to prune"),
        ({"rate": 2, "layer_rates": {"fc1": 2}}, "'fc1' is no layer to prune"),
        ({"rate": 2, "kind_rates": {"conv2d": 2}}, "the network has no conv2d layer"),
        ({"rate": 2, "kind_rates": {"conv9": 2}}, r"pruning\.kind_rates\.conv9"),
        ({"rate": 2, "exempt": ["fc9"]}, "exempt: 'fc9' is no convolution or linear layer"),
        ({"rate": 2, "exempt": ["fc2", "fc3"]}, "no layer is left to prune"),
        ({"rate": 2, "epochs": 1}, "epochs: admm needs at least one before and one after"),
        ({"rate": 2, "epochs": -1}, r"training\.epochs: "),
        ({"rate": 2, "epochs": 4, "solver_epochs": 4}, "epochs: admm needs at least one before and one after"),
        ({"rate": 2, "training_images": 10**6}, "training_images: 1000000 asked for, .* has [0-9]+ training images"),
        ({"rate": 2, "epochs": 0, "data": None, "normalisation": "unit"}, "normalisation has no effect without data"),
        ({"rate": 2, "hw": "nonsense"}, "nonsense"),
        ({"rate": 2, "speed": 1}, "unknown option 'speed'"),
    ],
)
def test_wrong_options_are_one_line(dense: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    out = tmp_path / "out.safetensors"
    with pytest.raises(BitlineError, match=message) as caught:
        _prune(dense, out, **options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_recipe_files(dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    out = tmp_path / "out.safetensors"
    recipe.write_text(
        f"start: {dense}\ndata: digits:8\npruning: {{rate: 16, solver: oneshot}}\ntraining: {{epochs: 2}}\n"
    )
    made = make_recipe(recipe, rate=8, rho=None)
    assert (made.pruning.rate, made.pruning.solver, made.training.epochs) == (8, "oneshot", 2)
    assert main(["prune", "--recipe", str(recipe), "--out", str(out), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["recipe"]["pruning"]["rate"] == 16
    assert "retrain 2/2  loss" in captured.err
    for text, message in (
        ("pruning: {rate: 16, admm: {rhoo: 1}}", "pruning.admm.rhoo: unknown key"),
        ("prunning: {rate: 16}", "prunning: unknown key"),
        ("pruning: 7", "pruning: "),
        ("training: {epochs: 2, lr: 1}\npruning: {rate: 2}", "training.lr: unknown key"),
    ):
        recipe.write_text(f"start: {dense}\n{text}\n")
        assert main(["prune", "--recipe", str(recipe), "--out", str(tmp_path / "x.safetensors")]) == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        assert message in captured.err
        assert "recipe.yaml" in captured.err
    assert main(["prune", "--out", str(tmp_path / "x.safetensors"), "--rate", "2"]) == 2
    assert "start: a checkpoint to prune is needed" in capsys.readouterr().err


def test_data_of_other_classes(dense: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    images = np.zeros((40, 1, 8, 8), np.uint8)
    for classes in (4, 30):
        data = tmp_path / f"{classes}.npz"
        labels = np.arange(40) % classes
        np.savez(data, x_train=images, y_train=labels, x_test=images, y_test=labels)
        with pytest.raises(DataError, match=f"has {classes} classes, the network .* has 10 outputs"):
            _prune(dense, out, rate=2, data=f"npz:{data}")
    assert not out.exists()


def test_outputs_that_cannot_be_written(dense: Path, tmp_path: Path) -> None:
    for out, message in (
        (tmp_path / "none" / "x.safetensors", "does not exist"),
        (tmp_path / "x.pt", r"ends in \.safetensors"),
        (dense, "is the checkpoint to prune"),
    ):
        with pytest.raises((OutputError, ConfigError), match=message):
            _prune(dense, out, rate=2)
