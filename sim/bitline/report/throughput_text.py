"""What ``bitline throughput`` shows: text for a terminal, Markdown and CSV, from the validated report."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bitline.printable import clean, shorten
from bitline.report.coverage import coverage_lines
from bitline.report.markdown import escape, escaped, markdown_table
from bitline.report.price_text import efficiency_text, energy_text, normalised_text, off_tile, on_tiles, price_text
from bitline.report.tables import Table, number, plain_table

__all__ = [
    "network_lines",
    "throughput_csv",
    "throughput_markdown",
    "throughput_text",
]

_Row = Mapping[str, Any]
_WIDTH = 120
_LEVELS = {"ima": "IMA", "tile": "tile", "chip": "chip"}
CAPTIONS = {
    "breakdown": "Area and power of the tiles by component; what the chip has besides them stands at the left.",
    "occupancy": "Share of the time each layer's crossbars compute in the steady state, and what they wait for.",
    "normalised": "Area and power relative to the non-pruned design, by the resolution of the ADCs after the first "
    "layer (in the style of TinyADC's Fig. 4); the last bars are this design.",
    "efficiency": "Power efficiency against the resolution of all ADCs, for every rule by which they scale.",
}


def _designs(report: _Row) -> list[_Row]:
    return [report, *report["others"]]


def _names(designs: Sequence[_Row]) -> list[str]:
    """Names for column headings, told apart where two descriptions bear one name."""
    names = [shorten(design["hardware"]["name"]) for design in designs]
    return [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, start=1)]


def _exact(value: float) -> str:
    """A figure of a component table, without the noise of binary arithmetic and without exponents where it can be."""
    fixed = f"{value:.5f}".rstrip("0").rstrip(".")
    return fixed if value == 0 or abs(float(fixed) / value - 1) < 1e-3 else f"{value:.4g}"


def _two_places(value: float) -> str:
    """Two decimal places, or four digits where they would leave less than three."""
    return f"{value:.2f}" if value >= 1 else f"{value:.4g}"


def _share(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


# --- peak ------------------------------------------------------------------------------------------------------------


def _component_table(designs: Sequence[_Row]) -> Table:
    """Every component with its power and area in each design."""
    lowest = _levels_there_are(designs)[0]
    found: dict[tuple[str, str], dict[int, _Row]] = {}
    for level in _LEVELS:
        for i, design in enumerate(designs):
            for row in design["peak"]["components"]:
                if row["level"] == level:
                    found.setdefault((row["name"], level), {})[i] = row
    names = _names(designs)
    headings = ["component", "in each"]
    for name in names:
        headings += [f"{name}\nunits", "power\n(mW)", "area\n(mm2)"]
    rows = []
    for (name, level), cells in found.items():
        line = [shorten(name.replace("_", " ")), _LEVELS[max(level, lowest, key=list(_LEVELS).index)]]
        for i in range(len(designs)):
            row = cells.get(i)
            line += (
                ["-"] * 3 if row is None else [f"{row['units']:g}", _exact(row["power_mw"]), _exact(row["area_mm2"])]
            )
        rows.append(line)
    return Table(headings, rows, [True, True, *[False] * (3 * len(designs))])


def _levels_there_are(designs: Sequence[_Row]) -> list[str]:
    """Levels of which some design has several, or components there; the chip always. A macro has no others."""
    names = list(_LEVELS)
    totals = [design["peak"]["totals"] for design in designs]
    return [
        level
        for level, above in zip(names, [*names[1:], None], strict=True)
        if above is None or any(total[level] != total[above] for total in totals)
    ]


def _source_table(designs: Sequence[_Row]) -> Table:
    """Where every component's figures were read; designs that share a source share a line."""
    names = _names(designs)
    found: dict[tuple[str, str], list[str]] = {}
    for name, design in zip(names, designs, strict=True):
        for row in design["peak"]["components"]:
            found.setdefault((row["name"], row["source"]), []).append(name)
    several = len(designs) > 1
    rows = [
        [shorten(name.replace("_", " ")), clean(source), *([", ".join(users)] if several else [])]
        for (name, source), users in sorted(found.items(), key=lambda item: item[0][0])
    ]
    headings = ["component", "source", *(["designs"] if several else [])]
    return Table(headings, rows, [True] * len(headings))


