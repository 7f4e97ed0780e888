"""The proof: the smallest ADC that no input can saturate, and the input that saturates a smaller one."""

import numpy as np

import bitline

rng = np.random.default_rng(0)
w = rng.integers(-127, 128, (128, 8))
w[rng.random(w.shape) < 0.9] = 0  # a pruned matrix: about 13 weights left in a column

proof = bitline.certify(w, bitline.load_hardware("tinyadc"))
print(f"{proof.bits} bits are enough for every input; the largest column sum is {proof.max_column_sum}")

smaller = bitline.load_hardware("tinyadc", adc_bits=proof.bits - 1)
refuted = bitline.certify(w, smaller)
witness = refuted.witness()
out = bitline.matmul(witness[None], w, smaller)
driven = np.count_nonzero(witness)
print(f"{proof.bits - 1} bits are not: an input that drives {driven} rows saturates {out.saturations} conversions")
