"""Images in .npz files: every accepted shape reads back; everything else is one line."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitline.data import open_dataset
from bitline.errors import BitlineError, DataError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (4, 3, 5, 6), dtype=np.uint8)
LABELS = np.array([0, 2, 1, 2])


def _save(folder: Path, **arrays) -> str:
    np.savez_compressed(folder / "set.npz", **arrays)
    return f"npz:{folder / 'set.npz'}"


@pytest.mark.parametrize(
    ("stored", "want"),
    [
        (PIXELS, PIXELS),
        (PIXELS.transpose(0, 2, 3, 1), PIXELS),
        (np.asfortranarray(PIXELS), PIXELS),
        (PIXELS.astype(np.int64), PIXELS),
        (PIXELS[:, 0], PIXELS[:, :1]),
        (PIXELS[:, 0, :, :, None], PIXELS[:, :1]),
        (RNG.integers(0, 256, (4, 7, 5, 6), dtype=np.uint8), None),
    ],
)
def test_shapes(tmp_path: Path, stored, want):
    want = stored if want is None else want
    dataset = open_dataset(_save(tmp_path, x=stored, y=LABELS))
    np.testing.assert_array_equal(dataset.test.pixels(0, 4), want)
    np.testing.assert_array_equal(dataset.test.labels, LABELS)
    assert (dataset.image_shape, dataset.classes, dataset.train) == (want.shape[1:], 3, None)
    np.testing.assert_allclose(dataset.test.images(1, 3).numpy(), want[1:3] / 255, rtol=1e-6)


def test_floats_are_taken_as_they_are(tmp_path: Path):
    values = RNG.normal(size=(4, 1, 2, 2)) * 3
    dataset = open_dataset(_save(tmp_path, images=values, labels=LABELS[:, None].astype(np.uint8)))
    assert dataset.normalisation.name == "none"
    np.testing.assert_array_equal(dataset.test.images(0, 4).numpy(), values.astype(np.float32))
    assert dataset.input_low == values.astype(np.float32).min()
    assert dataset.input_high == values.astype(np.float32).max()


@pytest.mark.parametrize(("values", "white"), [([0.0, 200.0], 255.0), ([0.0, 200.5], 1.0), ([0.0, 16.0], 1.0)])
def test_bytes_stored_as_floats_have_a_byte_s_white(tmp_path: Path, values: list[float], white: float):
    """200 of 255 is 0.784; features and numbers 0..1 or 0..16 are nobody's bytes and stay as they are."""
    array = np.array(values, np.float32).reshape(2, 1, 1, 1)
    dataset = open_dataset(_save(tmp_path, x=array, y=[0, 1]))
    assert dataset.test.images(1, 2).item() == values[1]
    assert dataset.with_normalisation("unit").test.images(1, 2).item() == pytest.approx(values[1] / white)


