"""Networks that do what a graph does not carry: equal to torch on crossbars, or refused in a line that names the trap.

Expected outputs are those of the module itself. With 16-bit codes, quantisation is below 1e-3 of the outputs; dropping
what a trap does changes them by 0.05 and more.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx._symbolic_trace import is_fx_symbolic_tracing
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm
from torch.utils._pytree import tree_leaves

import bitline
from bitline.errors import ConversionError
from bitline.network.conversion import convert
from bitline.network.guard import RandomInputs, check_network

HW = bitline.load_hardware("tinyadc", input_bits=16, weight_bits=16, adc_bits="weight_aware")
IMAGES, VECTORS, SEQUENCES = (4, 2, 6, 6), (4, 6), (4, 5, 6)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:LSTM with projections")


class Wrap(nn.Module):
    """A network from a function of (self, x), a convolution ``conv`` and a linear layer ``lin``, and other modules."""

    def __init__(self, function, **modules):
        super().__init__()
        self.conv, self.lin = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(6, 4)
        for name, module in modules.items():
            setattr(self, name, module)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


def convolutions():
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(), nn.Identity(),
        nn.Sequential(nn.Conv2d(3, 2, 1)),
    )  # fmt: skip


def used(network):
    """With batch norms that are not at their initial statistics."""
    for part in network.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)) and part.running_mean is not None:
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return network.eval()


def assert_equal_to_torch(network, shape):
    x = torch.randn(shape)
    converted = convert(network, x.clone(), HW, engine="exact", calibrator="max")
    check_network(network, RandomInputs(shape[1:], "trap"))
    with torch.no_grad():
        first = next(network.parameters())
        expected = tree_leaves(network(x.clone().to(first.dtype)))
    mine = tree_leaves(converted(x.clone()))
    assert len(mine) == len(expected)
    for a, b in zip(mine, expected, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= 2e-3 * b.abs().max()


def assert_refused(network, shape, word):
    with pytest.raises(ConversionError, match=word) as by_data:
        convert(network, torch.randn(shape), HW, engine="exact", calibrator="max")
    with pytest.raises(ConversionError, match=word) as by_shape:
        check_network(network, RandomInputs(shape[1:], "trap"))
    for error in (by_data, by_shape):
        assert "\n" not in str(error.value)


# --- overwritten in place --------------------------------------------------------------------------------------------

OVERWRITTEN = {}


def overwritten(function):
    OVERWRITTEN[function.__name__] = function
    return function


@overwritten
def augmented_assignment_after_a_view(self, x):
    y = self.conv(x)
    v = y.flatten(1)
    y += 5
    return v


@overwritten
def augmented_assignment_under_two_names(self, x):
    y = z = self.conv(x)
    y -= 1
    y *= 3
    return z


@overwritten
def augmented_assignment_of_a_size(self, x):
    n = m = x.shape[2]
    n += 1
    return self.conv(x) * n + m


@overwritten
def elementary_function_of_a_view_of_what_is_read_again(self, x):
    y = self.conv(x)
    w = self.silu(y.permute(0, 2, 3, 1))
    return y.sum(1) + w.sum(3)


@overwritten
def elementary_function_whose_result_is_thrown_away(self, x):
    y = self.conv(x)
    y.flatten(1).sigmoid_()
    return y


@overwritten
def elementary_function_of_a_view_used_and_read_again(self, x):
    y = self.conv(x)
    return y.flatten(1).tanh_() * 2, y


@overwritten
def slice_assignment(self, x):
    y = self.conv(x)
    y[:, 0] = 0
    y[:, 1] += 5
    return y


@overwritten
def parts_of_a_split(self, x):
    y = self.conv(x)
    a, b = y.split([1, 2], 1)
    a.mul_(3)
    b.relu_()
    return y


@overwritten
def one_of_unbind(self, x):
    y = self.conv(x)
    y.unbind(1)[0].exp_()
    return y


@overwritten
def out_is_a_chunk(self, x):
    y = self.conv(x)
    a, _ = y.chunk(2, 1)
    torch.add(a, 1, out=a)
    return y


@overwritten
def out_of_an_elementary_function(self, x):
    y = self.conv(x)
    z = torch.empty_like(y)
    torch.exp(y, out=z)
    return z


@overwritten
def through_data(self, x):
    y = self.conv(x)
    y.data.add_(2)
    return y


@overwritten
def inplace_by_position_through_a_view(self, x):
    y = self.conv(x)
    F.hardtanh(y.transpose(1, 2), -0.1, 0.1, True)
    return y


@overwritten
def inplace_by_position(self, x):
    y = self.conv(x)
    F.leaky_relu(y, -1.0, True)
    return y


@overwritten
def the_input(self, x):
    x += 1
    return self.conv(x)


@overwritten
def a_view_shown_to_be_non_negative(self, x):
    y = self.conv(x)
    v = F.relu_(y).flatten(1)
    y.sub_(3.0)
    return self.head(v)


@overwritten
def detached_in_place(self, x):
    return self.conv(x).detach_().requires_grad_(False).relu_()


@overwritten
def attribute_method_of_the_operator(self, x):
    y = self.conv(x)
    v = y.flatten(1)
    y.__iadd__(3)
    y.__setitem__((slice(None), 0), 3.0)
    return v


@pytest.mark.parametrize("name", OVERWRITTEN)
def test_what_is_overwritten_is_seen_by_whoever_looks_at_it(name):
    torch.manual_seed(0)
    assert_equal_to_torch(Wrap(OVERWRITTEN[name], head=nn.Linear(108, 3), silu=nn.SiLU(inplace=True)).eval(), IMAGES)


# --- types that are not float32 --------------------------------------------------------------------------------------

TYPES = {
    "exp of a complex number": lambda self, x: torch.exp(torch.complex(0 * self.conv(x), self.conv(x))).real,
    "tanh of a complex number": lambda self, x: torch.tanh(self.conv(x).to(torch.complex64) * 1j).imag,
    "spectrum": lambda self, x: torch.fft.fft2(self.conv(x)).abs(),
    "real and imaginary parts": lambda self, x: torch.view_as_real(
        torch.sigmoid(torch.complex(self.conv(x), self.conv(x)))
    ),
    "float64": lambda self, x: self.conv(x).double().exp() + torch.full((1,), 1e-9, dtype=torch.float64),
}


@pytest.mark.parametrize("name", TYPES)
def test_other_types_than_float32_stay_what_they_are(name):
    torch.manual_seed(0)
    assert_equal_to_torch(Wrap(TYPES[name]).eval(), IMAGES)


class ComplexParameter(nn.Module):
    """Its first parameter is complex."""

    def __init__(self):
        super().__init__()
        self.w, self.lin = nn.Parameter(torch.randn(4, 4, dtype=torch.complex64)), nn.Linear(6, 4)

    def forward(self, x):
        return (self.lin(x).to(torch.complex64) @ self.w).real


def test_complex_parameters():
    torch.manual_seed(0)
    network = ComplexParameter().eval()
    x = torch.randn(VECTORS)
    converted = convert(network, x, HW, engine="exact", calibrator="max")
    with torch.no_grad():
        expected = network(x)
    assert (converted(x) - expected).abs().max() < 2e-3 * expected.abs().max()
    assert torch.equal(converted.float_forward(x), expected)


def test_what_fails_on_crossbars_is_one_line():
    network = convert(Wrap(lambda self, x: self.conv(x).view(-1, 108)).eval(), torch.randn(IMAGES), HW)
    with pytest.raises(
        ConversionError, match=r"does not run on inputs of shape \(1, 2, 5, 5\) on crossbars: "
    ) as error:
        network(torch.randn(1, 2, 5, 5))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.double])
def test_weights_of_another_type(dtype):
    torch.manual_seed(0)
    x = torch.randn(VECTORS)
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).eval().to(dtype)
    with torch.no_grad():  # their values, in arithmetic that does not round
        a, b = network[0].double(), network[2].double()
        expected = F.linear(F.linear(x.double(), a.weight, a.bias).relu(), b.weight, b.bias)
    converted = convert(network.to(dtype), x, HW, engine="exact", calibrator="max")
    assert (converted(x) - expected).abs().max() < 2e-3 * expected.abs().max()


# --- hooks -----------------------------------------------------------------------------------------------------------

HOOKS = {
    "forward": lambda part: part.register_forward_hook(lambda m, i, o: 3 * o - 1),
    "forward, first": lambda part: part.register_forward_hook(lambda m, i, o: 3 * o - 1, prepend=True),
    "forward, always": lambda part: part.register_forward_hook(lambda m, i, o: 3 * o - 1, always_call=True),
    "pre": lambda part: part.register_forward_pre_hook(lambda m, i: (2 * i[0] + 1,)),
    "pre with keywords": lambda part: part.register_forward_pre_hook(
        lambda m, i, k: ((2 * i[0] + 1,), k), with_kwargs=True
    ),
}


@pytest.mark.parametrize("part", ["", "0", "1", "2", "3", "4", "5", "5.0"])
@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_are_refused_by_name(kind, part):
    network = used(convolutions())
    HOOKS[kind](network.get_submodule(part))
    assert_refused(network, IMAGES, f"^{f'layer {part}' if part else 'network Sequential'}: has a forward ")


def test_hooks_on_a_wrapper_of_torch_are_refused():
    network = nn.DataParallel(used(convolutions()))
    assert_equal_to_torch(network, IMAGES)
    network.register_forward_hook(lambda m, i, o: 3 * o - 1)
    assert_refused(network, IMAGES, "has a forward hook")


@pytest.mark.parametrize("register", [register_module_forward_hook, register_module_forward_pre_hook])
def test_hooks_on_all_modules_are_refused(register):
    handle = register(lambda *_: None)
    try:
        assert_refused(used(convolutions()), IMAGES, "on all modules")
    finally:
        handle.remove()


def test_a_mask_multiplied_in_by_a_hook_is_refused():
    network = used(convolutions())
    mask = (torch.rand(3, 2, 3, 3) > 0.75).float()
    network[0].register_forward_pre_hook(lambda part, _: part.weight.data.mul_(mask) and None)
    assert_refused(network, IMAGES, "layer 0: has a forward pre-hook")


def test_backward_hooks_matter_to_nobody():
    network = used(convolutions())
    network[0].register_full_backward_hook(lambda *_: None)
    assert_equal_to_torch(network, IMAGES)


# --- weights that are computed ---------------------------------------------------------------------------------------


class Masked(nn.Module):
    """A parametrization that keeps the larger weights, doubled."""

    def forward(self, weight):
        return 2 * weight * (weight.abs() > weight.abs().mean())


def parametrized(part, name="weight"):
    parametrize.register_parametrization(part, name, Masked())
    return part


def pruned(part, *names):
    for name in names:
        prune.random_unstructured(part, name, amount=0.5)
    return part


def lstm():
    return nn.LSTM(6, 4, batch_first=True)


COMPUTED = {
    "parametrization": (lambda: nn.Sequential(parametrized(nn.Linear(6, 4))), VECTORS),
    "parametrization of a norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), parametrized(nn.BatchNorm2d(3)), nn.ReLU()),
        IMAGES,
    ),
    "parametrization of a recurrent layer": (
        lambda: Wrap(lambda self, x: self.lstm(x)[0], lstm=parametrized(lstm(), "weight_hh_l0")),
        SEQUENCES,
    ),
    "weight norm, old": (lambda: nn.Sequential(weight_norm(nn.Linear(6, 4))), VECTORS),
    "weight norm, new": (lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 4))), VECTORS),
    "spectral norm, old": (lambda: nn.Sequential(spectral_norm(nn.Conv2d(2, 3, 3))), IMAGES),
    "spectral norm, new": (lambda: nn.Sequential(parametrizations.spectral_norm(nn.Conv2d(2, 3, 3))), IMAGES),
    "masks": (lambda: nn.Sequential(pruned(nn.Linear(6, 4), "weight", "bias")), VECTORS),
    "masks of a recurrent layer": (
        lambda: Wrap(lambda self, x: self.lstm(x)[0], lstm=pruned(lstm(), "weight_ih_l0", "weight_hh_l0")),
        SEQUENCES,
    ),
    "weight norm of a recurrent layer": (
        lambda: Wrap(lambda self, x: self.lstm(x)[0], lstm=weight_norm(lstm(), "weight_hh_l0")),
        SEQUENCES,
    ),
    "the same weights twice": (
        lambda: Wrap(lambda self, x: F.linear(self.lin(x).relu(), self.lin.weight.t())),
        VECTORS,
    ),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_the_weights_are_those_the_module_multiplies_by(name):
    torch.manual_seed(0)
    make, shape = COMPUTED[name]
    assert_equal_to_torch(used(make()), shape)


# --- images that influence each other, random numbers, state ---------------------------------------------------------


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn(1)


class AlwaysDropping(nn.Dropout):
    """As Monte Carlo dropout is often written."""

    def train(self, mode=True):
        return super().train(True)


class Dropped(nn.Module):
    def forward(self, weight):
        return F.dropout(weight, 0.5, True)


class WithState(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin, self.calls = nn.Linear(6, 4), 0
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("count", torch.zeros(()))


class BufferFromTheBatch(WithState):
    def forward(self, x):
        y = self.lin(x)
        self.mean.mul_(0.5).add_(y.mean(0))
        return y - self.mean


class CountingBuffer(WithState):
    def forward(self, x):
        self.count += 1
        return self.lin(x) + self.count


class CountingAttribute(WithState):
    def forward(self, x):
        self.calls += 1
        return self.lin(x) * self.calls


def randomly_parametrized():
    part = nn.Linear(6, 4)
    parametrize.register_parametrization(part, "weight", Dropped())
    return nn.Sequential(part)


class OwnCall(nn.Sequential):
    def __call__(self, x):
        return 2 * super().__call__(x)


class OtherwiseWhenTraced(WithState):
    def forward(self, x):
        return self.lin(x) if is_fx_symbolic_tracing() else self.lin(x) * 2


class Autocast(WithState):
    def forward(self, x):
        with torch.autocast("cpu"):
            return self.lin(x)


def no_statistics(cls):
    return cls(4 if cls is nn.BatchNorm1d else 3, track_running_stats=False)


def half_of(self, x):
    return self.lin(x) * np.random.default_rng().random()


REFUSED = {
    "LSTM over the batch": (lambda: Wrap(lambda s, x: s.r(x)[0], r=nn.LSTM(6, 4)), SEQUENCES, r"layer r\b.*images"),
    "GRU over the batch": (lambda: Wrap(lambda s, x: s.r(x)[0][-1], r=nn.GRU(6, 4)), SEQUENCES, r"layer r\b.*images"),
    "projected LSTM over the batch": (
        lambda: Wrap(lambda s, x: s.lin(x) + s.r(x)[0], r=nn.LSTM(6, 8, proj_size=4)), SEQUENCES, r"layer r\b.*images"
    ),
    "attention over the batch": (
        lambda: Wrap(lambda s, x: s.lin(s.m(x, x, x)[0]), m=nn.MultiheadAttention(6, 2)), SEQUENCES, "layer m: .*images"
    ),
    "mean of the batch": (lambda: Wrap(lambda s, x: s.lin(x - x.mean(0))), VECTORS, "network: mean: .*images"),
    "mean of outputs": (lambda: Wrap(lambda s, x: s.lin(x) - s.lin(x).mean(0)), VECTORS, "network: mean: .*images"),
    "largest of the batch": (lambda: Wrap(lambda s, x: s.lin(x) / s.lin(x).max()), VECTORS, "network: max_1: .*images"),
    "softmax over the batch": (lambda: Wrap(lambda s, x: s.lin(x).softmax(0)), VECTORS, "network: softmax: .*images"),
    "neighbours": (lambda: Wrap(lambda s, x: s.lin(x.roll(1, 0))), VECTORS, "network: roll: .*images"),
    "sum so far": (lambda: Wrap(lambda s, x: s.lin(x).cumsum(0)), VECTORS, "network: cumsum: .*images"),
    "batch norm without statistics": (
        lambda: Wrap(lambda s, x: s.n(s.conv(x)), n=no_statistics(nn.BatchNorm2d)), IMAGES, "layer n: .*images"
    ),
    "batch norm of vectors": (
        lambda: Wrap(lambda s, x: s.n(s.lin(x)), n=no_statistics(nn.BatchNorm1d)), VECTORS, "layer n: .*images"
    ),
    "functional batch norm": (
        lambda: Wrap(lambda s, x: F.batch_norm(s.conv(x), None, None, training=True)), IMAGES, "batch_norm .*images"
    ),
    "functional dropout": (lambda: Wrap(lambda s, x: s.lin(F.dropout(x))), VECTORS, "dropout draws random"),
    "torch.dropout": (lambda: Wrap(lambda s, x: torch.dropout(s.lin(x), 0.5, True)), VECTORS, "dropout draws random"),
    "noise like x": (lambda: Wrap(lambda s, x: s.lin(x + torch.rand_like(x))), VECTORS, "rand_like draws random"),
    "noise in a module": (lambda: Wrap(lambda s, x: s.n(s.lin(x)), n=Noise()), VECTORS, "layer n: .*random"),
    "noise of NumPy": (lambda: Wrap(half_of), VECTORS, "network Wrap: .*random"),
    "dropout that stays on": (
        lambda: Wrap(lambda s, x: s.d(s.lin(x)), d=AlwaysDropping()), VECTORS, "layer d: .*training"
    ),
    "random weights": (randomly_parametrized, VECTORS, r"layer 0\.parametrizations\.weight\.0: .*random"),
    "a buffer from the batch": (BufferFromTheBatch, VECTORS, "overwrites mean"),
    "a buffer that counts": (CountingBuffer, VECTORS, "network CountingBuffer: .*state"),
    "an attribute that counts": (CountingAttribute, VECTORS, "network CountingAttribute: .*state"),
    "a __call__ of its own": (lambda: OwnCall(nn.Linear(6, 4)), VECTORS, "network OwnCall: has a __call__"),
    "otherwise when traced": (
        OtherwiseWhenTraced, VECTORS, "network OtherwiseWhenTraced: the traced network is off .*up to layer lin"
    ),
    "autocast": (Autocast, VECTORS, "autocast"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_function_of_one_image_is_refused_by_name(name):
    torch.manual_seed(0)
    make, shape, word = REFUSED[name]
    assert_refused(make().eval(), shape, word)


# --- what looks alike and is right -----------------------------------------------------------------------------------


class Branching(WithState):
    def forward(self, x, scale=2.0, *, flip=False):
        self.calls += 1  # nobody reads it
        with torch.no_grad():
            y = self.lin(x) * scale
        return {"scores": y if not self.training else -y, "others": [y.flip(1) if flip else y, (y + 1,)]}


def forward_replaced():
    network = convolutions()
    network[2].forward = lambda x: -x
    return network


class Doubled(nn.Linear):
    def __call__(self, x):
        return 2 * super().__call__(x)


RIGHT = {
    "LSTM, batch first": (
        lambda: Wrap(lambda s, x: s.r(x)[0], r=nn.LSTM(6, 4, 2, batch_first=True, bidirectional=True)), SEQUENCES
    ),
    "LSTM, transposed": (lambda: Wrap(lambda s, x: s.r(x.transpose(0, 1))[0][-1], r=nn.LSTM(6, 4)), SEQUENCES),
    "attention, batch first": (
        lambda: Wrap(lambda s, x: s.lin(s.m(x, x, x)[0]), m=nn.MultiheadAttention(6, 2, batch_first=True)), SEQUENCES
    ),
    "instance norm": (lambda: Wrap(lambda s, x: s.n(s.conv(x)), n=nn.InstanceNorm2d(3)), IMAGES),
    "mean of an image": (lambda: Wrap(lambda s, x: s.conv(x - x.mean((1, 2, 3), keepdim=True))), IMAGES),
    "images squeezed": (lambda: Wrap(lambda s, x: s.conv(x).mean((2, 3), keepdim=True).squeeze()), IMAGES),
    "a fixed table": (lambda: Wrap(lambda s, x: s.lin(x) + torch.arange(4) * 0.5), VECTORS),
    "branches, defaults, several outputs": (Branching, VECTORS),
    "a layer at two sizes under one norm": (
        lambda: Wrap(lambda s, x: (s.n(s.conv(x)), s.n(s.conv(x[:, :, ::2]))), n=nn.BatchNorm2d(3)), IMAGES
    ),
    "a forward replaced on one object": (forward_replaced, IMAGES),
    "a __call__ of a layer": (lambda: nn.Sequential(Doubled(6, 4)), VECTORS),
    "dropout in evaluation mode": (
        lambda: Wrap(lambda s, x: F.dropout(s.lin(x), 0.5, s.training), d=nn.Dropout()), VECTORS
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_what_looks_alike_and_is_right_runs(name):
    torch.manual_seed(0)
    make, shape = RIGHT[name]
    assert_equal_to_torch(used(make()), shape)
