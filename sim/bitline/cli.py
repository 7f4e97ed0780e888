"""Arguments in, exit status out; the only place that prints (through ``terminal.py``).

Heavy imports (torch, numba, matplotlib) happen inside the commands, so that ``bitline --help`` is immediate.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, NoReturn

from bitline._version import __version__
from bitline.errors import BitlineError, ConfigError, VerificationError
from bitline.terminal import complain, emit

if TYPE_CHECKING:
    from bitline.report.progress import Progress

__all__ = ["main"]

_STATUSES = (
    "Exit status: 0 done (a reader of the output that left, as head does, is no error); 2 bad input, or output that "
    "cannot be written; 3 a verification failed; 130 interrupted (Ctrl-C), 143 terminated (SIGTERM), 129 terminal "
    "closed. Whatever the status, no output is left half-written."
)
_SHIPPED_HINT = "a checkpoint file (.pt .pth .th .safetensors) or the name of a shipped one"


class _Parser(argparse.ArgumentParser):
    """One line on standard error for a bad command line, as for every other bad input."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        if message and file is sys.stderr:
            complain(message)
        elif message:
            emit(message)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None


def _adc_bits(text: str) -> int | str:
    """A number of bits, or a policy's name: the hardware description judges both."""
    try:
        return int(text)
    except ValueError:
        return text


