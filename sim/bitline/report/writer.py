"""Write a folder of results so that it is either complete or untouched.

Everything is first written and flushed to disk under a temporary name on the same file system, then renamed into
place. An error, a full disk or Ctrl-C before that leaves what was there before; one during the renaming puts back what
was replaced. What a killed process left under temporary names goes with the next result in the same place.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Self

from bitline.errors import OutputError
from bitline.paths import expanded
from bitline.report.staging import remove_abandoned, staging_folder
from bitline.signals import held

__all__ = ["OutputFolder", "remove_leftovers", "write_atomic"]

_OURS = ("report.json", "report.md", "layers.csv", "certificate.json", "timeline.json")
_MARKERS = ("report.json", "certificate.json")
_MAX_MARKER_BYTES = 1 << 28
_LONGEST = 80  # of a file's name in the name of its temporary file: names have 255 bytes at most
_SUFFIX = ".tmp"


def _explain(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    return error.strerror or type(error).__name__


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _open_new(path: Path) -> IO[bytes]:
    return path.open("xb")


def _sync_folder(path: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network file systems cannot flush a folder; the renames themselves are done
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _prefix(target: Path) -> str:
    return f".{target.name[:_LONGEST]}."


def remove_leftovers(path: str | Path) -> None:
    """Remove the temporary files of :func:`write_atomic` that a killed process left beside this file.

    Only for a file that no other process is writing. Names too long for a prefix of their own are left alone.
    """
    target = Path(os.path.realpath(expanded(path)))
    if len(target.name) >= _LONGEST:  # a longer name may have the same prefix
        return
    ours = re.compile(re.escape(_prefix(target)) + "[a-z0-9_]{8}" + re.escape(_SUFFIX))
    with contextlib.suppress(OSError):  # what cannot be removed does no harm
        for found in target.parent.iterdir():
            if ours.fullmatch(found.name) and found.is_file() and not found.is_symlink():
                found.unlink()


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Write one file under a temporary name beside its place, flush it and rename it.

    Parameters
    ----------
    path : str or Path
        A new file, or an existing regular file to replace. A symbolic link's target is replaced, not the link.
    content : bytes or str
        Text is written as UTF-8.

    Raises
    ------
    OutputError
        The place cannot be written, is a directory or special file, or the disk is full; nothing changed then.
    """
    data = content.encode() if isinstance(content, str) else content
    with held():
        _write_atomic(str(path), Path(os.path.realpath(expanded(path))), data)


def _write_atomic(shown: str, target: Path, data: bytes) -> None:
    temporary: Path | None = None
    try:
        if not target.parent.is_dir():
            raise OutputError(f"output file {shown}: the folder {Path(shown).parent} does not exist")
        if target.exists() and not target.is_file():
            raise OutputError(f"output file {shown}: expected a regular file, found a directory or special file")
        descriptor, name = tempfile.mkstemp(prefix=_prefix(target), suffix=_SUFFIX, dir=target.parent)
        temporary = Path(name)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666 & ~_umask()
        temporary.chmod(mode)
        temporary.replace(target)
        temporary = None
        _sync_folder(target.parent)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"output file {shown}: cannot be written: {_explain(error)}") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


