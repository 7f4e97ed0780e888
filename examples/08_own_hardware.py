"""A hardware description of your own: 8 of 128 rows on at once, so that a small ADC holds dense weights."""

import numpy as np

import bitline

rng = np.random.default_rng(0)
w = rng.integers(-127, 128, (256, 32))
x = rng.integers(0, 256, (8, 256))

for active_rows in (None, 32, 16, 8, 4):
    hw = bitline.load_hardware("tinyadc", name="mine", active_rows=active_rows)
    proof = bitline.certify(w, hw)
    out = bitline.matmul(x, w, hw)
    assert (out.y == x @ w).all()
    print(f"{active_rows or hw.rows:3} rows on at once: {proof.bits} ADC bits proven, {out.conversions:,} conversions")
