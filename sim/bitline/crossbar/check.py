"""Re-check a certificate file in plain NumPy, sharing no code with the prover but the loader of weights and hardware.

Written from docs/contract.md: digits of the codes by integer division, sums by ``sum``, bits by comparing with
powers of two. Everything the file claims is recomputed from the weight codes and compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from bitline.errors import BitlineError, ConfigError
from bitline.hardware import Hardware
from bitline.layers import MatrixLayer

__all__ = ["check_certificate"]

_FORMAT = "bitline-certificate-1"


def check_certificate(document: Any, layers: Sequence[MatrixLayer]) -> list[str]:
    """Compare every claim of a certificate with the weights.

    Parameters
    ----------
    document : dict
        A parsed certificate file.
    layers : sequence of MatrixLayer
        The network's layers, loaded with the hardware the certificate names (:func:`certified_hardware`).

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
    complaints: list[str] = []
    _compare(complaints, "hardware_sha256", document.get("hardware_sha256"), hw.sha256())
    claimed = document.get("layers")
    if not isinstance(claimed, list) or not all(isinstance(entry, dict) for entry in claimed):
        raise ConfigError("certificate: layers: expected a list of layers")
    names = [entry.get("name") for entry in claimed]
    if names != [layer.name for layer in layers]:
        return [*complaints, f"layers: the certificate names {names}, the checkpoint has {[x.name for x in layers]}"]
    for entry, layer in zip(claimed, layers, strict=True):
        _check_layer(complaints, entry, layer, hw)
    _check_policy(complaints, claimed, hw)
    _compare(complaints, "lossless", document.get("lossless"), all(entry.get("lossless") is True for entry in claimed))
    overall = document.get("adc_bits")
    for name in ("equation", "paper", "weight_aware"):
        values = [v for v in (_bits_of(entry, name) for entry in claimed) if isinstance(v, int)]
        want = max(values, default=None if name == "paper" else 0)
        _compare(complaints, f"adc_bits.{name}", overall.get(name) if isinstance(overall, dict) else None, want)
    return complaints


def certified_hardware(document: Any) -> Hardware:
    """The hardware description a certificate carries.

    Raises
    ------
    ConfigError
        The document is not a certificate, or its hardware is not a valid description.
    """
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ConfigError(f"certificate: expected a JSON object with format {_FORMAT!r}")
    fields = document.get("hardware")
    if not isinstance(fields, dict):
        raise ConfigError("certificate: hardware: expected a mapping of fields")
    try:
        return Hardware().replace(**fields)
    except BitlineError as error:
        raise ConfigError(f"certificate: {error}") from None
    except TypeError:
        raise ConfigError("certificate: hardware: keys must be names") from None


def _compare(complaints: list[str], what: str, claimed: object, found: object) -> None:
    if type(claimed) is not type(found) or claimed != found:
        complaints.append(f"{what}: the certificate says {_short(claimed)}, the weights give {_short(found)}")


def _is_integer(value: object) -> TypeGuard[int]:
    """Whether a value read from a file is an integer; JSON's true is not."""
    return type(value) is int


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _bits_of(entry: dict[str, Any], name: str) -> Any:
    bits = entry.get("adc_bits")
    return bits.get(name) if isinstance(bits, dict) else None


