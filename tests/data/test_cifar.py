"""CIFAR in every layout: the pixels written come back; damaged and hostile files are refused."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cifar_files import (
    NAMES,
    array,
    dictionary,
    images,
    integers,
    small,
    strings,
    text,
    write_binary,
    write_python,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bitline.data import open_dataset
from bitline.errors import BitlineError, DataError

TRAIN = [f"data_batch_{n}" for n in range(1, 6)]


def _splits(train: bool = True):
    splits = {"test_batch": images(5, 0)}
    if train:
        splits |= {name: images(2 + n, n) for n, name in enumerate(TRAIN, 1)}
    return splits


@pytest.mark.parametrize("write", [write_python, write_binary])
@pytest.mark.parametrize("parent", [False, True])
def test_every_pixel_and_label_comes_back(tmp_path: Path, write, parent):
    """Both distributions, named directly or through their parent; training batches in order across the files."""
    name = "cifar-10-batches-py" if write is write_python else "cifar-10-batches-bin"
    splits = _splits()
    folder = write(tmp_path / name, splits)
    dataset = open_dataset(f"cifar10:{tmp_path if parent else folder}")
    pixels, labels = splits["test_batch"]
    np.testing.assert_array_equal(dataset.test.pixels(0, 5), pixels.reshape(5, 3, 32, 32))
    np.testing.assert_array_equal(dataset.test.labels, labels)
    assert dataset.train is not None
    want = np.concatenate([splits[n][0] for n in TRAIN]).reshape(-1, 3, 32, 32)
    assert len(dataset.train) == len(want) == 25
    np.testing.assert_array_equal(dataset.train.pixels(0, 25), want)
    np.testing.assert_array_equal(dataset.train.pixels(2, 11), want[2:11])
    np.testing.assert_array_equal(dataset.train.labels, np.concatenate([splits[n][1] for n in TRAIN]))
    assert dataset.class_names == tuple(NAMES)
    assert (dataset.classes, dataset.image_shape, dataset.normalisation.name) == (10, (3, 32, 32), "cifar10")
    # Channel 0, first row is red's first row: hand arithmetic on one pixel.
    red = (float(pixels[0, 33]) / 255 - 0.4914) / 0.2023
    assert float(dataset.test.images(0, 1)[0, 0, 1, 1]) == pytest.approx(red, abs=1e-6)


def test_without_training_files_there_is_a_test_split_only(tmp_path: Path):
    write_python(tmp_path, _splits(train=False))
    assert open_dataset(f"cifar10:{tmp_path}").train is None


def test_pickles_rewritten_by_python_3_are_read(tmp_path: Path):
    """People re-save the batches; numpy then pickles through other names."""
    pixels, labels = images(4, 9)
    for protocol in (2, 3, 4):
        data = pickle.dumps({"data": pixels, "labels": labels.tolist()}, protocol=protocol)
        (tmp_path / "test_batch").write_bytes(data)
        dataset = open_dataset(f"cifar10:{tmp_path}")
        np.testing.assert_array_equal(dataset.test.pixels(0, 4).reshape(4, 3072), pixels)


def test_keys_that_are_bytes_are_read(tmp_path: Path):
    """What ``pickle.load(file, encoding="bytes")`` gives, pickled again, has keys of bytes."""
    pixels, labels = images(4, 9)
    batch = {b"data": pixels, b"labels": labels.tolist(), b"filenames": [b"a.png"], b"batch_label": b"testing batch"}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch))
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": [name.encode() for name in NAMES]}))
    dataset = open_dataset(f"cifar10:{tmp_path}")
    np.testing.assert_array_equal(dataset.test.pixels(0, 4).reshape(4, 3072), pixels)
    assert dataset.test.labels.tolist() == labels.tolist()
    assert dataset.class_names == tuple(NAMES)
    (tmp_path / "test_batch").write_bytes(pickle.dumps({**batch, "data": pixels}))
    _one_line(tmp_path, "holds 'data' twice, as text and as bytes")
    (tmp_path / "test_batch").write_bytes(pickle.dumps({"data": pixels, "fine": 3}))
    _one_line(tmp_path, r"found 'data' \(PickledArray\), 'fine' \(int\)")


def test_cifar100_python_and_binary(tmp_path: Path):
    pixels, labels = images(6, 3, classes=100)
    labels[0] = 99
    names = [f"class {n}" for n in range(100)]
    py = tmp_path / "cifar-100-python"
    py.mkdir()
    for stem in ("test", "train"):
        body = dictionary(data=array(pixels), coarse_labels=integers(labels // 5), fine_labels=integers(labels))
        (py / stem).write_bytes(body)
    (py / "meta").write_bytes(dictionary(fine_label_names=strings(names)))
    dataset = open_dataset(f"cifar100:{tmp_path}")
    np.testing.assert_array_equal(dataset.test.labels, labels)
    np.testing.assert_array_equal(dataset.train.pixels(0, 6).reshape(6, 3072), pixels)
    assert (dataset.classes, dataset.class_names[7], dataset.normalisation.name) == (100, "class 7", "cifar100")

    binary = tmp_path / "elsewhere"
    binary.mkdir()
    records = np.concatenate(
        [(labels // 5)[:, None].astype(np.uint8), labels[:, None].astype(np.uint8), pixels], axis=1
    )
    (binary / "test.bin").write_bytes(records.tobytes())
    dataset = open_dataset(f"cifar100:{binary}")
    np.testing.assert_array_equal(dataset.test.labels, labels)
    np.testing.assert_array_equal(dataset.test.pixels(0, 6).reshape(6, 3072), pixels)


def _write_packed(folder: Path, pixels, labels) -> None:
    """Two mosaics of 2 x 3 images."""
    folder.mkdir(exist_ok=True)
    for n in range(2):
        tiles = pixels[6 * n : 6 * n + 6].reshape(2, 3, 3, 32, 32).transpose(0, 3, 1, 4, 2).reshape(64, 96, 3)
        Image.fromarray(np.ascontiguousarray(tiles)).save(folder / f"test_0{n}.webp", lossless=True, method=0)
    np.save(folder / "test_labels.npy", labels.astype(np.uint8))


def test_packed_mosaics(tmp_path: Path):
    pixels, labels = images(12, 4)
    _write_packed(tmp_path, pixels, labels)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    (tmp_path / "sha256.json").write_text(json.dumps({"test": digest}))
    dataset = open_dataset(f"cifar10:{tmp_path}")
    np.testing.assert_array_equal(dataset.test.pixels(0, 12).reshape(12, 3072), pixels)
    np.testing.assert_array_equal(dataset.test.labels, labels)

    pixels[11, 3071] ^= 1
    _write_packed(tmp_path, pixels, labels)
    with pytest.raises(DataError, match=r"images' hash is .* expected " + digest):
        open_dataset(f"cifar10:{tmp_path}")


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test_00.webp", "test_01.webp"])
def test_a_mosaic_of_another_format_starts_no_decoder(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    """PostScript under a mosaic's name would start Ghostscript, and any other format is no lossless mosaic."""

    def start(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(subprocess, "check_call", start)
    pixels, labels = images(12, 4)
    _write_packed(tmp_path, pixels, labels)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 64\n%%EndComments\nshowpage\n"
    (tmp_path / name).write_bytes(postscript)
    _one_line(tmp_path, rf"{name}: image cannot be read \(cannot identify image file")
    Image.new("RGB", (96, 64)).save(tmp_path / name, format="PNG")
    _one_line(tmp_path, rf"{name}: image cannot be read \(cannot identify image file")


def _one_line(path: Path, match: str, spec: str = "cifar10") -> None:
    with pytest.raises(DataError, match=match) as caught:
        open_dataset(f"{spec}:{path}")
    assert "\n" not in str(caught.value)


def test_missing_things(tmp_path: Path):
    _one_line(tmp_path / "none", "no such folder")
    _one_line(tmp_path, "folder is empty")
    (tmp_path / "file").write_bytes(b"x")
    _one_line(tmp_path / "file", "is a file; expected a folder")
    _one_line(tmp_path, "no cifar10 test files")
    _one_line(tmp_path, "no cifar100 test files", "cifar100")
    splits = _splits()
    del splits["data_batch_4"]
    write_python(tmp_path, splits)
    _one_line(tmp_path, "training files missing: data_batch_4")


def test_labels_are_checked(tmp_path: Path):
    pixels, labels = images(3, 0)
    for bad, match in (([0, 1, 10], r"labels must be 0\.\.9, found 10"), ([0, 1], "3 images but 2 labels")):
        (tmp_path / "test_batch").write_bytes(dictionary(data=array(pixels), labels=integers(bad)))
        _one_line(tmp_path, match)
    (tmp_path / "test_batch").write_bytes(dictionary(data=array(pixels), labels=strings(["a", "b", "c"])))
    _one_line(tmp_path, "list of integers")
    (tmp_path / "test_batch").unlink()
    labels[1] = 11
    write_binary(tmp_path, {"test_batch": (pixels, labels)})
    _one_line(tmp_path, r"labels must be 0\.\.9, found 11")


def test_damaged_arrays(tmp_path: Path):
    pixels, labels = images(3, 0)
    for data, match in (
        (array(pixels, shape=(4, 3072)), "found shape"),
        (array(pixels[:, :3000]), "n x 3072"),
        (array(pixels, dtype=b"O8"), "found dtype 'O8'"),
        (small(3), "expected an array 'data'"),
        (b"cnumpy.core.multiarray\n_reconstruct\n)R", "damaged array"),
    ):
        (tmp_path / "test_batch").write_bytes(dictionary(data=data, labels=integers(labels)))
        _one_line(tmp_path, match)
    (tmp_path / "test_batch").write_bytes(b"\x80\x02](K\x01e.")
    _one_line(tmp_path, "expected a dictionary, found list")


def test_truncated_binary(tmp_path: Path):
    write_binary(tmp_path, _splits(train=False))
    path = tmp_path / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    _one_line(tmp_path, r"records of 3073 bytes.*truncated")
    path.write_bytes(b"")
    _one_line(tmp_path, "found 0 bytes")


class _Runs:
    """Pickles as a call of os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_hostile_pickle_runs_nothing(tmp_path: Path):
    """The command would make a file; it must not be there, and plain pickle.load must show that it would be."""
    proof = tmp_path / "executed"
    folder = tmp_path / "data"
    folder.mkdir()
    for protocol in (0, 2, 4):
        hostile = pickle.dumps({"data": _Runs(f"touch {proof}"), "labels": []}, protocol=protocol)
        (folder / "test_batch").write_bytes(hostile)
        _one_line(folder, "refused: .*system")
        assert not proof.exists()
    pickle.loads(hostile)
    assert proof.exists(), "the payload is no payload: the test above proves nothing"


def test_a_hostile_name_file_runs_nothing(tmp_path: Path):
    proof = tmp_path / "executed"
    folder = write_python(tmp_path / "data", _splits(train=False))
    (folder / "batches.meta").write_bytes(pickle.dumps(_Runs(f"touch {proof}")))
    _one_line(folder, "batches.meta: .*refused")
    assert not proof.exists()


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"\x80\x02cbuiltins\neval\n" + text(b"1") + b"\x85R.", "names builtins.eval"),
        (b"\x80\x02cnumpy\nload\n" + text(b"x") + b"\x85R.", "names numpy.load"),
        (b"\x80\x02cnumpy\nndarray\n" + small(9) + b"\x85R.", "numpy.ndarray is called"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c\x01x\x85R.", "names builtins.exec"),
        (b"(S'touch x'\nios\nsystem\n.", "instruction INST"),
        (b"\x80\x02(cos\nsystem\nU\x01xo.", "instruction OBJ"),
        (b"Px\n.", "instruction PERSID"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"\x80\x02)\x81.", "instruction NEWOBJ"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.", "other than latin1"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "memo index"),
        (b"\x80\x02)" + b"\x85" * 2000 + b".", "more nested structure"),
        (b"", "refused"),
        (b"\x80\x02}", "refused"),
    ],
)
def test_hostile_instructions(tmp_path: Path, body: bytes, match: str):
    (tmp_path / "test_batch").write_bytes(body)
    _one_line(tmp_path, match)


def test_a_nest_of_tuples_does_not_overflow_the_stack(tmp_path: Path):
    """Hashing a million nested tuples as a key would crash the interpreter, which no except can catch."""
    (tmp_path / "test_batch").write_bytes(b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s.")
    code = f"from bitline.data import open_dataset; open_dataset({f'cifar10:{tmp_path}'!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "DataError" in done.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def one_batch() -> bytes:
    pixels, labels = images(1, 7)
    return dictionary(data=array(pixels), labels=integers(labels), batch_label=text(b"testing"))


@given(data=st.data())
def test_mutated_batches_raise_data_errors_only(tmp_path_factory, one_batch, data):
    """Flipped, removed and inserted bytes, near the start and end where the instructions are."""
    body = bytearray(one_batch)
    here = tmp_path_factory.mktemp("mutated")
    for _ in range(data.draw(st.integers(1, 4))):
        near_end = data.draw(st.booleans())
        offset = data.draw(st.integers(0, 170))
        position = min(max(len(body) - 1 - offset, 0) if near_end else offset, len(body) - 1)
        action = data.draw(st.sampled_from("frit"))
        if action == "f":
            body[position] = data.draw(st.integers(0, 255))
        elif action == "r" and len(body) > 1:
            del body[position]
        elif action == "i":
            body[position:position] = data.draw(st.binary(min_size=1, max_size=6))
        elif position > 0:
            del body[position:]
    (here / "test_batch").write_bytes(bytes(body))
    # Any exception but a BitlineError is the failure.
    with contextlib.suppress(BitlineError):
        dataset = open_dataset(f"cifar10:{here}")
        dataset.test.images(0, len(dataset.test))


def test_a_length_that_the_file_does_not_have(tmp_path: Path):
    (tmp_path / "test_batch").write_bytes(b"\x80\x02}(" + text(b"data") + b"T" + struct.pack("<I", 2**31 - 1) + b"abc")
    _one_line(tmp_path, "refused")


# --- the real thing ---------------------------------------------------------------------------------------------------


@pytest.mark.realdata
def test_the_three_layouts_of_the_real_test_set_agree(shared_data: Path, tmp_path: Path):
    """Unpacked by the script that came with the data; the hash is the one published with it."""
    subprocess.run(
        [sys.executable, shared_data / "unpack.py", tmp_path, "--splits", "test"], check=True, capture_output=True
    )
    want = json.loads((shared_data / "cifar10" / "sha256.json").read_text())["test"]
    labels = np.load(shared_data / "cifar10" / "test_labels.npy")
    for folder in (
        tmp_path / "cifar-10-batches-py",
        tmp_path / "cifar-10-batches-bin",
        shared_data / "cifar10",
    ):
        dataset = open_dataset(f"cifar10:{folder}")
        digest = hashlib.sha256(dataset.test.pixels(0, 10000).tobytes()).hexdigest()
        assert digest == want, folder
        np.testing.assert_array_equal(dataset.test.labels, labels)
        np.testing.assert_array_equal(np.bincount(dataset.test.labels), np.full(10, 1000))
        assert dataset.class_names == tuple(NAMES)


@pytest.mark.realdata
def test_the_packed_training_split_is_read_lazily_and_whole(shared_data: Path):
    dataset = open_dataset(f"cifar10:{shared_data / 'cifar10'}")
    assert len(dataset.train) == 50000
    assert dataset.train.images(2499, 2502).shape == (3, 3, 32, 32)  # across two files
    np.testing.assert_array_equal(np.bincount(dataset.train.labels), np.full(10, 5000))