def test_two_arrays_of_one_name_are_refused(tmp_path: Path):
    spec = _save(tmp_path, x=PIXELS)
    body = io.BytesIO()
    np.save(body, PIXELS[:1])
    with zipfile.ZipFile(tmp_path / "set.npz", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x.npy", body.getvalue())
    with pytest.raises(DataError, match="two arrays named 'x'"):
        open_dataset(spec)


def test_a_strip_is_not_resized_to_gigabytes(tmp_path: Path):
    """1 x 70,000 at a short side of 256 would be 256 x 17,920,000 pixels, 18 GB of float32."""
    spec = _save(tmp_path, x=np.zeros((1, 1, 1, 70_000), np.uint8))
    with pytest.raises(DataError, match="images of 1x70000 would become 256x17920000"):
        open_dataset(spec, resize=256, crop=224)


def test_splits_and_missing_labels(tmp_path: Path):
    dataset = open_dataset(_save(tmp_path, x_test=PIXELS, x_train=PIXELS[:2], y_train=[0, 9]))
    assert dataset.test.labels is None
    assert dataset.classes == 10
    np.testing.assert_array_equal(dataset.train.labels, [0, 9])
    np.testing.assert_array_equal(dataset.train.pixels(0, 2), PIXELS[:2])
    assert open_dataset(_save(tmp_path, x=PIXELS)).classes == 0


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"a": PIXELS}, r"no images; expected an array x or images \(labels: y .*, found a\.npy"),
        ({"x": PIXELS, "y": LABELS[:3]}, "4 images but 3 labels"),
        ({"x": PIXELS, "y": [0, 1, -1, 2]}, "labels must be 0 or more, below a million, found -1"),
        ({"x": PIXELS, "y": LABELS + 0.5}, "labels must be integers"),
        ({"x": PIXELS.reshape(4, -1)}, r"found shape \(4, 90\)"),
        ({"x": PIXELS[:0]}, r"found shape \(0, 3, 5, 6\)"),
        ({"x": PIXELS.astype(int) + 1000}, r"must be pixels 0\.\.255, found 10"),
        ({"x": PIXELS > 3}, "found bool"),
        ({"x": np.full((1, 1, 2, 2), np.nan)}, "NaN or infinite"),
        ({"x": np.full((1, 1, 2, 2), 1e300)}, "NaN or infinite"),
        ({"x": np.full((1, 1, 2, 2), "a")}, "expected pixels as uint8 or floats"),
        ({"x": PIXELS, "x_train": PIXELS[:, :1]}, "training and test images differ"),
        ({"x": PIXELS.astype(object)}, "an array of object"),
        ({"x": PIXELS.astype(complex)}, "an array of complex128"),
        ({}, "found nothing"),
    ],
)
def test_refused(tmp_path: Path, arrays, match: str):
    with pytest.raises(DataError, match=match) as caught:
        open_dataset(_save(tmp_path, **arrays))
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path):
    for path, match in ((tmp_path / "none.npz", "no such file"), (tmp_path, "is a folder; expected an .npz file")):
        with pytest.raises(DataError, match=match):
            open_dataset(f"npz:{path}")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match="damaged or not an"):
        open_dataset(f"npz:{tmp_path / 'text.npz'}")


def test_an_array_may_not_claim_more_than_the_file_has(tmp_path: Path):
    """A header of a terabyte must be refused before memory is taken for it."""
    stream = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (1 << 20, 1, 1 << 10, 1 << 10)}
    np.lib.format.write_array_header_1_0(stream, header)
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("x.npy", stream.getvalue() + b"abc")
    with pytest.raises(DataError, match=r"1099511627776 bytes, over the limit"):
        open_dataset(f"npz:{tmp_path / 'set.npz'}")
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, header | {"shape": (9, 1, 2, 2)})
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("x.npy", stream.getvalue() + b"abc" * 30)
    with pytest.raises(DataError, match="needs 36 bytes, found more"):
        open_dataset(f"npz:{tmp_path / 'set.npz'}")


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two arrays, each within the limit, together over it."""
    monkeypatch.setattr("bitline.data.npz.MAX_BYTES", 100)
    monkeypatch.setattr("bitline.data.npz.load_npz.__defaults__", (None, 100))
    spec = _save(tmp_path, x=np.zeros((1, 1, 9, 9), np.uint8))
    assert open_dataset(spec).image_shape == (1, 9, 9)
    with pytest.raises(DataError, match="array of 32 bytes, over the limit of 19"):
        open_dataset(_save(tmp_path, x=np.zeros((1, 1, 9, 9), np.uint8), y=np.zeros(4, np.int64)))


@pytest.fixture(scope="module")
def good_file(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("good")
    _save(folder, x=PIXELS[:1, :, :2, :2], y=LABELS[:1])
    return (folder / "set.npz").read_bytes()


@given(data=st.data())
def test_mutated_files_raise_data_errors_only(tmp_path_factory, good_file, data):
    body = bytearray(good_file)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(body) - 1))
        if data.draw(st.booleans()):
            body[position] = data.draw(st.integers(0, 255))
        else:
            body[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    path = tmp_path_factory.mktemp("mutated") / "set.npz"
    path.write_bytes(bytes(body))
    try:
        dataset = open_dataset(f"npz:{path}")
    except BitlineError:
        return
    assert dataset.test.images(0, 1).shape == (1, *dataset.image_shape)
