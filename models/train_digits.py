"""Make the shipped checkpoints again: ``python -m bitline.models.train_digits --out DIR``.

Trains a ResNet-20 on scikit-learn's digits, then prunes it, as the recipes beside this file say; some minutes on one
core. The same machine and torch give the same files; another's floating-point sums differ in the last bits, and
then in the weights.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from bitline.data import Dataset, Split, open_dataset
from bitline.errors import BitlineError, DataError, VerificationError
from bitline.network.architectures import build_architecture, build_network
from bitline.network.checkpoint import load_checkpoint
from bitline.pruning.constraints import violations
from bitline.pruning.finetune import EpochRecord, prune_one_shot, top1, train
from bitline.pruning.layers import prunable_layers
from bitline.pruning.recipe import Recipe, load_recipe
from bitline.pruning.saving import checkpoint_bytes
from bitline.report.writer import write_atomic

SHIPPED = ("digits_resnet20_dense", "digits_resnet20_cp16")
"""Recipes in the order they are made."""

Progress = Callable[[EpochRecord], None]


def make(recipe: Recipe, folder: Path, name: str, progress: Progress | None = None) -> Path:
    """Follow a recipe and write ``folder/name.safetensors``; returns its path.

    ``folder`` holds the checkpoint the recipe starts from, if it starts from one.

    Raises
    ------
    BitlineError
        A data set or checkpoint that does not fit, training that diverges, a file that cannot be written.
    """
    dataset = open_dataset(recipe.data, normalisation=recipe.normalisation)
    module, origin = _start(recipe, dataset, folder)
    # Training is faster on a CPU with the channels last; the numbers and the file keep torch's usual order.
    module = module.to(memory_format=torch.channels_last).requires_grad_(True)
    images, labels = _tensors(dataset.train, recipe.data)
    if recipe.pruning is None:
        train(module, images, labels, recipe.training, progress=progress)
    else:
        layers = prunable_layers(module, exempt_first=recipe.pruning.exempt_first, exempt=set(recipe.pruning.exempt))
        constraint = recipe.pruning.constraint()
        prune_one_shot(module, layers, constraint, images, labels, recipe.training, progress=progress)
        excess = violations(layers, constraint)
        if excess:
            raise VerificationError(f"{name}: {excess} non-zeros beyond CP rate {recipe.pruning.rate:g}")
    test_images, test_labels = _tensors(dataset.test, recipe.data)
    metadata = {
        "architecture": recipe.architecture,
        "input_shape": "x".join(map(str, dataset.image_shape)),
        "normalisation": dataset.normalisation.name,
        "dataset": recipe.data,
        "test_images": str(len(test_labels)),
        "float_top1": repr(top1(module, test_images, test_labels)),
        "seed": str(recipe.training.seed),
        "recipe": recipe.canonical(),
        "torch": torch.__version__,
        **origin,
    }
    path = folder / f"{name}.safetensors"
    write_atomic(path, checkpoint_bytes(module.state_dict(), metadata))
    return path


def _start(recipe: Recipe, dataset: Dataset, folder: Path) -> tuple[nn.Module, dict[str, str]]:
    if recipe.start is None:
        channels, seed = dataset.image_shape[0], recipe.training.seed
        network = build_architecture(recipe.architecture, classes=dataset.classes, in_channels=channels, seed=seed)
        return network.module, {}
    path = folder / f"{recipe.start}.safetensors"
    network = build_network(load_checkpoint(path), recipe.architecture)
    return network.module, {"start_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _tensors(split: Split | None, spec: str) -> tuple[Tensor, Tensor]:
    if split is None or split.labels is None:
        raise DataError(f"{spec}: training needs a labelled training split")
    return split.images(0, len(split)), torch.from_numpy(split.labels)


def main() -> int:
    """Make both checkpoints; progress goes to standard error."""
    parser = argparse.ArgumentParser(prog="python -m bitline.models.train_digits", description=__doc__)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="existing folder for the checkpoints")
    folder = parser.parse_args().out
    # One thread: the sums are then the same on machines with more cores, and these small layers gain nothing.
    torch.set_num_threads(1)

    def progress(record: EpochRecord) -> None:
        line = f"epoch {record.epoch}/{record.epochs}  loss {record.loss:.4f}  training accuracy {record.accuracy:.4f}"
        print(f"{line}  {record.seconds:.1f} s", file=sys.stderr)

    try:
        for name in SHIPPED:
            print(name, file=sys.stderr)
            with resources.as_file(resources.files("bitline.models").joinpath(f"{name}.yaml")) as recipe:
                path = make(load_recipe(recipe), folder, name, progress)
            print(f"{path.name}: test accuracy {load_checkpoint(path).metadata['float_top1']}", file=sys.stderr)
    except BitlineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
