"""From what a user names to what runs: the checkpoint's network, its data set, and a normalisation that fits both."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitline.data import Dataset, open_dataset
from bitline.data.dataset import Split
from bitline.data.normalisation import PRESETS, Normalisation
from bitline.errors import ConfigError, DataError, ShapeError
from bitline.hardware import Hardware, load_hardware
from bitline.network.architectures import Network, build_network, check_input
from bitline.network.checkpoint import Checkpoint, load_checkpoint
from bitline.network.dataflow import operations
from bitline.network.evaluation import batch_size_for, fit

__all__ = [
    "Prepared",
    "calibration_split",
    "chosen_hardware",
    "load_network",
    "prepare",
    "prepare_data",
    "shipped_checkpoints",
]

_CHECK_IMAGES = 300
_CHECK_IMAGES_LARGE = 40
_LARGE_SIDE = 96
_NEAR_TIE = 1.05
"""The least cross-entropy is told from others only beyond this factor (over some 300 images)."""
_SAME_NUMBERS = 0.005
"""Presets whose black and white differ by less than this share of the range are one: (pixel - 128) / 128 and
(pixel / 255 - 0.5) / 0.5 do by 0.004, and no number of images tells them apart."""
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
    """Added to a label to get its output: 1 where output 0 is the background; the architecture's or the user's."""
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
    """At most so many images, evenly spaced, and what they are of: the training split where there is one."""
    if dataset.train is not None and len(dataset.train):
        return dataset.train.evenly(min(images, len(dataset.train))), "the training split"
    return dataset.test.evenly(min(images, len(dataset.test))), "the test images (there is no training split)"


def prepare(
    checkpoint: str | Path,
    data: str | Dataset | None,
    *,
    arch: str | None = None,
    normalisation: str | None = None,
    resize: int | None = None,
    crop: int | None = None,
    label_offset: int | None = None,
) -> Prepared:
    """Load a network and open a data set that fits it: :func:`load_network`, then :func:`prepare_data`.

    Where the same weights fit several architectures and none is named, the one with the least cross-entropy on the
    calibration images is taken, with its own preprocessing.

    Raises
    ------
    CheckpointError, ArchitectureError, DataError
        As their loaders say; or images and classes that do not fit the network.
    """
    loaded, name, network = load_network(checkpoint, arch)
    options = _Options(normalisation=normalisation, resize=resize, crop=crop, label_offset=label_offset)
    best = _fitted(network, data, options)
    for other in network.alternatives if best.loss is not None and not isinstance(data, Dataset) else ():
        best = _better(best, build_network(loaded, other), data, options)
    return _prepared(loaded, name, best)


def prepare_data(
    found: tuple[Checkpoint, str, Network],
    data: str | Dataset | None,
    *,
    normalisation: str | None = None,
    check: Callable[[Dataset], None] | None = None,
) -> Prepared:
    """Open a data set that fits a loaded network.

    The normalisation is the one asked for, else the one the checkpoint or architecture names, else the preset with
    which the float network has the least cross-entropy on calibration images (never the test images where there is a
    training split). In every case the presets are compared on those images, and one that is clearly better than the
    one in use is reported, as is a near tie.

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
    return _prepared(loaded, name, _fitted(network, data, _Options(normalisation=normalisation), check))


