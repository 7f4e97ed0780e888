"""LSTM and GRU layers as what crossbars hold: two matrix products a step, and gates in digital units between them.

``unfold`` replaces every ``nn.LSTM`` and ``nn.GRU`` of a traced graph, layer by layer and direction by direction, by

* a linear layer ``weight_ih_l0`` over the whole sequence, ``W_ih x_t + b_ih`` (an ordinary matrix layer), and
* a :class:`Recurrence` ``weight_hh_l0``, which goes through the steps: ``W_hh h_(t-1) + b_hh``, then the gates.

Both are named after the tensor they hold. The gates are torch's arithmetic in float32, in the order of torch's own
cells; sigmoid and tanh are torch's in float64, rounded to float32 once, as all elementary functions between crossbars
(:mod:`bitline.network.activations` says why).

References
----------
torch.nn.LSTM and torch.nn.GRU: gates in the order i, f, g, o and r, z, n; GRU with its reset gate after the product.
"""

from __future__ import annotations

import operator
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, fx, nn

from bitline.errors import ConversionError
from bitline.layers import Gates

__all__ = ["Cell", "Recurrence", "both_directions", "is_recurrent", "unfold"]


class Cell(StrEnum):
    """What is computed from the two products of a step."""

    LSTM = "lstm"
    GRU = "gru"

    def gates(self, hidden: int) -> Gates:
        """Digital work of one step with this many outputs.

        LSTM: three sigmoids and two tanh an output; four sums of the products, ``f c + i g`` (3) and ``o tanh(c)``
        (1); reads both products (8) and c, writes c and h. GRU: two sigmoids and one tanh; two sums, ``r h_n`` added
        (2), and ``(h - n) z + n`` (3); reads both products (6) and h, writes h.
        """
        functions, arithmetic, moved = (5, 8, 11) if self is Cell.LSTM else (3, 7, 8)
        return Gates(functions=functions * hidden, arithmetic=arithmetic * hidden, moved=moved * hidden)


def _sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x.double()).to(x.dtype)


def _tanh(x: Tensor) -> Tensor:
    return torch.tanh(x.double()).to(x.dtype)


def _lstm_step(from_input: Tensor, from_state: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = (from_input + from_state).chunk(4, dim=-1)
    c = _sigmoid(f) * c + _sigmoid(i) * _tanh(g)
    return _sigmoid(o) * _tanh(c), c


def _gru_step(from_input: Tensor, from_state: Tensor, h: Tensor) -> Tensor:
    input_r, input_z, input_n = from_input.chunk(3, dim=-1)
    state_r, state_z, state_n = from_state.chunk(3, dim=-1)
    new = _tanh(input_n + state_n * _sigmoid(state_r + input_r))
    return (h - new) * _sigmoid(state_z + input_z) + new


class Recurrence(nn.Module):
    """The steps of one layer and direction of an LSTM or GRU, given the products with its inputs.

    Parameters
    ----------
    cell : Cell
    hidden : int
        Outputs a step.
    product : nn.Module
        ``W_hh h + b_hh``: a linear layer, or that layer on crossbars.
    index : int
        Which of the initial states that the network hands over belongs here (layer x directions + direction).
    """

    def __init__(self, cell: Cell, hidden: int, product: nn.Module, index: int) -> None:
        super().__init__()
        self.cell, self.hidden, self.product, self.index = cell, hidden, product, index

    @property
    def weight(self) -> Tensor:
        """W_hh [shape=(gates x hidden, hidden)]; of the float layer only."""
        assert isinstance(self.product, nn.Linear)
        return self.product.weight

    @property
    def bias(self) -> Tensor | None:
        """b_hh [shape=(gates x hidden,)] or None; of the float layer only."""
        assert isinstance(self.product, nn.Linear)
        return self.product.bias

    def on(self, product: nn.Module) -> Recurrence:
        """The same steps with another product."""
        return Recurrence(self.cell, self.hidden, product, self.index)

    def initial(self, from_input: Tensor, state: Any = None) -> tuple[Tensor, Tensor]:
        """Output and cell before the first step [shape=(batch, hidden)]: zeros, or what the network hands over."""
        zeros = from_input.new_zeros((from_input.shape[0], self.hidden))
        if state is None:
            return zeros, zeros
        states = state if self.cell is Cell.LSTM else (state, state)
        h, c = (part[self.index].to(from_input.dtype).expand_as(zeros) for part in states)
        return h, c

    def read(self, from_input: Tensor, outputs: Tensor, state: Any = None) -> Tensor:
        """What the product reads at every step: the outputs [shape=(batch, steps, hidden)] one step late."""
        first, _ = self.initial(from_input, state)
        return torch.cat([first[:, None], outputs[:, :-1]], dim=1)

    def forward(self, from_input: Tensor, state: Any = None) -> tuple[Tensor, Tensor, Tensor]:
        """Go through the steps of a batch of sequences.

        Parameters
        ----------
        from_input : Tensor [shape=(batch, steps, gates x hidden)]
            ``W_ih x_t + b_ih`` of every step.
        state : Tensor or pair of Tensors [shape=(layers x directions, batch, hidden)], optional
            Outputs, for an LSTM and cells, before the first step, as torch's layers take them.

        Returns
        -------
        outputs : Tensor [shape=(batch, steps, hidden)]
        h, c : Tensor [shape=(batch, hidden)]
            Output and cell after the last step; a GRU's cell is its output.

        Raises
        ------
        ConversionError
            No batch of sequences, or one without steps.
        """
        if from_input.dim() != 3 or from_input.shape[1] == 0:
            raise ConversionError(
                "recurrent layer: expected a batch of sequences with at least one step, got products of shape "
                f"{tuple(from_input.shape)}"
            )
        h, c = self.initial(from_input, state)
        outputs = []
        for products in from_input.unbind(dim=1):
            if self.cell is Cell.LSTM:
                h, c = _lstm_step(products, self.product(h), c)
            else:
                h = c = _gru_step(products, self.product(h), h)
            outputs.append(h)
        return torch.stack(outputs, dim=1), h, c


def both_directions(forward: Tensor, backward: Tensor) -> Tensor:
    """Outputs of a bidirectional layer: both directions' features side by side [shape=(batch, steps, 2 hidden)]."""
    return torch.cat([forward, backward], dim=-1)


def _as_torch_returns(outputs: Tensor, steps: list[tuple[Tensor, Tensor, Tensor]], cell: Cell) -> Any:
    """Outputs and final states in the shape in which ``nn.LSTM`` and ``nn.GRU`` return them."""
    h = torch.stack([step[1] for step in steps])
    return (outputs, (h, torch.stack([step[2] for step in steps]))) if cell is Cell.LSTM else (outputs, h)


def is_recurrent(module: nn.Module) -> bool:
    """Whether a module is an LSTM or GRU with torch's own forward and without a projection of its outputs."""
    if not isinstance(module, (nn.LSTM, nn.GRU)) or module.proj_size:
        return False
    base = nn.LSTM if isinstance(module, nn.LSTM) else nn.GRU
    return type(module).forward is base.forward


def _parts(layer: nn.LSTM | nn.GRU) -> nn.Module:
    """A module that holds a layer's products and recurrences by the names of their tensors; weights are shared."""
    parts = nn.Module()
    cell = Cell.LSTM if isinstance(layer, nn.LSTM) else Cell.GRU
    for index, suffix in enumerate(_suffixes(layer)):
        for side in ("ih", "hh"):
            weight = getattr(layer, f"weight_{side}_{suffix}")
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias, device="meta")
            linear.weight = _shared(weight)
            if layer.bias:
                linear.bias = _shared(getattr(layer, f"bias_{side}_{suffix}"))
            part = linear if side == "ih" else Recurrence(cell, layer.hidden_size, linear, index)
            parts.add_module(f"weight_{side}_{suffix}", part)
    return parts.eval()


