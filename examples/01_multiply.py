"""A matrix product on simulated crossbars: exact with enough ADC bits, and what saturation does below."""

import numpy as np

import bitline

rng = np.random.default_rng(0)
x = rng.integers(0, 256, (4, 300))  # four input vectors of 8-bit codes
w = rng.integers(-127, 128, (300, 16))  # signed 8-bit weights

for adc_bits in (8, 7, 6, 5, 4):
    hw = bitline.load_hardware("tinyadc", adc_bits=adc_bits)
    out = bitline.matmul(x, w, hw)
    error = np.abs(out.y - x @ w).max() / np.abs(x @ w).max()
    print(
        f"{adc_bits}-bit ADC: {out.saturations:6,} of {out.conversions:,} conversions saturate, "
        f"largest error {100 * error:.2f} % of the largest result"
    )