def _rates(text: str) -> list[int]:
    return [_whole(part) for part in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="bitline",
        description="Simulate pruned networks on ReRAM crossbars, bit for bit, and prove the ADC resolution they need.",
        epilog=_STATUSES,
    )
    parser.add_argument("--version", action="version", version=f"bitline {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)

    simulate = commands.add_parser(
        "simulate",
        help="the main job: load, convert, certify, run, price, report",
        description="Run a checkpoint on simulated crossbars and report. Without arguments: the shipped CP-pruned "
        "digits network beside its unpruned 8-bit baseline.",
    )
    simulate.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help=_SHIPPED_HINT)
    _hardware_options(simulate)
    simulate.add_argument("--data", metavar="KIND:PATH", help="data set (digits, cifar10:PATH, imagefolder:PATH, ...)")
    simulate.add_argument("--images", type=_whole, metavar="N", help="test images to run (all)")
    simulate.add_argument(
        "--engine", choices=("bitserial", "certified"), default="bitserial", help="how the integers are computed"
    )
    simulate.add_argument("--out", metavar="DIR", help="folder for report, tables, certificate, timeline and figures")
    simulate.add_argument(
        "--normalisation",
        metavar="PRESET_OR_NUMBERS",
        help="imagenet, cifar10, half, ... or 'mean=...;std=...' (default: what fits the checkpoint)",
    )
    simulate.add_argument("--resize", type=_whole, metavar="PIXELS", help="resize the short side of images first")
    simulate.add_argument("--crop", type=_whole, metavar="PIXELS", help="then cut a centred square")
    simulate.add_argument(
        "--label-offset", type=_whole, metavar="N", help="label n is output n + N (what the architecture says, else 0)"
    )
    simulate.add_argument("--calibrator", default="auto", metavar="NAME", help="auto, max, percentile_99.9, mse, ...")
    simulate.add_argument(
        "--calibration-images", type=_whole, default=128, metavar="N", help="images that set activation scales (128)"
    )
    simulate.add_argument("--record-trace", metavar="DIR", help="write every layer's first integer inputs as traces")
    simulate.add_argument("--trace-vectors", type=_whole, default=256, metavar="N", help="input vectors a layer (256)")
    simulate.add_argument("--threads", type=_whole, metavar="N", help="threads to use (all cores)")
    simulate.set_defaults(run=_simulate)

    certify = commands.add_parser(
        "certify",
        help="proof only: the ADC bits a checkpoint needs; or re-check a certificate",
        description="Prove the ADC resolution a checkpoint needs, from its weights alone; no data, no simulation.",
    )
    certify.add_argument("checkpoint", metavar="CHECKPOINT", help=_SHIPPED_HINT)
    _hardware_options(certify)
    certify.add_argument("--check", metavar="CERTIFICATE", help="re-check this certificate file against CHECKPOINT")
    certify.add_argument("--require-lossless", action="store_true", help="exit 3 unless every layer is proven lossless")
    certify.add_argument(
        "--cp-rates", type=_rates, metavar="R,R,...", help="what-if table after one-shot CP projection at these rates"
    )
    certify.add_argument(
        "--input",
        metavar="CxHxW",
        help="shape of one input, where the checkpoint does not say it: the network is run once",
    )
    certify.add_argument("--out", metavar="DIR", help="folder for certificate.json")
    certify.set_defaults(run=_certify)

    prune = commands.add_parser(
        "prune",
        help="prune a trained checkpoint to a constraint or to ADC bits, retrain it, and prove the result",
        description="Prune CHECKPOINT and retrain it. All of it can also stand in a recipe (--recipe); options replace "
        "its fields. The run's state is kept in FILE.state after every epoch, and goes on with --resume.",
    )
    _prune_options(prune)
    prune.set_defaults(run=_prune)

    compare = commands.add_parser(
        "compare",
        help="checkpoints and ADC methods side by side: accuracy, proven bits, ADC energy, area",
        description="Run every CHECKPOINT with every method on the same images. Without checkpoints: the shipped "
        "digits networks.",
    )
    compare.add_argument(
        "checkpoints",
        nargs="*",
        metavar="CHECKPOINT[=METHOD,...]",
        help=f"{_SHIPPED_HINT}; with methods of its own after =",
    )
    compare.add_argument("--hw", metavar="NAME_OR_YAML", default="tinyadc", help="hardware description (tinyadc)")
    compare.add_argument(
        "--methods",
        type=lambda text: text.split(","),
        metavar="NAME,NAME,...",
        help="isaac, plain, canonical, balanced, analog, polarised, early, adaptive, twin_range, "
        "twin_range_lossy (all)",
    )
    compare.add_argument("--data", metavar="KIND:PATH", help="data set (digits, cifar10:PATH, imagefolder:PATH, ...)")
    compare.add_argument("--images", type=_whole, metavar="N", help="test images to run (all)")
    compare.add_argument("--arch", metavar="NAME_OR_MODULE:FACTORY", help="architecture, where it is not recognised")
    compare.add_argument("--normalisation", metavar="PRESET_OR_NUMBERS", help="what fits the checkpoint by default")
    compare.add_argument("--label-offset", type=_whole, metavar="N", help="label n is output n + N")
    compare.add_argument(
        "--calibration-images", type=_whole, default=128, metavar="N", help="images that set scales and searches (128)"
    )
    compare.add_argument("--fragment", type=_whole, default=8, metavar="ROWS", help="polarised: rows at once (8)")
    compare.add_argument(
        "--budget", type=float, metavar="X", help="twin_range_lossy: squared error, of the sums' squares (0.0001)"
    )
    compare.add_argument("--out", metavar="DIR", help="folder for report, CSV and figure")
    compare.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    compare.add_argument("--threads", type=_whole, metavar="N", help="threads to use (all cores)")
    compare.set_defaults(run=_compare)

    throughput = commands.add_parser(
        "throughput",
        help="peak figures of designs, and timing, area, power and energy of a network on them",
        description="Without a network: component table, totals and peak of each design. With CHECKPOINT or --arch: "
        "map, schedule and price it; no inference is run.",
    )
    throughput.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help=_SHIPPED_HINT)
    throughput.add_argument(
        "--hw",
        nargs="+",
        action="extend",
        metavar="NAME_OR_YAML",
        help="one or more hardware descriptions; the first is reported, the others stand beside it",
    )
    throughput.add_argument("--arch", metavar="NAME_OR_MODULE:FACTORY", help="architecture; alone, without weights")
    throughput.add_argument("--input", metavar="CxHxW", help="shape of one input, such as 3x224x224")
    throughput.add_argument(
        "--adc-bits",
        type=_adc_bits,
        metavar="N_OR_POLICY",
        help="ADC resolution instead of the hardware's: 1..16; with CHECKPOINT also equation, paper or weight_aware",
    )
    throughput.add_argument("--law", metavar="LAW", help="how the ADC scales: kull, kull_latches_constant, survey, ...")
    throughput.add_argument(
        "--replication", default="balanced", metavar="RULE", help="smallest, balanced (default) or fastest"
    )
    throughput.add_argument(
        "--squeeze-blocks", action="store_true", help="squeeze zero rows or columns out of crossbar-sized blocks (BCR)"
    )
    throughput.add_argument("--tiles", type=_whole, metavar="BUDGET", help="most tiles (as many whole chips as needed)")
    throughput.add_argument("--images", type=_whole, default=1, metavar="N", help="images the cycles are for (1)")
    throughput.add_argument("--detail", action="store_true", help="timeline of every replica and input vector")
    throughput.add_argument("--baseline", metavar="NAME_OR_YAML", help="design to normalise to (each design, unpruned)")
    throughput.add_argument("--table3", action="store_true", help="TinyADC's Table III under every assumption known")
    throughput.add_argument("--savings", action="store_true", help="TinyADC's published savings, bracketed")
    throughput.add_argument("--out", metavar="DIR", help="folder for report, tables, timeline and figures")
    throughput.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    throughput.set_defaults(run=_throughput)

    hw = commands.add_parser("hw", help="the shipped hardware descriptions: list, show, check, schema")
    actions = hw.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=_Parser)
    listing = actions.add_parser("list", help="[--json]: names and one line each")
    show = actions.add_parser("show", help="NAME_OR_YAML [--json]: print a description")
    check = actions.add_parser("check", help="NAME_OR_YAML [--json]: validate a description and say what it is")
    for action in (show, check):
        action.add_argument("hw", metavar="NAME_OR_YAML")
    actions.add_parser("schema", help="print the JSON schema of a description, for editors")
    for action in (listing, show, check):
        action.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    hw.set_defaults(run=_hw)
    return parser


