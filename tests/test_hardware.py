"""The hardware description: overrides, validation, one-line errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bitline
from bitline.errors import ConfigError
from bitline.hardware import Encoding, list_hardware


def test_shipped_descriptions_are_what_the_papers_say() -> None:
    # ISAAC: 16-bit numbers, flip encoding, 8-bit ADC, 128 x 128 crossbars of 2-bit cells, 1-bit DACs (Table I)
    isaac = bitline.load_hardware("isaac")
    assert (isaac.rows, isaac.columns, isaac.cell_bits, isaac.dac_bits) == (128, 128, 2, 1)
    assert (isaac.input_bits, isaac.weight_bits, isaac.adc_bits) == (16, 16, 8)
    assert isaac.encoding is Encoding.OFFSET_FLIP
    tinyadc = bitline.load_hardware("tinyadc")
    assert (tinyadc.input_bits, tinyadc.weight_bits, tinyadc.adc_bits) == (8, 8, "weight_aware")
    assert tinyadc.encoding is Encoding.DIFFERENTIAL
    assert {"isaac", "isaac_8bit", "tinyadc"} <= set(list_hardware())


def test_design_section_7_overrides() -> None:
    hw = bitline.load_hardware(
        "tinyadc",
        rows=100,
        columns=64,
        cell_bits=3,
        dac_bits=2,
        input_bits=5,
        weight_bits=9,
        encoding="differential",
        readout="analog",
        adc_bits=5,
    )
    assert (hw.rows, hw.columns, hw.cell_bits, hw.dac_bits) == (100, 64, 3, 2)
    assert (hw.input_cycles, hw.slices, hw.signs, hw.max_digit, hw.max_level) == (3, 3, 2, 3, 7)
    assert hw.weight_range == (-255, 255)
    assert hw.replace(encoding="offset", readout="digital").weight_range == (-256, 255)
    assert hw.input_range(True) == (-16, 15)
    assert bitline.load_hardware("tinyadc", rows=np.int64(64)).rows == 64


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"rows": 0}, ["rows", "1", "got 0"]),
        ({"rows": -5}, ["rows", "got -5"]),
        ({"rows": 2.0}, ["rows", "integer", "2.0"]),
        ({"rows": True}, ["rows", "boolean"]),
        ({"rows": "128"}, ["rows", "integer", "'128'"]),
        ({"cell_bits": 9}, ["cell_bits", "8", "got 9"]),
        ({"weight_bits": 1}, ["weight_bits", "2", "got 1"]),
        ({"input_bits": 17}, ["input_bits", "16", "got 17"]),
        ({"adc_bits": 17}, ["adc_bits", "1..16", "got 17"]),
        ({"adc_bits": 0}, ["adc_bits", "1..16", "got 0"]),
        ({"adc_bits": "guess"}, ["adc_bits", "equation", "paper", "weight_aware", "'guess'"]),
        ({"encoding": "unary"}, ["encoding", "differential", "'unary'"]),
        ({"row": 128}, ["row", "unknown key"]),
        ({"readout": "analog", "encoding": "offset"}, ["readout", "differential", "offset"]),
        ({"adc_bits": "paper", "rows": 64}, ["paper", "128 rows", "64 rows"]),
        ({"adc_bits": "paper", "active_rows": 64}, ["paper", "128 rows", "64 rows"]),
        ({"active_rows": 0}, ["active_rows", "1", "got 0"]),
        ({"active_rows": 48}, ["active_rows", "divide rows: 128", "got 48"]),
        ({"active_rows": 256}, ["active_rows", "divide rows: 128", "got 256"]),
        ({"active_rows": 2.0}, ["active_rows", "integer", "2.0"]),
    ],
)
def test_impossible_values_are_named(overrides: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        bitline.load_hardware("tinyadc", **overrides)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rows: [", ["not valid YAML", "line"]),
        ("- 1\n- 2\n", ["mapping", "list"]),
        ("", ["mapping", "NoneType"]),
        ("1: 2\n", ["1", "unknown key"]),
        ("rows: 128\nrowz: 1\n", ["rowz", "unknown key"]),
        ("rows: 1\nrows: 2\n", ["rows", "given twice"]),
        ('name: "a\\nb"\n', ["name"]),
        ("rows: !!python/object/apply:os.system [echo]\n", ["line 1", "tags"]),
        ("a: &a [x, x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\nrows: [*c, *c, *c, *c, *c]\n", ["line 1", "aliases"]),
    ],
)
def test_bad_files_give_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "chip.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        bitline.load_hardware(path)
    message = str(caught.value)
    assert "\n" not in message
    assert "chip.yaml" in message
    assert len(message) < 600
    for word in words:
        assert word in message


def test_missing_file_directory_and_binary(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file.*tinyadc"):
        bitline.load_hardware("nonsense")
    with pytest.raises(ConfigError, match="expected a regular file"):
        bitline.load_hardware(tmp_path)
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00rows")
    with pytest.raises(ConfigError, match=r"UTF-8|YAML"):
        bitline.load_hardware(tmp_path / "x.yaml")


def test_a_copied_file_is_the_shipped_one(tmp_path: Path) -> None:
    from importlib import resources

    text = resources.files("bitline.hwconfigs").joinpath("tinyadc.yaml").read_text("utf-8")
    (tmp_path / "mine.yaml").write_text(text)
    mine = bitline.load_hardware(tmp_path / "mine.yaml")
    assert mine == bitline.load_hardware("tinyadc")
    assert mine.sha256() == bitline.load_hardware("tinyadc").sha256()
    assert mine.replace(rows=64).sha256() != mine.sha256()


def test_a_description_cannot_be_changed() -> None:
    hw = bitline.load_hardware("tinyadc")
    with pytest.raises(ValueError, match="frozen"):
        hw.rows = 1  # type: ignore[misc]
