"""Certificates of networks as files, and the independent checker: what it confirms, and what it must catch."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

import reference as twin
from bitline import load_hardware
from bitline.crossbar.certificate import NetworkCertificate, certify_layers
from bitline.crossbar.check import check_certificate
from bitline.crossbar.engines import Crossbars
from bitline.errors import ConfigError, RangeError
from bitline.hardware import Hardware
from bitline.layers import LayerKind, MatrixLayer

ENCODINGS = [("differential", "digital"), ("differential", "analog"), ("offset", "digital"), ("offset_flip", "digital")]


def layer(name: str, codes: Any, *, signed_inputs: bool = False) -> MatrixLayer:
    """A layer with these codes (groups, rows, columns)."""
    codes = np.asarray(codes, dtype=np.int32)
    scale = np.ones((codes.shape[0], codes.shape[2]))
    kind = LayerKind.CONV2D if codes.shape[0] > 1 else LayerKind.LINEAR
    return MatrixLayer(name=name, kind=kind, codes=codes, weight_scale=scale, bias=None, signed_inputs=signed_inputs)


def network(seed: int = 0) -> list[MatrixLayer]:
    """A signed first layer, a grouped one, a sparse one."""
    rng = np.random.default_rng(seed)
    sparse = rng.integers(-127, 128, size=(1, 41, 5))
    sparse[rng.random(sparse.shape) < 0.8] = 0
    return [
        layer("first", rng.integers(-127, 128, size=(1, 27, 4)), signed_inputs=True),
        layer("grouped", rng.integers(-60, 61, size=(3, 9, 2))),
        layer("sparse", sparse),
    ]


def hardware_of(encoding: str, readout: str, **fields: Any) -> Hardware:
    return load_hardware("tinyadc", **{"rows": 16, "encoding": encoding, "readout": readout, **fields})


def parsed(certificate: NetworkCertificate) -> dict[str, Any]:
    """The certificate as a reader of its file gets it."""
    document = json.loads(json.dumps(certificate.to_json("0" * 64), allow_nan=False))
    assert document == certificate.to_json("0" * 64)
    return document


@pytest.mark.parametrize("adc_bits", [3, 5, 9, "weight_aware", "equation"])
@pytest.mark.parametrize("adc_scope", ["chip", "layer", "slice"])
@pytest.mark.parametrize(("encoding", "readout"), ENCODINGS)
def test_network_certificate_checks(encoding: str, readout: str, adc_scope: str, adc_bits: Any) -> None:
    """What the prover writes the independent checker confirms, and each layer is its own matrices' certificate."""
    hw = hardware_of(encoding, readout, adc_bits=adc_bits, adc_scope=adc_scope)
    layers = network()
    certificate = certify_layers(layers, hw)
    document = parsed(certificate)
    assert check_certificate(document, layers) == []
    assert document["lossless"] == certificate.lossless == all(part.lossless for part in certificate.layers)
    for part, one in zip(certificate.layers, layers, strict=True):
        bits = [twin.weight_aware_bits(group, hw, one.signed_inputs)[0] for group in one.codes]
        assert part.bits == max(bits)
        witness = part.witness()
        assert (witness is None) == part.lossless
        if witness is not None:
            crossbars = Crossbars(one.codes, hw, signed_inputs=one.signed_inputs, adc=part.adc)
            assert crossbars.multiply(witness[None]).saturations > 0
    resolved = [part.adc.bits for part in certificate.layers]
    if adc_scope == "chip":
        assert len(set(resolved)) == 1
    if adc_bits == "weight_aware":
        assert certificate.lossless
        if adc_scope != "chip":
            assert resolved == [part.bits for part in certificate.layers]


