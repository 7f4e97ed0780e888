"""A pruned checkpoint's file: what it says of itself, and the check of what was saved, from the file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from bitline.adc_target import AdcTarget, target_report
from bitline.crossbar.certificate import Certificate, NetworkCertificate, certify_layers
from bitline.errors import VerificationError
from bitline.hardware import Hardware
from bitline.network.architectures import Network, build_network
from bitline.network.checkpoint import Checkpoint, load_checkpoint
from bitline.network.conversion import matrix_layers
from bitline.network.evaluation import fit
from bitline.preparation import Prepared
from bitline.pruning.constraints import ColumnProportional, ConstraintSet, violations
from bitline.pruning.layers import PrunableLayer, prunable_layers, weight_matrices
from bitline.pruning.plan import PruneRecipe, layer_kind

__all__ = ["bit_counts", "check_file", "file_metadata", "measured_top1", "wanted_bits"]

_BATCH = 256
_Eased = Callable[[float], Sequence[ConstraintSet]]


def measured_top1(module: nn.Module, prepared: Prepared) -> float:
    """Top-1 accuracy of the float network on all test images, 0..1."""
    module.eval()
    measured = fit(module, prepared.dataset.test, prepared.label_offset, _BATCH)
    assert measured is not None  # labels were asked for
    return measured[0]


def file_metadata(
    plan: PruneRecipe,
    found: tuple[Checkpoint, str, Network],
    prepared: Prepared | None,
    identity: Mapping[str, str],
    module: nn.Module,
    layers: Sequence[PrunableLayer],
    rates: Mapping[str, float],
    hw: Hardware,
    top1_before: float | None,
) -> dict[str, str]:
    """What the file says about itself: nothing that differs from run to run, such as times."""
    digest = hashlib.sha256()
    for key, tensor in sorted(module.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    if prepared is None:  # what the dense file said of its inputs still holds
        start = found[0].metadata
        measured: dict[str, str] = {key: start[key] for key in ("input_shape", "normalisation") if key in start}
    else:
        measured = {
            "input_shape": "x".join(map(str, prepared.dataset.image_shape)),
            "normalisation": _normalisation(prepared),
            "dataset": prepared.dataset.spec if plan.data_spec is None else plan.data_spec,
            "test_images": str(len(prepared.dataset.test)),
            "start_top1": repr(top1_before),
            "float_top1": repr(measured_top1(module, prepared)),
        }
    return {
        **{key: value for key, value in identity.items() if prepared is not None or key != "normalisation"},
        "architecture": found[2].architecture,
        **measured,
        "seed": str(plan.training.seed),
        "recipe_sha256": plan.sha256(),
        "weights_sha256": digest.hexdigest(),
        "masks": json.dumps(_mask_statistics(layers, rates, hw), sort_keys=True),
    }


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


def _normalisation(prepared: Prepared) -> str:
    """As a reader of the file can open it again."""
    found = prepared.dataset.normalisation
    if found.name != "custom":
        return found.name
    mean, std = (",".join(map(repr, values)) for values in (found.mean, found.std))
    return f"mean={mean};std={std};scale={found.scale}"


def check_file(
    out: Path,
    plan: PruneRecipe,
    dense: Sequence[PrunableLayer],
    rates: Mapping[str, float],
    eased: _Eased,
    targets: Mapping[str, AdcTarget],
    hw: Hardware,
) -> dict[str, Any]:
    """Load the file as anybody would, and check its constraint, its masks' statistics and its certificate.

    Raises
    ------
    VerificationError
        It does not keep them.
    """
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
        wanted = wanted_bits(plan)
        worse = [layer.name for layer in layers if bits[layer.name] > wanted]
        if worse:
            raise VerificationError(f"{out}: layer {worse[0]} needs {bits[worse[0]]} bits, {wanted} were asked for")
    return {
        "out": str(out),
        "sha256": saved.sha256,
        "accuracy": None
        if "float_top1" not in saved.metadata
        else {
            "test_images": int(saved.metadata["test_images"]),
            "before": float(saved.metadata["start_top1"]),
            "after": float(saved.metadata["float_top1"]),
        },
        "violation": excess,
        "layers": statistics,
        "certificate": {"before": {}, "after": bit_counts(after, rates)},
        "adc_target": target_report(wanted_bits(plan), targets, after) if targets else None,
    }


def bit_counts(certificate: NetworkCertificate, pruned: Mapping[str, float]) -> dict[str, Any]:
    """Largest bit counts of the chip and of the pruned layers, and what each layer left dense needs."""

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


def wanted_bits(plan: PruneRecipe) -> int:
    """The ADC bits that a recipe asks for."""
    assert plan.pruning.adc_bits is not None
    return plan.pruning.adc_bits
