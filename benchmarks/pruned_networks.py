"""Pruning a real ResNet-20 in several ways with the same epochs: the page docs/results/pruning.md and its JSON.

    python -m benchmarks.pruned_networks SHARED_DATA --work DIR --published TABLES.json --out docs/results/pruning.md

prunes the CIFAR-10 checkpoint of SHARED_DATA (see its MANIFEST.md) with every method, rate and solver below, and runs
every pruned file on simulated crossbars over all 10,000 test images. Files and reports are kept in DIR and not made
again; a run that was stopped goes on where it was. ``--only`` makes some of them and no page, so that several processes
can share the work.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from bitline.pruner import prune
from bitline.report.progress import progress_on
from bitline.report.pruning_text import epoch_line
from bitline.simulation import simulate, verify

CHECKPOINT = "cifar10/resnet20-12fca82f.th"
EPOCHS = 2
TRAINING = {
    "epochs": EPOCHS,
    "batch_size": 128,
    "weight_decay": 1e-4,
    "shift": 4,
    "flip": True,
    "precision": "bfloat16",
    "seed": 0,
}
SOLVERS: dict[str, dict[str, Any]] = {
    "oneshot": {"training": {"learning_rate": 0.1}, "pruning": {}},
    "gradual": {"training": {"learning_rate": 0.1}, "pruning": {"solver_epochs": 1}},
    "admm": {
        "training": {"learning_rate": 0.1},
        "pruning": {"solver_epochs": 1, "admm": {"rho": 1e-2, "rho_growth": 1.3, "update_steps": 20}},
    },
}
"""What differs between solvers, chosen on training images only (docs/results/pruning.md says how)."""
CONSTRAINTS: dict[str, dict[str, Any]] = {
    **{f"cp{rate}": {"method": "cp", "rate": rate} for rate in (2, 4, 8, 16)},
    "combined_a": {"method": "combined", "rate": 4, "shape_rate": 1.5, "filter_rate": 1},
    "combined_b": {"method": "combined", "rate": 8, "shape_rate": 2, "filter_rate": 2},
}
RUNS = [f"{constraint}_{solver}" for constraint in CONSTRAINTS for solver in SOLVERS]
OTHERS: dict[str, dict[str, Any]] = {
    **{f"bits{bits}": {"method": "value_bit", "adc_bits": bits, "learning_rate": 0.02} for bits in (2, 3, 4)},
    "bcr": {"method": "bcr", "rate": 4, "block": [128, 16], "learning_rate": 0.1},
}
"""One-shot, for the comparison of methods (docs/results/compare.md); not on this page."""
OTHER_RUNS = [f"{constraint}_oneshot" for constraint in OTHERS]


def recipe(shared: Path, run: str) -> dict[str, Any]:
    """The recipe of a run, as ``bitline prune --recipe`` takes it."""
    constraint, solver = run.rsplit("_", 1)
    if constraint in OTHERS:
        fields = dict(OTHERS[constraint])
        differs = {"training": {"learning_rate": fields.pop("learning_rate")}, "pruning": fields}
    else:
        differs = {**SOLVERS[solver], "pruning": {**CONSTRAINTS[constraint], **SOLVERS[solver]["pruning"]}}
    return {
        "start": str(shared / "checkpoints" / CHECKPOINT),
        "data": f"cifar10:{shared / 'cifar10'}",
        "pruning": {"solver": solver, **differs["pruning"]},
        "training": {**TRAINING, **differs["training"]},
    }


def make(shared: Path, work: Path, run: str, engine: str) -> dict[str, Any]:
    """Prune and simulate; both reports are kept in ``work``."""
    pruned, kept = work / f"{run}.safetensors", work / f"{run}.json"
    if not kept.exists():
        report = prune(
            out=pruned,
            recipe=recipe(shared, run),
            resume=True,
            progress=lambda seen: print(f"{run}: {epoch_line(vars(seen))}", file=sys.stderr, flush=True),
        )
        kept.write_text(json.dumps(report))
    folder = work / run
    if not (folder / "report.json").exists():
        simulate(
            pruned,
            "tinyadc",
            f"cifar10:{shared / 'cifar10'}",
            engine=engine,
            out=folder,
            command=f"bitline simulate {pruned.name}",
            progress=progress_on(sys.stderr),
        )
    simulated: dict[str, Any] = json.loads((folder / "report.json").read_text())
    verify(simulated)
    return {"prune": json.loads(kept.read_text()), "simulate": simulated}


def dense(shared: Path, work: Path, engine: str) -> dict[str, Any]:
    """The unpruned network's report, on the same hardware description."""
    folder = work / "dense"
    if not (folder / "report.json").exists():
        data = f"cifar10:{shared / 'cifar10'}"
        start = shared / "checkpoints" / CHECKPOINT
        simulate(start, "tinyadc", data, engine=engine, out=folder, progress=progress_on(sys.stderr))
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    verify(report)
    return report


