"""Run the benchmarks and print their results with the machine's facts as one JSON document.

python -m benchmarks [kernel] [network] [chip_model] [pruning] [--out FILE] [--compare OLD.json]
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from benchmarks.compare import compare
from bitline._version import __version__
from bitline.report.machine import machine_facts

NAMES = ("kernel", "network", "chip_model", "pruning")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--out", type=Path, help="also write the document to this file")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="document of an earlier run to compare with")
    args = parser.parse_args()
    old = None if args.compare is None else json.loads(args.compare.read_text())
    unknown = set(args.names) - set(NAMES)
    if unknown:
        parser.error(f"unknown benchmark {sorted(unknown)[0]!r}; expected some of {', '.join(NAMES)}")
    document = {"bitline": __version__, "machine": machine_facts(), "results": {}}
    for name in args.names or NAMES:
        print(f"running {name} ...", file=sys.stderr)
        document["results"][name] = importlib.import_module(f"benchmarks.{name}").run()
    text = json.dumps(document, indent=2)
    print(text)
    if args.out is not None:
        args.out.write_text(text + "\n")
    if old is not None:
        print("\n".join(compare(old, document)), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