def _peak_table(designs: Sequence[_Row]) -> Table:
    """The totals and peak figures of each design, and what its paper prints."""
    columns: list[tuple[str, dict[str, str]]] = []
    for name, design in zip(_names(designs), designs, strict=True):
        peak = design["peak"]
        totals, share = peak["totals"], peak["adc_share_of_tile"]
        columns.append(
            (
                name,
                {
                    "IMA (mW)": f"{totals['ima']['power_mw']:.2f}",
                    "IMA (mm2)": f"{totals['ima']['area_mm2']:.5f}",
                    "tile (mW)": f"{totals['tile']['power_mw']:.2f}",
                    "tile (mm2)": f"{totals['tile']['area_mm2']:.5f}",
                    "chip (W)": _two_places(peak["power_w"]),
                    "chip (mm2)": _two_places(peak["area_mm2"]),
                    "crossbars": number(peak["crossbars"]),
                    "cycle (ns)": f"{peak['cycle_ns']:g}",
                    "peak rate (TOPS)": f"{peak['tops']:.3f}",
                    "GOPS/W": f"{peak['gops_per_w']:.1f}",
                    "GOPS/s/mm2": f"{peak['gops_per_s_mm2']:.1f}",
                    "ADC share of tile power": _share(share["power"]),
                    "ADC share of tile area": _share(share["area"]),
                    "ADC bits": str(peak["adc_bits"]),
                    "bits of a full column": str(peak["full_column_bits"]),
                    "ADC law": peak["adc_law"],
                    "numbers (bits)": f"{design['hardware']['input_bits']} x {design['hardware']['weight_bits']}",
                    "encoding": design["hardware"]["encoding"],
                },
            )
        )
        printed = peak["published"]
        if printed is not None:
            columns.append(
                (
                    printed["name"].replace(", ", ",\n"),
                    {
                        "IMA (mW)": f"{printed['ima_power_mw']:g}",
                        "IMA (mm2)": f"{printed['ima_area_mm2']:g}",
                        "tile (mW)": f"{printed['tile_power_mw']:g}",
                        "tile (mm2)": f"{printed['tile_area_mm2']:g}",
                        "chip (W)": f"{printed['chip_power_w']:g}",
                        "chip (mm2)": f"{printed['chip_area_mm2']:g}",
                        "peak rate (TOPS)": f"{printed['tops']:g}",
                        "GOPS/W": f"{printed['gops_per_w']:g}",
                        "GOPS/s/mm2": f"{printed['gops_per_s_mm2']:g}",
                    },
                )
            )
    missing = tuple(f"{_LEVELS[level]} (" for level in _LEVELS if level not in _levels_there_are(designs))
    keys = [key for key in columns[0][1] if not key.startswith(missing)]
    rows = [[key, *(cells.get(key, "-") for _, cells in columns)] for key in keys]
    return Table(["", *(name for name, _ in columns)], rows, [True, *[False] * len(columns)])


def _spread(design: _Row, what: str = "") -> list[str]:
    """The least and the most that ADC laws give; nothing where they agree, as at the printed resolution."""
    spread = design.get("adc_law_spread")
    if not spread or len(spread["laws"]) < 2:
        return []
    parts = []
    for key, unit in (("power_w", "W"), ("area_mm2", "mm2"), ("energy_uj", "uJ an image")):
        if spread.get(key):
            least, most = spread[key]
            if most > least * (1 + 1e-6):
                parts.append(f"{number(least)} to {number(most)} {unit}")
    if not parts:
        return []
    laws = ", ".join(law.replace("_", " ") for law in spread["laws"])
    return [f"{what}{', '.join(parts)} over the ADC laws that know these bits ({laws})"]


def _peak_notes(designs: Sequence[_Row]) -> list[str]:
    notes = []
    for name, design in zip(_names(designs), designs, strict=True):
        peak = design["peak"]
        notes.append(
            f"{name}: {peak['adc_bits']}-bit ADCs ({peak['adc_bits_from']}), scaled by the {peak['adc_law']} law"
        )
        notes += [f"{name}: {line}" for line in _spread(design)]
        if not peak["holds_full_columns"]:
            notes.append(
                f"{name}: THE ADC DOES NOT HOLD A FULL COLUMN, whose sum takes {peak['full_column_bits']} bits: the "
                "peak figures are of weights whose columns sum to less, as a certificate shows, or of saturated results"
            )
        printed = peak["published"]
        if printed is not None:
            notes.append(
                f"{printed['name']}: {printed['source']}; our {peak['tops']:.3f} TOPS over the printed totals of "
                f"{printed['chip_power_w']:g} W and {printed['chip_area_mm2']:g} mm2 are "
                f"{printed['gops_per_w_of_printed_power']:.1f} GOPS/W and "
                f"{printed['gops_per_s_mm2_of_printed_area']:.1f} GOPS/s/mm2"
            )
    return notes


