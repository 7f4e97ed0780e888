"""Five commands say the same of one checkpoint: weights, bits, crossbars, energies, cycles; for every architecture.

The checkpoints are the architectures' own weights by name, at a fraction of their widths and random, with rows,
columns, whole layers and blocks of zeros, so that something is left out everywhere; crossbars are as small.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numba import get_num_threads, set_num_threads

import bitline
from bitline.certification import certify_checkpoint
from bitline.comparison import compare
from bitline.crossbar.certificate import codes_sha256
from bitline.hardware import load_hardware
from bitline.network.architectures import build_architecture, list_architectures
from bitline.preparation import load_network
from bitline.simulation import simulate
from bitline.throughput import throughput

SHRINK = {"lstm": 4, "resnet34": 32, "resnet50": 32, "vgg": 32}
"""By how much widths are divided, by the beginning of the name; 16 for the others."""

DEEPER = r"resnet(32|34|44|56|110).*|vgg(13|16|19).*"
"""The same modules as a shallower network of the list, more often: all five commands run in the long profile only."""

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"

HARDWARE = load_hardware("tinyadc", rows=16, columns=24)


def _small_weights(name: str, shrink: int) -> dict[str, torch.Tensor]:
    """Random weights of an architecture, ``shrink`` times narrower, but for its inputs and classes."""
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in build_architecture(name).module.state_dict().items()}
    matrices = [key for key, shape in shapes.items() if len(shape) > 1]
    first, last = matrices[0], matrices[-1].rpartition(".")[0]
    rng = np.random.default_rng(len(name))
    state = {}
    for key, full in shapes.items():
        shape = list(full)
        for axis in range(min(2, len(shape))):
            kept = (key == first and axis == 1) or (key.startswith(f"{last}.") and axis == 0)
            if not kept and shape[axis] >= shrink and shape[axis] % shrink == 0:
                shape[axis] //= shrink
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros(shape, dtype=torch.int64)
            continue
        values = rng.normal(size=shape) / math.sqrt(max(1, math.prod(shape[1:])))
        if key.endswith("running_var"):
            values = 0.5 + rng.random(shape)
        if len(shape) > 1:
            values = _pruned(values.reshape(shape[0], -1), rng).reshape(shape)
        state[key] = torch.from_numpy(values.astype(np.float32))
    return state


def _pruned(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Outputs x inputs with zeros: scattered ones, then all of an input or output, a run of inputs, or everything."""
    weights = weights * (rng.random(weights.shape) < 0.7)
    kind = rng.integers(5)
    if kind == 0 and rng.random() < 0.3:
        weights[:] = 0
    if kind == 1:
        weights[:, rng.random(weights.shape[1]) < 0.4] = 0
    if kind == 2:
        weights[rng.random(weights.shape[0]) < 0.4] = 0
    if kind == 3:
        weights[: len(weights) // 2, : weights.shape[1] // 2] = 0
    return weights


def _layer_facts(layers: list[dict[str, Any]], *keys: str) -> dict[str, tuple[Any, ...]]:
    return {layer["name"]: tuple(layer[key] for key in keys) for layer in layers}


def _without(value: Any, keys: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, keys) for key, item in value.items() if key not in keys}
    return [_without(item, keys) for item in value] if isinstance(value, list) else value


@pytest.fixture
def one_numba_thread() -> Iterator[None]:
    """As ``one_thread``: these layers are tiny."""
    threads = get_num_threads()
    set_num_threads(1)
    yield
    set_num_threads(threads)


