"""The YAML loader: what it reads is YAML 1.2's plain part, and what could unfold or mislead is refused at once."""

from __future__ import annotations

import re
import time
from importlib import resources
from pathlib import Path

import pytest
import yaml

import bitline
from bitline import load_hardware
from bitline.errors import ConfigError
from bitline.pruning.recipe import read_fields
from bitline.yaml_files import MAX_YAML_BYTES, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("128", 128),
        ("-5", -5),
        ("+7", 7),
        ("0", 0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("2.", 2.0),
        ("0.01", 0.01),
        ("1e-3", 0.001),  # text in YAML 1.1
        ("5.0e-4", 0.0005),
        ("-1E+2", -100.0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),  # a boolean in YAML 1.1
        ("on", "on"),
        ("Yes", "Yes"),
        ("2:08", "2:08"),  # 128 in YAML 1.1
        ("1_000", "1_000"),  # 1000 in YAML 1.1
        ("2001-12-14", "2001-12-14"),
        ("'0100'", "0100"),
        ('"&a"', "&a"),
        ("[1, x, 'y z']", [1, "x", "y z"]),
        ("{a: 1, 'b': {c: []}}", {"a": 1, "b": {"c": []}}),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_values_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = parse_yaml(f"key: {text}\n", "file")["key"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_text() -> None:
    assert parse_yaml("{0: a, on: b, 0100: c, null: d}", "file") == {"0": "a", "on": "b", "0100": "c", "null": "d"}


@pytest.mark.parametrize("folder", ["bitline.hwconfigs", "bitline.models"])
def test_shipped_files_mean_what_pyyaml_reads(folder: str) -> None:
    files = [entry for entry in resources.files(folder).iterdir() if entry.name.endswith(".yaml")]
    assert files
    for entry in files:
        text = entry.read_text("utf-8")
        assert parse_yaml(text, entry.name) == yaml.safe_load(text)


def _aliases(levels: int, field: str) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join([*lines, f"{field}: *a{levels - 1}\n"])


def _merges(levels: int) -> str:
    lines = ["m0: &m0 {k: 1}"]
    lines += [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}" for n in range(1, levels)]
    return "\n".join([*lines, f"<<: *m{levels - 1}\n"])


HOSTILE = {
    "alias bomb in encoding": (_aliases(9, "encoding"), "line 1: anchors and aliases"),
    "alias bomb in adc_scope": (_aliases(9, "adc_scope"), "line 1: anchors and aliases"),
    "alias bomb in solver": ("pruning:\n  solver: &a [x]\n  rate: *a\n", "line 2: anchors and aliases"),
    "merge bomb": (_merges(12), "line 1: anchors and aliases"),
    "alias without anchor": ("rows: *nothing\n", "line 1: anchors and aliases"),
    "recursive": ("&a [*a]\n", "anchors and aliases"),
    "merge key": ("<<: {rows: 64}\n", "line 1: merge keys"),
    "octal": ("columns: 128\nrows: 0100\n", "line 2: a leading zero may mean an octal number, got '0100'"),
    "octal of 1.2": ("rows: 0o100\n", "line 1: numbers are decimal, got '0o100'"),
    "hexadecimal": ("rows: 0x40\n", "line 1: numbers are decimal"),
    "binary": ("rows: 0b1000\n", "line 1: numbers are decimal"),
    "leading zero of a fraction": ("rho: 00.5\n", "line 1: a leading zero"),
    "infinite": ("rows: .inf\n", "line 1: numbers are finite"),
    "not a number": ("rows: .NaN\n", "line 1: numbers are finite"),
    "overflow": ("rows: 1e999\n", "line 1: numbers are finite"),
    "many digits": (f"rows: 1{'0' * 400}\n", "line 1: a number of more than 40 characters"),
    "too many digits for int": (f"rows: 1{'0' * 9000}\n", "line 1: a number of more than 40 characters"),
    "same key": ("rows: 1\nrows: 2\n", "line 2: key 'rows' is given twice"),
    "same key, quoted": ("rows: 1\n'rows': 2\n", "line 2: key 'rows' is given twice"),
    "same key below": ("chip:\n  adc: 1\n  adc: 2\n", "line 3: key 'adc' is given twice"),
    "tag": ("rows: !!python/object/apply:os.system [echo]\n", "line 1: tags are not read"),
    "harmless tag": ("rows: !!str 5\n", "line 1: tags are not read"),
    "own tag": ("rows: !x 5\n", "line 1: tags are not read"),
    "key is a list": ("? [a, b]\n: 1\n", "line 1: a key must be a name"),
    "two documents": ("rows: 1\n---\nrows: 2\n", "line 2: a second document"),
    "deep flow": ("a: " + "[" * 100_000, "line 1: nested more than 16 deep"),
    "deep braces": ("{a: " * 25_000, "line 1: nested more than 16 deep"),
    "deep blocks": ("\n".join(" " * n + "a:" for n in range(400)), "nested more than 16 deep"),
    "deep dashes": ("- " * 60_000, "nested more than 16 deep"),
    "many values": ("a: [" + "1," * 30_000 + "]", "more than 20000 values"),
    "too long": ("#" * (MAX_YAML_BYTES + 1), "larger than"),
    "list": ("- 1\n", "expected a mapping of fields, got list"),
    "nothing": ("# nothing\n", "expected a mapping of fields, got NoneType"),
    "control character": ("rows: \x1b[31m\n", "not valid YAML"),
    "not YAML": ("rows: [\n", "not valid YAML at line"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_unfolds_or_misleads_is_refused_in_a_second(tmp_path: Path, name: str) -> None:
    text, words = HOSTILE[name]
    path = tmp_path / "file.yaml"
    path.write_text(text)
    for read in (load_hardware, read_fields):
        start = time.process_time()
        with pytest.raises(ConfigError) as caught:
            read(path)
        assert time.process_time() - start < 1
        message = str(caught.value)
        assert words in message
        assert "file.yaml" in message
        assert "\n" not in message
        assert len(message) < 400


def test_text_that_looks_like_sixty_based_numbers_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("rows: 2:08\n")
    with pytest.raises(ConfigError, match="rows: must be an integer, got '2:08'"):
        load_hardware(path)


@pytest.mark.parametrize("text", ["name: no\n", "name: on\n", "name: y\n"])
def test_names_are_not_booleans(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    assert load_hardware(path).name == text.split(": ")[1].strip()


def test_no_other_module_loads_yaml() -> None:
    package = Path(bitline.__file__).parent
    loads = [
        path.name for path in package.rglob("*.py") if re.search(r"yaml\.(\w*load|parse)", path.read_text("utf-8"))
    ]
    assert loads == ["yaml_files.py"]
