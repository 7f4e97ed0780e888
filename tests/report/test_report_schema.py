"""report.json's schema: what it accepts, what it refuses and where it says the fault is."""

from __future__ import annotations

import copy
import json
from enum import StrEnum
from typing import Any

import numpy as np
import pytest
from report_examples import example_report

from bitline.errors import BitlineError
from bitline.report.schema import (
    Report,
    ReportError,
    comparison_column,
    dump_json,
    histogram_record,
    json_schema,
    to_plain,
    validate_report,
)

# What the contract promises, field by field: what every report must have
DESIGN = {
    "": "schema_version command provenance layers certificate accuracy performance breakdown normalised",
    "provenance": "version checkpoint_sha256 hardware_sha256 seed engine",
    "layers.0": "name kind rows columns groups row_tiles crossbars nonzeros_max adc_bits lossless max_column_sum "
    "conversions saturations macs",
    "layers.0.adc_bits": "configured equation paper weight_aware weight_aware_per_slice",
    "certificate": "lossless adc_bits",
    "certificate.adc_bits": "equation paper weight_aware",
    "accuracy": "images float_top1 integer_top1 simulated_top1 float_top5 integer_top5 simulated_top5 "
    "identical_to_integer",
    "performance": "cycles images_per_s latency_us energy_uj_per_image area_mm2 power_w gops_per_s_mm2 gops_per_w "
    "tiles crossbars replication",
    "breakdown": "area_mm2 power_w",
    "normalised": "area power",
}


def at(report: Any, path: str) -> Any:
    for part in path.split(".") if path else []:
        report = report[int(part)] if part.isdigit() else report[part]
    return report


@pytest.mark.parametrize("path", DESIGN)
def test_has_every_field_of_the_design(path: str) -> None:
    section = at(validate_report(example_report()), path)
    assert set(DESIGN[path].split()) <= set(section)


@pytest.mark.parametrize(
    "path", [path for path in DESIGN if path not in ("", "performance", "breakdown", "normalised")]
)
def test_every_design_field_is_required(path: str) -> None:
    for key in DESIGN[path].split():
        report = example_report()
        del at(report, path)[key]
        with pytest.raises(ReportError, match=rf"^report\.{path}\.{key}: Field required$"):
            validate_report(report)


@pytest.mark.parametrize(
    ("path", "key", "value", "message"),
    [
        ("", "schema_version", 2, "report.schema_version: .*less than or equal to 1, got 2"),
        ("", "typo", 1, "report.typo: unknown field, got 1"),
        ("layers.2", "rows", "8", "report.layers.2.rows: .*integer, got '8'"),
        ("layers.2", "rows", True, "report.layers.2.rows: .*integer, got True"),
        ("layers.1", "saturations", 10**12, r"report.layers.1: saturations: must be at most conversions \(2000000\)"),
        ("layers.0.adc_bits", "weight_aware_per_slice", [3, -1], "report.layers.0.adc_bits.weight_aware_per_slice.1: "),
        ("accuracy", "float_top1", 98.3, "report.accuracy.float_top1: .*less than or equal to 1, got 98.3"),
        ("breakdown", "area_mm2", {"ADC": float("nan")}, "report.breakdown.area_mm2.ADC: .*, got None"),
        ("provenance", "version", None, "report.provenance.version: .*string, got None"),
        ("network", "input_shape", object(), "report.network.input_shape: must be a JSON value, got object"),
        ("timing", "machine", {3: "x"}, "report.timing.machine: keys must be text, got 3"),
    ],
)
def test_refuses_with_the_path(path: str, key: str, value: Any, message: str) -> None:
    report = example_report()
    at(report, path)[key] = value
    with pytest.raises(ReportError, match=message) as caught:
        validate_report(report)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, BitlineError)