@dataclass(frozen=True, kw_only=True)
class _Options:
    """What the user says of the data's preprocessing and labels; None leaves it to the checkpoint."""

    normalisation: str | None = None
    resize: int | None = None
    crop: int | None = None
    label_offset: int | None = None
    """Added to a label to get its output. It is never guessed from the classes that happen to be in the data."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Fitted:
    """A network with a data set, a normalisation and how well all three fit."""

    network: Network
    dataset: Dataset
    offset: int
    source: str
    notes: tuple[str, ...]
    loss: float | None = None
    """Cross-entropy on the calibration images; None where they have no labels."""
    top1: float = 0.0


def _fitted(
    network: Network,
    data: str | Dataset | None,
    options: _Options,
    check: Callable[[Dataset], None] | None = None,
) -> _Fitted:
    """Open the data as a network takes them, and fit what nobody said."""
    dataset = (
        data
        if isinstance(data, Dataset)
        else open_dataset(
            data,
            normalisation=options.normalisation,
            resize=network.resize if options.resize is None else options.resize,
            crop=network.crop if options.crop is None else options.crop,
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
    offset, notes = _numbering(network, dataset, options.label_offset)
    source = "given" if options.normalisation is not None or isinstance(data, Dataset) else ""
    if not source and network.normalisation is not None:
        dataset = dataset.with_normalisation(network.normalisation)
        source = "named by the checkpoint or its architecture"
    return _fit_normalisation(network, dataset, source, offset, (*network.assumptions, *notes))


def _prepared(loaded: Checkpoint, name: str, fitted: _Fitted) -> Prepared:
    return Prepared(
        checkpoint=loaded,
        checkpoint_name=name,
        network=fitted.network,
        dataset=fitted.dataset,
        label_offset=fitted.offset,
        normalisation_source=fitted.source,
        notes=fitted.notes,
    )


def _better(known: _Fitted, network: Network, data: str | Dataset | None, options: _Options) -> _Fitted:
    """The better of what is known and another architecture of the same weights, which says so."""
    try:
        other = _fitted(network, data, options)
    except (ShapeError, DataError, RuntimeError):  # images that the other architecture does not take
        return known
    assert known.loss is not None
    assert other.loss is not None  # both are of the same labelled images
    first, second = (known, other) if known.loss <= other.loss else (other, known)
    verdict = (
        f"these weights fit {first.network.architecture} and {second.network.architecture}; taken for the first, which "
        f"has the lower cross-entropy on calibration images ({_figures(first)} against {_figures(second)}); "
        "--arch settles it"
    )
    return replace(first, notes=(*(n for n in first.notes if n not in first.network.assumptions), verdict))


def _figures(fitted: _Fitted) -> str:
    return f"{fitted.loss:.3g}, {100 * fitted.top1:.1f} %"


def _numbering(network: Network, dataset: Dataset, given: int | None) -> tuple[int, list[str]]:
    """What to add to a label to get its output, and all that a reader must know about the numbers of classes.

    The offset is the user's or the architecture's; the classes that the data happen to hold never shift it.
    """
    offset = network.label_offset if given is None else given
    if dataset.classes == 0:
        return 0, []
    notes = [*dataset.notes]
    if dataset.numbering and not dataset.notes:
        notes.append(f"class numbers: {dataset.numbering}")
    whose = "given" if given is not None else "the architecture's"
    if offset:
        notes.append(f"label n is output n {'+' if offset > 0 else '-'} {abs(offset)} ({whose})")
    outputs = network.classes if network.classes is not None else _outputs(network, dataset)
    if outputs is None:
        return offset, notes
    shift = f" (label offset {offset:+d}, {whose})" if offset else ""
    if dataset.classes + offset > outputs:
        raise DataError(
            f"data {dataset.spec}: has {dataset.classes} classes{shift}, the network {network.architecture} "
            f"has {outputs} outputs; expected a data set of the checkpoint's classes"
            + "".join(f"; {note}" for note in dataset.notes)
        )
    lowest = min(int(labels.min()) for split in (dataset.test, dataset.train) if (labels := _labels(split)) is not None)
    if lowest + offset < 0:
        raise DataError(f"data {dataset.spec}: label {lowest} has no output{shift}")
    if dataset.classes + max(offset, 0) < outputs:
        last = dataset.classes - 1
        says = "; classes.csv can say otherwise" if "folders" in dataset.numbering else ""
        background = "; where output 0 is the background, --label-offset 1 says so" if given is None else ""
        notes.append(
            f"{dataset.classes} classes, {outputs} outputs: numbers {offset}..{last + offset} assumed"
            + says
            + (background if dataset.classes + 1 == outputs else "")
        )
    return offset, notes


def _labels(split: Split | None) -> NDArray[np.int64] | None:
    return None if split is None or split.labels is None or not len(split.labels) else split.labels


def _outputs(network: Network, dataset: Dataset) -> int | None:
    """Outputs of a module of the user's own, by one blank image; None where it has no vector of them."""
    try:
        shape = check_input(network, dataset.image_shape)
    except ShapeError:  # told where the network is traced, with the place
        return None
    return shape[0] if len(shape) == 1 else None


