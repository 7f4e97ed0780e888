"""The report in a few lines that a person of the field understands at once; text and Markdown both show them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from bitline.printable import shorten
from bitline.report.coverage import coverage_lines
from bitline.report.price_text import efficiency_text, energy_text, normalised_text, price_text
from bitline.report.schema import after_first, nonzero_share, total
from bitline.report.tables import number, paper_lossless, percent

__all__ = ["contradictions", "summary_lines", "title"]

_NAMES_SHOWN = 3
_Report = Mapping[str, Any]


def title(report: _Report) -> str:
    """What ran on what, in one line."""
    network = report["network"]
    checkpoint = f" ({network['checkpoint']})" if network["checkpoint"] else ""
    return f"{network['architecture']}{checkpoint} on {report['hardware']['name']}"


def contradictions(report: _Report) -> list[str]:
    """Return what in a report cannot be true at once: a proof that the run disproved.

    A non-empty list means a bug or a damaged file, never a property of the design; the command line treats it as a
    failed verification.
    """
    found = []
    for layer in report["layers"]:
        if layer["lossless"] and layer["saturations"]:
            found.append(f"{layer['name']} is certified lossless but saturated {number(layer['saturations'])} times")
        bound = layer["column_sum_bound"]
        if bound is not None and layer["max_column_sum"] is not None and layer["max_column_sum"] > bound:
            found.append(f"{layer['name']} reached the column sum {layer['max_column_sum']}, above its bound {bound}")
    accuracy = report["accuracy"]
    if accuracy and accuracy["identical_to_integer"] is False and not total(report["layers"], "saturations"):
        found.append("no conversion saturated but the outputs differ from the exact integer network's")
    if report["certificate"]["lossless"] != all(layer["lossless"] for layer in report["layers"]):
        found.append("the certificate's verdict is not that of its layers")
    return found


def summary_lines(report: _Report) -> list[tuple[str, str]]:
    """Return (label, sentence) pairs, most important first; what was not done is left out.

    Parameters
    ----------
    report : mapping
        A validated report.
    """
    lines = [("FAILED", problem) for problem in contradictions(report)]
    lines += [("network", _network(report)), ("hardware", _hardware(report))]
    if report["data"]:
        lines.append(("data", _data(report["data"])))
    lines += [("proof", _proof(report)), ("ADC bits", _bits(report))]
    if report["accuracy"]:
        lines.append(("accuracy", _accuracy(report)))
    conversions, saturations = total(report["layers"], "conversions"), total(report["layers"], "saturations")
    if conversions is not None and saturations is not None:
        share = f" ({100 * saturations / conversions:.2g}%)" if saturations else ""
        lines.append(("saturations", f"{number(saturations)} of {number(conversions)} conversions{share}"))
    if report["timing"]:
        lines.append(("speed", _speed(report)))
    if report["performance"]:
        lines += [("chip", _chip(report)), ("energy", energy_text(report)), ("price", price_text(report))]
        lines.append(("efficiency", efficiency_text(report)))
        if report["normalised"]:
            lines.append(("normalised", normalised_text(report["normalised"])))
    lines += [("coverage", line) for line in coverage_lines(report["coverage"])]
    if report["kept_in_torch"]:
        lines.append(("in torch", _kept(report["kept_in_torch"])))
    return lines + [("note", note) for note in report["notes"]]


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(shorten(name) for name in names[:_NAMES_SHOWN]) + more


def _count(amount: int, singular: str) -> str:
    return f"{number(amount)} {singular}{'' if amount == 1 else 's'}"


def _network(report: _Report) -> str:
    network, layers = report["network"], report["layers"]
    parts = [network["architecture"]]
    if network["parameters"] is not None:
        parts.append(f"{number(network['parameters'])} parameters")
    parts.append(f"{_count(len(layers), 'layer')} on {_count(total(layers, 'crossbars') or 0, 'crossbar')}")
    left_out = total(layers, "crossbars_left_out")
    if left_out:
        parts[-1] += f" ({number(left_out)} left out: zero weights)"
    share = nonzero_share(layers)
    if share is not None:
        parts.append(f"{percent(share)} of the weights are not zero")
    if layers:
        column = f"a column of {report['hardware'].get('active_rows') or report['hardware']['rows']} rows"
        nonzeros = max(layer["nonzeros_max"] for layer in after_first(layers))
        most = f"at most {_count(nonzeros, 'non-zero')} in {column}"
        if network["cp_rate"] is not None:
            most = f"CP rate {number(network['cp_rate'])}, {most}"
        parts.append(most + (" after the first layer" if len(layers) > 1 else ""))
    return "; ".join(parts)


def _hardware(report: _Report) -> str:
    hw = report["hardware"]
    adc = hw["adc_bits"] if isinstance(hw["adc_bits"], int) else f"{hw['adc_bits']} per {hw['adc_scope']}"
    turns = f", {hw['active_rows']} rows on at once" if hw.get("active_rows") else ""
    digits = f" of {hw['digits']} digits" if hw.get("digits") else ""
    return (
        f"{hw['name']}: {hw['rows']} x {hw['columns']} crossbars{turns}, {hw['cell_bits']}-bit cells, "
        f"{hw['dac_bits']}-bit DACs, {hw['input_bits']}-bit activations, {hw['weight_bits']}-bit weights, "
        f"{hw['encoding']} encoding{digits}, {hw['readout']} readout, ADC bits: {adc}"
    )


def _data(data: _Report) -> str:
    images = number(data["images"])
    if data["available"] is not None and data["available"] != data["images"]:
        images += f" of {number(data['available'])}"
    norm = data["normalisation"]
    numbers = [f"{word} {' '.join(f'{value:.4g}' for value in norm[word])}" for word in ("mean", "std") if norm[word]]
    detail = f" ({', '.join(numbers)}, {norm['scale']} scale)" if numbers else ""
    number_of = f"{number(data['calibration_images'])} images of " if data["calibration_images"] is not None else ""
    return (
        f"{data['name']} [{data['spec']}]: {images} images; normalisation {norm['name']}{detail}; "
        f"calibrated on {number_of}{data['calibration_source']}"
    )


def _proof(report: _Report) -> str:
    layers = report["layers"]
    configured = _range([layer["adc_bits"]["configured"] for layer in layers] or [0])
    if report["certificate"]["lossless"]:
        return f"LOSSLESS at {configured} bits: no input can saturate any conversion (proven from the weights)"
    refuted = [layer for layer in layers if not layer["lossless"]]
    needed = _range([layer["adc_bits"]["weight_aware"] for layer in refuted] or [0])
    return (
        f"REFUTED at {configured} bits: some input saturates {len(refuted)} of {_count(len(layers), 'layer')} "
        f"({_list([layer['name'] for layer in refuted])}), which need {needed} bits; certificate.json has the inputs"
    )


def _bits(report: _Report) -> str:
    bits = report["certificate"]["adc_bits"]
    text = f"{bits['weight_aware']} needed by these weights, {bits['equation']} by Eq. (1)"
    if bits["paper"] is None:
        return text
    short = [layer["name"] for layer in report["layers"] if paper_lossless(layer) is False]
    verdict = f"NOT lossless in {_count(len(short), 'layer')}: {_list(short)}" if short else "enough for these weights"
    return f"{text}, {bits['paper']} by the paper's count ({verdict})"


def _accuracy(report: _Report) -> str:
    accuracy = report["accuracy"]
    bits = report["hardware"]["input_bits"], report["hardware"]["weight_bits"]
    integer = f"{bits[0]}-bit integer" if bits[0] == bits[1] else f"{bits[0]}/{bits[1]}-bit integer"
    parts = []
    for top in ("top1", "top5"):
        kinds = (("float", f"float_{top}"), (integer, f"integer_{top}"), ("simulated", f"simulated_{top}"))
        shown = [f"{word} {percent(accuracy[key])}" for word, key in kinds if accuracy[key] is not None]
        if shown:
            parts.append(f"{top[:3]}-{top[3]} {', '.join(shown)}")
    text = "; ".join(parts) if parts else "no labels"
    identical, differing = accuracy["identical_to_integer"], accuracy["differing_images"]
    if identical is not None:
        text += "; simulated outputs " + (
            "identical to the exact integer network's, bit for bit"
            if identical
            else "DIFFER from the exact integer network's" + (f" on {number(differing)} images" if differing else "")
        )
    return f"{text} ({number(accuracy['images'])} images)"


def _speed(report: _Report) -> str:
    timing = report["timing"]
    parts = [f"{number(round(timing['seconds'], 1))} s in all"]
    if timing["images_per_s"] is not None:
        parts.append(f"crossbars simulated at {number(timing['images_per_s'])} images/s")
    if timing["conversions_per_s"] is not None:
        parts.append(f"{timing['conversions_per_s']:.3g} conversions/s")
    if timing["threads"] is not None:
        parts.append(_count(timing["threads"], "thread"))
    if report["provenance"]["engine"]:
        parts.append(f"{report['provenance']['engine']} engine")
    if "processor" in timing["machine"]:
        parts.append(str(timing["machine"]["processor"]))
    return ", ".join(parts)


def _chip(report: _Report) -> str:
    performance = report["performance"]
    slowest = [layer["name"] for layer in performance["layers"] if layer["bottleneck"]]
    copies = max(performance["replication"].values(), default=1)
    calls = len(performance["layers"]) - len(report["layers"])
    why = [*(["copies"] if copies > 1 else []), *([f"{number(calls)} more calls of layers"] if calls > 0 else [])]
    return (
        f"{number(performance['images_per_s'])} images/s, latency {number(performance['latency_us'])} us; "
        f"{_count(performance['crossbars'], 'crossbar')}{' with ' + ' and '.join(why) if why else ''} in "
        f"{_count(performance['tiles'], 'tile')}" + (f"; bottleneck {_list(slowest)}" if slowest else "")
    )


def _kept(entries: list[_Report]) -> str:
    kinds = Counter(entry["kind"] for entry in entries)
    return ", ".join(f"{kind} ({amount})" if amount > 1 else kind for kind, amount in sorted(kinds.items()))
