"""Names of files and folders as people write them."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["expanded"]


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path with ``~`` and ``~name`` at its beginning resolved, which a shell does not do in ``--out=~/x``.

    A file whose name begins with a tilde is meant by ``./~name``; where no such user is known, the name is left.
    """
    text = os.fspath(path)
    return Path(os.path.expanduser(text)) if text.startswith("~") else Path(text)
