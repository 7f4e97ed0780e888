"""Make the shipped dense checkpoint again: ``python -m bitline.models.train_digits --out DIR``.

Trains a ResNet-20 on scikit-learn's digits from random weights, as the recipe beside this file says; about a minute on
one core. The pruned one is made of it by ``bitline prune`` and its recipe. The same machine and torch give the same
file; another's floating-point sums differ in the last bits, and then in the weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bitline.data import Split, open_dataset
from bitline.errors import BitlineError, DataError
from bitline.network.architectures import build_architecture
from bitline.pruning.recipe import read_fields, validated
from bitline.pruning.saving import checkpoint_bytes
from bitline.pruning.training import EpochRecord, Trainer, TrainingPlan, top1
from bitline.report.writer import write_atomic

DENSE = "digits_resnet20_dense"
"""The checkpoint made here, and its recipe."""


class TrainRecipe(BaseModel):
    """Everything that makes a checkpoint from random weights; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    architecture: Annotated[str, Field(min_length=1)]
    """One of ``bitline.network.architectures``."""

    data: str = "digits"
    """Data set, as ``bitline.data.open_dataset`` takes it; its training split is trained on."""

    normalisation: str | None = None
    """Of the images; the data set's own by default."""

    training: TrainingPlan
    """Epochs and optimiser; its seed also draws the first weights."""

    def canonical(self) -> str:
        """The recipe as one line of JSON, keys sorted, defaults written out."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


def load_recipe(path: str | Path) -> TrainRecipe:
    """Read and check a recipe.

    Raises
    ------
    ConfigError
        A file that is missing, unreadable or no YAML; an unknown key, a wrong type or an impossible value.
    """
    return validated(TrainRecipe, read_fields(path), f"recipe {path}")


def make(recipe: TrainRecipe, path: Path, progress: Callable[[EpochRecord], None] | None = None) -> float:
    """Follow a recipe, write the checkpoint to ``path`` and return its top-1 on the test images, 0..1.

    Raises
    ------
    BitlineError
        A data set that does not fit, training that diverges, a file that cannot be written.
    """
    dataset = open_dataset(recipe.data, normalisation=recipe.normalisation)
    network = build_architecture(
        recipe.architecture, classes=dataset.classes, in_channels=dataset.image_shape[0], seed=recipe.training.seed
    )
    # Training is faster on a CPU with the channels last; the numbers and the file keep torch's usual order.
    module = network.module.to(memory_format=torch.channels_last).requires_grad_(True)  # type: ignore[call-overload]
    Trainer(module, *_tensors(dataset.train, recipe.data), recipe.training).run(progress)
    images, labels = _tensors(dataset.test, recipe.data)
    accuracy = top1(module, images, labels)
    metadata = {
        "architecture": recipe.architecture,
        "input_shape": "x".join(map(str, dataset.image_shape)),
        "normalisation": dataset.normalisation.name,
        "dataset": recipe.data,
        "test_images": str(len(labels)),
        "float_top1": repr(accuracy),
        "seed": str(recipe.training.seed),
        "recipe": recipe.canonical(),
        "torch": torch.__version__,
    }
    write_atomic(path, checkpoint_bytes(module.state_dict(), metadata))
    return accuracy


def _tensors(split: Split | None, spec: str) -> tuple[Tensor, Tensor]:
    if split is None or split.labels is None:
        raise DataError(f"{spec}: training needs a labelled training split")
    return split.images(0, len(split)), torch.from_numpy(split.labels)


def main() -> int:
    """Make the checkpoint; progress goes to standard error."""
    parser = argparse.ArgumentParser(prog="python -m bitline.models.train_digits", description=__doc__)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="existing folder for the checkpoint")
    path = parser.parse_args().out / f"{DENSE}.safetensors"
    # One thread: the sums are then the same on machines with more cores, and these small layers gain nothing.
    torch.set_num_threads(1)

    def progress(record: EpochRecord) -> None:
        line = f"epoch {record.epoch}/{record.epochs}  loss {record.loss:.4f}  training accuracy {record.accuracy:.4f}"
        print(f"{line}  {record.seconds:.1f} s", file=sys.stderr)

    try:
        with resources.as_file(resources.files("bitline.models").joinpath(f"{DENSE}.yaml")) as recipe:
            accuracy = make(load_recipe(recipe), path, progress)
        print(f"{path}: test accuracy {accuracy}", file=sys.stderr)
    except BitlineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
