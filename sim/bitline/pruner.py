"""From a trained checkpoint to a pruned, proven one, top to bottom: load -> plan -> train -> save -> check.

With 0 epochs the weights are projected onto their constraint, and nothing is trained.

After every epoch, and when it is interrupted, the run's state is beside the output as ``OUT.state``; with ``resume``
it goes on from there and makes the same file, byte for byte, as without the interruption.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bitline._version import __version__
from bitline.adc_target import AdcTarget, fit_adc, plan_adc_target
from bitline.crossbar.certificate import certify_layers
from bitline.data import Dataset
from bitline.errors import (
    ArchitectureError,
    BitlineError,
    CheckpointError,
    ConfigError,
    DataError,
    OutputError,
    RangeError,
)
from bitline.hardware import Hardware, load_hardware
from bitline.network.architectures import Network
from bitline.network.checkpoint import load_checkpoint
from bitline.network.conversion import matrix_layers
from bitline.network.guard import RandomInputs, check_network
from bitline.paths import expanded
from bitline.preparation import Prepared, load_network, prepare_data
from bitline.pruned_file import bit_counts, check_file, file_metadata, measured_top1, wanted_bits
from bitline.pruning.constraints import (
    ConstraintSet,
    project_layers,
    relative_distance,
    violations,
)
from bitline.pruning.layers import PrunableLayer, prunable_layers
from bitline.pruning.plan import PruneRecipe, eased_constraints, layer_rates
from bitline.pruning.projections import nonzeros_per_column
from bitline.pruning.quantised import QuantisedRetraining
from bitline.pruning.recipe import read_fields, validated
from bitline.pruning.saving import checkpoint_bytes
from bitline.pruning.solvers import plan_phases
from bitline.pruning.state import read_state, state_bytes
from bitline.pruning.training import EpochRecord, Trainer
from bitline.report.progress import NullProgress, Progress
from bitline.report.writer import remove_leftovers, write_atomic
from bitline.signals import asked_to_stop

__all__ = ["PruneProgress", "make_recipe", "prune", "state_path"]

_TOP: dict[str, tuple[str, ...]] = {
    "checkpoint": ("start",),
    "arch": ("architecture",),
    "data": ("data",),
    "training_images": ("training_images",),
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

_FELL_APART = 0.2
"""A fall of the accuracy that is worth a warning."""


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
    stages: Progress | None = None,
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
    stages : Progress, optional
        Told of every step of the work; after an error its caller finishes it.
    **options
        Fields of the recipe: see :func:`make_recipe`.

    Returns
    -------
    dict
        ``out``, ``sha256``, ``recipe``, ``accuracy`` before and after (None where no data was opened), ``layers``,
        ``certificate`` before and after, ``adc_target``, ``epochs``, ``notes``.

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

    stages = stages or NullProgress()

    # load, and plan what every layer must keep: what is wrong with either is said before any image is read
    stages.start(0, "loading the network")
    found = load_network(plan.start, plan.architecture)
    checkpoint_read, _, network = found
    if network.alternatives and plan.data_spec is not None:
        raise ArchitectureError(
            f"checkpoint {plan.start}: its weights fit {network.architecture} and {', '.join(network.alternatives)}, "
            "which run images differently; name one with --arch"
        )
    stages.start(0, "planning what every layer keeps")
    module = network.module
    layers, rates, targets, eased = _constraints(plan, module, hw)
    before = certify_layers(matrix_layers(module, hw).layers, hw)
    prepared = None
    if plan.data_spec is not None:
        stages.start(0, "loading the data")
        check = partial(_check_data, plan=plan, network=network)
        prepared = prepare_data(found, plan.data_spec, normalisation=plan.normalisation, check=check)
    elif plan.normalisation is not None:
        raise ConfigError("prune: normalisation has no effect without data; leave it out, or name the data")
    stages.start(0, "comparing the network with its graph")
    shape = network.input_shape if prepared is None else prepared.dataset.image_shape
    check_network(module, RandomInputs(shape, str(plan.start)))
    module = module.to(memory_format=torch.channels_last).requires_grad_(True)  # type: ignore[call-overload]
    stages.start(0, "measuring the accuracy before")
    top1_before = None if prepared is None else measured_top1(module, prepared)
    identity = {
        "recipe": plan.canonical(),
        "start_sha256": checkpoint_read.sha256,
        "hardware_sha256": hw.sha256(),
        "normalisation": "none" if prepared is None else prepared.dataset.normalisation.describe(),
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
        if prepared is None or not plan.training.epochs:
            stages.start(0, "projecting")
            project_layers(layers, eased(1.0))
        else:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            module.to(device)
            training = _training_images(plan, prepared)
            history = _train(plan, module, layers, eased, training, state, identity, out, progress, stages)
        module.to("cpu").eval()
        stages.start(0, "saving and checking")
        if targets:
            gone = fit_adc(module, layers, targets, hw, wanted_bits(plan))
            if gone:
                say(f"{gone} weights that had outgrown the ADC were removed at the end")
        # save
        metadata = file_metadata(plan, found, prepared, identity, module, layers, rates, hw, top1_before)
        write_atomic(out, checkpoint_bytes(module.state_dict(), metadata))

    # check what was saved, from the file
    report = check_file(out, plan, layers, rates, eased, targets, hw)
    report["certificate"]["before"] = bit_counts(before, rates)
    report["notes"] = _notes(plan, report["accuracy"])
    state_path(out).unlink(missing_ok=True)
    stages.finish()
    return {**report, "recipe": json.loads(plan.canonical()), "epochs": history}


def _notes(plan: PruneRecipe, accuracy: Mapping[str, Any] | None) -> list[str]:
    """What a user should know of the result, one line each."""
    notes = []
    if not plan.training.epochs:
        notes.append(
            "projected only: the weights were put into their constraint once; nothing was trained, and batch norm "
            "keeps the statistics of the dense network"
        )
    elif accuracy is not None and accuracy["before"] - accuracy["after"] > _FELL_APART:
        notes.append(
            f"WARNING: the accuracy fell from {100 * accuracy['before']:.2f} % to {100 * accuracy['after']:.2f} %. A "
            "lower --learning-rate, more --epochs or a lower rate may keep it"
        )
    return notes


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


def _check_data(dataset: Dataset, *, plan: PruneRecipe, network: Network) -> None:
    """Refuse data that this run cannot use before any of it runs."""
    train, trains = dataset.train, plan.training.epochs > 0
    lacking = [
        name
        for name, split, needed in (("training", train, trains), ("test", dataset.test, True))
        if needed and (split is None or split.labels is None)
    ]
    if lacking:
        raise DataError(
            f"data {dataset.spec}: pruning needs labelled training and test images; it has no labelled "
            f"{' and no '.join(lacking)} images"
            + (f"; a training split here is {dataset.training_wanted}" if dataset.training_wanted else "")
        )
    wanted = plan.training_images
    if wanted is not None and trains and train is not None and wanted > len(train):
        raise RangeError(f"training_images: {wanted} asked for, {dataset.name} has {len(train)} training images")
    if network.classes is not None and network.classes != dataset.classes + network.label_offset:
        raise DataError(
            f"data {dataset.spec}: has {dataset.classes} classes, the network {network.architecture} "
            f"has {network.classes} outputs; expected a data set of the checkpoint's classes"
        )


def _training_images(plan: PruneRecipe, prepared: Prepared) -> _Images:
    train = prepared.dataset.train
    assert train is not None  # _check_data saw them
    if plan.training_images is not None:
        train = train.evenly(plan.training_images)
    assert train.labels is not None
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
    stages: Progress,
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
            stages.start(phase.plan.epochs * trainer.steps, f"{phase.name}, steps")
            stages.advance(trainer.epoch * trainer.steps)

            def stepped() -> bool:
                stages.advance()
                return stop()

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
                trainer.run(record, save=save, stop=stepped)
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


def _is_result(out: Path, identity: Mapping[str, str]) -> bool:
    if not out.exists():
        return False
    metadata = load_checkpoint(out).metadata
    return all(metadata.get(key) == identity[key] for key in ("recipe", "start_sha256", "hardware_sha256"))
