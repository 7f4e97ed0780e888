"""From what a user names to what runs: the checkpoint's network, its data set, and a normalisation that fits both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from bitline.data import Dataset, open_dataset
from bitline.data.dataset import Split
from bitline.data.normalisation import PRESETS, Normalisation
from bitline.errors import ConfigError, DataError
from bitline.hardware import Hardware, load_hardware
from bitline.network.architectures import Network, build_network
from bitline.network.checkpoint import Checkpoint, load_checkpoint
from bitline.network.dataflow import operations
from bitline.network.evaluation import batch_size_for, fit

__all__ = [
    "Prepared",
    "calibration_split",
    "chosen_hardware",
    "label_offset",
    "load_network",
    "prepare",
    "prepare_data",
    "shipped_checkpoints",
]

_CHECK_IMAGES = 300
_CHECK_IMAGES_LARGE = 40
_LARGE_SIDE = 96
_SAME_LOSS = 1.02
"""Cross-entropies within this factor are one: (pixel - 128) / 128 and (pixel / 255 - 0.5) / 0.5 differ by less."""
_CLEARLY_BETTER = 0.05
"""A preset this much more accurate than the one in use is worth a warning (over some 300 images)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A network and the data that fits it."""

    checkpoint: Checkpoint
    checkpoint_name: str
    """What to call the checkpoint in reports: a shipped name or the file's name."""
    network: Network
    dataset: Dataset
    label_offset: int
    """Added to labels: 1 where the network's class 0 is the background."""
    normalisation_source: str
    """Where the normalisation came from."""
    notes: tuple[str, ...]


def chosen_hardware(hw: str | Path | Hardware, adc_bits: int | str | None) -> Hardware:
    """The hardware a user names, with the ADC bits or policy that replace its own."""
    if not isinstance(hw, str | Path | Hardware):
        raise ConfigError(f"hardware: expected a name, a path or a description, got {type(hw).__name__}")
    overrides = {} if adc_bits is None else {"adc_bits": adc_bits}
    return hw.replace(**overrides) if isinstance(hw, Hardware) else load_hardware(hw, **overrides)


def shipped_checkpoints() -> list[str]:
    """Names of the checkpoints that ship with Bitline."""
    entries = resources.files("bitline.models").iterdir()
    return sorted(entry.name.removesuffix(".safetensors") for entry in entries if entry.name.endswith(".safetensors"))


def load_network(checkpoint: str | Path, arch: str | None = None) -> tuple[Checkpoint, str, Network]:
    """Load a checkpoint file, or one that ships by its name, and build its network.

    Returns
    -------
    Checkpoint, str, Network
        The weights, what to call them in reports, and the module that holds them.

    Raises
    ------
    CheckpointError, ArchitectureError
    """
    name = str(checkpoint)
    if name in shipped_checkpoints() and not Path(name).exists():
        with resources.as_file(resources.files("bitline.models") / f"{name}.safetensors") as path:
            loaded = load_checkpoint(path)
    else:
        loaded = load_checkpoint(name)
        name = Path(name).name
    return loaded, name, build_network(loaded, arch)


def calibration_split(dataset: Dataset, images: int) -> tuple[Split, str]:
    """Images, evenly spaced, that set activation scales: from the training split where there is one."""
    if dataset.train is not None and len(dataset.train):
        count = min(images, len(dataset.train))
        return dataset.train.evenly(count), f"{count} images of the training split"
    count = min(images, len(dataset.test))
    return dataset.test.evenly(count), f"{count} of the test images (there is no training split)"


def prepare(
    checkpoint: str | Path,
    data: str | Dataset | None,
    *,
    arch: str | None = None,
    normalisation: str | None = None,
    resize: int | None = None,
    crop: int | None = None,
) -> Prepared:
    """Load a network and open a data set that fits it: :func:`load_network`, then :func:`prepare_data`.

    Raises
    ------
    CheckpointError, ArchitectureError, DataError
        As their loaders say; or images and classes that do not fit the network.
    """
    return prepare_data(load_network(checkpoint, arch), data, normalisation=normalisation, resize=resize, crop=crop)


