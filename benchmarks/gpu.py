"""MobileNetV1-224 on this computer's GPU, at the batch of AMC's figures: published channel lists, and a table's error.

`ratios` times MobileNetV1 1.0, 0.75 and AMC's two published channel lists, all in the same rounds, and prints how much
faster each is than 1.0, beside what AMC reports for a Titan Xp. `prediction` builds the latency table as
`amc-latency profile` does (or goes on with the one at `--lut`: a killed run loses nothing), then times random pruned
networks that no calibration saw. Run nothing else on the GPU meanwhile; lock its clocks if you may (`nvidia-smi -lgc`).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from amc_latency.device.base import DeviceError, Protocol, ProtocolError
from amc_latency.device.conditions import suspicions
from amc_latency.device.gpu.cuda import CudaDevice
from amc_latency.device.profiles import UnknownDeviceError, get_profile
from amc_latency.device.rounds.measure import Measurement, measure_many, statistic_text
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.table.table import LatencyTable

from amc_latency.console import Console
from amc_latency.export.export import to_tflite
from amc_latency.measuring.profiling import Grid, complete_table
from amc_latency.models.load import Network, NetworkOptions, cut_to, load_network
from amc_latency.models.untrained import with_norm_statistics
from benchmarks.common import parser_of
from benchmarks.policies import Policy, random_networks
from benchmarks.prediction import prediction_figures, time_together

LISTS = {
    "1.0": (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024),
    "0.75": (24, 48, 96, 96, 192, 192, 384, 384, 384, 384, 384, 384, 768, 768),
    "AMC 50 % FLOPs": (24, 48, 96, 80, 192, 200, 328, 352, 368, 360, 328, 400, 736, 752),
    "AMC 50 % time": (16, 48, 88, 80, 192, 168, 336, 360, 360, 352, 352, 368, 768, 680),
}
"""Outputs of the stem and the 13 pointwise layers, from mit-han-lab/amc-models, models/mobilenet_v1.py."""
AMC_RATIOS = {"AMC 50 % FLOPs": 1.43, "AMC 50 % time": 1.53}
"""On a Titan Xp: abstracts of arXiv 1802.03494 and of its ECCV version."""


def macs(network: Network, counts: tuple[int, ...]) -> int:
    """Of the network cut to `counts`."""
    return sum(shape.macs for shape in network.graph.architecture.shapes(counts))


def time_lists(network: Network, device: CudaDevice, protocol: Protocol) -> dict[str, Measurement]:
    """Each list's network, all in the same rounds."""
    models = {name: to_tflite(cut_to(network, counts).model, network.spec.input) for name, counts in LISTS.items()}
    return measure_many(device, models, protocol)


def ratio_rows(network: Network, measured: dict[str, Measurement], batch: int) -> list[dict]:
    """A row a network; `latency_ms` is the batch's."""
    full_ms = measured["1.0"].latency_ms
    return [
        {
            "network": name,
            "macs": macs(network, LISTS[name]),
            "latency_ms": each.latency_ms,
            "spread_pct": each.spread_pct,
            "images_per_s": 1e3 * batch / each.latency_ms,
            "ratio": full_ms / each.latency_ms,
            "amc_ratio": AMC_RATIOS.get(name),
            "suspect": sorted({why for text in each.conditions for why in suspicions(text)}),
        }
        for name, each in measured.items()
    ]


def show_ratios(rows: list[dict]) -> None:
    """As a table."""
    print(f"{'':16}{'MACs':>9}{'ms a batch':>12}{'+- %':>7}{'images/s':>11}{'ratio':>8}{'AMC, Titan Xp':>15}")
    for row in rows:
        amc = "-" if row["amc_ratio"] is None else f"{row['amc_ratio']:.2f}x"
        print(
            f"{row['network']:16}{row['macs'] / 1e6:8.1f}M{row['latency_ms']:12.4f}{row['spread_pct'] or 0:7.2f}"
            f"{row['images_per_s']:11,.0f}{row['ratio']:7.2f}x{amc:>15}"
        )
        if row["suspect"]:
            print(f"  not to be trusted: {'; '.join(row['suspect'])}")


