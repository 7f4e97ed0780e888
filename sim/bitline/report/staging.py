"""Staging folders of results: whose they are, and the removal of those whose owner died."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from bitline.signals import temporary_folder

__all__ = ["remove_abandoned", "staging_folder"]

_NAME = re.compile(r"\.bitline-[a-z0-9_]{8}\.tmp")
_OWNER = "owner"
_FORGOTTEN_S = 24 * 3600.0  # of a folder that names no owner: it was made within microseconds of the end, or long ago


@contextlib.contextmanager
def staging_folder(home: Path) -> Iterator[Path]:
    """A new folder in ``home`` that is gone afterwards; ``home`` and its parents are made, and go if they stay empty.

    Its file ``owner`` names this process and is locked for as long as the process lives: the lock, not the number,
    says whether it does, for numbers are used again and differ from machine to machine.

    Raises
    ------
    OSError
        It cannot be made.
    """
    with temporary_folder(home, prefix=".bitline-", suffix=".tmp") as folder, open(folder / _OWNER, "w") as owner:
        with contextlib.suppress(OSError):  # a file system without locks: nobody will take it for abandoned
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # written once it is locked: a reader that finds the number and no lock knows that the owner is dead
            owner.write(f"{os.getpid()}\n")
            owner.flush()
        yield folder


def remove_abandoned(home: Path) -> None:
    """Remove the staging folders that killed processes of this user left in ``home``; never a living one's."""
    with contextlib.suppress(OSError), os.scandir(home) as entries:  # what cannot be removed does no harm
        for entry in entries:
            if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_uid == os.geteuid() and _abandoned(Path(entry.path)):
                        shutil.rmtree(entry.path, ignore_errors=True)


def _abandoned(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / _OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return _forgotten(folder.lstat())
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return False
        if not found.st_size:
            return _forgotten(found)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # locked
        return False
    finally:
        os.close(descriptor)
    return True


def _forgotten(found: os.stat_result) -> bool:
    return time.time() - found.st_mtime > _FORGOTTEN_S
