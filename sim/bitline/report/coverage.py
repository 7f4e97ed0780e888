"""How much of a network is on crossbars, in a sentence: the same in every command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from bitline.printable import clean

__all__ = ["coverage_lines"]

_NAMES_SHOWN = 3


def _of(placed: int, total: int) -> str:
    size, unit = next((pair for pair in ((10**9, "G"), (10**6, "M"), (10**3, "k")) if total >= pair[0]), (1, ""))
    share = f" ({100 * placed / total:.3g} %)" if placed != total else ""
    return f"{placed / size:.4g} of {total / size:.4g} {unit}MACs an image{share}"


def coverage_lines(coverage: Mapping[str, Any] | None) -> list[str]:
    """Sentences on a certificate's or report's ``coverage``; none where nothing is known of a network.

    Parameters
    ----------
    coverage : mapping, optional
        ``macs_on_crossbars``, ``macs_total``, ``unfolded_norms``, ``not_on_crossbars``.
    """
    if coverage is None:
        return []
    placed, total = coverage["macs_on_crossbars"], coverage["macs_total"]
    elsewhere = [entry for entry in coverage["not_on_crossbars"] if entry["macs"] != 0]
    if placed is None:
        lines = ["MACs on crossbars: unknown, for the shape of an input is (--input CxHxW gives it)"]
    elif total is None:
        lines = [f"on crossbars {placed:,} MACs an image, of a number that is unknown"]
    else:
        lines = [f"on crossbars {_of(placed, total)}"]
    if elsewhere:
        kinds = Counter(clean(entry["kind"]) for entry in elsewhere)
        shown = ", ".join(f"{kind} ({n})" if n > 1 else kind for kind, n in sorted(kinds.items())[:_NAMES_SHOWN])
        more = f" and {len(kinds) - _NAMES_SHOWN} more kinds" if len(kinds) > _NAMES_SHOWN else ""
        unknown = sum(entry["macs"] is None for entry in elsewhere) if placed is not None else 0
        lines[0] += f"; not on crossbars: {shown}{more}" + (f", {unknown} of unknown MACs" if unknown else "")
    norms = coverage["unfolded_norms"]
    if norms:
        what = "1 batch norm is" if norms == 1 else f"{norms} batch norms are"
        lines.append(
            f"{what} not folded into a layer: the certificate is of weights without {'its' if norms == 1 else 'their'} "
            "gains"
        )
    return lines
