"""Text, Markdown and CSV say what the report says, and say the bad news."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from report_examples import example_report

from bitline.printable import clean, shorten
from bitline.report.markdown import markdown_report
from bitline.report.schema import comparison_column, validate_report
from bitline.report.summary import contradictions, summary_lines
from bitline.report.tables import (
    LAYER_COLUMNS,
    comparison_table,
    layer_table,
    layers_csv,
    plain_table,
)
from bitline.report.text import PAPER_NOTE, text_report

GOLDEN = """\
resnet20 (resnet20_cp16.safetensors) on tinyadc (Bitline 0.1.0)

  network      resnet20; 272,474 parameters; 2 layers on 20 crossbars (1 left out: zero weights); 6.25% of the weights
               are not zero; CP rate 16, at most 8 non-zeros in a column of 128 rows after the first layer
  hardware     tinyadc: 128 x 128 crossbars, 2-bit cells, 1-bit DACs, 8-bit activations, 8-bit weights, differential
               encoding, digital readout, ADC bits: weight_aware per layer
  data         scikit-learn digits [digits]: 360 images; normalisation digits (mean 0.3053, std 0.3758, unit scale);
               calibrated on 128 images of training split
  proof        LOSSLESS at 5 bits: no input can saturate any conversion (proven from the weights)
  ADC bits     5 needed by these weights, 5 by Eq. (1), 4 by the paper's count (NOT lossless in 1 layer: conv2)
  accuracy     top-1 float 98.33%, 8-bit integer 98.06%, simulated 98.06%; top-5 float 100.00%, 8-bit integer 100.00%,
               simulated 100.00%; simulated outputs identical to the exact integer network's, bit for bit (360 images)
  saturations  0 of 3,000,000 conversions
  speed        12.5 s in all, crossbars simulated at 28.8 images/s, 1.23e+09 conversions/s, 2 threads, bitserial engine,
               Example CPU
  in torch     ReLU
  note         made up

Layers
           rows x  cross-  left    most   not  Eq.                  slices   ADC            max    satu-
  layer   columns    bars   out  a col.  zero  (1)  paper  needed     0 up  bits  lossless  sum  rations
  -----  --------  ------  ----  ------  ----  ---  -----  ------  -------  ----  --------  ---  -------
  conv1  144 x 16       8     0       8  6.2%    5      4       4  4 4 3 2     5       yes   11        0
  conv2  288 x 32      12     1       8  6.2%    5     4!       5  5 5 4 3     5       yes   11        0
  ! the paper's count is below what these weights need: not lossless there
