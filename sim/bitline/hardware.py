"""The typed, validated hardware description and its loader.

One YAML file in ``hwconfigs/`` (or anywhere) describes one design. Its keys are the field names below; the same names
are the keyword overrides of :func:`load_hardware`. Unknown keys, wrong types and impossible values are refused with
the path of the field, the rule and the value.
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
import reprlib
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from bitline.bounds import Bounded, Line
from bitline.chip_description import ChipDescription
from bitline.errors import ConfigError, RangeError
from bitline.input_files import STANDARD_INPUT, read_text
from bitline.paths import expanded
from bitline.yaml_files import MAX_YAML_BYTES, parse_yaml

__all__ = [
    "AdcPolicy",
    "AdcScope",
    "Digits",
    "Encoding",
    "Hardware",
    "Readout",
    "hardware_schema",
    "list_hardware",
    "load_hardware",
]


class Encoding(StrEnum):
    """How a signed weight is held in cells (docs/contract.md)."""

    DIFFERENTIAL = "differential"
    OFFSET = "offset"
    OFFSET_FLIP = "offset_flip"


class Readout(StrEnum):
    """How the two columns of a differential pair are read."""

    DIGITAL = "digital"
    ANALOG = "analog"


class Digits(StrEnum):
    """Which digits of a weight the two columns of a differential pair hold (docs/contract.md)."""

    MAGNITUDE = "magnitude"
    CANONICAL = "canonical"
    BALANCED = "balanced"


class AdcPolicy(StrEnum):
    """How an ADC resolution follows from the weights (docs/contract.md)."""

    EQUATION = "equation"
    PAPER = "paper"
    WEIGHT_AWARE = "weight_aware"


class AdcScope(StrEnum):
    """What shares one resolution when it follows from a policy."""

    CHIP = "chip"
    LAYER = "layer"
    SLICE = "slice"


def _integer(value: object) -> object:
    """Accept Python and NumPy integers, refuse booleans, floats and strings."""
    if isinstance(value, bool):
        raise ValueError("must be an integer, not a boolean")
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError("must be an integer") from None


def _adc_bits(value: object) -> object:
    if isinstance(value, str):
        try:
            return AdcPolicy(value)
        except ValueError:
            names = ", ".join(policy.value for policy in AdcPolicy)
            raise ValueError(f"must be an integer in 1..16 or one of {names}") from None
    number = _integer(value)
    if not 1 <= number <= 16:  # type: ignore[operator]
        raise ValueError("must be an integer in 1..16 or a policy")
    return number


AT_DEFAULT_LEFT_OUT = Field(exclude_if=lambda value: value is None)
"""Of a field that older descriptions lack: where it is none it is in no dump, so their hashes stay what they were."""


class Hardware(BaseModel):
    """A ReRAM crossbar accelerator: what the numbers depend on, and what the price depends on."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, validate_default=True
    )

    name: Annotated[Line, Field(min_length=1)] = "custom"
    """Name of the design, used in reports."""

    summary: Line = ""
    """One line on what the design is."""

    rows: Annotated[int, Bounded(1, 65536)] = 128
    """Word lines of a crossbar: the height of a row tile."""

    columns: Annotated[int, Bounded(1, 65536)] = 128
    """Bit lines of a crossbar (an offset encoding's unit column comes on top)."""

    active_rows: Annotated[Annotated[int, Bounded(1, 65536)] | None, AT_DEFAULT_LEFT_OUT] = None
    """Word lines switched on in one read, a divisor of ``rows``; none: all. A crossbar then takes ``rows /
    active_rows`` reads an input cycle, each conversion sums so many rows only, and the proof is about these sums."""

    cell_bits: Annotated[int, Bounded(1, 8)] = 2
    """Bits one ReRAM cell stores (w)."""

    dac_bits: Annotated[int, Bounded(1, 16)] = 1
    """Input bits applied in one cycle (v)."""

    input_bits: Annotated[int, Bounded(1, 16)] = 8
    """Bits of an activation code (a)."""

    weight_bits: Annotated[int, Bounded(2, 16)] = 8
    """Bits of a signed weight code (b)."""

    encoding: Encoding = Encoding.DIFFERENTIAL
    """How signed weights are held in cells."""

    digits: Annotated[Digits, Field(exclude_if=lambda value: value == "magnitude")] = Digits.MAGNITUDE
    """Digits of a differential pair: those of the magnitude, all of the weight's sign; signed ones of least sum; or
    signed ones that balance the sums of each column, so that it needs fewer ADC bits."""

    readout: Readout = Readout.DIGITAL
    """Digital: every column is converted. Analog: a differential pair's difference is converted once."""

    adc_bits: Annotated[int | AdcPolicy, BeforeValidator(_adc_bits)] = AdcPolicy.WEIGHT_AWARE
    """ADC resolution: a number of bits (1..16), or a policy that finds it from the weights."""

    adc_scope: AdcScope = AdcScope.LAYER
    """What shares one resolution when ``adc_bits`` is a policy."""

    chip: ChipDescription | None = None
    """The physical half: hierarchy, components, timing and ADC, each number with its source. Needed for the price."""

    @model_validator(mode="after")
    def _consistent(self) -> Hardware:
        if self.readout is Readout.ANALOG and self.encoding is not Encoding.DIFFERENTIAL:
            raise ValueError(f"readout: analog needs encoding: differential, not {self.encoding.value}")
        if self.digits is not Digits.MAGNITUDE and self.encoding is not Encoding.DIFFERENTIAL:
            raise ValueError(f"digits: {self.digits.value} needs encoding: differential, not {self.encoding.value}")
        if self.chip is not None and self.chip.adc.table and isinstance(self.adc_bits, int):
            try:
                self.chip.adc.point(self.adc_bits)
            except RangeError as error:
                raise ValueError(f"adc_bits: {error}") from None
        if self.active_rows is not None and self.rows % self.active_rows:
            raise ValueError(f"active_rows: must divide rows: {self.rows}, got {self.active_rows}")
        if self.adc_bits is AdcPolicy.PAPER and (self.read_rows, self.cell_bits, self.dac_bits) != (128, 2, 1):
            raise ValueError(
                "adc_bits: paper is defined for 128 rows a read, cell_bits: 2, dac_bits: 1 only, "
                f"not {self.read_rows} rows, cell_bits: {self.cell_bits}, dac_bits: {self.dac_bits}"
            )
        return self

    @property
    def read_rows(self) -> int:
        """Rows whose cells one conversion sums, and the height of a row tile in the numbers and in the proof."""
        return self.rows if self.active_rows is None else self.active_rows

    @property
    def input_cycles(self) -> int:
        """Input cycles of one pass, ``ceil(a / v)``."""
        return -(-self.input_bits // self.dac_bits)

    def input_passes(self, signed: bool) -> int:
        """Passes over the input digits: 2 for signed inputs with several bits a cycle (each sign by itself), else 1."""
        return 2 if signed and self.dac_bits > 1 else 1

    @property
    def slices(self) -> int:
        """Weight slices: ``ceil((b - 1) / w)`` for differential, ``ceil(b / w)`` for the offset encodings."""
        bits = self.weight_bits - 1 if self.encoding is Encoding.DIFFERENTIAL else self.weight_bits
        return -(-bits // self.cell_bits)

    @property
    def signs(self) -> int:
        """Physical columns per slice and output: 2 (positive, negative) for differential, else 1."""
        return 2 if self.encoding is Encoding.DIFFERENTIAL else 1

    @property
    def max_digit(self) -> int:
        """Largest input digit applied to a row in one cycle, ``2^min(v, a) - 1``."""
        return (1 << min(self.dac_bits, self.input_bits)) - 1

    @property
    def max_level(self) -> int:
        """Largest cell level, ``2^w - 1``."""
        return (1 << self.cell_bits) - 1

    @property
    def weight_range(self) -> tuple[int, int]:
        """Smallest and largest weight code the encoding holds."""
        high = (1 << (self.weight_bits - 1)) - 1
        return (-high if self.encoding is Encoding.DIFFERENTIAL else -high - 1), high

    def equation_bits(self, rows: int) -> int:
        """TinyADC's Eq. (1) for so many rows that hold something: ``ceil(v + w + log2 r)``.

        It is 1 less unless ``v > 1`` and ``w > 1``. No rows need no bits. With analog readout the difference needs one
        more, for the sign, that it does not count.
        """
        if rows == 0:
            return 0
        bits = self.dac_bits + self.cell_bits + (rows - 1).bit_length()
        return bits if self.dac_bits > 1 and self.cell_bits > 1 else bits - 1

    @property
    def full_column_bits(self) -> int:
        """ADC bits that hold the sum of any column, whatever the weights: all cells full, all digits largest.

        A complemented column holds at most half of that, or its unit column's sum; an analog difference has a sign.
        """
        cells = self.read_rows * self.max_level
        if self.encoding is Encoding.OFFSET_FLIP:
            cells = max(cells // 2, self.read_rows)
        bits = (cells * self.max_digit).bit_length()
        return bits + 1 if self.readout is Readout.ANALOG else bits

    def input_range(self, signed: bool) -> tuple[int, int]:
        """Smallest and largest activation code."""
        if signed:
            return -(1 << (self.input_bits - 1)), (1 << (self.input_bits - 1)) - 1
        return 0, (1 << self.input_bits) - 1

    def replace(self, **overrides: Any) -> Hardware:
        """Return a copy with fields replaced, validated again.

        Raises
        ------
        ConfigError
            An unknown field or an impossible value.
        """
        return _validate({**self.model_dump(), **overrides}, self.name)

    def sha256(self) -> str:
        """Hash of the description: of its canonical JSON, so comments and key order do not matter."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _one_line(value: object, limit: int = 60) -> str:
    text = " ".join(reprlib.repr(value).split())  # reprlib: a YAML alias bomb must not unfold here
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _validate(fields: dict[str, Any], where: str) -> Hardware:
    try:
        return Hardware.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        # pydantic names the members of a union in the path; a user only knows the fields
        path = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "missing":
            raise ConfigError(f"hardware {where}: {path}: required, but missing") from None
        if first["type"] == "extra_forbidden":
            known = ", ".join(Hardware.model_fields)
            message = f"unknown key (known here: {known})" if len(first["loc"]) == 1 else "unknown key"
            raise ConfigError(f"hardware {where}: {path}: {message}") from None
        found = first.get("ctx", {})
        if "at" in found:  # a bound on the value of a figure (bitline.bounds)
            path, first["input"] = f"{path}.{found['at']}", found["got"]
        got = f", got {_one_line(first['input'])}" if path else ""
        raise ConfigError(f"hardware {where}: {path + ': ' if path else ''}{message}{got}") from None


def hardware_schema() -> dict[str, Any]:
    """Return the JSON schema of a hardware description, for editors that complete and check YAML."""
    schema = Hardware.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def list_hardware() -> list[str]:
    """Names of the hardware descriptions that ship with Bitline."""
    folder = resources.files("bitline.hwconfigs")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def _read(name_or_path: str | Path) -> tuple[str, str]:
    """Return the text of a description and what to call it in messages."""
    text = str(name_or_path)
    if text in list_hardware():
        return resources.files("bitline.hwconfigs").joinpath(f"{text}.yaml").read_text("utf-8"), text
    if text != STANDARD_INPUT and not os.path.lexists(expanded(text)):
        shipped = ", ".join(list_hardware())
        raise ConfigError(f"hardware {text}: no such file, and not a shipped description ({shipped})")
    return read_text(text, "hardware", MAX_YAML_BYTES), text


def load_hardware(name_or_path: str | Path = "tinyadc", **overrides: Any) -> Hardware:
    """Load a hardware description and validate it.

    Parameters
    ----------
    name_or_path : str or Path
        A shipped name (``bitline hw list``), the path of a YAML file, or ``-`` for standard input.
    **overrides
        Fields of :class:`Hardware` that replace those of the file.

    Returns
    -------
    Hardware
        Frozen and validated.

    Raises
    ------
    ConfigError
        Missing or unreadable file, YAML that does not parse, unknown key, wrong type, impossible value.
    """
    text, where = _read(name_or_path)
    fields = parse_yaml(text, f"hardware {where}")
    fields.setdefault("name", "custom" if where == STANDARD_INPUT else Path(where).stem)
    return _validate({**fields, **overrides}, where)
