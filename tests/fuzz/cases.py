"""The cases: each kind makes one command line, and its files, from a seeded generator."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import random
import signal
import struct
import zipfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

import data.cifar_files as cifar
from fuzz.runner import CANARY, STATUSES, Case
from hostile_files import hostile_pickles, mutate, resealed, small_files

REFUSED = frozenset({2})
KINDS: dict[str, Callable[[random.Random, Path, Path], Case]] = {}
"""Kinds of cases by name: (generator, the case's folder, the folder of seeds) to a case."""


def kind(function: Callable[[random.Random, Path, Path], Case]) -> Callable[[random.Random, Path, Path], Case]:
    """Enter a kind under its function's name."""
    KINDS[function.__name__] = function
    return function


# ---- seeds: valid files, from which the others are made --------------------------------------------------------------


def make_seeds(folder: Path) -> None:
    """Valid small files of every kind; certificates and traces are made by the program itself (see campaign)."""
    torch.manual_seed(0)
    for name, content in small_files(folder).items():
        (folder / f"mlp.{name}").write_bytes(content)
    rng = np.random.default_rng(0)
    for inputs in (784, 3072):
        layers = {"fc1.weight": torch.randn(8, inputs), "fc1.bias": torch.randn(8)}
        layers |= {"fc2.weight": torch.randn(10, 8), "fc2.bias": torch.randn(10)}
        save_file(layers, folder / f"mlp{inputs}.safetensors")
    images, labels = rng.integers(0, 256, (12, 28, 28), dtype=np.uint8), rng.integers(0, 10, 12).astype(np.uint8)
    np.savez(folder / "images.npz", x_test=images[:, None], y_test=labels)
    for what, array in (("images", images), ("labels", labels)):
        head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        (folder / f"t10k-{what}-idx{array.ndim}-ubyte").write_bytes(head + array.tobytes())
    pixels, classes = cifar.images(12, 0)
    (folder / "cifar_batch").write_bytes(cifar.dictionary(data=cifar.array(pixels), labels=cifar.integers(classes)))
    (folder / "cifar_meta").write_bytes(cifar.dictionary(label_names=cifar.strings(cifar.NAMES)))
    for format_, name in (("PNG", "a.png"), ("JPEG", "b.jpg"), ("WEBP", "c.webp")):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / name, format_)


def _hostile(rng: random.Random, folder: Path) -> bytes:
    """A pickle that would make the canary's file if anything in it were called."""
    bodies = hostile_pickles(folder / CANARY)
    return bodies[rng.choice(sorted(bodies))]


# ---- checkpoints -----------------------------------------------------------------------------------------------------


@kind
def mutated_checkpoint(rng: random.Random, folder: Path, seeds: Path) -> Case:
    """A few bytes of a checkpoint changed, in every format."""
    names = ["mlp.zip", "mlp.legacy", "mlp.legacy_bare", "mlp.safetensors"]
    name = rng.choice(names)
    content = mutate((seeds / name).read_bytes(), rng, (seeds / rng.choice(names)).read_bytes())
    (folder / "m.pt").write_bytes(content)
    return Case(["certify", "m.pt", *rng.choice([[], ["--out", "out"], ["--json"]])])


@kind
def mutated_pickle_under_right_checksums(rng: random.Random, folder: Path, seeds: Path) -> Case:
    """The pickle inside a torch archive changed, so that torch's unpickler meets it."""
    data = (seeds / "mlp.zip").read_bytes()
    resealed(data, lambda content: mutate(content, rng, data), "data.pkl", folder / "m.pt")
    (folder / "m.source").unlink()
    return Case(["certify", "m.pt"])


@kind
def hostile_checkpoint(rng: random.Random, folder: Path, seeds: Path) -> Case:
    """A pickle that starts a program in a careless reader."""
    body = _hostile(rng, folder)
    if rng.random() < 0.5:
        (folder / "m.pt").write_bytes(body)
    else:
        resealed((seeds / "mlp.zip").read_bytes(), lambda _: body, "data.pkl", folder / "m.pt")
        (folder / "m.source").unlink()
    return Case(["certify", "m.pt"], statuses=REFUSED)


# ---- descriptions and recipes ----------------------------------------------------------------------------------------

