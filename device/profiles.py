"""Device profiles: one short TOML file a device says how it is recognised, how it is timed, and when it is trusted."""

from __future__ import annotations

import contextlib
import difflib
import functools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from amc_latency.android_bench.phone.state import PhoneInfo
from amc_latency.android_bench.safe.files import read_bytes
from amc_latency.android_bench.safe.limits import CONFIG_BYTES, COUNT, SECONDS
from amc_latency.android_bench.safe.records import from_toml
from amc_latency.device.base import DeviceError, ProtocolError
from amc_latency.device.kinds import KINDS, CoolDown, Cores, DeviceProfile, Match, Trust

ANY_PHONE = "android"
"""The profile of a phone that no other recognises."""
RUNNERS = ("auto", "benchmark_model", "amc_bench")
_FOLDER = Path(__file__).with_name("known")


class ProfileError(DeviceError):
    """A profile that says what no profile can: the file, the key, and what is wrong."""


class UnknownDeviceError(ValueError):
    """A device name that no device has: which exist, and the nearest one."""

    def __init__(self, message: str, known: list[str]) -> None:
        super().__init__(message)
        self.known = known


def unknown_device(name: str, names: list[str]) -> UnknownDeviceError:
    """The error for a name that is none of `names`."""
    lowered = {known.lower(): known for known in names}
    nearest = difflib.get_close_matches(name.lower(), lowered, n=1)
    guess = f" Did you mean '{lowered[nearest[0]]}'?" if nearest else ""
    return UnknownDeviceError(f"there is no device '{name}'; known are: {', '.join(names)}.{guess}", names)


def get_profile(name: str) -> DeviceProfile:
    """The profile called `name`. Raises `UnknownDeviceError` with the nearest name, and `ProfileError`."""
    check_profile(name)
    known = profiles()
    if name not in known:
        raise unknown_device(name, list(known))
    return known[name]


def profile_for(info: PhoneInfo, among: Iterable[DeviceProfile] | None = None) -> DeviceProfile:
    """The profile that recognises this phone: of several the strictest, and `android` if no other does."""
    phones = [p for p in (profiles().values() if among is None else among) if KINDS[p.kind].is_phone]
    return max((p for p in phones if p.match.matches(info)), key=lambda p: (p.match.strictness, p.name))


@functools.cache
def profiles() -> dict[str, DeviceProfile]:
    """Every profile by name: this computer, phones, any phone, GPUs; the user's own first.

    One that cannot be read is left out: `check_profile` says why to whoever asks for it.
    """
    loaded = []
    for path in _paths().values():
        with contextlib.suppress(ProfileError):
            loaded.append(load_profile(path))
    loaded.sort(key=lambda p: (list(KINDS).index(p.kind), p.name == ANY_PHONE, p.name))
    return {profile.name: profile for profile in loaded}


def check_profile(name: str) -> None:
    """Raise `ProfileError` if there is a profile of that name, and it cannot be read."""
    path = _paths().get(name)
    if path is not None and name not in profiles():
        load_profile(path)


def broken_profiles() -> dict[str, str]:
    """The user's profiles that cannot be read, and why."""
    broken = {}
    for name in _paths():
        try:
            check_profile(name)
        except ProfileError as error:
            broken[name] = str(error)
    return broken


def _paths() -> dict[str, Path]:
    from platformdirs import user_config_path

    own = user_config_path("amc-latency") / "profiles"
    return {path.stem: path for folder in (_FOLDER, own) for path in folder.glob("*.toml")}


def load_profile(path: Path) -> DeviceProfile:
    """The profile in a file, which gives it its name. Raises `ProfileError`."""
    try:
        return _profile(path.stem, from_toml(read_bytes(path, CONFIG_BYTES).decode(), dict[str, Any]))
    except (OSError, ValueError) as error:
        # RecordError is a ValueError, and so is a UnicodeDecodeError.
        raise ProfileError(f"{path.name}: {' '.join(str(error).split())}") from error


