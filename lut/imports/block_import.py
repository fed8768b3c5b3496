"""Block tables of other people -> a latency table of estimates, which is made once and never added to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amc_latency.device.base import DeviceIdentity, Protocol, Summary, Timing
from amc_latency.lut.imports.block_predict import is_block_table
from amc_latency.lut.imports.block_tables import BLOCK_RUNTIMES, Block, BlockFile, read_blocks
from amc_latency.lut.imports.import_log import ImportLogError
from amc_latency.lut.imports.importers import MODEL, check_device_name, check_folder
from amc_latency.lut.shapes.shape import network_text
from amc_latency.lut.table.row_conditions import sha256_of
from amc_latency.lut.table.table import LatencyTable


@dataclass(frozen=True)
class ImportedBlocks:
    """What one file of an import held."""

    path: str
    blocks: int
    inexpressible: int
    """left out: squeeze-and-excitation or h-swish"""
    unreadable: list[str]
    """left out: line, key and reason"""

    @property
    def entries(self) -> int:
        """All of the file's entries, also those left out."""
        return self.blocks + self.inexpressible + len(self.unreadable)


@dataclass(frozen=True)
class BlockImportReport:
    """What an import of block tables did."""

    table: str
    device: str
    format: str
    estimated: bool
    files: list[ImportedBlocks]
    rows_added: int
    """0 for a table that was there already, made of the same files"""
    blocks: int
    """distinct ones in the table"""


def import_blocks(
    paths: Sequence[Path], out: Path, device: str = "imported", format: str | None = None
) -> BlockImportReport:
    """Make the read-only table `out` of block tables of one format and device; a file is a round.

    `out` gets its name when it is complete. One that is there is left as it is, and fine if it holds the same files.
    Raises `ImportLogError` for a file that is no block table, or of another format than `format` or the first; and
    `TableError`.
    """
    check_device_name(device)
    check_folder(out)
    files = [read_blocks(path, format) for path in paths]
    for file in files[1:]:
        if file.format != files[0].format:
            raise ImportLogError(
                f"{file.path} is a {BLOCK_RUNTIMES[file.format]} and {files[0].path} a "
                f"{BLOCK_RUNTIMES[files[0].format]}: give each its own `out`"
            )
    distinct = list({file.sha256: file for file in files}.values())
    identity = DeviceIdentity(device, MODEL, BLOCK_RUNTIMES[files[0].format], estimated=True)
    if out.exists():
        table = LatencyTable.open(out)
        held = {sha256_of(row.conditions) for row in table.rows} if is_block_table(table) else set()
        if table.identity != identity or held != {file.sha256 for file in distinct}:
            raise ImportLogError(f"`out` {out} is there already, and nothing is added to estimates: name another `out`")
        rows_added = 0
    else:
        table = LatencyTable(out, identity, _protocol(distinct)).detached()
        for index, file in enumerate(distinct):
            for block in file.blocks:
                table.append(_timing(file, block, index))
        table.save_as(out, new=True)
        rows_added = table.row_count
    return BlockImportReport(
        table=str(out),
        device=", ".join((identity.name, identity.model, identity.runtime)),
        format=files[0].format,
        estimated=True,
        files=[
            ImportedBlocks(str(file.path), len(file.blocks), file.inexpressible, list(file.unreadable))
            for file in files
        ],
        rows_added=rows_added,
        blocks=len(table.keys),
    )


def _protocol(files: Sequence[BlockFile]) -> Protocol:
    """How the blocks were timed, as far as the files say."""
    counts = [max(1, block.n) for file in files for block in file.blocks]
    return Protocol(
        warmup=0,
        runs=min(counts),
        min_time_ms=0.0,
        max_runs=max(counts),
        rounds=1,
        clock="wall",
        statistic="mean",
    )


def _timing(file: BlockFile, block: Block, index: int) -> Timing:
    source = {"source": file.path.name, "sha256": file.sha256, "format": BLOCK_RUNTIMES[file.format], "key": block.key}
    std_us = None if block.std_ms is None else block.std_ms * 1000
    wall = Summary(None, None, block.mean_ms * 1000, std_us)
    return Timing(network_text(block.shapes), index, block.n, wall=wall, conditions=json.dumps(source))