def _levels(codes: NDArray[np.int32], hw: Hardware) -> list[tuple[str, NDArray[np.int64]]]:
    """Cell levels [shape=(S, K, columns)] of each sign, before flipping."""
    wide = codes.astype(np.int64)
    base = 2**hw.cell_bits
    if hw.encoding.value == "differential":
        parts = [("positive", np.where(wide > 0, wide, 0)), ("negative", np.where(wide < 0, -wide, 0))]
        count = -(-(hw.weight_bits - 1) // hw.cell_bits)
    else:
        parts = [("offset", wide + 2 ** (hw.weight_bits - 1))]
        count = -(-hw.weight_bits // hw.cell_bits)
    return [(sign, np.stack([part // base**j % base for j in range(count)])) for sign, part in parts]


def _bits_for(total: int, sign: str, hw: Hardware) -> int:
    """Smallest number of bits whose code range holds the sum (0 for an empty column)."""
    if total == 0:
        return 0
    bits = 1
    while True:
        if hw.readout.value == "analog":
            top = 2 ** (bits - 1) - 1 if sign == "positive" else 2 ** (bits - 1)
        else:
            top = 2**bits - 1
        if total <= top:
            return bits
        bits += 1


def _rows_a_read(hw: Hardware) -> int:
    """Rows whose cells one conversion sums: those switched on together, in a crossbar of so many."""
    return hw.rows if hw.active_rows is None else min(hw.rows, hw.active_rows)


def _largest_digit(hw: Hardware, signed: bool) -> int:
    """Largest digit over all codes, by writing the extreme codes' digits down."""
    base = 2**hw.dac_bits
    if signed and hw.dac_bits > 1:
        codes = [2 ** (hw.input_bits - 1), max(2 ** (hw.input_bits - 1) - 1, 0)]
    else:
        codes = [2**hw.input_bits - 1]
    return max(int(code // base**i % base) for code in codes for i in range(-(-hw.input_bits // hw.dac_bits)))


def _check_layer(complaints: list[str], entry: dict[str, Any], layer: MatrixLayer, hw: Hardware) -> None:
    """Recompute one layer's facts from its codes."""
    where = f"layer {layer.name}"
    groups, rows, columns = layer.codes.shape
    digest = hashlib.sha256(repr((groups, rows, columns)).encode())
    digest.update(np.ascontiguousarray(layer.codes, dtype="<i4").tobytes())
    facts: dict[str, Any] = {
        "kind": layer.kind.value,
        "groups": groups,
        "rows": rows,
        "columns": columns,
        "signed_inputs": layer.signed_inputs,
        "weights_sha256": digest.hexdigest(),
        "row_tiles": -(-rows // _rows_a_read(hw)),
        "nonzeros": int((layer.codes != 0).sum()),
    }
    bits = entry.get("adc_bits")
    bits = bits if isinstance(bits, dict) else {}
    per_slice = bits.get("configured_per_slice")
    unit_bits = bits.get("configured_unit")
    slices = len(_levels(layer.codes[:, :1, :1], hw)[0][1]) if layer.codes.size else hw.slices
    if not (isinstance(per_slice, list) and len(per_slice) == slices and all(_is_integer(b) for b in per_slice)):
        complaints.append(f"{where}: adc_bits.configured_per_slice: expected {slices} integers")
        return
    has_unit = hw.encoding.value != "differential"
    if not (_is_integer(unit_bits) if has_unit else unit_bits is None):
        complaints.append(f"{where}: adc_bits.configured_unit: expected {'an integer' if has_unit else 'null'}")
        return
    digit = _largest_digit(hw, layer.signed_inputs)
    height_of_tile = _rows_a_read(hw)
    worst: dict[tuple[int, int | None, str], int] = {}
    nonzeros_max = refuted = 0
    sums_at: dict[tuple[int, int, str, int], NDArray[np.int64]] = {}
    for g in range(groups):
        planes = _levels(layer.codes[g], hw)
        for tile in range(facts["row_tiles"]):
            part = slice(tile * height_of_tile, min(rows, (tile + 1) * height_of_tile))
            height = part.stop - part.start
            nonzeros_max = max(nonzeros_max, int((layer.codes[g, part] != 0).sum(axis=0).max(initial=0)))
            for j in range(slices):
                over = []
                for sign, levels in planes:
                    sums = levels[j, part].sum(axis=0)
                    if hw.encoding.value == "offset_flip":
                        full = (2**hw.cell_bits - 1) * height
                        sums = np.where(2 * sums > full, full - sums, sums)
                    sums = sums * digit
                    sums_at[tile, j, sign, g] = sums
                    key = (tile, j, sign)
                    worst[key] = max(worst.get(key, 0), int(sums.max(initial=0)))
                    over.append(np.array([_bits_for(int(s), sign, hw) > per_slice[j] for s in sums], np.bool_))
                stacked = np.stack(over)
                # an analog pair is converted once, so it counts as one refuted column
                refuted += int((stacked.any(axis=0) if hw.readout.value == "analog" else stacked).sum())
            if has_unit:
                worst[tile, None, "unit"] = height * digit
                refuted += _bits_for(height * digit, "unit", hw) > int(unit_bits)  # type: ignore[arg-type]
    facts["nonzeros_max"] = nonzeros_max
    facts["cp_rate"] = None if nonzeros_max == 0 else _rows_a_read(hw) / nonzeros_max
    facts["refuted_columns"] = refuted
    facts["lossless"] = refuted == 0
    facts["max_column_sum"] = max(worst.values(), default=0)
    for name, found in facts.items():
        _compare(complaints, f"{where}: {name}", entry.get(name), found)
    _check_counts(complaints, where, bits, worst, nonzeros_max, rows, hw)
    _check_records(complaints, where, entry.get("columns_worst"), worst, sums_at, per_slice, unit_bits, hw)
    _check_witness(complaints, where, entry, layer, per_slice, unit_bits, hw)


def _check_counts(
    complaints: list[str],
    where: str,
    bits: dict[str, Any],
    worst: dict[Any, int],
    nonzeros: int,
    rows: int,
    hw: Hardware,
) -> None:
    """The four counts of docs/contract.md."""
    slices = len(bits["configured_per_slice"])
    aware = [
        max((_bits_for(total, sign, hw) for (_, j, sign), total in worst.items() if j == wanted), default=0)
        for wanted in range(slices)
    ]
    unit = max((_bits_for(total, sign, hw) for (_, j, sign), total in worst.items() if j is None), default=0)
    has_unit = hw.encoding.value != "differential"
    r = min(_rows_a_read(hw), rows) if has_unit else nonzeros
    equation = 0
    if r:
        # ceil(v + w + log2 r): the smallest integer e with 2^(e - v - w) >= r
        while 2**equation < r * 2 ** (hw.dac_bits + hw.cell_bits):
            equation += 1
        equation -= 0 if hw.dac_bits > 1 and hw.cell_bits > 1 else 1
    paper: int | None = None
    if (_rows_a_read(hw), hw.cell_bits, hw.dac_bits) == (128, 2, 1):
        paper = 0
        while nonzeros and 2 ** (paper - 8) * 128 < nonzeros:
            paper += 1
    found = {
        "weight_aware_per_slice": aware,
        "weight_aware_unit": unit if has_unit else None,
        "weight_aware": max([*aware, unit]),
        "equation": equation,
        "paper": paper,
        "configured": max([*bits["configured_per_slice"], bits.get("configured_unit") or 0]),
    }
    for name, value in found.items():
        _compare(complaints, f"{where}: adc_bits.{name}", bits.get(name), value)


def _check_records(
    complaints: list[str],
    where: str,
    records: Any,
    worst: dict[tuple[int, int | None, str], int],
    sums_at: dict[tuple[int, int, str, int], NDArray[np.int64]],
    per_slice: list[int],
    unit_bits: int | None,
    hw: Hardware,
) -> None:
    """Every row tile, slice and sign is there once, with its worst sum, at a column that has it."""
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        complaints.append(f"{where}: columns_worst: expected a list of records")
        return
    keys = [(record.get("tile"), record.get("slice"), record.get("sign")) for record in records]
    plain = all(_is_integer(tile) and (j is None or _is_integer(j)) and isinstance(sign, str) for tile, j, sign in keys)
    if not plain or len(keys) != len(worst) or any(key not in worst for key in keys) or len(set(keys)) != len(keys):
        complaints.append(f"{where}: columns_worst: not one record for each row tile, slice and sign")
        return
    for key, record in zip(keys, records, strict=True):
        at = f"{where}: tile {key[0]} slice {key[1]} {key[2]}"
        total = worst[key]
        configured = unit_bits if key[1] is None else per_slice[key[1]]
        needed = _bits_for(total, str(key[2]), hw)
        _compare(complaints, f"{at}: max_sum", record.get("max_sum"), total)
        _compare(complaints, f"{at}: bits", record.get("bits"), needed)
        _compare(complaints, f"{at}: configured", record.get("configured"), configured)
        _compare(complaints, f"{at}: lossless", record.get("lossless"), needed <= int(configured or 0))
        group, column = record.get("group"), record.get("column")
        if key[1] is None:
            _compare(complaints, f"{at}: group", group, 0)
            _compare(complaints, f"{at}: column", column, None)
        else:
            sums = sums_at.get((key[0], key[1], str(key[2]), group)) if _is_integer(group) else None
            if sums is None or not _is_integer(column) or not 0 <= column < max(len(sums), 1):
                complaints.append(f"{at}: no column {column} in group {record.get('group')}")
            elif len(sums):
                _compare(complaints, f"{at}: sum of column {column}", total, int(sums[column]))


def _check_witness(
    complaints: list[str],
    where: str,
    entry: dict[str, Any],
    layer: MatrixLayer,
    per_slice: list[int],
    unit_bits: int | None,
    hw: Hardware,
) -> None:
    """A refuted layer's witness drives its column past the code range; a lossless layer has none."""
    witness = entry.get("witness")
    if entry.get("lossless") is True:
        if witness is not None:
            complaints.append(f"{where}: witness: a lossless layer cannot have one")
        return
    if not isinstance(witness, dict):
        complaints.append(f"{where}: witness: a refuted layer needs one")
        return
    try:
        group, tile, code, rows = (witness[name] for name in ("group", "tile", "code", "rows"))
        if not all(_is_integer(number) for number in (group, tile, code, *rows)):
            raise ValueError
        driven = [row - group * layer.rows for row in rows]
        part = slice(tile * _rows_a_read(hw), min(layer.rows, (tile + 1) * _rows_a_read(hw)))
        inside = all(part.start <= row < part.stop for row in driven) and 0 <= group < layer.groups
    except (KeyError, TypeError, ValueError):
        complaints.append(f"{where}: witness: expected group, tile, code and rows")
        return
    low, high = hw.input_range(layer.signed_inputs)
    if not inside or not low <= code <= high:
        complaints.append(f"{where}: witness: rows or code outside the row tile or the input range")
        return
    magnitude = abs(code) if hw.dac_bits > 1 else code % 2**hw.input_bits
    digit = max(magnitude // 2 ** (hw.dac_bits * i) % 2**hw.dac_bits for i in range(hw.input_cycles))
    if witness.get("slice") is None:
        total, configured, sign = len(set(driven)) * digit, int(unit_bits or 0), "unit"
        _compare(complaints, f"{where}: witness: sign", witness.get("sign"), sign)
        _compare(complaints, f"{where}: witness: column", witness.get("column"), None)
    else:
        sign = str(witness.get("sign"))
        planes = dict(_levels(layer.codes[group], hw))
        column, j = witness.get("column"), witness.get("slice")
        if sign not in planes or not (
            _is_integer(column) and column in range(layer.columns) and _is_integer(j) and j in range(len(per_slice))
        ):
            complaints.append(f"{where}: witness: no such column")
            return
        levels = planes[sign][j, :, column]
        if hw.encoding.value == "offset_flip" and 2 * levels[part].sum() > (2**hw.cell_bits - 1) * (
            part.stop - part.start
        ):
            levels = 2**hw.cell_bits - 1 - levels
        total, configured = int(levels[sorted(set(driven))].sum()) * digit, per_slice[j]
    _compare(complaints, f"{where}: witness: column_sum", witness.get("column_sum"), total)
    _compare(complaints, f"{where}: witness: configured", witness.get("configured"), configured)
    if _bits_for(total, sign, hw) <= configured:
        complaints.append(f"{where}: witness: its column sum {total} does not exceed {configured} bits")


def _check_policy(complaints: list[str], claimed: list[dict[str, Any]], hw: Hardware) -> None:
    """The configured resolutions follow from the hardware's number or policy."""
    policy = hw.adc_bits if isinstance(hw.adc_bits, int) else hw.adc_bits.value
    largest = 0
    if isinstance(policy, str):
        largest = max((_bits_of(entry, policy) or 0 for entry in claimed), default=0)
    for entry in claimed:
        where = f"layer {entry.get('name')}"
        bits = entry["adc_bits"] if isinstance(entry.get("adc_bits"), dict) else {}
        per_slice, unit = bits.get("configured_per_slice"), bits.get("configured_unit")
        if not isinstance(per_slice, list):
            continue
        if isinstance(policy, int):
            want, want_unit = [policy] * len(per_slice), policy
        elif policy == "weight_aware" and hw.adc_scope.value == "slice":
            aware = bits.get("weight_aware_per_slice")
            want = [max(1, b) for b in aware] if isinstance(aware, list) else []
            want_unit = max(1, bits.get("weight_aware_unit") or 0)
        else:
            number = max(1, largest if hw.adc_scope.value == "chip" else _bits_of(entry, policy) or 0)
            want, want_unit = [number] * len(per_slice), number
        _compare(complaints, f"{where}: adc_bits.configured_per_slice", per_slice, want)
        _compare(complaints, f"{where}: adc_bits.configured_unit", unit, None if unit is None else want_unit)
