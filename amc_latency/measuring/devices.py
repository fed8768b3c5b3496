"""`amc-latency devices`: which devices there are, and what is attached now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from amc_latency.console import number_column, put, table_console
from amc_latency.device.adb.adb_direct import address_of
from amc_latency.device.phone.attached import AttachedPhone, attached_phones
from amc_latency.device.phone.trust import hottest_c
from amc_latency.device.profiles import broken_profiles, get_profile, profiles
from amc_latency.errors import UserError
from amc_latency.measuring import opening


def devices_report(addresses: Sequence[str] = ()) -> dict[str, Any]:
    """Profiles by name, and every phone that is attached or at one of `addresses`, each asked what it is."""
    for address in addresses:
        if address_of(address) is None:
            raise UserError(f"'{address}' is no HOST:PORT, such as 192.168.1.20:5555")
    known = profiles()
    named = {
        name: {
            "title": title,
            "kind": known[name].kind if name in known else name,
            "matches": known[name].match.text if name in known else "",
        }
        for name, title in opening.device_names().items()
    }
    return {
        "profiles": named,
        "broken": broken_profiles(),
        "attached": [_fields(phone) for phone in attached_phones(addresses)],
    }


def devices_text(report: dict[str, Any]) -> None:
    """A row a profile, then a row a phone."""
    table = Table("device", "what it is", "recognised by")
    for name, profile in report["profiles"].items():
        table.add_row(name, profile["title"], profile["matches"])
    table_console().print(table, highlight=False)
    for problem in report["broken"].values():
        put(f"left out: {problem}")
    if not report["attached"]:
        put("no phone is attached; one in the network is asked by its address: amc-latency devices HOST:PORT")
        return
    table = Table(
        "serial", "profile", "model", "SoC", "Android", number_column("battery %"), number_column("°C"), "state", "via"
    )
    for phone in report["attached"]:
        figures = [phone["battery_pct"], phone["temperature_c"]]
        words = [phone[key] for key in ("serial", "profile", "model", "soc", "android")]
        table.add_row(*map(_cell, [*words, *figures, phone["state"], phone["via"]]))
    table_console().print(table, highlight=False)
    for phone in report["attached"]:
        if phone["problem"]:
            put(f"{phone['serial']}: {phone['problem']}")


def _fields(phone: AttachedPhone) -> dict[str, Any]:
    info, now = phone.info, phone.now
    hottest = None if now is None or phone.profile is None else hottest_c(now, get_profile(phone.profile).cool_down)
    return {
        "serial": phone.serial,
        "state": phone.state,
        "via": phone.via,
        "profile": phone.profile,
        "model": info and info.model,
        "soc": info and (info.soc or info.platform),
        "android": info and info.android,
        "abi": info and info.abi,
        "battery_pct": now and now.battery_pct,
        "temperature_c": hottest,
        "problem": phone.problem,
    }


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