def prepare_data(
    found: tuple[Checkpoint, str, Network],
    data: str | Dataset | None,
    *,
    normalisation: str | None = None,
    resize: int | None = None,
    crop: int | None = None,
    check: Callable[[Dataset], None] | None = None,
) -> Prepared:
    """Open a data set that fits a loaded network.

    The normalisation is the one asked for, else the one the checkpoint or architecture names, else the preset with
    which the float network has the least cross-entropy on calibration images (never the test images where there is a
    training split). In every case the presets are compared on those images, and one that is clearly better than the
    one in use is reported.

    Parameters
    ----------
    found : tuple
        What :func:`load_network` returns.
    check : callable, optional
        Called with the data set before any image runs; raises what the caller cannot use.

    Raises
    ------
    DataError
        As the loaders say; or images and classes that do not fit the network.
    """
    loaded, name, network = found
    dataset = (
        data
        if isinstance(data, Dataset)
        else open_dataset(
            data,
            normalisation=normalisation,
            resize=network.resize if resize is None else resize,
            crop=network.crop if crop is None else crop,
        )
    )
    if check is not None:
        check(dataset)
    channels = dataset.image_shape[0]
    if network.input_shape is not None and network.input_shape[0] != channels:
        raise DataError(
            f"data {dataset.spec}: images have {channels} channels, "
            f"the network {network.architecture} takes {network.input_shape[0]}"
        )
    offset = label_offset(network, dataset)
    notes = list(network.assumptions)
    if offset:
        notes.append(f"the network has {network.classes} outputs for {dataset.classes} classes: output 0 is background")
    source = "given" if normalisation is not None or isinstance(data, Dataset) else ""
    if not source and network.normalisation is not None:
        dataset = dataset.with_normalisation(network.normalisation)
        source = "named by the checkpoint or its architecture"
    dataset, source, findings = _fit_normalisation(network, dataset, source, offset)
    return Prepared(
        checkpoint=loaded,
        checkpoint_name=name,
        network=network,
        dataset=dataset,
        label_offset=offset,
        normalisation_source=source,
        notes=(*notes, *findings),
    )


def label_offset(network: Network, dataset: Dataset) -> int:
    """What to add to labels: 1 where the network's class 0 is the background."""
    if network.classes is None or dataset.classes == 0:
        return 0
    if network.classes == dataset.classes + 1:
        return 1
    if network.classes < dataset.classes:
        raise DataError(
            f"data {dataset.spec}: has {dataset.classes} classes, the network {network.architecture} "
            f"has {network.classes} outputs; expected a data set of the checkpoint's classes"
        )
    return 0


def _fit_normalisation(network: Network, dataset: Dataset, source: str, offset: int) -> tuple[Dataset, str, list[str]]:
    """Compare the presets on calibration images; choose one where none is given, warn where another is better."""
    labels = (dataset.train or dataset.test).labels
    if dataset.full_scale is None or labels is None:
        return dataset, source or "the data set's default (no labelled images to compare presets on)", []
    shape = dataset.image_shape
    images = _CHECK_IMAGES if max(shape[1:]) <= _LARGE_SIDE else _CHECK_IMAGES_LARGE
    candidates = {name: dataset.with_normalisation(preset) for name, preset in _presets(dataset).items()}
    batch = batch_size_for(operations(network.module, shape))
    found: dict[str, tuple[float, float]] = {}
    sample = calibration_split(dataset, images)[0]
    stored = sample.pixels(0, len(sample))  # read once: a file may hold thousands of images that are slow to decode
    for name, candidate in candidates.items():
        measured = fit(network.module, _Stored(calibration_split(candidate, images)[0], stored), offset, batch)
        assert measured is not None  # the labels were looked at above
        found[name] = measured
    where = calibration_split(dataset, images)[1]
    least = min(loss for _, loss in found.values())
    best = next(name for name, (_, loss) in found.items() if loss <= _SAME_LOSS * least)
    if not source:
        order = sorted(found, key=lambda name: found[name][1])
        table = ", ".join(f"{name} {100 * found[name][0]:.1f} %" for name in order[:4])
        return candidates[best], f"fits the float network best on {where}: {table}", []
    current = dataset.normalisation.name
    if found[best][0] > found[current][0] + _CLEARLY_BETTER:
        warning = (
            f"normalisation {current} ({source}) gives {100 * found[current][0]:.1f} % on {where}, "
            f"{best} would give {100 * found[best][0]:.1f} %: is it the one this checkpoint was trained with?"
        )
        return dataset, source, [warning]
    return dataset, source, []


class _Stored:
    """A split whose stored values are at hand."""

    def __init__(self, split: Split, stored: NDArray[Any]) -> None:
        self.labels, self._split, self._stored = split.labels, split, stored

    def __len__(self) -> int:
        return len(self._stored)

    def images(self, start: int, stop: int) -> torch.Tensor:
        """Normalised images start..stop-1."""
        return self._split.normalised(torch.from_numpy(self._stored[start:stop].copy()))


def _presets(dataset: Dataset) -> dict[str, Normalisation]:
    """Normalisations that could be meant for these images: every preset that fits, once each, and the current one."""
    candidates: dict[str, Normalisation] = {dataset.normalisation.name: dataset.normalisation}
    for name, preset in PRESETS.items():
        if preset.scale != "raw" and len(preset.mean) in (1, dataset.image_shape[0]):
            candidates.setdefault(name, preset)
    return candidates
