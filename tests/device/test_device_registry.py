"""Devices by name."""

from __future__ import annotations

import pytest

from device.host import HostDevice
from device.registry import UnknownDeviceError, get_device, known_devices


def test_every_known_device_is_to_be_had() -> None:
    assert "host" in known_devices()
    for name in known_devices():
        assert get_device(name).identity.name == name
    assert isinstance(get_device("host"), HostDevice)


def test_the_host_is_described_by_its_cpu() -> None:
    assert get_device("host").identity.model in known_devices()["host"]


@pytest.mark.parametrize("name", ["hots", "Host", "hosts"])
def test_a_misspelt_name_gets_the_nearest(name: str) -> None:
    with pytest.raises(UnknownDeviceError, match=f"no device '{name}'.*Did you mean 'host'"):
        get_device(name)


def test_a_name_like_no_other_gets_the_list() -> None:
    with pytest.raises(UnknownDeviceError, match="known are: host") as caught:
        get_device("pixel-9")
    assert "mean" not in str(caught.value)
