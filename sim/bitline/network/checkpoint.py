"""Checkpoint files in, plain float32 weights out; nothing from the file is ever executed.

``torch.load`` runs with ``weights_only``, whose unpickler knows tensors and containers only. Around it are checks that
it does not make: checksums, sizes beyond the file's, weights that are not finite. Whatever is wrong with a file becomes
one :class:`~bitline.errors.CheckpointError` line.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import stat
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bitline.errors import CheckpointError
from bitline.network.key_names import strip_wrappers
from bitline.network.masks import UnreadArray, apply_masks, masks_beside, names_masks
from bitline.paths import expanded
from bitline.printable import clean
from bitline.signals import temporary_folder

__all__ = ["Checkpoint", "load_checkpoint", "printable"]

#: Keys under which people wrap a state dict, in order of preference: the trained weights before their running average.
_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "net_state_dict",
    "network",
    "module",
    "weights",
    "params",
    "state",
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "ema_model",
    "params_ema",
)

#: Counters that are not weights: batch norm's, thop's and AveragedModel's.
_COUNTERS = frozenset({"num_batches_tracked", "total_ops", "total_params", "n_averaged"})

#: Last parts of the names of weights, which must be tensors.
_WEIGHT_LEAVES = frozenset({"weight", "bias", "weight_orig", "bias_orig", "weight_mask", "running_mean", "running_var"})

_HOW_TO_SAVE = "save its weights with torch.save(model.state_dict(), ...)"
_EXPECTED = "expected float weights of PyTorch, saved with torch.save or safetensors"
_FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_DEPTH = 4


class _Format(StrEnum):
    ZIP = "zip"
    PICKLE = "pickle"
    SAFETENSORS = "safetensors"


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """The weights of one file."""

    path: Path
    sha256: str
    """Of the file, in hexadecimal."""
    state_dict: dict[str, Tensor]
    """Name to float32 tensor (integer buffers keep their type), in the file's order, prefixes and masks resolved."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Strings and numbers beside the weights: a safetensors header's metadata, or a wrapper's entries."""
    wrapper_keys: tuple[str, ...] = ()
    """Where in the file the state dict was, outermost key first; empty for a bare state dict."""
    prefix: str = ""
    """What was removed from the front of every key."""
    masked: tuple[str, ...] = ()
    """Names whose weight was multiplied by a mask."""
    notes: tuple[str, ...] = ()
    """What was done to the weights that a reader of the result must know, a sentence each."""
    stored: dict[str, Tensor] = field(default_factory=dict)
    """Weights before their masks, and the masks, by their names in the file: what a module that masks itself takes."""


class _Ignored:
    """Stands in for a harmless class that people save beside weights; takes anything, keeps nothing, runs nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _IgnoredArray(_Ignored, UnreadArray):
    """A NumPy array; told from other things because one in a weight's place must not be dropped."""


