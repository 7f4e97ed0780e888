"""A pruning run as text: one line an epoch while it runs, and the result with its bit counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitline.report.tables import Table, plain_table

__all__ = ["epoch_line", "pruning_text"]


def epoch_line(seen: Mapping[str, Any]) -> str:
    """One epoch (:class:`bitline.pruner.PruneProgress`'s fields) for a terminal or a log."""
    return (
        f"{seen['phase']} {seen['epoch']}/{seen['epochs']}  loss {seen['loss']:.4f}  "
        f"training accuracy {100 * seen['accuracy']:.2f} %  violation {seen['violation']:,}  "
        f"||W-Z||/||W|| {seen['distance']:.4f}  {seen['seconds']:.1f} s, {seen['seconds_left']:.0f} s left"
    )


def pruning_text(report: Mapping[str, Any]) -> str:
    """The result of :func:`bitline.prune` for a terminal.

    Parameters
    ----------
    report : mapping
        What :func:`bitline.prune` returns.
    """
    accuracy, certificate = report["accuracy"], report["certificate"]
    pruning = report["recipe"]["pruning"]
    weights = sum(layer["weights"] for layer in report["layers"])
    nonzeros = sum(layer["nonzeros"] for layer in report["layers"])
    measured = (
        "Accuracy: not measured, for no data was opened (--data)."
        if accuracy is None
        else f"Accuracy on {accuracy['test_images']:,} test images: {100 * accuracy['before']:.2f} % before, "
        f"{100 * accuracy['after']:.2f} % after."
    )
    solver = pruning["solver"] if report["recipe"]["training"]["epochs"] else "projection alone"
    lines = [
        f"{report['out']}: {pruning['method']} by {solver}, constraint verified from the file "
        f"(violation {report['violation']}).",
        f"{nonzeros:,} of {weights:,} weights of {len(report['layers'])} layers are not zero "
        f"({weights / max(1, nonzeros):.2f}x fewer).",
        measured,
        *(f"{note[:1].upper()}{note[1:]}." for note in report["notes"]),
        f"sha256 {report['sha256']}",
        "",
        "ADC bits",
    ]
    rows = []
    for what, title in (("pruned", "pruned layers"), ("chip", "whole chip")):
        for when in ("before", "after"):
            bits = certificate[when][what]
            paper = "-" if bits["paper"] is None else str(bits["paper"])
            rows.append([title, when, str(bits["equation"]), paper, str(bits["weight_aware"])])
    text = (
        "\n".join(lines)
        + "\n"
        + plain_table(Table(["", "", "equation", "paper", "proven"], rows, [True, True, False, False, False]))
    )
    after = certificate["after"]
    if after["pruned"]["paper"] is not None:
        verdict = "enough: proven lossless" if after["paper_lossless"] else "NOT enough for every input"
        text += f"The paper's count is {verdict} in the pruned layers.\n"
    if after["exempt"]:
        names = ", ".join(f"{name} {bits}" for name, bits in after["exempt"].items())
        text += f"Not pruned, proven bits: {names}\n"
    target = report["adc_target"]
    if target is not None:
        text += f"\nFor {target['adc_bits']} proven bits; {target['binds']} binds: it keeps least of its weights.\n"
        body = [
            [
                layer["name"],
                str(layer["nonzeros"]),
                str(layer["uniform_nonzeros"]),
                f"{100 * layer['kept']:.1f} %",
                str(layer["proven"]),
            ]
            for layer in target["layers"]
        ]
        heads = ["layer", "non-zeros (l)", "l of plain CP", "kept", "proven"]
        text += plain_table(Table(heads, body, [True, False, False, False, False]))
    return text
