"""Break the crossbar code on purpose, one line at a time, and require the tests to notice.

``python tests/mutation/breakages.py [NAME ...]`` copies ``sim/`` and ``tests/`` to a temporary folder with a Numba
cache of its own, applies one breakage at a time, runs the tests named beside it and expects a failure: without the
compiler, which takes seconds, and where that notices nothing, with it, as the suite runs both ways. The unbroken copy
must pass first. Exit status 0: all breakages were caught.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KERNELS, ENGINES, MATRICES, ENCODING = "kernels.py", "engines.py", "matrices.py", "encoding.py"
ADC, CERTIFICATE, CHECK, EXACT, SAR = "adc.py", "certificate.py", "check.py", "exact.py", "sar.py"
BITSLICED, LISTS = "bitsliced.py", "cell_lists.py"
SEARCH, SLICED = "test_sar.py", "test_bitsliced.py"
BYTE_PRODUCTS, BYTES = "byte_products.py", "test_byte_products.py"
MATMUL, PROOF, CHECKER = "test_matmul.py", "test_certificate.py", "test_check.py"
EXCESS, EXCESS_CELLS, SATURATION = "excess.py", "excess_cells.py", "test_excess.py"


@dataclass(frozen=True)
class Breakage:
    """One wrong line: where, what becomes what, and which tests must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    occurrence: int = 0  # which of several equal places, from 0