def row(run: str, made: dict[str, Any]) -> dict[str, Any]:
    """What the page and its JSON say of one run."""
    constraint, solver = run.rsplit("_", 1)
    pruned, simulated = made["prune"], made["simulate"]
    after, accuracy = pruned["certificate"]["after"], simulated["accuracy"]
    weights = sum(layer["weights"] for layer in pruned["layers"])
    return {
        "run": run,
        "constraint": constraint,
        "solver": solver,
        "recipe": pruned["recipe"],
        "sha256": pruned["sha256"],
        "kept": sum(layer["nonzeros"] for layer in pruned["layers"]) / weights,
        "epochs": [{key: epoch[key] for key in ("phase", "loss", "distance")} for epoch in pruned["epochs"]],
        "seconds_per_epoch": sum(epoch["seconds"] for epoch in pruned["epochs"]) / len(pruned["epochs"]),
        "engine": simulated["provenance"]["engine"],
        "test_images": accuracy["images"],
        "float_before": pruned["accuracy"]["before"],
        "float_after": accuracy["float_top1"],
        "integer": accuracy["integer_top1"],
        "simulated": accuracy["simulated_top1"],
        "identical": accuracy["identical_to_integer"],
        "bits_pruned_layers": after["pruned"],
        "configured": max(layer["adc_bits"]["configured"] for layer in simulated["layers"][1:]),
        "paper_proven_lossless": after["paper_lossless"],
        "conversions": sum(layer["conversions"] for layer in simulated["layers"]),
        "saturations": sum(layer["saturations"] for layer in simulated["layers"]),
        **_price(simulated),
    }


