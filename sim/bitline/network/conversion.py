"""Conversion: a float network becomes one whose convolutions and linear layers run on simulated crossbars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_arg

from bitline.crossbar.adc import AdcBits
from bitline.crossbar.certificate import NetworkCertificate, certify_layers
from bitline.crossbar.sar import LayerSearch
from bitline.errors import BitlineError, ConfigError, ConversionError, DataError, ShapeError
from bitline.hardware import Hardware
from bitline.layers import Coverage, LayerKind, MatrixLayer
from bitline.network.activations import evaluate_in_float64
from bitline.network.calibration import (
    Calibration,
    Sample,
    as_numpy,
    calibrate,
    check_calibrator,
    spread,
    vectors_to_sample,
)
from bitline.network.crossbar_modules import CrossbarModule, LayerCounters, LayerTrace, MatrixRunner, NetworkEngine
from bitline.network.crossbar_modules import as_images as _as_images
from bitline.network.dataflow import operations, positions
from bitline.network.graph import argument, first_line, private_copy, remove_unused, trace
from bitline.network.guard import Guard, RandomInputs, first_images
from bitline.network.layouts import keep_channels_last
from bitline.network.patches import gather_patches, pad_images
from bitline.network.placement import FloatMatrix, Kept, Placement, Site, place
from bitline.network.quantisation import quantise_weights
from bitline.network.recurrent import Recurrence

__all__ = ["CrossbarNetwork", "Kept", "MatrixNetwork", "NetworkEngine", "convert", "matrix_layers", "operations"]

_CALIBRATION_IMAGES = 32
"""Images the float network sees at once during calibration, so that memory is bounded."""


@dataclass(frozen=True, eq=False)
class MatrixNetwork:
    """A network's matrix layers as crossbars hold them, found and quantised without data."""

    layers: list[MatrixLayer]
    """In the order in which the network first calls them."""
    kept: list[Kept]
    """What holds or multiplies weights and stays in torch."""
    coverage: Coverage
    compared: str | None = None
    """Inputs on which the network was compared with its graph; None: it was not."""


def _quantised(placement: Placement, hw: Hardware) -> list[MatrixLayer]:
    layers = []
    for matrix in placement.matrices:
        codes, scale = quantise_weights(matrix.weight, hw.weight_bits)
        layers.append(
            MatrixLayer(
                name=matrix.name,
                kind=matrix.kind,
                codes=codes,
                weight_scale=scale,
                bias=matrix.bias,
                window=matrix.window,
                signed_inputs=matrix.signed_inputs,
            )
        )
    return layers


def _with_positions(layers: list[MatrixLayer], placement: Placement) -> list[MatrixLayer]:
    counts = positions(placement)
    return [replace(layer, output_positions=counts[layer.name]) for layer in layers]


def matrix_layers(
    module: nn.Module,
    hw: Hardware,
    *,
    input_shape: tuple[int, ...] | None = None,
    compare_on: RandomInputs | None = None,
) -> MatrixNetwork:
    """Find a network's matrix layers, fold batch norm into them and quantise their weights; no data needed.

    Parameters
    ----------
    module : nn.Module
        Not changed.
    hw : Hardware
        ``weight_bits`` decides the codes.
    input_shape : tuple of int, optional
        Shape of one image, without the batch. It gives the layers' ``output_positions`` and the multiply-accumulates,
        and decides where a batch norm acts; without it one is folded only where that holds for inputs of any shape.
    compare_on : RandomInputs, optional
        Compare the traced and folded network with the module on these (:mod:`bitline.network.guard`).

    Returns
    -------
    MatrixNetwork

    Raises
    ------
    ConversionError
        The network cannot be traced, differs from its graph, or does not take an image of ``input_shape``.
    CheckpointError
        NaN or infinite weights (the layer is named).
    """
    placement = place(trace(module), input_shape=input_shape)
    compared = None
    if compare_on is not None:
        examples = compare_on.of(module, placement)
        Guard(module, examples, placement.graph_module).check_placement(placement)
        compared = examples.what
    layers = _quantised(placement, hw)
    if input_shape is not None:
        layers = _with_positions(layers, placement)
    return MatrixNetwork(layers, list(placement.kept), placement.coverage(), compared)


