"""When a timing on a phone is believed, and how to wait until one can be."""

from __future__ import annotations

import re
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence

from amc_latency.android_bench.phone.state import PhoneState
from amc_latency.android_bench.runner import Sample
from amc_latency.device.kinds import CoolDown, Trust

_REMEMBERED = 9
"""Blocks whose sentinels say how fast the phone is."""
_FREQUENCY_SLACK = 0.98
"""A kernel may work out a core's frequency a little off."""


class Reference:
    """How fast the phone is: the median of the sentinel over the last blocks that were believed."""

    def __init__(self) -> None:
        self._recent_us: deque[float] = deque(maxlen=2 * _REMEMBERED)

    @property
    def us(self) -> float | None:
        """None before the first block."""
        return statistics.median(self._recent_us) if self._recent_us else None

    def learn(self, sentinel_us: Sequence[float | None]) -> None:
        """A block that was believed."""
        self._recent_us.extend(time_us for time_us in sentinel_us if time_us)

    def outrun_by(self, sentinel_us: Sequence[float | None], drift_pct: float) -> bool:
        """Whether the phone has become faster than it was thought to be, by more than `drift_pct`."""
        times_us = [time_us for time_us in sentinel_us if time_us]
        return self.us is not None and len(times_us) > 0 and self.us > max(times_us) * (1 + drift_pct / 100)

    def restart(self) -> None:
        """Forget all blocks."""
        self._recent_us.clear()


def state_doubts(trust: Trust, state: PhoneState) -> list[str]:
    """What speaks against timings made in this state; what a phone does not say is not held against it."""
    doubts = []
    if state.thermal_status is not None and state.thermal_status > trust.max_thermal_status:
        doubts.append(f"thermal status {state.thermal_status}")
    if state.battery_pct is not None and state.battery_pct < trust.min_battery_pct:
        doubts.append(f"battery at {state.battery_pct} %, under {trust.min_battery_pct} %")
    return doubts


def sentinel_doubts(trust: Trust, sentinel_us: Sequence[float | None], reference_us: float | None) -> list[str]:
    """Whether the sentinel, before and after a block, tells of another speed than `reference_us` or each other."""
    times_us = [time_us for time_us in sentinel_us if time_us]
    if len(times_us) < len(sentinel_us):
        return ["the sentinel layer was not timed"]
    known_us = [*times_us, reference_us] if reference_us else times_us
    drift_pct = 100 * (max(known_us) / min(known_us) - 1)
    return [f"sentinel drift {drift_pct:.1f} %"] if drift_pct > trust.drift_pct else []


def sample_doubts(trust: Trust, sample: Sample, highest_khz: Sequence[int | None]) -> list[str]:
    """What speaks against one model's timing: its operators or its cores' frequency. `highest_khz` is a core's each."""
    doubts = []
    if sample.delegated is False:
        doubts.append("XNNPACK did not take every operator")
    for after, highest in zip(frequencies_khz(sample.after), highest_khz, strict=False):
        if trust.full_frequency and after is not None and highest is not None and after < _FREQUENCY_SLACK * highest:
            doubts.append(f"a core at {after / 1000:.0f} of {highest / 1000:.0f} MHz")
            break
    return doubts


def frequencies_khz(watched: Sequence[str]) -> tuple[int | None, ...]:
    """Frequencies as the phone's files give them; None for one that could not be read."""
    return tuple(int(text) if text.isdigit() else None for text in watched)


def hottest_c(state: PhoneState, cool_down: CoolDown) -> float | None:
    """The hottest zone that counts, or the battery; None if the phone says neither."""
    known = state.zones_c.items()
    zones = [celsius for name, celsius in known if re.search(cool_down.zones, name, re.IGNORECASE)]
    return max(zones, default=state.battery_c)


def wait_until_cool(
    read_state: Callable[[], PhoneState], trust: Trust, cool_down: CoolDown, say: Callable[[str], object]
) -> bool:
    """Wait for the temperature, not for a time; False if the phone was no cooler at the end of the time limit."""
    began = time.monotonic()
    said = False
    while True:
        state = read_state()
        doubts, celsius = state_doubts(trust, state), hottest_c(state, cool_down)
        if celsius is not None and celsius > cool_down.start_below_c:
            doubts.append(f"{celsius:.0f} °C, over {cool_down.start_below_c:.0f} °C")
        if not doubts:
            return True
        if not said:
            say(f"waiting for the phone, {cool_down.timeout_s:.0f} s at most: {', '.join(doubts)}")
            said = True
        if time.monotonic() - began >= cool_down.timeout_s:
            say(f"no better after {cool_down.timeout_s:.0f} s: going on, and what is timed so is marked as suspect")
            return False
        time.sleep(cool_down.poll_s)