def test_paper_policy_shows_where_it_is_not_lossless() -> None:
    """Two weights of level 3 in one column sum to 6: the tables' 2 bits do not hold it; of opposite signs they do."""
    hw = load_hardware("tinyadc", adc_bits="paper")
    layers = [layer("split", [[[3], [-3]]]), layer("same", [[[3], [3]]])]
    certificate = certify_layers(layers, hw)
    assert [part.lossless for part in certificate.layers] == [True, False]
    assert [part.adc.bits for part in certificate.layers] == [2, 2]
    assert check_certificate(parsed(certificate), layers) == []


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values of a document."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += _leaves(inner, (*path, key))
    return found


def _verdict(document: Any, layers: list[MatrixLayer]) -> bool:
    """Whether the checker objects; anything but a complaint or a ConfigError is a crash and fails the test."""
    try:
        return bool(check_certificate(document, layers))
    except ConfigError:
        return True


def _holds(record: dict[str, Any], layer: MatrixLayer, hw: Hardware) -> bool:
    """Whether another column than the certificate's has the same worst sum: a tie is no false claim."""
    if record["slice"] is None or record["group"] >= layer.groups:
        return False
    sign = -1 if record["sign"] == "negative" else +1
    table = twin.s_max_table(layer.codes[record["group"]], hw, layer.signed_inputs)
    return table.get((record["tile"], record["slice"], sign, record["column"])) == record["max_sum"]


UNCHECKED = {"bitline_version", "checkpoint_sha256", "claim"}
"""Facts about where the file came from, not about these weights (the command compares the checkpoint's hash)."""


@pytest.mark.parametrize(("encoding", "readout"), ENCODINGS)
def test_every_tampered_value_is_caught(encoding: str, readout: str) -> None:
    """Every number, truth value and text of a certificate changed a little, one at a time."""
    hw = hardware_of(encoding, readout, adc_bits=4)
    layers = network()[:2]
    document = parsed(certify_layers(layers, hw))
    missed = []
    for path in _leaves(document):
        tampered = copy.deepcopy(document)
        place = tampered
        for key in path[:-1]:
            place = place[key]
        old = place[path[-1]]
        if path[0] in UNCHECKED or isinstance(old, dict | list):
            continue
        place[path[-1]] = (not old) if isinstance(old, bool) else old + 1 if isinstance(old, int | float) else "x"
        if not _verdict(tampered, layers) and not (path[2] == "columns_worst" and _holds(place, layers[path[1]], hw)):
            missed.append((*path, old))
    assert missed == []


@pytest.mark.parametrize(
    "value", [None, [], {}, "x", -1, 10**9, 1.5, True, [[]], {"a": []}, float("nan"), float("inf")]
)
@pytest.mark.parametrize("encoding", ["differential", "offset_flip"])
def test_a_damaged_certificate_never_crashes_the_checker(encoding: str, value: Any) -> None:
    """Any part replaced by anything: a complaint or one clear error, never a traceback."""
    hw = hardware_of(encoding, "digital", adc_bits=3)
    layers = network()[1:2]
    document = parsed(certify_layers(layers, hw))
    missed = []
    for path in _leaves(document):
        tampered = copy.deepcopy(document)
        place = tampered
        for key in path[:-1]:
            place = place[key]
        old = place[path[-1]]
        if path[0] in UNCHECKED or old == value:  # true is 1 here, as in Python
            continue
        place[path[-1]] = value
        if not _verdict(tampered, layers):
            missed.append((path, value))
        if isinstance(place, dict) and old is not None and path[0] != "hardware":
            # (absent is null; a hardware field left out stands for its default)
            del place[path[-1]]
            if not _verdict(tampered, layers):
                missed.append((path, "deleted"))
    assert missed == []


def test_other_weights_are_caught_even_with_equal_sums() -> None:
    """Two rows of a tile swapped leave every sum as it was; the hash tells."""
    hw = hardware_of("differential", "digital")
    layers = network()
    document = parsed(certify_layers(layers, hw))
    layers[2].codes[0, [3, 4]] = layers[2].codes[0, [4, 3]]
    complaints = check_certificate(document, layers)
    assert len(complaints) == 1
    assert "sparse" in complaints[0]
    assert "weights_sha256" in complaints[0]


