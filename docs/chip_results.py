"""Make the pages of docs/results on the chip: python docs/chip_results.py

table3.md and savings.md (TinyADC's published figures beside this model's) and networks.md (ResNet-18, ResNet-50 and
VGG-16 at ImageNet size), with their figures. Everything comes from the functions behind ``bitline throughput``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bitline.published import savings, table3
from bitline.report.chip_figures import occupancy_figure
from bitline.report.figure_style import render
from bitline.report.throughput_text import network_lines
from bitline.throughput import throughput

FOLDER = Path(__file__).parent / "results"
COMMAND = "python docs/chip_results.py"
NETWORKS = (("resnet18", "ResNet-18"), ("resnet50", "ResNet-50"), ("vgg16", "VGG-16"))
RULES = ("smallest", "balanced", "fastest")


def published_pages() -> None:
    """table3.md and savings.md: the ``report.md`` of the two commands, with the figure beside them."""
    for make, option in ((table3, "table3"), (savings, "savings")):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            make(out=out, command=f"bitline throughput --{option}")
            page = (out / "report.md").read_text()
            figure = out / "figures" / f"{option}.png"
            if figure.exists():
                (FOLDER / f"{option}.png").write_bytes(figure.read_bytes())
        page = page.replace(f"figures/{option}.png", f"{option}.png")
        (FOLDER / f"{option}.md").write_text(f"<!-- made by: {COMMAND} -->\n\n{page}")


def network_page() -> None:
    """networks.md: what limits each network on ISAAC, and where its area and power go."""
    parts = [
        f"<!-- made by: {COMMAND} -->\n\n# ResNet-18, ResNet-50 and VGG-16 at 224 x 224 on ISAAC\n",
        "Each section is `bitline throughput --hw isaac --arch NAME --input 3x224x224 --replication RULE`: dense "
        "weights, 16-bit numbers, 8-bit ADCs, no inference. What the model leaves out, and one layer's interval by "
        "hand: [chip_model.md](../chip_model.md).\n",
    ]
    for arch, name in NETWORKS:
        heads = ["replication", "images/s", "first image (us)", "chips", "mm2", "W", "GOPS/W", "bottleneck"]
        rows = [f"| {' | '.join(heads)} |", "|:--|--:|--:|--:|--:|--:|--:|:--|"]
        for rule in RULES:
            report = throughput("isaac", arch=arch, input_shape=(3, 224, 224), replication=rule, sweeps=False)
            p = report["performance"]
            rows.append(
                f"| {rule} | {p['images_per_s']:,.1f} | {p['latency_us']:,.0f} | {p['chips']} | {p['area_mm2']:,.1f} | "
                f"{p['power_w']:,.1f} | {p['gops_per_w']:,.1f} | {report['bottleneck']} |"
            )
            if rule == "balanced":
                png = render(occupancy_figure(p["layers"]), "png")
                (FOLDER / f"{arch}_occupancy.png").write_bytes(png)
                lines = "".join(f"- **{label}**: {text}\n" for label, text in network_lines(report, report))
        caption = f"{name}, balanced: share of the time each layer computes in the steady state, and what it waits for."
        parts.append(
            f"## {name}\n\n" + "\n".join(rows) + f"\n\nBalanced, ISAAC's rule, in detail:\n\n{lines}\n"
            f"![{caption}]({arch}_occupancy.png)\n\n*{caption}*\n"
        )
    (FOLDER / "networks.md").write_text("\n".join(parts))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    published_pages()
    network_page()
