"""Mutated and hostile checkpoint files: they load, or are refused in one line; they never run anything.

Files are cut, flipped, spliced, and given opcodes of hostile pickles, also under checksums made right again, so that
the mutations reach torch's unpickler. By default some 3000 mutations; HYPOTHESIS_PROFILE=long runs a hundred times
as many.
"""

from __future__ import annotations

import os
import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bitline.errors import ArchitectureError, BitlineError, CheckpointError
from bitline.network.architectures import build_network
from bitline.network.checkpoint import load_checkpoint

FACTOR = 100 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 1


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that every hostile pickle here would create; its name has no blanks and no quotes."""
    return tmp_path / "canary"


def outcome(path: Path) -> str:
    """Load and build; ``loaded``, or the one line of refusal. Anything else is an error of the test."""
    try:
        checkpoint = load_checkpoint(path)
    except CheckpointError as error:
        return one_line(error)
    assert checkpoint.state_dict
    for tensor in checkpoint.state_dict.values():
        assert type(tensor) is torch.Tensor
        assert not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
    try:
        build_network(checkpoint)
    except ArchitectureError as error:
        return one_line(error)
    return "loaded"


def one_line(error: BitlineError) -> str:
    message = str(error)
    assert message.isprintable(), repr(message)
    assert 20 < len(message) < 2000
    assert "Traceback" not in message
    return message


# ---- mutations -----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("kind", ["zip", "legacy", "legacy_bare", "safetensors"])
def test_mutated_files(tmp_path: Path, kind: str) -> None:
    files = small_files(tmp_path)
    donor = b"".join(files.values())
    path = tmp_path / "mutated.pt"
    path.write_bytes(files[kind])
    assert outcome(path) == "loaded"
    rng = random.Random(kind)
    refused = 0
    number = 400 * FACTOR
    for _ in range(number):
        path.write_bytes(mutate(files[kind], rng, donor))
        refused += outcome(path) != "loaded"
    assert refused > number // 10


def test_mutated_pickles_under_right_checksums(tmp_path: Path) -> None:
    data = small_files(tmp_path)["zip"]
    path = tmp_path / "mutated.pt"
    resealed(data, lambda content: content, "data.pkl", path)
    assert outcome(path) == "loaded"
    rng = random.Random(7)
    refused = 0
    number = 1200 * FACTOR
    for _ in range(number):
        record = rng.choice(("data.pkl", "data.pkl", "data.pkl", "data.pkl", "/0", "byteorder", "version"))
        resealed(data, lambda content: mutate(content, rng, data), record, path)
        refused += outcome(path) != "loaded"
    assert refused > number // 10


@pytest.mark.realdata
def test_mutated_real_checkpoints(tmp_path: Path, shared_data: Path) -> None:
    path = tmp_path / "mutated.pt"
    rng = random.Random(11)
    for name in ("cifar10/mlperftiny_resnet8.pth", "cifar10/resnet20-12fca82f.th", "mnist/lstm_mnist.pth"):
        data = (shared_data / "checkpoints" / name).read_bytes()
        for _ in range(60 * FACTOR):
            path.write_bytes(mutate(data, rng, data))
            outcome(path)


# ---- hostile pickles -----------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("container", ["raw", "legacy", "zip", "wrapped"])
def test_hostile_pickles_are_refused_and_never_run(tmp_path: Path, canary: Path, container: str) -> None:
    path = tmp_path / "hostile.pt"
    files = small_files(tmp_path)
    header = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    for name, hostile in hostile_pickles(canary).items():
        if container == "raw":
            path.write_bytes(hostile)
        elif container == "legacy":
            path.write_bytes(header + hostile + pickle.dumps([], 2))
        elif container == "zip":
            resealed(files["zip"], lambda _, h=hostile: h, "data.pkl", path)
        else:
            # {"state_dict": <hostile>}
            wrapped = b"\x80\x02}" + text("state_dict") + hostile[2:-1] + b"s."
            resealed(files["zip"], lambda _, w=wrapped: w, "data.pkl", path)
        message = outcome(path)
        assert message != "loaded", name
        assert not canary.exists(), name


def test_the_canary_would_sing(tmp_path: Path, canary: Path) -> None:
    """The hostile pickles do what they say to a careless reader; otherwise the test above would show nothing."""
    hostile = hostile_pickles(canary)
    names = ["os.system", "posix.system", "builtins.exec", "__builtin__.eval", "subprocess.call", "instance", "object"]
    for name in names:
        pickle.loads(hostile[name])
        assert canary.exists(), name
        canary.unlink()


@pytest.mark.parametrize("name", ["os.system", "builtins.exec", "torch.hub.load"])
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_hostile_objects_of_every_protocol(tmp_path: Path, canary: Path, name: str, protocol: int) -> None:
    function = {"os.system": os.system, "builtins.exec": exec, "torch.hub.load": torch.hub.load}[name]
    path = tmp_path / "hostile.pt"
    hostile = Reduced(function, f"touch {canary}")
    path.write_bytes(pickle.dumps(hostile, protocol))
    assert outcome(path) != "loaded"
    for legacy in (True, False):
        torch.save(
            {"state_dict": {"fc1.weight": torch.ones(3, 2)}, "extra": hostile},
            path,
            pickle_protocol=max(protocol, 2),
            _use_new_zipfile_serialization=not legacy,
        )
        message = outcome(path)
        assert message != "loaded"
        if protocol <= 2:
            assert "pickled Python object" in message
        assert not canary.exists()


def test_hostile_attributes_do_not_reach_the_loader(tmp_path: Path) -> None:
    """Torch's unpickler lets a file shadow methods: a dict whose ``items`` is a number, a tensor without ``detach``."""
    path = tmp_path / "hostile.pt"
    data = small_files(tmp_path)["zip"]
    shadows = b"}(" + b"".join(text(name) + b"K\x05" for name in ("items", "keys", "get", "values", "__iter__")) + b"u"
    weights = (
        b"(" + text("fc1.weight") + b"ctorch\nFloatTensor\n" + b"\x5d(" + b"G\x3f\xf0\0\0\0\0\0\0" * 4 + b"e\x85Ru"
    )
    ordered = b"\x80\x02ccollections\nOrderedDict\n)R" + weights + shadows + b"b."
    resealed(data, lambda _: ordered, "data.pkl", path)
    with pytest.raises(TypeError):
        torch.load(path, weights_only=True).items()
    assert load_checkpoint(path).state_dict["fc1.weight"].tolist() == [1, 1, 1, 1]
    names = ("detach", "numel", "to", "clone", "untyped_storage", "element_size", "is_contiguous", "dim", "min")
    rebuild, arguments = torch.ones(3, 2).__reduce_ex__(2)
    shadowed = Reduced(torch._tensor._rebuild_from_type_v2, rebuild, torch.Tensor, arguments, dict.fromkeys(names, 5))
    torch.save({"fc1.weight": shadowed}, path)
    with pytest.raises(TypeError):
        torch.load(path, weights_only=True)["fc1.weight"].detach()
    assert torch.equal(load_checkpoint(path).state_dict["fc1.weight"], torch.ones(3, 2))
