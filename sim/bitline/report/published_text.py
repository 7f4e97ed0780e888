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


def _share(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _table3_table(document: _Row) -> Table:
    rows = []
    base = next(row for row in document["rows"] if row["name"] == "ISAAC")
    for row in document["rows"]:
        computed = row["kind"] == "computed"
        gain = row["gops_per_s_mm2_from_published" if computed else "gops_per_s_mm2"] / base["gops_per_s_mm2"]
        rows.append(
            [
                row["name"],
                "ours" if computed else "printed",
                f"{row['gops_per_s_mm2']:.1f}" if computed else "-",
                f"{row['gops_per_s_mm2_from_published' if computed else 'gops_per_s_mm2']:.2f}",
                f"x{gain:.3f}",
                f"{row['gops_per_w']:.2f}",
                f"x{row['gops_per_w'] / base['gops_per_w']:.3f}",
            ]
        )
    headings = [
        "design, or the assumption for TinyADC's row",
        "figures",
        "GOPS/s/mm2\nour area",
        "GOPS/s/mm2\nfrom 478.95",
        "of\nISAAC",
        "GOPS/W",
        "of\nISAAC",
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
    return (
        f"No row gives both of the paper's figures, and smaller ADCs alone cannot: removed altogether they give "
        f"x{gain:.3f} by area of the paper's x{claimed:.3f}. The rows are readings of an unpublished method; none is "
        "claimed to be it."
    )


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
        "what the tiles can save and below what the IMAs alone do, so it needs a tile with less around its IMAs than "
        "ISAAC's. Pruned rows and columns save crossbars with everything around them, so those figures are closer."
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