#: Classes that appear beside weights in common training scripts (options, scores); each is read as an _Ignored.
_IGNORED_GLOBALS: list[Any] = [
    (_Ignored, name)
    for name in (
        "argparse.Namespace",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "numpy.ndarray",
        *(
            f"numpy.dtypes.{kind}DType"
            for kind in (
                *("Float64", "Float32", "Float16", "Bool", "Int64", "Int32", "Int16", "Int8"),
                *("UInt64", "UInt32", "UInt16", "UInt8"),
            )
        ),
    )
] + [(_IgnoredArray, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read the weights of a ``.pt``, ``.pth``, ``.th``, ``.pth.tar`` or ``.safetensors`` file.

    What the file is, is told from its content. A bare state dict and one wrapped under a customary key are found; a
    prefix common to all keys is removed, and what wrappers put into the middle of keys; masks, beside the state dict or
    in it, are multiplied in; half, bfloat16 and float64 weights become float32; counters of batches and operations are
    dropped.

    Parameters
    ----------
    path : str or PathLike
        The checkpoint.

    Returns
    -------
    Checkpoint

    Raises
    ------
    CheckpointError
        Missing, unreadable, empty, truncated, corrupted or hostile file; a pickled module, TorchScript, or no weights;
        quantised, sparse or complex weights; NaN or infinite weights; masks that are not 0 and 1, of another shape than
        their weight, or of no weight.
    """
    path = expanded(path)
    size = _check_file(path)
    digest = _sha256(path)
    kind = _sniff(path, size)
    metadata: dict[str, str] = {}
    wrapper_keys: tuple[str, ...] = ()
    beside: dict[str, object] = {}
    if kind is _Format.SAFETENSORS:
        raw, metadata = _read_safetensors(path)
    else:
        if kind is _Format.ZIP:
            _check_zip(path, size)
        loaded = _read_torch(path, kind)
        raw, wrapper_keys, metadata, beside = _unwrap(path, loaded)
    weights = _usable(path, raw, size)
    if not weights:
        raise _bad(path, "holds no weights: there is no tensor in it that is one")
    weights, prefix = strip_wrappers(weights)
    try:
        weights, resolved = apply_masks(weights, beside)
    except ValueError as error:
        raise _bad(path, f": {error}") from None
    state_dict = _to_float32(path, weights)
    return Checkpoint(
        path=path,
        sha256=digest,
        state_dict=state_dict,
        metadata=metadata,
        wrapper_keys=wrapper_keys,
        prefix=prefix,
        masked=resolved.names,
        notes=resolved.notes,
        stored=resolved.stored,
    )


# ---- the file ------------------------------------------------------------------------------------------------------


def _check_file(path: Path) -> int:
    """Size of a readable, regular, non-empty file that this machine can hold."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise _bad(path, "does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise _bad(path, f"cannot be read: {_line(error)}") from None
    if stat.S_ISDIR(status.st_mode):
        raise _bad(path, "is a directory; expected a .pt, .pth, .th or .safetensors file")
    if not stat.S_ISREG(status.st_mode):
        raise _bad(path, "is not a regular file (a pipe or a device)")
    if status.st_size == 0:
        raise _bad(path, "is empty (0 bytes)")
    memory = _physical_memory()
    if status.st_size > memory:
        raise _bad(path, f"has {status.st_size / 1e9:.1f} GB, more than this machine's {memory / 1e9:.1f} GB of memory")
    return status.st_size


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _bad(path, f"cannot be read: {_line(error)}") from None


def _sniff(path: Path, size: int) -> _Format:
    """What a file is, from its first bytes; the extension says nothing reliable."""
    with path.open("rb") as file:
        head = file.read(64)
    # safetensors: the header's length, little-endian, then the header, a JSON object. Looked at first, because a length
    # may begin with the bytes that mark a pickle (0x80) or a zip archive (PK); as a length theirs would be absurd.
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and length <= size - 8:
        return _Format.SAFETENSORS
    if head.startswith(b"PK"):
        return _Format.ZIP
    if head.startswith(b"\x80"):
        return _Format.PICKLE
    if head[8:9] == b"{":
        raise _bad(path, f"is truncated or damaged: its safetensors header claims {length} bytes, the file has {size}")
    for offset, magic, what in _OTHER_FILES:
        if head[offset:].startswith(magic):
            raise _bad(path, f"is {what}")
    # ONNX, a protocol buffer without a mark: the model's version, a small number, then its producer or its graph.
    if head[:1] == b"\x08" and 1 <= head[1] <= 20 and head[2:3] in (b"\x12", b"\x1a", b"\x3a", b"\x42"):
        raise _bad(path, f"is an ONNX model, whose weights are in a graph; in PyTorch, {_HOW_TO_SAVE}")
    if head.startswith(b"version https://git-lfs"):
        raise _bad(path, "is a Git LFS pointer, not the checkpoint itself; fetch it with 'git lfs pull'")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise _bad(path, "is a web page, not a checkpoint; the download went wrong")
    # Old text pickles (protocol 0) have no mark; torch.load refuses what is not one of its own.
    return _Format.PICKLE


def _check_zip(path: Path, size: int) -> None:
    """Refuse what torch's reader does not: bad checksums, compressed or overlapping records, other archives."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            names = [record.filename.partition("/")[2] for record in records]
            other = _other_archive({record.filename for record in records}, names)
            compressed = next((r.filename for r in records if r.compress_type != zipfile.ZIP_STORED), None)
            # Records that add up to more than the file overlap or are made up: told before any is read.
            claimed = sum(record.file_size for record in records)
            damaged = archive.testzip() if other is None and compressed is None and claimed <= size else None
    # What zipfile raises for damaged archives besides BadZipFile: bad names, odd versions, encrypted or cut records.
    except (
        zipfile.BadZipFile,
        EOFError,
        OSError,
        ValueError,
        NotImplementedError,
        RuntimeError,
        struct.error,
    ) as error:
        raise _bad(path, f"is truncated or damaged: a zip archive that cannot be read ({_line(error)})") from None
    if other is not None:
        raise _bad(path, other)
    if compressed is not None:
        raise _bad(
            path, f"has a compressed record '{printable(compressed)}'; torch.save stores its records uncompressed"
        )
    if claimed > size:
        raise _bad(path, f"is damaged: its records claim {claimed} bytes, the file has {size}")
    if damaged is not None:
        raise _bad(path, f"is damaged: the checksum of its record '{printable(damaged)}' does not match")
    if "data.pkl" not in names:
        raise _bad(path, "is a zip archive, but not one that torch.save wrote: it has no data.pkl")
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise _bad(path, f"is damaged: it has two records named '{printable(twice)}'")


def _other_archive(files: set[str], names: list[str]) -> str | None:
    """What else a zip archive is, by the names of its records with and without their folder; None for torch.save's."""
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        return f"is a TorchScript archive, which holds code; {_HOW_TO_SAVE} of the module it was made from"
    exported = ("models/model.json", "serialized_exported_program.json", "archive_format")
    if any(name in exported for name in (*files, *names)):
        return (
            "is a program saved by torch.export (.pt2), which holds a graph; save its weights with "
            "torch.save(torch.export.load(...).state_dict, ...)"
        )
    if any(name.endswith(".npy") for name in files):
        return f"is an archive of NumPy arrays (.npz), not a checkpoint; {_HOW_TO_SAVE}"
    if any(name.endswith(".weights.h5") for name in files):
        return f"is a Keras model; {_EXPECTED}"
    return None


def _read_torch(path: Path, kind: _Format) -> object:
    """What ``torch.save`` wrote, restricted to weights and plain containers."""
    try:
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals(_IGNORED_GLOBALS),
            _plain_name(path, kind) as name,
        ):
            # torch warns about odd pickles before it refuses or reads them; the outcome says all there is to say.
            warnings.simplefilter("ignore")
            # Mapped into memory, a storage that claims more bytes than its record has cannot reach beyond the file.
            return torch.load(name, map_location="cpu", weights_only=True, mmap=kind is _Format.ZIP)
    except MemoryError:
        raise _bad(path, "is damaged: it asks for more memory than there is") from None
    except pickle.UnpicklingError as error:
        culprit = _refused_object(str(error))
        if culprit is None:
            raise _not_torch(path, kind, error) from None
        raise _bad(path, f"holds a pickled Python object ({culprit}), not weights; {_HOW_TO_SAVE}") from None
    except Exception as error:  # a damaged or hostile pickle makes the unpickler fail in any way at all
        raise _not_torch(path, kind, error) from None


@contextmanager
def _plain_name(path: Path, kind: _Format) -> Iterator[str]:
    """The path, or a link to it where torch and safetensors cannot take its name.

    They want a name that is text in UTF-8; and torch.load would take a torch file named so for a safetensors file.
    """
    name = str(path)
    text = name.encode("utf-8", "replace").decode() == name
    if text and (kind is _Format.SAFETENSORS or not name.endswith(".safetensors")):
        yield name
        return
    with temporary_folder() as folder:
        link = folder / "checkpoint.pt"
        link.symlink_to(path.absolute())
        yield str(link)


def _not_torch(path: Path, kind: _Format, error: Exception) -> CheckpointError:
    what = {
        _Format.ZIP: "its pickled part cannot be read",
        _Format.PICKLE: "it is a pickle or another file that torch.save did not write",
    }[kind]
    hint = f"; {_HOW_TO_SAVE}" if kind is _Format.PICKLE else ""
    return _bad(path, f"is truncated, damaged or not a checkpoint: {what} ({_line(error)}){hint}")


#: Files of other programs by their mark and where it stands.
_OTHER_FILES = (
    (
        0,
        b"\x89HDF\r\n\x1a\n",
        f"an HDF5 file (Keras); {_EXPECTED}",
    ),
    (4, b"TFL3", f"a TensorFlow Lite model; {_EXPECTED}"),
    (0, b"GGUF", f"a GGUF file of quantised weights; {_EXPECTED}"),
    (0, b"\x93NUMPY", f"a NumPy array; expected named weights: {_HOW_TO_SAVE}"),
    (0, b"\x1f\x8b", "compressed with gzip; unpack it with gunzip first"),
    (0, b"BZh", "compressed with bzip2; unpack it with bunzip2 first"),
    (0, b"\xfd7zXZ\x00", "compressed with xz; unpack it with unxz first"),
)

#: How torch's restricted unpickler names what it refuses.
_REFUSALS = (
    re.compile(r"GLOBAL (\S+) was not an allowed global"),
    re.compile(r"unsupported GLOBAL (\S+) whose module"),
    re.compile(r"unrecognized function (.+?)(?: which belongs|\n|$)"),
    re.compile(r"allowlisted via `add_safe_globals`,? but got (.+)"),
)


def _refused_object(message: str) -> str | None:
    for pattern in _REFUSALS:
        if match := pattern.search(message):
            return printable(match.group(1))
    return None


def _read_safetensors(path: Path) -> tuple[dict[str, object], dict[str, str]]:
    try:
        with (
            _plain_name(path, _Format.SAFETENSORS) as name,
            safe_open(name, framework="pt", device="cpu") as file,
        ):
            metadata = {str(key): str(value) for key, value in (file.metadata() or {}).items()}
            # Copies: the tensors of the library live in the mapped file, which others may change.
            tensors: dict[str, object] = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, AttributeError, KeyError) as error:
        raise _bad(path, f"is truncated or damaged: not a valid safetensors file ({_line(error)})") from None
    return tensors, metadata