BREAKAGES = [
    # kernels, the fused path of the common design and the general one
    Breakage(
        "fused: ADC clips one code too low",
        KERNELS,
        "min(column_sum, limit) << shift",
        "min(column_sum, limit - 1) << shift",
        (MATMUL,),
    ),
    Breakage(
        "fused: top code counts as saturation",
        KERNELS,
        "np.int64(column_sum > limit)",
        "np.int64(column_sum >= limit)",
        (MATMUL,),
    ),
    Breakage(
        "general: top code counts as saturation",
        KERNELS,
        "np.int64(column_sum > limit)",
        "np.int64(column_sum >= limit)",
        (MATMUL,),
        1,
    ),
    Breakage("general: ADC does not clip", KERNELS, "code = min(column_sum, limit)", "code = column_sum", (MATMUL,)),
    Breakage("fused: second word line block ignored", KERNELS, "popcount(x1 & low1[c])", "0", (MATMUL,)),
    Breakage("fused: largest sum not kept", KERNELS, "largest = max(largest, column_sum)", "pass", (MATMUL,)),
    Breakage(
        "fused: sign bit's cycle added",
        KERNELS,
        "        if negative:\n            value = -value\n        accumulator[c] += value\n    return",
        "        accumulator[c] += value\n    return",
        (MATMUL,),
    ),
    Breakage(
        "general: sign bit's cycle added",
        KERNELS,
        "        if negative:\n            value = -value\n        accumulator[c] += value\n    return",
        "        accumulator[c] += value\n    return",
        (MATMUL,),
        1,
    ),
    Breakage(
        "unit column: sign bit's cycle added",
        KERNELS,
        "if last_digit_negative and i == digits - 1:\n                            value = -value",
        "if False:\n                            value = -value",
        (MATMUL,),
    ),
    Breakage("negative columns added", KERNELS, "if p == 1:", "if p == 2:", (MATMUL,)),
    Breakage("weight slices shifted by one bit", KERNELS, "<< (cell_bits * j)", "<< j", (MATMUL,)),
    Breakage("input digits shifted by one bit", KERNELS, "shift = dac_bits * i", "shift = i", (MATMUL,)),
    Breakage("digit and level planes not weighted together", KERNELS, "<< (v + q)", "<< q", (MATMUL,)),
    Breakage("unit column not subtracted", KERNELS, "y[begin + m, n] -= pass_sign * offsets[m]", "pass", (MATMUL,)),
    Breakage("unit column never saturates", KERNELS, "min(unit_sum, unit_limit)", "unit_sum", (MATMUL,)),
    Breakage(
        "unit column's saturations not counted",
        KERNELS,
        "saturations[block] += np.int64(unit_sum > unit_limit)",
        "pass",
        (MATMUL,),
    ),
    Breakage(
        "unit column missing from the largest sum",
        KERNELS,
        "largest[block] = max(largest[block], unit_sum)",
        "pass",
        (MATMUL,),
    ),
    Breakage("flipped columns not recovered", KERNELS, "code = unit_base - code", "code = -code", (MATMUL,)),
    Breakage(
        "analog lower limit one too high",
        KERNELS,
        "max(min(difference, limit), -limit - 1)",
        "max(min(difference, limit), -limit)",
        (MATMUL,),
    ),
    Breakage("analog: undershoot not counted", KERNELS, "+ np.int64(difference < -limit - 1)", "", (MATMUL,)),
    Breakage(
        "analog: largest sum of s, not of |s|",
        KERNELS,
        "largest = max(largest, abs(difference))",
        "largest = max(largest, difference)",
        (MATMUL,),
    ),
    Breakage(
        "row 64 of a word dropped", KERNELS, "high = min(low + 64, last)", "high = min(low + 63, last)", (MATMUL,)
    ),
    Breakage(
        "second pass of signed inputs added",
        KERNELS,
        "y[begin + m, n] += pass_sign * value",
        "y[begin + m, n] += value",
        (MATMUL,),
    ),
    Breakage(
        "histogram drops its last bin's excess",
        KERNELS,
        "counts[min(value, top)] += 1",
        "counts[value % (top + 1)] += 1",
        (MATMUL,),
    ),
    # 512 vectors and two digits at once
    Breakage("bit-sliced: idle lanes keep what they held", BITSLICED, "codes[last - first :] = 0", "pass", (SLICED,)),
    Breakage(
        "bit-sliced: narrow sums compared with a wider largest one",
        BITSLICED,
        "if most > load_word(known, 0) and any_set",
        "if any_set",
        (SLICED,),
    ),
    Breakage(
        "bit-sliced: a digit left out with an idle neighbour",
        BITSLICED,
        "((1 << DIGITS) - 1) == 0",
        "1 == 0",
        (SLICED,),
    ),
    Breakage(
        "bit-sliced: a sign bit alone in its pair added",
        BITSLICED,
        "if negative and digits % DIGITS == 1:",
        "if False:",
        (SLICED,),
    ),
    Breakage(
        "bit-sliced: sign bit's digit added",
        BITSLICED,
        "right_to_left(right_half()) if negative",
        "zeros() if negative",
        (SLICED,),
    ),
    Breakage(
        "bit-sliced: parts keep what they held", BITSLICED, "for b in range(held, end):", "for b in ():", (SLICED,)
    ),
    Breakage(
        "bit-sliced: a carry beyond a column's planes lost",
        BITSLICED,
        "for b in range(len(number), end):",
        "for b in ():",
        (SLICED,),
    ),
    Breakage("bit-sliced: the last eight of a list dropped", BITSLICED, "if k + 8 <= last:", "if False:", (SLICED,)),
    Breakage(
        "bit-sliced: top code counts as saturation",
        LISTS,
        "np.arange(SUM_PLANES) < ",
        "1 + np.arange(SUM_PLANES) < ",
        (SLICED,),
    ),
    Breakage("bit-sliced: steps of two taken for three", BITSLICED, "elif step == 2:", "elif step >= 2:", (SLICED,)),
    # engines
    Breakage(
        "last short tile dropped",
        MATRICES,
        "for first in range(0, codes.shape[0], hw.rows)]",
        "for first in range(0, codes.shape[0] - hw.rows + 1, hw.rows)]",
        (MATMUL,),
    ),
    Breakage("certified: saturations not counted", ENGINES, "saturations += share.saturations", "pass", (MATMUL,)),
    Breakage("unit column not counted as a conversion", MATRICES, "+ (adc.unit is not None)", "", (MATMUL,)),
    Breakage(
        "conversions of the second pass not counted",
        MATRICES,
        "self.hw.input_passes(signed) * vectors",
        "vectors",
        (MATMUL,),
    ),
    Breakage(
        "float32 product past its exact range", EXACT, "if bound <= FLOAT32_INTEGERS", "if bound <= 1 << 40", (MATMUL,)
    ),
    Breakage(
        "float32 runs too long",
        EXACT,
        "total.max(initial=0)) > FLOAT32_INTEGERS",
        "total.max(initial=0)) > 1 << 26",
        (MATMUL,),
    ),
    # products of bytes
    Breakage("sums of bytes may overflow", BYTE_PRODUCTS, ".max()) < 1 << 31", ".max()) < 1 << 32", (BYTES,)),
    Breakage("positions between tiles left out", BYTE_PRODUCTS, "done = k + 8", "done = k + 9", (BYTES,)),
    Breakage(
        "odd register multiplied by a pair's weights", BYTE_PRODUCTS, "registers // 2 * pair_bytes", "0", (BYTES,)
    ),
    Breakage(
        "added zeros not taken off",
        BYTE_PRODUCTS,
        "self.offset = -self.zero * w.sum",
        "self.offset = 0 * w.sum",
        (BYTES,),
    ),
    Breakage(
        "dilated pixels read as neighbours", BYTE_PRODUCTS, "groups == 1 and across == 1", "groups == 1", (BYTES,)
    ),
    Breakage("band begins at the wrong line", BYTE_PRODUCTS, "first * down - top, left", "first - top, left", (BYTES,)),
    Breakage(
        "NaN passes", "rescaling.py", "odd |= not (abs(real) <= _LARGEST)", "odd |= abs(real) > _LARGEST", (BYTES,)
    ),
    Breakage("refuted columns added to the first group", ENGINES, "g * columns + outputs, y", "outputs, y", (SLICED,)),
    Breakage(
        "refuted columns in place of what is proven", KERNELS, "] += columns[k, m]", "] = columns[k, m]", (SLICED,)
    ),
    Breakage("windows that do not fit the rows", ENGINES, "if left_over:", "if False:", (SLICED,)),
    Breakage("refuted digits of the wrong slice", MATRICES, "(over * places * signs)", "(over * signs)", (SATURATION,)),
    # what saturation takes from an exact product
    Breakage("excess: a row too few can saturate", EXCESS_CELLS, "sums <= limits", "sums < limits", (SATURATION,)),
    Breakage(
        "excess: a row more is needed",
        EXCESS_CELLS,
        "1 + np.count_nonzero(sums",
        "2 + np.count_nonzero(sums",
        (SATURATION,),
    ),
    Breakage("excess: no digit drives just enough", EXCESS, "least[tile] - 1", "least[tile]", (SATURATION,)),
    Breakage(
        "excess: sign bit's cycle subtracted",
        EXCESS,
        "last_digit_negative and place == digits - 1",
        "False",
        (SATURATION,),
    ),
    Breakage(
        "excess: negative columns as positive", EXCESS_CELLS, "np.repeat(-places,", "np.repeat(places,", (SATURATION,)
    ),
    Breakage(
        "excess: digits past the eighth count as the first", EXCESS, "octet * 8 + digit\n", "digit\n", (SATURATION,)
    ),
    Breakage(
        "excess: last eight columns alone counted",
        EXCESS,
        "saturated += popcount",
        "saturated = popcount",
        (SATURATION,),
    ),
    Breakage("excess: left over for the next vector", EXCESS, "totals[c] = 0", "pass", (SATURATION,)),
    Breakage("excess: second cell plane worth 1", EXCESS, "add(low, add(high, high))", "add(low, high)", (SATURATION,)),
    Breakage("excess: every cell plane worth 1", EXCESS, "shift_left(ones, q)", "ones", (SATURATION,)),
    Breakage(
        "excess: rows moved to the first bits",
        EXCESS_CELLS,
        "channels % 64, bits % 64,",
        "channels % 64, 0 * bits,",
        (SATURATION,),
    ),
    Breakage(
        "excess: a cut channel counted at every position",
        EXCESS_CELLS,
        "known.setdefault(tuple(channels[taps == tap]), len(known))",
        "known.setdefault(tuple(np.unique(channels)), len(known))",
        (SATURATION,),
    ),
    Breakage(
        "excess: lines from the first",
        EXCESS_CELLS,
        "first = lines.start * window.stride[0]",
        "first = 0",
        (SATURATION,),
    ),
    Breakage(
        "excess: runs of images overlap",
        EXCESS_CELLS,
        "mine = y[first * positions :",
        "mine = y[0 * positions :",
        (SATURATION,),
    ),
    # encoding
    Breakage(
        "flip at exactly half",
        ENCODING,
        "2 * levels[part].sum(axis=0, dtype=np.int64) > half",
        "2 * levels[part].sum(axis=0, dtype=np.int64) >= half",
        (MATMUL, PROOF),
    ),
    Breakage(
        "flip measured against a full tile",
        ENCODING,
        "half = hw.max_level * (part.stop - part.start)",
        "half = hw.max_level * hw.rows",
        (MATMUL,),
    ),
    Breakage("range of weights not checked from below", ENCODING, "int(array.min()) < low or ", "", (MATMUL,)),
    # the certificate
    Breakage(
        "S_max ignores the DAC digit",
        CERTIFICATE,
        "return np.asarray(sums, np.int64) * max_digit(hw, signed_inputs)",
        "return np.asarray(sums, np.int64)",
        (PROOF,),
    ),
    Breakage("S_max of signed inputs too small", ADC, "return 1 << (hw.input_bits - 1)", "return 1", (PROOF,)),
    Breakage(
        "unit column not certified",
        CERTIFICATE,
        "refuted += groups * (analysis.units[tile] > (1 << adc.unit) - 1)",
        "pass",
        (PROOF,),
    ),
    Breakage(
        "unit column needs no bits",
        ADC,
        "return max((*self.weight_aware_per_slice, self.weight_aware_unit or 0))",
        "return max(self.weight_aware_per_slice)",
        (PROOF,),
    ),
    Breakage(
        "certified engine trusts a refuted unit column",
        CERTIFICATE,
        "fine_columns &= units[:, None]",
        "pass",
        (MATMUL,),
    ),
    Breakage("analog limits of the prover swapped", CERTIFICATE, "(limit >> 1) + p", "(limit >> 1) + 1 - p", (PROOF,)),
    Breakage(
        "analog bits lose the sign", ADC, "return 1 + max(largest_positive", "return max(largest_positive", (PROOF,)
    ),
    Breakage(
        "bound one too generous", CERTIFICATE, "limit = (1 << configured) - 1", "limit = 1 << configured", (PROOF,)
    ),
    Breakage(
        "Eq. (1) always minus 1",
        ADC,
        "return bits if hw.dac_bits > 1 and hw.cell_bits > 1 else bits - 1",
        "return bits - 1",
        (PROOF,),
    ),
    Breakage(
        "Eq. (1) of offset counts non-zeros",
        ADC,
        "r = nonzeros if hw.encoding is Encoding.DIFFERENTIAL else tile_rows",
        "r = nonzeros",
        (PROOF,),
    ),
    Breakage(
        "witness drives rows of another tile",
        CERTIFICATE,
        "codes[start + low : start + high][conducting]",
        "codes[start : start + high - low][conducting]",
        (PROOF,),
    ),
    # the independent checker
    Breakage("checker ignores the weights' hash", CHECK, '"weights_sha256": digest.hexdigest(),', "", (CHECKER,)),
    Breakage(
        "checker ignores the hardware's hash",
        CHECK,
        '_compare(complaints, "hardware_sha256", document.get("hardware_sha256"), hw.sha256())',
        "pass",
        (CHECKER,),
    ),
    Breakage(
        "checker believes the records' sums",
        CHECK,
        '_compare(complaints, f"{at}: max_sum", record.get("max_sum"), total)',
        "pass",
        (CHECKER,),
    ),
    Breakage(
        "checker believes the witness", CHECK, "if _bits_for(total, sign, hw) <= configured:", "if False:", (CHECKER,)
    ),
    Breakage("checker ignores the policy", CHECK, "    _check_policy(complaints, claimed, hw)\n", "", (CHECKER,)),
    Breakage(
        "checker believes the verdict",
        CHECK,
        'facts["lossless"] = refuted == 0',
        'facts["lossless"] = entry.get("lossless")',
        (CHECKER,),
    ),
    # SAR searches
    Breakage("search: conversions not counted", KERNELS, "counts[j, entry] += 1", "pass", (SEARCH,)),
    Breakage(
        "search: tables of another slice", KERNELS, "code = values[j, entry]", "code = values[0, entry]", (SEARCH,)
    ),
    Breakage(
        "search: unit column read without its table",
        KERNELS,
        "units[m, i] = values[i, slices, units[m, i]]",
        "pass",
        (SEARCH,),
    ),
    Breakage("search: undriven rows not counted", KERNELS, "if not whole:", "if bins == 0:", (SEARCH,)),
    Breakage(
        "search: inferred bit asked for",
        SAR,
        "far_asked - inferred",
        "far_asked",
        (SEARCH,),
    ),
    Breakage("search: range check not counted", SAR, "1 + np.where(is_near", "np.where(is_near", (SEARCH,)),
    Breakage("search: sums rounded down", SAR, "half = (1 << step) >> 1", "half = 0", (SEARCH,)),
    Breakage("plan: errors of all slices alike", SAR, "4.0 ** (hw.cell_bits * j) * (", "(", (SEARCH,)),
    Breakage("plan: budget ignored", SAR, "np.flatnonzero(error <= most)", "np.arange(error.size)", (SEARCH,)),
]


