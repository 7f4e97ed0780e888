"""The command line as its users meet it: output, exit status, one line for every bad input, nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bitline.models.mlp import MLP
from safetensors.torch import save_file

from bitline.cli import main

SHIPPED = "digits_resnet20_cp16"


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    status = main([str(part) for part in argv])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture(scope="module")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small multi-layer perceptron's checkpoint for 16x16 digits, with random weights."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("mlp") / "mlp.safetensors"
    save_file(MLP(("fc1", "fc2"), (256, 24, 10)).state_dict(), path)
    return path


def test_simulate_prints_a_report_and_writes_every_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, mlp: Path
) -> None:
    out = tmp_path / "new" / "report"
    status, text, err = run(capsys, "simulate", mlp, "--images", "30", "--out", out)
    assert status == 0, err
    assert "LOSSLESS" in text
    assert "identical to the exact integer network" in text
    names = {path.name for path in out.rglob("*") if path.is_file()}
    assert {"report.json", "report.md", "layers.csv", "certificate.json", "timeline.json", "bits.png"} <= names
    report = json.loads((out / "report.json").read_text())
    assert report["accuracy"]["images"] == 30
    assert report["accuracy"]["identical_to_integer"] is True
    assert [layer["saturations"] for layer in report["layers"]] == [0, 0]
    # 256 rows in 2 tiles and 24 rows in 1, 8 input cycles, 4 slices, 2 signs, 30 images
    assert [layer["conversions"] for layer in report["layers"]] == [30 * 2 * 8 * 4 * 2 * 24, 30 * 8 * 4 * 2 * 10]
    assert not [path for path in out.parent.iterdir() if path != out]


def test_simulate_json_is_one_document_on_standard_output(capsys: pytest.CaptureFixture[str], mlp: Path) -> None:
    status, text, _ = run(capsys, "simulate", mlp, "--images", "5", "--json")
    assert status == 0
    assert json.loads(text)["schema_version"] == 1


def test_default_run_sets_cp_pruned_beside_unpruned(capsys: pytest.CaptureFixture[str]) -> None:
    status, text, _ = run(capsys, "simulate", "--images", "3", "--json")
    assert status == 0
    baseline, unpruned, pruned = json.loads(text)["comparison"]
    assert baseline["adc_bits"] == unpruned["adc_bits"] == 8
    report = json.loads(text)
    assert pruned["crossbars"] == sum(layer["crossbars"] for layer in report["layers"])
    assert unpruned["crossbars"] == pruned["crossbars"] + sum(layer["crossbars_left_out"] for layer in report["layers"])
    assert pruned["cp_rate"] == 16
    assert pruned["lossless"] is True
    assert pruned["adc_bits"] < baseline["adc_bits"]
    assert baseline["saturations"] == pruned["saturations"] == 0


def test_one_bit_less_than_certified_is_refuted_and_saturates_for_the_witness(
    capsys: pytest.CaptureFixture[str], mlp: Path
) -> None:
    from bitline import load_hardware
    from bitline.certification import certify_checkpoint
    from bitline.crossbar.engines import Crossbars
    from bitline.network.conversion import matrix_layers
    from bitline.preparation import load_network

    needed = json.loads(run(capsys, "certify", mlp, "--json")[1])["adc_bits"]["weight_aware"]
    status, text, _ = run(capsys, "certify", mlp, "--adc-bits", needed - 1, "--json")
    assert status == 0  # a refuted certificate is a result
    assert json.loads(text)["lossless"] is False
    certificate, _ = certify_checkpoint(mlp, adc_bits=needed - 1)
    hw = load_hardware("tinyadc", adc_bits=needed - 1)
    layers = matrix_layers(load_network(mlp)[2].module, hw).layers
    refuted = 0
    for layer, proof in zip(layers, certificate.layers, strict=True):
        witness = proof.witness()
        assert (witness is None) == proof.lossless
        if witness is not None:
            crossbars = Crossbars(layer.codes, hw, signed_inputs=layer.signed_inputs)
            assert crossbars.multiply(witness[None]).saturations > 0
            refuted += 1
    assert refuted


def test_certify_writes_a_certificate_that_check_confirms_and_a_tampered_one_it_refuses(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, mlp: Path
) -> None:
    status, text, _ = run(capsys, "certify", mlp, "--require-lossless", "--out", tmp_path / "proof")
    assert status == 0
    assert "PROVEN LOSSLESS" in text
    path = tmp_path / "proof" / "certificate.json"
    status, text, _ = run(capsys, "certify", "--check", path, mlp)
    assert (status, "every claim agrees" in text) == (0, True)
    document = json.loads(path.read_text())
    document["layers"][0]["columns_worst"][0]["max_sum"] -= 1
    path.write_text(json.dumps(document))
    status, text, err = run(capsys, "certify", "--check", path, mlp)
    assert status == 3
    assert text == ""
    assert "max_sum" in err
    assert err.count("\n") == 1


def test_require_lossless_exits_3(capsys: pytest.CaptureFixture[str], mlp: Path) -> None:
    status, _, err = run(capsys, "certify", mlp, "--adc-bits", "2", "--require-lossless")
    assert status == 3
    assert "not lossless" in err
    assert err.count("\n") == 1


def test_engines_report_the_same_integers(capsys: pytest.CaptureFixture[str], mlp: Path) -> None:
    reports = {}
    for engine in ("bitserial", "certified"):
        status, text, err = run(
            capsys, "simulate", mlp, "--images", "20", "--adc-bits", "3", "--engine", engine, "--json"
        )
        assert status == 0, err
        reports[engine] = json.loads(text)
    a, b = reports["bitserial"], reports["certified"]
    assert sum(layer["saturations"] for layer in a["layers"]) > 0
    for key in ("conversions", "saturations"):
        assert [layer[key] for layer in a["layers"]] == [layer[key] for layer in b["layers"]]
    assert a["accuracy"] == b["accuracy"]


def test_recorded_traces_replay(capsys: pytest.CaptureFixture[str], tmp_path: Path, mlp: Path) -> None:
    traces = tmp_path / "traces"
    status, _, err = run(
        capsys, "simulate", mlp, "--images", "4", "--record-trace", traces, "--trace-vectors", "3", "--json"
    )
    assert status == 0, err
    assert len(list(traces.glob("*.npz"))) == 2
    status, text, err = run(capsys, "simulate", "--data", f"trace:{traces}", "--json")
    assert status == 0, err
    report = json.loads(text)
    assert report["accuracy"]["images"] == 6
    assert report["accuracy"]["identical_to_integer"] is True
    status, _, err = run(capsys, "simulate", "--data", f"trace:{traces}", "--hw", "isaac")
    assert status == 2
    assert "8-bit" in err


def test_shipped_traces_replay(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(__file__).parents[1] / "traces"
    assert list(folder.glob("*.npz"))
    status, text, err = run(capsys, "simulate", "--data", f"trace:{folder}", "--json")
    assert status == 0, err
    assert json.loads(text)["accuracy"]["identical_to_integer"] is True


def test_cp_table(capsys: pytest.CaptureFixture[str]) -> None:
    status, text, err = run(capsys, "certify", "digits_resnet20_dense", "--cp-rates", "1,16", "--json")
    assert status == 0, err
    dense, pruned = json.loads(text)
    assert pruned["nonzeros_max"] == 8
    assert pruned["weight_aware"] < dense["weight_aware"]
    assert run(capsys, "certify", "digits_resnet20_dense", "--cp-rates", "1,16")[0] == 0


def test_hw_commands(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, text, _ = run(capsys, "hw", "list")
    assert status == 0
    assert "tinyadc" in text
    status, text, _ = run(capsys, "hw", "show", "isaac")
    assert status == 0
    copied = tmp_path / "mine.yaml"
    copied.write_text(text.replace("rows: 128", "rows: 64", 1))
    status, text, _ = run(capsys, "hw", "check", copied)
    assert (status, "64 x 128" in text) == (0, True)
    assert json.loads(run(capsys, "hw", "show", "tinyadc", "--json")[1])["rows"] == 128


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["simulate", "missing.pth"], ["missing.pth"]),
        (["simulate", "."], ["'.'"]),
        (["simulate", SHIPPED, "--images", "0"], ["images", "at least 1", "0"]),
        (["simulate", SHIPPED, "--images", "-3"], ["images", "at least 1", "-3"]),
        (["simulate", SHIPPED, "--images", "501"], ["501", "500"]),
        (["simulate", SHIPPED, "--images", "many"], ["whole number", "many"]),
        (["simulate", SHIPPED, "--hw", "nonsense"], ["nonsense", "tinyadc"]),
        (["simulate", SHIPPED, "--adc-bits", "17"], ["adc_bits", "17"]),
        (["simulate", SHIPPED, "--adc-bits", "some"], ["adc_bits", "some"]),
        (["simulate", SHIPPED, "--data", "cifar10:/nowhere"], ["/nowhere"]),
        (["simulate", SHIPPED, "--data", "cifar10"], ["cifar10"]),
        (["simulate", SHIPPED, "--data", "unheard:of"], ["unheard", "digits"]),
        (["simulate", SHIPPED, "--data", "trace:/nowhere"], ["trace"]),
        (["simulate", "--data", "trace:/nowhere.npz"], ["/nowhere.npz"]),
        (["simulate", SHIPPED, "--arch", "nonsense"], ["nonsense"]),
        (["simulate", SHIPPED, "--arch", "no.such.module:Net"], ["no.such.module"]),
        (["simulate", SHIPPED, "--arch", "vgg11_bn"], ["vgg11_bn"]),
        (["simulate", SHIPPED, "--calibrator", "guess"], ["guess"]),
        (["simulate", SHIPPED, "--normalisation", "guess"], ["guess"]),
        (["simulate", SHIPPED, "--threads", "0"], ["threads", "0"]),
        (["simulate", SHIPPED, "--engine", "magic"], ["magic", "bitserial"]),
        (["certify", "missing.pth"], ["missing.pth"]),
        (["certify", SHIPPED, "--check", "missing.json"], ["missing.json"]),
        (["certify", SHIPPED, "--cp-rates", "0"], ["rate", "0"]),
        (["certify", SHIPPED, "--cp-rates", "1,x"], ["x"]),
        (["hw", "check", "missing.yaml"], ["missing.yaml"]),
        (["nonsense"], ["nonsense"]),
        ([], ["COMMAND"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, argv: list[str], words: list[str]
) -> None:
    out = tmp_path / "out"
    if argv[:1] == ["simulate"]:
        argv = [*argv, "--out", str(out)]
    status, text, err = run(capsys, *argv)
    assert status == 2
    assert text == ""
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in err
    assert not list(tmp_path.iterdir())


def test_nan_weights_name_the_layer(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = MLP(("fc1", "fc2"), (256, 24, 10))
    state = model.state_dict()
    name = list(state)[2]
    state[name].view(-1)[5] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    status, _, err = run(capsys, "certify", tmp_path / "nan.pth")
    assert status == 2
    assert name in err
    assert err.count("\n") == 1


def test_unwritable_output_is_found_before_the_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        status, _, err = run(capsys, "simulate", SHIPPED, "--images", "1", "--out", target)
        assert status == 2
        assert "file" in err
        assert err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_data_of_another_shape(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    images = np.zeros((4, 3, 16, 16), np.uint8)
    np.savez(tmp_path / "rgb.npz", images=images, labels=np.zeros(4, np.int64))
    status, _, err = run(capsys, "simulate", SHIPPED, "--data", f"npz:{tmp_path / 'rgb.npz'}")
    assert status == 2
    assert "channels" in err
    assert err.count("\n") == 1


def _start(*argv: str, **kwargs: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bitline", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,  # type: ignore[call-overload]
    )


def test_full_standard_output_and_a_reader_that_left() -> None:
    if os.path.exists("/dev/full"):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "bitline", "hw", "show", "isaac"],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    with _start("hw", "show", "isaac") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 0


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["certify", SHIPPED, "--cp-rates", "2", "--out", "d"], "--out"),
        (["certify", SHIPPED, "--cp-rates", "2", "--adc-bits", "3"], "--adc-bits"),
        (["certify", SHIPPED, "--cp-rates", "2", "--require-lossless"], "--require-lossless"),
        (["certify", SHIPPED, "--check", "c.json", "--adc-bits", "3"], "--adc-bits"),
        (["certify", SHIPPED, "--check", "c.json", "--hw", "isaac"], "--hw"),
        (["simulate", "--data", "trace:t", "--images", "5"], "images"),
        (["simulate", "--data", "trace:t", "--arch", "mlp"], "arch"),
        (["simulate", SHIPPED, "--trace-vectors", "0"], "trace vectors"),
    ],
)
def test_an_option_without_effect_is_refused(capsys: pytest.CaptureFixture[str], argv: list[str], word: str) -> None:
    status, text, err = run(capsys, *argv)
    assert (status, text) == (2, "")
    assert word in err
    assert err.count("\n") == 1


def test_check_honours_require_lossless(capsys: pytest.CaptureFixture[str], tmp_path: Path, mlp: Path) -> None:
    assert run(capsys, "certify", mlp, "--adc-bits", "2", "--out", tmp_path)[0] == 0
    path = tmp_path / "certificate.json"
    status, text, _ = run(capsys, "certify", "--check", path, mlp)
    assert (status, "NOT lossless" in text) == (0, True)
    assert run(capsys, "certify", "--check", path, mlp, "--require-lossless")[0] == 3
    document = json.loads(path.read_text())
    del document["checkpoint_sha256"]
    path.write_text(json.dumps(document))
    assert run(capsys, "certify", "--check", path, mlp)[0] == 3


def test_recorded_traces_do_not_depend_on_the_histogram_or_the_engine(tmp_path: Path, mlp: Path) -> None:
    from bitline import simulate
    from bitline.data.traces import load_trace

    found = []
    for name, options in (("a", {"histogram_images": 1}), ("b", {"engine": "certified"})):
        simulate(mlp, images=7, trace_folder=tmp_path / name, trace_vectors=5, **options)
        found.append(load_trace(tmp_path / name / "fc1.npz").x)
    assert found[0].shape == (5, 256)
    assert np.array_equal(*found)


def test_the_exact_engine_proves_nothing_and_is_refused(mlp: Path) -> None:
    from bitline import simulate
    from bitline.errors import ConfigError, RangeError

    with pytest.raises(ConfigError, match="bitserial, certified, not 'exact'"):
        simulate(mlp, engine="exact")
    for images in (2.5, "5", True):
        with pytest.raises(RangeError, match="whole number"):
            simulate(mlp, images=images)  # type: ignore[arg-type]


def test_special_files_and_networks_that_fail_are_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", "/dev/zero", tmp_path):
        status, _, err = run(capsys, "certify", "--check", path, SHIPPED)
        assert status == 2
        assert "expected a regular file" in err
        assert err.count("\n") == 1
    (tmp_path / "nanny.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.l = torch.nn.Linear(256, 10)\n\n    def forward(self, x):\n"
        "        return torch.log(self.l(x.flatten(1)) - 1e6)\n"
    )
    monkeypatch.chdir(tmp_path)
    torch.save({"l.weight": torch.zeros(10, 256), "l.bias": torch.zeros(10)}, "nanny.pth")
    status, _, err = run(capsys, "simulate", "nanny.pth", "--arch", "nanny:Net", "--images", "4", "--out", "out")
    assert status == 2
    assert "NaN" in err
    assert not (tmp_path / "out").exists()


def test_empty_folder_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--out", "--record-trace"):
        status, _, err = run(capsys, "simulate", SHIPPED, option, "")
        assert status == 2
        assert option in err


def test_traces_are_all_there_or_none(tmp_path: Path, mlp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitline import replaying, simulate
    from bitline.errors import OutputError

    written = []

    def full_disk(path: Path, trace: object) -> None:
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)
        path.write_bytes(b"half")

    monkeypatch.setattr(replaying, "save_trace", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        simulate(mlp, images=2, trace_folder=tmp_path / "traces")
    assert written
    assert not (tmp_path / "traces").exists()
