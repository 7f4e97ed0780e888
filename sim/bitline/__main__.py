"""``python -m bitline`` and the console script: signals and streams first, then everything else."""

from __future__ import annotations

import sys
from typing import NoReturn

from bitline import signals, terminal


def entry() -> NoReturn:
    """Run the command line as a process: nothing heavy is imported before Ctrl-C is handled."""
    terminal.repair_streams()
    signals.install()
    from bitline.cli import main

    status = main()
    signals.finish()
    sys.exit(status)


if __name__ == "__main__":
    entry()
