"""The guard: whatever is wrong between the user's module and what runs on crossbars is seen, and named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import bitline
from bitline import certification
from bitline.errors import ConfigError, ConversionError
from bitline.network import activations, graph, layouts, placement
from bitline.network.conversion import convert, matrix_layers
from bitline.network.graph import trace
from bitline.network.guard import Examples, Guard, RandomInputs, check_network, first_images
from bitline.network.placement import place

HW = bitline.load_hardware("tinyadc")


class Small(nn.Module):
    """Two convolutions with batch norm, a sum, an LSTM-free head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
        self.norm, self.again = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.act, self.head = nn.SiLU(inplace=True), nn.Linear(4, 3)
        for norm in (self.norm, self.again):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        y = self.act(self.norm(self.a(x)))
        y = y + self.again(self.b(y))
        return self.head(y.mean((2, 3)))


def compared(module, x):
    placed = place(trace(module))
    guard = Guard(module, Examples(x, "examples"), placed.graph_module)
    guard.check_placement(placed)
    return guard


def test_a_network_equals_its_graph():
    compared(Small().eval(), torch.randn(2, 2, 8, 8))
    assert check_network(Small().eval(), RandomInputs((2, 8, 8), "small")) == "2 random inputs of shape 2x8x8"


# --- the guard sees each pass of the conversion broken ---------------------------------------------------------------


def test_it_sees_a_batch_norm_folded_wrongly(monkeypatch):
    right = placement.fold_batch_norm
    monkeypatch.setattr(placement, "fold_batch_norm", lambda w, b, n: (right(w, b, n)[0], right(w, b, n)[1] + 0.01))
    with pytest.raises(ConversionError, match=r"^layer norm: the traced network is off .*equal up to its input"):
        compared(Small().eval(), torch.randn(2, 2, 8, 8))
    monkeypatch.setattr(placement, "fold_batch_norm", lambda w, b, n: (w, b))
    with pytest.raises(ConversionError, match=r"^layer norm: the traced network is off"):
        convert(Small().eval(), torch.randn(4, 2, 8, 8), HW)


def test_it_sees_the_second_of_two_wrong(monkeypatch):
    right = placement.fold_batch_norm

    def wrong(weight, bias, norm):
        folded, offset = right(weight, bias, norm)
        return (np.roll(folded, 1, axis=0), offset) if bias is None else (folded, offset)

    monkeypatch.setattr(placement, "fold_batch_norm", wrong)
    with pytest.raises(ConversionError, match=r"^layer again: the traced network is off .*equal up to layer act"):
        compared(Small().eval(), torch.randn(2, 2, 8, 8))


def test_it_sees_an_operation_that_tracing_lost(monkeypatch):
    class Adds(Small):
        def forward(self, x):
            y = self.a(x)
            v = y.flatten(1)
            y += 1
            return v

    for overwrite in ("iadd", "isub"):
        monkeypatch.delattr(graph._Proxy, f"__{overwrite}__")  # as in torch.fx: y = y + 1
    with pytest.raises(ConversionError, match=r"^network Adds: the traced network is off .*equal up to layer a"):
        compared(Adds().eval(), torch.randn(2, 2, 8, 8))


def test_it_sees_an_elementary_function_that_overwrites_nothing(monkeypatch):
    class Views(Small):
        def forward(self, x):
            y = self.a(x)
            w = self.act(y.permute(0, 2, 3, 1))
            return y.sum(1) + w.sum(3)

    monkeypatch.setattr(activations, "disturbing", lambda _: set())
    with pytest.raises(ConversionError, match=r"^network Views: the traced network is off"):
        convert(Views().eval(), torch.randn(4, 2, 8, 8), HW, calibrator="max")


def test_it_sees_a_copy_in_place_of_a_view(monkeypatch):
    class Flat(Small):
        def forward(self, x):
            y = self.a(x)
            v = y.flatten(1)
            y.relu_()
            return v

    monkeypatch.setattr(layouts, "disturbing", lambda _: set())
    with pytest.raises(ConversionError, match=r"^network Flat: the traced network is off"):
        convert(Flat().eval(), torch.randn(4, 2, 8, 8), HW, calibrator="max")


def test_it_sees_imaginary_parts_dropped(monkeypatch):
    class Complex(Small):
        def forward(self, x):
            c = self.a(x)
            return torch.exp(torch.complex(0 * c, c)).real

    monkeypatch.setattr(activations, "widen", lambda x: x.real.double())
    with pytest.raises(ConversionError, match=r"^network Complex: "):
        convert(Complex().eval(), torch.randn(4, 2, 8, 8), HW, calibrator="max")


def test_it_sees_inputs_wrongly_shown_to_be_non_negative(monkeypatch):
    monkeypatch.setattr(placement, "non_negative_nodes", lambda module: set(module.graph.nodes))
    with pytest.raises(ConversionError, match=r"^layer a: reads negative numbers"):
        compared(Small().eval(), torch.randn(2, 2, 8, 8))


# --- rounding is no difference ---------------------------------------------------------------------------------------


def test_steps_that_amplify_rounding_are_judged_in_float64():
    """Rounded after a large gain, two float32 sums of another order differ by whole steps."""

    class Steps(Small):
        def forward(self, x):
            return torch.round(self.norm(self.a(x)) * 1e5) % 7

    compared(Steps().eval(), torch.randn(2, 2, 8, 8))


