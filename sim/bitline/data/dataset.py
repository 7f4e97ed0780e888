"""A data set as the rest of Bitline sees it: a test split, perhaps a training split, and their normalisation.

Every kind of data set is a :class:`PixelSource` that hands out stored values by index; all that the kinds share
(ranges, labels, normalisation, resizing) is here, once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bitline.data.normalisation import Normalisation, parse_normalisation
from bitline.errors import DataError

__all__ = ["ArrayPixels", "ChunkedPixels", "Dataset", "PixelSource", "ResizedPixels", "Split", "check_labels"]

Pixels = NDArray[Any]


class PixelSource(Protocol):
    """Stored values of images, by index."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""

    def __len__(self) -> int: ...

    def read(self, indices: NDArray[np.int64]) -> Pixels:
        """Stored values [shape=(b, C, H, W), uint8, int8 or float32] of the images at these indices."""


class ArrayPixels:
    """Images in one array [shape=(n, C, H, W)] in memory."""

    def __init__(self, array: Pixels) -> None:
        self.array = array
        self.shape = (int(array.shape[1]), int(array.shape[2]), int(array.shape[3]))

    def __len__(self) -> int:
        return len(self.array)

    def read(self, indices: NDArray[np.int64]) -> Pixels:
        """Copies of the images at these indices."""
        return self.array[indices]


class ChunkedPixels:
    """Images in several files of known counts; only the files read last stay in memory."""

    def __init__(
        self, shape: tuple[int, int, int], counts: Sequence[int], load: Callable[[int], Pixels], keep: int = 2
    ) -> None:
        self.shape = shape
        self._ends = np.cumsum(counts)
        self._load = load
        self._keep = keep
        self._chunks: OrderedDict[int, Pixels] = OrderedDict()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, indices: NDArray[np.int64]) -> Pixels:
        """Copies of the images at these indices, file by file."""
        which = np.searchsorted(self._ends, indices, side="right")
        out: Pixels = np.empty((len(indices), *self.shape), np.uint8)
        for number in np.unique(which):
            mine = which == number
            start = self._ends[number - 1] if number else 0
            out[mine] = self._chunk(int(number))[indices[mine] - start]
        return out

    def _chunk(self, number: int) -> Pixels:
        if number not in self._chunks:
            while len(self._chunks) >= self._keep:
                self._chunks.popitem(last=False)
            self._chunks[number] = self._load(number)
        self._chunks.move_to_end(number)
        return self._chunks[number]


_MAX_RESIZED = 1 << 24
"""Most pixels of one resized image (192 MiB of three float32 channels)."""


class ResizedPixels:
    """Another source's images with the short side resized (bilinear, antialiased when shrinking), then cropped."""

    def __init__(self, source: PixelSource, resize: int | None, crop: int | None) -> None:
        channels, height, width = source.shape
        if resize is not None:
            short = min(height, width)
            height, width = resize * height // short, resize * width // short
            if height * width > _MAX_RESIZED:
                raise DataError(
                    f"resize: images of {source.shape[1]}x{source.shape[2]} would become {height}x{width}; "
                    f"expected at most {_MAX_RESIZED} pixels"
                )
        self._size = (height, width)
        self._source = source
        if crop is not None:
            if crop > min(height, width):
                raise DataError(f"crop: {crop} is larger than the images' {height}x{width}")
            height = width = crop
        self.shape = (channels, height, width)

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: NDArray[np.int64]) -> Pixels:
        """The images at these indices as float32, in the source's units."""
        x = torch.from_numpy(self._source.read(indices)).to(torch.float32)
        if x.shape[-2:] != self._size:
            x = torch.nn.functional.interpolate(
                x, size=self._size, mode="bilinear", align_corners=False, antialias=True
            )
        _, height, width = self.shape
        top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
        pixels: Pixels = x[..., top : top + height, left : left + width].contiguous().numpy()
        return pixels