@pytest.mark.usefixtures("one_thread", "one_numba_thread")
@pytest.mark.parametrize("name", [n for n in list_architectures() if LONG or not re.fullmatch(DEEPER, n)])
def test_five_commands_say_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(_small_weights(name, next((by for start, by in SHRINK.items() if name.startswith(start)), 16)), path)
    _, _, network = load_network(path, name)
    assert network.input_shape is not None
    pixels = np.random.default_rng(0).integers(0, 256, (1, *network.input_shape), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", x_test=pixels, x_train=pixels)
    data = f"npz:{tmp_path / 'data.npz'}"
    few = {"arch": name, "images": 1, "calibration_images": 1, "normalisation": "unit"}

    simulated = simulate(path, HARDWARE, data, histogram_images=0, **few)
    certificate, sha256 = certify_checkpoint(path, HARDWARE, arch=name)
    compared = compare([path], HARDWARE, ["plain"], data, **few)["rows"][0]
    priced = throughput(HARDWARE, path, arch=name, sweeps=False)
    converted = bitline.convert(network.module, torch.from_numpy(pixels).float() / 255, HARDWARE)

    # weights and proof
    assert simulated["provenance"]["checkpoint_sha256"] == sha256 == compared["checkpoint_sha256"]
    assert priced["provenance"]["checkpoint_sha256"] == sha256
    hashes = {proof.name: codes_sha256(proof.codes) for proof in certificate.layers}
    assert {layer.name: codes_sha256(layer.codes) for layer in converted.layers} == hashes
    bits = {proof.name: (proof.counts.weight_aware, proof.adc.bits, proof.lossless) for proof in certificate.layers}
    assert {p.name: (p.counts.weight_aware, p.adc.bits, p.lossless) for p in converted.certificate.layers} == bits
    for layers in (simulated["layers"], priced["layers"]):
        found = {
            layer["name"]: (layer["adc_bits"]["weight_aware"], layer["adc_bits"]["configured"], layer["lossless"])
            for layer in layers
        }
        assert {key: value for key, value in found.items() if "#" not in key} == bits
    assert simulated["certificate"] == priced["certificate"]
    assert compared["bits_proven"] == certificate.bits == simulated["certificate"]["adc_bits"]["weight_aware"]
    nonzeros = {layer.name: int(np.count_nonzero(layer.codes)) for layer in converted.layers}
    assert {layer["name"]: layer["nonzeros"] for layer in simulated["layers"]} == nonzeros

    # crossbars
    by_copy = _layer_facts(simulated["layers"], "crossbars", "crossbars_left_out")
    first_calls = [layer for layer in priced["layers"] if "#" not in layer["name"]]
    assert _layer_facts(first_calls, "crossbars_per_replica", "dropped_crossbars") == by_copy
    performance, alike = simulated["performance"], priced["performance"]
    assert compared["crossbars"] == performance["crossbars"] == alike["crossbars"]
    assert sum(layer["crossbars"] for layer in priced["layers"]) == performance["crossbars"]

    # time and price, but for what only a run counts
    counted = {"energy_by_event_uj_per_image", "lines_driven", "cells_on"}
    assert _without(performance, counted) == _without(alike, counted)
    assert 0 <= performance["cells_on"] < performance["lines_driven"] < 1
    assert simulated["normalised"] == priced["normalised"]
    breakdown = simulated["breakdown"]
    for key in ("area_mm2", "power_w", "energy_uj", "off_tile"):
        assert breakdown[key] == priced["breakdown"][key]
    assert (compared["area_mm2"], compared["power_w"]) == (performance["area_mm2"], performance["power_w"])
    assert compared["chip_images_per_s"] == performance["images_per_s"]
    events = breakdown["energy_by_event_uj"]
    assert compared["adc_energy_uj"] == pytest.approx(events["adc"], rel=1e-3)
    for component, energy in breakdown["energy_uj"].items():
        assert events[component] <= energy * (1 + 1e-9)
        if component not in ("adc", "dac", "crossbar"):
            assert events[component] == energy


@pytest.mark.usefixtures("one_thread", "one_numba_thread")
@pytest.mark.parametrize("name", [n for n in list_architectures() if not LONG and re.fullmatch(DEEPER, n)])
def test_proof_and_price_of_deeper_networks_say_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(_small_weights(name, next((by for start, by in SHRINK.items() if name.startswith(start)), 16)), path)
    certificate, sha256 = certify_checkpoint(path, HARDWARE, arch=name)
    priced = throughput(HARDWARE, path, arch=name, sweeps=False)
    assert priced["provenance"]["checkpoint_sha256"] == sha256
    assert priced["certificate"]["lossless"] == certificate.lossless
    bits = {proof.name: (proof.counts.weight_aware, proof.adc.bits, proof.nonzeros_max) for proof in certificate.layers}
    assert {
        layer["name"]: (layer["adc_bits"]["weight_aware"], layer["adc_bits"]["configured"], layer["nonzeros_max"])
        for layer in priced["layers"]
    } == bits