class CrossbarNetwork(nn.Module):
    """A network whose convolutions and linear layers run on simulated crossbars; made by :func:`convert`.

    Between them is torch's arithmetic in float32 (elementary functions in float64, then rounded). All engines
    share codes, scales and the float operations after the products, so equal integers give equal outputs bit for bit.
    """

    def __init__(
        self,
        graph_module: fx.GraphModule,
        float_module: nn.Module,
        runners: list[MatrixRunner],
        kept: list[Kept],
        coverage: Coverage,
        calibration: list[Calibration],
        hw: Hardware,
        certificate: NetworkCertificate | None,
    ) -> None:
        super().__init__()
        self.graph_module, self.float_module = graph_module, float_module
        self._runners = runners
        self.kept, self.coverage, self.calibration = kept, coverage, calibration
        self.hw, self.certificate = hw, certificate
        self._engine = NetworkEngine.CERTIFIED
        super().train(False)

    def train(self, mode: bool = True) -> CrossbarNetwork:
        """Stay in evaluation mode: crossbars do not learn."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> Any:
        """Run the network with the engine that is set.

        Parameters
        ----------
        x : Tensor [shape=(B, ...), floating]

        Returns
        -------
        Tensor [float32], or what the float network returns.

        Raises
        ------
        ConversionError
            The network does not run on inputs of this shape.
        """
        try:
            return self.graph_module.forward(_real(x))
        except BitlineError:
            raise
        except (RuntimeError, TypeError, IndexError, AssertionError) as error:
            raise ConversionError(
                f"network: does not run on inputs of shape {tuple(x.shape)} on crossbars: {first_line(error)}"
            ) from None

    @torch.no_grad()
    def float_forward(self, x: torch.Tensor) -> Any:
        """Run the original float network, batch norm not folded, in its own precision."""
        first = next((p for p in self.float_module.parameters() if p.is_floating_point()), None)
        return self.float_module(x if first is None else x.to(first.dtype))

    # --- engine ------------------------------------------------------------------------------------------------------

    @property
    def engine(self) -> NetworkEngine:
        """What computes the products; settable at any time to ``bitserial``, ``certified`` or ``exact``."""
        return self._engine

    @engine.setter
    def engine(self, engine: NetworkEngine | str) -> None:
        self._engine = _engine(engine)
        for runner in self._runners:
            runner.engine = self._engine

    def use_hardware(self, hw: Hardware, *, certificate: NetworkCertificate | None = None) -> None:
        """Put the same codes and scales on other crossbars: another ADC, encoding, readout, crossbar size or cell.

        Raises
        ------
        ConfigError
            Other input or weight bits: these need a new conversion.
        """
        if (hw.input_bits, hw.weight_bits) != (self.hw.input_bits, self.hw.weight_bits):
            raise ConfigError(
                f"hardware {hw.name}: input_bits {hw.input_bits} and weight_bits {hw.weight_bits} differ from the "
                f"converted network's {self.hw.input_bits} and {self.hw.weight_bits}; convert it again"
            )
        certificate = certificate or certify_layers(self.layers, hw)
        self.set_adc(hw, certificate.adc)
        self.certificate = replace(certificate, coverage=self.coverage)

    def set_adc(self, hw: Hardware, adc: Sequence[AdcBits]) -> None:
        """Put the same codes on crossbars with these resolutions, one per layer; counters are reset."""
        for runner, bits in zip(self._runners, adc, strict=True):
            runner.set_adc(hw, bits)
        self.hw, self.certificate = hw, None
        self.reset_counters()

    def set_searches(self, searches: Sequence[LayerSearch] | None) -> None:
        """Convert as these searches do, one a layer (not with ``exact``); None: ideal ADCs. Counters are reset.

        Every conversion is counted in ``counters[...].codes``; another ADC (:meth:`set_adc`) takes the searches away.
        """
        wanted: Sequence[LayerSearch | None] = [None] * len(self._runners) if searches is None else searches
        if len(wanted) != len(self._runners):
            raise ShapeError(f"searches: expected one for each of {len(self._runners)} layers, found {len(wanted)}")
        try:
            for runner, search in zip(self._runners, wanted, strict=True):
                runner.set_search(search)
        except BaseException:  # no layer searches while another does not
            for runner in self._runners:
                runner.set_search(None)
            raise
        self.reset_counters()

    # --- what is known about it --------------------------------------------------------------------------------------

    @property
    def layers(self) -> list[MatrixLayer]:
        """The matrix layers, in the order in which the network first calls them."""
        return [runner.layer for runner in self._runners]

    @property
    def counters(self) -> list[LayerCounters]:
        """What each layer did since :meth:`reset_counters`."""
        return [runner.counters for runner in self._runners]

    @property
    def traces(self) -> list[LayerTrace]:
        """Integer activations recorded since :meth:`record_traces` or :meth:`reset_counters`."""
        return [runner.trace for runner in self._runners if runner.trace is not None]

    def reset_counters(self) -> None:
        """Set counters, histograms and traces of all layers back."""
        for runner in self._runners:
            runner.reset()

    def record_histograms(self, on: bool) -> None:
        """Switch the counting of column sums by value (not with ``exact``) on or off; nothing is lost."""
        for runner in self._runners:
            runner.histograms = on

    def record_traces(self, max_vectors: int) -> None:
        """Record the codes of each layer's first ``max_vectors`` input vectors from now on; 0 stops."""
        for runner in self._runners:
            runner.max_trace_vectors = max_vectors


