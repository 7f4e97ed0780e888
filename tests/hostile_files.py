"""Mutated and hostile files, made the same way by the tests of the loaders and by the campaign of ``make fuzz``."""

from __future__ import annotations

import os
import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

__all__ = ["Reduced", "call", "hostile_pickles", "mutate", "resealed", "small_files", "text"]


def mutate(data: bytes, rng: random.Random, donor: bytes) -> bytes:
    """One to four random changes: flips, random bytes, cuts, insertions, repeats, swaps, pieces of another file."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not out:
            break
        # Half of all changes in the first or last 2000 bytes, where the structure of small files is.
        where = rng.randrange(len(out))
        if rng.random() < 0.5:
            where = (
                rng.randrange(min(2000, len(out))) if rng.random() < 0.5 else -1 - rng.randrange(min(2000, len(out)))
            )
            where %= len(out)
        length = rng.choice((1, 1, 2, 4, 8, 50))
        kind = rng.randrange(9)
        if kind == 0:
            out[where] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[where : where + length] = rng.randbytes(length)
        elif kind == 2:
            del out[where:]
        elif kind == 3:
            del out[where : where + length]
        elif kind == 4:
            out[where:where] = rng.randbytes(length)
        elif kind == 5:
            out[where:where] = out[where : where + length * 4]
        elif kind == 6:
            start = rng.randrange(len(donor))
            out[where : where + length * 10] = donor[start : start + length * 10]
        elif kind == 7:
            # Numbers where sizes are: all ones, the largest signed, minus one, zero.
            number = rng.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0\0\0\0", b"\0\0\0\x40"))
            out[where : where + 4] = number
        else:
            # One opcode for another.
            out[where] = rng.choice(b"0123456789(.)cotsbReuaQqrhjKMJGXU\x85\x86\x87\x88\x89\x8aN]}\x81\x80")
    return bytes(out)


def resealed(data: bytes, change: Callable[[bytes], bytes], record: str, path: Path) -> None:
    """Write a torch archive again with one record changed, so that its checksum holds."""
    source = path.with_suffix(".source")
    source.write_bytes(data)
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(path, "w") as target:
        for info in archive.infolist():
            content = archive.read(info)
            target.writestr(info.filename, change(content) if info.filename.endswith(record) else content)


def small_files(folder: Path) -> dict[str, bytes]:
    """The same small network in every format, as bytes."""
    weights = {"fc1.weight": torch.rand(4, 12), "fc1.bias": torch.rand(4), "fc2.weight": torch.rand(3, 4)}
    weights["fc2.bias"] = torch.rand(3)
    wrapped = {"epoch": 3, "arch": "mlp", "state_dict": {f"module.{key}": tensor for key, tensor in weights.items()}}
    path = folder / "whole"
    files = {}
    torch.save(wrapped, path)
    files["zip"] = path.read_bytes()
    torch.save(wrapped, path, _use_new_zipfile_serialization=False)
    files["legacy"] = path.read_bytes()
    bare = OrderedDict((key, nn.Parameter(tensor)) for key, tensor in weights.items())
    torch.save(bare, path, _use_new_zipfile_serialization=False)
    files["legacy_bare"] = path.read_bytes()
    save_file(weights, path, metadata={"normalisation": "half"})
    files["safetensors"] = path.read_bytes()
    return files


class Reduced:
    """Pickles as a call of a function."""

    def __init__(self, function: object, *args: object) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call  # type: ignore[return-value]


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def call(module: str, name: str, argument: bytes, opcode: bytes = b"R") -> bytes:
    """Opcodes that look a function up by name and call it with one argument."""
    return f"c{module}\n{name}\n".encode() + argument + b"\x85" + opcode


def hostile_pickles(canary: Path) -> dict[str, bytes]:
    """Complete protocol-2 pickles that would create the canary file if anything in them were called."""
    touch = text(f"touch {canary}")
    code = text(f"open({str(canary)!r}, 'w').close()")
    inner = canary.with_name("inner.pt")
    inner.write_bytes(pickle.dumps(Reduced(os.system, f"touch {canary}"), 2))
    bodies = {
        "os.system": call("os", "system", touch),
        "posix.system": call("posix", "system", touch),
        "nt.system": call("nt", "system", touch),
        "builtins.exec": call("builtins", "exec", code),
        "__builtin__.exec": call("__builtin__", "exec", code),
        "__builtin__.eval": call("__builtin__", "eval", code),
        "builtins.__import__": call("builtins", "__import__", text("os")),
        "builtins.getattr": b"cbuiltins\ngetattr\ncos\nsystem\n" + text("__call__") + b"\x86R",
        "builtins.open": b"cbuiltins\nopen\n" + text(str(canary)) + text("w") + b"\x86R",
        "subprocess.call": call("subprocess", "getoutput", touch),
        "subprocess.Popen": call("subprocess", "Popen", touch, b"\x81"),
        "torch.load": call("torch", "load", text(str(inner))),
        "torch.serialization.load": call("torch.serialization", "load", text(str(inner))),
        "torch.storage._load_from_bytes": call("torch.storage", "_load_from_bytes", b"U\x01a"),
        "torch.hub.load": call("torch.hub", "load", text("nobody/nothing")),
        "torch.jit.load": call("torch.jit", "load", text(str(inner))),
        "torch.utils.cpp_extension.load": call("torch.utils.cpp_extension", "load", text(str(inner))),
        "pickle.loads": call("pickle", "loads", b"U\x01a"),
        "numpy.load": call("numpy", "load", text(str(inner))),
        "numpy._reconstruct": call("numpy.core.multiarray", "_reconstruct", b"K\x01"),
        "importlib.import_module": call("importlib", "import_module", text("antigravity")),
        "runpy.run_path": call("runpy", "run_path", text(str(inner))),
        "bitline.cli.main": call("bitline.cli", "main", text("simulate")),
        "codecs.encode": call("_codecs", "encode", touch) + b"0" + call("os", "system", touch),
        "instance": b"(" + touch + b"ios\nsystem\n",
        "object": b"(cos\nsystem\n" + touch + b"o",
        # A harmless class may stand beside weights, but it must not lend its methods.
        "argparse.Namespace": b"cargparse\nNamespace\n)\x81}" + text("x") + call("os", "system", touch) + b"sb",
        "argparse": call("argparse", "FileType", text("w")),
        "torch.Tensor.__class__": b"ctorch\nTensor\n" + call("os", "system", touch) + b"\x85R",
    }
    return {name: b"\x80\x02" + body + b"." for name, body in bodies.items()}