def _price(simulated: dict[str, Any]) -> dict[str, Any]:
    performance, breakdown = simulated["performance"], simulated["breakdown"]
    return {
        "crossbars": performance["crossbars"],
        "tiles": performance["tiles"],
        "area_mm2": performance["area_mm2"],
        "power_w": performance["power_w"],
        "adc_energy_uj": breakdown["energy_uj"]["adc"],
        "area_of_dense": simulated["normalised"]["area_tiles"],
        "power_of_dense": simulated["normalised"]["power_tiles"],
    }


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def page(rows: list[dict[str, Any]], unpruned: dict[str, Any], published: dict[str, Any]) -> str:
    """The Markdown page."""
    accuracy = unpruned["accuracy"]
    dense_top1 = f"float {_percent(accuracy['float_top1'])} %, simulated {_percent(accuracy['simulated_top1'])} %"
    lines = [
        "# ResNet-20 on CIFAR-10, pruned",
        "",
        "Made by `python -m benchmarks.pruned_networks SHARED --work DIR --published TABLES.json --out PAGE`; the JSON",
        "beside it has all recipes, losses and hashes. Each row is one `bitline prune` of the same checkpoint, with",
        f"{EPOCHS} epochs of the 50,000 training images, whatever the solver, one seed; then `bitline simulate` of",
        "the saved file: 10,000 test images, hardware `tinyadc`, each layer's ADC as proven; bit-serially, every",
        "conversion performed, or where it says so by the certified engine, which counts the same.",
        "The first layer stays dense. ResNet-18 was not trained: at 58 images a processor second (32x32, bfloat16, one",
        "thread, machine busy; `python -m benchmarks pruning` measures it), 14 minutes of a core an epoch, and no",
        "trained checkpoint to start from; gradual pruning ran at rates 8 and 16 only.",
        "",
        f"Dense: {dense_top1}, {unpruned['certificate']['adc_bits']['weight_aware']} bits proven.",
        "",
        *_table(
            "constraint | solver | weights kept | float top-1 | simulated top-1 | identical to the integer network | "
            "equation | paper | proven | configured | paper's count proven lossless | saturations | engine",
            [_accuracy_cells(r) for r in rows],
        ),
        "",
        "Bits are the largest of the pruned layers: Eq. (1) of the paper, the count of its tables, what the",
        "weights themselves prove (the certificate), and what the run used.",
        "",
        "## What it costs",
        "",
        'The tile model\'s price of the same files, "of dense" compares tiles alone with the same',
        "description at 8 bits and dense weights. ADC energy is of one image, in the crossbars that exist, at full",
        "activity.",
        "",
        *_table(
            "constraint | solver | crossbars of all replicas | tiles | mm2 | W | area of dense | power of dense | "
            "ADC uJ an image",
            [_price_cells(r) for r in [{"constraint": "dense", "solver": "-", **_price(unpruned)}, *rows]],
        ),
        "",
        "## How the solvers were set",
        "",
        *_table("solver | what differs", [[name, f"`{json.dumps(differs)}`"] for name, differs in SOLVERS.items()]),
        "",
        "Chosen at rate 8 on training images only (25,600 of them, compared on 5,000 others, which the dense",
        "network had seen): the learning rate by trials with one-shot and gradual; ADMM's penalty and updates",
        "after trials that left W far from Z, so that `||W - Z||` nearly vanishes in its one epoch. Test images",
        "chose nothing.",
        "With two epochs in all ADMM has one to approach its set and one to retrain; the paper's is not known",
        "to us. Within it no solver is better than another by more than a second seed might change.",
        "Zero rows can be taken out only where the closed-up matrix is proven at the same bits, so two files of the",
        "same rate may take different numbers of tiles.",
        "",
        "## Beside TinyADC's tables",
        "",
        "Published (Table I, CIFAR-10). Networks and budgets differ: theirs are ResNet-18 (11 million weights) and",
        "VGG-16, ours a ResNet-20 of 0.27 million with far less to spare, retrained briefly on a CPU. Their bits are",
        "counted from the rate; ours are proven from the weights.",
        "",
        *_table("network | CP rate | dense | pruned | change | ADC bits", _table1_cells(rows, published)),
        "",
        "Published (Table II, CIFAR-10): structured and CP pruning together.",
        "",
        *_table(
            "network | method | structured | CP rate | overall | dense | pruned | crossbars, % | ADC bits",
            _table2_cells(published),
        ),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _table(heads: str, body: list[list[str]]) -> list[str]:
    count = heads.count("|") + 1
    return [f"| {heads} |", "|" + ":--|" * count, *(f"| {' | '.join(cells)} |" for cells in body)]


def _accuracy_cells(r: dict[str, Any]) -> list[str]:
    bits = r["bits_pruned_layers"]
    return [
        _described(r),
        r["solver"],
        f"{100 * r['kept']:.1f} %",
        _percent(r["float_after"]),
        _percent(r["simulated"]),
        "yes" if r["identical"] else "NO",
        *(str(bits[count]) for count in ("equation", "paper", "weight_aware")),
        str(r["configured"]),
        "yes" if r["paper_proven_lossless"] else "no",
        f"{r['saturations']} of {r['conversions']:.3e}",
        r["engine"],
    ]


def _price_cells(r: dict[str, Any]) -> list[str]:
    counts = [str(r[key]) for key in ("crossbars", "tiles")]
    shares = [f"{r['area_of_dense']:.3f}", f"{r['power_of_dense']:.3f}", f"{r['adc_energy_uj']:.2f}"]
    return [_described(r), r["solver"], *counts, f"{r['area_mm2']:.2f}", f"{r['power_w']:.2f}", *shares]


def _table1_cells(rows: list[dict[str, Any]], published: dict[str, Any]) -> list[list[str]]:
    cells = [
        [
            f"{entry['net']} (published)",
            str(entry["cp_rate"]),
            f"{entry['orig_acc']:.2f}",
            f"{entry['final_acc']:.2f}",
            f"{entry['final_acc'] - entry['orig_acc']:+.2f}",
            str(entry["adc_bits_delta"]),
        ]
        for entry in published["table1"]
        if entry["dataset"] == "CIFAR10"
    ]
    for r in rows:
        if r["recipe"]["pruning"]["method"] == "cp":
            bits = r["bits_pruned_layers"]
            cells.append(
                [
                    f"ResNet-20 (ours, {r['solver']})",
                    f"{r['recipe']['pruning']['rate']:g}",
                    _percent(r["float_before"]),
                    _percent(r["float_after"]),
                    f"{100 * (r['float_after'] - r['float_before']):+.2f}",
                    f"{bits['weight_aware'] - 8:+d} proven, {bits['paper'] - 8:+d} as the paper counts",
                ]
            )
    return cells


def _table2_cells(published: dict[str, Any]) -> list[list[str]]:
    rates = ("structured_rate", "cp_rate", "overall_rate")
    keys = (*rates, "orig_acc", "final_acc", "crossbar_reduction_pct", "adc_bits_delta")
    return [
        [entry["net"], entry["method"], *("-" if entry[key] is None else f"{entry[key]:g}" for key in keys)]
        for entry in published["table2"]
        if entry["dataset"] == "CIFAR10"
    ]


def _described(r: dict[str, Any]) -> str:
    constraint = r["constraint"]
    if constraint not in CONSTRAINTS:
        return str(constraint)
    fields = CONSTRAINTS[constraint]
    if fields["method"] == "cp":
        return f"CP {fields['rate']:g}"
    return f"rows / {fields['shape_rate']:g}, CP {fields['rate']:g}, filters / {fields['filter_rate']:g}"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pruned_networks")
    parser.add_argument("shared", type=Path, help="folder with checkpoints/ and the data sets")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps checkpoints and reports")
    parser.add_argument("--out", type=Path, help="Markdown page to write, with its JSON beside it")
    parser.add_argument("--published", type=Path, help="TinyADC's tables as JSON, to stand beside (page only)")
    parser.add_argument(
        "--only", nargs="+", choices=[*RUNS, *OTHER_RUNS], metavar="RUN", help="some runs; a page only with --out"
    )
    parser.add_argument("--engine", choices=("bitserial", "certified"), default="bitserial", help="of new simulations")
    parser.add_argument("--threads", type=int, help="torch's threads (all cores)")
    args = parser.parse_args()
    if (args.out is None) != (args.published is None) or (args.out is None and not args.only):
        parser.error("--out and --published are needed for the page (or --only, for some runs and no page)")
    if args.threads:
        torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    made = {run: make(args.shared, args.work, run, args.engine) for run in args.only or RUNS}
    if args.out is not None:
        rows = [row(run, reports) for run, reports in made.items()]
        published = json.loads(args.published.read_text())
        args.out.write_text(page(rows, dense(args.shared, args.work, args.engine), published))
        text = json.dumps(rows, indent=1).replace(str(args.shared), "SHARED")
        args.out.with_suffix(".json").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