def _hardware_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hw", default="tinyadc", metavar="NAME_OR_YAML", help="hardware description (tinyadc)")
    parser.add_argument(
        "--adc-bits",
        type=_adc_bits,
        metavar="N_OR_POLICY",
        help="ADC resolution instead of the hardware's: 1..16, equation, paper or weight_aware",
    )
    parser.add_argument("--arch", metavar="NAME_OR_MODULE:FACTORY", help="architecture, where it is not recognised")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")


def _prune_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help=_SHIPPED_HINT)
    parser.add_argument("--out", required=True, metavar="FILE", help="the pruned checkpoint, a .safetensors file")
    parser.add_argument("--recipe", metavar="YAML", help="recipe; other options replace its fields")
    parser.add_argument("--resume", action="store_true", help="go on from FILE.state exactly where the run stopped")
    parser.add_argument(
        "--method", metavar="SET", help="cp (default), filter, filter_shape, combined, unstructured, bcr or value_bit"
    )
    parser.add_argument("--rate", type=float, metavar="R", help="pruning rate of every layer")
    parser.add_argument(
        "--kind-rate", type=_named_rate, action="append", metavar="KIND=R", help="of conv1d, conv2d or linear layers"
    )
    parser.add_argument("--layer-rate", type=_named_rate, action="append", metavar="NAME=R", help="of one layer")
    parser.add_argument(
        "--adc-bits", type=_whole, metavar="N", help="proven ADC bits to reach, instead of a rate (cp, value_bit)"
    )
    parser.add_argument("--shape-rate", type=float, metavar="R", help="combined: rows over rows kept (2)")
    parser.add_argument("--filter-rate", type=float, metavar="R", help="combined: filters over filters kept (1)")
    parser.add_argument("--exempt", action="append", metavar="NAME", help="leave this layer dense, beside the first")
    parser.add_argument("--prune-first", action="store_true", help="prune the first layer too")
    parser.add_argument("--solver", metavar="NAME", help="admm (default), oneshot, gradual or straight_through")
    parser.add_argument("--solver-epochs", type=_whole, metavar="N", help="epochs before the hard projection (half)")
    parser.add_argument("--rho", type=float, help="ADMM's first penalty (0.01)")
    parser.add_argument("--data", metavar="KIND:PATH", help="data set (digits, cifar10:PATH, imagefolder:PATH, ...)")
    parser.add_argument("--training-images", type=_whole, metavar="N", help="train on so many, evenly spaced (all)")
    parser.add_argument("--normalisation", metavar="PRESET_OR_NUMBERS", help="what fits the checkpoint by default")
    parser.add_argument(
        "--epochs", type=_whole, metavar="N", help="all epochs, over all phases (20); 0: project only, no data needed"
    )
    parser.add_argument("--batch-size", type=_whole, metavar="N", help="images a step (64)")
    parser.add_argument("--learning-rate", type=float, metavar="X", help="at the first step of a phase (0.02)")
    parser.add_argument("--shift", type=_whole, metavar="PIXELS", help="move training images by up to so much (0)")
    parser.add_argument("--flip", action="store_true", default=None, help="mirror half of the training images")
    parser.add_argument("--precision", metavar="NAME", help="float32, bfloat16, or auto: bfloat16 on a GPU only")
    parser.add_argument("--seed", type=int, metavar="N", help="of the order of images and all else (0)")
    parser.add_argument("--hw", metavar="NAME_OR_YAML", help="hardware description (tinyadc)")
    parser.add_argument("--arch", metavar="NAME_OR_MODULE:FACTORY", help="architecture, where it is not recognised")
    parser.add_argument("--threads", type=_whole, metavar="N", help="threads to use (all cores)")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")


