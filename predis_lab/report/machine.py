"""What a run ran on and against, as text. Called by notebooks and the report."""

from __future__ import annotations

from typing import Any

from . import units

Rows = list[tuple[str, str]]


def machine_rows(environment: dict[str, Any]) -> Rows:
    """What a run ran on, as pairs of label and text."""
    if not environment:
        return []
    gpu = environment.get("gpu")
    rows = [
        ("Recorded", environment["recorded_at"]),
        ("Commit", environment["commit"] or "not known"),
        (
            "GPU",
            f"{gpu['name']}, driver {gpu['driver']}"
            if gpu
            else "none: Predis runs on its host table",
        ),
        ("CPU", f"{environment['cores']} cores of {environment['cpu']}"),
        ("Memory", units.format_quantity(environment["memory_nbytes"], "B")),
        ("Python", environment["python"]),
    ]
    for server in environment.get("servers", {}).values():
        threads = server["configuration"].get("io-threads", "?")
        rows.append(
            (
                server["name"].capitalize(),
                f"{server['version']}, {server['allocator']}, {threads} io-thread(s), {server['source']}",
            )
        )
    return rows


def in_short(environment: dict[str, Any]) -> str:
    """The machine in one line."""
    if not environment:
        return "a machine that the run does not name"
    gpu = environment.get("gpu")
    host = f"{environment['cores']} cores of {environment['cpu']}"
    return f"{gpu['name']}, {host}" if gpu else f"{host}, no GPU: Predis on its host table"


def when(environment: dict[str, Any]) -> str:
    """The day of a run, or the first and the last of its notebooks."""
    ran = [environment, *environment.get("notebooks", {}).values()]
    days = sorted({one["recorded_at"][:10] for one in ran if "recorded_at" in one})
    return " to ".join(days[:1] + days[1:][-1:]) or "no date"


def details(environment: dict[str, Any]) -> Rows:
    """What it takes beyond that to set the like up again: clocks, link, system, packages, and when each notebook ran."""
    rows = []
    if gpu := environment.get("gpu"):
        told = {
            "memory": units.format_quantity(gpu["memory_nbytes"], "B") if gpu.get("memory_nbytes") else None,
            "CUDA": gpu.get("cuda"),
            "multiprocessor clock, MHz": gpu.get("sm_clock_mhz"),
            "at most": gpu.get("sm_clock_max_mhz"),
            "memory clock, MHz": gpu.get("memory_clock_mhz"),
            "power limit, W": gpu.get("power_limit_w"),
            "PCIe generation": gpu.get("link_generation"),
            "lanes": gpu.get("link_width"),
            "ECC": {True: "on", False: "off"}.get(gpu.get("ecc")),
        }  # fmt: skip
        rows.append(("GPU in detail", _told(told)))
    rows += [
        ("Linux", environment.get("kernel") or "not known"),
        ("Predis Lab", environment.get("predis_lab") or "not known"),
        ("Packages", _told(environment.get("packages", {}))),
    ]
    rows += [
        (name, f"{ran['recorded_at']}, commit {ran['commit'] or 'not known'}")
        for name, ran in sorted(environment.get("notebooks", {}).items())
    ]
    return rows


def opponents(environment: dict[str, Any]) -> Rows:
    """Each server as it described itself: version, configuration, client, ways to reach it."""
    rows = []
    for server in environment.get("servers", {}).values():
        name = server["name"].capitalize()
        options = ", ".join(f"{option} {value!r}" for option, value in sorted(server["configuration"].items()))  # fmt: skip
        rows += [
            (name, f"{server['version']}, {server['allocator']}, from {server['source']}"),
            (f"{name}'s configuration", options),
            (f"{name}'s client", _told(server.get("client", {}))),
            (f"{name} is reached by", ", ".join(server.get("transports", []))),
        ]
    return rows


def _told(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
