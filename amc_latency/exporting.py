"""What `export` does, from the library and from the command line: a file in a precision, and what both are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from amc_latency.console import Console
from amc_latency.data import ImageData, data_for, fitted, load_data
from amc_latency.errors import OptionError
from amc_latency.export.choose import export_with
from amc_latency.export.export import ExportReport, as_pixels
from amc_latency.export.options import ExportOptions, check_converter
from amc_latency.export.quantised.calibration import Calibration
from amc_latency.export.quantised.export import export_quantised, folds
from amc_latency.export.quantised.policy import UINT8, is_quantised
from amc_latency.measuring.accuracy import accuracy_of_file
from amc_latency.models import load, untrained
from amc_latency.models.load import Network, NetworkOptions
from amc_latency.pixels import Normalisation, parse_normalisation
from amc_latency.training.outcome import accuracy_of, outcome


def export_network(
    network: Network,
    path: Path,
    converter: str,
    precision: str | Sequence[str],
    io: str,
    pixels: Normalisation | None = None,
    calibration: Tensor | Calibration | None = None,
    data: ImageData | None = None,
) -> ExportReport:
    """Write a network to `path`, and with `data` tell the accuracy on its test images: of the file, and of PyTorch.

    `calibration` are images [N, C, H, W] as the network takes them, or ranges that are known; with `pixels` the file
    takes pixels of 0..255, and normalises them so. Raises what `export_with`, `export_quantised` and `outcome_of_file`
    raise.
    """
    quantised = is_quantised(precision, io)
    check_converter(converter, quantised)
    model, size = network.model, network.spec.input
    if quantised:
        how = (precision, calibration)
        report = export_quantised(model, size, path, *how, io=io, pixels=pixels)
    else:
        images = None if data is None else data.train.take(8).inputs(size[1:])
        report = export_with(converter, model, size, path, images, pixels=pixels)
    if data is None:
        return report
    folded = pixels if pixels is not None and folds(pixels, io) else None

    def given(inputs: Tensor) -> Tensor:
        return inputs if folded is None else as_pixels(inputs, folded)

    return replace(
        report,
        accuracy=accuracy_of_file(path, data.test, given),
        pytorch_accuracy=accuracy_of(outcome(model, data.test, size[1:])),
    )


def export_named(
    network: NetworkOptions, counts: tuple[int, ...] | None, options: ExportOptions, out: Path, console: Console
) -> tuple[ExportReport, str]:
    """Write a network by name, cut to `counts` if they are given; and what the file takes, in words."""
    if options.data is None:
        report, folded, expected, name = _without_data(network, counts, options, out)
    else:
        report, folded, expected, name = _with_data(network, counts, options, options.data, out, console)
    if name is not None:
        notes = (report.note, f"{name} has random weights: the file is good for its milliseconds alone")
        report = replace(report, note="; ".join(filter(None, notes)))
    return report, _pixels_line(folded, expected)


_Written = tuple[ExportReport, Normalisation | None, Normalisation | None, str | None]
"""The report, the normalisation that the file does itself, that which the network expects, and the name of a network
with random weights."""


def _without_data(
    network: NetworkOptions, counts: tuple[int, ...] | None, options: ExportOptions, out: Path
) -> _Written:
    """A float32 file, checked on the bundled images where it takes images; also of what can't be traced."""
    if counts is None:
        model, spec, trained, expected = load.load_model(network)
        model = model if trained else untrained.model_with_norm_statistics(model, spec.input)
    else:
        whole = load.load_network(network)
        cut = load.cut_to(whole if whole.trained else untrained.with_norm_statistics(whole), counts)
        model, spec, trained, expected = cut.model, cut.spec, cut.trained, cut.pixels
    untrained.check_own_weights(network, spec)
    images = None
    channels, height, width = spec.input
    if trained and channels in (1, 3):
        images = fitted(load_data("bundled"), spec, expected).train.take(8).inputs((height, width))
    folded = None if options.pixels is None else pixels_of(options.pixels, spec.name, expected, channels)
    report = export_with(options.converter, model, spec.input, out, images, pixels=folded)
    return report, folded, expected, None if trained else spec.name


def _with_data(
    network: NetworkOptions,
    counts: tuple[int, ...] | None,
    options: ExportOptions,
    source: str,
    out: Path,
    console: Console,
) -> _Written:
    """A file in any precision, by images whose train part gives ranges, and whose test part the accuracy."""
    whole = load.load_network(network)
    net = whole if whole.trained else untrained.with_norm_statistics(whole)
    net = net if counts is None else load.cut_to(net, counts)
    untrained.check_own_weights(network, net.spec)
    data = data_for(net, source, console=console)
    expected = expected_of(net, data)
    folded = wanted_pixels(options.pixels, options.io, net, expected)
    calibration = None
    if options.is_quantised:
        calibration = data.train.take(options.calibration_images).inputs(net.spec.input[1:])
    how = (options.converter, options.precision, options.io, folded)
    report = export_network(net, out, *how, calibration, data)
    return report, folded, expected, None if net.trained else net.spec.name


def expected_of(network: Network, data: ImageData | None) -> Normalisation | None:
    """How pixels become what the network takes: as its weights expect, or else by the data's own figures, if any."""
    if network.pixels is not None or data is None or data.takes_as_given:
        return network.pixels
    return data.normalisation


def wanted_pixels(
    pixels: str | None, io: str, network: Network, expected: Normalisation | None
) -> Normalisation | None:
    """The normalisation that the file is to do itself, which `io='uint8'` asks for too. Raises `OptionError`."""
    asked = pixels or ("auto" if io == UINT8 else None)
    return None if asked is None else pixels_of(asked, network.spec.name, expected, network.spec.input[0])


def pixels_of(text: str, model: str, of_weights: Normalisation | None, channels: int) -> Normalisation:
    """What `pixels` asks for. Raises `OptionError` for a text that is none, and where nobody knows it of `model`."""
    known = of_weights if text == "auto" else parse_normalisation(text, channels)
    if known is None:
        raise OptionError(
            ("pixels",), f"how {model} wants pixels normalised is not known: say `pixels` MEAN,.../STD,..."
        )
    return known


def _pixels_line(folded: Normalisation | None, expected: Normalisation | None) -> str:
    """What an exported file takes: pixels that it normalises itself, or how they must be normalised, if known."""
    if folded is not None:
        return f"the file takes pixels of 0..255, and normalises them itself by {folded}"
    if expected is not None:
        return f"the file takes pixels of 0..1 normalised by {expected}"
    return "the file takes pixels normalised as the network was trained with, which is not known here"
