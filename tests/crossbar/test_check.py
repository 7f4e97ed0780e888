"""Certificates of networks as files, and the independent checker: what it confirms, and what it must catch."""

from __future__ import annotations

import copy
import json
import random
import re
from typing import Any

import numpy as np
import pytest

import reference as twin
from bitline import load_hardware
from bitline.crossbar.adc import AdcBits
from bitline.crossbar.certificate import NetworkCertificate, certify_layers
from bitline.crossbar.check import check_certificate, derive_certificate, parse_certificate
from bitline.crossbar.engines import Crossbars
from bitline.errors import ConfigError, RangeError
from bitline.hardware import Hardware
from bitline.layers import LayerKind, MatrixLayer
from bitline.report.schema import dump_json

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
        if path[0] == "checkpoint_sha256" or isinstance(old, dict | list):  # the command compares it with the file's
            continue
        place[path[-1]] = (not old) if isinstance(old, bool) else old + 1 if isinstance(old, int | float) else "x"
        if not _verdict(tampered, layers):
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
        if path[0] == "checkpoint_sha256" or (type(old) is type(value) and old == value):
            continue
        place[path[-1]] = value
        if not _verdict(tampered, layers):
            missed.append((path, value))
        if isinstance(place, dict):
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
        assert any("witness" in complaint for complaint in check_certificate(tampered, layers))


def test_the_derived_witness_saturates_by_the_twins_sums() -> None:
    """What the checker writes itself as a witness is past the range: column sums by the readable twin."""
    for encoding, readout in ENCODINGS:
        hw = hardware_of(encoding, readout, adc_bits=3)
        for entry, one in zip(derive_certificate(network(), hw, None)["layers"], network(), strict=True):
            witness = entry["witness"]
            sign = -1 if witness["sign"] == "negative" else +1
            table = twin.s_max_table(one.codes[witness["group"]], hw, one.signed_inputs)
            assert table[witness["tile"], witness["slice"], sign, witness["column"]] == witness["column_sum"]
            x = np.zeros((1, one.groups * one.rows), np.int64)
            x[0, witness["rows"]] = witness["code"]
            crossbars = Crossbars(one.codes, hw, signed_inputs=one.signed_inputs, adc=AdcBits.uniform(3, hw))
            assert crossbars.multiply(x).saturations > 0


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


def _complaints(content: bytes, layers: list[MatrixLayer]) -> list[str]:
    """What the command finds wrong in a certificate file, its refusal included."""
    try:
        return check_certificate(parse_certificate(content), layers, checkpoint_sha256="0" * 64, content=content)
    except ConfigError as error:
        return [str(error)]


def _file(adc_bits: Any = 4) -> tuple[bytes, list[MatrixLayer]]:
    layers = network()[1:]
    return dump_json(
        certify_layers(layers, hardware_of("differential", "digital", adc_bits=adc_bits)).to_json("0" * 64)
    ).encode(), layers


def test_the_written_file_is_in_the_checkers_form() -> None:
    for encoding, readout in ENCODINGS:
        for adc_bits in (3, 9, "weight_aware"):
            hw = hardware_of(encoding, readout, adc_bits=adc_bits)
            content = dump_json(certify_layers(network(), hw).to_json("0" * 64)).encode()
            assert _complaints(content, network()) == []


def _edit(old: str, new: str) -> Any:
    def change(content: bytes) -> bytes:
        assert old.encode() in content
        return content.replace(old.encode(), new.encode(), 1)

    return change


def _reordered(content: bytes) -> bytes:
    document = json.loads(content)
    return dump_json(dict(sorted(document.items()))).encode()