def _environment(folder: Path, compiled: bool) -> dict[str, str]:
    """Python there imports the copy, and keeps its own compiled kernels."""
    return {
        **os.environ,
        "PYTHONPATH": str(folder / "sim"),
        "NUMBA_CACHE_DIR": str(folder / "cache"),
        "NUMBA_DISABLE_JIT": "0" if compiled else "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_PROFILE": "default",
        "BITLINE_SHRINK": "0",
    }


def _run(folder: Path, tests: tuple[str, ...], log: Path, compiled: bool) -> int:
    """Run the tests against the copy; the exit status of pytest."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header"]
    command += [f"tests/crossbar/{name}" for name in tests]
    with log.open("w") as output:
        return subprocess.run(
            command, cwd=folder, env=_environment(folder, compiled), stdout=output, stderr=output, check=False
        ).returncode


def _copy(folder: Path) -> None:
    """A checkout's sources and tests, complete enough to import ``bitline`` from."""
    ignore = shutil.ignore_patterns("__pycache__", ".hypothesis", "*.safetensors")
    shutil.copytree(ROOT / "sim", folder / "sim", ignore=ignore)
    shutil.copytree(ROOT / "hwconfigs", folder / "sim" / "bitline" / "hwconfigs", ignore=ignore)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=ignore)
    for name in ("pyproject.toml", "setup.cfg"):
        shutil.copy(ROOT / name, folder / name)


