"""Real checkpoints on real images: identical to the exact integer network at the certified bits, refuted below them.

The full runs (10,000 and 500 images) are in docs/results; here a few images of each keep the suite short.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numba import get_num_threads, set_num_threads

import bitline
from bitline.certification import certify_checkpoint
from bitline.crossbar.engines import Crossbars
from bitline.data import open_dataset
from bitline.network.conversion import matrix_layers
from bitline.network.quantisation import quantise_weights
from bitline.preparation import load_network
from bitline.pruning.adc_fit import AdcFit
from bitline.pruning.bitlevel import project_levels
from bitline.pruning.layers import prunable_layers, weight_matrices
from bitline.pruning.value_bit import ValueBit
from bitline.simulation import verify

pytestmark = pytest.mark.realdata

CIFAR = {
    "resnet20-12fca82f.th": "imagenet",
    "distiller_resnet20_channels_zeroed.pth.tar": "half",
    "distiller_resnet20_channels_thinned_finetuned.pth": "half",
}


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_resnet20_is_exact_at_the_certified_bits(shared_data: Path, name: str) -> None:
    report = bitline.simulate(
        shared_data / "checkpoints" / "cifar10" / name, "tinyadc", f"cifar10:{shared_data / 'cifar10'}", images=24
    )
    verify(report)
    assert report["data"]["normalisation"]["name"] == CIFAR[name]  # as the manifest states, found by measurement
    assert report["certificate"]["lossless"] is True
    assert report["accuracy"]["identical_to_integer"] is True
    assert sum(layer["saturations"] for layer in report["layers"]) == 0
    # 24 images: the manifest's 91 to 92 % with a wide margin; a wrong network or normalisation is far below
    assert report["accuracy"]["float_top1"] >= 0.75
    assert abs(report["accuracy"]["float_top1"] - report["accuracy"]["integer_top1"]) <= 2 / 24
    for layer in report["layers"]:
        assert layer["max_column_sum"] <= layer["column_sum_bound"]


def test_one_bit_below_the_certificate_a_witness_saturates_every_refuted_layer(shared_data: Path) -> None:
    path = shared_data / "checkpoints" / "cifar10" / "resnet20-12fca82f.th"
    proven, _ = certify_checkpoint(path)
    certificate, _ = certify_checkpoint(path, adc_bits=proven.bits - 1)
    layers = matrix_layers(load_network(path)[2].module, certificate.hardware).layers
    needing = [layer for layer in proven.layers if layer.bits == proven.bits]
    refuted = [(layer, proof) for layer, proof in zip(layers, certificate.layers, strict=True) if not proof.lossless]
    assert [proof.name for _, proof in refuted] == [proof.name for proof in needing]
    for layer, proof in refuted:
        crossbars = Crossbars(layer.codes, certificate.hardware, signed_inputs=layer.signed_inputs, adc=proof.adc)
        witness, worst = proof.witness(), proof.worst()
        assert witness is not None
        assert worst is not None
        product = crossbars.multiply(witness[None])
        assert product.saturations > 0
        assert product.max_column_sum == worst.max_sum > (1 << proof.adc.bits) - 1


def test_two_bits_below_the_images_themselves_saturate_and_both_engines_agree(shared_data: Path) -> None:
    reports = [
        bitline.simulate(
            shared_data / "checkpoints" / "cifar10" / "resnet20-12fca82f.th",
            "tinyadc",
            f"cifar10:{shared_data / 'cifar10'}",
            images=6,
            adc_bits=5,
            normalisation="imagenet",
            engine=engine,
        )
        for engine in ("bitserial", "certified")
    ]
    saturations = [[layer["saturations"] for layer in report["layers"]] for report in reports]
    assert sum(saturations[0]) > 0
    assert saturations[0] == saturations[1]
    assert [layer["conversions"] for layer in reports[0]["layers"]] == [
        layer["conversions"] for layer in reports[1]["layers"]
    ]
    assert reports[0]["accuracy"] == reports[1]["accuracy"]


@pytest.mark.parametrize("name", CIFAR)
def test_engines_agree_from_far_below_to_above_the_certificate(shared_data: Path, name: str) -> None:
    """Outputs, conversions and saturations, in batches of any size, on any number of threads."""
    module = load_network(shared_data / "checkpoints" / "cifar10" / name)[2].module
    images = open_dataset(f"cifar10:{shared_data / 'cifar10'}").test.images(0, 5)
    hw = bitline.load_hardware("tinyadc")
    network = bitline.convert(module, images, hw, calibrator="max")
    threads, counted = get_num_threads(), []
    for bits in (1, 4, 6, 7, 8, 10):
        network.use_hardware(hw.replace(adc_bits=bits))
        runs = []
        for engine, size, number in (("bitserial", 5, threads), ("certified", 5, threads), ("certified", 3, 1)):
            network.engine = engine
            network.reset_counters()
            set_num_threads(number)
            try:
                outputs = torch.cat([network(batch) for batch in images.split(size)])
            finally:
                set_num_threads(threads)
            runs.append((outputs, [(c.vectors, c.conversions, c.saturations) for c in network.counters]))
        for outputs, counts in runs[1:]:
            assert torch.equal(outputs, runs[0][0])
            assert counts == runs[0][1]
        counted.append(sum(saturations for _, _, saturations in runs[0][1]))
    assert counted[0] > 0 == counted[-1]


def test_pruned_imagenet_squeezenet(shared_data: Path) -> None:
    report = bitline.simulate(
        shared_data / "checkpoints" / "imagenet" / "squeezenet1_0_deepcompression.pth",
        "tinyadc",
        f"imagefolder:{shared_data / 'imagenet'}",
        arch="squeezenet1_0_caffe",
        images=4,
        calibration_images=16,
    )
    verify(report)
    assert report["data"]["normalisation"]["name"] == "caffe"
    assert report["network"]["input_shape"] == [3, 227, 227]
    assert report["certificate"]["lossless"] is True
    assert report["accuracy"]["identical_to_integer"] is True
    assert len(report["layers"]) == 26


@pytest.mark.parametrize(
    ("path", "arch", "data"),
    [
        ("mnist/lstm_mnist.pth", "lstm_mnist", "mnist:{}/mnist"),
        ("kws/mlperftiny_dscnn.pth", "mlperftiny_dscnn", "kws:{}/kws"),
        ("cifar10/mlperftiny_resnet8.pth", "mlperftiny_resnet8", "cifar10:{}/cifar10"),
        ("imagenet/mobilenet_v1_0.25_128_quant.pth", "mobilenet_v1_025_128", "imagefolder:{}/imagenet"),
    ],
)
def test_the_other_checkpoints_run_by_arch(shared_data: Path, path: str, arch: str, data: str) -> None:
    report = bitline.simulate(
        shared_data / "checkpoints" / path,
        "tinyadc",
        data.format(shared_data),
        arch=arch,
        images=8,
        calibration_images=16,
        engine="certified",
    )
    verify(report)
    assert report["certificate"]["lossless"] is True
    assert report["accuracy"]["identical_to_integer"] is True
    assert report["network"]["architecture"] == arch
    if arch == "lstm_mnist":
        assert report["kept_in_torch"] == []
        assert [layer["kind"] for layer in report["layers"]] == ["linear", "recurrent", "linear"]


def test_mnist_lstm_runs_whole_on_crossbars(shared_data: Path) -> None:
    report = bitline.simulate(
        shared_data / "checkpoints" / "mnist" / "lstm_mnist.pth",
        "tinyadc",
        f"mnist:{shared_data / 'mnist'}",
        images=256,
    )
    verify(report)
    assert report["kept_in_torch"] == []
    assert [layer["name"] for layer in report["layers"]] == ["lstm.weight_ih_l0", "lstm.weight_hh_l0", "fc"]
    assert [(layer["rows"], layer["columns"]) for layer in report["layers"]] == [(28, 80), (20, 80), (560, 10)]
    # 28 steps, 8 input cycles, columns x 4 slices x 2 signs of each row tile
    vectors = [256 * 28, 256 * 28, 256]
    columns = [80 * 8, 80 * 8, 5 * 10 * 8]
    assert [layer["conversions"] for layer in report["layers"]] == [
        8 * v * c for v, c in zip(vectors, columns, strict=True)
    ]
    assert report["certificate"]["lossless"] is True
    assert report["accuracy"]["identical_to_integer"] is True
    assert sum(layer["saturations"] for layer in report["layers"]) == 0
    assert report["accuracy"]["float_top1"] > 0.93  # the manifest's 97.91 % of 10,000 images, with a wide margin
    assert abs(report["accuracy"]["float_top1"] - report["accuracy"]["simulated_top1"]) <= 3 / 256
    # a turn of 8 input cycles, 6 of pipeline and the gates': 100 functions in a third of the tile's 2 units (one of
    # three IMAs in use) at 1.2 a ns take 125 ns, 1.25 cycles, and 2 more; 28 turns at 100 ns
    assert report["performance"]["images_per_s"] == pytest.approx(1e9 / (28 * (8 + 6 + 1.25 + 2) * 100), rel=1e-6)


def test_value_and_bit_pruning_is_nearer_than_removing_weights(shared_data: Path) -> None:
    # A late layer of the real ResNet-20: the whole network's figures are in docs/bit_level.md.
    module = load_network(shared_data / "checkpoints" / "cifar10" / "resnet20-12fca82f.th")[2].module
    layer = next(layer for layer in prunable_layers(module) if layer.name == "layer3.0.conv1")
    weight = layer.module.weight.detach()
    (real,) = weight_matrices(weight).astype(np.float64)
    for limit, ratio in ((3, 0.9), (7, 0.8), (15, 0.65)):
        scale = np.abs(real).max(axis=0) / 127
        found = project_levels(real / scale, 128, limit, cell_bits=2, slices=4, high=127)
        assert (found.bound <= found.cost).all()
        assert found.cost.sum() <= 1.01 * found.bound.sum()
        fitted = ValueBit(limit=limit).project(weight)
        whole = AdcFit(limit=limit, nonzeros=128).project(weight)
        assert float((fitted - weight).norm()) <= ratio * float((whole - weight).norm())
        (codes,) = quantise_weights(weight_matrices(fitted).astype(np.float64), 8)[0]
        assert bitline.certify(codes, bitline.load_hardware("tinyadc")).bits == limit.bit_length()