VALUES = [
    "1e308", "-1", "0", "1e-300", "9e18", "1" + "0" * 400, "0100", "0o17", "0x1F", "2:08", ".nan", "-.inf", "no", "on",
    "~", "''", '"   "', '"\\e[31mred\\a"', '"a\\u202eb"', "[]", "{}", "[[[[[[[[", "&a 1", "*a", "!!python/name:os",
    "{<<: {a: 1}}", "true", "1_000", "2026-01-01", "'" + "x" * 3000 + "'", '"\\0"', "é", "1.5", "65536", "4294967296",
]  # fmt: skip


def _edited(text: str, rng: random.Random) -> str:
    """YAML with values, keys or lines changed."""
    lines = text.split("\n")
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(lines))
        line = lines[at]
        change = rng.randrange(7)
        if change <= 2 and ":" in line:
            head, _, tail = line.rpartition(":") if rng.random() < 0.4 else line.partition(":")
            end = tail[len(tail.rstrip("}")) :] if tail.endswith("}") else ""
            lines[at] = f"{head}: {rng.choice(VALUES)}{end}"
        elif change == 3:
            lines.insert(at, line)
        elif change == 4:
            del lines[at]
        elif change == 5:
            lines[at] = line.replace("value", rng.choice(["valeu", "source", "\tvalue", "? value"]))
        else:
            lines[at] = " " * rng.randrange(9) + line.strip()
        if not lines:
            break
    return "\n".join(lines)


def _yaml(rng: random.Random, text: str) -> bytes:
    if rng.random() < 0.7:
        return _edited(text, rng).encode()
    return mutate(text.encode(), rng, text.encode())


@kind
def mutated_hardware(rng: random.Random, folder: Path, seeds: Path) -> Case:
    """A description with values of no sense, repeated keys, changed bytes."""
    shipped = [entry for entry in resources.files("bitline.hwconfigs").iterdir() if entry.name.endswith(".yaml")]
    text = rng.choice(sorted(shipped, key=lambda entry: entry.name)).read_text("utf-8")
    content = _yaml(rng, text)
    (folder / "h.yaml").write_bytes(content)
    arguments = rng.choice([
        ["hw", "check", "h.yaml"], ["hw", "show", "h.yaml"], ["hw", "check", "h.yaml", "--json"], ["hw", "check", "-"],
        ["throughput", "--hw", "h.yaml"], ["throughput", "--hw", "h.yaml", "--json"],
        ["certify", "digits_resnet20_cp16", "--hw", "h.yaml"],
        ["throughput", "--hw", "h.yaml", "--arch", "resnet20", "--input", "3x32x32"],
    ])  # fmt: skip
    return Case(arguments, stdin=content)


@kind
def mutated_recipe(rng: random.Random, folder: Path, seeds: Path) -> Case:
    """A recipe; its checkpoint does not exist, so a valid one ends quickly too."""
    names = ("digits_resnet20_cp16.yaml", "digits_resnet20_dense.yaml")
    text = resources.files("bitline.models").joinpath(rng.choice(names)).read_text("utf-8")
    text = text.replace("start: digits_resnet20_dense", "start: none.pt")
    content = _yaml(rng, text)
    if b"digits_resnet20" in content:
        content = content.replace(b"digits_resnet20", b"none")
    (folder / "r.yaml").write_bytes(content)
    return Case(["prune", "--recipe", rng.choice(["r.yaml", "-"]), "--out", "p.safetensors"], REFUSED, stdin=content)


@kind
def yaml_bomb(rng: random.Random, folder: Path, seeds: Path) -> Case:
    """Short texts that unfold, or that take a parser long."""
    levels, width = rng.randrange(5, 30), rng.randrange(5, 12)
    names = ", ".join
    bombs = [
        "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{names([f'*a{n - 1}'] * width)}]\n" for n in range(1, levels))
        + f"{rng.choice(['encoding', 'adc_scope', 'rows', 'pruning'])}: *a{levels - 1}\n",
        "m0: &m0 {k: 1}\n"
        + "".join(f"m{n}: &m{n} {{<<: [{names([f'*m{n - 1}'] * width)}]}}\n" for n in range(1, levels)),
        "a: " + rng.choice("[{") * rng.randrange(10, 100_000),
        "- " * rng.randrange(10, 60_000),
        "\n".join(" " * n + "a:" for n in range(rng.randrange(10, 500))),
        "a: " + "x" * rng.randrange(1 << 20),
        "? " * rng.randrange(10, 60_000),
        "a: [" + "1," * rng.randrange(1 << 17),
        "%TAG ! tag:x:\n" * rng.randrange(1, 5000) + "--- !a b",
        '"' + "\\x41" * rng.randrange(30_000),
        "---\n" * rng.randrange(2, 30_000),
        ":\n" * rng.randrange(2, 60_000),
        "{" + "a:" * rng.randrange(2, 60_000),
    ]  # fmt: skip
    (folder / "b.yaml").write_text(rng.choice(bombs))
    arguments = [["hw", "check", "b.yaml"], ["prune", "--recipe", "b.yaml", "--out", "p.safetensors"]]
    return Case(rng.choice(arguments), REFUSED, seconds=60)