def _imports_the_copy(folder: Path) -> bool:
    """Whether Python in the copy really imports the copy: an editable install must not hide it."""
    code = "import bitline.crossbar.kernels as k; import sys; sys.stdout.write(k.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=_environment(folder, False),
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return found.startswith(str(folder))


def _apply(text: str, breakage: Breakage) -> str:
    """The file with the breakage in it."""
    pieces = text.split(breakage.old)
    if len(pieces) < breakage.occurrence + 2:
        raise SystemExit(f"{breakage.file}: breakage {breakage.name!r} no longer fits the code: {breakage.old!r}")
    at = breakage.occurrence + 1
    return breakage.old.join(pieces[:at]) + breakage.new + breakage.old.join(pieces[at:])


def main(names: list[str]) -> int:
    """Run the breakages whose name contains one of ``names`` (all by default); the exit status."""
    chosen = [b for b in BREAKAGES if not names or any(name in b.name for name in names)]
    survivors = []
    with tempfile.TemporaryDirectory(prefix="bitline-mutation-") as scratch:
        folder = Path(scratch).resolve()
        _copy(folder)
        log = folder / "log"
        if not _imports_the_copy(folder):
            sys.stderr.write("the copy is not what Python imports: nothing was tested\n")
            return 2
        for compiled in (False, True):
            if _run(folder, tuple(dict.fromkeys(test for b in chosen for test in b.tests)), log, compiled) != 0:
                sys.stderr.write(f"{log.read_text()[-3000:]}\nthe unbroken copy fails: fix that first\n")
                return 2
        for number, breakage in enumerate(chosen, 1):
            path = folder / "sim" / "bitline" / "crossbar" / breakage.file
            sound = path.read_text()
            path.write_text(_apply(sound, breakage))
            begin = time.perf_counter()
            status = _run(folder, breakage.tests, log, compiled=False)
            if status == 0:
                status = _run(folder, breakage.tests, log, compiled=True)
            path.write_text(sound)
            caught = status == 1  # 1: tests failed; anything else (all passed, no tests, usage) proves nothing
            by = next((line for line in log.read_text().splitlines() if line.startswith("FAILED")), f"exit {status}")
            verdict = "caught" if caught else "MISSED"
            seconds = time.perf_counter() - begin
            sys.stdout.write(
                f"{number:2}/{len(chosen)} {verdict} {seconds:5.1f} s  {breakage.name}  [{by.split(' - ')[0]}]\n"
            )
            sys.stdout.flush()
            if not caught:
                survivors.append(breakage.name)
    sys.stdout.write(f"{len(chosen) - len(survivors)} of {len(chosen)} breakages caught\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