def test_chip_sections_may_be_null_or_left_out() -> None:
    report = example_report(chip=False)
    for key in ("performance", "breakdown", "normalised"):
        assert validate_report(report)[key] is None
        del report[key]
    full = validate_report(report)
    assert full["performance"] is full["breakdown"] is full["normalised"] is None


def test_numpy_enums_and_nan_become_plain_json() -> None:
    class Kind(StrEnum):
        CONV = "conv2d"

    report = example_report()
    before = validate_report(report)
    report["layers"][0]["rows"] = np.int64(report["layers"][0]["rows"])
    report["layers"][0]["kind"] = Kind.CONV
    report["layers"][0]["lossless"] = np.bool_(report["layers"][0]["lossless"])
    report["layers"][0]["adc_bits"]["weight_aware_per_slice"] = np.array(
        report["layers"][0]["adc_bits"]["weight_aware_per_slice"], np.int32
    )
    report["accuracy"]["float_top1"] = np.float64(report["accuracy"]["float_top1"])
    assert validate_report(report) == before
    report["accuracy"]["float_top5"] = np.float32("nan")
    report["calibration"][0]["error"] = float("inf")
    after = validate_report(report)
    assert after["accuracy"]["float_top5"] is None
    assert after["calibration"][0]["error"] is None
    assert type(after["layers"][0]["rows"]) is int
    assert type(after["layers"][0]["kind"]) is str


def test_input_is_not_changed_and_validation_is_idempotent() -> None:
    report = example_report()
    kept = copy.deepcopy(report)
    once = validate_report(report)
    assert report == kept
    assert validate_report(once) == once
    assert once["files"] == []


def test_dump_is_strict_json() -> None:
    text = dump_json({"a": float("nan"), "b": np.float32(0.5), "c": [np.int8(-3), (1, 2)], "d": "é"})
    assert json.loads(text, parse_constant=lambda word: pytest.fail(word)) == {
        "a": None, "b": 0.5, "c": [-3, [1, 2]], "d": "é",
    }  # fmt: skip
    assert text.endswith("}\n")
    assert to_plain(Report.model_validate(validate_report(example_report()))) == validate_report(example_report())


def test_not_a_mapping() -> None:
    with pytest.raises(ReportError, match="report: must be a mapping, got list"):
        validate_report([])  # type: ignore[arg-type]


def test_json_schema_describes_the_fields() -> None:
    schema = json_schema()
    assert {"command", "layers", "provenance"} <= set(schema["required"])
    assert "no input code vector saturates" in schema["$defs"]["Layer"]["properties"]["lossless"]["description"]


def test_histogram_record_splits_off_the_overflow_bin() -> None:
    record = histogram_record("conv1", np.array([5, 0, 3, 0, 0, 7]), adc_bits=3)
    assert record == {
        "layer": "conv1", "slice": None, "images": None, "adc_bits": 3, "full_scale": 7, "counts": [5, 0, 3],
        "overflow": 7,
    }  # fmt: skip
    assert histogram_record("conv1", [1], adc_bits=3, full_scale=3, slice_index=2)["full_scale"] == 3
    with pytest.raises(ReportError, match=r"histogram of conv1: must be a non-empty vector, got shape \(0,\)"):
        histogram_record("conv1", np.zeros(0, np.int64), adc_bits=3)


def test_comparison_column_comes_from_the_report() -> None:
    report = example_report(3)
    column = comparison_column("CP rate 16", report)
    assert column["name"] == "CP rate 16"
    assert column["conversions"] == 6_000_000  # 1 + 2 + 3 million
    assert column["adc_bits"] == 5
    assert column["nonzeros_max"] == 8
    assert column["power_w"] == 1.87
    report["layers"][1]["conversions"] = report["layers"][1]["saturations"] = None
    assert comparison_column("x", report)["conversions"] is None
    assert comparison_column("x", example_report(3, chip=False))["power_w"] is None
    assert validate_report(report | {"comparison": [column]})["comparison"] == [column]