def _engine(engine: NetworkEngine | str) -> NetworkEngine:
    try:
        return NetworkEngine(engine)
    except ValueError:
        names = ", ".join(member.value for member in NetworkEngine)
        raise ConfigError(f"engine: must be one of {names}, not {engine!r}") from None


def _real(x: torch.Tensor) -> torch.Tensor:
    """The network's input on the CPU: floating points become float32, whole numbers (embedding indices) stay."""
    x = x.detach().cpu()
    return x.to(torch.float32) if x.is_floating_point() else x


# --- calibration -----------------------------------------------------------------------------------------------------


class _Recorder(fx.Interpreter):
    """Runs the float network and samples what every matrix layer reads."""

    def __init__(self, placement: Placement, layers: list[MatrixLayer], samples: dict[str, Sample]) -> None:
        super().__init__(placement.graph_module)
        self.extra_traceback = False  # messages stay one line
        self._sites = {site.node: (layers[index], matrix, site) for index, matrix, site in placement.sites()}
        self._samples = samples
        self.share = 1.0

    def run_node(self, n: fx.Node) -> Any:
        if n in self._sites:
            layer, matrix, site = self._sites[n]
            recurrence = self.submodules[n.target] if n.op == "call_module" else None
            if isinstance(recurrence, Recurrence):
                result = super().run_node(n)
                from_input, state = self.fetch_args_kwargs_from_env(n)[0]
                self._record(layer, matrix, site, recurrence.read(from_input, result[0], state))
                return result
            self._record(layer, matrix, site, map_arg(argument(n, 0, "input"), lambda read: self.env[read]))
        return super().run_node(n)

    def _record(self, layer: MatrixLayer, matrix: FloatMatrix, site: Site, x: torch.Tensor) -> None:
        folded = site.batch_norm is not None
        sample = self._samples[site.name]
        images, window = _as_images(layer, x, matrix.padding_mode, site.name, folded)
        pixels = as_numpy(images)
        sample.add(pixels, self.share)
        height, width = window.output_size(pixels.shape[2], pixels.shape[3])
        total = pixels.shape[0] * max(0, height) * max(0, width)
        count = vectors_to_sample(layer.groups * layer.rows, self.share)
        sample.vectors.append(gather_patches(pad_images(pixels, window), window, spread(total, count)))


