"""Numbers for people: base units with prefixes, intervals, ratios. Called by everything that shows one."""

from __future__ import annotations

import math
from typing import Any

_PREFIXES = [
    (1e12, "T"),
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1, ""),
    (1e-3, "m"),
    (1e-6, "µ"),
    (1e-9, "n"),
]


def format_quantity(value: float, unit: str) -> str:
    """Three significant digits and a prefix.

    >>> format_quantity(2.184e6, "1/s"), format_quantity(1.8e-6, "s"), format_quantity(0.953, "1")
    ('2.18 M/s', '1.80 µs', '0.953')
    >>> format_quantity(612.0, "W"), format_quantity(1.98e9, "Hz")
    ('612 W', '1.98 GHz')
    """
    factor, prefix = _prefix(value) if unit != "1" else (1, "")
    return f"{digits(value / factor)}{_suffix(unit, prefix)}"


def format_figure(figure: dict[str, Any]) -> str:
    """A stored figure with its interval.

    >>> format_figure({"value": 2.184e6, "unit": "1/s", "low": 2.15e6, "high": 2.2e6, "n": 12})
    '2.18 [2.15, 2.20] M/s'
    """
    value, unit, low, high = (figure[name] for name in ("value", "unit", "low", "high"))
    if low is None or high is None:
        return format_quantity(value, unit)
    factor, prefix = _prefix(value) if unit != "1" else (1, "")
    inside = f"[{digits(low / factor)}, {digits(high / factor)}]"
    return f"{digits(value / factor)} {inside}{_suffix(unit, prefix)}"


def figure_row(name: str, figure: dict[str, Any]) -> dict[str, str]:
    """One stored figure as text for a table."""
    ceiling = figure.get("ceiling")
    return {
        "name": name,
        "value": format_figure(figure),
        "n": f"{figure['n']:,}",
        "ceiling": format_quantity(ceiling, figure["unit"]) if ceiling else "",
        "share": f"{figure['value'] / ceiling:.0%}" if ceiling else "",
    }


def digits(value: float) -> str:
    """Three significant digits, without exponents between 0.001 and a million.

    >>> digits(1234.5), digits(12.345), digits(0.01234)
    ('1,234', '12.3', '0.0123')
    """
    if value == 0 or not math.isfinite(value):
        return str(value)
    magnitude = math.floor(math.log10(abs(float(f"{value:.2e}"))))  # of the rounded value
    if not -4 < magnitude < 6:
        return f"{value:.3g}"
    return f"{value:,.{max(0, 2 - magnitude)}f}"


def _prefix(value: float) -> tuple[float, str]:
    for factor, prefix in _PREFIXES:
        if value == 0:
            return 1, ""
        if abs(value) >= factor * 0.9995:
            return factor, prefix
    return _PREFIXES[-1]


def _suffix(unit: str, prefix: str) -> str:
    if unit == "1":
        return ""
    if unit == "1/s":
        return f" {prefix}/s"
    return f" {prefix}{unit}"
