"""What ``bitline prune`` does, as one validated recipe: constraint, rates, solver and training."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from bitline.errors import ConfigError
from bitline.hardware import Hardware
from bitline.pruning.admm import AdmmPlan
from bitline.pruning.constraints import (
    BlockColumnRow,
    ColumnProportional,
    ConstraintSet,
    Filter,
    FilterShape,
    Unstructured,
    combined,
)
from bitline.pruning.layers import PrunableLayer
from bitline.pruning.solvers import Solver, epochs_before
from bitline.pruning.training import TrainingPlan

__all__ = ["KINDS", "METHODS", "PruneRecipe", "Pruning", "Schedule", "eased_constraints", "layer_kind", "layer_rates"]

METHODS = ("cp", "filter", "filter_shape", "combined", "unstructured", "bcr", "value_bit")
"""Constraint sets by name."""

DEFAULT_DATA = "digits"

KINDS = ("conv1d", "conv2d", "linear")
"""Kinds of layers that may have a rate of their own."""

_MODEL = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
_Rate = Annotated[float, Field(ge=1)]


class AdmmSchedule(AdmmPlan):
    """ADMM's penalty, with defaults for a handful of epochs."""

    rho: Annotated[float, Field(gt=0)] = 1e-2
    """Penalty at the start."""

    rho_growth: Annotated[float, Field(ge=1)] = 1.3
    """Factor on the penalty at every update of Z and U."""


class Pruning(BaseModel):
    """The constraint of every layer, and how its weights get there; unknown keys are refused."""

    model_config = _MODEL

    method: Literal["cp", "filter", "filter_shape", "combined", "unstructured", "bcr", "value_bit"] = "cp"
    """Constraint set."""

    rate: _Rate | None = None
    """Pruning rate of every layer: rows over non-zeros (``cp``, ``combined``), columns over columns kept (``filter``),
    rows over rows kept (``filter_shape``), weights over non-zeros (``unstructured``, ``bcr``)."""

    kind_rates: dict[Literal["conv1d", "conv2d", "linear"], _Rate] = {}
    """Rates of kinds of layers, instead of ``rate``."""

    layer_rates: dict[str, _Rate] = {}
    """Rates of layers by name, instead of the others."""

    adc_bits: Annotated[int, Field(ge=1, le=16)] | None = None
    """Proven ADC bits to reach, instead of rates (``cp`` and ``value_bit``, which has no rates)."""

    shape_rate: _Rate = 2.0
    """``combined``: rows over rows kept, before CP."""

    filter_rate: _Rate = 1.0
    """``combined``: columns over columns kept, after CP."""

    block: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (8, 8)
    """``bcr``: rows and columns of a block; of each ``size / sqrt(rate)`` stay, rounded down, at least one."""

    exempt_first: bool = True
    """Leave the first layer dense, as the paper does."""

    exempt: tuple[str, ...] = ()
    """Names of further layers to leave dense."""

    solver: Solver = Solver.ADMM
    """How the weights get into the constraint set."""

    solver_epochs: Annotated[int, Field(ge=1)] | None = None
    """Epochs before the hard projection, of ``training.epochs``; half of them by default, none for ``oneshot``."""

    retrain_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """First learning rate of the masked retraining; ``training.learning_rate`` by default."""

    admm: AdmmSchedule = AdmmSchedule()
    """ADMM's penalty."""

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        rates = self.rate is not None or bool(self.kind_rates) or bool(self.layer_rates)
        if self.adc_bits is not None and rates:
            raise ValueError("adc_bits and rates exclude each other")
        if self.adc_bits is not None and self.method not in ("cp", "value_bit"):
            raise ValueError(f"adc_bits needs method: cp or value_bit, got {self.method}")
        if self.method == "value_bit" and rates:
            raise ValueError("value_bit needs adc_bits, not rates")
        if self.adc_bits is None and not rates:
            raise ValueError("a rate or adc_bits is needed")
        return self


class Schedule(TrainingPlan):
    """Training, with defaults for pruning a trained network."""

    epochs: Annotated[int, Field(ge=0)] = 20
    """The whole budget, over all phases of the solver; 0 projects the weights, trains nothing and needs no data."""

    learning_rate: Annotated[float, Field(gt=0)] = 0.02
    """At the first step of a phase; falls to zero along half a cosine."""


