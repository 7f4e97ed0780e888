"""Mutated and hostile checkpoint files: they load, or are refused in one line; they never run anything.

Files are cut, flipped, spliced, and given opcodes of hostile pickles, also under checksums made right again, so that
the mutations reach torch's unpickler. By default some 3000 mutations; HYPOTHESIS_PROFILE=long runs a hundred times
as many.
"""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bitline.errors import ArchitectureError, BitlineError, CheckpointError
from bitline.network.architectures import build_network
from bitline.network.checkpoint import load_checkpoint
from hostile_files import Reduced, hostile_pickles, mutate, resealed, small_files, text

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
