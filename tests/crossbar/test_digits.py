"""Signed digits: what may be written, what is chosen, what cannot be beaten."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bitline
import reference as twin
from bitline.crossbar.adc import AdcBits
from bitline.crossbar.certificate import certify_layers
from bitline.crossbar.check import _listed_digits, check_certificate, derive_certificate
from bitline.crossbar.digits import (
    balanced_digits,
    canonical_digits,
    lowest_possible,
    magnitude_digits,
    pair_sums,
)
from bitline.crossbar.engines import Crossbars
from bitline.crossbar.matrices import Matrix, split_matrix
from bitline.errors import ConfigError
from bitline.layers import LayerKind, MatrixLayer, Window
from strategies import SMALL, Problem, examples, hardware, problems, small_hardware

SIZES = [(1, 1), (1, 3), (1, 7), (2, 1), (2, 2), (2, 4), (3, 2), (3, 3), (4, 2), (7, 1), (8, 1), (8, 2)]


def _columns(data: st.DataObject, *, most: int = 12) -> tuple[np.ndarray, int, int]:
    cell_bits, slices = data.draw(st.sampled_from([size for size in SIZES if size[0] * size[1] <= 8]))
    top = 2 ** min(cell_bits * slices, 7) - 1
    shape = (data.draw(st.integers(1, most)), data.draw(st.integers(1, 3)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    w = rng.integers(-top, top + 1, shape).astype(np.int32)
    w[rng.random(shape) < data.draw(st.sampled_from([0, 0.5]))] = 0
    return w, cell_bits, slices


def _value(digits: np.ndarray, cell_bits: int) -> np.ndarray:
    return sum(d.astype(np.int64) * 2 ** (cell_bits * i) for i, d in enumerate(digits))


def test_seven_by_hand() -> None:
    w = np.array([[7], [-7], [0], [127]], np.int32)
    assert magnitude_digits(w, 2, 4)[:, :, 0].T.tolist() == [[3, 1, 0, 0], [-3, -1, 0, 0], [0] * 4, [3, 3, 3, 1]]
    # 7 = -1 + 2 x 4; 127 = -1 + 2 x 64
    assert canonical_digits(w, 2, 4)[:, :, 0].T.tolist() == [[-1, 2, 0, 0], [1, -2, 0, 0], [0] * 4, [-1, 0, 0, 2]]


@pytest.mark.parametrize(("cell_bits", "slices"), SIZES)
def test_canonical_is_the_twins_for_every_weight(cell_bits: int, slices: int) -> None:
    top = min(2 ** (cell_bits * slices) - 1, 127 if not SMALL else 40)
    w = np.arange(-top, top + 1, dtype=np.int32)[:, None]
    found = canonical_digits(w, cell_bits, slices)
    assert found[:, :, 0].T.tolist() == [
        list(twin.canonical(weight, 2**cell_bits, slices)) for weight in range(-top, top + 1)
    ]


def test_sixteen_bit_weights_have_canonical_digits_too() -> None:
    w = np.array([[32767], [-32767], [21845], [1]], np.int32)
    for cell_bits, slices in ((1, 15), (2, 8), (4, 4), (8, 2)):
        digits = canonical_digits(w, cell_bits, slices)
        assert (_value(digits, cell_bits) == w).all()
        assert int(np.abs(digits.astype(int)).max()) < 2**cell_bits


@given(data=st.data())
@examples(60)
def test_every_choice_is_the_weights_and_balanced_is_the_twins(data: st.DataObject) -> None:
    w, cell_bits, slices = _columns(data)
    rows = data.draw(st.integers(1, 8))
    base = 2**cell_bits
    found = {
        "magnitude": magnitude_digits(w, cell_bits, slices),
        "canonical": canonical_digits(w, cell_bits, slices),
        "balanced": balanced_digits(w, rows, cell_bits, slices),
    }
    largest = {}
    for name, digits in found.items():
        assert (_value(digits, cell_bits) == w).all(), name
        assert int(np.abs(digits.astype(int)).max(initial=0)) < base, name
        assert not digits[:, w == 0].any(), name
        largest[name] = pair_sums(digits, rows).max(axis=(1, 2))
    assert (largest["balanced"] <= np.minimum(largest["magnitude"], largest["canonical"])).all()
    for n in range(w.shape[1]):
        for first in range(0, len(w), rows):
            column = [int(weight) for weight in w[first : first + rows, n]]
            wanted = twin.balanced(column, base, slices, 48)
            assert found["balanced"][:, first : first + rows, n].T.tolist() == [list(vector) for vector in wanted]


@given(data=st.data())
@examples(20)
def test_nothing_is_below_the_bound_and_balanced_is_near(data: st.DataObject) -> None:
    w, cell_bits, slices = _columns(data, most=4)
    base = 2**cell_bits
    for n in range(w.shape[1]):
        column = w[:, n]
        choices = [twin.representations(int(weight), base, slices) for weight in column]
        best = min(max(twin.column_sums_of(list(vectors))) for vectors in product(*choices))
        bound = lowest_possible(column, cell_bits, slices)
        assert bound <= best
        assert best <= int(
            pair_sums(balanced_digits(column[:, None], len(column), cell_bits, slices), len(column)).max()
        )


def test_the_bound_is_tight_where_there_is_no_choice() -> None:
    # 1 and 2 in cells of 7 bits have one way each: 1 + 2 = 3; one-bit cells write 1 as 1 or as -1 + 2
    assert lowest_possible(np.array([1, 2], np.int32), 7, 1) == 3
    assert lowest_possible(np.array([1, 1, 1, 1], np.int32), 1, 2) == 2
    assert lowest_possible(np.zeros(3, np.int32), 2, 4) == 0


def test_threads_and_neighbours_do_not_matter() -> None:
    rng = np.random.default_rng(3)
    w = rng.integers(-127, 128, (200, 6)).astype(np.int32)
    whole = balanced_digits(w, 128, 2, 4)
    for n in range(6):
        assert (balanced_digits(w[:, [n]], 128, 2, 4)[:, :, 0] == whole[:, :, n]).all()
    assert (balanced_digits(w[128:], 128, 2, 4) == whole[:, 128:]).all()


@given(
    problem=problems(
        hardware(encoding="differential").flatmap(
            lambda hw: st.sampled_from(["canonical", "balanced"]).map(lambda digits: hw.replace(digits=digits))
        ),
        max_rows=24,
    )
)
@examples(80)
def test_engines_give_the_twins_integers(problem: Problem) -> None:
    hw = problem.hw
    adc = twin.resolve_adc(problem.w, hw, problem.signed_inputs)
    wanted = twin.matmul(problem.x, problem.w, hw, adc, problem.signed_inputs)
    for engine in ("bitserial", "certified"):
        out = bitline.matmul(problem.x, problem.w, hw, problem.signed_inputs, engine=engine)
        assert out.y.tolist() == wanted.y.tolist()
        assert (out.conversions, out.saturations) == (wanted.conversions, wanted.saturations)
        if engine == "bitserial":
            assert out.max_column_sum == wanted.max_column_sum


@pytest.mark.parametrize("digits", ["canonical", "balanced"])
@pytest.mark.parametrize("adc_bits", [4, 5, 6, 7])
def test_many_vectors_and_refuted_columns(digits: str, adc_bits: int) -> None:
    """The kernels for 512 vectors, the excess and the split of a certified product, beside population counts."""
    rng = np.random.default_rng(adc_bits)
    w = rng.integers(-127, 128, (150, 5))
    w[:, 1] = 0
    x = rng.integers(0, 256, (140, 150))
    hw = bitline.load_hardware("tinyadc", adc_bits=adc_bits, digits=digits)
    few = [bitline.matmul(x[i : i + 70], w, hw) for i in (0, 70)]
    wanted = np.concatenate([part.y for part in few])
    for engine in ("bitserial", "certified"):
        out = bitline.matmul(x, w, hw, engine=engine)
        assert (out.y == wanted).all()
        assert out.saturations == sum(part.saturations for part in few)
    assert (wanted == x @ w).all() == (sum(part.saturations for part in few) == 0)


@given(
    case=small_hardware(encoding="differential").flatmap(
        lambda hw: st.tuples(
            st.sampled_from(["canonical", "balanced"]).map(
                lambda digits: hw.replace(digits=digits, adc_bits=1 + hw.rows % 3)
            ),
            st.integers(0, 2**32 - 1),
        )
    )
)
@examples(60)
def test_the_proof_is_of_the_chosen_digits(case: tuple[bitline.Hardware, int]) -> None:
    hw, seed = case
    rng = np.random.default_rng(seed)
    low, high = hw.weight_range
    w = rng.integers(low, high + 1, (int(rng.integers(1, 7)), 2))
    proof = bitline.certify(w, hw)
    sums = [int(column.levels.sum()) for tile in twin.column_levels(w, hw) for column in tile.columns]
    assert proof.max_column_sum == max(sums) * hw.max_digit
    witness = proof.witness()
    assert (witness is None) == proof.lossless
    if witness is not None:
        assert bitline.matmul(witness[None], w, hw).saturations > 0


def test_digits_need_a_pair_of_columns() -> None:
    with pytest.raises(ConfigError, match="digits: balanced needs encoding: differential, not offset"):
        bitline.load_hardware("tinyadc", encoding="offset", digits="balanced")
    with pytest.raises(ConfigError, match="digits"):
        bitline.load_hardware("tinyadc", digits="smallest")


def test_the_default_leaves_hashes_alone() -> None:
    plain = bitline.load_hardware("tinyadc")
    assert plain.replace(digits="magnitude").sha256() == plain.sha256()
    assert "digits" not in plain.model_dump()
    assert plain.replace(digits="balanced").sha256() != plain.sha256()


def _layers(seed: int) -> list[MatrixLayer]:
    rng = np.random.default_rng(seed)
    found = []
    for name, shape in (("grouped", (2, 9, 3)), ("tall", (1, 37, 4))):
        codes = rng.integers(-127, 128, shape).astype(np.int32)
        codes[rng.random(shape) < 0.3] = 0
        scale = np.ones((shape[0], shape[2]))
        found.append(MatrixLayer(name=name, kind=LayerKind.CONV2D, codes=codes, weight_scale=scale, bias=None))
    return found


@pytest.mark.parametrize("readout", ["digital", "analog"])
@pytest.mark.parametrize("digits", ["canonical", "balanced"])
def test_the_independent_check_agrees(digits: str, readout: str) -> None:
    for seed, adc_bits in enumerate(("weight_aware", 3, 4, 5)):
        hw = bitline.load_hardware("tinyadc", rows=16, digits=digits, readout=readout, adc_bits=adc_bits)
        layers = _layers(seed)
        document = certify_layers(layers, hw).to_json()
        assert check_certificate(document, layers) == []
        # the same digits do not write other weights
        other = [replace(layer, codes=layer.codes[:, ::-1].copy()) for layer in layers]
        assert check_certificate(document, other) != []


@pytest.mark.parametrize("digits", ["canonical", "balanced"])
def test_two_hundred_tampered_certificates_are_refused(digits: str) -> None:
    hw = bitline.load_hardware("tinyadc", rows=16, digits=digits, adc_bits=4)
    layers = _layers(7)
    document = certify_layers(layers, hw).to_json()
    rng = np.random.default_rng(11)
    for number in range(200):
        tampered = json.loads(json.dumps(document))
        entry = tampered["layers"][number % 2]
        packed = bytearray(base64.b64decode(entry["carries"]))
        if number % 10 == 9:
            record = entry["columns_worst"][int(rng.integers(len(entry["columns_worst"])))]
            record["max_sum"] -= 1
        else:  # one carry forged: no digits of these weights, or other digits than the sums are of
            count = 3 * layers[number % 2].codes.size
            bit = int(rng.integers(count))
            packed[bit // 8] ^= 128 >> bit % 8
            entry["carries"] = base64.b64encode(bytes(packed)).decode()
        complaints = check_certificate(tampered, layers)
        if not complaints:  # other digits of the same weight and every worst sum the same: as good a proof
            assert digits == "balanced"
            assert number % 10 != 9
            listed = derive_certificate(layers, hw, None, _listed_digits(tampered, layers, hw))
            assert listed["layers"] == tampered["layers"]
            continue
        assert all("\n" not in line for line in complaints)


def test_digits_that_are_no_digits_are_named() -> None:
    hw = bitline.load_hardware("tinyadc", digits="balanced")
    layer = replace(_layers(0)[0], codes=np.array([[[1]]], np.int32), weight_scale=np.ones((1, 1)))
    document = certify_layers([layer], hw).to_json()
    # 1 is (1, 0, 0, 0); a carry into slice 1 only would make it (-3, 1, 0, 0), which is 1 too
    document["layers"][0]["carries"] = base64.b64encode(bytes([0b10000000])).decode()
    assert any("max_sum" in line for line in check_certificate(document, [layer]))
    for text, word in (
        (base64.b64encode(bytes([0b11000000])).decode(), None),  # (-3, -2, 1, 0) + ... = 1 as well
        (base64.b64encode(bytes([0b01000000])).decode(), "not digits"),  # slice 1 would hold -4
        (base64.b64encode(bytes([0b00010000])).decode(), "more than 3 bits"),
        ("", "expected 3 bits"),
        ("?", "expected 3 bits"),
        (None, "expected 3 bits"),
    ):
        document["layers"][0]["carries"] = text
        complaints = check_certificate(document, [layer])
        assert complaints
        assert word is None or word in complaints[0]


def test_a_larger_sum_is_not_canonical() -> None:
    hw = bitline.load_hardware("tinyadc", digits="canonical")
    layer = replace(_layers(0)[0], codes=np.array([[[7]]], np.int32), weight_scale=np.ones((1, 1)))
    document = certify_layers([layer], hw).to_json()
    assert check_certificate(document, [layer]) == []
    document["layers"][0]["carries"] = base64.b64encode(bytes([0])).decode()  # (3, 1) sums to 4, (-1, 2) to 3
    assert "smaller sum" in check_certificate(document, [layer])[0]


@pytest.mark.parametrize("digits", ["canonical", "balanced"])
def test_refuted_columns_keep_their_cells(digits: str) -> None:
    """A certified product split in two: the remainder holds the digits it held, not others of what remains."""
    rng = np.random.default_rng(5)
    hw = bitline.load_hardware("tinyadc", rows=32, digits=digits)
    w = rng.integers(-127, 128, (80, 6)).astype(np.int32)
    x = rng.integers(0, 256, (20, 80))
    for bits in (2, 3, 4):
        adc = AdcBits.uniform(bits, hw)
        split = split_matrix(w, hw, adc, False)
        assert split.refuted
        y = x @ split.proven.astype(np.int64)
        for rows, outputs, part in split.refuted:
            y[:, outputs] += part.convert(x[:, rows], False, None).y
        assert (y == Matrix(w, hw, adc, False).convert(x, False, None).y).all()


@pytest.mark.parametrize("digits", ["canonical", "balanced"])
def test_the_excess_of_a_convolution_is_of_the_same_cells(digits: str) -> None:
    """Rows are packed in another order there; digits are chosen in the order of the matrix."""
    rng = np.random.default_rng(6)
    hw = bitline.load_hardware("tinyadc", rows=64, digits=digits, adc_bits=4)
    channels, size, window = 12, 14, Window(kernel=(3, 3))
    w = rng.integers(-127, 128, (1, channels * 9, 5)).astype(np.int32)
    images = rng.integers(0, 256, (2, channels, size, size))
    crossbars = Crossbars(w, hw)
    lines, width = slice(0, size - 2), size - 2
    fields = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(2, 3))
    y = np.ascontiguousarray(fields.transpose(0, 2, 3, 1, 4, 5).reshape(-1, channels * 9) @ w[0].astype(np.int64))
    wanted = crossbars.convolve(images, window, lines, width)
    saturations = crossbars.subtract_excess(images, window, lines, width, y)
    assert wanted.saturations == saturations > 0
    assert (y == wanted.y).all()