def _shared(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=False)  # what torch.nn.utils.prune left is a plain tensor


def _suffixes(layer: nn.LSTM | nn.GRU) -> list[str]:
    directions = ("", "_reverse") if layer.bidirectional else ("",)
    return [f"l{number}{direction}" for number in range(layer.num_layers) for direction in directions]


def unfold(graph_module: fx.GraphModule) -> None:
    """Replace the LSTM and GRU layers of a traced graph by their products and recurrences, in place.

    Those with ``proj_size`` stay as they are. Dropout between layers is left out: the graph is in evaluation mode.
    """
    layers: dict[str, nn.LSTM | nn.GRU] = {}
    for node in list(graph_module.graph.nodes):
        if node.op != "call_module":
            continue
        target = str(node.target)
        if target not in layers:
            module = graph_module.get_submodule(target)
            if not is_recurrent(module):
                continue
            assert isinstance(module, (nn.LSTM, nn.GRU))
            layers[target] = module
            parent, _, name = target.rpartition(".")
            setattr(graph_module.get_submodule(parent), name, _parts(module))
        _unfold_call(graph_module.graph, node, layers[target])


def _unfold_call(graph: fx.Graph, node: fx.Node, layer: nn.LSTM | nn.GRU) -> None:
    x = node.args[0] if node.args else node.kwargs["input"]
    state = node.args[1] if len(node.args) > 1 else node.kwargs.get("hx")
    steps = []
    with graph.inserting_before(node):
        if not layer.batch_first:
            x = graph.call_method("transpose", (x, 0, 1))
        directions = []
        for suffix in _suffixes(layer):
            backward = suffix.endswith("_reverse")
            gates = graph.call_module(f"{node.target}.weight_ih_{suffix}", (x,))
            if backward:
                gates = graph.call_method("flip", (gates, 1))
            step = graph.call_module(f"{node.target}.weight_hh_{suffix}", (gates, state))
            steps.append(step)
            output = graph.call_function(operator.getitem, (step, 0))
            directions.append(graph.call_method("flip", (output, 1)) if backward else output)
            if layer.bidirectional and not backward:
                continue
            x = graph.call_function(both_directions, tuple(directions)) if backward else directions[0]
            directions = []
        if not layer.batch_first:
            x = graph.call_method("transpose", (x, 0, 1))
        assert isinstance(x, fx.Node)
        x.meta["call"] = node.meta.get("call")
        for user in list(node.users):
            if user.op == "call_function" and user.target is operator.getitem and user.args == (node, 0):
                user.replace_all_uses_with(x)
                graph.erase_node(user)
        if node.users:
            cell = Cell.LSTM if isinstance(layer, nn.LSTM) else Cell.GRU
            node.replace_all_uses_with(graph.call_function(_as_torch_returns, (x, steps, cell)))
    graph.erase_node(node)