# --- network ---------------------------------------------------------------------------------------------------------


def network_lines(report: _Row, design: _Row) -> list[tuple[str, str]]:
    """Return (label, sentence) pairs on a network on one design, most important first.

    Parameters
    ----------
    report : mapping
        A validated throughput report of a network.
    design : mapping
        The report itself, or one of its ``others``.
    """
    performance, normalised = design["performance"], design["normalised"]
    breakdown = design["breakdown"]
    network, mapped = report["network"], performance["crossbars"] + performance["dropped_crossbars"]
    shape = "x".join(map(str, network["input_shape"]))
    lines = [
        (
            "network",
            f"{network['architecture']} at {shape}: {network['matrix_layers']} matrix layers, "
            f"{network['macs'] / 1e9:.4g} GMACs an image; weights: {network['weights']}",
        ),
        *(("coverage", line) for line in coverage_lines(network.get("coverage"))),
        ("bottleneck", design["bottleneck"]),
        (
            "speed",
            f"{number(performance['images_per_s'])} images/s, first image after "
            f"{number(performance['latency_us'])} us; {number(performance['gops'])} GOPS achieved",
        ),
        *_gates(performance),
        ("price", price_text(design)),
        ("energy", energy_text(design)),
        (
            "efficiency",
            f"{efficiency_text(design)}, on this network; peak {number(design['peak']['gops_per_s_mm2'])} and "
            f"{number(design['peak']['gops_per_w'])} of a whole chip",
        ),
        (
            "chip",
            f"{_count(performance['crossbars'], 'crossbar')} of all copies in "
            f"{_count(performance['tiles'], 'tile')} on {_count(performance['chips'], 'chip')}; "
            f"{_share(performance['crossbar_utilisation'])} of the tiles' crossbars used, "
            f"{_share(performance['cell_utilisation'])} of their cells; "
            f"{number(performance['dropped_crossbars'])} left out of {number(mapped)}: zero weights",
        ),
        ("ADCs", _adcs(design)),
        *(("uncertainty", line) for line in _spread(design, "tiles alone ")),
        ("normalised", normalised_text(normalised)),
        ("power", _largest(breakdown["power_w"], breakdown, "W")),
        ("area", _largest(breakdown["area_mm2"], breakdown, "mm2")),
    ]
    return lines + [("note", note) for note in design["notes"]]


def _count(amount: int, singular: str) -> str:
    return f"{number(amount)} {singular}{'' if amount == 1 else 's'}"


