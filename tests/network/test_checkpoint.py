"""Checkpoints of every shape people save come out as the same weights; everything else is refused in one line."""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn
from torch.nn.utils import prune

from bitline.errors import CheckpointError
from bitline.network import checkpoint as checkpoint_module
from bitline.network.checkpoint import load_checkpoint


def small_net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))


WEIGHTS = {k: v for k, v in small_net().state_dict().items() if not k.endswith("num_batches_tracked")}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor] = WEIGHTS) -> None:
    assert list(found) == list(expected)
    for key, tensor in expected.items():
        assert found[key].dtype == torch.float32
        assert torch.equal(found[key], tensor), key


def refused(path: Path, *words: str) -> str:
    """The one line that a file is refused with; it names the file and has the words."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    assert path.name in message
    for word in words:
        assert word in message, message
    return message


# ---- what loads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.th", "net.pth.tar", "net.safetensors", "net"])
def test_formats_are_told_by_content_not_by_name(tmp_path: Path, name: str, legacy: bool) -> None:
    path = tmp_path / name
    torch.save(small_net().state_dict(), path, _use_new_zipfile_serialization=not legacy)
    loaded = load_checkpoint(path)
    assert_same(loaded.state_dict)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.wrapper_keys == ()
    assert loaded.prefix == ""


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt"])
def test_safetensors_with_metadata(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    save_file(WEIGHTS, path, metadata={"normalisation": "half", "architecture": "resnet20"})
    loaded = load_checkpoint(path)
    assert_same(dict(sorted(loaded.state_dict.items())), dict(sorted(WEIGHTS.items())))
    assert loaded.metadata == {"normalisation": "half", "architecture": "resnet20"}


@pytest.mark.parametrize(
    ("wrap", "where"),
    [
        (lambda s: {"state_dict": s, "epoch": 3, "arch": "tiny", "best": torch.tensor(91.7)}, ("state_dict",)),
        (lambda s: {"optimizer": {"state": {0: {"m": torch.ones(3)}}}, "model": s}, ("model",)),
        (lambda s: {"model": {"depth": 20, "name": "resnet"}, "net": s}, ("net",)),
        (lambda s: {"model_state_dict": s}, ("model_state_dict",)),
        (lambda s: {"ema": s}, ("ema",)),
        (lambda s: {"state_dict_ema": {k: v + 1 for k, v in s.items()}, "state_dict": s}, ("state_dict",)),
        (lambda s: {"network": {"weights": {"params": s}}}, ("network", "weights", "params")),
        (lambda s: {"generator_7": s, "epoch": 1}, ("generator_7",)),
        (lambda s: OrderedDict(s), ()),
    ],
)
def test_wrapped_state_dicts(tmp_path: Path, wrap: object, where: tuple[str, ...]) -> None:
    path = tmp_path / "net.pt"
    torch.save(wrap(dict(small_net().state_dict())), path)  # type: ignore[operator]
    loaded = load_checkpoint(path)
    assert_same(loaded.state_dict)
    assert loaded.wrapper_keys == where


def test_scores_and_options_beside_the_weights(tmp_path: Path) -> None:
    """Options and NumPy scores are what training scripts save; plain ones are kept as text, objects are skipped."""
    path = tmp_path / "net.pt"
    extras = {"epoch": 179, "arch": "resnet20_cifar", "args": argparse.Namespace(lr=0.1), "best": np.float64(91.5)}
    torch.save({"state_dict": WEIGHTS, **extras}, path)
    loaded = load_checkpoint(path)
    assert_same(loaded.state_dict)
    assert loaded.metadata == {"epoch": "179", "arch": "resnet20_cifar"}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "backbone."])
def test_prefixes_are_removed(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "net.pt"
    torch.save({prefix + key: tensor for key, tensor in small_net().state_dict().items()}, path)
    loaded = load_checkpoint(path)
    assert_same(loaded.state_dict)
    assert loaded.prefix == prefix


def test_a_prefix_that_one_key_lacks_stays(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save({"model.weight": torch.ones(2), "head.weight": torch.ones(3)}, path)
    assert list(load_checkpoint(path).state_dict) == ["model.weight", "head.weight"]


def test_masks_of_torch_prune_are_multiplied_in(tmp_path: Path) -> None:
    net = small_net()
    prune.l1_unstructured(net[0], "weight", 0.5)
    prune.random_structured(net[4], "weight", 0.3, dim=1)
    net(torch.zeros(1, 1, 8, 8))  # prune computes the pruned weights before each forward pass
    path = tmp_path / "net.pt"
    torch.save(net.state_dict(), path)
    loaded = load_checkpoint(path)
    assert set(loaded.masked) == {"0.weight", "4.weight"}
    assert torch.equal(loaded.state_dict["0.weight"], net[0].weight)
    assert torch.equal(loaded.state_dict["4.weight"], net[4].weight)
    assert int((loaded.state_dict["0.weight"] == 0).sum()) == 18
    assert set(loaded.state_dict) == set(WEIGHTS)


# ---- masks ---------------------------------------------------------------------------------------------------------

MASK = (torch.arange(4 * 9).reshape(4, 1, 3, 3) % 3 == 0).float()
"""Of the first layer: every third weight, 12 of 36, stays."""
MASKED = WEIGHTS | {"0.weight": WEIGHTS["0.weight"] * MASK}


@pytest.mark.parametrize(
    ("saved", "named"),
    [
        ({"state_dict": WEIGHTS, "mask_dict": {"0.weight": MASK}}, "mask_dict"),
        ({"state_dict": WEIGHTS, "mask": {"0": MASK.bool(), "4.weight": None}}, "mask"),
        ({"net": WEIGHTS, "compression_sched": {"masks_dict": {"0.weight": MASK, "4.weight": None}, "policies": {}}},
         "compression_sched.masks_dict"),
        ({"state_dict": {"module." + k: v for k, v in WEIGHTS.items()}, "masks": {"module.0.weight": MASK}}, "masks"),
        ({"my_net": WEIGHTS, "my_masks": {"0.weight_mask": MASK.to(torch.uint8)}, "mask_ratio": 0.5}, "my_masks"),
        ({**WEIGHTS, "pruner": {"masks": {"0.weight": MASK}}}, "pruner.masks"),
        ({**WEIGHTS, "0.weight_mask": MASK}, "0.weight"),
        ({**WEIGHTS, "0.mask": MASK.bool()}, "0.weight"),
    ],
)  # fmt: skip
def test_masks_beside_the_weights_are_multiplied_in_and_said(tmp_path: Path, saved: object, named: str) -> None:
    """Overlooked, the dense weights would be certified instead of the pruned ones."""
    path = tmp_path / "net.pt"
    torch.save(saved, path)
    loaded = load_checkpoint(path)
    assert_same(loaded.state_dict, MASKED)
    assert loaded.masked == ("0.weight",)
    (note,) = loaded.notes
    assert named in note
    assert "multiplied in" in note


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        ({"mask_dict": {"0.weight": MASK * 0.5}}, ("'mask_dict.0.weight'", "values other than 0 and 1")),
        ({"mask_dict": {"0.weight": MASK[:2]}}, ("has shape (2, 1, 3, 3), its weight (4, 1, 3, 3)",)),
        ({"mask_dict": {"7.weight": MASK}}, ("'mask_dict.7.weight' belongs to no weight",)),
        ({"masks": [MASK, MASK]}, ("'masks' holds masks without the names of their weights",)),
        ({"mask": MASK}, ("'mask' holds masks without the names of their weights",)),
        ({"mask_dict": {"0.weight": MASK.numpy()}}, ("is a NumPy array",)),
    ],
)
def test_masks_that_cannot_be_applied_are_refused(tmp_path: Path, beside: dict[str, object], words: tuple[str]) -> None:
    path = tmp_path / "net.pt"
    torch.save({"state_dict": WEIGHTS, **beside}, path)
    refused(path, *words)


def test_dicts_that_hold_themselves_are_looked_into_once(tmp_path: Path) -> None:
    options: dict[str, object] = {}
    options |= {str(number): options for number in range(300)}  # 300 ** 4 paths
    path = tmp_path / "net.pt"
    torch.save({"state_dict": WEIGHTS, "options": options}, path)
    assert_same(load_checkpoint(path).state_dict)


def test_a_soft_mask_of_torch_prune_s_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save({"fc.weight_orig": torch.ones(2, 2), "fc.weight_mask": torch.full((2, 2), 0.5)}, path)
    refused(path, "'fc.weight_mask' has values other than 0 and 1")


def test_a_pruned_lstm(tmp_path: Path) -> None:
    """torch.nn.utils.prune masks any parameter of any name."""
    lstm = nn.LSTM(3, 4)
    prune.l1_unstructured(lstm, "weight_ih_l0", 0.5)
    prune.l1_unstructured(lstm, "weight_hh_l0", 0.25)
    torch.save(lstm.state_dict(), tmp_path / "net.pt")
    loaded = load_checkpoint(tmp_path / "net.pt").state_dict
    assert set(loaded) == {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"}
    assert torch.equal(loaded["weight_ih_l0"], lstm.weight_ih_l0)
    assert int((loaded["weight_ih_l0"] == 0).sum()) == 24  # half of 16 x 3
    assert int((loaded["weight_hh_l0"] == 0).sum()) == 16  # a quarter of 16 x 4


def test_a_sparsified_parametrization(tmp_path: Path) -> None:
    """As torch.ao.pruning saves it: the raw weight and its mask under ``parametrizations``."""
    raw, mask = torch.ones(2, 3), torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    keys = {"fc.parametrizations.weight.original": raw, "fc.parametrizations.weight.0.mask": mask, "fc.bias": raw[0]}
    torch.save(keys, tmp_path / "net.pt")
    loaded = load_checkpoint(tmp_path / "net.pt").state_dict
    assert set(loaded) == {"fc.weight", "fc.bias"}
    assert torch.equal(loaded["fc.weight"], mask)


# ---- names and neighbours ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda key: key.replace(".", "._orig_mod.", 1),
        lambda key: "_fsdp_wrapped_module." + key.replace(".", "._fsdp_wrapped_module.", 1),
        lambda key: "model." + key.replace(".", "._checkpoint_wrapped_module.", 1),
        lambda key: "module._orig_mod." + key,
        lambda key: key.replace("0.", "0.module."),
    ],
)
def test_wrappers_in_the_middle_of_keys(tmp_path: Path, wrapped: Callable[[str], str]) -> None:
    path = tmp_path / "net.pt"
    torch.save({wrapped(key): tensor for key, tensor in WEIGHTS.items()}, path)
    assert_same(load_checkpoint(path).state_dict)


def test_keys_that_differ_by_a_wrapper_only_stay(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save({"a.module.weight": torch.ones(2), "a.weight": torch.ones(3)}, path)
    assert list(load_checkpoint(path).state_dict) == ["a.module.weight", "a.weight"]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_numpy_arrays_beside_the_weights(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "net.pt"
    torch.save({"state_dict": WEIGHTS, "mean": np.ones(3, dtype), "losses": [np.ones(2, dtype)]}, path)
    assert_same(load_checkpoint(path).state_dict)


@pytest.mark.parametrize(("value", "words"), [(np.ones(10), "a NumPy array"), ([0.5] * 10, "a list")])
def test_weights_that_are_no_tensors_are_named(tmp_path: Path, value: object, words: str) -> None:
    """Without its bias the network would be another one, and still be recognised."""
    path = tmp_path / "net.pt"
    torch.save({"fc1.weight": torch.ones(10, 4), "fc1.bias": value}, path)
    refused(path, f"'fc1.bias' is {words}, not a tensor")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "net.pt"
    torch.save({key: tensor.to(dtype) for key, tensor in WEIGHTS.items()}, path)
    assert_same(load_checkpoint(path).state_dict, {key: tensor.to(dtype).float() for key, tensor in WEIGHTS.items()})


def test_counters_are_dropped_and_other_integers_kept(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    counters = {
        "bn.num_batches_tracked": torch.tensor(5),
        "total_ops": torch.tensor([1.0]),
        "n_averaged": torch.tensor(1),
    }
    torch.save({"fc.weight": torch.ones(2, 2), "index": torch.arange(3), **counters}, path)
    found = load_checkpoint(path).state_dict
    assert list(found) == ["fc.weight", "index"]
    assert found["index"].dtype == torch.int64


def test_weights_are_copies_of_the_file(tmp_path: Path) -> None:
    """The file is mapped into memory while it is read; afterwards it may change or go."""
    path = tmp_path / "net.pt"
    torch.save({"a.weight": torch.ones(1000)}, path)
    found = load_checkpoint(path).state_dict["a.weight"]
    data = bytearray(path.read_bytes())
    with path.open("r+b") as file:
        file.write(bytes(len(data)))
    assert torch.equal(found, torch.ones(1000))


def test_views_and_tied_weights(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    base = torch.arange(12.0).reshape(3, 4)
    torch.save({"a.weight": base.t(), "b.weight": base[1], "c.weight": base}, path)
    found = load_checkpoint(path).state_dict
    assert torch.equal(found["a.weight"], base.t())
    assert torch.equal(found["b.weight"], base[1])
    found["c.weight"].zero_()
    assert torch.equal(found["b.weight"], base[1])


# ---- what does not -------------------------------------------------------------------------------------------------


def test_missing_directory_empty(tmp_path: Path) -> None:
    refused(tmp_path / "none.pt", "does not exist")
    refused(tmp_path / ("n" * 300), "cannot be read")
    refused(tmp_path, "is a directory")
    (tmp_path / "empty.pt").touch()
    refused(tmp_path / "empty.pt", "is empty")
    os.mkfifo(tmp_path / "pipe.pt")
    refused(tmp_path / "pipe.pt", "not a regular file")


def test_a_name_with_a_line_break_still_makes_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "a\nb.pt")
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "a\0b.pt")


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.pt"
    torch.save(WEIGHTS, path)

    def denied(self: Path, *args: object) -> None:  # a file mode would not stop root, who runs many a CI
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", denied)
    refused(path, "cannot be read", "Permission denied")


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated(tmp_path: Path, kind: str, kept: float) -> None:
    path = tmp_path / "net"
    if kind == "safetensors":
        save_file(WEIGHTS, path)
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    refused(path, "truncated")


def test_a_flipped_bit_in_a_zip_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save({"a.weight": torch.ones(1000)}, path)
    data = bytearray(path.read_bytes())
    position = data.index(torch.ones(100).numpy().tobytes()) + 40
    data[position] ^= 1
    path.write_bytes(bytes(data))
    refused(path, "is damaged", "checksum", "data/0")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello, this is no checkpoint", "not a checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "Git LFS"),
        (b"<!DOCTYPE html><html><body>404", "web page"),
        (bytes(range(256)) * 10, "not a checkpoint"),
        (b"PK\x05\x06" + bytes(18), "not one that torch.save wrote"),
        # ONNX: field 1 (ir_version) 8, field 2 (producer) of 7 letters; the other marks are their formats' own.
        (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0", "an ONNX model"),
        (b"\x89HDF\r\n\x1a\n" + bytes(90), "an HDF5 file (Keras)"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(90), "a TensorFlow Lite model"),
        (b"GGUF\x03" + bytes(90), "a GGUF file"),
        (b"\x93NUMPY\x01\x00" + bytes(90), "a NumPy array"),
        (b"\x1f\x8b\x08" + bytes(90), "gunzip first"),
        (pickle.dumps(5, 2), "not a checkpoint"),
        (pickle.dumps({"a": [1.0]}, 4), "not a checkpoint"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(content)
    refused(path, words)


class Unsavoury(nn.Module):
    """A user's module, pickled whole."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"model": m}])
