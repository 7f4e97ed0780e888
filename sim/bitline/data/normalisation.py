"""How stored pixel values become the numbers a network was trained on.

A checkpoint only works with the normalisation of its own training; a wrong one lowers the accuracy without any error.
So a normalisation has a name, and reports print :meth:`Normalisation.describe`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from bitline.errors import DataError

__all__ = ["PRESETS", "SCALES", "Normalisation", "parse_normalisation"]

SCALES = {"unit": "pixels 0..1", "byte": "pixels 0..255", "raw": "stored values"}
"""What mean and standard deviation apply to."""


@dataclass(frozen=True)
class Normalisation:
    """``(value - mean) / std``, one mean and one standard deviation per channel, or one for all channels.

    Raises
    ------
    DataError
        Lengths that differ, an unknown scale, a standard deviation that is not positive, numbers that are not finite.
    """

    name: str
    """A preset's name, or ``custom``."""
    mean: tuple[float, ...] = (0.0,)
    """Per channel, or one number for every channel, in units of ``scale``."""
    std: tuple[float, ...] = (1.0,)
    """Per channel, or one number for every channel, in units of ``scale``."""
    scale: str = "unit"
    """``unit``: pixels 0..1; ``byte``: pixels 0..255; ``raw``: the numbers as stored (features that are no pixels)."""

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise DataError(f"normalisation: scale must be one of {', '.join(SCALES)}, found {self.scale!r}")
        if not self.mean or len(self.mean) != len(self.std):
            raise DataError(
                f"normalisation: mean and std must have as many numbers, found {len(self.mean)} and {len(self.std)}"
            )
        for value in self.mean:
            if not math.isfinite(value):
                raise DataError(f"normalisation: mean must be finite, found {value}")
        for value in self.std:
            if not (math.isfinite(value) and value > 0):
                raise DataError(f"normalisation: std must be finite and positive, found {value}")

    def check_channels(self, channels: int, where: str) -> None:
        """Raise a DataError unless this normalisation fits images of so many channels."""
        if len(self.mean) not in (1, channels):
            raise DataError(
                f"{where}: normalisation {self.name} has {len(self.mean)} channels, the images have {channels}"
            )

    def apply(self, values: torch.Tensor, full_scale: float | None) -> torch.Tensor:
        """Normalise stored values.

        Parameters
        ----------
        values : torch.Tensor [shape=(b, C, H, W), float32]
            Stored values; overwritten.
        full_scale : float or None
            The stored value of a white pixel (255 for bytes); None where the values are no pixels.

        Raises
        ------
        DataError
            A pixel scale asked of values that are no pixels.
        """
        if self.scale == "unit":
            values.div_(self._white(full_scale))
        elif self.scale == "byte" and self._white(full_scale) != 255.0:
            values.mul_(255.0 / self._white(full_scale))
        # The same two float32 operations, in the same order, as torchvision's Normalize: no last-bit differences.
        if any(self.mean):
            values.sub_(torch.tensor(self.mean, dtype=torch.float32).view(-1, 1, 1))
        if any(value != 1.0 for value in self.std):
            values.div_(torch.tensor(self.std, dtype=torch.float32).view(-1, 1, 1))
        return values

    def bounds(self, low: float, high: float, full_scale: float | None) -> tuple[float, float]:
        """Smallest and largest normalised number that stored values within ``low .. high`` can become."""
        if self.scale == "unit":
            factor = 1.0 / self._white(full_scale)
        elif self.scale == "byte":
            factor = 255.0 / self._white(full_scale)
        else:
            factor = 1.0
        pairs = list(zip(self.mean, self.std, strict=True))
        return min((low * factor - m) / s for m, s in pairs), max((high * factor - m) / s for m, s in pairs)

    def describe(self) -> str:
        """One line for a report: name, scale, mean and standard deviation."""
        mean, std = (", ".join(f"{v:g}" for v in values) for values in (self.mean, self.std))
        return f"{self.name} ({SCALES[self.scale]}, mean {mean}, std {std})"

    def _white(self, full_scale: float | None) -> float:
        if full_scale is None:
            raise DataError(
                f"normalisation {self.name}: the data are features, not pixels; use scale raw, not {self.scale}"
            )
        return full_scale


PRESETS: dict[str, Normalisation] = {
    n.name: n
    for n in (
        Normalisation("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        Normalisation("cifar10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        Normalisation("cifar10_b", (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)),
        Normalisation("cifar100", (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
        Normalisation("mnist", (0.1307,), (0.3081,)),
        Normalisation("fashion_mnist", (0.2860,), (0.3530,)),
        Normalisation("half", (0.5,), (0.5,)),
        Normalisation("unit"),
        Normalisation("byte", scale="byte"),
        Normalisation("caffe", (123.0, 117.0, 104.0), (1.0, 1.0, 1.0), "byte"),
        Normalisation("tf", (128.0,), (128.0,), "byte"),
        Normalisation("kws", (83.0,), (1 / 0.5847029,), "raw"),
        Normalisation("none", scale="raw"),
    )
}
"""Normalisations by name. Those of one number fit any channel count; ``caffe`` is in RGB order, not BGR."""


def parse_normalisation(text: str | Normalisation) -> Normalisation:
    """A normalisation from a preset's name or from numbers.

    Parameters
    ----------
    text : str or Normalisation
        A name of :data:`PRESETS`, or ``mean=0.5,0.5,0.5;std=0.25,0.25,0.25``, optionally with ``;scale=byte``
        (``unit`` by default, see :data:`SCALES`). A Normalisation is returned as it is.

    Raises
    ------
    DataError
        An unknown name or key, or numbers that make no normalisation.
    """
    if isinstance(text, Normalisation):
        return text
    key = text.strip().lower().replace("-", "_")
    if key in PRESETS:
        return PRESETS[key]
    if "=" not in key:
        raise DataError(
            f"normalisation: unknown preset {text!r}; expected one of {', '.join(PRESETS)}, "
            "or numbers such as mean=0.5,0.5,0.5;std=0.5,0.5,0.5"
        )
    fields: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(";"))):
        name, _, value = part.partition("=")
        name = name.strip().lower()
        if name not in ("mean", "std", "scale") or name in fields:
            raise DataError(
                f"normalisation {text!r}: expected mean=, std= and scale= at most once each, found {part!r}"
            )
        fields[name] = value.strip()
    if "mean" not in fields or "std" not in fields:
        raise DataError(f"normalisation {text!r}: both mean= and std= are needed")
    return Normalisation(
        "custom", _numbers(text, fields["mean"]), _numbers(text, fields["std"]), fields.get("scale", "unit").lower()
    )


def _numbers(text: str, values: str) -> tuple[float, ...]:
    try:
        return tuple(float(v) for v in values.split(","))
    except ValueError:
        raise DataError(f"normalisation {text!r}: expected numbers separated by commas, found {values!r}") from None