def _gates(performance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the digital units compute for recurrent layers, where there are any."""
    count = performance.get("digital_operations_per_image")
    if not count:
        return []
    return [("gates", f"{number(count)} sigmoids, tanh, sums and products an image in digital units, not in the GOPS")]


def _adcs(design: _Row) -> str:
    bits = [value for layer in design["layers"] for value in layer["adc_bits"]["configured_per_slice"]]
    low, high = min(bits), max(bits)
    certificate = design["certificate"]
    proof = ""
    if certificate is not None:
        verdict = "proven lossless" if certificate["lossless"] else "NOT lossless"
        proof = f", {verdict} ({certificate['adc_bits']['weight_aware']} needed)"
    span = str(low) if low == high else f"{low} to {high}"
    return f"{span} bits{proof}, scaled by the {design['performance']['adc_law']} law"


def _largest(parts: Mapping[str, float], breakdown: _Row, unit: str, shown: int = 5) -> str:
    """The largest parts of the tiles, and what the chip has besides."""
    tiles, besides = on_tiles(parts, breakdown), off_tile(breakdown)
    total = sum(tiles.values())
    order = sorted(tiles, key=lambda name: -tiles[name])
    text = ", ".join(f"{name.replace('_', ' ')} {_share(tiles[name] / total)}" for name in order[:shown])
    apart = f"; besides them {besides} {number(sum(parts.values()) - total)} {unit}" if besides else ""
    return f"tiles {number(total)} {unit}: {text}{apart}"


def _layer_table(design: _Row) -> Table:
    headings = [
        "layer",
        "rows x\ncolumns",
        "repli-\ncas",
        "cross-\nbars",
        "left\nout",
        "ADC\nbits",
        "input\nvectors",
        "interval\n(cycles)",
        "set by",
        "busy\n(cycles)",
        "busy",
        "inputs\nmissing",
        "next\nimage",
        "area\n(mm2)",
        "power\n(W)",
        "energy\n(uJ)",
    ]
    rows = []
    for layer in design["layers"]:
        stalls = layer["stalls"]
        inputs = stalls.get("inputs not there yet", 0.0)
        bits = layer["adc_bits"]["configured_per_slice"]
        groups = f"{layer['groups']} x " if layer["groups"] > 1 else ""
        mark = " *" if layer["name"] == design["performance"]["bottleneck"] else ""
        rows.append(
            [
                shorten(layer["name"]) + mark,
                f"{groups}{layer['rows']} x {layer['columns']}",
                number(layer["replicas"]),
                number(layer["crossbars"]),
                number(layer["dropped_crossbars"] * layer["replicas"]),
                str(bits[0]) if len(set(bits)) == 1 else " ".join(map(str, bits)),
                number(layer["positions"]),
                number(layer["interval_cycles"]),
                layer["interval_set_by"],
                number(layer["busy_cycles"]),
                f"{100 * layer['occupancy']:.0f} %",
                f"{100 * inputs:.0f} %",
                f"{100 * (sum(stalls.values()) - inputs):.0f} %",
                number(layer["area_mm2"]),
                number(layer["power_w"]),
                number(layer["energy_uj"]),
            ]
        )
    return Table(headings, rows, [i in (0, 8) for i in range(len(headings))])


_SIDE_BY_SIDE = (
    ("images/s", "images_per_s"),
    ("latency (us)", "latency_us"),
    ("energy an image, full activity (uJ), tiles alone", "tiles_alone.energy_uj_per_image"),
    ("area (mm2), tiles alone", "tiles_alone.area_mm2"),
    ("power (W), tiles alone", "tiles_alone.power_w"),
    ("GOPS/W, tiles alone", "tiles_alone.gops_per_w"),
    ("GOPS/s/mm2, tiles alone", "tiles_alone.gops_per_s_mm2"),
    ("energy an image (uJ)", "energy_uj_per_image"),
    ("area (mm2)", "area_mm2"),
    ("power (W)", "power_w"),
    ("GOPS/W", "gops_per_w"),
    ("GOPS/s/mm2", "gops_per_s_mm2"),
    ("tiles", "tiles"),
    ("chips", "chips"),
    ("crossbars", "crossbars"),
    ("crossbars left out", "dropped_crossbars"),
    ("bottleneck", "bottleneck"),
    ("interval set by", "bottleneck_reason"),
    ("ADC law", "adc_law"),
)


def _side_by_side(designs: Sequence[_Row]) -> Table:
    def cell(value: Any) -> str:
        return shorten(value) if isinstance(value, str) else number(value)

    def figure(performance: _Row, key: str) -> Any:
        section, _, name = key.rpartition(".")
        return performance[name] if not section else (performance[section] or {}).get(name)

    rows = [[label, *(cell(figure(design["performance"], key)) for design in designs)] for label, key in _SIDE_BY_SIDE]
    bits = [[b for layer in design["layers"] for b in layer["adc_bits"]["configured_per_slice"]] for design in designs]
    rows.append(["ADC bits", *(f"{min(b)} to {max(b)}" if min(b) != max(b) else str(max(b)) for b in bits)])
    for label, key in (
        ("power, normalised, tiles alone", "power_tiles"),
        ("area, normalised, tiles alone", "area_tiles"),
        ("power, normalised", "power"),
        ("area, normalised", "area"),
    ):
        rows.append([label, *(_share(design["normalised"][key]) for design in designs)])
    return Table(["", *_names(designs)], rows, [True, *[False] * len(designs)])


# --- the whole -------------------------------------------------------------------------------------------------------


def _title(report: _Row) -> str:
    names = ", ".join(_names(_designs(report)))
    if report["network"] is None:
        return f"Peak of {names}"
    network = report["network"]
    return f"{network['architecture']} at {'x'.join(map(str, network['input_shape']))} on {names}"


def _sections(report: _Row) -> Iterator[tuple[str, Table | list[tuple[str, str]], str]]:
    """(heading, table or lines, note below) triples, in the order of reading."""
    designs = _designs(report)
    if report["network"] is None:
        yield "Components", _component_table(designs), ""
        yield "Peak", _peak_table(designs), "; ".join(_peak_notes(designs))
        yield "Sources", _source_table(designs), ""
        return
    if len(designs) > 1:
        yield "Side by side", _side_by_side(designs), ""
    for name, design in zip(_names(designs), designs, strict=True):
        yield name, network_lines(report, design), ""
        yield f"Layers on {name}", _layer_table(design), "* the bottleneck; times are of the steady state"
    yield "Peak of a chip whose ADCs all have the highest of these resolutions", _peak_table(designs), ""


def throughput_text(report: _Row) -> str:
    """Return the report as text.

    Parameters
    ----------
    report : mapping
        A validated report (:func:`bitline.report.throughput_schema.validate_throughput`).
    """
    parts = [f"{clean(_title(report))} (Bitline {report['provenance']['version']})\n"]
    for heading, body, note in _sections(report):
        text = plain_table(body) if isinstance(body, Table) else _lines(body)
        if note:
            text += textwrap.fill(clean(note), _WIDTH, initial_indent="  ", subsequent_indent="  ") + "\n"
        parts.append(f"{clean(heading)}\n{text}")
    return "\n".join(parts)


def _lines(lines: Sequence[tuple[str, str]]) -> str:
    margin = 4 + max(len(label) for label, _ in lines)
    return "".join(
        textwrap.fill(
            clean(text),
            _WIDTH,
            initial_indent=f"  {label}".ljust(margin),
            subsequent_indent=" " * margin,
            break_long_words=False,
            break_on_hyphens=False,
        )
        + "\n"
        for label, text in lines
    )


def throughput_markdown(report: _Row, figures: Sequence[str] = ()) -> str:
    """Return the report as Markdown.

    Parameters
    ----------
    figures : sequence of str
        Paths of the PNG figures relative to the page; the file's stem is the figure's name.
    """
    parts = [f"# {escape(_title(report))}\n"]
    for heading, body, note in _sections(report):
        if isinstance(body, Table):
            table = markdown_table(escaped(body))
        else:
            table = markdown_table(Table(["", ""], [[f"**{a}**", escape(b)] for a, b in body], [True, True]))
        parts.append(f"## {escape(heading)}\n\n{table}" + (f"\n{escape(note)}\n" if note else ""))
    for path in figures:
        stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        caption = CAPTIONS.get(stem.rstrip("_0123456789"), stem)
        parts.append(f"![{caption}]({path})\n\n*{caption}*\n")
    provenance = report["provenance"]
    parts.append(
        f"Made by Bitline {provenance['version']} with `{clean(report['command']).replace('`', ' ')}`; "
        f"hardware sha256 `{provenance['hardware_sha256']}`, checkpoint sha256 `{provenance['checkpoint_sha256']}`.\n"
    )
    return "\n".join(parts)


_LAYER_CSV = (
    "name",
    "rows",
    "columns",
    "groups",
    "row_tiles",
    "column_groups",
    "removed_rows",
    "removed_columns",
    "crossbars_per_replica",
    "dropped_crossbars",
    "replicas",
    "crossbars",
    "imas",
    "cell_utilisation",
    "nonzeros_max",
    "lossless",
    "positions",
    "macs",
    "digital_operations",
    "interval_cycles",
    "interval_set_by",
    "busy_cycles",
    "occupancy",
    "stall_cycles",
    "waits_for",
    "paced_by",
    "first_start_cycle",
    "last_start_cycle",
    "buffer_bytes",
    "area_mm2",
    "power_w",
    "energy_uj",
)
_BITS_CSV = ("configured", "configured_per_slice", "equation", "paper", "weight_aware", "weight_aware_per_slice")


def throughput_csv(report: _Row) -> dict[str, str]:
    """Return the report's CSV files by name: ``layers.csv`` of a network, ``components.csv`` of every design."""
    designs, names = _designs(report), [clean(design["hardware"]["name"]) for design in _designs(report)]
    files = {}
    if report["network"] is not None:
        lines = [["design", *_LAYER_CSV, *(f"adc_bits_{key}" for key in _BITS_CSV)]]
        for name, design in zip(names, designs, strict=True):
            for layer in design["layers"]:
                cells = [_cell(layer.get(key)) for key in _LAYER_CSV]
                lines.append([name, *cells, *(_cell(layer["adc_bits"][key]) for key in _BITS_CSV)])
        files["layers.csv"] = _csv(lines)
    keys = ("name", "level", "units", "power_mw", "area_mm2", "source")
    lines = [["design", "adc_bits", "adc_law", *keys]]
    for name, design in zip(names, designs, strict=True):
        peak = design["peak"]
        for row in peak["components"]:
            lines.append([name, str(peak["adc_bits"]), peak["adc_law"], *(_cell(row[key]) for key in keys)])
    return {**files, "components.csv": _csv(lines)}


def _csv(lines: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return repr(value) if isinstance(value, float) else clean(str(value))
