"""Activation traces: what is saved comes back, the file is the documented one, and nothing else is accepted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bitline.data import ActivationTrace, load_trace, save_trace
from bitline.errors import BitlineError, DataError, OutputError

X = np.array([[0, 255, 3], [7, 0, 1]])
W = np.array([[-127], [127], [5]])


def _trace(**changes) -> ActivationTrace:
    fields = {"layer": "layer1.conv", "x": X, "w": W, "input_bits": 8, "weight_bits": 8, "input_scale": 0.25}
    return ActivationTrace(**(fields | {"source": "by hand"} | changes))


@st.composite
def traces(draw):
    input_bits, weight_bits = draw(st.integers(1, 16)), draw(st.integers(2, 16))
    signed = draw(st.booleans())
    m, k, n = (draw(st.integers(1, 5)) for _ in range(3))
    low, high = (-(2 ** (input_bits - 1)), 2 ** (input_bits - 1) - 1) if signed else (0, 2**input_bits - 1)
    x = draw(hnp.arrays(np.int64, (m, k), elements=st.integers(low, high)))
    half = 2 ** (weight_bits - 1)
    w = draw(hnp.arrays(np.int32, (k, n), elements=st.integers(-half, half - 1)))
    return ActivationTrace(
        layer=draw(st.text(max_size=20)),
        x=x,
        w=w,
        input_bits=input_bits,
        weight_bits=weight_bits,
        signed_inputs=signed,
        input_scale=draw(st.floats(1e-300, 1e300)),
        source=draw(st.text(max_size=20)),
    )


@given(trace=traces())
def test_round_trip(tmp_path_factory, trace):
    path = tmp_path_factory.mktemp("trace") / "t.npz"
    save_trace(path, trace)
    back = load_trace(path)
    for name in ("layer", "input_bits", "weight_bits", "signed_inputs", "input_scale", "source"):
        assert getattr(back, name) == getattr(trace, name)
    for mine, theirs in ((back.x, trace.x), (back.w, trace.w)):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == np.int32
    first = path.read_bytes()
    save_trace(path, back)
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["t.npz"]


def test_the_file_is_the_documented_one(tmp_path: Path):
    """Plain numpy reads it without Bitline, as traces/README.md says."""
    save_trace(tmp_path / "t.npz", _trace())
    with np.load(tmp_path / "t.npz", allow_pickle=False) as members:
        assert sorted(members) == ["header", "w", "x"]
        assert (members["x"].dtype, members["w"].dtype) == (np.uint8, np.int8)
        np.testing.assert_array_equal(members["x"], X)
        np.testing.assert_array_equal(members["w"], W)
        assert json.loads(str(members["header"])) == {
            "format": "bitline-activation-trace",
            "version": 1,
            "layer": "layer1.conv",
            "input_bits": 8,
            "weight_bits": 8,
            "signed_inputs": False,
            "input_scale": 0.25,
            "source": "by hand",
        }


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"x": X - 1}, r"x: codes must be 0\.\.255, found -1\.\.254"),
        ({"x": X, "signed_inputs": True}, r"x: codes must be -128\.\.127, found 0\.\.255"),
        ({"w": W * 2}, r"w: codes must be -128\.\.127, found -254\.\.254"),
        ({"x": X[:, :2]}, r"x \(2, 2\) and w \(3, 1\) disagree on K"),
        ({"x": X / 2}, "matrix of integers, found float64"),
        ({"x": X[0]}, r"of shape \(3,\)"),
        ({"w": W[:, :0]}, r"of shape \(3, 0\)"),
        ({"input_bits": 17}, r"input_bits must be 1\.\.16, found 17"),
        ({"weight_bits": 1}, r"weight_bits must be 2\.\.16, found 1"),
        ({"input_scale": 0.0}, "input_scale must be finite and positive"),
        ({"input_scale": float("nan")}, "input_scale must be finite and positive"),
    ],
)
def test_impossible_traces(changes, match: str):
    with pytest.raises(DataError, match=match):
        _trace(**changes)


def _rewrite(path: Path, drop: str | None = None, **header) -> None:
    save_trace(path, _trace())
    with np.load(path) as members:
        arrays = dict(members)
    fields = json.loads(str(arrays["header"])) | header
    arrays["header"] = np.array(json.dumps(fields))
    arrays.pop(drop, None)
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"drop": "w"}, "no array 'w'"),
        ({"format": "other"}, "does not say 'bitline-activation-trace'"),
        ({"version": 2}, "trace version 2; this Bitline reads version 1"),
        ({"input_bits": "8"}, "'input_bits' must be int, found '8'"),
        ({"input_bits": True}, "'input_bits' must be int, found True"),
        ({"signed_inputs": 0}, "'signed_inputs' must be bool, found 0"),
        ({"input_scale": 10**400}, "'input_scale' must be float"),
        ({"layer": None}, "'layer' must be str, found None"),
        ({"weight_bits": 7}, r"codes must be -64\.\.63, found -127\.\.127"),
    ],
)
def test_wrong_contents(tmp_path: Path, changes, match: str):
    path = tmp_path / "t.npz"
    _rewrite(path, **changes)
    with pytest.raises(DataError, match=match) as caught:
        load_trace(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_traces(tmp_path: Path):
    for path, match in ((tmp_path / "none.npz", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(DataError, match=match):
            load_trace(path)
    np.savez(tmp_path / "t.npz", header=np.array("{"), x=X, w=W)
    with pytest.raises(DataError, match="header is not JSON"):
        load_trace(tmp_path / "t.npz")
    np.savez(tmp_path / "t.npz", header=np.array([{}], dtype=object), x=X, w=W)
    with pytest.raises(DataError, match="an array of object"):
        load_trace(tmp_path / "t.npz")


def test_numpy_numbers_are_numbers(tmp_path: Path):
    save_trace(tmp_path / "t.npz", _trace(input_scale=np.float32(0.5), signed_inputs=np.False_))
    assert load_trace(tmp_path / "t.npz").input_scale == 0.5


def test_an_integer_scale_is_a_number(tmp_path: Path):
    _rewrite(tmp_path / "t.npz", input_scale=2)
    assert load_trace(tmp_path / "t.npz").input_scale == 2.0


def test_what_cannot_be_written(tmp_path: Path):
    """The old file stays, and nothing half-written is left."""
    with pytest.raises(OutputError, match="cannot write the trace"):
        save_trace(tmp_path / "none" / "t.npz", _trace())
    (tmp_path / "t.npz").mkdir()
    (tmp_path / "t.npz" / "inside").touch()
    with pytest.raises(OutputError, match="cannot write the trace"):
        save_trace(tmp_path / "t.npz", _trace())
    assert [p.name for p in tmp_path.iterdir()] == ["t.npz"]


def test_the_old_file_is_replaced_not_overwritten(tmp_path: Path):
    """Whoever still reads the old file (here: a second link to it) never sees half of the new one."""
    save_trace(tmp_path / "t.npz", _trace(source="old"))
    (tmp_path / "link.npz").hardlink_to(tmp_path / "t.npz")
    save_trace(tmp_path / "t.npz", _trace(source="new"))
    assert [load_trace(tmp_path / name).source for name in ("link.npz", "t.npz")] == ["old", "new"]


@pytest.fixture(scope="module")
def good_file(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "t.npz"
    save_trace(path, _trace())
    return path.read_bytes()


@given(data=st.data())
def test_mutated_files_raise_data_errors_only(tmp_path_factory, good_file, data):
    body = bytearray(good_file)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(body) - 1))
        body[position : position + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    path = tmp_path_factory.mktemp("mutated") / "t.npz"
    path.write_bytes(bytes(body))
    try:
        trace = load_trace(path)
    except BitlineError:
        return
    assert trace.x.shape[1] == trace.w.shape[0]