def held_out(network: Network, device: CudaDevice, lut: Path, n: int, seed: int) -> dict:
    """Build or continue the table, and how well it predicts `n` random networks."""
    architecture, grid = network.graph.architecture, Grid()
    table = LatencyTable.open_or_create(lut, device.identity, device.protocol)
    report = complete_table(network, device, table, grid, Console())
    predictor = Predictor(table)
    counts = random_networks(architecture, grid.choices(network), n, seed)
    networks = [architecture.shapes(each) for each in counts]
    longer = replace(device.protocol, rounds=device.protocol.network_rounds)
    began_s = time.perf_counter()
    session = time_together(network, device, table, list(map(Policy, counts)), longer)  # type: ignore[arg-type]
    noise = [100 * abs(again / first - 1) for first, again in zip(session.first_ms, session.again_ms, strict=True)]
    return {
        "networks": n,
        "as it stands": prediction_figures(predictor, networks, session.first_ms),
        "same rounds": prediction_figures(Predictor(session.table), networks, session.first_ms),
        "twice_pct": sum(noise) / len(noise),
        "measured_ms": session.first_ms,
        "measuring_s": round(time.perf_counter() - began_s, 1),
        "profile": asdict(report),
    }


def show_held_out(figures: dict) -> None:
    """As a table."""
    low, high = min(figures["measured_ms"]), max(figures["measured_ms"])
    print(f"\n{figures['networks']} random pruned networks of {low:.3f}-{high:.3f} ms a batch:")
    print(f"{'':14}{'bias %':>9}{'MAPE %':>9}{'p90 %':>9}{'max %':>9}{'inside 95 %':>13}")
    for kind in ("as it stands", "same rounds"):
        cells = "".join(f"{figures[kind][f'{column}_pct']:9.2f}" for column in ("bias", "mape", "p90", "max"))
        print(f"{kind:14}{cells}{figures[kind]['inside']:>10}/{figures[kind]['intervals']}")
    print(f"noise: timed twice in the same rounds they differ by {figures['twice_pct']:.2f} % (mean)")
    made = figures["profile"]
    print(
        f"table: {made['rows']} rows, {made['timed']} timed now in {made['seconds']:.0f} s, {made['suspect']} suspect"
    )


def main() -> None:
    """Read the options, refuse without a GPU, run."""
    parser = parser_of(__doc__, json=True)
    parser.add_argument("--device", default="cuda", help="a GPU's profile; `h100` and `titan-xp` must match the GPU")
    parser.add_argument("--batch", type=int, default=50, help="images at once; AMC's figures are for 50")
    parser.add_argument("--precision", choices=["fp32", "tf32", "fp16"], default="fp32")
    parser.add_argument("--state", choices=["hot", "frame"], default="hot", help="what a run finds in the L2 cache")
    parser.add_argument("--only", choices=["ratios", "prediction"])
    parser.add_argument("--lut", type=Path, help="table to build, or to go on with")
    parser.add_argument("--networks", type=int, default=24, help="how many random networks")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of the published lists")
    parser.add_argument("--seed", type=int, default=777, help="of the random networks")
    options = parser.parse_args()

    try:
        profile = get_profile(options.device)
        if profile.kind != "cuda":
            raise DeviceError(f"{options.device} is no GPU")
        own = replace(profile.protocol, batch=options.batch, precision=options.precision, state=options.state)
        device = CudaDevice(replace(profile, protocol=own))
    except (ProtocolError, UnknownDeviceError) as error:
        parser.error(str(error))
    except DeviceError as error:
        sys.exit(f"error: {error}")
    network = with_norm_statistics(load_network(NetworkOptions("mobilenet_v1")))
    results: dict[str, object] = {"identity": asdict(device.identity), "protocol": asdict(own)}
    if not options.json:
        print(
            f"{device.identity.model}\n{device.identity.runtime}, {statistic_text(own, own.rounds)}, state {own.state}"
        )
    try:
        if options.only != "prediction":
            measured = time_lists(network, device, replace(own, rounds=options.rounds))
            results["ratios"] = rows = ratio_rows(network, measured, own.batch)
            if not options.json:
                show_ratios(rows)
        if options.only != "ratios":
            with tempfile.TemporaryDirectory() as fresh:
                lut = options.lut or Path(fresh) / "gpu.tsv"
                results["prediction"] = figures = held_out(network, device, lut, options.networks, options.seed)
            if not options.json:
                show_held_out(figures)
    except DeviceError as error:
        sys.exit(f"error: {error}")
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
