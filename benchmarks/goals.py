"""The goal table of issue 5, filled from one document: work, the best elsewhere, the goal, ours, and the ratios."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.bounds import ADDER_BOUND, BYTE_BOUND, COUNT_BOUND
from benchmarks.kernel import BARE, DENSE, PRUNED
from benchmarks.kernel import BELOW as LAYER_BELOW
from benchmarks.network import BELOW as NETWORK_BELOW
from benchmarks.network import FLOAT, TUNED
from benchmarks.workload import RESNET18, RESNET20

__all__ = ["goals", "table"]

_LESS_IS_BETTER = ("s", "GiB")
LAYER_TEXT = "layer (1024, 1152) x (1152, 256)"
ADDERS, BYTES = "full-adder bound", "byte-product bound"
"""What this machine allows at most, measured in the same run (benchmarks/bounds.py)."""


def goals(document: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a measured goal; what the document has not is left out.

    Keys: ``work``, ``unit`` (``s`` and ``GiB``: less is better; otherwise more is), ``ours``, ``goal``, ``reached``,
    ``note``, and by name ``elsewhere``, what else the same run measured for that work, and ``bounds``, what nothing on
    this machine can beat.
    """
    results, threads = document["results"], document["threads"]
    rows = [*_layer(results), *_networks(results, threads), *_dataset(results)]
    for name, goal in (("bitline --help", 0.3), ("bitline simulate --images 64, first output", 5.0)):
        rows.append(_row(name, "s", _at(results, "startup", name, "median"), goal))
    return [row for row in rows if row is not None]


def _row(
    work: str,
    unit: str,
    ours: float | None,
    goal: float | None,
    elsewhere: dict[str, float | None] | None = None,
    bounds: dict[str, float | None] | None = None,
    note: str = "",
) -> dict[str, Any] | None:
    if ours is None:
        return None
    reached = None if goal is None else ours <= goal if unit in _LESS_IS_BETTER else ours >= goal
    row = {"work": work, "unit": unit, "ours": ours, "goal": goal, "reached": reached, "note": note}
    for key, values in (("elsewhere", elsewhere), ("bounds", bounds)):
        row[key] = {name: value for name, value in (values or {}).items() if value is not None}
    return row


