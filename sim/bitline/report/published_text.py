"""TinyADC's published figures beside what the chip model gives, as text and Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from bitline.report.markdown import escaped, markdown_table
from bitline.report.tables import Table, plain_table

__all__ = ["SAVINGS_CAPTION", "savings_markdown", "savings_text", "table3_markdown", "table3_text"]

_Row = Mapping[str, Any]
SAVINGS_CAPTION = (
    "Published savings (black) over what each scope and ADC law gives: Kull's split, Kull's with constant latches, "
    "halving per bit, and ADCs that cost nothing."
)
_WIDTH = 120
_NEAR = 0.02
"""Relative distance within which a row is said to come close; rows of another design than ISAAC's do not."""


def _share(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _table3_table(document: _Row) -> Table:
    rows = []
    for row in document["rows"]:
        computed = row["kind"] == "computed"
        rows.append(
            [
                row["name"],
                "ours" if computed else "printed",
                f"{row['gops_per_s_mm2']:.1f}" if computed else "-",
                f"{row['gops_per_s_mm2_from_published' if computed else 'gops_per_s_mm2']:.2f}",
                f"x{row['gain_by_area']:.3f}",
                f"{row['gops_per_w']:.2f}",
                f"x{row['gain_by_power']:.3f}",
            ]
        )
    headings = [
        "design, or the assumption for TinyADC's row",
        "figures",
        "GOPS/s/mm2\nour area",
        "GOPS/s/mm2\nfrom 478.95",
        "of its\nbase",
        "GOPS/W",
        "of its\nbase",
    ]
    return Table(headings, rows, [True, True, *[False] * 5])


def _wrapped(table: Table, width: int = 58) -> Table:
    """Break the first column's cells over several lines."""
    rows = []
    for row in table.rows:
        lines = textwrap.wrap(row[0], width, subsequent_indent="  ") or [""]
        rows += [[lines[0], *row[1:]], *([line, *[""] * (len(row) - 1)] for line in lines[1:])]
    return Table(table.headings, rows, table.left)


def _no_claim(document: _Row) -> str:
    rows = {row["name"]: row for row in document["rows"]}
    claimed = rows["TinyADC (ISAAC)"]["gops_per_s_mm2"] / rows["ISAAC"]["gops_per_s_mm2"]
    removed = next(row for name, row in rows.items() if "ADC removed" in name)
    gain = removed["gops_per_s_mm2_from_published"] / rows["ISAAC"]["gops_per_s_mm2"]
    close = rows[document["closest"]]
    paper = rows["TinyADC (ISAAC)"]
    by_area = close["gops_per_s_mm2_from_published"] / paper["gops_per_s_mm2"] - 1
    by_power = close["gops_per_w"] / paper["gops_per_w"] - 1
    text = (
        "The base of printed rows is the printed ISAAC, that of ours the same component table with 8-bit ADCs. Smaller "
        f"ADCs alone cannot give the paper's figures: removed altogether they give x{gain:.3f} by area of the paper's "
        f"x{claimed:.3f}. "
    )
    if abs(by_area) < _NEAR and abs(by_power) < _NEAR:
        text += (
            f'Closest to both comes "{document["closest"]}" ({100 * by_area:+.1f} % by area, '
            f"{100 * by_power:+.1f} % by power). "
        )
    return text + "The rows are readings of an unpublished method; none is claimed to be it."


def table3_text(document: _Row) -> str:
    """Return TinyADC's Table III as text: the paper's rows, then one row an assumption."""
    text = f"{document['title']} from the component table of {document['hardware']}\n"
    text += plain_table(_wrapped(_table3_table(document)))
    return text + "\n" + textwrap.fill(_no_claim(document), _WIDTH, initial_indent="  ", subsequent_indent="  ") + "\n"


def table3_markdown(document: _Row) -> str:
    """Return TinyADC's Table III as Markdown."""
    return (
        f"# {document['title']}\n\n"
        f"Made with `{document['command']}` (Bitline {document['provenance']['version']}).\n\n"
        "Yuan et al., TinyADC, DATE 2021, print the rows marked *printed*; the others are what the component table "
        f"of `{document['hardware']}` (ISAAC's Table I) gives for TinyADC's row under the assumption named. By area, "
        "ISAAC's own table gives 483.3 GOPS/s/mm2 and the paper prints 478.95: both columns start from one of them.\n\n"
        f"{markdown_table(escaped(_table3_table(document)))}\n{_no_claim(document)}\n"
    )


_SCOPES = {"chip": "tiles and HyperTransport", "tiles": "tiles alone", "imas": "IMAs alone"}


def _range(claim: _Row, key: str) -> str:
    values = [saving[key] for saving in claim["savings"]]
    return f"{_share(min(values))} to {_share(max(values))}"


def _reached_by(claim: _Row, key: str) -> str:
    """The scopes whose own range of laws holds the published saving; none where it lies between two scopes."""
    published, names = claim["claim"][key], []
    for scope in _SCOPES:
        values = [saving[key] for saving in claim["savings"] if saving["scope"] == scope]
        if min(values) <= published <= max(values):
            names.append({"chip": "chip", "tiles": "tiles", "imas": "IMAs"}[scope])
    if names:
        return ", ".join(names)
    return "between scopes" if claim[f"{key.split('_')[0]}_bracketed"] else "NO"


def _savings_table(document: _Row) -> Table:
    rows = []
    for claim in document["claims"]:
        shape = "x".join(map(str, claim["input_shape"]))
        row = [claim["claim"]["name"], f"{claim['network']} {shape}", str(claim["claim"]["adc_bits"])]
        for key in ("power_saved", "area_saved"):
            row += [_share(claim["claim"][key]), _range(claim, key), _reached_by(claim, key)]
        rows.append(row)
    headings = ["published saving", "network", "ADC\nbits"]
    for what in ("power", "area"):
        headings += [f"{what},\npublished", "least to most\nhere", "reached\nby"]
    return Table(headings, rows, [True, True, False, False, False, True, False, False, True])


def _claim_table(claim: _Row) -> Table:
    laws = list(dict.fromkeys(saving["law"] for saving in claim["savings"]))
    found = {(saving["law"], saving["scope"]): saving for saving in claim["savings"]}
    rows = []
    for law in laws:
        cells = [_share(found[law, scope][key]) for key in ("power_saved", "area_saved") for scope in _SCOPES]
        rows.append([{"removed": "ADCs that cost nothing"}.get(law, law.replace("_", " ")), *cells])
    heads = [f"{what},\n{words}" for what in ("power", "area") for words in _SCOPES.values()]
    return Table(["ADC law", *heads], rows, [True, *[False] * 6])


def _reason(document: _Row) -> str:
    reason = document["claims"][0]["reason"]
    return (
        f"Reason for the distance: {reason}. A published saving above what ADCs that cost nothing save of ISAAC's "
        "tiles needs another baseline. One marked 'between scopes' is given by no scope under any law: it lies above "
        "what ISAAC's tiles can save and below what the IMAs alone do. Pruned rows and columns save crossbars with "
        f"everything around them, so those figures are closer. {_own_adc(document)}"
    )


def _own_adc(document: _Row) -> str:
    one, two = document["own_adc"]
    return (
        "The tile with the ADC that the paper cites (Chan, ISSCC 2017: 7 bits, 5 mW, 0.0043 mm2) in place of ISAAC's, "
        "scaled by Kull's split to 8 bits and to 2: with one ADC a crossbar 2 bits save "
        f"{_share(one['power_saved'])} of power (published 62 %) and {_share(one['area_saved'])} of area; with one for "
        f"two crossbars {_share(two['power_saved'])} of power and {_share(two['area_saved'])} of area (published 45 "
        "%). Each figure is met by one of them, both by neither."
    )


def savings_text(document: _Row) -> str:
    """Return the published savings and what this model brackets them with, as text."""
    text = f"{document['title']} with the components of {document['hardware']}\n"
    text += plain_table(_wrapped(_savings_table(document), 44))
    text += "\n" + textwrap.fill(_reason(document), _WIDTH, initial_indent="  ", subsequent_indent="  ") + "\n"
    for claim in document["claims"]:
        note = f" ({claim['claim']['note']})" if claim["claim"]["note"] else ""
        source = textwrap.fill(f"{claim['claim']['source']}{note}", _WIDTH, initial_indent="  ", subsequent_indent="  ")
        text += f"\n{claim['claim']['name']}: saved by scope and law\n{source}\n{plain_table(_claim_table(claim))}"
    return text


def savings_markdown(document: _Row) -> str:
    """Return the published savings and what this model brackets them with, as Markdown."""
    parts = [
        f"# {document['title']}: published savings, bracketed\n",
        f"Made with `{document['command']}` (Bitline {document['provenance']['version']}).\n",
        "Yuan et al., TinyADC, DATE 2021, print savings from a baseline that is not published. Each is set between the "
        "least and the most that this model gives over scopes (chip, tiles, IMAs) and ADC laws (Kull's split to ADCs "
        f"that cost nothing), with the components of `{document['hardware']}`. The first layer is not pruned and keeps "
        "8-bit ADCs, as in the paper.\n",
        markdown_table(escaped(_savings_table(document))),
        _reason(document) + "\n",
    ]
    for claim in document["claims"]:
        note = f" {claim['claim']['note'].capitalize()}." if claim["claim"]["note"] else ""
        parts.append(f"## {claim['claim']['name']}\n\n{claim['claim']['source']}.{note}\n")
        parts.append(markdown_table(escaped(_claim_table(claim))))
    return "\n".join(parts)
