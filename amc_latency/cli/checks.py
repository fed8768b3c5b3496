"""What is cheap to check of a command is checked before heavy imports, networks and images: a typo costs a second."""

from __future__ import annotations

from pathlib import Path

from amc_latency.cli.options import check_out
from amc_latency.errors import UserError
from amc_latency.search.config import SearchConfig


def check_device_and_table(device: str, lut: Path | None, estimate: bool = False, makes_table: bool = False) -> None:
    """Raise what is wrong with `--device`, `--lut` and `--estimate`: unknown, not there, not readable.

    A table that is not there yet is right only for a command that makes it.
    """
    from amc_latency.lut.table.table import LatencyTable
    from amc_latency.measuring.estimating import estimate_device
    from amc_latency.measuring.opening import check_device

    if estimate:
        estimate_device(device, lut)
        return
    check_device(device, lut)
    if lut is None:
        return
    if makes_table and not lut.exists():
        check_out(lut, "--lut", over_table=True)
    else:
        LatencyTable.open(lut, writing=makes_table and device != "replay").close()


def check_search(config: SearchConfig, folder: Path) -> None:
    """The same for a search that is to lie in `folder`, and whether that, and the images, can be what they must be."""
    from amc_latency.data.load import check_source
    from amc_latency.search.folder import CONFIG, check_place

    check_place(folder)
    if config.unlabelled is None:
        check_source(config.data)
    elif not Path(config.unlabelled).is_dir():
        raise UserError(f"--unlabelled {config.unlabelled}: no such folder")
    # A run folder holds a copy of its own table: of a finished search nothing else is read.
    if not (folder / CONFIG).exists():
        check_device_and_table(config.device, None if config.lut is None else Path(config.lut), config.estimate)