# ---- certificates ----------------------------------------------------------------------------------------------------


@kind
def tampered_certificate(rng: random.Random, folder: Path, seeds: Path) -> Case:
    """A certificate with bytes, lines or values changed: never accepted."""
    content = (seeds / "certificate.json").read_bytes()
    lines = content.splitlines(keepends=True)
    one, two = sorted(rng.sample(range(len(lines)), 2))
    document = json.loads(content)
    choice = rng.randrange(8)
    if choice == 0:
        tampered = mutate(content, rng, content)
    elif choice == 1:
        tampered = b"".join([*lines[:one], lines[two], *lines[one + 1 :]])
    elif choice == 2:
        tampered = b"".join([*lines[:one], *lines[one + 1 :]])
    elif choice == 3:
        tampered = b"".join([*lines[: one + 1], *lines[one:]])
    elif choice == 4:
        document[rng.choice(["claim", "note", "proven_bits", "bitline_version"])] = rng.choice(
            [1, "x", True, "\x1b[2J"]
        )
        tampered = (json.dumps(document, indent=2) + "\n").encode()
    elif choice == 5:
        tampered = json.dumps(document, indent=rng.choice([None, 1, 4])).encode()
    elif choice == 6:
        tampered = content.replace(b": 0,", rng.choice([b": -0,", b": 0.0,", b": NaN,", b": false,", b": 0 ,"]), 1)
    else:
        tampered = rng.choice(
            [b"[" * 100_000, b"", b"{}", b"null", b"\xff" * 99, b'{"format": "bitline-certificate-2"}']
        )
    (folder / "c.json").write_bytes(tampered)
    statuses = frozenset({0}) if tampered == content else frozenset({2, 3})
    return Case(
        ["certify", "--check", rng.choice(["c.json", "-"]), str(seeds / "mlp784.safetensors")], statuses, tampered
    )


# ---- data ------------------------------------------------------------------------------------------------------------


def _simulate(spec: str, inputs: int, rng: random.Random) -> Case:
    seeds = {784: "mlp784.safetensors", 3072: "mlp3072.safetensors"}
    few = ["--images", "3", "--calibration-images", "3", "--threads", "1"]
    out = rng.choice([[], [], [], ["--out", "out"], ["--json"]])
    return Case(["simulate", f"../seeds/{seeds[inputs]}", "--data", spec, *few, *out])


@kind
def mutated_npz(rng: random.Random, folder: Path, seeds: Path) -> Case:
    """An npz of images changed, its members too, or with arrays of other types and sizes."""
    content = (seeds / "images.npz").read_bytes()
    if rng.random() < 0.4:
        content = mutate(content, rng, content)
    elif rng.random() < 0.5:
        source, target = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            for info in source.infolist():
                member = source.read(info)
                changed = mutate(member[:128], rng, member) + member[128:] if rng.random() < 0.6 else member
                archive.writestr(info.filename, changed)
        content = target.getvalue()
    else:
        shape = rng.choice([(0, 28, 28), (3,), (), (3, 28, 28, 28), (3, 28, 28), (2, 1, 28, 28)])
        kinds = [np.uint8, np.float64, np.int64, np.bool_, np.complex64, "U3", "S2", "M8[s]", np.float16]
        target = io.BytesIO()
        array = np.zeros(shape, rng.choice(kinds))
        if array.dtype.kind == "f" and array.size:
            array.flat[0] = rng.choice([np.nan, np.inf, 1e4])
        np.savez(
            target, x_test=array, y_test=np.zeros(rng.choice([0, 2, 3, 5]), rng.choice([np.int64, np.float32, "U1"]))
        )
        content = target.getvalue()
    (folder / "d.npz").write_bytes(content)
    return _simulate("npz:d.npz", 784, rng)


