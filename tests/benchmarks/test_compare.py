"""Two documents side by side, by hand."""

from __future__ import annotations

from typing import Any

import pytest
from benchmarks.compare import compare


def _measured(median: float, least: float, largest: float) -> dict[str, float]:
    return {"median": median, "least": least, "largest": largest, "repeats": 7}


def _document(**results: Any) -> dict[str, Any]:
    return {"machine": {"processor": "P", "cores": 2}, "results": results}


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        # 1.8 / 1.1 = 1.636, 2.2 / 0.9 = 2.444
        (_measured(2.0, 1.8, 2.2), _measured(1.0, 0.9, 1.1), "  2.00x  (1.64 .. 2.44)  faster        kernel / a"),
        (_measured(1.0, 0.9, 1.1), _measured(2.0, 1.8, 2.2), "  0.50x  (0.41 .. 0.61)  slower        kernel / a"),
        # 1.5 / 1.9 = 0.789, 3.0 / 0.9 = 3.333: 1 lies inside
        (_measured(2.0, 1.5, 3.0), _measured(1.0, 0.9, 1.9), "  2.00x  (0.79 .. 3.33)  within noise  kernel / a"),
    ],
)
def test_a_change_is_called_one_only_outside_of_the_spread(
    before: dict[str, float], after: dict[str, float], line: str
) -> None:
    assert compare(_document(kernel={"a": before}), _document(kernel={"a": after})) == [line]


def test_memory_is_smaller_or_larger() -> None:
    old, new = (_document(memory={"case": {"peak_mib": _measured(*mib)}}) for mib in ((800, 800, 801), (400, 400, 400)))
    assert compare(old, new) == ["  2.00x  (2.00 .. 2.00)  smaller       memory / case / peak_mib"]
    assert compare(new, old) == ["  0.50x  (0.50 .. 0.50)  larger        memory / case / peak_mib"]


def test_what_only_one_document_has_is_left_out() -> None:
    same = _measured(1.0, 1.0, 1.0)
    old = _document(kernel={"a": same, "gone": same}, network={"images": 128})
    new = _document(kernel={"a": same, "new": same}, network={"images": 128})
    assert [line.split("  ")[-1] for line in compare(old, new)] == ["kernel / a"]


def test_other_machines_and_sizes_are_told_first() -> None:
    old, new = _document(), _document() | {"quick": True}
    new["machine"] = {"processor": "P", "cores": 8}
    lines = compare(old, new)
    assert lines[0] == "different machines (cores): the ratios are not of the code alone"
    assert "--quick" in lines[1]
    assert len(lines) == 2
