"""From a trained checkpoint to a pruned, proven one, top to bottom: load -> plan -> train -> save -> check.

After every epoch, and when it is interrupted, the run's state is beside the output as ``OUT.state``; with ``resume``
it goes on from there and makes the same file, byte for byte, as without the interruption.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bitline._version import __version__
from bitline.adc_target import AdcTarget, fit_adc, plan_adc_target, target_report
from bitline.crossbar.certificate import Certificate, NetworkCertificate, certify_layers
from bitline.errors import BitlineError, CheckpointError, ConfigError, DataError, OutputError, VerificationError
from bitline.hardware import Hardware, load_hardware
from bitline.network.architectures import build_network
from bitline.network.checkpoint import load_checkpoint
from bitline.network.conversion import matrix_layers
from bitline.network.evaluation import fit
from bitline.paths import expanded
from bitline.preparation import Prepared, prepare
from bitline.pruning.constraints import ColumnProportional, ConstraintSet, relative_distance, violations
from bitline.pruning.layers import PrunableLayer, prunable_layers, weight_matrices
from bitline.pruning.plan import PruneRecipe, eased_constraints, layer_kind, layer_rates
from bitline.pruning.projections import nonzeros_per_column
from bitline.pruning.quantised import QuantisedRetraining
from bitline.pruning.recipe import read_fields, validated
from bitline.pruning.saving import checkpoint_bytes
from bitline.pruning.solvers import plan_phases
from bitline.pruning.state import read_state, state_bytes
from bitline.pruning.training import EpochRecord, Trainer
from bitline.report.writer import remove_leftovers, write_atomic
from bitline.signals import asked_to_stop

__all__ = ["PruneProgress", "make_recipe", "prune", "state_path"]

_TOP: dict[str, tuple[str, ...]] = {
    "checkpoint": ("start",),
    "arch": ("architecture",),
    "data": ("data",),
    "normalisation": ("normalisation",),
    "hw": ("hardware",),
    "rho": ("pruning", "admm", "rho"),
    **{
        name: ("pruning", name)
        for name in (
            *("method", "rate", "kind_rates", "layer_rates", "adc_bits", "shape_rate", "filter_rate", "block"),
            *("exempt_first", "exempt", "solver", "solver_epochs", "retrain_learning_rate"),
        )
    },
    **{
        name: ("training", name)
        for name in (
            *("epochs", "batch_size", "learning_rate", "weight_decay", "label_smoothing", "shift", "flip"),
            *("precision", "seed"),
        )
    },
}
"""Where an option stands in a recipe."""

_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class PruneProgress:
    """One epoch of a pruning run."""

    phase: str
    epoch: int
    """Of all phases together, counted from 1."""
    epochs: int
    loss: float
    accuracy: float
    """On the training images as they were shown, 0..1."""
    violation: int
    """Non-zeros beyond the constraint."""
    distance: float
    """``||W - Z|| / ||W||``: from the weights to their constraint set, or to ADMM's copy in it."""
    seconds: float
    seconds_left: float


