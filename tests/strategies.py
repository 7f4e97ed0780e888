"""Hypothesis strategies for crossbars: hardware that can be built, and matrices and codes that fit it.

``SMALL`` is true where Numba does not compile (``NUMBA_DISABLE_JIT=1``): the kernels are then plain Python, and the
same properties run on fewer and smaller examples.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st

from bitline import load_hardware
from bitline.hardware import Hardware

SMALL = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")

ROWS = (1, 5, 63, 64, 65, 100, 128, 130, 200)
"""Tile heights around the edges of 64-bit words."""

DTYPES = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64)


def examples(count: int) -> settings:
    """This many examples under the default profile, a tenth without a compiler; other profiles keep their own."""
    if os.environ.get("HYPOTHESIS_PROFILE", "default") != "default":
        return settings()
    # tests/mutation only asks whether a test fails, not for its smallest example, which can take minutes to find
    phases = (Phase.explicit, Phase.generate) if os.environ.get("BITLINE_SHRINK") == "0" else tuple(Phase)
    return settings(max_examples=max(6, count // 10) if SMALL else count, phases=phases)


@dataclass(frozen=True)
class Problem:
    """A product to compute: hardware, activation codes, weight codes."""

    hw: Hardware
    x: np.ndarray
    w: np.ndarray
    signed_inputs: bool

    def __repr__(self) -> str:
        """What a person needs to repeat a failure."""
        fields = (
            "rows",
            "active_rows",
            "cell_bits",
            "dac_bits",
            "input_bits",
            "weight_bits",
            "encoding",
            "readout",
            "adc_bits",
        )
        text = ", ".join(f"{name}={getattr(self.hw, name)!s}" for name in (*fields, "adc_scope"))
        x, w = (f"{a.dtype}{a.shape} {a.tolist() if a.size <= 40 else '...'}" for a in (self.x, self.w))
        return f"Problem({text}, signed_inputs={self.signed_inputs}, x={x}, w={w})"


def encodings() -> st.SearchStrategy[dict[str, str]]:
    """Encoding and readout, in the combinations that exist."""
    return st.sampled_from(
        [
            {"encoding": "differential", "readout": "digital"},
            {"encoding": "differential", "readout": "analog"},
            {"encoding": "offset", "readout": "digital"},
            {"encoding": "offset_flip", "readout": "digital"},
        ]
    )


@st.composite
def hardware(draw: st.DrawFn, **fixed: Any) -> Hardware:
    """A valid hardware description; ``fixed`` gives any field a value."""
    fields: dict[str, Any] = dict(draw(encodings()))
    fields["rows"] = draw(st.sampled_from(ROWS) | st.integers(1, 40))
    divisors = [n for n in range(1, fields["rows"] + 1) if fields["rows"] % n == 0]
    fields["active_rows"] = draw(st.none() | st.none() | st.sampled_from(divisors))
    fields["cell_bits"] = draw(st.integers(1, 4) | st.integers(1, 8))
    fields["dac_bits"] = draw(st.sampled_from((1, 1, 1, 2, 3, 4, 7)))
    fields["input_bits"] = draw(st.sampled_from((8, 8, 1, 2, 3)) | st.integers(1, 16))
    fields["weight_bits"] = draw(st.sampled_from((8, 8, 2, 3)) | st.integers(2, 16))
    fields["adc_scope"] = draw(st.sampled_from(("layer", "chip", "slice")))
    fields.update(fixed)
    if fields["active_rows"] is not None and fields["rows"] % fields["active_rows"]:
        fields["active_rows"] = None  # of other rows than were given
    if "adc_bits" not in fields:
        policies = ["weight_aware", "equation"]
        if (fields["active_rows"] or fields["rows"], fields["cell_bits"], fields["dac_bits"]) == (128, 2, 1):
            policies.append("paper")
        fields["adc_bits"] = draw(st.integers(1, 9) | st.integers(1, 16) | st.sampled_from(policies))
    return load_hardware("tinyadc", **fields)


def _values(rng: np.random.Generator, style: str, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
    """Integers of one style in ``low .. high``."""
    values = rng.integers(low, high + 1, size=shape)
    if style == "sparse":
        values[rng.random(shape) < 0.9] = 0
    elif style == "high":
        values[...] = high
    elif style == "low":
        values[...] = low
    elif style == "extreme":
        values = rng.choice(np.array([low, 0, high]), size=shape)
    elif style == "columns":  # every column has a density of its own: some proven, some refuted
        density = rng.random(shape[-1:]) ** 2
        values[rng.random(shape) >= density] = 0
    elif style == "zero":
        values[...] = 0
    return values


STYLES = ("dense", "sparse", "columns", "extreme", "high", "low", "zero")


def _as_dtype(draw: st.DrawFn, values: np.ndarray, low: int, high: int) -> np.ndarray:
    """Draw an integer type that holds ``low .. high``, sometimes in another memory order."""
    fitting = [dtype for dtype in DTYPES if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max]
    values = values.astype(draw(st.sampled_from(fitting)))
    return np.asfortranarray(values) if draw(st.booleans()) else values


@st.composite
def weights(draw: st.DrawFn, hw: Hardware, *, max_columns: int = 4, max_rows: int | None = None) -> np.ndarray:
    """Weight codes (K, N) for this hardware; K lies around multiples of the tile height."""
    limit = max_rows or (24 if SMALL else 270)
    around = [tiles * hw.read_rows + extra for tiles in (0, 1, 2, 3) for extra in (-1, 0, 1)]
    k = draw(st.sampled_from([k for k in around if 1 <= k <= limit] or [limit]) | st.integers(1, min(limit, 12)))
    n = draw(st.integers(1, 2 if SMALL else max_columns))
    low, high = hw.weight_range
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return _as_dtype(draw, _values(rng, draw(st.sampled_from(STYLES)), (k, n), low, high), low, high)


@st.composite
def problems(draw: st.DrawFn, hw: st.SearchStrategy[Hardware] | None = None, **options: Any) -> Problem:
    """A product to compute, valid in every respect; M may be 0."""
    description = draw(hw if hw is not None else hardware())
    w = draw(weights(description, **options))
    signed_inputs = draw(st.booleans())
    low, high = description.input_range(signed_inputs)
    m = draw(st.sampled_from((1, 2, 3, 0)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = _values(rng, draw(st.sampled_from(STYLES)), (m, w.shape[0]), low, high)
    return Problem(description, _as_dtype(draw, x, low, high), w, signed_inputs)


def small_hardware(**fixed: Any) -> st.SearchStrategy[Hardware]:
    """Hardware whose inputs can all be tried: tiny tiles, at most 3 input bits."""
    return st.fixed_dictionaries(
        {"rows": st.integers(1, 4), "input_bits": st.integers(1, 3), "dac_bits": st.integers(1, 3)}
    ).flatmap(lambda tiny: hardware(**{**tiny, **fixed}))