def _profile(name: str, content: dict[str, Any]) -> DeviceProfile:
    kind, title = content.pop("kind", None), content.pop("title", None)
    if not isinstance(kind, str) or kind not in KINDS:
        nearest = difflib.get_close_matches(str(kind), KINDS, n=1)
        guess = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ValueError(f"kind is one of {', '.join(KINDS)}, not {kind!r}{guess}")
    if not isinstance(title, str) or not title.strip():
        raise ValueError(f"title is some words, not {title!r}")
    known = KINDS[kind].sections
    for section, table in content.items():
        if section not in known:
            raise ValueError(f"a profile of kind {kind} has no [{section}]; known are: {', '.join(known)}")
        if not isinstance(table, dict):
            raise ValueError(f"{section} is a section, not {table!r}")
    timing = content.get("timing", {})
    _check("l2" not in timing, "[timing] l2 is called state: hot for warm, frame for flushed")
    cores: Cores = _cores(timing.pop("cores", "fastest")) if KINDS[kind].is_phone else "fastest"
    runner = content.get("runner", {})
    runner_name = runner.pop("name", "auto")
    if runner or runner_name not in RUNNERS:
        raise ValueError(f"[runner] has a name, which is one of {', '.join(RUNNERS)}, not {runner or runner_name!r}")
    profile = DeviceProfile(
        name,
        kind,
        title,
        _section("match", Match(), content.get("match", {})),
        cores,
        _section("timing", KINDS[kind].protocol, timing),
        runner_name,
        _section("trust", Trust(), content.get("trust", {})),
        _section("cool_down", CoolDown(), content.get("cool_down", {})),
    )
    broken = KINDS[kind].broken_rule(profile)
    _check(broken is None, broken or "")
    _check_trust(profile.trust)
    _check_cool_down(profile.cool_down)
    return profile


def _section(name: str, default: Any, table: Mapping[str, Any]) -> Any:
    """`default` with the table's values in place of its own. Raises `ValueError` naming the key."""
    known = [each.name for each in fields(default)]
    values = {}
    for key, value in table.items():
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1)
            guess = f"; did you mean {nearest[0]}?" if nearest else f"; known are: {', '.join(known)}"
            raise ValueError(f"[{name}] has no {key}{guess}")
        values[key] = _like(getattr(default, key), value, f"[{name}] {key}")
    try:
        return replace(default, **values)
    except (ValueError, ProtocolError) as error:
        raise ValueError(f"[{name}] {error}") from None


def _like(default: Any, value: Any, what: str) -> Any:
    """`value` if it is of the default's type; a whole number may stand for any number."""
    if isinstance(default, tuple):
        if isinstance(value, list) and all(isinstance(item, str) and item for item in value):
            return tuple(value)
        raise ValueError(f"{what} is a list of strings, not {value!r}")
    if isinstance(default, float) and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif type(value) is type(default):
        return value
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
    raise ValueError(f"{what} is {words[type(default)]}, not {value!r}")


def _cores(value: Any) -> Cores:
    if value == "fastest" or value == "all":
        return value
    numbers = isinstance(value, list) and all(type(core) is int and 0 <= core < 1024 for core in value)
    if not numbers or not value or len(set(value)) < len(value):
        raise ValueError(f"[timing] cores is fastest, all or a list of core numbers, not {value!r}")
    return tuple(sorted(value))


def _check_trust(trust: Trust) -> None:
    _check(trust.sentinel_every >= 1, "[trust] sentinel_every is at least 1")
    _check(trust.sentinel_every <= COUNT, f"[trust] sentinel_every is at most {COUNT:,}")
    _check(trust.drift_pct > 0, "[trust] drift_pct is above 0")
    _check(0 <= trust.max_thermal_status <= 6, "[trust] max_thermal_status is 0 to 6")
    _check(0 <= trust.min_battery_pct <= 100, "[trust] min_battery_pct is 0 to 100")
    _check(trust.tries >= 1, "[trust] tries is at least 1")
    _check(trust.tries <= COUNT, f"[trust] tries is at most {COUNT:,}")


def _check_cool_down(cool_down: CoolDown) -> None:
    try:
        re.compile(cool_down.zones)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"[cool_down] zones is no regular expression: {error}") from None
    _check(0 < cool_down.start_below_c <= 100, "[cool_down] start_below_c is above 0 and at most 100")
    _check(cool_down.timeout_s >= 0, "[cool_down] timeout_s is not negative")
    _check(cool_down.poll_s > 0, "[cool_down] poll_s is above 0")
    _check(max(cool_down.timeout_s, cool_down.poll_s) <= SECONDS, f"[cool_down] lasts {SECONDS:,.0f} s at most")


def _check(good: bool, rule: str) -> None:
    if not good:
        raise ValueError(rule)
