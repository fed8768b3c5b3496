"""Run folders with a file damaged, or with other values in it, and then the same search again."""

from __future__ import annotations

import json
import random
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

from benchmarks.attacks.harness import Attack, Case
from benchmarks.attacks.jobs import Job, Search, Undisturbed, check_ended
from benchmarks.attacks.mutate import damaged, odd_number, odd_place
from benchmarks.attacks.tables import allowed, finite


def attacks() -> list[Attack]:
    """What reads them, quickly, and whole searches."""
    return [
        Attack("run folders, read", _read, 4_000, 0),
        Attack("run folders, searched on", _searched_on, 80, 2, case_s=60.0),
    ]


def _read(folder: Path) -> Callable[[Case], None]:
    from amc_latency.search.results.folder import RunFolder

    undisturbed, place = Undisturbed(Search(), folder), folder / "run"
    whole = undisturbed.folder / "run"
    files = _texts(whole)
    settings = tomllib.loads((whole / "config.toml").read_text())

    def try_case(case: Case) -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for path in files:
            shutil.copy(path, place)
        _spoil(case, place / case.draw.choice(files).name)
        with allowed():
            run = RunFolder(place, settings)
            for read in (run.episodes, run.measurements):
                with allowed():
                    finite([str(each) for each in read()])
            with allowed():
                report = run.report()
                if report is not None:
                    finite(report.to_json())

    return try_case


def _texts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".toml", ".json", ".jsonl"))


def _searched_on(folder: Path) -> Callable[[Case], None]:
    undisturbed = Undisturbed(Search(), folder)

    def try_case(case: Case) -> None:
        place = case.folder / f"job-{case.number}"
        shutil.copytree(undisturbed.folder, place)
        run = place / "run"
        if case.draw.random() < 0.7:
            # It ends once more, and reads again what it has.
            (run / "report.json").unlink()
        left = sorted(path for path in run.rglob("*") if path.is_file())
        _spoil(case, case.draw.choice([path for path in left if path.suffix in (".json", ".jsonl", ".toml")] + left))
        with Job(undisturbed.work.do, place) as job:
            check_ended(job.wait(), "ok", "refused")
        shutil.rmtree(place)

    return try_case


def _spoil(case: Case, path: Path) -> None:
    draw, content = case.draw, path.read_bytes()
    if path.suffix in (".json", ".jsonl") and draw.random() < 0.7:
        case.content = _other_json(draw, content, path.suffix == ".jsonl")
    elif path.suffix == ".toml" and draw.random() < 0.7:
        lines = content.decode().splitlines()
        at = draw.randrange(len(lines))
        lines[at] = f"{lines[at].partition(' = ')[0]} = {draw.choice((odd_number(draw), '[' * 3000, 'nan'))}"
        case.content = "\n".join(lines).encode()
    else:
        case.content = damaged(draw, content)
    case.note = path.name
    path.write_bytes(case.content)


def _other_json(draw: random.Random, content: bytes, lines: bool) -> bytes:
    parts = content.splitlines() if lines else [content]
    at = draw.randrange(len(parts))
    try:
        parts[at] = json.dumps(odd_place(draw, json.loads(parts[at]))).encode()
    except (ValueError, RecursionError):
        parts[at] = b"[" * 3000
    return b"\n".join(parts) + b"\n"
