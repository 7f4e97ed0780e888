"""Activation scales: calibrators, their measured errors and the choice between them."""

from __future__ import annotations

import numpy as np
import pytest

import bitline
from bitline.errors import ConfigError, DataError
from bitline.network.calibration import CALIBRATORS, Sample, calibrate, mse_scale, spread
from bitline.network.quantisation import quantise_weights

HW = bitline.load_hardware("tinyadc")


def sample_of(x):
    """A sample that holds all of the vectors ``x`` (M, K)."""
    x = np.asarray(x, np.float32)
    sample = Sample("layer")
    sample.add(x, 1.0)
    sample.vectors.append(x)
    return sample


def run(x, w, *, hw=HW, signed=False, calibrator="auto"):
    w = np.asarray(w, np.float64)[None]
    codes, scale = quantise_weights(w, hw.weight_bits)
    return calibrate(sample_of(x), w, codes, scale, hw, signed, calibrator)


@pytest.mark.parametrize(
    ("values", "signed", "expected"),
    [
        ([0.0, 510.0], False, 2.0),  # 510 / 255
        ([-64.0, 127.0], True, 1.0),  # 127 is the largest code
        ([-256.0, 127.0], True, 2.0),  # -128 the smallest
        ([-256.0, -3.0], True, 2.0),
        ([0.0, 0.0], False, 1.0),
        ([0.0, 0.0], True, 1.0),
    ],
)
def test_max_clips_nothing(values, signed, expected):
    record = run(np.array(values)[:, None], [[1.0]], signed=signed, calibrator="max")
    assert record.scale == expected
    assert record.clipped == 0.0


def test_one_bit_signed_codes_are_minus_one_and_zero():
    hw = HW.replace(input_bits=1)
    assert run([[-3.0], [-1.0]], [[1.0]], hw=hw, signed=True, calibrator="max").scale == 3.0
    assert run([[3.0], [1.0]], [[1.0]], hw=hw, signed=True, calibrator="max").scale == 1.0


def test_percentile_clips_the_tail_it_says():
    values = np.arange(1, 100_001, dtype=np.float64)[:, None]
    record = run(values, [[1.0]], hw=HW.replace(input_bits=12), calibrator="percentile_99.9")
    assert record.scale == pytest.approx(99_900 / 4095, rel=5e-4)
    assert record.clipped == pytest.approx(1e-3 * (100 - 99_900 / 4095 / 2) / 100, rel=0.25)
    both = run(values - 50_000, [[1.0]], signed=True, calibrator="percentile_99.9")
    assert both.scale == pytest.approx(49_950 / 127, rel=5e-4)  # half of the tail on each side


def test_a_percentile_of_almost_only_zeros_falls_back_to_the_maximum():
    values = np.zeros((100_000, 1))
    values[7] = 255.0
    assert run(values, [[1.0]], calibrator="percentile_99.9").scale == 1.0


def test_mse_minimises_the_error_of_the_values():
    rng = np.random.default_rng(0)
    values = np.abs(rng.standard_t(2, 20_000)).astype(np.float32)
    hw = HW.replace(input_bits=3)

    def error(scale):
        return np.square(np.clip(np.rint(values / scale), 0, 7) * scale - values).sum()

    scale = mse_scale(values, 0.0, float(values.max()), hw, False)
    trials = np.geomspace(values.max() / 7 * 0.05, values.max() / 7, 400)
    assert error(scale) <= 1.02 * min(error(s) for s in trials)
    assert error(scale) < 0.9 * error(values.max() / 7)


def plain_output_error(x, w, scale, bits, weight_bits):
    """Relative squared error of the output, by loops over Python floats."""
    high = 2 ** (weight_bits - 1) - 1
    error = power = 0.0
    for row in x:
        for column in w.T:
            unit = max(abs(v) for v in column) / high
            wanted = sum(a * b for a, b in zip(row, column, strict=True))
            got = sum(
                min(max(round(a / scale), 0), 2**bits - 1) * scale * round(b / unit) * unit
                for a, b in zip(row, column, strict=True)
            )
            error += (got - wanted) ** 2
            power += wanted**2
    return error / power


def test_auto_picks_the_lowest_measured_output_error():
    rng = np.random.default_rng(1)
    x = np.abs(rng.normal(size=(400, 3)))
    x[5, 1] = 30.0  # one outlier: covering it costs all others
    w = rng.normal(size=(3, 2))
    hw = HW.replace(input_bits=4)
    record = run(x, w, hw=hw)
    assert set(record.errors) == set(CALIBRATORS)
    assert record.errors[record.calibrator] == min(record.errors.values())
    assert record.scale == record.scales[record.calibrator]
    for name, scale in record.scales.items():
        expected = plain_output_error(x.astype(np.float32).astype(float), w, scale, 4, 8)
        assert record.errors[name] == pytest.approx(expected, rel=1e-9)
    assert len({round(error, 12) for error in record.errors.values()}) > 1
    assert record.calibrator != "percentile_99.9" or record.errors["max"] > record.errors["percentile_99.9"]


def test_auto_keeps_an_outlier_that_the_output_needs():
    rng = np.random.default_rng(2)
    x = np.abs(rng.normal(size=(20_000, 1))) * 0.1
    x[::2000] = 50.0
    record = run(x, [[1.0]])
    assert record.errors["percentile_99.9"] > 10 * record.errors[record.calibrator]
    assert record.scale >= 49.5 / 255


def test_scales_drop_the_bits_that_depend_on_the_machine():
    a = run([[1.0], [3.3000001]], [[1.0]], calibrator="max")
    b = run([[1.0], [3.3000004]], [[1.0]], calibrator="max")
    assert a.scale == b.scale
    assert a.scale * 255 >= 3.3000004  # upwards: still nothing clips
    assert np.frexp(a.scale)[0] * 2**12 % 1 == 0


def test_unknown_calibrator_and_bad_activations():
    with pytest.raises(ConfigError, match=r"calibrator: must be auto, max, .* not 'kl'"):
        run([[1.0]], [[1.0]], calibrator="kl")
    with pytest.raises(DataError, match="layer layer: NaN or infinite"):
        sample_of([[np.nan]])
    with pytest.raises(DataError, match="layer layer: NaN or infinite"):
        sample_of([[np.inf]])


def test_a_spread_choice_is_even_and_within():
    for size, count in [(10, 10), (11, 10), (1000, 37), (3, 9)]:
        chosen = spread(size, count)
        assert len(chosen) == min(size, count)
        assert chosen.min() >= 0
        assert chosen.max() < size
        assert (np.diff(chosen) >= 0).all()
        assert np.diff(chosen).max(initial=0) <= 2 * size / count + 1