def test_numbers_that_are_not_finite_are_compared_too():
    class Logs(Small):
        def forward(self, x):
            return self.norm(self.a(x)).log()

    compared(Logs().eval(), torch.randn(2, 2, 8, 8))


# --- which inputs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 2)), "3x28x28"),
        (nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 998, 2)), "2x1000"),
        (nn.Sequential(nn.Linear(7, 3)), "7"),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 3)), "784"),
        (nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(64, 3)), "16"),
        (nn.LSTM(6, 4, batch_first=True), "16x6"),
    ],
)
def test_a_shape_that_nobody_states_is_found(network, shape):
    assert check_network(network.eval(), RandomInputs(None, "it")).endswith(f"of shape {shape}")


def test_a_shape_that_nobody_states_and_none_fits_is_asked_for():
    with pytest.raises(ConfigError, match=r"^input: it does not say the shape of its inputs, .*--input"):
        check_network(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(45, 2)), RandomInputs(None, "it"))


def test_a_shape_that_does_not_fit_is_refused_in_a_line():
    with pytest.raises(ConversionError, match=r"does not run on 2 random inputs of shape 3x8x8") as error:
        check_network(Small().eval(), RandomInputs((3, 8, 8), "small"))
    assert "\n" not in str(error.value)


def test_random_inputs_and_global_random_numbers_do_not_touch():
    network = Small().eval()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    check_network(network, RandomInputs((2, 8, 8), "small"))
    assert torch.equal(torch.rand(1), expected)


def test_one_calibration_image_makes_two():
    x = torch.rand(1, 2, 8, 8)
    inputs = first_images([x]).inputs
    assert inputs.shape == (2, 2, 8, 8)
    assert torch.equal(inputs[:1], x)
    assert not torch.equal(inputs[1:], x)
    assert torch.equal(first_images([x, 2 * x, x]).inputs, torch.cat([x, 2 * x]))


def test_the_module_and_its_graph_are_left_as_they_were():
    network = Small().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = matrix_layers(network, HW, compare_on=RandomInputs((2, 8, 8), "small"))
    assert found.compared == "2 random inputs of shape 2x8x8"
    assert matrix_layers(network, HW).compared is None
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())
    converted = convert(network, torch.randn(4, 2, 8, 8), HW)
    assert all(p.dtype is torch.float32 for p in converted.graph_module.parameters())
    assert not any("forward" in vars(part) for part in converted.modules())


# --- commands --------------------------------------------------------------------------------------------------------


@pytest.fixture
def masked(tmp_path, monkeypatch):
    """A checkpoint whose architecture multiplies a mask in by a hook (finding A3)."""
    (tmp_path / "masked_by_hook.py").write_text(
        "import torch\n\n\ndef net():\n"
        "    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10), torch.nn.Linear(10, 10))\n"
        "    mask = torch.arange(2560).view(10, 256) % 4 == 0\n"
        "    net[1].register_forward_pre_hook(lambda part, _: part.weight.data.mul_(mask) and None)\n"
        "    return net\n"
    )
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(256, 10), nn.Linear(10, 10)).state_dict(), "masked.pth")
    return {"arch": "masked_by_hook:net"}


def test_every_command_refuses_the_same_network(masked, tmp_path):
    from bitline.comparison import compare
    from bitline.pruner import prune
    from bitline.throughput import throughput

    calls = [
        lambda: bitline.simulate("masked.pth", data="digits", images=4, **masked),
        lambda: certification.certify_checkpoint("masked.pth", **masked),
        lambda: certification.cp_table("masked.pth", rates=[4], **masked),
        lambda: throughput(["tinyadc"], "masked.pth", input_shape=(1, 16, 16), **masked),
        lambda: throughput(["tinyadc"], input_shape=(1, 16, 16), **masked),
        lambda: compare(["masked.pth"], "tinyadc", ["plain"], "digits", images=4, **masked),
        lambda: prune("masked.pth", out=tmp_path / "out.safetensors", rate=4, epochs=0, **masked),
    ]
    for call in calls:
        with pytest.raises(ConversionError, match=r"^layer 1: has a forward pre-hook"):
            call()


def test_the_text_of_a_certificate_says_what_was_compared(tmp_path, monkeypatch, capsys):
    from bitline.cli import main

    assert main(["certify", "digits_resnet20_cp16"]) == 0
    assert "it computes what its module does, compared on 2 random inputs of shape 1x16x16" in capsys.readouterr().out
    (tmp_path / "mean_of_batch.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.l = torch.nn.Linear(12, 3)\n\n    def forward(self, x):\n"
        "        return self.l((x - x.mean(0)).reshape(-1, 12))\n"
    )
    monkeypatch.chdir(tmp_path)
    torch.save({"l.weight": torch.randn(3, 12), "l.bias": torch.zeros(3)}, "net.pth")
    for shape in (["--input", "3x4"], []):
        assert main(["certify", "net.pth", "--arch", "mean_of_batch:Net", *shape]) == 2
        error = capsys.readouterr().err
        assert "network: mean: an image's outputs depend on the other images" in error
