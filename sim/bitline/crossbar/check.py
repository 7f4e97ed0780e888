"""Re-check a certificate file in plain NumPy, sharing no code with the prover but the loader of weights and hardware.

Written from docs/contract.md: digits of the codes by integer division, sums by ``sum``, bits by comparing with powers
of two. The whole certificate is derived again from the weight codes and the hardware description it names, down to
which of several equal columns is written and to the bytes of the file, so a reader sees nothing that was not checked.
The hardware description itself is the premise, not a claim: its hash says which one it is. So are signed digits, which
the file lists: they are checked to write the weights.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitline.errors import BitlineError, ConfigError
from bitline.hardware import Hardware
from bitline.layers import MatrixLayer

__all__ = [
    "canonical_bytes",
    "certified_hardware",
    "certified_shape",
    "check_certificate",
    "derive_certificate",
    "parse_certificate",
]

_FORMAT = "bitline-certificate-2"
_CLAIM = "a layer marked lossless saturates for no code vector at its matrix; a refuted one does for its witness"


def parse_certificate(content: bytes) -> Any:
    """The document in a certificate file's bytes, whose every key is there once and every number finite.

    Raises
    ------
    ConfigError
        No JSON, a key given twice (readers differ in which of the two they take), NaN or Infinity.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"certificate: key {_short(twice)} is given twice")
        return found

    def no_constant(name: str) -> Any:
        raise ConfigError(f"certificate: {name} is not a number JSON has")

    try:
        return json.loads(content, object_pairs_hook=once, parse_constant=no_constant)
    except ConfigError:
        raise
    except (ValueError, RecursionError):
        raise ConfigError("certificate: not a JSON document, expected a bitline certificate") from None


