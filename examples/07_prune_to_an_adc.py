"""Column-proportional pruning of one matrix, rate after rate, until a chosen ADC is proven to hold it."""

import numpy as np

import bitline
from bitline.pruning.projections import project_cp

rng = np.random.default_rng(0)
weights = rng.normal(size=(256, 16))
hw = bitline.load_hardware("tinyadc")

for rate in (1, 2, 4, 8, 16, 32, 64):
    pruned = project_cp(weights, rate, hw.rows)
    codes = np.rint(pruned / np.abs(weights).max() * 127).astype(int)
    proof = bitline.certify(codes, hw)
    kept = np.linalg.norm(pruned) / np.linalg.norm(weights)
    print(f"rate {rate:2}: {proof.bits} bits proven, {proof.counts.equation} by Eq. (1); {kept:.0%} of the norm kept")
    if proof.bits <= 4:
        break