class Split:
    """Images and labels, in order; images are read when they are asked for.

    Parameters
    ----------
    source : PixelSource
        The stored values.
    labels : ndarray [shape=(n,), int64] or None
        Class of every image, or None where it is not known.
    normalisation : Normalisation
        What :meth:`images` applies.
    full_scale : float or None
        The stored value of a white pixel; None for features.
    """

    def __init__(
        self,
        source: PixelSource,
        labels: NDArray[np.int64] | None,
        normalisation: Normalisation,
        full_scale: float | None,
        indices: NDArray[np.int64] | None = None,
    ) -> None:
        self._source = source
        self._all_labels = labels
        self._normalisation = normalisation
        self._full_scale = full_scale
        self._indices = indices

    def __len__(self) -> int:
        return len(self._source) if self._indices is None else len(self._indices)

    @cached_property
    def labels(self) -> NDArray[np.int64] | None:
        """Class of every image [shape=(n,), int64], or None where it is not known."""
        if self._all_labels is None or self._indices is None:
            return self._all_labels
        return self._all_labels[self._indices]

    def images(self, start: int, stop: int) -> torch.Tensor:
        """Normalised images ``start .. stop - 1`` [shape=(stop - start, C, H, W), float32].

        Raises
        ------
        DataError
            A range that is not within the split, or an image that cannot be read.
        """
        return self.normalised(torch.from_numpy(self.pixels(start, stop)))

    def normalised(self, values: torch.Tensor) -> torch.Tensor:
        """Stored values [shape=(b, C, H, W)] as :meth:`images` gives them, in float32; float32 ones are overwritten."""
        return self._normalisation.apply(values.to(torch.float32), self._full_scale)

    def pixels(self, start: int, stop: int) -> Pixels:
        """Stored values of images ``start .. stop - 1`` [shape=(stop - start, C, H, W)], not normalised.

        Raises
        ------
        DataError
            A range that is not within the split, or an image that cannot be read.
        """
        if not 0 <= start <= stop <= len(self):
            raise DataError(f"images: expected a range within 0..{len(self)}, found {start}..{stop}")
        indices = np.arange(start, stop, dtype=np.int64) if self._indices is None else self._indices[start:stop]
        return self._source.read(indices)

    def evenly(self, count: int) -> Split:
        """A split of ``count`` images evenly spaced over this one (a folder's images are sorted by class).

        Raises
        ------
        DataError
            More images than there are, or less than one.
        """
        if not 1 <= count <= len(self):
            raise DataError(f"images: expected a count within 1..{len(self)}, found {count}")
        picks = np.arange(count, dtype=np.int64) * len(self) // count
        indices = picks if self._indices is None else self._indices[picks]
        return Split(self._source, self._all_labels, self._normalisation, self._full_scale, indices)

    def with_normalisation(self, normalisation: Normalisation) -> Split:
        """The same images under another normalisation; nothing is read again."""
        return Split(self._source, self._all_labels, normalisation, self._full_scale, self._indices)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """An opened data set; see :func:`bitline.data.open_dataset`."""

    spec: str
    """What the user asked for, ``KIND:PATH``."""
    name: str
    """For reports: the kind and what was found."""
    classes: int
    """Number of classes; 0 where there are no labels."""
    class_names: tuple[str, ...]
    """One name per class."""
    image_shape: tuple[int, int, int]
    """Channels, height, width."""
    normalisation: Normalisation
    """What :meth:`Split.images` of both splits applies."""
    raw_range: tuple[float, float]
    """Smallest and largest value that can be stored."""
    full_scale: float | None
    """The stored value of a white pixel; None where the values are features, not pixels."""
    test: Split
    """What is measured."""
    train: Split | None
    """What calibration and training use, where there is one."""
    numbering: str = ""
    """Who says which class has which number, where the kind of data leaves that open."""
    notes: tuple[str, ...] = ()
    """What a reader of the result must know about the data, a sentence each."""
    training_wanted: str = ""
    """The files or arrays that make a training split of this kind of data; empty where it cannot have one."""

    @property
    def input_low(self) -> float:
        """The smallest number a normalised image can hold."""
        return self.normalisation.bounds(*self.raw_range, self.full_scale)[0]

    @property
    def input_high(self) -> float:
        """The largest number a normalised image can hold."""
        return self.normalisation.bounds(*self.raw_range, self.full_scale)[1]

    def with_normalisation(self, normalisation: str | Normalisation) -> Dataset:
        """The same data set under another preset or numbers; nothing is read again.

        Raises
        ------
        DataError
            An unknown normalisation, or one of another number of channels.
        """
        chosen = parse_normalisation(normalisation)
        chosen.check_channels(self.image_shape[0], self.spec)
        chosen.bounds(*self.raw_range, self.full_scale)  # refuses a pixel scale for features
        return replace(
            self,
            normalisation=chosen,
            test=self.test.with_normalisation(chosen),
            train=None if self.train is None else self.train.with_normalisation(chosen),
        )

    def describe(self) -> str:
        """One line for a report: what was read, how many images of which shape, and the normalisation."""
        shape = "x".join(str(n) for n in self.image_shape)
        train = "no training split" if self.train is None else f"{len(self.train)} training"
        return f"{self.name}: {len(self.test)} test, {train}, {shape}, normalisation {self.normalisation.describe()}"


def check_labels(labels: Any, count: int, classes: int | None, where: str) -> NDArray[np.int64]:
    """Labels as int64 [shape=(count,)], each within ``0 .. classes - 1``.

    Raises
    ------
    DataError
        Not integers, not as many as there are images, or out of range.
    """
    try:
        array = np.asarray(labels)
    except (ValueError, OverflowError):
        raise DataError(f"{where}: labels must be integers") from None
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise DataError(f"{where}: labels must be integers, one an image, found {array.dtype} of shape {array.shape}")
    if len(array) != count:
        raise DataError(f"{where}: {count} images but {len(array)} labels")
    if len(array):
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= (1_000_000 if classes is None else classes):
            rule = "0 or more, below a million" if classes is None else f"0..{classes - 1}"
            raise DataError(f"{where}: labels must be {rule}, found {low if low < 0 else high}")
    return array.astype(np.int64)
