"""The certificate: the smallest ADC resolution no column can exceed, or an input that exceeds the configured one.

``S_max = d_max * sum_r g_r`` of a column is reached by the codes whose digits are all at their maximum ``d_max``, so a
column is lossless at N bits for every input if and only if ``S_max <= 2^N - 1`` (docs/contract.md).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitline.crossbar.adc import (
    AdcBits,
    BitCounts,
    equation_bits,
    max_digit,
    paper_bits,
    resolve,
    signed_bits,
    unsigned_bits,
)
from bitline.crossbar.encoding import check_weights, chosen_digits, encode
from bitline.errors import RangeError, ShapeError
from bitline.hardware import Digits, Encoding, Hardware, Readout
from bitline.layers import Coverage, LayerKind, MatrixLayer

__all__ = [
    "CERTIFICATE_FORMAT",
    "Certificate",
    "ColumnRecord",
    "NetworkCertificate",
    "certify",
    "certify_layers",
    "column_bits",
    "lossless_columns",
]

CERTIFICATE_FORMAT = "bitline-certificate-2"


@dataclass(frozen=True, kw_only=True)
class ColumnRecord:
    """The worst column of one row tile, slice and sign of a layer."""

    tile: int
    slice: int | None
    """Weight slice, 0 least significant; None for the unit column."""
    sign: str
    """``positive`` or ``negative`` (differential), ``offset``, or ``unit``."""
    group: int
    """Group of the layer the column belongs to."""
    column: int | None
    """Output within the group; None for the unit column."""
    max_sum: int
    """Largest column sum any input reaches (S_max)."""
    bits: int
    """Smallest resolution that holds it."""
    configured: int
    """Resolution it is converted at."""

    @property
    def lossless(self) -> bool:
        """Whether no input saturates this column, and so none of its row tile, slice and sign."""
        return self.bits <= self.configured

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary, as in the certificate file."""
        return {
            "tile": self.tile,
            "slice": self.slice,
            "sign": self.sign,
            "group": self.group,
            "column": self.column,
            "max_sum": self.max_sum,
            "bits": self.bits,
            "configured": self.configured,
            "lossless": self.lossless,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Certificate:
    """Proof or refutation for one layer (one matrix, or the matrices of a grouped convolution)."""

    name: str
    hardware: Hardware
    signed_inputs: bool
    codes: NDArray[np.int32]
    """[shape=(groups, K, N)] the weight codes certified."""
    counts: BitCounts
    adc: AdcBits
    """Configured resolution."""
    nonzeros: int
    """Non-zero weights of the layer."""
    nonzeros_max: int
    """Most non-zero weights in a column of a row tile (l)."""
    records: tuple[ColumnRecord, ...]
    refuted_columns: int
    """Physical columns, over all row tiles, that some input saturates."""

    @property
    def lossless(self) -> bool:
        """Whether no input whatever saturates any column at the configured resolution."""
        return self.refuted_columns == 0

    @property
    def bits(self) -> int:
        """Smallest resolution at which no column can saturate (the ``weight_aware`` count)."""
        return self.counts.weight_aware

    @property
    def max_column_sum(self) -> int:
        """Largest column sum any input reaches."""
        return max((int(record.max_sum) for record in self.records), default=0)

    @property
    def row_tiles(self) -> int:
        """Row tiles of the matrix."""
        return -(-int(self.codes.shape[1]) // self.hardware.read_rows)

    @property
    def cp_rate(self) -> float | None:
        """Column-proportional pruning rate found, ``R / l``; None for an all-zero layer."""
        return None if self.nonzeros_max == 0 else self.hardware.read_rows / self.nonzeros_max

    def worst(self) -> ColumnRecord | None:
        """The record of the refuted column that misses most bits, then has the largest sum; None if lossless."""
        refuted = [record for record in self.records if not record.lossless]
        return max(refuted, key=lambda r: (r.bits - r.configured, r.max_sum), default=None)

    def witness(self, column: ColumnRecord | None = None) -> NDArray[np.int64] | None:
        """Input codes that saturate a column, or None if no input does.

        Parameters
        ----------
        column : ColumnRecord, optional
            Which column; by default the layer's worst. Only ``tile``, ``slice``, ``sign``, ``group`` and ``column``
            are read, so any physical column can be asked for (see :meth:`column`).

        Returns
        -------
        ndarray [shape=(groups * K,), int64] or None
            All digits at their maximum on the rows whose cell conducts, zero elsewhere.
        """
        record = column if column is not None else self.worst()
        if record is None or record.lossless:
            return None
        hw = self.hardware
        groups, rows, _ = self.codes.shape
        low, high = record.tile * hw.read_rows, min(rows, (record.tile + 1) * hw.read_rows)
        conducting = np.ones(high - low, np.bool_)
        if record.column is not None and record.slice is not None:
            cells = encode(self.codes[record.group][:, [record.column]], hw)
            sign = 1 if record.sign == "negative" else 0
            conducting = cells.levels[low:high, sign, record.slice, 0] > 0
        codes = np.zeros(groups * rows, np.int64)
        start = record.group * rows
        codes[start + low : start + high][conducting] = _code_of_largest_digit(hw, self.signed_inputs)
        return codes

    def column(self, tile: int, slice: int, sign: str, column: int, group: int = 0) -> ColumnRecord:
        """The record of any one physical column (``sign``: positive, negative or offset).

        Raises
        ------
        RangeError
            No such column.
        """
        hw = self.hardware
        signs = ("positive", "negative") if hw.encoding is Encoding.DIFFERENTIAL else ("offset",)
        groups, rows, columns = self.codes.shape
        wanted = {
            "tile": (tile, self.row_tiles),
            "slice": (slice, hw.slices),
            "column": (column, columns),
            "group": (group, groups),
        }
        for name, (value, count) in wanted.items():
            if not 0 <= value < count:
                raise RangeError(f"Argument '{name}' must lie in 0..{count - 1}, not {value}")
        if sign not in signs:
            raise RangeError(f"Argument 'sign' must be one of {', '.join(signs)}, not {sign!r}")
        cells = encode(self.codes[group][:, [column]], hw)
        part = cells.levels[tile * hw.read_rows : min(rows, (tile + 1) * hw.read_rows), signs.index(sign), slice, 0]
        largest = int(part.sum(dtype=np.int64)) * max_digit(hw, self.signed_inputs)
        bits = _bits(largest, sign, hw)
        return ColumnRecord(
            tile=tile,
            slice=slice,
            sign=sign,
            group=group,
            column=column,
            max_sum=largest,
            bits=bits,
            configured=self.adc.per_slice[slice],
        )

    def to_json(self, kind: str = LayerKind.LINEAR.value) -> dict[str, Any]:
        """Plain dictionary, as in the certificate file."""
        groups, rows, columns = self.codes.shape
        worst = self.worst()
        witness = self.witness()
        return {
            "name": self.name,
            "kind": kind,
            "groups": groups,
            "rows": rows,
            "columns": columns,
            "row_tiles": self.row_tiles,
            "signed_inputs": self.signed_inputs,
            "weights_sha256": codes_sha256(self.codes),
            "nonzeros": self.nonzeros,
            "nonzeros_max": self.nonzeros_max,
            "cp_rate": self.cp_rate,
            "adc_bits": {
                "configured": self.adc.bits,
                "configured_per_slice": list(self.adc.per_slice),
                "configured_unit": self.adc.unit,
                "equation": self.counts.equation,
                "paper": self.counts.paper,
                "weight_aware": self.counts.weight_aware,
                "weight_aware_per_slice": list(self.counts.weight_aware_per_slice),
                "weight_aware_unit": self.counts.weight_aware_unit,
            },
            "lossless": self.lossless,
            "max_column_sum": self.max_column_sum,
            "refuted_columns": self.refuted_columns,
            "columns_worst": [record.to_json() for record in self.records],
            "witness": None
            if worst is None or witness is None
            else {
                "tile": worst.tile,
                "slice": worst.slice,
                "sign": worst.sign,
                "group": worst.group,
                "column": worst.column,
                "column_sum": worst.max_sum,
                "configured": worst.configured,
                "code": _code_of_largest_digit(self.hardware, self.signed_inputs),
                "rows": np.flatnonzero(witness).tolist(),
            },
            **({} if self.hardware.digits is Digits.MAGNITUDE else {"carries": _carries(self.codes, self.hardware)}),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkCertificate:
    """Proof or refutation for every layer of a network."""

    hardware: Hardware
    layers: tuple[Certificate, ...]
    kinds: tuple[str, ...]
    network: str | None = None
    """Architecture's name, where the layers are a network's."""
    compared: str | None = None
    """Inputs on which what was certified was compared with the checkpoint's module; None: it was not. In no file."""
    notes: tuple[str, ...] = ()
    """What was assumed of the network or done to its weights, a sentence each. In no file."""
    coverage: Coverage | None = None
    """How much of the network these layers are, where they are a network's."""

    @property
    def lossless(self) -> bool:
        """Whether no input to any layer saturates any column at the configured resolutions."""
        return all(layer.lossless for layer in self.layers)

    @property
    def adc(self) -> list[AdcBits]:
        """Each layer's configured resolution."""
        return [layer.adc for layer in self.layers]

    @property
    def bits(self) -> int:
        """Smallest one resolution for the whole chip."""
        return max((layer.bits for layer in self.layers), default=0)

    @property
    def equation(self) -> int:
        """Largest Eq. (1) count of the layers."""
        return max((layer.counts.equation for layer in self.layers), default=0)

    @property
    def paper(self) -> int | None:
        """Largest count by the paper's tables; None where they do not apply."""
        counts = [layer.counts.paper for layer in self.layers if layer.counts.paper is not None]
        return max(counts, default=None)

    def to_json(self, checkpoint_sha256: str | None = None) -> dict[str, Any]:
        """The certificate file: a plain dictionary that :func:`bitline.crossbar.check.check_certificate` re-checks.

        The order of keys, of layers and of records, the first of several equal columns and the notation of
        :func:`bitline.report.schema.dump_json` are part of the format: the checker compares the file's bytes. So
        nothing is written here that cannot be derived again from the weights and the hardware description.
        """
        return {
            "format": CERTIFICATE_FORMAT,
            "claim": "a layer marked lossless saturates for no code vector at its matrix; "
            "a refuted one does for its witness",
            "checkpoint_sha256": checkpoint_sha256,
            "hardware": self.hardware.model_dump(mode="json"),
            "hardware_sha256": self.hardware.sha256(),
            "lossless": self.lossless,
            "adc_bits": {"equation": self.equation, "paper": self.paper, "weight_aware": self.bits},
            "input_shape": None
            if self.coverage is None or self.coverage.input_shape is None
            else list(self.coverage.input_shape),
            "coverage": None if self.coverage is None else self.coverage.to_json(),
            "layers": [layer.to_json(kind) for layer, kind in zip(self.layers, self.kinds, strict=True)],
        }


def _carries(codes: NDArray[np.int32], hw: Hardware) -> str:
    """Which digits the cells hold: the carries into slices 1, 2, ... of every weight, as bits in C order, in base64.

    A slice holds its digit of ``|w|`` and the carry into it, less ``2^cell_bits`` where it carries.
    """
    groups, rows, columns = codes.shape
    carries = np.zeros((max(0, hw.slices - 1), groups, rows, columns), np.bool_)
    for g, group in enumerate(codes):
        digits = chosen_digits(group, hw)
        rest = np.abs(group)
        for j in range(hw.slices - 1):
            # what is left above this slice, less what would be left of the plain magnitude
            rest = (rest - digits[j] * np.sign(group)) >> hw.cell_bits
            carries[j, g] = rest != np.abs(group) >> (hw.cell_bits * (j + 1))
    return base64.b64encode(np.packbits(carries.ravel()).tobytes()).decode("ascii")


def codes_sha256(codes: NDArray[np.int32]) -> str:
    """Hash of weight codes: of their shape and little-endian 32-bit values in C order."""
    digest = hashlib.sha256(repr(tuple(codes.shape)).encode())
    digest.update(np.ascontiguousarray(codes, dtype="<i4").tobytes())
    return digest.hexdigest()


def _code_of_largest_digit(hw: Hardware, signed_inputs: bool) -> int:
    """An input code that applies the largest digit to its row in at least one cycle."""
    if not signed_inputs:
        return (1 << hw.input_bits) - 1
    if hw.dac_bits == 1:
        return -1  # two's complement: every bit is one
    if hw.dac_bits >= hw.input_bits:
        return -(1 << (hw.input_bits - 1))
    return (1 << (hw.input_bits - 1)) - 1


def _bits(largest: int, sign: str, hw: Hardware) -> int:
    """Bits one column needs; analog readout: positive columns bound the range from above, negative from below."""
    if hw.readout is Readout.ANALOG:
        return signed_bits(largest, 0) if sign == "positive" else signed_bits(0, largest)
    return unsigned_bits(largest)


def _tile_sums(codes: NDArray[np.int32], hw: Hardware, signed_inputs: bool) -> NDArray[np.int64]:
    """S_max of every column [shape=(T, P, S, columns)]; groups side by side as columns, they only differ in inputs."""
    starts = range(0, codes.shape[0], hw.read_rows)
    # tile by tile: the levels of a whole layer would take 64 bytes a weight
    tiles = [encode(codes[start : start + hw.read_rows], hw).levels.sum(axis=0, dtype=np.int64) for start in starts]
    sums = np.stack(tiles) if tiles else np.zeros((0, hw.signs, hw.slices, codes.shape[1]))
    return np.asarray(sums, np.int64) * max_digit(hw, signed_inputs)


def lossless_columns(codes: NDArray[np.int32], hw: Hardware, adc: AdcBits, signed_inputs: bool) -> NDArray[np.bool_]:
    """Which outputs of each row tile have only lossless columns, unit column included.

    Returns
    -------
    ndarray [shape=(T, N), bool]
    """
    sums = _tile_sums(codes, hw, signed_inputs)
    limits = (np.int64(1) << np.array(adc.per_slice, np.int64)) - 1
    if hw.readout is Readout.ANALOG:
        high, low = limits >> 1, (limits >> 1) + 1
        fine = (sums[:, 0] <= high[:, None]) & (sums[:, 1] <= low[:, None])
        return np.asarray(fine.all(axis=1))
    fine_columns = (sums <= limits[:, None]).all(axis=(1, 2))
    if adc.unit is not None:
        sizes = np.minimum(hw.read_rows, codes.shape[0] - hw.read_rows * np.arange(sums.shape[0]))
        units = sizes * max_digit(hw, signed_inputs) <= (1 << adc.unit) - 1
        fine_columns &= units[:, None]
    return np.asarray(fine_columns)


def column_bits(
    codes: NDArray[np.int32], hw: Hardware, signed_inputs: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Smallest proven resolution of every single conversion of a layer, not of its worst alone.

    Parameters
    ----------
    codes : ndarray [shape=(G, K, N), int32]
    hw : Hardware
    signed_inputs : bool

    Returns
    -------
    ndarray [shape=(T, S, columns), int64]
        Of every row tile, slice and converted column (both signs of all groups; a pair is one with analog readout).
    ndarray [shape=(T * G,), int64]
        Of the unit columns; empty for the differential encoding.
    """
    analysis = _analyse(codes, hw, signed_inputs)
    sums = analysis.sums
    if hw.readout is Readout.ANALOG:
        bits = np.vectorize(signed_bits, otypes=[np.int64])(sums[:, 0], sums[:, 1])
    else:
        bits = np.vectorize(unsigned_bits, otypes=[np.int64])(np.concatenate(list(sums.transpose(1, 0, 2, 3)), axis=2))
    units = np.repeat(np.array([unsigned_bits(unit) for unit in analysis.units], np.int64), codes.shape[0])
    return bits, units


@dataclass(frozen=True, eq=False)
class _Analysis:
    """What the proof reads off one layer before a resolution is chosen."""

    codes: NDArray[np.int32]
    sums: NDArray[np.int64]
    units: tuple[int, ...]
    counts: BitCounts
    nonzeros_max: int


def _analyse(codes: NDArray[np.int32], hw: Hardware, signed_inputs: bool) -> _Analysis:
    groups, rows, columns = codes.shape
    side_by_side = np.ascontiguousarray(codes.transpose(1, 0, 2)).reshape(rows, groups * columns)
    sums = _tile_sums(side_by_side, hw, signed_inputs)
    starts = np.arange(0, rows, hw.read_rows)
    nonzero = np.add.reduceat(side_by_side != 0, starts, axis=0, dtype=np.int64) if starts.size else np.zeros((0, 0))
    nonzeros_max = int(nonzero.max(initial=0))
    per_slice = []
    for j in range(hw.slices):
        worst = sums[:, :, j].max(axis=(0, 2), initial=0) if sums.size else np.zeros(hw.signs, np.int64)
        if hw.readout is Readout.ANALOG:
            per_slice.append(signed_bits(int(worst[0]), int(worst[1])))
        else:
            per_slice.append(unsigned_bits(int(worst.max())))
    units: tuple[int, ...] = ()
    if hw.encoding is not Encoding.DIFFERENTIAL:
        digit = max_digit(hw, signed_inputs)
        units = tuple(min(hw.read_rows, rows - int(start)) * digit for start in starts)
    counts = BitCounts(
        equation=equation_bits(nonzeros_max, min(hw.read_rows, rows), hw),
        paper=paper_bits(nonzeros_max, hw),
        weight_aware_per_slice=tuple(per_slice),
        weight_aware_unit=unsigned_bits(max(units, default=0)) if hw.encoding is not Encoding.DIFFERENTIAL else None,
    )
    return _Analysis(codes, sums, units, counts, nonzeros_max)


def _conclude(name: str, analysis: _Analysis, hw: Hardware, adc: AdcBits, signed_inputs: bool) -> Certificate:
    """Compare every column with its configured resolution and keep the worst of each row tile, slice and sign."""
    signs = ("positive", "negative") if hw.encoding is Encoding.DIFFERENTIAL else ("offset",)
    groups, _, columns = analysis.codes.shape
    analog = hw.readout is Readout.ANALOG
    records = []
    refuted = 0
    for tile in range(analysis.sums.shape[0]):
        for j, configured in enumerate(adc.per_slice):
            limit = (1 << configured) - 1
            over = np.zeros(groups * columns, np.int64)
            for p, sign in enumerate(signs):
                sums = analysis.sums[tile, p, j]
                bound = limit if not analog else (limit >> 1) + p  # analog: -2^(N-1) .. 2^(N-1) - 1
                over += sums > bound
                at = int(sums.argmax()) if sums.size else 0
                largest = int(sums[at]) if sums.size else 0
                records.append(
                    ColumnRecord(
                        tile=tile,
                        slice=j,
                        sign=sign,
                        group=at // columns if columns else 0,
                        column=at % columns if columns else 0,
                        max_sum=largest,
                        bits=_bits(largest, sign, hw),
                        configured=configured,
                    )
                )
            refuted += int(np.count_nonzero(over)) if analog else int(over.sum())
        if adc.unit is not None:
            records.append(
                ColumnRecord(
                    tile=tile,
                    slice=None,
                    sign="unit",
                    group=0,
                    column=None,
                    max_sum=analysis.units[tile],
                    bits=unsigned_bits(analysis.units[tile]),
                    configured=adc.unit,
                )
            )
            refuted += groups * (analysis.units[tile] > (1 << adc.unit) - 1)
    return Certificate(
        name=name,
        hardware=hw,
        signed_inputs=signed_inputs,
        codes=analysis.codes,
        counts=analysis.counts,
        adc=adc,
        nonzeros=int(np.count_nonzero(analysis.codes)),
        nonzeros_max=analysis.nonzeros_max,
        records=tuple(records),
        refuted_columns=refuted,
    )


def certify(w: Any, hw: Hardware, *, signed_inputs: bool = False, name: str = "w") -> Certificate:
    """Prove one weight matrix lossless at the hardware's ADC resolution, or refute it.

    Parameters
    ----------
    w : ndarray [shape=(K, N), integer]
        Signed weight codes.
    hw : Hardware
        A policy in ``adc_bits`` resolves on this matrix.
    signed_inputs : bool
        Whether the activation codes are two's complement; matters only for ``dac_bits >= input_bits > 1``, where the
        all-ones digit does not occur, and for the codes of a witness.

    Returns
    -------
    Certificate
        ``.lossless``, ``.bits`` (needed), ``.witness()`` -> (K,) codes or None.

    Raises
    ------
    ShapeError, RangeError
        ``w`` is not a matrix of integers in the hardware's range.

    References
    ----------
    Yuan et al., TinyADC, 2021, Eq. (1).
    """
    codes = check_weights(w, hw)[None]
    analysis = _analyse(codes, hw, signed_inputs)
    return _conclude(name, analysis, hw, resolve(hw, [analysis.counts])[0], signed_inputs)


def certify_layers(layers: Sequence[MatrixLayer], hw: Hardware) -> NetworkCertificate:
    """Prove or refute every layer of a network; a policy resolves at the scope the hardware names.

    Raises
    ------
    RangeError
        Weight codes outside the hardware's range (the layer is named).
    """
    analyses = []
    for layer in layers:
        if layer.codes.ndim != 3:
            raise ShapeError(f"layer {layer.name}: codes must have shape (groups, rows, columns)")
        try:
            check_weights(layer.codes.reshape(-1, layer.columns), hw)
        except RangeError as error:
            raise RangeError(f"layer {layer.name}: {error}") from None
        analyses.append(_analyse(layer.codes, hw, layer.signed_inputs))
    resolved = resolve(hw, [analysis.counts for analysis in analyses])
    certificates = tuple(
        _conclude(layer.name, analysis, hw, adc, layer.signed_inputs)
        for layer, analysis, adc in zip(layers, analyses, resolved, strict=True)
    )
    return NetworkCertificate(
        hardware=hw, layers=certificates, kinds=tuple(LayerKind(layer.kind).value for layer in layers)
    )
