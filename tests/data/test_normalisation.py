"""Normalisation: presets and numbers against hand arithmetic, and every wrong one refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bitline.data import PRESETS, Normalisation, open_dataset, parse_normalisation
from bitline.errors import DataError


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """One image of one pixel, red 0, green 51, blue 255."""
    path = tmp_path / "colours.npz"
    np.savez(path, x=np.array([0, 51, 255], np.uint8).reshape(1, 3, 1, 1), y=np.array([0]))
    return path


@pytest.mark.parametrize(
    ("name", "red", "green", "blue"),
    [
        ("unit", 0.0, 0.2, 1.0),
        ("half", -1.0, -0.6, 1.0),
        ("byte", 0.0, 51.0, 255.0),
        ("none", 0.0, 51.0, 255.0),
        ("caffe", -123.0, -66.0, 151.0),
        ("tf", -1.0, -77 / 128, 127 / 128),
        ("imagenet", -0.485 / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225),
        ("cifar10", -0.4914 / 0.2023, (0.2 - 0.4822) / 0.1994, (1 - 0.4465) / 0.2010),
        ("CIFAR10-B", -0.491 / 0.247, (0.2 - 0.482) / 0.243, (1 - 0.447) / 0.262),
        ("mean=0.1,0.2,0.3;std=0.5,0.5,2", -0.2, 0.0, 0.35),
        ("scale=byte; mean=1 ; std=2", -0.5, 25.0, 127.0),
    ],
)
def test_presets_and_numbers(colours: Path, name: str, red: float, green: float, blue: float):
    dataset = open_dataset(f"npz:{colours}", normalisation=name)
    assert dataset.test.images(0, 1).flatten().tolist() == pytest.approx([red, green, blue], abs=1e-6)


def test_bounds_are_the_extremes_of_all_channels(colours: Path):
    dataset = open_dataset(f"npz:{colours}", normalisation="imagenet")
    assert dataset.input_low == pytest.approx(-0.485 / 0.229)  # red: the lowest of three
    assert dataset.input_high == pytest.approx((1 - 0.406) / 0.225)  # blue: the highest
    dataset = open_dataset(f"npz:{colours}", normalisation="caffe")
    assert (dataset.input_low, dataset.input_high) == (-123.0, 151.0)


def test_another_normalisation_is_a_copy(colours: Path):
    dataset = open_dataset(f"npz:{colours}")
    other = dataset.with_normalisation("byte")
    assert dataset.normalisation.name == "unit"
    assert dataset.test.images(0, 1).max() == 1
    assert other.test.images(0, 1).max() == 255
    assert other.describe().endswith("normalisation byte (pixels 0..255, mean 0, std 1)")


def test_digits_bytes_are_scaled_from_sixteen():
    """A white pixel of the digits is stored as 16; on the byte scale it is 255 like everybody's."""
    unit = open_dataset("digits:8", normalisation="unit").test.images(0, 20)
    byte = open_dataset("digits:8", normalisation="byte").test.images(0, 20)
    assert unit.max() == 1
    torch.testing.assert_close(byte, unit * 255)


def test_describe_says_everything():
    text = Normalisation("custom", (0.5, 1.0, 2.0), (0.25, 0.5, 1.0), "byte").describe()
    assert text == "custom (pixels 0..255, mean 0.5, 1, 2, std 0.25, 0.5, 1)"
    assert len({n.describe() for n in PRESETS.values()}) == len(PRESETS)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("imagnet", "unknown preset 'imagnet'; expected one of imagenet"),
        ("", "unknown preset"),
        ("mean=0.5", "both mean= and std="),
        ("mean=0.5;std=0", "std must be finite and positive, found 0"),
        ("mean=nan;std=1", "mean must be finite"),
        ("mean=0.5;std=inf", "std must be finite"),
        ("mean=1,2;std=1", "as many numbers, found 2 and 1"),
        ("mean=a;std=1", "separated by commas, found 'a'"),
        ("mean=1;std=1;scale=percent", "scale must be one of unit, byte, raw"),
        ("mean=1;std=1;sigma=2", "found 'sigma=2'"),
        ("mean=1;mean=1;std=1", "at most once"),
    ],
)
def test_wrong_ones_are_refused(text: str, match: str):
    with pytest.raises(DataError, match=match):
        parse_normalisation(text)


def test_another_number_of_channels_is_refused():
    with pytest.raises(DataError, match="normalisation imagenet has 3 channels, the images have 1"):
        open_dataset("digits", normalisation="imagenet")
