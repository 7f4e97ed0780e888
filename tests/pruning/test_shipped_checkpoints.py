"""The shipped checkpoints are what their recipes and metadata say, and the script that makes the dense one works."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
import torch
from bitline.models.train_digits import DENSE, TrainRecipe, load_recipe, make

from bitline import load_hardware
from bitline.crossbar.certificate import certify_layers
from bitline.data import open_dataset
from bitline.errors import ConfigError
from bitline.network.architectures import build_network
from bitline.network.checkpoint import load_checkpoint
from bitline.network.conversion import matrix_layers
from bitline.pruner import make_recipe
from bitline.pruning.constraints import ColumnProportional
from bitline.pruning.layers import prunable_layers
from bitline.pruning.plan import PruneRecipe
from bitline.pruning.solvers import Solver
from bitline.pruning.training import EpochRecord, TrainingPlan, top1

PRUNED = "digits_resnet20_cp16"
SHIPPED = (DENSE, PRUNED)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def models() -> Iterator[Path]:
    with resources.as_file(resources.files("bitline.models")) as folder:
        yield folder


def test_dense_metadata_is_its_recipe(models: Path) -> None:
    metadata = load_checkpoint(models / f"{DENSE}.safetensors").metadata
    recipe = load_recipe(models / f"{DENSE}.yaml")
    # Validated again: defaults added since the file was made change nothing.
    assert TrainRecipe.model_validate_json(metadata["recipe"]) == recipe
    assert metadata["architecture"] == recipe.architecture
    assert metadata["dataset"] == recipe.data
    assert metadata["normalisation"] == recipe.normalisation
    assert metadata["seed"] == str(recipe.training.seed)


def test_pruned_metadata_is_its_recipe_and_the_solver_is_admm(models: Path) -> None:
    saved = load_checkpoint(models / f"{PRUNED}.safetensors")
    recipe = make_recipe(models / f"{PRUNED}.yaml")
    assert PruneRecipe.model_validate_json(saved.metadata["recipe"]) == recipe
    assert recipe.pruning.solver is Solver.ADMM
    assert recipe.start == DENSE
    dense = (models / f"{DENSE}.safetensors").read_bytes()
    assert saved.metadata["start_sha256"] == hashlib.sha256(dense).hexdigest()
    assert saved.metadata["start_top1"] == load_checkpoint(models / f"{DENSE}.safetensors").metadata["float_top1"]
    for layer in json.loads(saved.metadata["masks"]):
        kept = (saved.state_dict[f"{layer['name']}.weight"] != 0).sum()
        assert layer["nonzeros"] == int(kept)


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
        if name == PRUNED:
            assert [layer.counts.equation for layer in certificate.layers] == [6] + [5] * 21
    assert max(bits[0]) == 8
    assert max(bits[1]) <= 5


def test_the_dense_recipe_works_and_repeats(tmp_path: Path) -> None:
    recipe = TrainRecipe(
        architecture="resnet20_b",
        data="digits:8",
        training=TrainingPlan(epochs=2, learning_rate=0.05, batch_size=128, shift=1),
    )
    records: list[EpochRecord] = []
    paths = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for path in paths:
        assert str(make(recipe, path, records.append)) == load_checkpoint(path).metadata["float_top1"]
    assert records[1].loss < records[0].loss
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("epochs: 40", "epochs: two"), r"training\.epochs: "),
        (("training:", "trainnig:"), r"trainnig: unknown key"),
        (("data: digits", "data: [digits"), r"not valid YAML"),
        (("data: digits", "data: \x00"), r"not valid YAML"),
    ],
)
def test_wrong_recipes_are_one_line(models: Path, tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text((models / f"{DENSE}.yaml").read_text().replace(*change))
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)
    assert "recipe.yaml" in str(caught.value)
