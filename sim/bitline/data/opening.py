"""From a specification ``KIND:PATH`` to an opened data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitline.data.cifar import CIFAR10, CIFAR100, CifarKind, read_cifar
from bitline.data.dataset import ArrayPixels, Dataset, PixelSource, ResizedPixels, Split
from bitline.data.digits import DEFAULT_SIZE, FULL_SCALE, read_digits
from bitline.data.idx import FASHION_NAMES, MNIST_NAMES, read_idx
from bitline.data.images import Geometry, read_image_folder
from bitline.data.keywords import KEYWORDS, read_keywords
from bitline.data.normalisation import PRESETS, Normalisation, parse_normalisation
from bitline.data.npz import read_npz
from bitline.errors import DataError

__all__ = ["DEFAULT_SPEC", "KINDS", "open_dataset"]

DEFAULT_SPEC = "digits"
_LARGEST_SIDE = 4096


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What a kind's reader found, before resizing and normalisation."""

    name: str
    test: tuple[PixelSource, NDArray[np.int64] | None]
    train: tuple[PixelSource, NDArray[np.int64] | None] | None
    class_names: tuple[str, ...]
    normalisation: str
    """The kind's default preset."""
    full_scale: float | None = 255.0
    raw_range: tuple[float, float] = (0.0, 255.0)
    resized: bool = False
    """The reader already resized and cropped."""
    numbering: str = ""
    """Who says which class has which number, where that is not fixed by the kind."""
    notes: tuple[str, ...] = ()


def _digits(argument: str, resize: int | None, crop: int | None) -> _Found:
    try:
        size = int(argument) if argument else DEFAULT_SIZE
    except ValueError:
        raise DataError(f"digits: expected digits or digits:SIZE, found size {argument!r}") from None
    test, train = read_digits(size)
    return _Found(
        name="digits (scikit-learn)",
        test=test,
        train=train,
        class_names=MNIST_NAMES,
        normalisation="unit",
        full_scale=FULL_SCALE,
        raw_range=(0.0, FULL_SCALE),
    )


def _cifar(kind: CifarKind) -> Callable[[str, int | None, int | None], _Found]:
    def read(argument: str, resize: int | None, crop: int | None) -> _Found:
        test, train, names, layout = read_cifar(_path(argument, kind.name), kind)
        return _Found(
            name=f"{kind.name} ({layout} files)", test=test, train=train, class_names=names, normalisation=kind.name
        )

    return read


def _image_folder(argument: str, resize: int | None, crop: int | None) -> _Found:
    geometry = Geometry.choose(resize, crop)
    found = read_image_folder(_path(argument, "imagefolder"), geometry)
    return _Found(
        name=f"imagefolder (short side {geometry.resize}, centre crop {geometry.crop})",
        test=(found.test.source, found.test.labels),
        train=None if found.train is None else (found.train.source, found.train.labels),
        class_names=found.class_names,
        normalisation="imagenet",
        resized=True,
        numbering=found.numbering,
        notes=found.notes,
    )


def _npz(argument: str, resize: int | None, crop: int | None) -> _Found:
    test, train, full_scale, raw_range, classes = read_npz(_path(argument, "npz"))
    bytes_stored = isinstance(test[0], ArrayPixels) and test[0].array.dtype == np.uint8
    normalisation = "unit" if bytes_stored else "none"
    return _Found(
        name="npz",
        test=test,
        train=train,
        class_names=tuple(str(n) for n in range(classes)),
        normalisation=normalisation,
        full_scale=full_scale,
        raw_range=raw_range,
        numbering="by the file's labels" if classes else "",
    )


def _idx(
    kind: str, names: tuple[str, ...], subfolders: tuple[str, ...]
) -> Callable[[str, int | None, int | None], _Found]:
    def read(argument: str, resize: int | None, crop: int | None) -> _Found:
        test, train = read_idx(_path(argument, kind), subfolders)
        if train is not None and train[0].shape != test[0].shape:
            raise DataError(f"{kind}: training images {train[0].shape} and test images {test[0].shape} differ")
        return _Found(name=kind, test=test, train=train, class_names=names, normalisation="unit")

    return read


def _keywords(argument: str, resize: int | None, crop: int | None) -> _Found:
    if resize is not None or crop is not None:
        raise DataError("kws: features are not images; resize and crop do not apply")
    return _Found(
        name="kws (MLPerf Tiny)",
        test=read_keywords(_path(argument, "kws")),
        train=None,
        class_names=KEYWORDS,
        normalisation="kws",
        full_scale=None,
        raw_range=(-128.0, 127.0),
    )