def make_recipe(recipe: str | Path | Mapping[str, Any] | PruneRecipe | None = None, **options: Any) -> PruneRecipe:
    """A recipe from a YAML file (or a mapping, or nothing) and options that replace its fields.

    Parameters
    ----------
    recipe : str, Path, mapping or PruneRecipe, optional
    **options
        ``checkpoint``, ``method``, ``rate``, ``solver``, ``data``, ``epochs`` ...; None leaves the recipe's.

    Raises
    ------
    ConfigError
        A file that cannot be read; an unknown key or option, a wrong type or an impossible value, with its path.
    """
    if isinstance(recipe, PruneRecipe):
        fields, where = recipe.model_dump(mode="json", exclude_unset=True), "recipe"
    elif isinstance(recipe, Mapping):
        fields, where = json.loads(json.dumps(recipe)), "recipe"
    elif recipe is not None:
        fields, where = read_fields(recipe), f"recipe {recipe}"
    else:
        fields, where = {}, "prune"
    for name, value in options.items():
        if name not in _TOP:
            raise ConfigError(f"prune: unknown option '{name}' (known: {', '.join(sorted(_TOP))})")
        if value is None:
            continue
        *outer, last = _TOP[name]
        place = fields
        for key in outer:
            inner = place.setdefault(key, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{where}: {key}: expected a mapping, got {type(inner).__name__}")
            place = inner
        place[last] = str(value) if isinstance(value, Path) else value
    if "start" not in fields:
        raise ConfigError(f"{where}: start: a checkpoint to prune is needed")
    fields.setdefault("pruning", {})  # so that what it lacks is said
    return validated(PruneRecipe, fields, where)


def state_path(out: str | Path) -> Path:
    """Where the state of a run is kept."""
    return Path(f"{expanded(out)}.state")


def prune(
    checkpoint: str | Path | None = None,
    *,
    out: str | Path,
    recipe: str | Path | Mapping[str, Any] | PruneRecipe | None = None,
    resume: bool = False,
    progress: Callable[[PruneProgress], None] | None = None,
    note: Callable[[str], None] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Prune a trained checkpoint to a constraint, retrain it, save it, and check the saved file.

    Parameters
    ----------
    checkpoint : str or Path, optional
        A checkpoint file or the name of a shipped one; the recipe's ``start`` by default.
    out : str or Path
        The pruned checkpoint, a ``.safetensors`` file; written at the end, complete or not at all.
    recipe : str, Path, mapping or PruneRecipe, optional
        A YAML file or its contents.
    resume : bool
        Go on from ``OUT.state``; from the start where there is none yet.
    progress : callable, optional
        Called after every epoch.
    note : callable, optional
        Called with a line for the user now and then.
    **options
        Fields of the recipe: see :func:`make_recipe`.

    Returns
    -------
    dict
        ``out``, ``sha256``, ``recipe``, ``accuracy`` before and after, ``layers``, ``certificate`` before and after,
        ``adc_target``, ``epochs``.

    Raises
    ------
    BitlineError
        Any bad input; a loss that is no longer finite. The message is one line.
    VerificationError
        The saved file does not keep its constraint or its proven bits.
    KeyboardInterrupt
        Interrupted; the state is saved.
    """
    say = note or (lambda line: None)
    plan = make_recipe(recipe, checkpoint=checkpoint, **options)
    out = expanded(out)
    _check_output(out, plan.start)
    hw = load_hardware(plan.hardware)

    # load
    prepared = prepare(plan.start, plan.data, arch=plan.architecture, normalisation=plan.normalisation)
    training = _training_images(prepared)
    module = prepared.network.module.to(memory_format=torch.channels_last).requires_grad_(True)  # type: ignore[call-overload]
    before = certify_layers(matrix_layers(module, hw).layers, hw)
    top1_before = _top1(module, prepared)

    # plan: what every layer must keep
    layers, rates, targets, eased = _constraints(plan, module, hw)
    identity = {
        "recipe": plan.canonical(),
        "start_sha256": prepared.checkpoint.sha256,
        "hardware_sha256": hw.sha256(),
        "normalisation": prepared.dataset.normalisation.describe(),
        "bitline": __version__,
        "torch": str(torch.__version__),
    }
    state = _resumed(out, identity, resume, say)
    remove_leftovers(out)
    remove_leftovers(state_path(out))

    # train, unless that is done
    history: list[dict[str, Any]] = []
    if state is None and resume and _is_result(out, identity):
        say(f"{out} is already the result of this recipe; checking it again")
    else:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        module.to(device)
        history = _train(plan, module, layers, eased, training, state, identity, out, progress)
        module.to("cpu").eval()
        if targets:
            gone = fit_adc(module, layers, targets, hw, _wanted_bits(plan))
            if gone:
                say(f"{gone} weights that had outgrown the ADC were removed at the end")
        # save
        metadata = _metadata(plan, prepared, identity, module, layers, rates, hw, top1_before)
        write_atomic(out, checkpoint_bytes(module.state_dict(), metadata))

    # check what was saved, from the file
    report = _checked(out, plan, prepared, layers, rates, eased, targets, hw)
    report["certificate"]["before"] = _bits(before, rates)
    state_path(out).unlink(missing_ok=True)
    return {**report, "recipe": json.loads(plan.canonical()), "epochs": history}


# --- planning ------------------------------------------------------------------------------------------------------

_Eased = Callable[[float], Sequence[ConstraintSet]]


def _constraints(
    plan: PruneRecipe, module: nn.Module, hw: Hardware
) -> tuple[list[PrunableLayer], dict[str, float], dict[str, AdcTarget], _Eased]:
    layers = prunable_layers(module, exempt_first=plan.pruning.exempt_first, exempt=set(plan.pruning.exempt))
    targets: dict[str, AdcTarget] = {}
    if plan.pruning.adc_bits is not None:
        bit_level = plan.pruning.method == "value_bit"
        targets = plan_adc_target(module, layers, hw, plan.pruning.adc_bits, bit_level=bit_level)
        # Of the value-level zeros, where it is not the number of non-zeros that is bounded.
        rates = {
            name: 1 / max(target.kept, 1e-9) if bit_level else _rate_of(target.nonzeros, hw.read_rows)
            for name, target in targets.items()
        }

        def eased(share: float) -> list[ConstraintSet]:
            return [targets[layer.name].constraint(hw, share) for layer in layers]

        found: _Eased = eased
    else:
        rates = layer_rates(plan.pruning, layers, hw)
        layers = [layer for layer in layers if layer.name in rates]
        found = eased_constraints(plan.pruning, layers, rates, hw)
        found(1.0)  # refuses impossible ones now
    if not layers:
        raise ConfigError("pruning: no layer is left to prune; all are exempt or without a rate")
    return layers, rates, targets, found


def _rate_of(nonzeros: int, rows: int) -> float:
    """The rate whose ``floor(rows / rate)`` is this number of non-zeros, in floating point too."""
    rate = rows / nonzeros
    while nonzeros_per_column(rate, rows) < nonzeros:
        rate = float(np.nextafter(rate, 0))
    return rate


def _wanted_bits(plan: PruneRecipe) -> int:
    assert plan.pruning.adc_bits is not None
    return plan.pruning.adc_bits


def _check_output(out: Path, start: str) -> None:
    if out.suffix != ".safetensors":
        raise ConfigError(f"output file {out}: expected a name that ends in .safetensors")
    if not out.parent.is_dir():
        raise OutputError(f"output file {out}: the folder {out.parent} does not exist")
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise OutputError(f"output file {out}: cannot be written")
    if expanded(start).exists() and out.exists() and expanded(start).samefile(out):
        raise OutputError(f"output file {out}: is the checkpoint to prune; name another")


_Images = tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]
"""Training images as they are stored, their labels, and what normalises the images."""


def _training_images(prepared: Prepared) -> _Images:
    dataset, classes = prepared.dataset, prepared.network.classes
    train = dataset.train
    if train is None or train.labels is None or dataset.test.labels is None:
        raise DataError(f"data {dataset.spec}: pruning needs labelled training and test images")
    if classes is not None and classes != dataset.classes + prepared.label_offset:
        raise DataError(
            f"data {dataset.spec}: has {dataset.classes} classes, the network {prepared.network.architecture} "
            f"has {classes} outputs; expected a data set of the checkpoint's classes"
        )
    stored = torch.from_numpy(train.pixels(0, len(train)))
    return stored, torch.from_numpy(train.labels + prepared.label_offset), train.normalised


# --- training ------------------------------------------------------------------------------------------------------


def _train(
    plan: PruneRecipe,
    module: nn.Module,
    layers: Sequence[PrunableLayer],
    eased: _Eased,
    training: _Images,
    state: dict[str, Any] | None,
    identity: Mapping[str, str],
    out: Path,
    progress: Callable[[PruneProgress], None] | None,
) -> list[dict[str, Any]]:
    pruning = plan.pruning
    images, labels, normalise = training
    phases = plan_phases(
        pruning.solver,
        layers,
        eased,
        plan.training,
        solver_epochs=pruning.solver_epochs,
        retrain_rate=pruning.retrain_learning_rate,
        admm=pruning.admm,
        last=QuantisedRetraining if pruning.method == "value_bit" else None,
    )
    constraints = tuple(eased(1.0))
    history: list[dict[str, Any]] = [] if state is None else state["history"]
    spent: list[float] = []
    with asked_to_stop() as stop:
        for number, phase in enumerate(phases):
            if state is not None and number < state["phase"]:
                continue
            solver = phase.begin()
            trainer = Trainer(module, images, labels, phase.plan, solver, normalise=normalise)
            if state is not None and number == state["phase"]:
                trainer.load_state_dict(state["trainer"])

            def record(epoch: EpochRecord, solver: Any = solver, name: str = phase.name) -> None:
                held = solver.distance()
                seen = PruneProgress(
                    phase=name,
                    epoch=len(history) + 1,
                    epochs=plan.training.epochs,
                    loss=epoch.loss,
                    accuracy=epoch.accuracy,
                    violation=violations(layers, constraints),
                    distance=relative_distance(layers, constraints) if held is None else held,
                    seconds=epoch.seconds,
                    seconds_left=0.0,
                )
                spent.append(epoch.seconds)
                left = sum(spent) / len(spent) * (plan.training.epochs - seen.epoch)
                history.append(
                    {key: value for key, value in vars(seen).items() if key not in ("epochs", "seconds_left")}
                )
                if progress is not None:
                    progress(PruneProgress(**{**vars(seen), "seconds_left": left}))

            def save(trainer: Trainer = trainer, number: int = number) -> None:
                content = {
                    "identity": dict(identity),
                    "threads": torch.get_num_threads(),
                    "phase": number,
                    "trainer": trainer.state_dict(),
                    "history": history,
                }
                write_atomic(state_path(out), state_bytes(content))

            try:
                trainer.run(record, save=save, stop=stop)
            except BitlineError as error:
                kept = f"; {state_path(out)} holds them" if state_path(out).exists() else ""
                raise type(error)(f"{phase.name} {error}{kept}") from None
    return history


def _resumed(out: Path, identity: Mapping[str, str], resume: bool, say: Callable[[str], None]) -> dict[str, Any] | None:
    path = state_path(out)
    if not path.exists():
        return None
    if not resume:
        raise ConfigError(f"resume file {path}: holds an unfinished run; go on with --resume, or remove it")
    state = read_state(path)
    found = state.get("identity")
    if not isinstance(found, dict):
        raise CheckpointError(f"resume file {path}: expected the state of a pruning run, found something else")
    for key, value in identity.items():
        if found.get(key) != value:
            what = _difference(found.get(key), value) if key == "recipe" else f"found {found.get(key)}, this is {value}"
            raise ConfigError(f"resume file {path}: of another {key.replace('_sha256', '')}: {what}")
    if state["threads"] != torch.get_num_threads():
        say(f"going on with {state['threads']} threads, as the run began")
        torch.set_num_threads(state["threads"])
    return state


def _difference(found: Any, wanted: str) -> str:
    """The first field in which two recipes differ."""

    def flat(fields: Any, path: str = "") -> dict[str, Any]:
        if not isinstance(fields, dict):
            return {path: fields}
        return {k: v for key, value in fields.items() for k, v in flat(value, f"{path}.{key}".lstrip(".")).items()}

    try:
        old, new = flat(json.loads(found)), flat(json.loads(wanted))
    except (TypeError, ValueError):
        return "not readable"
    key = next(key for key in sorted({*old, *new}) if old.get(key) != new.get(key))
    return f"{key} is {old.get(key)} there, {new.get(key)} here"


# --- saving and checking ---------------------------------------------------------------------------------------------


def _top1(module: nn.Module, prepared: Prepared) -> float:
    module.eval()
    measured = fit(module, prepared.dataset.test, prepared.label_offset, _BATCH)
    assert measured is not None  # labels were asked for
    return measured[0]


def _is_result(out: Path, identity: Mapping[str, str]) -> bool:
    if not out.exists():
        return False
    metadata = load_checkpoint(out).metadata
    return all(metadata.get(key) == identity[key] for key in ("recipe", "start_sha256", "hardware_sha256"))


def _mask_statistics(layers: Sequence[PrunableLayer], rates: Mapping[str, float], hw: Hardware) -> list[dict[str, Any]]:
    statistics = []
    for layer in layers:
        matrices = weight_matrices(layer.module.weight, layer.groups)
        tiles = np.arange(0, matrices.shape[1], hw.read_rows)
        counts = np.add.reduceat(matrices != 0, tiles, axis=1)
        statistics.append(
            {
                "name": layer.name,
                "kind": layer_kind(layer),
                "rate": rates[layer.name],
                "weights": int(matrices.size),
                "nonzeros": int(np.count_nonzero(matrices)),
                "nonzeros_max": int(counts.max()),
                "mask_sha256": hashlib.sha256(np.packbits(np.ascontiguousarray(matrices != 0)).tobytes()).hexdigest(),
            }
        )
    return statistics


def _metadata(
    plan: PruneRecipe,
    prepared: Prepared,
    identity: Mapping[str, str],
    module: nn.Module,
    layers: Sequence[PrunableLayer],
    rates: Mapping[str, float],
    hw: Hardware,
    top1_before: float,
) -> dict[str, str]:
    """What the file says about itself: nothing that differs from run to run, such as times."""
    digest = hashlib.sha256()
    for key, tensor in sorted(module.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return {
        **identity,
        "architecture": prepared.network.architecture,
        "input_shape": "x".join(map(str, prepared.dataset.image_shape)),
        "normalisation": _normalisation(prepared),
        "dataset": plan.data,
        "test_images": str(len(prepared.dataset.test)),
        "start_top1": repr(top1_before),
        "float_top1": repr(_top1(module, prepared)),
        "seed": str(plan.training.seed),
        "recipe_sha256": plan.sha256(),
        "weights_sha256": digest.hexdigest(),
        "masks": json.dumps(_mask_statistics(layers, rates, hw), sort_keys=True),
    }


def _normalisation(prepared: Prepared) -> str:
    """As a reader of the file can open it again."""
    found = prepared.dataset.normalisation
    if found.name != "custom":
        return found.name
    mean, std = (",".join(map(repr, values)) for values in (found.mean, found.std))
    return f"mean={mean};std={std};scale={found.scale}"


def _checked(
    out: Path,
    plan: PruneRecipe,
    prepared: Prepared,
    dense: Sequence[PrunableLayer],
    rates: Mapping[str, float],
    eased: _Eased,
    targets: Mapping[str, AdcTarget],
    hw: Hardware,
) -> dict[str, Any]:
    """Load the file as anybody would, and check its constraint, its masks' statistics and its certificate."""
    saved = load_checkpoint(out)
    network = build_network(saved, plan.architecture)
    saved_layers = {layer.name: layer for layer in prunable_layers(network.module, exempt_first=False)}
    layers = [saved_layers[layer.name] for layer in dense]
    # The ADC's constraint is checked by the certificate, which folds batch norm; here the rates that came of it.
    constraints: Sequence[ConstraintSet] = (
        [ColumnProportional(rates[layer.name], hw.read_rows) for layer in layers]
        if targets and plan.pruning.method == "cp"
        else eased(1.0)
    )
    excess = violations(layers, constraints)
    if excess:
        raise VerificationError(f"{out}: {excess} non-zeros beyond the constraint")
    statistics = _mask_statistics(layers, rates, hw)
    if json.loads(saved.metadata["masks"]) != statistics:
        raise VerificationError(f"{out}: the masks' statistics in its metadata are not those of its weights")
    after = certify_layers(matrix_layers(network.module, hw).layers, hw)
    bits = {layer.name: layer.bits for layer in after.layers}
    if targets:
        wanted = _wanted_bits(plan)
        worse = [layer.name for layer in layers if bits[layer.name] > wanted]
        if worse:
            raise VerificationError(f"{out}: layer {worse[0]} needs {bits[worse[0]]} bits, {wanted} were asked for")
    return {
        "out": str(out),
        "sha256": saved.sha256,
        "accuracy": {
            "test_images": len(prepared.dataset.test),
            "before": float(saved.metadata["start_top1"]),
            "after": float(saved.metadata["float_top1"]),
        },
        "violation": excess,
        "layers": statistics,
        "certificate": {"before": {}, "after": _bits(after, rates)},
        "adc_target": target_report(_wanted_bits(plan), targets, after) if targets else None,
    }


def _bits(certificate: NetworkCertificate, pruned: Mapping[str, float]) -> dict[str, Any]:
    def largest(layers: Sequence[Certificate]) -> dict[str, Any]:
        papers = [layer.counts.paper for layer in layers if layer.counts.paper is not None]
        return {
            "equation": max((layer.counts.equation for layer in layers), default=0),
            "paper": max(papers, default=None),
            "weight_aware": max((layer.bits for layer in layers), default=0),
        }

    chosen = [layer for layer in certificate.layers if layer.name in pruned]
    return {
        "chip": largest(certificate.layers),
        "pruned": largest(chosen),
        "paper_lossless": all(layer.counts.paper is None or layer.counts.paper >= layer.bits for layer in chosen),
        "exempt": {layer.name: layer.bits for layer in certificate.layers if layer.name not in pruned},
    }