def _named_rate(text: str) -> tuple[str, float]:
    name, _, rate = text.rpartition("=")
    try:
        if name:
            return name, float(rate)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected NAME=RATE, got {text!r}")


# --- commands ----------------------------------------------------------------------------------------------------


def _simulate(args: argparse.Namespace) -> None:
    from bitline.report.schema import dump_json
    from bitline.report.text import text_report
    from bitline.simulation import simulate, verify

    if args.threads is not None:
        _set_threads(args.threads)
    with _progress() as progress:
        report = simulate(
            args.checkpoint,
            args.hw,
            args.data,
            adc_bits=args.adc_bits,
            arch=args.arch,
            images=args.images,
            engine=args.engine,
            normalisation=args.normalisation,
            resize=args.resize,
            crop=args.crop,
            label_offset=args.label_offset,
            calibrator=args.calibrator,
            calibration_images=args.calibration_images,
            trace_folder=args.record_trace,
            trace_vectors=args.trace_vectors,
            out=args.out,
            command=shlex.join(["bitline", *args.argv]),
            progress=progress,
        )
    emit(dump_json(report) if args.json else text_report(report) + _written(args.out, report))
    verify(report)


def _certify(args: argparse.Namespace) -> None:
    from bitline.certification import certify_checkpoint, check_certificate_file, cp_table
    from bitline.report.proof import certificate_text, cp_table_text
    from bitline.report.schema import dump_json
    from bitline.report.writer import OutputFolder
    from bitline.throughput import parse_input

    _refuse_unused(args)
    shape = None if args.input is None else parse_input(args.input)
    if args.check is not None:
        with _progress("checking the certificate"):
            layers, lossless, complaints = check_certificate_file(
                args.check, args.checkpoint, arch=args.arch, input_shape=shape
            )
        if args.json:
            found = {"holds": not complaints, "lossless": lossless, "layers": layers, "complaints": complaints}
            emit(dump_json(found))
        elif not complaints:
            verdict = "proven lossless" if lossless else "NOT lossless, with a witness for every refuted layer"
            emit(
                f"certificate {args.check} holds for {args.checkpoint}: {layers} layers recomputed, every claim agrees "
                f"({verdict})\n"
            )
        if complaints:
            raise VerificationError(f"certificate {args.check}: {complaints[0]} ({len(complaints)} claims do not hold)")
        if args.require_lossless and not lossless:
            raise VerificationError(f"certificate {args.check}: holds, and says that not every layer is lossless")
        return
    if args.cp_rates is not None:
        with _progress("projecting and certifying at every rate"):
            rows = cp_table(args.checkpoint, args.hw, rates=args.cp_rates, arch=args.arch, input_shape=shape)
        emit(dump_json(rows) if args.json else cp_table_text(rows))
        return
    folder = None if args.out is None else OutputFolder(args.out)
    if folder is not None:
        folder.check()
    with _progress("loading the network and proving its columns"):
        certificate, sha256 = certify_checkpoint(
            args.checkpoint, args.hw, adc_bits=args.adc_bits, arch=args.arch, input_shape=shape
        )
    document = certificate.to_json(sha256)
    if folder is not None:
        with folder:
            folder.write("certificate.json", dump_json(document))
    text = certificate_text(document, certificate.network, certificate.compared, certificate.notes)
    emit(dump_json(document) if args.json else text)
    if args.require_lossless and not certificate.lossless:
        refuted = [layer.name for layer in certificate.layers if not layer.lossless]
        raise VerificationError(
            f"not lossless at the configured ADC bits: {len(refuted)} of {len(certificate.layers)} layers refuted, "
            f"first {refuted[0]}; {certificate.bits} bits are needed"
        )