_READERS: dict[str, tuple[str, Callable[[str, int | None, int | None], _Found]]] = {
    "digits": ("digits[:SIZE]", _digits),
    "cifar10": ("cifar10:FOLDER", _cifar(CIFAR10)),
    "cifar100": ("cifar100:FOLDER", _cifar(CIFAR100)),
    "imagefolder": ("imagefolder:FOLDER", _image_folder),
    "npz": ("npz:FILE", _npz),
    "mnist": ("mnist:FOLDER", _idx("mnist", MNIST_NAMES, ("raw", "MNIST/raw"))),
    "fashion-mnist": ("fashion-mnist:FOLDER", _idx("fashion-mnist", FASHION_NAMES, ("raw", "FashionMNIST/raw"))),
    "kws": ("kws:FOLDER", _keywords),
}

_TRAINING = {
    "cifar10": "data_batch_1 .. data_batch_5, data_batch_1.bin .. data_batch_5.bin, or packed train_00.webp",
    "cifar100": "train or train.bin",
    "imagefolder": "folders train/ and val/, each with one folder a class",
    "npz": "arrays x_train and y_train beside x_test and y_test",
    "mnist": "train-images-idx3-ubyte and train-labels-idx1-ubyte (or .gz)",
    "fashion-mnist": "train-images-idx3-ubyte and train-labels-idx1-ubyte (or .gz)",
}
"""What makes a training split of each kind that can have one."""

KINDS: tuple[str, ...] = tuple(form for form, _ in _READERS.values())
"""Forms of a specification, for help texts and messages."""


def open_dataset(
    spec: str | None = None,
    *,
    normalisation: str | Normalisation | None = None,
    resize: int | None = None,
    crop: int | None = None,
) -> Dataset:
    """Open a data set.

    Parameters
    ----------
    spec : str, optional
        One of :data:`KINDS`, for example ``cifar10:/data/cifar-10-batches-py``; ``digits`` by default.
    normalisation : str or Normalisation, optional
        A preset or numbers, see :func:`bitline.data.parse_normalisation`; each kind has a default.
    resize : int, optional
        Side in pixels that the images' short side is resized to (bilinear). Folders of images: 256 by default.
    crop : int, optional
        Side in pixels of the square cut from the centre after that. Folders of images: 224 by default.

    Returns
    -------
    Dataset
        Images are read when they are asked for.

    Raises
    ------
    DataError
        An unknown kind, a missing, empty or damaged data set, or one of another shape.
    """
    text = DEFAULT_SPEC if spec is None else spec.strip()
    kind, _, argument = text.partition(":")
    kind = kind.strip().lower().replace("_", "-")
    if kind not in _READERS:
        raise DataError(f"data: unknown kind {kind!r} in {text!r}; expected one of {', '.join(KINDS)}")
    for name, value in (("resize", resize), ("crop", crop)):
        if value is not None and not 1 <= value <= _LARGEST_SIDE:
            raise DataError(f"{name}: must be 1..{_LARGEST_SIDE} pixels, found {value}")
    chosen = None if normalisation is None else parse_normalisation(normalisation)
    try:
        found = _READERS[kind][1](argument.strip(), resize, crop)
    except OSError as error:  # a folder that vanishes or denies listing half-way
        raise DataError(f"{text}: cannot be read ({error.strerror or error})") from None
    except MemoryError:
        raise DataError(f"{text}: not enough memory to open it") from None
    test, train = found.test, found.train
    if not found.resized and (resize is not None or crop is not None):
        test = (ResizedPixels(test[0], resize, crop), test[1])
        train = None if train is None else (ResizedPixels(train[0], resize, crop), train[1])
    default = PRESETS[found.normalisation]
    dataset = Dataset(
        spec=text,
        name=found.name,
        classes=len(found.class_names),
        class_names=found.class_names,
        image_shape=test[0].shape,
        normalisation=default,
        raw_range=found.raw_range,
        full_scale=found.full_scale,
        numbering=found.numbering,
        notes=found.notes,
        training_wanted=_TRAINING.get(kind, ""),
        test=Split(*test, default, found.full_scale),
        train=None if train is None else Split(*train, default, found.full_scale),
    )
    return dataset.with_normalisation(default if chosen is None else chosen)


def _path(argument: str, kind: str) -> Path:
    if not argument:
        raise DataError(f"data: {kind} needs a path: {_READERS[kind][0]}")
    if "\0" in argument:
        raise DataError(f"data: {kind}: the path has a zero byte")
    try:
        return Path(argument).expanduser()
    except RuntimeError as error:
        raise DataError(f"{argument}: {error}") from None