def test_pickled_module(tmp_path: Path, wrap: object, legacy: bool) -> None:
    path = tmp_path / "net.pt"
    torch.save(wrap(Unsavoury()), path, _use_new_zipfile_serialization=not legacy)  # type: ignore[operator]
    refused(path, "pickled Python object", "Unsavoury", "torch.save(model.state_dict(), ...)")


def test_torchscript(tmp_path: Path) -> None:
    # Written by hand: torch.jit.save warns that it is deprecated. It compresses its code.
    path = tmp_path / "net.pt"
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name in ("net/data.pkl", "net/constants.pkl", "net/code/__torch__.py", "net/version"):
                archive.writestr(name, b"\x80\x02K\x01.")
        refused(path, "TorchScript", "state_dict")


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (("archive/archive_format", "archive/models/model.json", "archive/data/weights/weight_0"), "torch.export"),
        (("serialized_exported_program.json", "serialized_state_dict.pt"), "torch.export"),
        (("x.npy", "y.npy"), "an archive of NumPy arrays (.npz)"),
        (("metadata.json", "config.json", "model.weights.h5"), "a Keras model"),
        (("net/data.pkl", "net/data/0", "net/data/0"), "two records named 'data/0'"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_of_other_programs_are_named(tmp_path: Path, records: tuple[str, ...], words: str) -> None:
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        for name in records:
            archive.writestr(name, b"{}")
    refused(path, words)


@pytest.mark.parametrize(
    "saved",
    [{}, {"epoch": 3}, {"state_dict": {}}, [1, 2], 5, torch.ones(3), {"a": {"b": {"c": {"d": {"e.weight": 1}}}}}],
    ids=repr,
)
def test_no_weights(tmp_path: Path, saved: object) -> None:
    path = tmp_path / "net.pt"
    torch.save(saved, path)
    refused(path, "holds no weights")


def test_several_state_dicts(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save({"encoder": WEIGHTS, "decoder": WEIGHTS}, path)
    refused(path, "2 state dicts", "'encoder'", "'decoder'")


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"fc.weight": torch.ones(2).to_sparse()}, ("'fc.weight'", "sparse")),
        ({"fc.weight": torch.ones(2, dtype=torch.complex64)}, ("'fc.weight'", "complex")),
        ({"fc.weight": torch.ones(2, dtype=torch.int8)}, ("'fc.weight'", "quantised", "int8")),
        ({"fc.weight": torch.ones(2).to(torch.float8_e4m3fn)}, ("'fc.weight'", "quantised", "float8")),
        ({"fc.weight": torch.ones(2, device="meta")}, ("'fc.weight'", "without data")),
        ({"fc.weight": torch.ones(0, 3)}, ("'fc.weight'", "no elements")),
        ({"fc.weight": torch.ones(1).expand(10**12)}, ("'fc.weight'", "claims 4000000000000 bytes")),
        ({"fc.weight_mask": torch.ones(2)}, ("'fc.weight_mask'", "no 'fc.weight_orig'")),
        ({"fc.weight_orig": torch.ones(2)}, ("'fc.weight_orig'", "no 'fc.weight_mask'")),
        ({"fc.weight_orig": torch.ones(2), "fc.weight_mask": torch.ones(3)}, ("'fc.weight_mask'", "(3,)", "(2,)")),
        (
            {"fc.weight": torch.ones(2), "fc.weight_orig": torch.ones(2), "fc.weight_mask": torch.ones(2)},
            ("both", "'fc.weight'"),
        ),
        ({"bn.running_var": torch.tensor([1.0, -0.5])}, ("'bn.running_var'", "negative", "-0.5")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_unusable_weights(tmp_path: Path, weights: dict[str, torch.Tensor], words: tuple[str, ...]) -> None:
    path = tmp_path / "net.pt"
    torch.save(weights, path)
    refused(path, *words)


def test_quantised_tensor(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of its quantised tensors
        tensor = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    torch.save({"fc.weight": tensor}, path)
    refused(path, "'fc.weight'", "quantised")


def test_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    bad = torch.ones(2, 3)
    bad[0, 1] = float("nan")
    bad[1, 0] = float("inf")
    bad[1, 1] = float("-inf")
    torch.save({"a.weight": torch.ones(3), "layer1.0.conv1.weight": bad, "z.weight": bad}, path)
    refused(path, "'layer1.0.conv1.weight'", "1 NaN", "2 infinite", "of 6 values")
    torch.save({"a.weight": torch.tensor([1e300], dtype=torch.float64)}, path)
    refused(path, "'a.weight'", "0 NaN", "1 infinite of 1", "float32")


# ---- sizes that a file cannot have ---------------------------------------------------------------------------------


def test_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.pt"
    torch.save({"a.weight": torch.ones(1000)}, path)
    monkeypatch.setattr(checkpoint_module, "_physical_memory", lambda: 3000)
    refused(path, "more than this machine's")
    # A half-size file whose weights only fit as long as they are not float32.
    torch.save({"a.weight": torch.ones(1000, dtype=torch.float16)}, path)
    monkeypatch.setattr(checkpoint_module, "_physical_memory", lambda: 3900)
    refused(path, "its weights need more")


@pytest.mark.parametrize("length", [2**62, 2**63 + 5, 10**6])
def test_safetensors_header_claims_exabytes(tmp_path: Path, length: int) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b'{"a":{}}')
    refused(path, f"claims {length} bytes")


def test_safetensors_tensor_claims_exabytes(tmp_path: Path) -> None:
    header = b'{"a.weight":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,4611686018427387904]}}'
    path = tmp_path / "net.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    refused(path, "truncated or damaged", "safetensors")


def test_zip_bomb(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", bytes(10**7))
    refused(path, "compressed record 'net/data.pkl'")


def test_overlapping_records(tmp_path: Path) -> None:
    """Many directory entries on one stored record would add up to any size."""
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", bytes(5000))
        first = archive.infolist()[0]
        for number in range(20):
            copy = zipfile.ZipInfo(f"net/data/{number}")
            copy.header_offset, copy.file_size, copy.compress_size = 0, first.file_size, first.file_size
            copy.CRC = first.CRC
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
    refused(path, "claim 105000 bytes")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_storage_that_claims_terabytes(tmp_path: Path, legacy: bool) -> None:
    """The element count in the pickle is not believed: 1000 elements become a billion, with checksums made right."""
    path = tmp_path / "net.pt"
    torch.save({"a.weight": torch.ones(1000)}, path, _use_new_zipfile_serialization=not legacy)
    count, absurd = b"M\xe8\x03", b"J\xff\xff\xff\x7f"  # BININT2 1000, BININT 2**31 - 1
    if legacy:
        data = path.read_bytes()
        assert count in data
        path.write_bytes(data.replace(count, absurd))
        refused(path, "truncated, damaged")
        return
    for only_storage in (True, False):
        torch.save({"a.weight": torch.ones(1000)}, path)
        _reseal(path, lambda data, n=1 if only_storage else -1: data.replace(count, absurd, n))
        if only_storage:
            # The storage ends with the file whatever it claims, and the tensor takes 1000 elements of it.
            assert torch.equal(load_checkpoint(path).state_dict["a.weight"], torch.ones(1000))
        else:
            refused(path, "truncated, damaged")


def _reseal(path: Path, change: object) -> None:
    """Change data.pkl of a torch archive and write the archive again with right checksums."""
    with zipfile.ZipFile(path) as archive:
        records = {record.filename: archive.read(record) for record in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records.items():
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)  # type: ignore[operator]


# ---- real files ----------------------------------------------------------------------------------------------------


@pytest.mark.realdata
def test_every_shared_checkpoint_loads_with_its_published_hash(shared_data: Path) -> None:
    manifest = (shared_data / "MANIFEST.md").read_text()
    # the manifest's table has a line for each file, by its path or its folder's
    table = {line.split("|")[1].split(" (")[0].strip() for line in manifest.splitlines() if "| checkpoints/" in line}
    files = [p for p in sorted((shared_data / "checkpoints").rglob("*")) if p.is_file() and p.suffix != ".json"]
    assert len(files) == len(table) >= 9
    for path in files:
        loaded = load_checkpoint(path)
        assert loaded.sha256 in manifest
        assert len(loaded.state_dict) >= 6


@pytest.mark.realdata
def test_shared_wrapped_checkpoint(shared_data: Path) -> None:
    loaded = load_checkpoint(shared_data / "checkpoints/cifar10/distiller_resnet20_channels_zeroed.pth.tar")
    assert loaded.wrapper_keys == ("state_dict",)
    assert loaded.prefix == "module."
    assert loaded.metadata["arch"] == "resnet20_cifar"
    # The manifest: whole input channels of layerN.M.conv2 are exact zeros, 28 to 50 % of the weights.
    weight = loaded.state_dict["layer1.1.conv2.weight"]
    channels = int(weight.abs().sum(dim=(0, 2, 3)).eq(0).sum())
    assert 0.28 <= channels / weight.shape[1] <= 0.5


@pytest.mark.parametrize("first", [0x80, 0x50])
def test_a_safetensors_header_of_any_length_is_no_pickle_and_no_zip(tmp_path: Path, first: int) -> None:
    # The file begins with its header's length: 0x4b50 reads "PK", 0x..80 is a pickle's first byte.
    path, wanted = tmp_path / "weights.safetensors", {0x80: 0x280, 0x50: 0x4B50}[first]
    weights = {"fc.weight": torch.arange(12.0).reshape(3, 4), "fc.bias": torch.zeros(3)}
    for padding in range(max(0, wanted - 400), wanted):
        data = save(weights, {"note": "x" * padding})
        if int.from_bytes(data[:8], "little") == wanted:
            break
    assert data[0] == first
    path.write_bytes(data)
    assert torch.equal(load_checkpoint(path).state_dict["fc.weight"], weights["fc.weight"])
