"""``bitline compare``: its rows against runs and counts made another way, its files, and bad input."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

import bitline
from bitline.cli import main
from bitline.comparison import METHODS, compare
from bitline.conversion_search import DEFAULT_BUDGET
from bitline.errors import ConfigError, RangeError
from bitline.report.comparison_report import (
    comparison_csv,
    comparison_figure,
    comparison_markdown,
    comparison_text,
    wilson,
)
from bitline.report.figure_style import render

IMAGES = 4


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("compare") / "out"
    return compare(["digits_resnet20_cp16"], images=IMAGES, calibration_images=16, out=out), out


def _rows(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["method"]: row for row in report["rows"]}


def test_plain_row_is_what_simulate_says(compared: tuple[dict[str, Any], Path]) -> None:
    row = _rows(compared[0])["plain"]
    report = bitline.simulate("digits_resnet20_cp16", images=IMAGES, calibration_images=16, calibrator="auto")
    assert row["images"] == IMAGES
    assert row["simulated_top1"] == report["accuracy"]["simulated_top1"]
    assert row["identical_to_integer"] is report["accuracy"]["identical_to_integer"] is True
    assert row["adc_bits"] == row["bits_proven"] == report["certificate"]["adc_bits"]["weight_aware"]
    assert row["conversions"] * IMAGES == sum(layer["conversions"] for layer in report["layers"])
    assert row["comparisons"] * IMAGES == sum(
        layer["conversions"] // len(bits) * sum(bits)
        for layer in report["layers"]
        for bits in [layer["adc_bits"]["configured_per_slice"]]
    )
    assert row["adc_energy_uj"] == pytest.approx(report["breakdown"]["energy_by_event_uj"]["adc"])
    # 151 of 166 crossbars exist: fewer conversions than the run's are paid for
    assert row["adc_energy_uj"] < report["breakdown"]["energy_uj"]["adc"]
    assert row["crossbars"] == report["performance"]["crossbars"]
    assert row["area_mm2"] == pytest.approx(report["performance"]["area_mm2"])
    assert row["power_w"] == pytest.approx(report["performance"]["power_w"])
    assert row["columns"] == sum(
        layer["groups"] * layer["row_tiles"] * layer["columns"] * 4 * 2 for layer in report["layers"]
    )


def test_what_the_rows_claim(compared: tuple[dict[str, Any], Path]) -> None:
    rows = _rows(compared[0])
    assert list(rows) == list(METHODS)
    for name in ("isaac", "plain", "analog", "polarised", "early", "twin_range"):
        assert rows[name]["guarantee"] == "proven lossless"
        assert rows[name]["identical_to_integer"] is True
    assert rows["twin_range_lossy"]["guarantee"] in ("lossy", "measured lossless")
    assert 2 * rows["isaac"]["columns"] == rows["plain"]["columns"]
    assert 2 * rows["analog"]["conversions"] == rows["plain"]["conversions"]
    assert rows["plain"]["plain_energy_ratio"] == rows["isaac"]["first_energy_ratio"] == 1
    for name in ("early", "twin_range", "twin_range_lossy"):
        assert rows[name]["comparisons"] < rows["plain"]["comparisons"]
        assert rows[name]["plain_energy_ratio"] > 1
    # a fragment of 8 rows sums to at most 24, and a pruned one to less
    assert rows["polarised"]["bits_proven"] < rows["plain"]["bits_proven"] <= 5
    assert rows["polarised"]["columns"] < rows["plain"]["columns"]


def test_files_and_texts(compared: tuple[dict[str, Any], Path]) -> None:
    report, out = compared
    saved = json.loads((out / "report.json").read_text())
    assert saved["rows"] == json.loads(json.dumps(report["rows"]))
    lines = list(csv.DictReader(io.StringIO((out / "comparison.csv").read_text())))
    assert [line["method"] for line in lines] == list(METHODS)
    assert float(lines[1]["adc_energy_uj"]) == report["rows"][1]["adc_energy_uj"]
    assert (out / "figures" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    text = comparison_text(report)
    assert "1.6 to 2.3 times less ADC power" in text
    assert "proven lossless" in text
    assert "figures/comparison.png" in (out / "report.md").read_text()
    assert "## Methods" in comparison_markdown(report)
    assert comparison_csv(report).count("\n") == 1 + len(METHODS)


def test_a_row_without_labels_or_price_is_left_out_of_the_figure(compared: tuple[dict[str, Any], Path]) -> None:
    rows = [{**row, "simulated_top1": None, "adc_energy_uj": None} for row in compared[0]["rows"]]
    bare = {**compared[0], "rows": rows}
    assert render(comparison_figure(bare), "png")
    assert "-" in comparison_text(bare)


def test_figure_has_a_line_a_row_and_intervals(compared: tuple[dict[str, Any], Path]) -> None:
    report = compared[0]
    figure = comparison_figure(report)
    accuracy, energy, _ = figure.axes
    marks = [line for line in accuracy.lines if line.get_marker() == "o"]
    assert len({line.get_ydata()[0] for line in marks}) == len(report["rows"])  # none over another
    bars = [line for line in accuracy.lines if line.get_marker() == "None"]
    assert len(bars) == len(marks)
    # all of 4 right: Wilson's lower bound is n / (n + z^2) = 4 / (4 + 3.8415) = 51.01 %
    assert report["rows"][0]["simulated_top1"] == 1
    assert bars[0].get_xdata() == pytest.approx([51.01, 100], abs=0.01)
    assert len([line for line in energy.lines if line.get_marker() == "o"]) == len(report["rows"])
    # Newcombe, Statistics in Medicine 1998, table I, method 3
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_counting_conversions_alone_gives_the_same_rows(compared: tuple[dict[str, Any], Path]) -> None:
    """Without a search that needs the sums the fast kernel runs; and a checkpoint may have methods of its own."""
    few = compare(["digits_resnet20_cp16=early,plain"], images=IMAGES, calibration_images=16)
    assert list(few["methods"]) == ["plain", "early"]
    for name, row in _rows(few).items():
        assert {**row, "first_energy_ratio": 0} == {**_rows(compared[0])[name], "first_energy_ratio": 0}


def test_lossy_is_called_lossy() -> None:
    """A budget as large as the sums' own squares lets the far range go."""
    report = compare(
        ["digits_resnet20_cp16"], methods=["twin_range_lossy"], images=2, calibration_images=16, budget=0.5
    )
    (row,) = report["rows"]
    assert row["guarantee"] == "lossy"
    assert row["identical_to_integer"] is False


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"methods": ["sar"]}, ConfigError, "methods: unknown method 'sar'"),
        ({"checkpoints": []}, ConfigError, "checkpoints: at least one is needed"),
        ({"images": 501}, RangeError, r"images: must be 1\.\.500"),
        ({"fragment": 3}, ConfigError, "fragment must divide 128 rows, got 3"),
        ({"hw": "isaac_8bit"}, ConfigError, "methods start from the differential encoding"),
    ],
)
def test_bad_input(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compare(**{"checkpoints": ["digits_resnet20_cp16"], **changes})


def test_help_says_what_is_true(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"({DEFAULT_BUDGET:.4f})" in text
    assert ", ".join(METHODS) in text
    assert bitline.compare is compare


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--methods", "plain,early", "--images", "1", "--calibration-images", "16", "--json"]
    status = main(["compare", "digits_resnet20_cp16", *few])
    assert status == 0
    assert [row["method"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["plain", "early"]
    assert main(["compare", "no_such_file"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
