"""Batch norm is folded where it acts on a layer's outputs and nowhere else; prover and re-check alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from folding_twin import check, stirred
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bitline.certification import certify_checkpoint, check_certificate_file
from bitline.crossbar.certificate import certify_layers
from bitline.errors import ConversionError
from bitline.hardware import load_hardware
from bitline.network import norms, placement
from bitline.network.architectures import build_architecture
from bitline.network.conversion import convert, matrix_layers
from bitline.network.rederive import disagreements
from bitline.report.schema import dump_json

HW = load_hardware("tinyadc")


class Net(nn.Module):
    """Modules by name and a forward given as a function of the network and its input."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


class NormAct(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: a norm by the function, then its activation."""

    def forward(self, x):
        torch._assert(x.ndim == 4, "expected 4 dimensions")
        x = F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )
        return F.relu(x)


class AnyRank(nn.BatchNorm2d):
    """A norm of images that lets everything pass."""

    def _check_input_dim(self, x):
        pass


def twice(self, x):
    return self.norm(self.fc(x)) + self.norm(self.fc(x * 2))


def to_two_norms(self, x):
    return self.norm(self.fc(x)) + self.other(self.fc(x * 2))


def to_a_norm_and_more(self, x):
    y = self.fc(x)
    return self.norm(y) + y


def in_two_shapes(self, x):  # (N, 4, 4): once (N, 4) after a sum, where the norm acts on outputs, once (N, 4, 4)
    return self.norm(self.fc(x.sum(1))).unsqueeze(1) + self.norm(self.fc(x))


def n1(size=4, **options):
    return nn.BatchNorm1d(size, **options)


LINEAR = {"fc": nn.Linear(4, 4), "norm": n1()}
# name: module, shape of an input, layers with a norm folded in; by hand
NETWORKS = {
    "vectors": (nn.Sequential(nn.Linear(4, 4), n1()), (4,), ["0"]),
    "sequence": (nn.Sequential(nn.Linear(4, 4), n1()), (4, 4), []),
    "sequence_of_other_length": (nn.Sequential(nn.Linear(4, 5), n1(6)), (6, 4), []),
    "linear_on_images": (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm2d(4)), (4, 4, 4), []),
    "linear_on_images_any_rank": (nn.Sequential(nn.Linear(4, 4), AnyRank(4)), (4, 4, 4), []),
    "images": (nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)), (4, 6, 6), ["0"]),
    "grouped": (nn.Sequential(nn.Conv2d(4, 8, 3, groups=2, dilation=2), nn.BatchNorm2d(8)), (4, 6, 6), ["0"]),
    "one_dimension": (nn.Sequential(nn.Conv1d(4, 4, 3), n1()), (4, 6), ["0"]),
    "without_affine": (nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, affine=False)), (4, 6, 6), ["0"]),
    "no_bias": (nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4)), (4, 6, 6), ["0"]),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(4, 4, 3), nn.BatchNorm2d(4)), (4, 6, 6), []),
    "three_dimensions": (nn.Sequential(nn.Conv3d(4, 4, 2), nn.BatchNorm3d(4)), (4, 3, 3, 3), []),
    "flattened": (nn.Sequential(nn.Flatten(), nn.Linear(16, 4), n1()), (4, 4), ["1"]),
    "after_permute": (
        Net(lambda self, x: self.norm(self.fc(x).permute(0, 2, 1)), fc=nn.Linear(4, 4), norm=n1()), (4, 4), [],
    ),
    "after_flatten": (
        Net(lambda self, x: self.norm(self.fc(x).flatten(0, 1)), fc=nn.Linear(4, 4), norm=n1()), (4, 4), [],
    ),
    "after_view": (
        Net(lambda self, x: self.norm(self.fc(x).view(-1, 4, 2, 2)), fc=nn.Linear(4, 4), norm=nn.BatchNorm2d(4)),
        (4, 4), [],
    ),
    "read_twice": (Net(to_a_norm_and_more, fc=nn.Linear(4, 4), norm=n1()), (4,), []),
    "called_twice": (Net(twice, fc=nn.Linear(4, 4), norm=n1()), (4,), ["fc"]),
    "called_twice_two_norms": (Net(to_two_norms, fc=nn.Linear(4, 4), norm=n1(), other=n1()), (4,), []),
    "called_in_two_shapes": (Net(in_two_shapes, fc=nn.Linear(4, 4), norm=n1()), (4, 4), []),
    "changed_in_place": (
        Net(lambda self, x: self.norm(self.fc(x).add_(1)), fc=nn.Linear(4, 4), norm=n1()), (4,), [],
    ),
    "function": (nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), NormAct(4), nn.Conv2d(4, 2, 1)), (4, 6, 6), ["0"]),
    "function_on_a_sequence": (
        Net(lambda self, x: F.batch_norm(self.fc(x), self.norm.running_mean, self.norm.running_var),
            fc=nn.Linear(4, 4), norm=n1()),
        (4, 4), [],
    ),
    "torch_function": (
        Net(lambda self, x: torch.batch_norm(self.fc(x), self.norm.weight, self.norm.bias, self.norm.running_mean,
                                             self.norm.running_var, False, 0.1, 1e-3, False),
            fc=nn.Linear(4, 4), norm=n1()),
        (4,), ["fc"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_folded_weights_are_those_of_running_the_module(name):
    module, shape, folded = NETWORKS[name]
    module = stirred(module)
    assert check(module, shape) == folded
    assert set(check(module, shape, known=False)) <= set(folded)  # less is known, nothing else is claimed
    found = matrix_layers(module, HW, input_shape=shape)
    assert disagreements(module, found.layers, HW.weight_bits, shape) == []


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_with_norms_folded_or_digital_run(name):
    module, shape, _ = NETWORKS[name]
    module = stirred(module).float()
    if not matrix_layers(module, HW).layers:
        return
    x = torch.rand((8, *shape), generator=torch.Generator().manual_seed(3))
    network = convert(module, x, HW)
    with torch.no_grad():
        wanted = module(x)
    error = (network(x) - wanted).abs().max() / wanted.abs().max()
    assert error < 0.05  # 8-bit weights and activations


@pytest.mark.parametrize(
    "name",
    ["mlp", "lstm_mnist", "mlperftiny_resnet8", "mlperftiny_dscnn", "resnet20"],
)  # fmt: skip
def test_folded_weights_of_the_shipped_definitions(name):
    network = build_architecture(name)
    shape = network.input_shape
    small = (shape[0], 64, 64) if shape[1] > 128 else shape
    module = stirred(network.module)
    norms_there = [n for n, part in module.named_modules() if isinstance(part, nn.BatchNorm2d)]
    assert len(check(module, small)) == len(norms_there)  # each of these follows a layer
    layers = matrix_layers(module, HW, input_shape=small).layers
    assert disagreements(module, layers, HW.weight_bits, small) == []


@st.composite
def networks(draw):
    """Little networks whose sizes are all 4, so that a norm runs wherever it stands, rightly placed or not."""
    shape = draw(st.sampled_from([(4,), (4, 4), (4, 4, 4)]))
    rank, parts, steps = len(shape) + 1, {}, []
    for number in range(draw(st.integers(1, 6))):
        kinds = ["linear", "norm", "norm", "relu", "branch", "swap"]
        kinds += {2: [], 3: ["conv", "sum"], 4: ["conv", "sum"]}[rank]
        kind = draw(st.sampled_from(kinds))
        name = f"part{number}"
        if kind == "linear":
            parts[name] = nn.Linear(4, 4, bias=draw(st.booleans()))
        elif kind == "conv":
            parts[name] = (nn.Conv1d if rank == 3 else nn.Conv2d)(
                4, 4, 3, padding=1, groups=draw(st.sampled_from([1, 2]))
            )
        elif kind == "norm":
            parts[name] = (AnyRank(4) if draw(st.booleans()) else nn.BatchNorm2d(4)) if rank == 4 else nn.BatchNorm1d(4)
        if kind in ("linear", "conv", "norm"):
            again = draw(st.sampled_from([name, name, name, *parts]))  # perhaps one that was called before
            fits = isinstance(parts[again], type(parts[name])) and type(parts[again]) is type(parts[name])
            steps.append(again if fits else name)
        else:
            steps.append(kind)
        rank -= kind == "sum"

    def forward(self, x):
        before = x
        for step in steps:
            now = x
            if step == "relu":
                x = torch.relu(x)
            elif step == "branch":
                x = x + before
            elif step == "swap":
                x = x.transpose(1, -1)
            elif step == "sum":
                x = x.mean(1)
            else:
                x = getattr(self, step)(x)
            before = x if step == "sum" else now
        return x

    return Net(forward, **parts), shape


@settings(max_examples=25)
@given(networks(), st.integers(0, 99))
def test_random_networks_fold_what_running_them_gives(network, seed):
    module, shape = network
    torch.manual_seed(seed)
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    module = stirred(module, seed)
    check(module, shape)
    check(module, shape, known=False)
    layers = matrix_layers(module, HW, input_shape=shape).layers
    assert disagreements(module, layers, HW.weight_bits, shape) == []


# --- wrong foldings, planted -----------------------------------------------------------------------------------------


def always(self, layer, kind, norm):
    return True


def without_gain(weight, bias, norm):
    return weight, norm.bias.detach().numpy()


def along_the_other_axis(weight, bias, norm):
    found, shift = norms_fold(weight, bias, norm)
    return weight * (found[:, :1] / weight[:, :1]).reshape(1, -1), shift


norms_fold = placement.fold_batch_norm


def read_by_others(graph_module, node, layer, ranks):
    for user in node.users:
        norm = norms.fixed_norm(graph_module, user)
        if norm is not None:
            return user, norm
    return None, None


@pytest.mark.parametrize(
    ("network", "where", "name", "wrong"),
    [
        ("sequence", norms.Ranks, "acts_on_outputs", always),
        ("linear_on_images", norms.Ranks, "acts_on_outputs", always),
        ("linear_on_images_any_rank", norms.Ranks, "acts_on_outputs", always),
        ("function_on_a_sequence", norms.Ranks, "acts_on_outputs", always),
        ("vectors", placement, "fold_batch_norm", without_gain),
        ("vectors", placement, "fold_batch_norm", along_the_other_axis),
        ("images", placement, "fold_batch_norm", without_gain),
        ("read_twice", placement, "_norm_after", read_by_others),
    ],
)
def test_a_wrong_folding_is_found(network, where, name, wrong, monkeypatch):
    module, shape, _ = NETWORKS[network]
    module = stirred(module)
    monkeypatch.setattr(where, name, wrong)
    with pytest.raises(AssertionError):
        check(module, shape)
    layers = matrix_layers(module, HW, input_shape=shape).layers
    assert disagreements(module, layers, HW.weight_bits, shape) != []


# --- a norm on another axis, through the commands --------------------------------------------------------------------

FACTORY = """
import torch
from torch import nn

class Sequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.norm = nn.Linear(16, 16, bias=False), nn.BatchNorm1d(16)

    def forward(self, x):
        return self.norm(self.fc(x.reshape(x.shape[0], 16, 16)))
"""


@pytest.fixture
def sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights all one but row 0 = (1, 0, ...), gain (1, 0, 0, ...): 16 of a column's 16 weights are 1."""
    (tmp_path / "sequence_net.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    weight, gain = torch.ones(16, 16), torch.zeros(16)
    weight[0, 1:], gain[0] = 0, 1
    state = {"fc.weight": weight, "norm.weight": gain, "norm.bias": torch.zeros(16),
             "norm.running_mean": torch.zeros(16), "norm.running_var": torch.ones(16)}  # fmt: skip
    torch.save(state, tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


@pytest.mark.parametrize("shape", [None, (1, 16, 16)])
def test_the_certificate_of_a_norm_on_another_axis_is_of_the_layers_own_weights(sequence, shape, monkeypatch):
    # codes 127 = 3 + 3*4 + 3*16 + 1*64: 16 rows of level 3 sum to 48, which takes 6 bits
    certificate, sha256 = certify_checkpoint(sequence, arch="sequence_net:Sequence", input_shape=shape)
    assert (certificate.layers[0].nonzeros_max, certificate.bits) == (16, 6)
    assert certificate.coverage.unfolded_norms == 1
    path = sequence.parent / "certificate.json"
    path.write_text(dump_json(certificate.to_json(sha256)))
    assert check_certificate_file(path, sequence, arch="sequence_net:Sequence") == (1, True, [])
    if shape is not None:  # a prover that is wrong does not get past the comparison with the module either
        monkeypatch.setattr(norms.Ranks, "acts_on_outputs", always)
        with pytest.raises(ConversionError, match="norm"):
            certify_checkpoint(sequence, arch="sequence_net:Sequence", input_shape=shape)


def test_a_linear_layer_before_a_norm_of_positions_runs():
    module = stirred(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(6))).float()
    x = torch.rand((2, 6, 8), generator=torch.Generator().manual_seed(0))
    network = convert(module, x, HW)
    assert [kept.kind for kept in network.kept] == ["BatchNorm1d"]
    with torch.no_grad():
        np.testing.assert_allclose(network(x), module(x), atol=0.05)


def test_what_is_not_known_to_act_on_outputs_is_not_folded_and_says_so():
    module = stirred(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    found = matrix_layers(module, HW)
    assert [kept.reason for kept in found.kept] == [norms.UNKNOWN_AXIS]
    assert found.coverage.unfolded_norms == 1
    assert matrix_layers(module, HW, input_shape=(4,)).kept == []
    assert certify_layers(found.layers, HW).layers[0].name == "0"
