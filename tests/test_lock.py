"""The environment of `make env` is fixed to the byte: every version pinned, every file by its hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[str, str]:
    found = {}
    for line in path.read_text().splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", line):
            assert plain(match[1]) not in found
            found[plain(match[1])] = match[2]
    return found


def names(requirements: list[str]) -> set[str]:
    return {plain(re.split(r"[^A-Za-z0-9._-]", each)[0]) for each in requirements}


LOCKED = pins(ROOT / "requirements.lock")


def test_every_requirement_is_locked_at_the_version_that_is_known_to_work() -> None:
    # Beyond these there are packages for other systems than that on which they are known to work.
    known = pins(ROOT / "constraints.txt")
    assert {name: version for name, version in LOCKED.items() if known.get(name, version) != version} == {}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = names(PROJECT["project"]["dependencies"] + extras["dev"] + extras["timm"] + extras["lite0"])
    assert wanted - {"amc-latency"} <= set(LOCKED)


def test_every_file_is_known_by_its_hash() -> None:
    # An entry goes on over lines that end with a backslash.
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(entries) == len(LOCKED) > 50
    for entry in entries:
        assert re.search(r" --hash=sha256:[0-9a-f]{64}", entry), entry
        assert "://" not in entry, "by name and version, from any index"


def test_the_build_backend_is_pinned_and_the_one_that_is_locked() -> None:
    (backend,) = PROJECT["build-system"]["requires"]
    assert backend == f"setuptools=={LOCKED['setuptools']}"