class PruneRecipe(BaseModel):
    """Everything that makes a pruned checkpoint of a dense one; unknown keys are refused."""

    model_config = _MODEL

    start: Annotated[str, Field(min_length=1)]
    """Checkpoint to prune: a file, or the name of one that ships."""

    architecture: str | None = None
    """Of the checkpoint, where it is not recognised."""

    data: str | None = None
    """Data set, as ``bitline.data.open_dataset`` takes it; its training split is trained on. By default
    ``digits``, and none where nothing is trained."""

    training_images: Annotated[int, Field(ge=2)] | None = None
    """Images of the training split to train on, evenly spaced over it; all by default."""

    normalisation: str | None = None
    """Of the images; what fits the checkpoint by default."""

    hardware: Annotated[str, Field(min_length=1)] = "tinyadc"
    """Hardware description: rows of a crossbar, outputs it holds, and what the certificate is for."""

    pruning: Pruning
    """Constraint and solver."""

    training: Schedule = Schedule()
    """Epochs and optimiser."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.training.epochs:
            epochs_before(self.pruning.solver, self.training.epochs, self.pruning.solver_epochs)
        return self

    def canonical(self) -> str:
        """The recipe as one line of JSON, keys sorted, defaults written out but for fields that came later."""
        fields = self.model_dump(mode="json") | {"data": self.data_spec}
        if fields["training_images"] is None:
            del fields["training_images"]
        return json.dumps(fields, sort_keys=True)

    @property
    def data_spec(self) -> str | None:
        """The data set that is opened, if one is."""
        return self.data if self.data is not None or not self.training.epochs else DEFAULT_DATA

    def sha256(self) -> str:
        """Hash of :meth:`canonical`."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()


def layer_kind(layer: PrunableLayer) -> str:
    """One of :data:`KINDS`."""
    if isinstance(layer.module, nn.Linear):
        return "linear"
    return "conv1d" if isinstance(layer.module, nn.Conv1d) else "conv2d"


def layer_rates(plan: Pruning, layers: Sequence[PrunableLayer], hw: Hardware) -> dict[str, float]:
    """Every layer's rate: its own, else its kind's, else the network's; layers without one stay dense and are absent.

    Raises
    ------
    ConfigError
        A name that is no prunable layer, a kind the network has none of, or a CP rate above the crossbar's rows.
    """
    names = {layer.name for layer in layers}
    unknown = sorted(set(plan.layer_rates) - names)
    if unknown:
        raise ConfigError(f"pruning.layer_rates: '{unknown[0]}' is no layer to prune (exempt, or not in the network)")
    absent = sorted(set(plan.kind_rates) - {layer_kind(layer) for layer in layers})
    if absent:
        raise ConfigError(f"pruning.kind_rates: the network has no {absent[0]} layer to prune")
    rates: dict[str, float] = {}
    for layer in layers:
        rate = plan.layer_rates.get(layer.name, plan.kind_rates.get(_kind(layer), plan.rate))
        if rate is None:
            continue
        if plan.method in ("cp", "combined") and rate > hw.read_rows:
            raise ConfigError(f"pruning: layer {layer.name}: rate must be at most {hw.read_rows}, R, found {rate:g}")
        rates[layer.name] = rate
    return rates


def eased_constraints(
    plan: Pruning, layers: Sequence[PrunableLayer], rates: Mapping[str, float], hw: Hardware
) -> Callable[[float], list[ConstraintSet]]:
    """From a share 0..1 of the pruning to one constraint set a layer.

    Parameters
    ----------
    plan : Pruning
    layers : sequence of PrunableLayer
        With the dense weights: ``combined`` chooses its rows from them.
    rates : mapping
        A rate for each layer (:func:`layer_rates`).
    hw : Hardware
        Rows and columns of a crossbar.

    Returns
    -------
    callable
        At share ``s`` a rate ``r`` is ``1 / (1 - s (1 - 1 / r))``: the share of what goes grows evenly.
    """
    multiple = max(1, hw.columns // (hw.slices * hw.signs))
    dense = [layer.module.weight.detach().clone() if plan.method == "combined" else None for layer in layers]

    def eased(share: float) -> list[ConstraintSet]:
        def at(rate: float) -> float:
            return rate if share == 1 else 1 / (1 - share * (1 - 1 / rate))

        found: list[ConstraintSet] = []
        for layer, weight in zip(layers, dense, strict=True):
            rate = at(rates[layer.name])
            if plan.method == "cp":
                found.append(ColumnProportional(rate, hw.read_rows))
            elif plan.method == "filter":
                found.append(Filter(rate, multiple))
            elif plan.method == "filter_shape":
                found.append(FilterShape(rate, hw.rows))
            elif plan.method == "unstructured":
                found.append(Unstructured(rate))
            elif plan.method == "bcr":
                kept = tuple(max(1, math.floor(size / math.sqrt(rate) + 1e-9)) for size in plan.block)
                found.append(BlockColumnRow(plan.block, (kept[0], kept[1])))
            else:
                assert weight is not None
                found.append(
                    combined(
                        weight,
                        layer.groups,
                        shape_rate=at(plan.shape_rate),
                        cp_rate=rate,
                        filter_rate=at(plan.filter_rate),
                        rows=hw.rows,
                        read_rows=hw.read_rows,
                        multiple=multiple,
                    )
                )
        return found

    return eased


def _kind(layer: PrunableLayer) -> Any:
    return layer_kind(layer)
