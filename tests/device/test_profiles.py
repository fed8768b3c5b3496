"""Device profiles: which ship, how one is chosen for a phone, and what a mistaken file is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from amc_latency.android_bench.phone.state import PhoneInfo, PhoneState
from amc_latency.device.kinds import HOST_PROTOCOL, PHONE_PROTOCOL, DeviceProfile, Match
from amc_latency.device.phone.trust import hottest_c
from amc_latency.device.profiles import (
    ProfileError,
    UnknownDeviceError,
    broken_profiles,
    get_profile,
    load_profile,
    profile_for,
    profiles,
)
from amc_latency.device.registry import get_device

PIXEL_8 = PhoneInfo(model="Pixel 8", device="shiba", soc="Tensor G3", platform="zuma")
S24 = PhoneInfo(model="SM-S921B", device="e1s", soc="s5e9945", platform="erd9945")


def load(folder: Path, text: str) -> DeviceProfile:
    path = folder / "mine.toml"
    path.write_text(text)
    return load_profile(path)


def test_the_shipped_profiles_are_there() -> None:
    assert next(iter(profiles())) == "host"
    phones = {name for name, profile in profiles().items() if profile.kind == "android"}
    assert phones >= {"android", "pixel1", "pixel6", "pixel7", "pixel8", "pixel9", "galaxy_s24"}
    assert {profiles()["cuda"].kind, profiles()["titan-xp"].kind} == {"cuda"}
    for profile in profiles().values():
        if profile.kind != "cuda":
            assert profile.protocol == {"android": PHONE_PROTOCOL, "host": HOST_PROTOCOL}[profile.kind]
    assert (PHONE_PROTOCOL.clock, PHONE_PROTOCOL.statistic) == ("wall", "median")
    assert (HOST_PROTOCOL.clock, HOST_PROTOCOL.statistic, HOST_PROTOCOL.state) == ("cpu", "median", "frame")


@pytest.mark.parametrize(
    ("info", "name"),
    [
        (PhoneInfo(model="Pixel", device="sailfish", platform="msm8996"), "pixel1"),
        (PhoneInfo(model="Pixel 6a", device="bluejay", soc="Tensor", platform="gs101"), "pixel6"),
        (PhoneInfo(model="Pixel 7 Pro", device="cheetah", soc="GS201", platform="gs201"), "pixel7"),
        (PIXEL_8, "pixel8"),
        (PhoneInfo(model="Pixel 9 Pro XL", device="komodo", soc="Tensor G4", platform="zumapro"), "pixel9"),
        (S24, "galaxy_s24"),
        (PhoneInfo(model="SM-S921U1", device="e1q", soc="SM8650", platform="pineapple"), "galaxy_s24_snapdragon"),
        # Another processor than the model's: nothing that is known of it holds.
        (replace(S24, soc="SM8650", platform="pineapple"), "android"),
        (replace(PIXEL_8, device="Shiba"), "android"),
        (PhoneInfo(), "android"),
    ],
)
def test_a_phone_finds_its_profile(info: PhoneInfo, name: str) -> None:
    assert profile_for(info).name == name


@pytest.mark.parametrize(
    "zone", ["cpu AP", "cpu-1-0-usr", "mtktscpu", "tsens_tz_sensor4", "BIG", "MID", "LITTLE", "AP"]
)
def test_every_phones_processor_is_waited_for(zone: str) -> None:
    state = PhoneState(battery_c=30.0, zones_c={zone: 60.0, "G3D": 70.0, "battery": 80.0, "mtktsAP": 90.0})
    for profile in profiles().values():
        assert hottest_c(state, profile.cool_down) == 60.0


def test_no_phone_is_recognised_by_two_profiles() -> None:
    seen: set[str] = set()
    for profile in profiles().values():
        for value in (*profile.match.devices, *profile.match.models):
            assert value not in seen
            seen.add(value)


def test_the_strictest_profile_wins() -> None:
    phones = [
        DeviceProfile("any", "android", "any"),
        DeviceProfile("strict", "android", "strict", Match(devices=("shiba",), socs=("zuma",))),
        DeviceProfile("loose", "android", "loose", Match(socs=("zuma",))),
        DeviceProfile("computer", "host", "host", Match(("Pixel 8",), ("shiba",), ("zuma",))),
    ]
    assert profile_for(PIXEL_8, phones).name == "strict"
    assert profile_for(replace(PIXEL_8, device="husky"), phones).name == "loose"
    assert profile_for(S24, phones).name == "any"


def test_a_misspelt_profile_gets_the_nearest() -> None:
    with pytest.raises(UnknownDeviceError, match="Did you mean 'pixel8'"):
        get_profile("pixle8")
    assert get_profile("pixel8").match.devices == ("shiba", "husky", "akita")


def test_a_file_says_all_that_is_to_be_said(tmp_path: Path) -> None:
    profile = load(
        tmp_path,
        """
        kind = "android"
        title = "My phone"
        [match]
        models = ["X1"]
        [timing]
        cores = [7, 6]
        threads = 2
        runs = 30
        timeout_s = 5
        [runner]
        name = "amc_bench"
        [trust]
        full_frequency = false
        drift_pct = 3
        [cool_down]
        zones = "skin"
        start_below_c = 38
        """,
    )
    assert (profile.name, profile.title, profile.match, profile.cores) == ("mine", "My phone", Match(("X1",)), (6, 7))
    assert profile.protocol == replace(PHONE_PROTOCOL, threads=2, runs=30, timeout_s=5.0)
    assert profile.runner == "amc_bench"
    assert (profile.trust.full_frequency, profile.trust.drift_pct, profile.trust.tries) == (False, 3.0, 3)
    assert (profile.cool_down.zones, profile.cool_down.start_below_c) == ("skin", 38.0)
    assert profile.match.text == "model X1"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind = ", "Invalid value"),
        ('title = "x"', "kind is one of host, android, cuda, not None"),
        ('kind = "ios"\ntitle = "x"', "not 'ios'"),
        ('kind = "android"', "title"),
        ("[watch]\n", "no [watch]; known are: match, timing"),
        ("trust = 3", "trust is a section, not 3"),
        ('[match]\nmodel = ["x"]', "[match] has no model; did you mean models?"),
        ('[match]\nmodels = "x"', "[match] models is a list of strings, not 'x'"),
        ("[match]\nsocs = [1]", "[match] socs is a list of strings"),
        ("[timing]\nruns = 2.5", "[timing] runs is a whole number, not 2.5"),
        ("[timing]\nruns = true", "[timing] runs is a whole number, not True"),
        ("[timing]\nruns = 0", "[timing] a protocol needs at least one run"),
        ('[timing]\nclock = "sun"', "clock is cpu or wall"),
        ("[timing]\nmin_time_ms = nan", "nan is no finite number - at `$.timing.min_time_ms`"),
        ("[timing]\nthreads = 2000", "256"),
        ('[timing]\ncores = "slowest"', "[timing] cores is fastest, all or a list of core numbers, not 'slowest'"),
        ("[timing]\ncores = []", "[timing] cores is"),
        ("[timing]\ncores = [4, 4]", "[timing] cores is"),
        ("[timing]\ncores = [-1]", "[timing] cores is"),
        ('[runner]\nname = "tflite"', "not 'tflite'"),
        ('[runner]\npath = "x"', "[runner] has a name"),
        ("[trust]\ntries = 0", "[trust] tries is at least 1"),
        ("[trust]\nmin_battery_pct = 101", "[trust] min_battery_pct is 0 to 100"),
        ("[trust]\nfull_frequency = 1", "[trust] full_frequency is true or false, not 1"),
        ('[cool_down]\nzones = "("', "[cool_down] zones is no regular expression"),
        ("[cool_down]\npoll_s = 0", "[cool_down] poll_s is above 0"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    if "kind" not in text and "title" not in text:
        text = f'kind = "android"\ntitle = "x"\n{text}'
    with pytest.raises(ProfileError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith("mine.toml: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_computer_has_no_phones_sections(tmp_path: Path) -> None:
    assert load(tmp_path, 'kind = "host"\ntitle = "x"\n[timing]\nruns = 30').protocol == replace(HOST_PROTOCOL, runs=30)
    with pytest.raises(ProfileError, match=r"a profile of kind host has no \[trust\]; known are: timing"):
        load(tmp_path, 'kind = "host"\ntitle = "x"\n[trust]')
    with pytest.raises(ProfileError, match=r"\[timing\] has no cores"):
        load(tmp_path, 'kind = "host"\ntitle = "x"\n[timing]\ncores = "all"')


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ProfileError, match=r"mine\.toml"):
        load_profile(tmp_path / "mine.toml")


def test_a_broken_profile_of_the_users_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "amc-latency" / "profiles"
    folder.mkdir(parents=True)
    (folder / "mygpu.toml").write_text('kind = "cuda"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    profiles.cache_clear()
    try:
        assert "host" in profiles()
        assert "mygpu" not in profiles()
        assert list(broken_profiles()) == ["mygpu"]
        with pytest.raises(ProfileError, match=r"mygpu\.toml: title is some words"):
            get_device("mygpu")
    finally:
        profiles.cache_clear()
