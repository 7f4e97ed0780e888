"""TinyADC's published figures beside what this model gives: Table III, and the savings of Figures 4 and 5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bitline._version import __version__
from bitline.chip.mapping import chip_of
from bitline.chip.published import CLAIMS, bracket, own_adc
from bitline.chip.published import table3 as table3_rows
from bitline.hardware import Hardware, load_hardware
from bitline.layers import Operation
from bitline.report.published_text import SAVINGS_CAPTION, savings_markdown, table3_markdown
from bitline.report.schema import dump_json
from bitline.report.writer import OutputFolder

__all__ = ["CLAIM_NETWORKS", "savings", "table3"]

CLAIM_NETWORKS: dict[str, tuple[str, tuple[int, int, int], int]] = {
    "fig4_imagenet_resnet18": ("resnet18", (3, 224, 224), 1000),
    "fig4_cifar10_resnet18": ("resnet18_cifar", (3, 32, 32), 10),
    "fig4_cifar10_vgg16": ("vgg16_cifar", (3, 32, 32), 10),
    "fig5_imagenet_resnet18": ("resnet18", (3, 224, 224), 1000),
    "fig5_cifar10_resnet18": ("resnet18_cifar", (3, 32, 32), 10),
    "fig5_cifar100_vgg16": ("vgg16_cifar", (3, 32, 32), 100),
}
"""The network each published saving is about: architecture, input, classes."""


def table3(
    hw: str | Path | Hardware = "isaac", *, out: str | Path | None = None, command: str = "bitline.published.table3()"
) -> dict[str, Any]:
    """TinyADC's Table III: its constants, and what each known assumption gives for its last row.

    Returns
    -------
    dict
        ``rows`` (:class:`bitline.chip.published.Table3Row`), the paper's gain and the best that any row comes to it.
    """
    folder = _folder(out)
    hardware = _load(hw)
    rows = [row.to_json() for row in table3_rows(hardware)]
    closest = min((row for row in rows if row["distance"] is not None), key=lambda row: row["distance"])
    document = _document(command, hardware) | {
        "title": "TinyADC's Table III",
        "rows": rows,
        "closest": closest["name"],
    }
    return _write_pages(folder, document, table3_markdown(document))


def savings(
    hw: str | Path | Hardware = "tinyadc",
    *,
    out: str | Path | None = None,
    command: str = "bitline.published.savings()",
) -> dict[str, Any]:
    """TinyADC's published savings (Figures 4 and 5) between the least and the most that this model gives.

    Returns
    -------
    dict
        ``claims``: for every claim the network, the published savings, the computed ones and the reason for the
        distance (:class:`bitline.chip.published.Bracket`).
    """
    from bitline.network.architectures import build_architecture
    from bitline.network.dataflow import operations

    folder = _folder(out)
    hardware = _load(hw)
    chip_of(hardware)
    graphs: dict[tuple[str, tuple[int, int, int], int], Sequence[Operation]] = {}
    claims = []
    for key in CLAIMS:
        network = CLAIM_NETWORKS[key]
        if network not in graphs:
            arch, shape, classes = network
            graphs[network] = operations(build_architecture(arch, classes=classes).module, shape)
        found = bracket(key, graphs[network], hardware).to_json()
        claims.append({"key": key, "network": network[0], "input_shape": list(network[1]), **found})
    document = _document(command, hardware) | {
        "title": "TinyADC's Figures 4 and 5",
        "claims": claims,
        "own_adc": [asdict(found) for found in own_adc(hardware)],
    }
    return _write_pages(folder, document, savings_markdown(document))


def _document(command: str, hw: Hardware) -> dict[str, Any]:
    provenance = {"version": __version__, "hardware_sha256": hw.sha256()}
    return {"schema_version": 1, "command": command, "provenance": provenance, "hardware": hw.name, "files": []}


def _load(hw: str | Path | Hardware) -> Hardware:
    return hw if isinstance(hw, Hardware) else load_hardware(hw)


def _folder(out: str | Path | None) -> OutputFolder | None:
    if out is None:
        return None
    folder = OutputFolder(out)
    folder.check()
    return folder


def _write_pages(folder: OutputFolder | None, document: dict[str, Any], page: str) -> dict[str, Any]:
    if folder is not None:
        with folder:
            if "claims" in document:
                from bitline.report.chip_figures import savings_figure
                from bitline.report.figure_style import render

                figure = savings_figure(document["claims"])
                for kind in ("png", "svg"):
                    folder.write(f"figures/savings.{kind}", render(figure, kind))
                page += f"\n![{SAVINGS_CAPTION}](figures/savings.png)\n\n*{SAVINGS_CAPTION}*\n"
            folder.write("report.md", page)
            document = {**document, "files": sorted([*folder.names, "report.json"])}
            folder.write("report.json", dump_json(document))
    return document