"""


def small_report() -> dict[str, Any]:
    report = example_report(2, chip=False)
    for layer, name, bits in zip(report["layers"], ("conv1", "conv2"), ([4, 4, 3, 2], [5, 5, 4, 3]), strict=True):
        layer["name"] = name
        layer["adc_bits"]["weight_aware"] = bits[0]
        layer["adc_bits"]["weight_aware_per_slice"] = bits
    report["certificate"]["adc_bits"]["weight_aware"] = 5
    report["notes"] = ["made up"]
    return validate_report(report)


def refuted_report() -> dict[str, Any]:
    report = small_report()
    report["layers"][1]["adc_bits"]["configured"] = 3
    report["layers"][1] |= {"lossless": False, "saturations": 30, "max_column_sum": 17}
    report["certificate"]["lossless"] = False
    report["accuracy"] |= {"identical_to_integer": False, "differing_images": 7, "simulated_top1": 0.9}
    return validate_report(report)


def test_golden_text() -> None:
    assert text_report(small_report()) == GOLDEN


def test_refuted_report_says_so() -> None:
    lines = dict(summary_lines(refuted_report()))
    assert lines["proof"].startswith("REFUTED at 3 to 5 bits: some input saturates 1 of 2 layers (conv2)")
    assert "need 5 bits" in lines["proof"]
    assert "DIFFER from the exact integer network's on 7 images" in lines["accuracy"]
    assert "simulated 90.00%" in lines["accuracy"]
    assert lines["saturations"] == "30 of 3,000,000 conversions (0.001%)"
    assert "FAILED" not in lines
    row = layer_table(refuted_report()).rows[1]
    assert "NO" in row
    assert "30" in row


def test_contradictions_come_first() -> None:
    assert contradictions(small_report()) == contradictions(refuted_report()) == []
    report = small_report()
    report["layers"][0] |= {"saturations": 2, "column_sum_bound": 10}
    report["accuracy"]["identical_to_integer"] = False
    assert contradictions(report) == [
        "conv1 is certified lossless but saturated 2 times",
        "conv1 reached the column sum 11, above its bound 10",
    ]
    assert summary_lines(report)[0] == ("FAILED", "conv1 is certified lossless but saturated 2 times")
    assert "FAILED" in markdown_report(report)
    report["layers"][0] |= {"saturations": 0, "column_sum_bound": 11}
    assert contradictions(report) == ["no conversion saturated but the outputs differ from the exact integer network's"]
    report["certificate"]["lossless"] = False
    assert contradictions(report)[-1] == "the certificate's verdict is not that of its layers"


def test_certificate_only_report_has_no_run() -> None:
    report = example_report(2, chip=False)
    for layer in report["layers"]:
        layer |= {"conversions": None, "saturations": None, "max_column_sum": None}
    report |= {"accuracy": None, "data": None, "timing": None, "histograms": []}
    text = text_report(validate_report(report))
    assert "LOSSLESS" in text
    for word in ("accuracy", "saturations", "data ", "speed", "max", "None"):
        assert word not in text


def test_no_labels_and_no_paper_count() -> None:
    report = small_report()
    for key in report["accuracy"]:
        if "top" in key:
            report["accuracy"][key] = None
    report["certificate"]["adc_bits"]["paper"] = None
    for layer in report["layers"]:
        layer["adc_bits"]["paper"] = None
    lines = dict(summary_lines(validate_report(report)))
    assert lines["accuracy"].startswith("no labels; simulated outputs identical")
    assert "paper" not in lines["ADC bits"]
    text = text_report(report)
    assert PAPER_NOTE not in text


def test_chip_lines() -> None:
    report = example_report(3)
    report["performance"]["layers"][1]["bottleneck"] = True
    lines = dict(summary_lines(validate_report(report)))
    assert lines["chip"].startswith(
        "81,000 images/s, latency 312.5 us; 380 crossbars with copies in 12 tiles; bottleneck layer1.0."
    )
    assert lines["energy"] == "45.6 uJ an image at full activity"
    assert lines["price"] == "3.21 mm2, 1.87 W with everything on"
    assert lines["efficiency"] == "520 GOPS/s/mm2, 728.3 GOPS/W"
    assert lines["normalised"] == "area and power 78.00% and 63.00% of the non-pruned design's"


def test_tiles_come_first_and_links_stand_apart() -> None:
    report = example_report(3)
    report["performance"] |= {
        "energy_by_event_uj_per_image": 40.0,
        "lines_driven": 0.125,
        "cells_on": 0.03,
        "tiles_alone": {
            "energy_uj_per_image": 5.6,
            "energy_by_event_uj_per_image": 3.5,
            "area_mm2": 1.1,
            "power_w": 0.87,
            "average_power_w": 0.5,
            "gops_per_s_mm2": 1500.0,
            "gops_per_w": 1600.0,
        },
    }
    report["breakdown"]["off_tile"] = ["hypertransport"]
    report["normalised"] |= {"area_tiles": 0.5, "power_tiles": 0.25, "baseline": "dense"}
    lines = dict(summary_lines(validate_report(report)))
    assert lines["energy"] == (
        "tiles alone 3.5 uJ an image by event, 5.6 uJ at full activity (0.5 W on average); with hypertransport 40 uJ "
        "an image by event, 45.6 uJ at full activity; 12.50% of the word lines driven and 3.00% of the cells on in a "
        "read"
    )
    assert lines["price"] == (
        "tiles alone 1.1 mm2, 0.87 W with everything on; with hypertransport 3.21 mm2, 1.87 W with everything on"
    )
    assert lines["normalised"].startswith("tiles alone: area and power 50.00% and 25.00% of the non-pruned")
    # a network of 3 layers, one of them called twice more
    layers = report["performance"]["layers"]
    report["performance"]["layers"] = [*layers, *({**layers[2], "name": f"again#{i}"} for i in (2, 3))]
    chip = dict(summary_lines(validate_report(report)))["chip"]
    assert "380 crossbars with copies and 2 more calls of layers in 12 tiles" in chip


def test_rate_and_non_zeros_are_of_the_same_layers() -> None:
    # a dense first layer of 122 non-zeros in a column; the pruned second one has 87: 128 / 87 = 1.471
    report = example_report(2, chip=False)
    report["layers"][0] |= {"nonzeros_max": 122, "weights": 1000, "nonzeros": 900}
    report["layers"][1] |= {"nonzeros_max": 87, "weights": 3000, "nonzeros": 300}
    report["network"]["cp_rate"] = 128 / 87
    text = dict(summary_lines(validate_report(report)))["network"]
    assert "CP rate 1.471, at most 87 non-zeros in a column of 128 rows after the first layer" in text
    assert "30.00% of the weights are not zero" in text  # 1200 of 4000
    column = comparison_column("x", report)
    assert (column["nonzeros_max"], column["nonzeros"]) == (87, 0.3)
    shares = [
        row[layer_table(validate_report(report)).headings.index("not\nzero")]
        for row in layer_table(validate_report(report)).rows
    ]
    assert shares == ["90.0%", "10.0%"]


def test_side_by_side() -> None:
    first, second = small_report(), refuted_report()
    second["comparison"] = [comparison_column("unpruned, 8-bit baseline", first), comparison_column("CP 16", second)]
    report = validate_report(second)
    rows = {row[0]: row[1:] for row in comparison_table(report).rows}
    assert comparison_table(report).headings == ["", "unpruned, 8-bit baseline", "CP 16"]
    assert rows["proven lossless"] == ["yes", "NO"]
    assert rows["top-1, simulated crossbars"] == ["98.06%", "90.00%"]
    assert rows["saturations"] == ["0", "30"]
    assert not any(name.startswith("chip") for name in rows)
    assert "Side by side\n" in text_report(report)
    assert "| proven lossless | yes | NO |" in markdown_report(report)


def test_text_of_many_layers_is_aligned_and_not_too_wide() -> None:
    report = validate_report(example_report(60, long=True))
    table = plain_table(layer_table(report)).splitlines()
    assert len(table) == 3 + 60
    assert len({len(line) for line in table[2:]}) == 1
    assert max(len(line) for line in text_report(report).splitlines()) <= 130


def test_csv_reads_back() -> None:
    report = example_report(4)
    report["layers"][1] |= {"name": 'odd, "name"', "max_column_sum": None, "groups": 3}
    report["layers"][2]["adc_bits"] |= {"paper": None}
    report["layers"][3]["lossless"] = False
    full = validate_report(report)
    rows = list(csv.DictReader(io.StringIO(layers_csv(full))))
    assert [row["name"] for row in rows] == [layer["name"] for layer in full["layers"]]
    for row, layer in zip(rows, full["layers"], strict=True):
        for key in ("rows", "columns", "groups", "row_tiles", "crossbars", "conversions", "saturations", "macs"):
            assert int(row[key]) == layer[key]
        bits = layer["adc_bits"]
        assert [int(digit) for digit in row["adc_bits_weight_aware_per_slice"].split()] == bits[
            "weight_aware_per_slice"
        ]
        assert int(row["adc_bits_configured"]) == bits["configured"]
        assert row["lossless"] == str(layer["lossless"]).lower()
    assert [row["lossless"] for row in rows] == ["true", "true", "true", "false"]
    assert rows[1]["max_column_sum"] == ""
    assert (rows[2]["adc_bits_paper"], rows[2]["paper_lossless"]) == ("", "")
    assert rows[0]["paper_lossless"] in ("true", "false")
    assert float(rows[3]["occupancy"]) == full["performance"]["layers"][3]["occupancy"]
    assert rows[0]["calibrator"] == "mse"


def test_every_layer_field_reaches_the_csv() -> None:
    keys = {column.key for column in LAYER_COLUMNS}
    layer = validate_report(example_report(1))["layers"][0]
    missing = {key for key in layer if key != "adc_bits" and key not in keys}
    missing |= {key for key in layer["adc_bits"] if f"adc_bits_{key}" not in keys}
    assert missing == set()


def test_markdown_is_escaped_and_complete() -> None:
    report = small_report()
    report["layers"][0]["name"] = "a|b_<script>`x`"
    report["kept_in_torch"] = [{"name": "pool", "kind": "AvgPool2d", "reason": "no weights"}]
    text = markdown_report(validate_report(report), ["figures/bits.png", "figures/accuracy.png"])
    assert r"a\|b\_\<script\>\`x\`" in text
    assert "![ADC bits each weight slice needs" in text
    assert "](figures/accuracy.png)" in text
    assert "| pool | AvgPool2d | no weights |" in text
    assert "| conv2 | mse | 0.01 |" not in text  # the calibration's names are those of its records
    assert "| layer1.0.conv1 | mse | 0.01 |" in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    for table in tables:
        pipes = {line.replace("\\|", "").count("|") for line in table if line.startswith("|")}
        assert len(pipes) == 1


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("conv1", "conv1"),
        ("features.stage1.block12.conv1.depthwise", "feature~....~kkkkk"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("bad\udcff", "bad\\udcff"),
    ],
)
def test_shorten(name: str, shown: str) -> None:
    short = shorten(name)
    assert len(short) <= 30
    assert (short == shown) or (len(name) > 30 and short[:5] == name[:5] and short[-9:] == name[-9:] and "~" in short)


def test_names_from_files_cannot_command_the_terminal() -> None:
    report = small_report()
    report["network"]["checkpoint"] = "\x1b]0;owned\x07\udcff.pt"
    report["layers"][0]["name"] = "\x1b[2J"
    report["notes"] = ["\x9b31m"]
    for text in (text_report(report), markdown_report(report), layers_csv(report)):
        text.encode()
        assert all(character.isprintable() or character == "\n" for character in text)
    assert clean("é ok") == "é ok"