def canonical_bytes(document: Any) -> bytes:
    """The one form of a certificate's file: JSON in ASCII, indented by two, keys in their order, a final newline."""
    return (json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def certified_hardware(document: Any) -> Hardware:
    """The hardware description a certificate carries.

    Raises
    ------
    ConfigError
        The document is not a certificate, or its hardware is not a valid description.
    """
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        found = document.get("format") if isinstance(document, dict) else None
        older = f", found {_short(found)}: write it again with bitline certify" if isinstance(found, str) else ""
        raise ConfigError(f"certificate: expected a JSON object with format {_FORMAT!r}{older}")
    fields = document.get("hardware")
    if not isinstance(fields, dict):
        raise ConfigError("certificate: hardware: expected a mapping of fields")
    try:
        return Hardware().replace(**fields)
    except BitlineError as error:
        raise ConfigError(f"certificate: {error}") from None


def check_certificate(
    document: Any,
    layers: Sequence[MatrixLayer],
    *,
    checkpoint_sha256: str | None = None,
    coverage: dict[str, Any] | None = None,
    content: bytes | None = None,
) -> list[str]:
    """Compare a certificate with the one that the weights give.

    Parameters
    ----------
    document : dict
        A parsed certificate file (:func:`parse_certificate`).
    layers : sequence of MatrixLayer
        The network's layers, loaded with the hardware the certificate names (:func:`certified_hardware`).
    checkpoint_sha256 : str, optional
        Hash of the checkpoint; what the document says is taken where there is none.
    coverage : dict, optional
        How much of the network is on crossbars, as the file should say; None where the layers are not a network's.
    content : bytes, optional
        The file's bytes, to be compared too.

    Returns
    -------
    list of str
        One line for each disagreement; empty if the certificate holds.

    Raises
    ------
    ConfigError
        The document is not a certificate.
    """
    hw = certified_hardware(document)
    sha256 = document.get("checkpoint_sha256") if checkpoint_sha256 is None else checkpoint_sha256
    try:
        digits = _listed_digits(document, layers, hw)
    except _NotDigits as error:
        return [str(error)]
    shape = None if coverage is None else certified_shape(document)
    expected = derive_certificate(layers, hw, sha256, digits, input_shape=shape, coverage=coverage)
    complaints = list(_differences(document, expected, ""))
    if content is not None and not complaints:
        wanted = canonical_bytes(expected)
        if content != wanted:
            at = next((n for n, (a, b) in enumerate(zip(content, wanted, strict=False)) if a != b), len(wanted))
            line = wanted[:at].count(b"\n") + 1
            complaints.append(f"line {line}: not in the form that bitline certify writes (blanks, order, notation)")
    return complaints


def certified_shape(document: Any) -> tuple[int, ...] | None:
    """The shape of an input that a certificate's weights and counts are for; None where it states none.

    Raises
    ------
    ConfigError
        The document states something else.
    """
    shape = document.get("input_shape") if isinstance(document, dict) else None
    if shape is None:
        return None
    numbers = isinstance(shape, list) and all(type(size) is int and 1 <= size <= 1 << 20 for size in shape)
    if not numbers or not 1 <= len(shape) <= 8 or math.prod(shape) > 1 << 26:
        raise ConfigError(f"certificate: input_shape: expected the sizes of one input, found {_short(shape)}")
    return tuple(shape)


def derive_certificate(
    layers: Sequence[MatrixLayer],
    hw: Hardware,
    checkpoint_sha256: str | None,
    digits: Sequence[NDArray[np.int64]] | None = None,
    *,
    input_shape: tuple[int, ...] | None = None,
    coverage: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The certificate of these weights, derived without the prover.

    Parameters
    ----------
    digits : sequence of ndarray [shape=(S, G, K, N), int64], optional
        Signed digits that the cells hold, one array a layer; by default those of the magnitudes.
    input_shape, coverage : optional
        What the file states of the network: a premise, and what the caller derived again.
    """
    chosen: Sequence[NDArray[np.int64] | None] = [None] * len(layers) if digits is None else digits
    sums = [_measure(layer, hw, mine) for layer, mine in zip(layers, chosen, strict=True)]
    counts = [_counts(layer, measured, hw) for layer, measured in zip(layers, sums, strict=True)]
    configured = _configured(counts, hw)
    entries = [
        _layer(layer, measured, count, bits, hw, mine)
        for layer, measured, count, bits, mine in zip(layers, sums, counts, configured, chosen, strict=True)
    ]
    papers = [count["paper"] for count in counts if count["paper"] is not None]
    return {
        "format": _FORMAT,
        "claim": _CLAIM,
        "checkpoint_sha256": checkpoint_sha256,
        "hardware": hw.model_dump(mode="json"),
        "hardware_sha256": hw.sha256(),
        "lossless": all(entry["lossless"] for entry in entries),
        "adc_bits": {
            "equation": max((count["equation"] for count in counts), default=0),
            "paper": max(papers, default=None),
            "weight_aware": max((count["weight_aware"] for count in counts), default=0),
        },
        "input_shape": None if input_shape is None else list(input_shape),
        "coverage": coverage,
        "layers": entries,
    }


# --- comparing ----------------------------------------------------------------------------------------------------


def _differences(claimed: Any, found: Any, path: str) -> Iterator[str]:
    """One line for each value that differs, in type too, and for each key or item that is not on both sides."""
    if type(claimed) is not type(found):
        yield f"{path}: the certificate says {_short(claimed)}, the weights give {_short(found)}"
    elif isinstance(found, dict):
        for key in found:
            inside = f"{path}: {key}" if path else key
            if key not in claimed:
                yield f"{inside}: missing from the certificate, the weights give {_short(found[key])}"
            else:
                yield from _differences(claimed[key], found[key], inside)
        for key in claimed:
            if key not in found:
                yield f"{path + ': ' if path else ''}{_short(key)}: not part of a certificate, nothing checks it"
    elif isinstance(found, list):
        if len(claimed) != len(found):
            yield f"{path}: the certificate has {len(claimed)} entries, the weights give {len(found)}"
            return
        for number, (one, other) in enumerate(zip(claimed, found, strict=True)):
            yield from _differences(one, other, _item(path, number, other))
    elif claimed != found:
        if isinstance(found, str):  # of long texts, where they part
            pairs = enumerate(zip(claimed, found, strict=False))
            parted = next((n for n, (one, other) in pairs if one != other), min(len(claimed), len(found)))
            start = max(0, parted - 20)
            claimed, found = claimed[start:], found[start:]
        yield f"{path}: the certificate says {_short(claimed)}, the weights give {_short(found)}"


def _item(path: str, number: int, entry: Any) -> str:
    """What to call an entry of a list: a layer by its name, a record by its place."""
    if isinstance(entry, dict) and path == "layers":
        return f"layer {entry['name']}"
    if isinstance(entry, dict) and "max_sum" in entry:
        return f"{path}: tile {entry['tile']} slice {entry['slice']} {entry['sign']}"
    return f"{path}[{number}]"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# --- signed digits ------------------------------------------------------------------------------------------------


class _NotDigits(Exception):
    """What a certificate lists are not digits of the weights."""


def _listed_digits(
    document: dict[str, Any], layers: Sequence[MatrixLayer], hw: Hardware
) -> list[NDArray[np.int64]] | None:
    """The digits that the cells hold, from the carries that a certificate lists; None where they are magnitudes'.

    The digits are what the file says how to program, not a claim: any that write the weights will do for a proof. That
    they write the weights is checked here, and for ``canonical`` that no others have a smaller sum.
    """
    if hw.digits.value == "magnitude":
        return None
    entries = document.get("layers")
    if not isinstance(entries, list) or len(entries) != len(layers):
        raise _NotDigits(f"layers: expected {len(layers)} entries with carries")
    found = []
    for entry, layer in zip(entries, layers, strict=True):
        text = entry.get("carries") if isinstance(entry, dict) else None
        try:
            packed = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
        except ValueError:
            packed = b""
        found.append(_digits_of_carries(packed, layer, hw))
    return found


def _digits_of_carries(packed: bytes, layer: MatrixLayer, hw: Hardware) -> NDArray[np.int64]:
    """Digits [shape=(S, G, K, N)]: a slice holds its plain digit and the carry into it, less the base if it carries."""
    base, slices = 2**hw.cell_bits, _slices(hw)
    count = (slices - 1) * layer.codes.size
    if len(packed) != -(-count // 8):
        raise _NotDigits(f"layer {layer.name}: carries: expected {count} bits in base64")
    bits = np.unpackbits(np.frombuffer(packed, np.uint8))
    if bits[count:].any():
        raise _NotDigits(f"layer {layer.name}: carries: more than {count} bits are set")
    inner = bits[:count].reshape(slices - 1, *layer.codes.shape).astype(np.int64)
    nothing = np.zeros((1, *layer.codes.shape), np.int64)
    carries = np.concatenate([nothing, inner, nothing])
    magnitudes = np.abs(layer.codes.astype(np.int64))
    digits = np.stack([magnitudes // base**j % base + carries[j] - base * carries[j + 1] for j in range(slices)])
    written = sum(digits[j] * base**j for j in range(slices))
    if (np.abs(digits) >= base).any() or (written != magnitudes).any():
        raise _NotDigits(f"layer {layer.name}: carries: these are not digits of the weights")
    if hw.digits.value == "canonical" and (np.abs(digits).sum(axis=0) != _least_sums(magnitudes, base, slices)).any():
        raise _NotDigits(f"layer {layer.name}: carries: other digits of the weights have a smaller sum")
    return digits * np.sign(layer.codes.astype(np.int64))


def _least_sums(magnitudes: NDArray[np.int64], base: int, slices: int) -> NDArray[np.int64]:
    """Least sum of digits' magnitudes, from the lowest slice up: what is left is either rounded down or up."""
    values = np.arange(int(magnitudes.max(initial=0)) + 2)
    least = np.where(values == 0, 0, np.int64(1) << 40)  # no slice is left
    for _ in range(slices):
        low = values % base
        up = np.minimum((values + base - low) // base, values[-1])
        least = np.minimum(low + least[values // base], np.where(low > 0, base - low + least[up], np.int64(1) << 40))
    return np.asarray(least[magnitudes])


def _carries_text(codes: NDArray[np.int32], digits: NDArray[np.int64], hw: Hardware) -> str:
    """The carries into slices 1, 2, ... as bits, weight by weight in C order, packed and in base64."""
    base = 2**hw.cell_bits
    magnitudes, signs = np.abs(codes.astype(np.int64)), np.sign(codes.astype(np.int64))
    carry, carries = np.zeros_like(magnitudes), []
    for j in range(_slices(hw) - 1):
        carry = (magnitudes // base**j % base + carry - digits[j] * signs) // base
        carries.append(carry)
    bits = np.stack(carries).astype(np.uint8).ravel() if carries else np.zeros(0, np.uint8)
    return base64.b64encode(np.packbits(bits).tobytes()).decode("ascii")


# --- deriving -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Measured:
    """The largest sums of one layer's columns."""

    sums: dict[tuple[int, int, str], NDArray[np.int64]]
    """By row tile, slice and sign [shape=(groups, columns)]."""
    units: dict[int, int]
    """By row tile, of the unit column; empty without one."""
    nonzeros_max: int

    def worst(self, tile: int, j: int, sign: str) -> int:
        return int(self.sums[tile, j, sign].max(initial=0))


def _rows_a_read(hw: Hardware) -> int:
    """Rows whose cells one conversion sums: those switched on together, in a crossbar of so many."""
    return hw.rows if hw.active_rows is None else min(hw.rows, hw.active_rows)


def _tiles(layer: MatrixLayer, hw: Hardware) -> list[slice]:
    height = _rows_a_read(hw)
    return [slice(start, min(layer.rows, start + height)) for start in range(0, layer.rows, height)]


def _signs(hw: Hardware) -> list[str]:
    return ["positive", "negative"] if hw.encoding.value == "differential" else ["offset"]


def _slices(hw: Hardware) -> int:
    bits = hw.weight_bits - 1 if hw.encoding.value == "differential" else hw.weight_bits
    return -(-bits // hw.cell_bits)


def _levels(
    codes: NDArray[np.int32], sign: str, hw: Hardware, digits: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Cell levels [shape=(S, rows, columns)] of the rows of one tile, whose weights may have digits of their own."""
    if digits is not None:
        return np.where(digits > 0, digits, 0) if sign == "positive" else np.where(digits < 0, -digits, 0)
    wide = codes.astype(np.int64)
    if sign == "positive":
        part = np.where(wide > 0, wide, 0)
    elif sign == "negative":
        part = np.where(wide < 0, -wide, 0)
    else:
        part = wide + 2 ** (hw.weight_bits - 1)
    base = 2**hw.cell_bits
    levels = np.stack([part // base**j % base for j in range(_slices(hw))])
    if hw.encoding.value == "offset_flip":  # more than half of the largest sum: stored complemented
        heavy = 2 * levels.sum(axis=1, keepdims=True) > (base - 1) * codes.shape[0]
        levels = np.where(heavy, base - 1 - levels, levels)
    return levels


def _largest_digit(hw: Hardware, signed: bool) -> int:
    """Largest digit over all codes, by writing the extreme codes' digits down."""
    if signed and hw.dac_bits > 1:
        return max(_digits(2 ** (hw.input_bits - 1), hw), _digits(max(2 ** (hw.input_bits - 1) - 1, 0), hw))
    return _digits(2**hw.input_bits - 1, hw)


def _digits(magnitude: int, hw: Hardware) -> int:
    """The largest of a magnitude's digits."""
    base = 2**hw.dac_bits
    return max(int(magnitude // base**i % base) for i in range(-(-hw.input_bits // hw.dac_bits)))


def _measure(layer: MatrixLayer, hw: Hardware, digits: NDArray[np.int64] | None) -> _Measured:
    digit = _largest_digit(hw, layer.signed_inputs)
    sums: dict[tuple[int, int, str], NDArray[np.int64]] = {}
    units: dict[int, int] = {}
    nonzeros_max = 0
    for tile, part in enumerate(_tiles(layer, hw)):
        nonzeros_max = max(nonzeros_max, int((layer.codes[:, part] != 0).sum(axis=1).max(initial=0)))
        for sign in _signs(hw):
            by_group = []
            for g in range(layer.groups):
                mine = None if digits is None else digits[:, g, part]
                by_group.append(_levels(layer.codes[g, part], sign, hw, mine).sum(axis=1) * digit)
            for j in range(_slices(hw)):
                sums[tile, j, sign] = np.stack([group[j] for group in by_group])
        if hw.encoding.value != "differential":
            units[tile] = (part.stop - part.start) * digit
    return _Measured(sums, units, nonzeros_max)


def _top(bits: int, sign: str, hw: Hardware) -> int:
    """Largest sum that so many bits hold."""
    if hw.readout.value == "analog":
        half: int = 2 ** (bits - 1)
        return half - 1 if sign == "positive" else half
    largest: int = 2**bits - 1
    return largest


def _bits_for(total: int, sign: str, hw: Hardware) -> int:
    """Smallest number of bits whose code range holds the sum (0 for an empty column)."""
    bits = 0
    while total > (_top(bits, sign, hw) if bits else 0):
        bits += 1
    return bits


def _counts(layer: MatrixLayer, measured: _Measured, hw: Hardware) -> dict[str, Any]:
    """The counts of docs/contract.md that need no configured resolution."""
    per_slice = [
        max((_bits_for(measured.worst(t, k, sign), sign, hw) for t, k, sign in measured.sums if k == j), default=0)
        for j in range(_slices(hw))
    ]
    has_unit = hw.encoding.value != "differential"
    unit = max((_bits_for(total, "unit", hw) for total in measured.units.values()), default=0)
    r = min(_rows_a_read(hw), layer.rows) if has_unit else measured.nonzeros_max
    equation = 0
    if r:
        # ceil(v + w + log2 r): the smallest integer e with 2^(e - v - w) >= r
        while 2**equation < r * 2 ** (hw.dac_bits + hw.cell_bits):
            equation += 1
        equation -= 0 if hw.dac_bits > 1 and hw.cell_bits > 1 else 1
    paper: int | None = None
    if (_rows_a_read(hw), hw.cell_bits, hw.dac_bits) == (128, 2, 1):
        paper = 0
        while measured.nonzeros_max and 2 ** (paper - 8) * 128 < measured.nonzeros_max:
            paper += 1
    return {
        "equation": equation,
        "paper": paper,
        "weight_aware": max([*per_slice, unit]),
        "weight_aware_per_slice": per_slice,
        "weight_aware_unit": unit if has_unit else None,
    }


def _configured(counts: Sequence[dict[str, Any]], hw: Hardware) -> list[tuple[list[int], int | None]]:
    """Resolutions by slice and of the unit column, of every layer: the hardware's number, or what its policy gives."""
    policy = hw.adc_bits if isinstance(hw.adc_bits, int) else hw.adc_bits.value
    has_unit = hw.encoding.value != "differential"
    found = []
    for count in counts:
        if isinstance(policy, int):
            number = policy
        elif policy == "weight_aware" and hw.adc_scope.value == "slice":
            unit = max(1, count["weight_aware_unit"]) if has_unit else None
            found.append(([max(1, bits) for bits in count["weight_aware_per_slice"]], unit))
            continue
        elif hw.adc_scope.value == "chip":
            number = max(1, *(other[policy] or 0 for other in counts))
        else:
            number = max(1, count[policy] or 0)
        found.append(([number] * _slices(hw), number if has_unit else None))
    return found


def _layer(
    layer: MatrixLayer,
    measured: _Measured,
    counts: dict[str, Any],
    bits: tuple[list[int], int | None],
    hw: Hardware,
    digits: NDArray[np.int64] | None,
) -> dict[str, Any]:
    """One layer's entry."""
    per_slice, unit_bits = bits
    digest = hashlib.sha256(repr((layer.groups, layer.rows, layer.columns)).encode())
    digest.update(np.ascontiguousarray(layer.codes, dtype="<i4").tobytes())
    records = []
    refuted = 0
    for tile in range(len(_tiles(layer, hw))):
        for j, configured in enumerate(per_slice):
            over = [measured.sums[tile, j, sign] > _top(configured, sign, hw) for sign in _signs(hw)]
            # an analog pair is converted once, so it counts as one refuted column
            refuted += int(np.any(over, axis=0).sum() if hw.readout.value == "analog" else np.sum(over))
            for sign in _signs(hw):
                records.append(_record(tile, j, sign, measured, configured, hw))
        if unit_bits is not None:
            total = measured.units[tile]
            records.append(_entry(tile, None, "unit", 0, None, total, unit_bits, hw))
            refuted += layer.groups * (total > _top(unit_bits, "unit", hw))
    return {
        "name": layer.name,
        "kind": layer.kind.value,
        "groups": layer.groups,
        "rows": layer.rows,
        "columns": layer.columns,
        "row_tiles": len(_tiles(layer, hw)),
        "signed_inputs": layer.signed_inputs,
        "weights_sha256": digest.hexdigest(),
        "nonzeros": int((layer.codes != 0).sum()),
        "nonzeros_max": measured.nonzeros_max,
        "cp_rate": None if measured.nonzeros_max == 0 else _rows_a_read(hw) / measured.nonzeros_max,
        "adc_bits": {
            "configured": max([*per_slice, unit_bits or 0]),
            "configured_per_slice": per_slice,
            "configured_unit": unit_bits,
            **counts,
        },
        "lossless": refuted == 0,
        "max_column_sum": max((record["max_sum"] for record in records), default=0),
        "refuted_columns": refuted,
        "columns_worst": records,
        "witness": _witness(layer, records, hw, digits),
        **({} if digits is None else {"carries": _carries_text(layer.codes, digits, hw)}),
    }


def _record(tile: int, j: int, sign: str, measured: _Measured, configured: int, hw: Hardware) -> dict[str, Any]:
    """The worst column of a row tile, slice and sign: of several, the one of the first group, then the first output."""
    sums = measured.sums[tile, j, sign]
    worst = measured.worst(tile, j, sign)
    group, column = (int(place[0]) for place in np.nonzero(sums == worst)) if sums.size else (0, 0)
    return _entry(tile, j, sign, group, column, worst, configured, hw)


def _entry(
    tile: int, j: int | None, sign: str, group: int, column: int | None, total: int, configured: int, hw: Hardware
) -> dict[str, Any]:
    needed = _bits_for(total, sign, hw)
    return {
        "tile": tile,
        "slice": j,
        "sign": sign,
        "group": group,
        "column": column,
        "max_sum": total,
        "bits": needed,
        "configured": configured,
        "lossless": needed <= configured,
    }


def _witness(
    layer: MatrixLayer, records: Sequence[dict[str, Any]], hw: Hardware, digits: NDArray[np.int64] | None
) -> dict[str, Any] | None:
    """Rows and the code that drive the worst refuted column past its range, by what that column then sums to."""
    refuted = [record for record in records if not record["lossless"]]
    if not refuted:
        return None
    worst = max(refuted, key=lambda record: (record["bits"] - record["configured"], record["max_sum"]))
    part = _tiles(layer, hw)[worst["tile"]]
    if worst["slice"] is None:
        levels = np.ones(part.stop - part.start, np.int64)
    else:
        mine = None if digits is None else digits[:, worst["group"], part]
        cells = _levels(layer.codes[worst["group"], part], worst["sign"], hw, mine)
        levels = cells[worst["slice"], :, worst["column"]]
    code = _driving_code(layer.signed_inputs, hw)
    magnitude = abs(code) if hw.dac_bits > 1 else code % 2**hw.input_bits
    total = int(levels.sum()) * _digits(magnitude, hw)
    if total <= _top(worst["configured"], worst["sign"], hw):
        raise AssertionError(
            f"layer {layer.name}: the largest input does not reach the sum its column was found to have"
        )
    start = worst["group"] * layer.rows + part.start
    return {
        "tile": worst["tile"],
        "slice": worst["slice"],
        "sign": worst["sign"],
        "group": worst["group"],
        "column": worst["column"],
        "column_sum": total,
        "configured": worst["configured"],
        "code": code,
        "rows": [start + int(row) for row in np.flatnonzero(levels)],
    }


def _driving_code(signed: bool, hw: Hardware) -> int:
    """The code that applies the largest digit: all ones in two's complement, else the end of the range that has it."""
    if not signed:
        return int(2**hw.input_bits - 1)
    if hw.dac_bits == 1:
        return -1
    low, high = -(2 ** (hw.input_bits - 1)), 2 ** (hw.input_bits - 1) - 1
    return int(low if _digits(-low, hw) > _digits(high, hw) else high)
