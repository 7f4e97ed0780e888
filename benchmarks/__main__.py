"""Run the benchmarks and print their results with the machine's facts as one JSON document.

    python -m benchmarks [NAME ...] [--out FILE] [--page FILE] [--figures DIR]
                         [--crosssim PATH] [--neurosim PATH] [--shared PATH]
    python -m benchmarks --from FILE [--table] [--page FILE] [--figures DIR] [--compare OLD.json]

The names are kernel, network, scaling, memory, startup, chip_model, pruning and, where --shared says where the images
and the checkpoint are, dataset; all of them by default.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numba

from benchmarks import dataset, peers
from benchmarks.compare import compare
from benchmarks.goals import goals, table
from benchmarks.measure import thread_counts, use_threads
from benchmarks.page import page
from bitline._version import __version__
from bitline.errors import BitlineError, DataError
from bitline.report.machine import machine_facts

NAMES = ("kernel", "network", "scaling", "memory", "startup", "chip_model", "pruning", "dataset")


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 done, 2 bad input (one line on standard error)."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the document to this file")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="draw the results into this folder, as PNG")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the results to this file as tables (Markdown)")
    parser.add_argument("--table", action="store_true", help="print the table of goals (Markdown), not the document")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="document of an earlier run to compare with")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="use this document; run nothing")
    parser.add_argument("--crosssim", type=Path, metavar="PATH", help="run this checkout of CrossSim beside ours")
    parser.add_argument("--neurosim", type=Path, metavar="PATH", help="run this checkout of NeuroSim 1.5 beside ours")
    parser.add_argument(
        "--shared", type=Path, metavar="PATH", help="folder with checkpoints/cifar10 and cifar10: run dataset"
    )
    parser.add_argument(
        "--dataset-images",
        type=int,
        default=dataset.COUNT,
        metavar="N",
        help="of its test images; %(default)s by default",
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one repeat: whether all runs, not how fast")
    args = parser.parse_args(arguments)
    unknown = [name for name in args.names if name not in NAMES]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}; expected some of {', '.join(NAMES)}")
    names = args.names or [name for name in NAMES if name != "dataset" or args.shared is not None]
    if ("dataset" in names) != (args.shared is not None):
        parser.error("dataset and --shared go together: it says where the images and the checkpoint are")
    checkouts = {peer: vars(args)[peer] for peer in peers.PEERS if vars(args)[peer] is not None}
    if args.source is not None and (args.names or checkouts or args.shared or args.quick):
        parser.error("--from runs nothing: it goes with --table, --page, --figures, --compare and --out only")
    try:
        old = None if args.compare is None else read(args.compare)
        if args.source is not None:
            document = read(args.source)
        else:
            for peer, path in checkouts.items():
                peers.check(peer, path)
            # the peers first: what is not ours is likelier to fail, and then no quarter of an hour is lost
            works: dict[str, Callable[..., Any]] = {
                peer: partial(peers.run, peer, path) for peer, path in checkouts.items()
            }
            for name in names:
                works[name] = importlib.import_module(f"benchmarks.{name}").run
            if args.shared is not None:
                dataset.check(args.shared, args.dataset_images)
                works["dataset"] = partial(dataset.run, args.shared, args.dataset_images)
            document = run(works, args.quick)
    except BitlineError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return error.exit_status
    text = json.dumps(document, indent=2)
    if document.get("quick"):
        print("benchmarks: sizes are --quick's: the figures mean nothing", file=sys.stderr)
    print("\n".join(table(document["goals"])) if args.table else text)
    if args.out is not None:
        args.out.write_text(text + "\n")
    if args.page is not None:
        args.page.write_text(page(document))
    if args.figures is not None:
        from benchmarks.figures import draw

        for path in draw(document, args.figures):
            print(path, file=sys.stderr)
    if old is not None:
        print("\n".join(compare(old, document)), file=sys.stderr)
    return 0


def run(works: Mapping[str, Callable[..., Any]], quick: bool) -> dict[str, Any]:
    """Run these, each given ``quick``, one after the other; the document of them all.

    A figure measured on a busy machine says little, so the document has the load before and after.
    """
    started = time.perf_counter()
    document: dict[str, Any] = {
        "bitline": __version__,
        "machine": machine_facts(),
        "threads": numba.config.NUMBA_NUM_THREADS,
        "quick": quick,
        "load_before": _load(),
        "results": {},
        "seconds": {},
    }
    for name, work in works.items():
        print(f"running {name} ...", file=sys.stderr, flush=True)
        use_threads(thread_counts()[-1])  # whatever the part before has set
        began = time.perf_counter()
        document["results"][name] = work(quick=quick)
        document["seconds"][name] = round(time.perf_counter() - began, 1)
    document["seconds"]["all"] = round(time.perf_counter() - started, 1)
    document["load_after"] = _load()
    document["goals"] = goals(document)
    return document


def read(path: Path) -> dict[str, Any]:
    """A document of an earlier run.

    Raises
    ------
    DataError
        The file is missing or is no such document.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected a document of an earlier run: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("results"), dict):
        raise DataError(f"{path}: expected a document of an earlier run, with results")
    return document


def _load() -> float | None:
    """Processes that wanted to run, on average over the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


if __name__ == "__main__":
    sys.exit(main())