def _fit_normalisation(network: Network, dataset: Dataset, source: str, offset: int, notes: tuple[str, ...]) -> _Fitted:
    """Compare the presets on calibration images; choose one where none is given, warn where another is better."""
    labels = (dataset.train or dataset.test).labels
    if dataset.full_scale is None or labels is None:
        source = source or "the data set's default (no labelled images to compare presets on)"
        return _Fitted(network=network, dataset=dataset, offset=offset, source=source, notes=notes)
    shape = dataset.image_shape
    images = _CHECK_IMAGES if max(shape[1:]) <= _LARGE_SIDE else _CHECK_IMAGES_LARGE
    candidates = {name: dataset.with_normalisation(preset) for name, preset in _presets(dataset).items()}
    batch = batch_size_for(operations(network.module, shape))
    found: dict[str, tuple[float, float]] = {}
    sample, origin = calibration_split(dataset, images)
    where = f"{len(sample)} images of {origin}"
    stored = sample.pixels(0, len(sample))  # read once: a file may hold thousands of images that are slow to decode
    for name, candidate in candidates.items():
        measured = fit(network.module, _Stored(calibration_split(candidate, images)[0], stored), offset, batch)
        assert measured is not None  # the labels were looked at above
        found[name] = measured
    order = sorted(found, key=lambda name: found[name][1])
    best = order[0]
    if not source:
        table = ", ".join(f"{name} {100 * found[name][0]:.1f} % ({found[name][1]:.3g})" for name in order[:4])
        source = f"least cross-entropy of the float network on {where}: {table}"
        dataset = candidates[best]
        ties = [name for name in order[1:] if found[name][1] <= _NEAR_TIE * found[best][1] < math.inf]
        if ties:
            notes = (*notes, f"normalisation {best} is a near tie with {', '.join(ties)}; --normalisation settles it")
    current = dataset.normalisation.name
    if found[best][0] > found[current][0] + _CLEARLY_BETTER:
        warning = (
            f"normalisation {current} ({source}) gives {100 * found[current][0]:.1f} % on {where}, "
            f"{best} would give {100 * found[best][0]:.1f} %: is it the one this checkpoint was trained with?"
        )
        notes = (*notes, warning)
    top1, loss = found[current]
    return _Fitted(network=network, dataset=dataset, offset=offset, source=source, notes=notes, loss=loss, top1=top1)


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
    """Normalisations that could be meant for these images: the current one and every preset with other numbers."""
    default = PRESETS["none"] if dataset.raw_range[0] < 0 else dataset.normalisation
    candidates: dict[str, Normalisation] = {}
    known: list[NDArray[np.float64]] = []
    for preset in (dataset.normalisation, default, *PRESETS.values()):
        fits = len(preset.mean) in (1, dataset.image_shape[0]) and (preset.scale != "raw" or preset is default)
        if candidates and not fits:
            continue
        ends = _ends(preset, dataset)
        if not any(np.abs(ends - other).max() <= _SAME_NUMBERS * np.ptp(other) for other in known):
            candidates[preset.name] = preset
            known.append(ends)
    return candidates


def _ends(preset: Normalisation, dataset: Dataset) -> NDArray[np.float64]:
    """What black and white become [shape=(channels, 2)]."""
    assert dataset.full_scale is not None  # features are not compared
    pairs = list(zip(preset.mean, preset.std, strict=True)) * (dataset.image_shape[0] if len(preset.mean) == 1 else 1)
    channels = [Normalisation(preset.name, (m,), (s,), preset.scale) for m, s in pairs]
    return np.array([channel.bounds(0.0, dataset.full_scale, dataset.full_scale) for channel in channels])