# ---- finding the weights -------------------------------------------------------------------------------------------


def _unwrap(path: Path, loaded: object) -> tuple[dict[str, object], tuple[str, ...], dict[str, str], dict[str, object]]:
    """The state dict in what was saved, the keys that led to it, the strings and numbers beside it, and the masks."""
    where: list[str] = []
    metadata: dict[str, str] = {}
    beside: dict[str, object] = {}
    for _ in range(_DEPTH):
        inside = f" under '{printable('.'.join(where))}'" if where else ""
        if not isinstance(loaded, dict):
            found = "a single tensor" if isinstance(loaded, Tensor) else f"a {type(loaded).__name__}"
            raise _bad(path, f"holds no weights{inside}: expected a state dict of named tensors, found {found}")
        # dict.items, for a hostile pickle can give an OrderedDict an attribute of that name. Only text names weights.
        level = {key: value for key, value in dict.items(loaded) if isinstance(key, str)}
        for key, value in level.items():
            if isinstance(value, (str, int, float, bool)):
                metadata[printable(key)] = printable(str(value))
        wrapper = _wrapper_key(path, level)
        beside |= masks_beside({key: value for key, value in level.items() if key != wrapper}, ".".join(where))
        if wrapper is None:
            return level, tuple(where), metadata, beside
        where.append(wrapper)
        loaded = level[wrapper]
    raise _bad(path, f"holds no weights within {_DEPTH} levels ('{printable('.'.join(where))}')")