def _batches(calibration: torch.Tensor | Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Cut calibration data into small batches."""
    given = [calibration] if isinstance(calibration, torch.Tensor) else list(calibration)
    found = []
    for batch in given:
        if not isinstance(batch, torch.Tensor):
            raise DataError(f"calibration: expected a tensor or an iterable of tensors, found {type(batch).__name__}")
        if batch.dim() == 0 or batch.shape[0] == 0:
            raise DataError(f"calibration: expected a batch of inputs, got shape {tuple(batch.shape)}")
        if batch.is_floating_point() and not bool(torch.isfinite(batch).all()):
            raise DataError("calibration: NaN or infinite inputs, expected finite ones")
        found += list(torch.split(_real(batch), _CALIBRATION_IMAGES))
    if not found:
        raise DataError("calibration: no inputs, expected at least one")
    return found


def _collect(
    placement: Placement,
    layers: list[MatrixLayer],
    batches: list[torch.Tensor],
    step: Callable[[], None],
) -> dict[str, Sample]:
    samples = {site.name: Sample(site.name) for _, _, site in placement.sites()}
    recorder = _Recorder(placement, layers, samples)
    images = sum(batch.shape[0] for batch in batches)
    for batch in batches:
        recorder.share = batch.shape[0] / images
        try:
            # the network may overwrite its input
            recorder.run(batch.clone(), enable_io_processing=False)
        except (RuntimeError, TypeError, IndexError, AttributeError, AssertionError) as error:
            raise ConversionError(
                f"network: does not run on calibration inputs of shape {tuple(batch.shape)}: {first_line(error)}"
            ) from None
        step()
    return samples


# --- conversion ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def convert(
    module: nn.Module,
    calibration: torch.Tensor | Iterable[torch.Tensor],
    hw: Hardware,
    *,
    engine: NetworkEngine | str = NetworkEngine.CERTIFIED,
    calibrator: str = "auto",
    certificate: NetworkCertificate | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CrossbarNetwork:
    """Convert a float network to one whose convolutions and linear layers run on simulated crossbars.

    Batch norm is folded; weights get one scale per output from the checkpoint alone; activations get one scale per
    layer input from ``calibration``. What cannot be placed on crossbars stays in torch and is listed in ``.kept``.

    Parameters
    ----------
    module : nn.Module
        Copied, never changed; the copy runs in evaluation mode on the CPU.
    calibration : Tensor or iterable of Tensor [shape=(B, ...), floating]
        Real inputs, preprocessed as the network expects them.
    hw : Hardware
        An ADC policy resolves over the network's layers.
    engine : {"certified", "bitserial", "exact"}
        ``certified`` gives the outputs and counts of ``bitserial`` but not the largest sums; layers whose sums are
        recorded are run bit-serially. May be changed later by setting ``.engine``.
    calibrator : str
        ``auto`` (by measured output error, layer by layer) or a name of
        :data:`bitline.network.calibration.CALIBRATORS`.
    certificate : NetworkCertificate, optional
        Of these layers on this hardware, where it is known already.
    progress : callable, optional
        Called with (steps done, steps in all).

    Returns
    -------
    CrossbarNetwork

    Raises
    ------
    ConversionError
        The network cannot be traced or run, or has nothing for crossbars to hold; or what would run on crossbars is not
        what the module computes (:mod:`bitline.network.guard`; the first module that differs is named).
    CheckpointError
        NaN or infinite weights (the layer is named).
    DataError
        Calibration data that is empty, not finite, or makes activations that are not.
    ConfigError
        Unknown engine or calibrator.
    """
    check_calibrator(calibrator)
    engine = _engine(engine)
    batches = _batches(calibration)
    placement = place(trace(module), input_shape=tuple(batches[0].shape[1:]))
    if not placement.matrices:
        raise ConversionError(
            f"network {type(module).__name__}: has no convolution or linear layer that crossbars can hold"
        )
    layers = _quantised(placement, hw)
    done, total = 0, len(batches) + sum(1 for _ in placement.sites()) + len(layers)

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    placement.graph_module.float()
    layers = _with_positions(layers, placement)
    guard = Guard(module, first_images(batches), placement.graph_module)
    guard.check_placement(placement)
    samples = _collect(placement, layers, batches, step)
    records = []
    for index, matrix, site in placement.sites():
        layer = layers[index]
        records.append(
            calibrate(
                samples.pop(site.name),
                matrix.weight,
                layer.codes,
                layer.weight_scale,
                hw,
                layer.signed_inputs,
                calibrator,
            )
        )
        step()
    certificate = replace(certificate or certify_layers(layers, hw), coverage=placement.coverage())
    runners = []
    for layer, adc in zip(layers, certificate.adc, strict=True):
        runners.append(MatrixRunner(layer, hw, adc))
        step()
    _rewrite(placement, runners, {record.layer: record.scale for record in records})
    guard.check_rewritten(placement.graph_module, {site.name: matrix for _, matrix, site in placement.sites()})
    network = CrossbarNetwork(
        placement.graph_module,
        private_copy(module),
        runners,
        list(placement.kept),
        placement.coverage(),
        records,
        hw,
        certificate,
    )
    network.engine = engine
    return network


def _rewrite(placement: Placement, runners: list[MatrixRunner], scales: dict[str, float]) -> None:
    """Put crossbar modules in place of the matrix layers and of the batch norms folded into them."""
    graph_module = placement.graph_module
    graph = graph_module.graph
    for number, (index, matrix, site) in enumerate(list(placement.sites())):
        folded = site.batch_norm is not None
        module: nn.Module = CrossbarModule(runners[index], site.name, scales[site.name], matrix.padding_mode, folded)
        arguments: tuple[Any, ...] = (argument(site.node, 0, "input"),)
        if matrix.kind is LayerKind.RECURRENT:
            recurrence = graph_module.get_submodule(str(site.node.target))
            assert isinstance(recurrence, Recurrence)
            module, arguments = recurrence.on(module), site.node.args
        target = f"crossbar_{number}"
        while hasattr(graph_module, target):
            target += "_"
        graph_module.add_submodule(target, module)
        with graph.inserting_before(site.node):
            node = graph.call_module(target, arguments)
        node.meta["call"] = (site.node if site.batch_norm is None else site.batch_norm).meta.get("call")
        (site.node if site.batch_norm is None else site.batch_norm).replace_all_uses_with(node)
        if site.batch_norm is not None:
            graph.erase_node(site.batch_norm)
        graph.erase_node(site.node)
    evaluate_in_float64(graph_module)
    keep_channels_last(graph_module)
    remove_unused(graph_module)
    graph_module.delete_all_unused_submodules()
    graph.lint()
    graph_module.recompile()
