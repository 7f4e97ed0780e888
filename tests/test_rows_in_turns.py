"""Rows that are switched on a few at a time, through the commands."""

from __future__ import annotations

import bitline
from bitline.certification import certify_checkpoint


def test_certifying_at_a_cp_rate_prunes_what_is_read_together() -> None:
    # rate 8 of 16 rows that are on together leaves 2 non-zeros: 2 x 3 = 6 at most, 3 bits
    hw = bitline.load_hardware("tinyadc", active_rows=16)
    certificate, _ = certify_checkpoint("digits_resnet20_dense", hw, cp_rate=8)
    assert {layer.nonzeros_max for layer in certificate.layers[1:]} == {2}
    assert max(layer.bits for layer in certificate.layers[1:]) <= 3


def test_simulating_counts_every_read() -> None:
    options = {"checkpoint": "digits_resnet20_cp16", "images": 4, "calibration_images": 8}
    whole = bitline.simulate(hw=bitline.load_hardware("tinyadc", adc_bits=6), **options)
    part = bitline.simulate(hw=bitline.load_hardware("tinyadc", adc_bits=6, active_rows=32), **options)
    assert part["accuracy"] == whole["accuracy"]
    assert part["accuracy"]["identical_to_integer"]
    for few, all_on in zip(part["layers"], whole["layers"], strict=True):
        # every row tile of 128 rows is up to four reads of 32: ceil(K / 32) for ceil(K / 128)
        reads, tiles = -(-few["rows"] // 32), -(-few["rows"] // 128)
        assert few["conversions"] * tiles == all_on["conversions"] * reads
        assert few["crossbars"] == all_on["crossbars"]
        assert few["max_column_sum"] <= all_on["max_column_sum"]
    # the first layer's 9 rows are one read, and it sets the pace: only the layers behind it take longer
    assert part["performance"]["images_per_s"] == whole["performance"]["images_per_s"]
    assert part["performance"]["latency_us"] > whole["performance"]["latency_us"]
