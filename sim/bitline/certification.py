"""The proof alone: certify a checkpoint, re-check a certificate file, and what CP pruning would need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bitline.crossbar.certificate import NetworkCertificate, certify_layers
from bitline.crossbar.check import certified_hardware, certified_shape, check_certificate, parse_certificate
from bitline.errors import DataError
from bitline.hardware import Hardware
from bitline.input_files import read_bytes
from bitline.network.conversion import matrix_layers
from bitline.network.guard import RandomInputs
from bitline.network.rederive import disagreements
from bitline.preparation import chosen_hardware, load_network
from bitline.pruning.constraints import ColumnProportional, project_layers
from bitline.pruning.layers import prunable_layers

_MAX_BYTES = 1 << 28

__all__ = ["certify_checkpoint", "check_certificate_file", "cp_table"]


def certify_checkpoint(
    checkpoint: str | Path,
    hw: str | Path | Hardware = "tinyadc",
    *,
    adc_bits: int | str | None = None,
    arch: str | None = None,
    cp_rate: int | None = None,
    input_shape: tuple[int, ...] | None = None,
) -> tuple[NetworkCertificate, str]:
    """Certify a checkpoint's ADC bits from its weights alone: no data, no simulation.

    The network that is certified is compared with the checkpoint's module on two random inputs first.

    Parameters
    ----------
    input_shape : tuple of int, optional
        Of one input, without the batch, where neither the checkpoint nor its architecture says it.
    cp_rate : int, optional
        First project every layer but the first onto this column-proportional rate (one shot, no retraining): what the
        checkpoint's bits would be.
    input_shape : tuple of int, optional
        Shape of one input; by default what the checkpoint or its architecture says. It decides where a batch norm acts
        and gives the multiply-accumulates; no values are run.

    Returns
    -------
    NetworkCertificate, str
        The certificate and the checkpoint's sha256.
    """
    hardware = chosen_hardware(hw, adc_bits)
    loaded, name, network = load_network(checkpoint, arch)
    if cp_rate is not None:
        constraint = ColumnProportional(rate=cp_rate, rows=hardware.read_rows)
        project_layers(prunable_layers(network.module), constraint)
    shape = input_shape or network.input_shape
    found = matrix_layers(network.module, hardware, input_shape=shape, compare_on=RandomInputs(shape, name))
    certificate = certify_layers(found.layers, hardware)
    certificate = replace(
        certificate,
        network=network.architecture,
        coverage=found.coverage,
        compared=found.compared,
        notes=network.assumptions,
    )
    return certificate, loaded.sha256


def check_certificate_file(
    certificate: str | Path,
    checkpoint: str | Path,
    *,
    arch: str | None = None,
    input_shape: tuple[int, ...] | None = None,
) -> tuple[int, bool, list[str]]:
    """Re-check a certificate file against a checkpoint with code of its own (:mod:`bitline.crossbar.check`).

    Every byte of the file must be what the checkpoint gives with the hardware description and for the shape of inputs
    in the file, and the weights those that :mod:`bitline.network.rederive` sees the network itself use. ``-`` is
    standard input. The network is compared with the checkpoint's module first, as :func:`certify_checkpoint` does.

    Returns
    -------
    int, bool, list of str
        Layers checked, whether the certificate says that all of them are lossless, and one line for each claim that
        does not hold.

    Raises
    ------
    DataError, ConfigError, CheckpointError
        The file is missing or no certificate; or the checkpoint cannot be loaded.
    """
    content = read_bytes(certificate, "certificate", _MAX_BYTES, DataError)
    document = parse_certificate(content)
    hardware = certified_hardware(document)
    loaded, name, network = load_network(checkpoint, arch)
    shape = certified_shape(document)
    random = RandomInputs(shape or input_shape or network.input_shape, name)
    found = matrix_layers(network.module, hardware, input_shape=shape, compare_on=random)
    complaints = check_certificate(
        document,
        found.layers,
        checkpoint_sha256=loaded.sha256,
        coverage=found.coverage.to_json(),
        content=content,
    )
    if shape is not None:
        complaints += disagreements(network.module, found.layers, hardware.weight_bits, shape)
    return len(found.layers), document.get("lossless") is True, complaints


def cp_table(
    checkpoint: str | Path,
    hw: str | Path | Hardware = "tinyadc",
    *,
    rates: Sequence[int],
    arch: str | None = None,
    input_shape: tuple[int, ...] | None = None,
) -> list[dict[str, Any]]:
    """Certify a checkpoint after one-shot CP projection at several rates.

    Returns
    -------
    list of dict
        One row a rate: largest ``equation``, ``paper``, ``weight_aware`` and ``weight_aware_per_slice`` of the pruned
        layers, the names of those where the paper's count is not lossless, and the exempt first layer's proven bits.
    """
    rows = []
    for rate in rates:
        certificate, _ = certify_checkpoint(checkpoint, hw, arch=arch, cp_rate=rate, input_shape=input_shape)
        first, pruned = certificate.layers[0], certificate.layers[1:] or certificate.layers
        papers = [layer.counts.paper for layer in pruned if layer.counts.paper is not None]
        per_slice = [layer.counts.weight_aware_per_slice for layer in pruned]
        rows.append(
            {
                "cp_rate": rate,
                "nonzeros_max": max(layer.nonzeros_max for layer in pruned),
                "equation": max(layer.counts.equation for layer in pruned),
                "paper": max(papers, default=None),
                "weight_aware": max(layer.bits for layer in pruned),
                "weight_aware_per_slice": [max(bits) for bits in zip(*per_slice, strict=True)],
                "layers": len(pruned),
                "paper_not_lossless": [
                    layer.name
                    for layer in pruned
                    if layer.counts.paper is not None and layer.counts.paper < layer.counts.weight_aware
                ],
                "first_layer": {"name": first.name, "weight_aware": first.bits},
            }
        )
    return rows
