"""The shipped checkpoints are what their recipes and metadata say, and the script that makes them works."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
import torch
from bitline.models.train_digits import SHIPPED, make

from bitline import load_hardware
from bitline.crossbar.certificate import certify_layers
from bitline.data import open_dataset
from bitline.errors import BitlineError
from bitline.network.architectures import build_network
from bitline.network.checkpoint import load_checkpoint
from bitline.network.conversion import matrix_layers
from bitline.pruning.constraints import ColumnProportional
from bitline.pruning.finetune import EpochRecord, TrainingPlan, top1
from bitline.pruning.layers import prunable_layers
from bitline.pruning.recipe import PruningPlan, Recipe, load_recipe


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small layers on several threads mostly wait for each other, for seconds where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def models() -> Iterator[Path]:
    with resources.as_file(resources.files("bitline.models")) as folder:
        yield folder


@pytest.mark.parametrize("name", SHIPPED)
def test_metadata_is_the_recipe(models: Path, name: str) -> None:
    metadata = load_checkpoint(models / f"{name}.safetensors").metadata
    recipe = load_recipe(models / f"{name}.yaml")
    assert metadata["recipe"] == recipe.canonical()
    assert metadata["architecture"] == recipe.architecture
    assert metadata["dataset"] == recipe.data
    assert metadata["normalisation"] == recipe.normalisation
    assert metadata["seed"] == str(recipe.training.seed)
    if recipe.start is not None:
        start = (models / f"{recipe.start}.safetensors").read_bytes()
        assert metadata["start_sha256"] == hashlib.sha256(start).hexdigest()


@pytest.mark.parametrize("name", SHIPPED)
def test_accuracy_is_the_one_in_the_metadata(models: Path, name: str) -> None:
    network = build_network(load_checkpoint(models / f"{name}.safetensors"))
    metadata = load_checkpoint(models / f"{name}.safetensors").metadata
    assert network.architecture == metadata["architecture"]
    dataset = open_dataset(metadata["dataset"], normalisation=network.normalisation)
    assert network.input_shape == dataset.image_shape
    assert dataset.test.labels is not None
    images, labels = dataset.test.images(0, len(dataset.test)), torch.from_numpy(dataset.test.labels)
    assert len(labels) == 500
    measured = top1(network.module, images, labels)
    assert measured == float(metadata["float_top1"])
    assert measured >= 0.98


def test_accuracy_lost_to_pruning_is_within_half_a_point(models: Path) -> None:
    dense, pruned = (float(load_checkpoint(models / f"{name}.safetensors").metadata["float_top1"]) for name in SHIPPED)
    assert pruned >= dense - 0.005


def test_pruned_weights_keep_cp_rate_16_and_fill_row_tiles(models: Path) -> None:
    dense, pruned = (build_network(load_checkpoint(models / f"{name}.safetensors")).module for name in SHIPPED)
    constraint = ColumnProportional(16)
    layers = prunable_layers(pruned)
    assert len(layers) == 21  # all 19 convolutions of the trunk but the first, two projections, the linear layer
    # Counted here in plain steps, not by the code that pruned.
    most = []
    for layer in layers:
        columns = layer.module.weight.reshape(layer.module.weight.shape[0], -1)
        most += [int((tile != 0).sum(1).max()) for tile in columns.split(128, dim=1)]
    assert set(most) == {8}
    assert sum(columns.module.weight[0].numel() >= 128 for columns in layers) == 18
    assert int((pruned.conv1.weight == 0).sum()) == 0
    assert all(constraint.violation(layer.module.weight) > 0 for layer in prunable_layers(dense))


def test_certified_bits_of_dense_and_pruned(models: Path) -> None:
    hardware = load_hardware("tinyadc")
    bits = []
    for name in SHIPPED:
        module = build_network(load_checkpoint(models / f"{name}.safetensors")).module
        certificate = certify_layers(matrix_layers(module, hardware).layers, hardware)
        assert certificate.lossless
        bits.append([layer.bits for layer in certificate.layers])
        # At l = 8, Eq. (1) gives 5 bits: 3 x 8 = 24 < 32. conv1 has 9 rows, all of them non-zero: 6 bits.
        if name == "digits_resnet20_cp16":
            assert [layer.counts.equation for layer in certificate.layers] == [6] + [5] * 21
    assert max(bits[0]) == 8
    assert max(bits[1]) <= 5


def test_the_recipes_steps_work_and_repeat(tmp_path: Path) -> None:
    dense = Recipe(
        architecture="resnet20_b",
        data="digits:8",
        training=TrainingPlan(epochs=1, learning_rate=0.05, batch_size=128, shift=1),
    )
    pruned = dense.model_copy(update={"start": "dense", "pruning": PruningPlan(rate=4)})
    contents = []
    for run in ("first", "second"):
        folder = tmp_path / run
        folder.mkdir()
        records: list[EpochRecord] = []
        paths = [make(dense, folder, "dense", records.append), make(pruned, folder, "pruned", records.append)]
        assert records[1].loss < records[0].loss  # the second starts from what the first learnt
        contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]
    module = build_network(load_checkpoint(tmp_path / "first" / "pruned.safetensors")).module
    assert all(ColumnProportional(4).violation(layer.module.weight) == 0 for layer in prunable_layers(module))


def test_a_recipe_without_its_start_is_one_line(tmp_path: Path) -> None:
    recipe = Recipe(architecture="resnet20_b", start="dense", training=TrainingPlan(epochs=1, learning_rate=0.05))
    with pytest.raises(BitlineError, match=r"dense\.safetensors") as caught:
        make(recipe, tmp_path, "pruned")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