def test_a_false_proof_is_caught_in_all_its_places() -> None:
    """A refuted layer called lossless, consistently: the sums say otherwise."""
    hw = hardware_of("differential", "digital", adc_bits=3)
    layers = network()[2:]
    document = parsed(certify_layers(layers, hw))
    assert not document["lossless"]
    document["lossless"] = document["layers"][0]["lossless"] = True
    document["layers"][0]["witness"] = None
    document["layers"][0]["refuted_columns"] = 0
    for record in document["layers"][0]["columns_worst"]:
        record["lossless"] = True
    assert any("lossless" in complaint for complaint in check_certificate(document, layers))


def test_a_witness_that_does_not_saturate_is_caught() -> None:
    hw = hardware_of("differential", "digital", adc_bits=3)
    layers = network()[2:]
    document = parsed(certify_layers(layers, hw))
    witness = document["layers"][0]["witness"]
    for change in ({"rows": witness["rows"][:1]}, {"rows": []}, {"code": 1}, {"rows": [*witness["rows"], 40]}):
        tampered = copy.deepcopy(document)
        tampered["layers"][0]["witness"].update(change)
        if change == {"code": 1}:  # 1-bit digits: the code 1 applies the same digit once, and still saturates
            assert check_certificate(tampered, layers) == []
        else:
            assert any("witness" in complaint for complaint in check_certificate(tampered, layers))


def test_a_consistent_witness_that_stays_in_range_is_caught() -> None:
    """One driven row, its own column sum stated correctly, and no saturation."""
    hw = hardware_of("differential", "digital", adc_bits=3)
    layers = network()[2:]
    document = parsed(certify_layers(layers, hw))
    witness = document["layers"][0]["witness"]
    part = certify_layers(layers, hw).layers[0].worst()
    column = next(
        column
        for column in twin.column_levels(layers[0].codes[0], hw)[part.tile].columns
        if (column.slice, column.output) == (part.slice, part.column)
        and {+1: "positive", -1: "negative"}[column.sign] == part.sign
    )
    row = witness["rows"][0]
    witness.update(rows=[row], column_sum=int(column.levels[row - part.tile * hw.rows]))
    (complaint,) = check_certificate(document, layers)
    assert "does not exceed" in complaint


@pytest.mark.parametrize("adc_bits", [3, "weight_aware", "equation"])
@pytest.mark.parametrize(("encoding", "readout"), ENCODINGS)
def test_a_proof_at_other_bits_than_the_hardwares_is_caught(encoding: str, readout: str, adc_bits: Any) -> None:
    """A proof for 12-bit ADCs under the name of another description: every sum is right, the resolution is not."""
    layers = network()
    document = parsed(certify_layers(layers, hardware_of(encoding, readout, adc_bits=12)))
    hw = hardware_of(encoding, readout, adc_bits=adc_bits)
    document.update(hardware=hw.model_dump(mode="json"), hardware_sha256=hw.sha256())
    complaints = check_certificate(document, layers)
    assert any("configured_per_slice" in complaint for complaint in complaints)
    assert encoding == "differential" or any("configured_unit" in complaint for complaint in complaints)


@pytest.mark.parametrize("document", [None, [], "x", {}, {"format": "other"}])
def test_not_a_certificate(document: Any) -> None:
    with pytest.raises(ConfigError):
        check_certificate(document, network())


def test_a_layer_too_many_or_of_another_name_is_caught() -> None:
    hw = hardware_of("differential", "digital")
    layers = network()
    document = parsed(certify_layers(layers, hw))
    assert check_certificate(document, layers[:2])
    assert check_certificate(document, [layers[1], layers[0], layers[2]])


def test_layer_out_of_range_is_named() -> None:
    with pytest.raises(RangeError, match="wide"):
        certify_layers([layer("wide", np.full((1, 3, 3), 200))], load_hardware("tinyadc"))