def _prune(args: argparse.Namespace) -> None:
    from bitline.pruner import prune
    from bitline.report.pruning_text import epoch_line, pruning_text
    from bitline.report.schema import dump_json

    if args.threads is not None:
        _set_threads(args.threads)
    same = (
        *("method", "rate", "adc_bits", "shape_rate", "filter_rate", "exempt", "solver", "solver_epochs", "rho"),
        *("data", "training_images", "normalisation", "epochs", "batch_size", "learning_rate", "shift", "flip"),
        *("precision", "seed", "hw", "arch"),
    )
    with _progress() as progress:
        report = prune(
            args.checkpoint,
            out=args.out,
            recipe=args.recipe,
            resume=args.resume,
            progress=lambda seen: complain(epoch_line(vars(seen))),
            note=complain,
            stages=progress,
            kind_rates=None if args.kind_rate is None else dict(args.kind_rate),
            layer_rates=None if args.layer_rate is None else dict(args.layer_rate),
            exempt_first=False if args.prune_first else None,
            **{name: getattr(args, name) for name in same},
        )
    emit(dump_json(report) if args.json else pruning_text(report))


def _compare(args: argparse.Namespace) -> None:
    from bitline.comparison import DEFAULT_CHECKPOINTS, compare
    from bitline.conversion_search import DEFAULT_BUDGET
    from bitline.report.comparison_report import comparison_text
    from bitline.report.schema import dump_json

    if args.threads is not None:
        _set_threads(args.threads)
    with _progress() as progress:
        report = compare(
            args.checkpoints or DEFAULT_CHECKPOINTS,
            args.hw,
            args.methods,
            args.data,
            arch=args.arch,
            images=args.images,
            normalisation=args.normalisation,
            label_offset=args.label_offset,
            calibration_images=args.calibration_images,
            fragment=args.fragment,
            budget=DEFAULT_BUDGET if args.budget is None else args.budget,
            out=args.out,
            command=shlex.join(["bitline", *args.argv]),
            progress=progress,
        )
    emit(dump_json(report) if args.json else comparison_text(report) + _written(args.out, report))


def _throughput(args: argparse.Namespace) -> None:
    from bitline.errors import ConfigError
    from bitline.report.schema import dump_json

    command = shlex.join(["bitline", *args.argv])
    designs, checkpoint = _split_designs(args.hw or [], args.checkpoint)
    if args.table3 or args.savings:
        if checkpoint is not None or args.arch is not None or len(designs) > 1 or (args.table3 and args.savings):
            raise ConfigError("throughput: --table3 and --savings each stand alone, with at most one --hw NAME")
        from bitline.published import savings, table3
        from bitline.report.published_text import savings_text, table3_text

        make = table3 if args.table3 else savings
        report = make(*designs, out=args.out, command=command)
        text = table3_text(report) if args.table3 else savings_text(report)
    else:
        from bitline.report.throughput_text import throughput_text
        from bitline.throughput import parse_input, throughput

        with _progress("mapping, scheduling and pricing"):
            report = throughput(
                designs,
                checkpoint,
                arch=args.arch,
                input_shape=None if args.input is None else parse_input(args.input),
                adc_bits=args.adc_bits,
                law=args.law,
                replication=args.replication,
                squeeze_blocks=args.squeeze_blocks,
                tiles=args.tiles,
                images=args.images,
                detail=args.detail,
                baseline=args.baseline,
                sweeps=args.json,
                out=args.out,
                command=command,
            )
        text = throughput_text(report)
    emit(dump_json(report) if args.json else text + _written(args.out, report))


def _written(out: str | None, report: Mapping[str, Any]) -> str:
    """Where the files of a report are, as the report's last line."""
    return "" if out is None else f"\nWritten to {out}: {', '.join(report['files'])}\n"


def _split_designs(names: list[str], checkpoint: str | None) -> tuple[list[str], str | None]:
    """``--hw A B CHECKPOINT``: the option takes every name after it, so the last one may be the checkpoint."""
    from bitline.hardware import list_hardware

    if checkpoint is None and len(names) > 1:
        last = names[-1]
        shipped = any(entry.name == f"{last}.safetensors" for entry in resources.files("bitline.models").iterdir())
        weights = last.lower().endswith((".pt", ".pth", ".th", ".tar", ".safetensors", ".ckpt", ".bin", ".pkl"))
        if last not in list_hardware() and (shipped or weights):
            return names[:-1], last
    return names, checkpoint