def _layer(results: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    """The rows of one layer, by one thread."""
    kernel = results.get("kernel", {})
    dense, pruned = (_at(kernel, name, default={}) for name in (DENSE, PRUNED))
    yield _row(
        f"{LAYER_TEXT}, dense, every conversion, 1 thread",
        "s",
        _at(dense, "bitserial, 1 threads", "median"),
        0.05,
        {"plain torch": _at(dense, "plain torch, 1 threads", "median")} | _peer_layers(results, "dense"),
        {ADDERS: _at(dense, "bounds", "full_adder_s")},
    )
    bound = _at(kernel, COUNT_BOUND, "conversions_per_s_and_core")
    rate = _at(dense, "bitserial, 1 threads", "conversions_per_s_and_core")
    if bound and rate:
        counts = _at(dense, "bitserial by population counts, 1 threads", "conversions_per_s_and_core")
        by_counts = {"ours, by population counts": 100 * counts / bound}
        yield _row("the same, of the population-count bound", "%", 100 * rate / bound, 60.0, by_counts)
    yield _row(
        "the same at CP rate 16, ADC as certified",
        "s",
        _at(pruned, "bitserial, 1 threads", "median"),
        0.02,
        {"plain torch": _at(pruned, "plain torch, 1 threads", "median")} | _peer_layers(results, "CP rate 16"),
        {ADDERS: _at(pruned, "bounds", "full_adder_s")},
    )
    for name, layer in (("dense", dense), ("CP rate 16", pruned)):
        yield _row(
            f"the same {'at ' if layer is pruned else ''}{name}, certified engine",
            "s",
            _at(layer, "certified, 1 threads", "median"),
            0.004,
            {
                "bare float32 GEMM": _at(kernel, BARE, "float32 GEMM, 1 threads", "median"),
                "bare torch._int_mm": _at(kernel, BARE, "torch._int_mm, 1 threads", "median"),
                "plain torch": _at(layer, "plain torch, 1 threads", "median"),
            }
            | _peer_layers(results, name),
            {BYTES: _at(layer, "bounds", "byte_product_s")},
        )
    for bits, point in _at(kernel, LAYER_BELOW, default={}).items():
        yield _row(
            f"the same dense, certified engine, ADC {bits} bits ({point['certified_bits']} certified)",
            "s",
            _at(point, "certified, 1 threads", "median"),
            None,
            {"ours, bit-serially": _at(point, "bitserial, 1 threads", "median")},
        )


def _networks(results: dict[str, Any], threads: int) -> Iterator[dict[str, Any] | None]:
    """The rows of whole networks, by all threads, every engine and torch at its best batch size."""
    at = f"{threads} threads"
    for case, goal in ((RESNET20, 250.0), (RESNET18, 5.0)):
        measured = _at(results, "network", case.name, default={})
        rates = {
            name: _at(measured, f"{name}, {at}", "images_per_s")
            for name in ("bitserial", "certified", FLOAT, TUNED, "plain torch")
        }
        adders = _at(results, "kernel", ADDER_BOUND, "full_adders_per_s_and_core")
        macs = _at(results, "kernel", BYTE_BOUND, "macs_per_s_and_core")
        peers = _peer_networks(results, at) if case is RESNET20 else {}
        others = {FLOAT: rates[FLOAT], TUNED: rates[TUNED], "plain torch, products alone": rates["plain torch"]}
        title = case.name.replace(", 32x32", " at CIFAR size").replace(", 224x224", " at 224x224")
        yield _row(
            f"{title}, every conversion, {at}",
            "images/s",
            rates["bitserial"],
            goal,
            peers | others,
            {ADDERS: _over(adders and adders * threads, measured.get("full_adders_per_image"))},
        )
        yield _row(
            f"{title}, certified engine, {at}",
            "images/s",
            rates["certified"],
            rates[FLOAT],
            peers | others,
            {BYTES: _over(macs and macs * threads, measured.get("macs_per_image"))},
        )
        for bits, point in _at(measured, NETWORK_BELOW, default={}).items():
            yield _row(
                f"{title}, certified engine, ADC {bits} bits ({point['certified_bits']} certified), {at}",
                "images/s",
                _at(point, f"certified, {at}", "images_per_s"),
                None,
                {"ours, bit-serially": _at(point, f"bitserial, {at}", "images_per_s")},
            )
    peaks = [case["peak_mib"]["median"] for _, case in _cases(results, "memory", RESNET18.name, "bitserial")]
    yield _row(
        "ResNet-18 at 224x224, every conversion, peak resident memory", "GiB", max(peaks) / 1024 if peaks else None, 2.0
    )


def _dataset(results: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    """The rows of the test images of CIFAR-10: seconds on crossbars; in all there are the other networks too."""
    for engine, how in (("bitserial", "every conversion"), ("certified", "certified engine")):
        if (found := _at(results, "dataset", engine)) is None:
            continue
        identical = "identical to" if found["identical_to_integer"] else "other than"
        yield _row(
            f"{found['images']:,} CIFAR-10 test images through ResNet-20, {how}: on crossbars",
            "s",
            found["phases"]["simulated"],
            None,
            {"torch float32": found["phases"]["float"], "the exact integer network": found["phases"]["integer"]},
            note=f"{found['seconds']:.1f} s in all; top-1 {100 * found['simulated_top1']:.2f} %, {identical} the "
            f"integer network; {found['saturations']} of {found['conversions']:.4g} conversions saturated",
        )


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of Markdown; a ratio above 1 says how many times better ours is."""
    lines = [
        "| work | elsewhere, in the same run | goal | ours | ours against each | of what this machine allows |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        unit, ours = row["unit"], row["ours"]
        names, bounds = row["elsewhere"].items(), row.get("bounds", {}).items()
        less = unit in _LESS_IS_BETTER
        ratios = "; ".join(f"{name} {_digits(value / ours if less else ours / value)}x" for name, value in names)
        seen = "; ".join(f"{name} {_digits(value)} {unit}" for name, value in names)
        allowed = "; ".join(
            f"{100 * (value / ours if less else ours / value):.0f} % ({name}: {_digits(value)} {unit})"
            for name, value in bounds
        )
        mark = {True: "", False: " (not reached)", None: ""}[row["reached"]]
        note = f"; {row['note']}" if row.get("note") else ""
        goal = "-" if row["goal"] is None else f"{_digits(row['goal'])} {unit}"
        lines.append(
            f"| {row['work']} | {seen or '-'} | {goal} | {_digits(ours)} {unit}{mark}{note} | {ratios or '-'} | "
            f"{allowed or '-'} |"
        )
    return lines


def _digits(value: float) -> str:
    """Three significant digits, no exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.6f}"


def _at(results: Any, *path: str, default: Any = None) -> Any:
    """The value at a path of names, or ``default``."""
    for name in path:
        if not isinstance(results, dict) or name not in results:
            return default
        results = results[name]
    return results


def _over(rate: float | None, work: float | None) -> float | None:
    """Units of work a second, where both were measured."""
    return None if rate is None or work is None else rate / work


def _cases(results: dict[str, Any], section: str, *words: str) -> list[tuple[str, dict[str, Any]]]:
    """Named measurements of a section whose names hold all these words."""
    found = _at(results, section, default={}).items()
    return [(name, value) for name, value in found if all(word in name for word in words)]


def _peer_layers(results: dict[str, Any], layer: str) -> dict[str, float | None]:
    """Seconds of each peer's fastest configuration, as shipped and, where there is one, patched."""
    cases = {
        "CrossSim as shipped": ("crosssim", f"layer {layer}", "as shipped"),
        "CrossSim patched": ("crosssim", f"layer {layer}", "patched"),
        "NeuroSim 1.5": ("neurosim", f"layer {layer}"),
    }
    return {
        name: min((_at(case, "1 threads", "median") for _, case in _cases(results, *words)), default=None)
        for name, words in cases.items()
    }


def _peer_networks(results: dict[str, Any], threads: str) -> dict[str, float | None]:
    cases = {
        "CrossSim as shipped": ("crosssim", "ResNet-20", "as shipped"),
        "CrossSim patched": ("crosssim", "ResNet-20", "patched"),
        "NeuroSim 1.5": ("neurosim", "ResNet-20"),
    }
    return {
        name: max((_at(case, threads, "images_per_s") for _, case in _cases(results, *words)), default=None)
        for name, words in cases.items()
    }
