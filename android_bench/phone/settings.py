"""A phone's settings while it is timed: the commands that change them and put them back."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from amc_latency.android_bench.phone.answers import Lines, counted, matched

FIXED_PERFORMANCE_SDK = 30
"""Android 11, the first with a fixed performance mode."""


@dataclass(frozen=True)
class FormerSettings:
    """What a phone's settings were before they were changed."""

    stay_on: str | None = None
    """`stay_on_while_plugged_in`; `null` if it was not set, None if it could not be read and so was not changed"""
    fixed_performance: bool = False
    """whether the fixed performance mode was turned on"""


def prepare_command(sdk: int | None, record: str) -> str:
    """Keeps a screen that is on from sleeping while plugged in, and fixes the performance mode where Android has one.

    A screen that is off stays off: the phone is not woken. Harmless when run again, as after a restart of the phone.
    The former setting is kept in the file `record` on the phone: a run that was killed and could not restore it must
    not make the next one take our setting for the user's. `parse_prepared` reads the output.
    """
    # 7: with any charger, USB and wireless. There is no way to ask whether the mode was on; it never is unless a
    # developer said so since the last start. The power service passes it on without waiting, hence the pause: what is
    # asked next is how fast the cores may be.
    mode = 'say fixed "$(cmd power set-fixed-performance-mode-enabled true >&2 && echo 1 && sleep 0.2)"'
    return counted(
        f"""
record={shlex.quote(record)}; was=; read -r was < "$record"
case $was in null|[0-9]|[0-9][0-9]) ;; *) was=$(settings get global stay_on_while_plugged_in) ;; esac
case $was in null|[0-9]|[0-9][0-9])
echo "$was" > "$record" && settings put global stay_on_while_plugged_in 7 >&2 || was= ;;
*) was= ;; esac
say stay_on "$was"
{mode if sdk is not None and sdk >= FIXED_PERFORMANCE_SDK else 'say fixed ""'}
"""
    )


def parse_prepared(text: str) -> FormerSettings:
    """What `prepare_command` printed. Raises `ParseError`."""
    lines = Lines(text)
    stay_on, fixed = lines.take("stay_on"), lines.take("fixed")
    lines.expect_end()
    matched(r"(null|[0-9]{1,2})?", stay_on)
    return FormerSettings(stay_on or None, matched("1?", fixed)[0] == "1")


def restore_command(former: FormerSettings, record: str) -> str:
    """Puts settings back as they were, and removes `record` once they are; what was `null` is deleted again."""
    parts = []
    if former.fixed_performance:
        parts.append("cmd power set-fixed-performance-mode-enabled false >&2")
    if former.stay_on is not None:
        was = shlex.quote(former.stay_on)
        put = "delete" if former.stay_on == "null" else "put"
        parts += [
            f"settings {put} global stay_on_while_plugged_in {was if put == 'put' else ''} >&2",
            "now=$(settings get global stay_on_while_plugged_in)",
            'say stay_on "$now"',
            f'[ "$now" = {was} ] && rm -f {shlex.quote(record)}',
        ]
    return counted("\n".join(parts))


def parse_restored(text: str) -> str | None:
    """The setting as it is after `restore_command`, None if it was never changed. Raises `ParseError`."""
    lines = Lines(text)
    values = lines.take_all("stay_on")
    lines.expect_end()
    return values[0] if values else None