def _refuse_unused(args: argparse.Namespace) -> None:
    """Options that would have no effect are refused: somebody relies on them."""
    mode = "--check" if args.check is not None else "--cp-rates" if args.cp_rates is not None else None
    options = {"--adc-bits": args.adc_bits, "--out": args.out}
    if mode == "--check":
        options |= {"--cp-rates": args.cp_rates, "--hw": None if args.hw == "tinyadc" else args.hw}
    elif mode == "--cp-rates":
        options["--require-lossless"] = args.require_lossless or None
    for name, value in options.items():
        if mode is not None and value is not None:
            raise ConfigError(f"certify {mode}: {name} has no effect there; leave it out")


def _hw(args: argparse.Namespace) -> None:
    import yaml

    from bitline.hardware import hardware_schema, list_hardware, load_hardware

    if args.action == "schema":
        emit(json.dumps(hardware_schema(), indent=2) + "\n")
        return
    if args.action == "list":
        found = [load_hardware(name) for name in list_hardware()]
        if args.json:
            emit(json.dumps([{"name": hw.name, "summary": hw.summary} for hw in found], indent=2) + "\n")
        else:
            width = max(len(hw.name) for hw in found)
            emit("".join(f"{hw.name:<{width}}  {hw.summary}\n" for hw in found))
        return
    hw = load_hardware(args.hw)
    fields = hw.model_dump(mode="json")
    if args.json:
        emit(json.dumps(fields, indent=2) + "\n")
    elif args.action == "show":
        emit(yaml.safe_dump(fields, sort_keys=False))
    else:
        physical = "with" if hw.chip is not None else "without"
        emit(
            f"{args.hw}: valid; {hw.name}: {hw.rows} x {hw.columns} crossbars, {hw.read_rows} rows on at once, "
            f"{hw.cell_bits}-bit cells, "
            f"{hw.dac_bits}-bit DACs, {hw.input_bits}-bit inputs, {hw.weight_bits}-bit weights, {hw.encoding.value} "
            f"encoding, {hw.readout.value} readout, ADC {hw.adc_bits}, {physical} a chip to price\n"
        )


def _set_threads(threads: int) -> None:
    import numba
    import torch

    from bitline.errors import RangeError

    limit = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    if not 1 <= threads <= limit:
        raise RangeError(f"--threads: must be 1..{limit} on this machine, got {threads}")
    numba.set_num_threads(threads)
    torch.set_num_threads(threads)


@contextlib.contextmanager
def _progress(what: str = "") -> Iterator[Progress]:
    """What a command is at, on standard error, until it is over."""
    from bitline.report.progress import progress_on

    progress = progress_on(sys.stderr)
    if what:
        progress.start(0, what)
    try:
        yield progress
    finally:
        progress.finish()


# --- entry -------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        parser = _parser()
        if "_ARGCOMPLETE" in os.environ:  # a shell asks what could come next
            _complete(parser)
        args = parser.parse_args(arguments)
        args.argv = arguments
        for option in ("out", "record_trace"):
            if getattr(args, option, None) == "":
                raise ConfigError(f"--{option.replace('_', '-')}: expected the name of a folder, got nothing")
        _check_working_directory()
        run: Callable[[Any], None] = args.run
        run(args)
    except BitlineError as error:
        complain(f"bitline: {error}")
        return error.exit_status
    except KeyboardInterrupt:
        complain("bitline: interrupted")
        return 130
    except MemoryError:
        complain("bitline: out of memory; fewer images at once or a smaller network are needed")
        return 2
    except OSError as error:  # files and folders have errors of their own; this is the machine
        complain(f"bitline: {error.filename or 'this machine'}: cannot be read or written: {error.strerror or error}")
        return 2
    except SystemExit as stop:  # argparse
        return int(stop.code or 0)
    return 0


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell's question for completions, where the optional package ``argcomplete`` is installed."""
    with contextlib.suppress(ImportError):
        import argcomplete

        argcomplete.autocomplete(parser)


def _check_working_directory() -> None:
    """Refuse a working directory that is gone: libraries that load from it end the process in ways of their own."""
    try:
        os.getcwd()
    except OSError:
        raise ConfigError("the working directory does not exist any more; change to another one") from None