@kind
def mutated_idx(rng: random.Random, folder: Path, seeds: Path) -> Case:
    """MNIST's files changed, or compressed and then changed."""
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        content = (seeds / name).read_bytes()
        if rng.random() < 0.6:
            content = mutate(content[:64], rng, content) + content[64:]
        if rng.random() < 0.4:
            name, content = f"{name}.gz", gzip.compress(content, 1)
            content = mutate(content, rng, content) if rng.random() < 0.5 else content
        (folder / name).write_bytes(content)
    return _simulate("mnist:.", 784, rng)


@kind
def mutated_cifar(rng: random.Random, folder: Path, seeds: Path) -> Case:
    """CIFAR's pickles changed, or hostile."""
    batch = (seeds / "cifar_batch").read_bytes()
    hostile = _hostile(rng, folder)
    changed = mutate(batch[:400], rng, hostile) + batch[400:] if rng.random() < 0.7 else hostile
    (folder / "test_batch").write_bytes(changed)
    meta = (seeds / "cifar_meta").read_bytes()
    (folder / "batches.meta").write_bytes(mutate(meta, rng, meta) if rng.random() < 0.3 else meta)
    for number in range(1, 6):
        (folder / f"data_batch_{number}").write_bytes(batch)
    return _simulate("cifar10:.", 3072, rng)


@kind
def mutated_images(rng: random.Random, folder: Path, seeds: Path) -> Case:
    """Folders of changed images, images of other formats, strips, links, pipes and odd names."""
    names = ["a.png", "b.jpg", "c.webp"]
    for label in range(rng.choice((1, 2, 10))):
        place = (
            folder
            / "ds"
            / rng.choice([str(label), f"class {label}", f"\x1b[31m{label}\a", f"n{label:08}", f"é{label}"])
        )
        place.mkdir(parents=True, exist_ok=True)
        for number in range(2):
            name = rng.choice(names)
            content = (seeds / name).read_bytes()
            (place / f"{number}{name}").write_bytes(mutate(content, rng, content) if rng.random() < 0.15 else content)
    odd = place / rng.choice(["x.png", "x.webp", "x.jpeg"])
    what = rng.randrange(8)
    if what == 0:
        os.mkfifo(odd)
    elif what == 1:
        odd.symlink_to(rng.choice(["/dev/zero", "nowhere", "..", "x.png"]))
    elif what == 2:
        odd.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(canary) (w) file closefile showpage\n")
    elif what == 3:
        strip = io.BytesIO()
        size = rng.choice([(1, 16_000), (16_000, 1), (60_000, 1), (1, 1)])
        Image.new("RGB", size).save(strip, "PNG")
        odd.write_bytes(strip.getvalue())
    elif what == 4:
        odd.mkdir()
    elif what == 5:
        odd.write_bytes(b"")
    elif what == 6:
        # a header that claims 60000 x 60000 pixels
        png = bytearray((seeds / "a.png").read_bytes())
        png[16:24] = struct.pack(">II", 60_000, 60_000)
        odd.write_bytes(bytes(png))
    case = _simulate("imagefolder:ds", 3072, rng)
    case.arguments += ["--resize", "32", "--crop", "32"]
    return case


@kind
def mutated_trace(rng: random.Random, folder: Path, seeds: Path) -> Case:
    """A recorded trace changed, or its header's fields."""
    content = (seeds / "trace.npz").read_bytes()
    if rng.random() < 0.5:
        content = mutate(content, rng, content)
    else:
        with np.load(io.BytesIO(content)) as arrays:
            parts = dict(arrays)
        header = json.loads(str(parts["header"]))
        header[rng.choice(sorted(header))] = rng.choice([None, -1, 10**30, "\x1b[31m", 1e308, [], True, "x" * 5000])
        parts["header"] = np.array(json.dumps(header))
        if rng.random() < 0.3:
            parts["x"] = parts["x"].astype(rng.choice([np.float64, np.int64])) * rng.choice([1, -1, 300])
        target = io.BytesIO()
        np.savez(target, **parts)
        content = target.getvalue()
    (folder / "t.npz").write_bytes(content)
    return Case(["simulate", "--data", "trace:t.npz", "--threads", "1", *rng.choice([[], ["--out", "out"]])])


