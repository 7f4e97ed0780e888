"""A benchmark document as a page of tables, Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from benchmarks.bounds import ADDER_BOUND, BYTE_BOUND, COUNT_BOUND
from benchmarks.goals import table
from benchmarks.kernel import BARE, DENSE, PRUNED, SATURATING
from benchmarks.kernel import BELOW as LAYER_BELOW
from benchmarks.network import BELOW as NETWORK_BELOW

__all__ = ["page"]


def page(document: dict[str, Any], title: str = "Benchmarks, one run") -> str:
    """All sections that were run; medians, with the least and the largest of the repeats."""
    machine, results = document["machine"], document["results"]
    facts = ", ".join(f"{name} {value}" for name, value in machine.items())
    seconds = ", ".join(f"{name} {value:.0f}" for name, value in document["seconds"].items())
    lines = [
        f"# {title}",
        "",
        f"Bitline {document['bitline']}; {facts}; {document['threads']} threads.",
        f"Load before {document['load_before']}, after {document['load_after']}. Seconds: {seconds}.",
        "What is measured, and how: docs/performance.md.",
        "",
        "## Goals",
        "",
        *table(document["goals"]),
    ]
    sections = {
        "kernel": _kernel,
        "network": _network,
        "scaling": _scaling,
        "memory": _memory,
        "startup": _startup,
        "dataset": _dataset,
    }
    for name, section in sections.items():
        if name in results:
            lines += ["", *section(results[name])]
    return "\n".join(lines) + "\n"


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _seconds(measured: dict[str, float]) -> str:
    return f"{measured['median']:.4g} ({measured['least']:.4g} to {measured['largest']:.4g})"


def _measured(results: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What was repeated, by name."""
    for name, value in results.items():
        if isinstance(value, dict) and "median" in value:
            yield name, value


def _kernel(results: dict[str, Any]) -> Iterator[str]:
    yield "## The layer (1024, 1152) x (1152, 256)"
    yield ""
    yield (
        f"By one core: {results[COUNT_BOUND]['conversions_per_s_and_core']:.3g} conversions/s by population counts, "
        f"{results[ADDER_BOUND]['full_adders_per_s_and_core']:.3g} full adders/s of 512 lanes, "
        f"{results[BYTE_BOUND].get('macs_per_s_and_core', float('nan')):.3g} products of bytes/s. "
        + "; ".join(f"{name} {_seconds(value)} s" for name, value in _measured(results[BARE]))
        + "."
    )
    for case in (DENSE, SATURATING, PRUNED):
        bounds = results[case]["bounds"]
        yield ""
        products = bounds.get("byte_product_s", float("nan"))
        yield f"{case}: full adders alone take {bounds['full_adder_s']:.4g} s of a core, byte products {products:.4g}."
        yield ""
        yield from _rows(
            ("means", "seconds", "conversions/s and core", "saturations"),
            (
                (name, _seconds(value), f"{value['conversions_per_s_and_core']:.3g}", f"{value['saturations']:,}")
                for name, value in _measured(results[case])
            ),
        )
    yield ""
    yield "Fewer ADC bits than are certified:"
    yield ""
    yield from _below(results[LAYER_BELOW])
    for over, points in results["sweep"].items():
        yield ""
        names = [name for name, _ in _measured(next(iter(points.values())))]
        yield from _rows(
            (over, "ADC bits", *(f"{name}, conversions/s" for name in names)),
            (
                (value, str(point["adc_bits"]), *(f"{point[name]['conversions_per_s_and_core']:.3g}" for name in names))
                for value, point in points.items()
            ),
        )


def _below(points: dict[str, dict[str, Any]]) -> Iterator[str]:
    names = [name for name, _ in _measured(next(iter(points.values())))]
    yield from _rows(
        ("ADC bits", "certified", "saturations", *(f"{name}, s" for name in names)),
        (
            (
                bits,
                str(point["certified_bits"]),
                f"{point[names[0]]['saturations']:,}",
                *(_seconds(point[name]) for name in names),
            )
            for bits, point in points.items()
        ),
    )


def _network(results: dict[str, Any]) -> Iterator[str]:
    yield "## Networks"
    for name, measured in results.items():
        yield ""
        yield f"{name}: {measured['macs_per_image']:,} multiply-accumulates an image, {measured['images']} images."
        yield ""
        yield from _rows(
            ("means", "images/s", "images a processor second", "images a call", "seconds"),
            (
                (
                    means,
                    f"{value['images_per_s']:.4g}",
                    f"{value['images_per_processor_s']:.4g}" if "images_per_processor_s" in value else "",
                    str(value.get("batch", "")),
                    _seconds(value),
                )
                for means, value in _measured(measured)
            ),
        )
        if NETWORK_BELOW in measured:
            yield ""
            yield "Fewer ADC bits than are certified:"
            yield ""
            yield from _below(measured[NETWORK_BELOW])


def _scaling(results: dict[str, Any]) -> Iterator[str]:
    yield "## Growth"
    for over, points in results.items():
        yield ""
        names = [name for name, _ in _measured(next(iter(points.values())))]
        what = {"images": "images in one call, ResNet-20", "depth": "ResNet of depth"}[over]
        yield from _rows(
            (what, *(f"{name}, images/s" for name in names)),
            ((value, *(f"{point[name]['images_per_s']:.4g}" for name in names)) for value, point in points.items()),
        )


def _memory(results: dict[str, Any]) -> Iterator[str]:
    yield "## Peak resident memory"
    yield ""
    yield from _rows(("case", "MiB"), ((name, f"{case['peak_mib']['median']:.0f}") for name, case in results.items()))


def _startup(results: dict[str, Any]) -> Iterator[str]:
    yield "## Start-up"
    yield ""
    yield from _rows(("", "seconds"), ((name, _seconds(value)) for name, value in _measured(results)))


def _dataset(results: dict[str, Any]) -> Iterator[str]:
    yield "## The test images of CIFAR-10 through a trained ResNet-20"
    yield ""
    columns = ("images", "float_top1", "integer_top1", "simulated_top1", "identical_to_integer", "saturations")
    yield from _rows(
        ("engine", "images/s on crossbars", "seconds in all", "phases, s", *columns),
        (
            (
                engine,
                f"{run['images_per_s']:.4g}",
                f"{run['seconds']:.1f}",
                ", ".join(f"{phase} {value:.1f}" for phase, value in run["phases"].items()),
                *(f"{run[column]}" for column in columns),
            )
            for engine, run in results.items()
        ),
    )