def _wrapper_key(path: Path, level: Mapping[str, object]) -> str | None:
    """The entry of this level that holds the state dict, or None where this level is it."""
    for key in _WRAPPERS:
        value = level.get(key)
        # A dict of options may bear the same name; only one with tensors, or with dicts to look into, is a wrapper.
        if isinstance(value, dict) and any(isinstance(entry, (Tensor, dict)) for entry in dict.values(value)):
            return key
    if any(isinstance(value, Tensor) for value in level.values()):
        return None
    candidates = [key for key, value in level.items() if _is_state_dict(value) and not names_masks(key)]
    if len(candidates) > 1:
        names = ", ".join(f"'{printable(key)}'" for key in candidates[:4])
        raise _bad(path, f"holds {len(candidates)} state dicts ({names}); expected one, or one named 'state_dict'")
    if not candidates:
        raise _bad(path, "holds no weights: there is no tensor in it, nor a state dict under a customary key")
    return candidates[0]


def _is_state_dict(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    items = [(key, tensor) for key, tensor in dict.items(value) if isinstance(key, str)]
    return any(isinstance(tensor, Tensor) and key.endswith("weight") for key, tensor in items)


def _usable(path: Path, raw: Mapping[str, object], file_size: int) -> dict[str, Tensor]:
    """The tensors among the entries, less the counters; refuses those that are no plain numbers of this file."""
    memory = _physical_memory()
    weights: dict[str, Tensor] = {}
    total = 0
    for key, value in raw.items():
        name = printable(key)
        leaf = key.rpartition(".")[2]
        if leaf in _COUNTERS:
            continue
        if not isinstance(value, Tensor):
            if value is not None and leaf in _WEIGHT_LEAVES:  # dropped, another network would be read
                found = "a NumPy array" if isinstance(value, _IgnoredArray) else f"a {type(value).__name__}"
                raise _bad(path, f": '{name}' is {found}, not a tensor; {_HOW_TO_SAVE}")
            continue
        kind = _unusable_kind(value, leaf)
        if kind is not None:
            raise _bad(path, f": '{name}' is {kind}; expected plain float weights")
        # Called on the class: a hostile pickle can give a tensor an attribute named like any method; a detached
        # tensor has none of them.
        tensor = Tensor.detach(value)
        shape = tuple(tensor.shape)
        if tensor.numel() == 0:
            raise _bad(path, f": '{name}' has no elements (shape {shape})")
        size = tensor.numel() * tensor.element_size()
        if size > file_size:
            raise _bad(path, f": '{name}' claims {size} bytes (shape {shape}), the file has {file_size}")
        total += tensor.numel() * 4
        if total > memory:
            raise _bad(path, f": its weights need more than this machine's {memory / 1e9:.1f} GB of memory")
        weights[key] = tensor
    return weights


def _unusable_kind(tensor: Tensor, leaf: str) -> str | None:
    """Why a tensor cannot be weights, or None."""
    # The type's own properties (not methods) cannot be shadowed by attributes that a pickle sets.
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        return f"a tensor of a special class ({type(tensor).__name__})"
    if tensor.is_quantized:
        return "a quantised tensor"
    if tensor.is_nested or tensor.layout != torch.strided:
        return "a sparse tensor"
    if tensor.device.type != "cpu":
        return f"a tensor without data (on the {tensor.device.type} device)"
    if tensor.dtype in _FLOATS:
        return None
    if tensor.dtype.is_complex:
        return "a complex tensor"
    if tensor.dtype.is_floating_point or leaf in ("weight", "bias", "weight_orig", "bias_orig"):
        return f"a quantised tensor ({str(tensor.dtype).removeprefix('torch.')})"
    return None


def _to_float32(path: Path, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Own, contiguous copies in float32 (integer buffers as they are), all finite."""
    result = {}
    for key, tensor in weights.items():
        if not tensor.is_floating_point():
            result[key] = tensor.clone(memory_format=torch.contiguous_format)
            continue
        copy = tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        if not bool(torch.isfinite(copy).all()):
            nans = int(torch.isnan(copy).sum())
            infinities = int(torch.isinf(copy).sum())
            raise _bad(
                path,
                f": '{printable(key)}' has {nans} NaN and {infinities} infinite of {copy.numel()} values (as float32)",
            )
        if key.endswith("running_var") and float(copy.min()) < 0:
            raise _bad(path, f": '{printable(key)}' has negative variances (smallest {float(copy.min()):.3g})")
        result[key] = copy
    return result


# ---- messages ------------------------------------------------------------------------------------------------------


def _bad(path: Path, what: str) -> CheckpointError:
    """The error for a file, one line whatever its name holds; a ``what`` that starts with ':' is about its contents."""
    gap = "" if what.startswith(":") else " "
    return CheckpointError(f"checkpoint '{printable(str(path), 1000)}'{gap}{what}")


def printable(text: str, limit: int = 120) -> str:
    """Text from the file, fit for a message: printable, short, on one line."""
    return clean(text) if len(text) <= limit else clean(text[:limit]) + "..."


def _line(error: BaseException) -> str:
    """What an exception says, in a few words on one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # torch's advice to load unsafely, and its colours, are not for a user of ours.
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    text = text.rpartition("WeightsUnpickler error:")[2]
    text = text.partition("Check the documentation")[0]
    return printable(" ".join(text.split()), 160) or type(error).__name__
