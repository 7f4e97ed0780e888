"""Opening by specification, ranges, subsets, resizing; the digits' split; keyword features."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from bitline.data import KINDS, open_dataset
from bitline.errors import DataError


def test_the_default_is_digits():
    dataset = open_dataset()
    assert (dataset.spec, dataset.image_shape, dataset.classes) == ("digits", (1, 16, 16), 10)
    assert (len(dataset.test), len(dataset.train)) == (500, 1297)
    assert dataset.normalisation.name == "unit"
    assert (dataset.input_low, dataset.input_high) == (0.0, 1.0)


def test_the_digits_split_is_scikit_learns_data_dealt_once():
    """Every digit is in one split, every class in proportion, and the dealing never changes."""
    dataset = open_dataset("digits:8")
    pixels, labels = load_digits(return_X_y=True)
    mine = [d.pixels(0, len(d)).reshape(-1, 64) for d in (dataset.test, dataset.train)]
    key = np.concatenate(
        [np.concatenate(mine), np.concatenate([dataset.test.labels, dataset.train.labels])[:, None]], 1
    )
    want = np.concatenate([pixels, labels[:, None]], 1)
    assert sorted(map(tuple, key)) == sorted(map(tuple, want))
    share = np.bincount(dataset.test.labels) - np.bincount(labels) * 500 / 1797
    assert np.abs(share).max() < 1
    # Shipped checkpoints were trained on the training split: moving an image would leak it into the test.
    digest = hashlib.sha256(mine[0].astype(np.uint8).tobytes()).hexdigest()
    assert digest == "f8ade1b8854136ac129b231d9549cc5a3c24c87295a1cdfe8727fc66bd72e6e3"


def test_digits_are_enlarged_bilinearly():
    """By hand for 8 -> 16: each new pixel is 3/4 of its own and 1/4 of its neighbour, in both directions."""
    small = open_dataset("digits:8").test.pixels(0, 3)
    large = open_dataset("digits:16").test.pixels(0, 3)
    a = small[0, 0]
    assert large[0, 0, 0, 0] == a[0, 0]
    want = 0.75 * (0.75 * a[3, 4] + 0.25 * a[3, 5]) + 0.25 * (0.75 * a[4, 4] + 0.25 * a[4, 5])
    assert large[0, 0, 7, 9] == pytest.approx(want, abs=1e-5)
    assert open_dataset("digits:32").image_shape == (1, 32, 32)


def test_ranges_beyond_the_end_are_refused():
    split = open_dataset("digits").test
    assert split.images(490, 500).shape == (10, 1, 16, 16)
    assert split.images(7, 7).shape == (0, 1, 16, 16)
    for start, stop in ((490, 501), (-1, 3), (5, 4), (501, 501)):
        with pytest.raises(DataError, match=rf"within 0\.\.500, found {start}\.\.{stop}"):
            split.images(start, stop)


def test_evenly_spaced_images():
    split = open_dataset("digits").test
    some = split.evenly(4)
    torch.testing.assert_close(some.images(0, 4), torch.cat([split.images(n, n + 1) for n in (0, 125, 250, 375)]))
    np.testing.assert_array_equal(some.labels, split.labels[[0, 125, 250, 375]])
    np.testing.assert_array_equal(some.evenly(2).labels, split.labels[[0, 250]])
    np.testing.assert_array_equal(split.evenly(500).labels, split.labels)
    for count in (0, 501):
        with pytest.raises(DataError, match=rf"within 1\.\.500, found {count}"):
            split.evenly(count)


def test_resize_and_crop_of_any_images(tmp_path: Path):
    pixels = np.arange(2 * 4 * 6, dtype=np.uint8).reshape(2, 1, 4, 6)
    np.savez(tmp_path / "a.npz", x=pixels, y=[0, 1])
    spec = f"npz:{tmp_path / 'a.npz'}"
    cropped = open_dataset(spec, crop=2)
    assert cropped.image_shape == (1, 2, 2)
    np.testing.assert_array_equal(cropped.test.pixels(0, 2), pixels[:, :, 1:3, 2:4])
    assert open_dataset(spec, resize=8).image_shape == (1, 8, 12)
    both = open_dataset(spec, resize=8, crop=8, normalisation="byte")
    assert both.test.images(1, 2).shape == (1, 1, 8, 8)
    with pytest.raises(DataError, match="crop: 5 is larger than the images' 4x6"):
        open_dataset(spec, crop=5)


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("cifar11:x", r"unknown kind 'cifar11'.*expected one of digits\[:SIZE\], cifar10:FOLDER"),
        ("", "unknown kind ''"),
        ("cifar10", "cifar10 needs a path: cifar10:FOLDER"),
        ("npz:", "npz needs a path: npz:FILE"),
        ("digits:big", "found size 'big'"),
        ("digits:7", r"size must be 8\.\.256, found 7"),
        ("digits:100000", "found 100000"),
        ("npz:a\0b", "zero byte"),
        ("mnist:~nobodyofthatname/x", "nobodyofthatname"),
        ("kws:/nowhere/at/all", "no such folder"),
        ("mnist:" + "x" * 5000, "cannot be read|no such folder"),
    ],
)
def test_wrong_specifications(spec: str, match: str):
    with pytest.raises(DataError, match=match) as caught:
        open_dataset(spec)
    assert "\n" not in str(caught.value)


def test_every_kind_is_listed():
    kinds = {form.partition(":")[0].partition("[")[0] for form in KINDS}
    assert kinds == {"digits", "cifar10", "cifar100", "imagefolder", "npz", "mnist", "fashion-mnist", "kws"}


@pytest.mark.parametrize("field", ["resize", "crop"])
@pytest.mark.parametrize("value", [0, -3, 100_000])
def test_impossible_sizes(field: str, value: int):
    with pytest.raises(DataError, match=rf"{field}: must be 1\.\.4096 pixels, found {value}"):
        open_dataset("digits", **{field: value})


# --- keyword features -------------------------------------------------------------------------------------------------


def _keywords(folder: Path, clips: int = 3) -> tuple[np.ndarray, np.ndarray]:
    features = np.random.default_rng(0).integers(-128, 128, (clips, 1, 49, 10)).astype(np.int8)
    labels = np.arange(clips, dtype=np.uint8)
    features.tofile(folder / f"a_features_int8_{clips}x49x10.bin")
    labels.tofile(folder / f"a_labels_uint8_{clips}.bin")
    return features, labels


def test_keyword_features(tmp_path: Path):
    features, labels = _keywords(tmp_path)
    dataset = open_dataset(f"kws:{tmp_path}")
    assert (dataset.image_shape, dataset.classes, dataset.train) == ((1, 49, 10), 12, None)
    want = (features.astype(np.float64) - 83) * 0.5847029
    np.testing.assert_allclose(dataset.test.images(0, 3).numpy(), want, rtol=1e-6)
    np.testing.assert_array_equal(dataset.test.labels, labels)
    assert dataset.input_low == pytest.approx(-211 * 0.5847029)
    assert dataset.input_high == pytest.approx(44 * 0.5847029)
    with pytest.raises(DataError, match="features, not pixels; use scale raw, not unit"):
        dataset.with_normalisation("unit")
    with pytest.raises(DataError, match="resize and crop do not apply"):
        open_dataset(f"kws:{tmp_path}", crop=5)


def test_damaged_keyword_files(tmp_path: Path):
    _keywords(tmp_path)
    features, labels = tmp_path / "a_features_int8_3x49x10.bin", tmp_path / "a_labels_uint8_3.bin"
    body = features.read_bytes()
    for data, match in ((body[:-1], "multiple of 490 bytes, found 1469"), (body[:490], "1 images but 3 labels")):
        features.write_bytes(data)
        with pytest.raises(DataError, match=match):
            open_dataset(f"kws:{tmp_path}")
    features.write_bytes(body)
    labels.write_bytes(bytes([0, 1, 12]))
    with pytest.raises(DataError, match=r"labels must be 0\.\.11, found 12"):
        open_dataset(f"kws:{tmp_path}")
    labels.unlink()
    with pytest.raises(DataError, match=r"found 0 files \*labels"):
        open_dataset(f"kws:{tmp_path}")


@pytest.mark.realdata
def test_the_real_keyword_inputs(shared_data: Path):
    dataset = open_dataset(f"kws:{shared_data / 'kws'}")
    assert len(dataset.test) == 1000
    raw = np.fromfile(shared_data / "kws" / "kws01_features_int8_1000x49x10.bin", np.int8)
    np.testing.assert_array_equal(dataset.test.pixels(0, 1000).ravel(), raw)
    assert set(dataset.test.labels) == set(range(12))