class OutputFolder:
    """A folder of results that appears complete or not at all; a context manager.

    Parameters
    ----------
    path : str or Path
        The folder. It may be missing (its parents are made too), empty, hold an earlier result (whose files are
        replaced), or hold files of others (which stay).

    Raises
    ------
    OutputError
        On entering, writing or leaving: the folder cannot be made or written, is a file, the disk is full, or a file
        that Bitline did not write is in the way.

    Examples
    --------
    >>> with OutputFolder("out") as folder:  # doctest: +SKIP
    ...     folder.write("report.json", text)
    """

    def __init__(self, path: str | Path) -> None:
        self._shown = str(path)
        self.path = Path(os.path.realpath(expanded(path)))
        self._staging: Path | None = None
        self._stack = contextlib.ExitStack()
        self._names: list[str] = []

    @property
    def names(self) -> list[str]:
        """Names written so far, relative to the folder."""
        return list(self._names)

    def check(self) -> None:
        """Find out now, before a long run, whether the folder can be written; changes nothing.

        Raises
        ------
        OutputError
            As the class says.
        """
        self._begin()
        self._discard()

    def write(self, name: str, content: bytes | str) -> None:
        """Write one file of the result; text as UTF-8. It appears in the folder when the context ends well.

        Parameters
        ----------
        name : str
            Relative to the folder, with ``/`` for a subfolder.
        """
        with self.open(name) as file:
            file.write(content.encode() if isinstance(content, str) else content)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open one file of the result for writing bytes piece by piece; an OSError inside becomes OutputError."""
        if self._staging is None:
            raise OutputError(f"output folder {self._shown}: {name} can only be written inside the with block")
        place = self._staging / "new" / _relative(name)
        try:
            with held():
                place.parent.mkdir(parents=True, exist_ok=True)
                opened = _open_new(place)
            with opened as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except OutputError:
            raise
        except FileExistsError:
            raise OutputError(f"output folder {self._shown}: {name} is written twice") from None
        except OSError as error:
            raise OutputError(f"output folder {self._shown}: cannot write {name}: {_explain(error)}") from None
        self._names.append(name)

    def __enter__(self) -> Self:
        self._names = []
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with held():
                    self._commit()
        finally:
            self._discard()
        if kind is None:
            for home in (self.path, self.path.parent):
                remove_abandoned(home)

    def _begin(self) -> None:
        """Make the staging folder: inside an existing folder (it may be a mount point), else beside the new one."""
        try:
            if self.path.exists():
                if not self.path.is_dir():
                    raise OutputError(f"output folder {self._shown}: expected a folder, found a file")
                self._refuse_foreign(_OURS)
                home = self.path
            else:
                home = self.path.parent
                ancestor = next(folder for folder in self.path.parents if folder.exists())
                if not ancestor.is_dir():
                    raise OutputError(f"output folder {self._shown}: {ancestor} is a file, expected a folder")
            self._staging = self._stack.enter_context(staging_folder(home))
            (self._staging / "new").mkdir()
        except OSError as error:
            self._discard()
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"output folder {self._shown}: cannot be written: {_explain(error)}") from None
        except BaseException:
            self._discard()
            raise

    def _discard(self) -> None:
        """Remove the staging folder, and the parents made for it if nothing came into them."""
        self._staging = None
        self._stack.close()

    def _refuse_foreign(self, names: tuple[str, ...] | list[str]) -> None:
        """Refuse to replace files where nothing says that Bitline wrote this folder."""
        in_the_way = [name for name in names if os.path.lexists(self.path / name)]
        if in_the_way and not any(_marker(self.path / name) for name in _MARKERS):
            raise OutputError(
                f"output folder {self._shown}: {in_the_way[0]} is there and was not written by Bitline, "
                "expected a new or empty folder or an earlier result"
            )

    def _commit(self) -> None:
        assert self._staging is not None
        new = self._staging / "new"
        try:
            for folder in [new, *(entry for entry in new.rglob("*") if entry.is_dir())]:
                _sync_folder(folder)
            if not self.path.exists():
                # one rename, so the whole folder appears at once
                new.rename(self.path)
                try:
                    _sync_folder(self.path.parent)
                except BaseException:
                    self.path.rename(new)
                    raise
                return
            self._refuse_foreign(self._names)
            self._replace_files(new)
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(f"output folder {self._shown}: cannot be written: {_explain(error)}") from None

    def _replace_files(self, new: Path) -> None:
        """Rename file by file into the existing folder; put everything back if one of them fails."""
        assert self._staging is not None
        old = self._staging / "old"
        undo: list[tuple[Path, Path | None]] = []
        made: list[Path] = []
        stale = self._stale()
        try:
            for name in [*self._names, *stale]:
                place, backup = self.path / name, old / name
                self._inside(place)
                for parent in reversed(PurePosixPath(name).parents[:-1]):
                    if not (self.path / parent).exists():
                        (self.path / parent).mkdir()
                        made.append(self.path / parent)
                saved = os.path.lexists(place)
                if saved:
                    backup.parent.mkdir(parents=True, exist_ok=True)
                    _keep(place, backup)
                undo.append((place, backup if saved else None))
                if name in stale:
                    place.unlink()
                else:
                    (new / name).replace(place)
            for folder in {(self.path / name).parent for name in self._names}:
                _sync_folder(folder)
        except BaseException:
            for place, kept in reversed(undo):
                with contextlib.suppress(OSError):
                    if kept is not None:
                        kept.replace(place)
                    else:
                        place.unlink()
            for folder in reversed(made):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise

    def _stale(self) -> list[str]:
        """Files an earlier report lists as its own and this one does not write: they go with that report."""
        if "report.json" not in self._names:
            return []
        earlier = _marker(self.path / "report.json") or {}
        listed = earlier.get("files")
        stale = []
        for name in listed if isinstance(listed, list) else []:
            # the list was read from a file: believe only plain names of regular files inside the folder
            try:
                place = self.path / _relative(name)
                self._inside(place)
            except OutputError:
                continue
            if name not in self._names and place.is_file() and not place.is_symlink():
                stale.append(name)
        return stale

    def _inside(self, place: Path) -> None:
        """Refuse a subfolder that is a link to somewhere else."""
        parent = Path(os.path.realpath(place.parent))
        if parent != self.path and self.path not in parent.parents:
            raise OutputError(f"output folder {self._shown}: {place.parent.name} leads outside of it")


def _relative(name: object) -> str:
    if isinstance(name, str) and name and "\\" not in name and "\0" not in name:
        parts = PurePosixPath(name).parts
        if parts and not PurePosixPath(name).is_absolute() and ".." not in parts and str(PurePosixPath(name)) == name:
            return name
    raise OutputError(f"output file name {name!r}: expected a plain name relative to the output folder")


def _keep(place: Path, backup: Path) -> None:
    """Keep what is at ``place`` under a second name, without a moment at which ``place`` is missing."""
    if place.is_dir() and not place.is_symlink():
        raise OutputError(f"output folder: {place.name} is a folder, expected a file to replace")
    try:
        os.link(place, backup, follow_symlinks=False)
    except OSError:  # a file system without hard links
        shutil.copy2(place, backup, follow_symlinks=False)


def _marker(path: Path) -> dict[str, object] | None:
    """Return the JSON object of a file that Bitline wrote, or None for anything else."""
    try:
        if not path.is_file() or path.stat().st_size > _MAX_MARKER_BYTES:
            return None
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    provenance = value.get("provenance")
    hashes = {*value, *(provenance if isinstance(provenance, dict) else ())}
    return value if "schema_version" in value or "hardware_sha256" in hashes else None