@kind
def archive_bomb(rng: random.Random, folder: Path, seeds: Path) -> Case:
    """Small files that claim to be, or unpack to, gigabytes."""
    zeros = b"\0" * (1 << 20)
    what = rng.randrange(4)
    if what == 0:
        with gzip.open(folder / "t10k-images-idx3-ubyte.gz", "wb", 1) as file:
            file.write(struct.pack(">BBBB3I", 0, 0, 8, 3, rng.choice([2**31, 2**32 - 1]), 28, 28))
            for _ in range(64):
                file.write(zeros)
        (folder / "t10k-labels-idx1-ubyte").write_bytes((seeds / "t10k-labels-idx1-ubyte").read_bytes())
        return _simulate("mnist:.", 784, rng)
    if what == 1:
        header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d, 28, 28), }" % rng.choice([10**9, 10**18, -5])
        header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
        with zipfile.ZipFile(folder / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x_test.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + zeros * 64)
        return _simulate("npz:d.npz", 784, rng)
    if what == 2:
        with zipfile.ZipFile(folder / "m.pt", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("m/data.pkl", zeros * 64)
        return Case(["certify", "m.pt"], REFUSED)
    deep = b"\x80\x02" + rng.choice([b"](", b"}(", b"("]) * rng.randrange(1000, 200_000) + b"."
    resealed((seeds / "mlp.zip").read_bytes(), lambda _: deep, "data.pkl", folder / "m.pt")
    (folder / "m.source").unlink()
    return Case(["certify", "m.pt"], REFUSED)


@kind
def no_such_file(rng: random.Random, folder: Path, seeds: Path) -> Case:
    """Pipes, devices, folders, holes and odd names wherever a file is named."""
    os.mkfifo(folder / "fifo")
    (folder / "dir").mkdir()
    with (folder / "hole").open("wb") as file:
        file.truncate(1 << 40)
    (folder / "loop").symlink_to("loop")
    odd = os.fsdecode(b"m\xff.pt")
    names = [
        "fifo",
        "dir",
        "hole",
        "loop",
        "/dev/zero",
        "/dev/full",
        "/dev/stdin",
        "",
        "no\x1b[31msuch\a",
        odd,
        "x" * 300,
    ]
    name = rng.choice([*names, "~nobody/x", "~/x", "/proc/self/mem", "."])
    commands = [
        ["certify", name],
        ["simulate", name],
        ["throughput", name],
        ["compare", name],
        ["hw", "check", name],
        ["certify", "digits_resnet20_cp16", "--hw", name],
        ["certify", "digits_resnet20_cp16", "--check", name],
        ["prune", "--recipe", name, "--out", "p.safetensors"],
        ["prune", name, "--rate", "2", "--out", "p.safetensors"],
        ["simulate", "--data", f"npz:{name}"],
        ["simulate", "--data", f"mnist:{name}"],
        ["simulate", "--data", f"cifar10:{name}"],
        ["simulate", "--data", f"imagefolder:{name}"],
        ["simulate", "--data", f"trace:{name}"],
    ]
    return Case(rng.choice(commands), REFUSED, seconds=90)


# ---- streams, names and signals --------------------------------------------------------------------------------------

_QUICK = [
    ["hw", "list"], ["hw", "show", "isaac"], ["hw", "check", "nope"], ["hw", "schema"], ["--version"], ["--help"], [],
    ["throughput", "--hw", "isaac"], ["certify", "digits_resnet20_cp16"], ["certify", "nope.pt"], ["nonsense"],
]  # fmt: skip


@kind
def closed_streams(rng: random.Random, folder: Path, seeds: Path) -> Case:
    """Any of the three streams closed, or full, and encodings that cannot say everything."""
    full = tuple(number for number in (1, 2) if rng.random() < 0.25)
    closed = tuple(number for number in (0, 1, 2) if number not in full and rng.random() < 0.4)
    encoding = rng.choice(["utf-8", "ascii", "latin-1", "utf-8:strict", "ascii:strict"])
    return Case(
        rng.choice(_QUICK),
        environment={"PYTHONIOENCODING": encoding, "LC_ALL": "C"},
        closed=closed,
        full=full,
        fresh=True,
    )


def _whole_or_nothing(folder: Path, status: int) -> str | None:
    names = {entry.name for entry in (folder / "out").iterdir()} if (folder / "out").exists() else set()
    if names and not {"report.json", "report.md", "layers.csv", "certificate.json"} <= names:
        return f"the folder holds {sorted(names)[:4]} only"
    return None


@kind
def interrupted(rng: random.Random, folder: Path, seeds: Path) -> Case:
    """Ctrl-C or a termination at any moment."""
    number = rng.choice([signal.SIGINT, signal.SIGINT, signal.SIGTERM])
    fresh = rng.random() < 0.3
    return Case(
        [
            "simulate",
            "../seeds/mlp784.safetensors",
            "--data",
            "npz:../seeds/images.npz",
            "--threads",
            "1",
            "--out",
            "out",
        ],
        frozenset({0, 128 + number}),
        signal_after=(number, rng.uniform(0, 12 if fresh else 4)),
        fresh=fresh,
        check=_whole_or_nothing,
    )


def _nothing_left(folder: Path, status: int) -> str | None:
    # one killed within microseconds of its beginning or end names no owner and goes after a day (report/staging.py)
    left = [str(path.parent) for path in folder.rglob(".bitline-*/owner") if path.stat().st_size]
    return f"a dead run's {left[0]} stays" if left else _whole_or_nothing(folder, status)


@kind
def killed(rng: random.Random, folder: Path, seeds: Path) -> Case:
    """Killed at any moment: what was there stays, or all of the new is there; the next run clears up."""
    command = ["simulate", "../seeds/mlp784.safetensors", "--data", "npz:../seeds/images.npz", "--threads", "1"]
    return Case(
        [*command, "--out", "out"],
        frozenset({0, -signal.SIGKILL}),
        signal_after=(signal.SIGKILL, rng.uniform(0, 4)),
        check=_whole_or_nothing,
        then=Case([*command, "--out", "out"], frozenset({0}), check=_nothing_left),
    )


@kind
def odd_arguments(rng: random.Random, folder: Path, seeds: Path) -> Case:
    """Options with numbers and texts of no sense."""
    value = rng.choice(
        ["0", "-1", "1e9", "99999999999999999999", "nan", "", " ", "\x1b[31m", "é", "1,2", "--", "x" * 9999]
    )
    commands = [
        ["certify", "digits_resnet20_cp16", "--adc-bits", value],
        ["certify", "digits_resnet20_cp16", "--cp-rates", value],
        ["certify", "digits_resnet20_cp16", "--arch", value],
        ["throughput", "--hw", "isaac", "--law", value],
        ["throughput", "--arch", "resnet20", "--input", value],
        ["throughput", "--hw", "isaac", "--tiles", value],
        ["simulate", "--images", value, "--data", "npz:none.npz"],
        ["simulate", "--calibrator", value, "--data", "npz:none.npz"],
        ["simulate", "--normalisation", value, "--data", "npz:none.npz"],
        ["prune", "none.pt", "--rate", value, "--out", "p.safetensors"],
        ["prune", "none.pt", "--layer-rate", f"a={value}", "--out", "p.safetensors"],
        ["compare", "none.pt", "--methods", value],
        [value],
    ]
    return Case(rng.choice(commands), STATUSES)


@kind
def pruning_state(rng: random.Random, folder: Path, seeds: Path) -> Case:
    """A state to go on from that is none, is damaged, or is hostile under a right hash."""
    payload = rng.choice([pickle.dumps({"a": 1}), _hostile(rng, folder), b"", (seeds / "mlp.zip").read_bytes()])
    content = b"bitline prune state 1\n" + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload
    content = mutate(content, rng, content) if rng.random() < 0.3 else content
    if rng.random() < 0.8:
        (folder / "p.safetensors.state").write_bytes(content)
    else:
        os.mkfifo(folder / "p.safetensors.state")
    start = str(seeds / "mlp784.safetensors")
    few = ["--rate", "2", "--solver", "oneshot", "--epochs", "1", "--threads", "1", "--data", "digits:28"]
    return Case(["prune", start, *few, "--resume", "--out", "p.safetensors"], frozenset({2, 3}))