SEEN = {
    "claim rewritten": _edit("saturates for no code vector", "saturates for some code vector"),
    "claim deleted": lambda content: dump_json({k: v for k, v in json.loads(content).items() if k != "claim"}).encode(),
    "a version added": _edit('"claim"', '"bitline_version": "9.9",\n  "claim"'),
    "a key added": _edit('"claim"', '"proven_bits": 1,\n  "claim"'),
    "a key added in a layer": _edit('"kind"', '"proven": true,\n      "kind"'),
    "a key twice": _edit('"lossless"', '"lossless": true,\n  "lossless"'),
    "a key twice in a record": _edit('"max_sum"', '"max_sum": 1,\n          "max_sum"'),
    "a key twice, the same": _edit('"claim"', '"checkpoint_sha256": "' + "0" * 64 + '",\n  "claim"'),
    "NaN": _edit('"nonzeros_max": ', '"note": NaN,\n      "nonzeros_max": '),
    "Infinity for a rate": lambda content: re.sub(rb'"cp_rate": [0-9.]+', b'"cp_rate": Infinity', content, count=1),
    "-Infinity": _edit('"paper": null', '"paper": -Infinity'),
    "1.0 for 1": _edit('"groups": 3', '"groups": 3.0'),
    "1e0 for 1": lambda content: re.sub(rb'("cp_rate": [0-9.]+)', rb"\1e0", content, count=1),
    "true for 1": _edit('"tile": 0', '"tile": false'),
    "minus zero": _edit('"tile": 0', '"tile": -0'),
    "escaped text": _edit('"format"', '"f\\u006frmat"'),
    "blanks": _edit('"format": ', '"format":  '),
    "one line": lambda content: json.dumps(json.loads(content)).encode(),
    "no final newline": lambda content: content[:-1],
    "text after it": lambda content: content + b"lossless\n",
    "blank lines after it": lambda content: content + b"\n",
    "byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "UTF-16": lambda content: content.decode().encode("utf-16"),
    "a comment": _edit('"format"', '/* proven */ "format"'),
    "keys in another order": _reordered,
    "layers in another order": lambda content: dump_json(
        {k: v[::-1] if k == "layers" else v for k, v in json.loads(content).items()}
    ).encode(),
    "an older format": _edit("bitline-certificate-2", "bitline-certificate-1"),
    "the hardware's name": _edit('"name": "tinyadc"', '"name": "isaac"'),
    "a hardware field left out": lambda content: re.sub(rb'    "dac_bits": 1,\n', b"", content, count=1),
    "a hardware key added": _edit('"dac_bits": 1', '"dac_bits": 1,\n    "proof": true'),
    "the hardware's key twice": _edit('"rows": 16', '"rows": 8,\n    "rows": 16'),
    "nothing": lambda content: b"",
    "deep": lambda content: b"[" * 200_000,
    "a number of many digits": _edit('"groups": 3', '"groups": ' + "3" * 5000),
}


@pytest.mark.parametrize("name", SEEN)
@pytest.mark.parametrize("adc_bits", [4, "weight_aware"])
def test_what_a_reader_sees_is_what_was_checked(name: str, adc_bits: Any) -> None:
    content, layers = _file(adc_bits)
    assert _complaints(content, layers) == []
    tampered = SEEN[name](content)
    assert tampered != content
    found = _complaints(tampered, layers)
    assert found
    assert all("\n" not in complaint and len(complaint) < 400 for complaint in found)


def test_a_long_text_is_shown_where_it_was_changed() -> None:
    content, layers = _file()
    (complaint,) = _complaints(_edit("does for its witness", "does for no witness")(content), layers)
    assert "does for no witness" in complaint
    assert "does for its witness" in complaint


def test_300_random_tamperings_are_refused() -> None:
    """Bytes changed, cut, doubled and moved anywhere in the file: no other file than the one that is derived passes."""
    content, layers = _file()
    rng = random.Random(6)
    lines = content.splitlines(keepends=True)
    for number in range(300):
        at, end = sorted(rng.sample(range(len(content)), 2))
        one, two = sorted(rng.sample(range(len(lines)), 2))
        tampered = (
            content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :],
            content[:at] + content[at + rng.choice((1, 2, 9)) :],
            content[:at] + content[at : at + 40] + content[at:],
            content[:end] + content[at : at + 5] + content[end:],
            b"".join([*lines[:one], lines[two], *lines[one + 1 : two], lines[one], *lines[two + 1 :]]),
            b"".join([*lines[:one], *lines[one + 1 :]]),
            b"".join([*lines[:one], lines[two], *lines[one:]]),
            content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :],
        )[number % 8]
        if tampered != content:
            assert _complaints(tampered, layers), number
