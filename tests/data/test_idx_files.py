"""MNIST's IDX files, plain and gzipped, in every place people have them."""

from __future__ import annotations

import gzip
import hashlib
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitline.data import open_dataset
from bitline.errors import BitlineError, DataError


def _images(count: int, seed: int = 0, size: tuple[int, int] = (5, 4)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *size), dtype=np.uint8)


def _idx(array: np.ndarray) -> bytes:
    """Type 8 (unsigned byte), rank, big-endian sizes, bytes: the format's own page."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def _write(folder: Path, images: np.ndarray, labels: np.ndarray, stem: str = "t10k", style: str = "-{}.gz") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for what, rank, array in (("images", 3, images), ("labels", 1, labels)):
        path = folder / (f"{stem}-{what}" + style.format(f"idx{rank}-ubyte"))
        path.write_bytes(gzip.compress(_idx(array)) if path.suffix == ".gz" else _idx(array))


@pytest.mark.parametrize("style", ["-{}.gz", "-{}", ".{}"])
@pytest.mark.parametrize(
    ("kind", "inside"), [("mnist", "."), ("mnist", "MNIST/raw"), ("fashion-mnist", "FashionMNIST/raw")]
)
def test_read_back(tmp_path: Path, style: str, kind: str, inside: str):
    images, labels = _images(7), np.arange(7, dtype=np.uint8)
    _write(tmp_path / inside, images, labels, style=style)
    dataset = open_dataset(f"{kind}:{tmp_path}")
    np.testing.assert_array_equal(dataset.test.pixels(0, 7)[:, 0], images)
    np.testing.assert_array_equal(dataset.test.labels, labels)
    assert (dataset.image_shape, dataset.classes, dataset.train) == ((1, 5, 4), 10, None)
    assert float(dataset.test.images(2, 3)[0, 0, 1, 1]) == pytest.approx(images[2, 1, 1] / 255)
    assert dataset.class_names[9] == ("9" if kind == "mnist" else "Ankle boot")


def test_training_files_beside(tmp_path: Path):
    _write(tmp_path, _images(2), np.zeros(2, np.uint8))
    _write(tmp_path, _images(9, 1), np.full(9, 3, np.uint8), "train")
    dataset = open_dataset(f"mnist:{tmp_path}")
    np.testing.assert_array_equal(dataset.train.pixels(0, 9)[:, 0], _images(9, 1))
    np.testing.assert_array_equal(dataset.train.labels, np.full(9, 3))
    _write(tmp_path, _images(9, 1, (6, 6)), np.full(9, 3, np.uint8), "train")
    with pytest.raises(DataError, match=r"training images \(1, 6, 6\) and test images \(1, 5, 4\) differ"):
        open_dataset(f"mnist:{tmp_path}")


def test_damaged_and_mismatched_files(tmp_path: Path):
    def refused(match: str) -> None:
        with pytest.raises(DataError, match=match) as caught:
            open_dataset(f"mnist:{tmp_path}")
        assert "\n" not in str(caught.value)

    refused("folder is empty")
    (tmp_path / "other").touch()
    refused("no test images; expected t10k-images")
    images, labels = _images(3), np.array([0, 9, 1], np.uint8)
    _write(tmp_path, images, labels[:2])
    refused("3 images but 2 labels")
    _write(tmp_path, images, np.array([0, 10, 1], np.uint8))
    refused(r"labels must be 0\.\.9, found 10")
    _write(tmp_path, images, labels)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    refused("damaged or truncated gzip file")
    path.write_bytes(b"plain")
    refused("damaged or truncated gzip file")
    path.write_bytes(gzip.compress(_idx(images)[:-1]))
    refused("promises 60 bytes, found 59")
    path.write_bytes(gzip.compress(_idx(images) + b"!"))
    refused("promises 60 bytes, found 61")
    path.write_bytes(gzip.compress(_idx(labels)))
    refused("not an IDX file of bytes with 3 dimensions")
    path.write_bytes(gzip.compress(struct.pack(">BBBB3I", 0, 0, 8, 3, 0, 5, 4)))
    refused("no images in it")
    path.write_bytes(whole)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    refused("has no labels beside it; expected t10k-labels-idx1-ubyte")


def test_a_gzip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """32 MB of zeros in 32 kB: refused without unpacking more than the limit and the decoder's buffers."""
    monkeypatch.setattr("bitline.data.idx._MAX_FILE_BYTES", 1000)
    _write(tmp_path, np.zeros((1 << 15, 32, 32), np.uint8), np.zeros(100, np.uint8))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="more than the 1000 bytes"):
            open_dataset(f"mnist:{tmp_path}")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@given(position=st.integers(0, 75), value=st.integers(0, 255), keep=st.integers(0, 76))
def test_mutated_files_raise_data_errors_or_read(tmp_path_factory, position, value, keep):
    here = tmp_path_factory.mktemp("idx")
    _write(here, _images(3), np.zeros(3, np.uint8), style="-{}")
    path = here / "t10k-images-idx3-ubyte"
    body = bytearray(path.read_bytes())
    body[position] = value
    path.write_bytes(bytes(body[:keep]))
    try:
        dataset = open_dataset(f"mnist:{here}")
    except BitlineError:
        return
    # What still reads is the whole file with at most one other pixel.
    assert keep == 76
    assert len(dataset.test) == 3


@pytest.mark.realdata
def test_the_real_test_set(shared_data: Path):
    """Sums of the published files, see MANIFEST.md; label counts are the well-known ones of t10k."""
    folder = shared_data / "mnist"
    for name, want in (
        ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
        ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
    ):
        assert hashlib.md5((folder / name).read_bytes()).hexdigest() == want
    dataset = open_dataset(f"mnist:{folder}")
    assert dataset.test.pixels(0, 10000).shape == (10000, 1, 28, 28)
    assert np.bincount(dataset.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
