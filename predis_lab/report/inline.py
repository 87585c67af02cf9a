"""Figures as elements of a page, light or dark as the page is. Called by `html`."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from .figures import INK, LINE, SOFT

# Colours of the style by the names of the variables that a page has for them.
_NAMES = {
    INK: "ink",
    SOFT: "soft",
    LINE: "line",
    "#ffffff": "card",
    "#0072b2": "blue",
    "#56b4e9": "sky",
    "#d55e00": "red",
    "#e69f00": "orange",
    "#8a6fa8": "purple",
    "#009e73": "green",
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_OPENING = re.compile(r'<svg.*?viewBox="([^"]*)".*?>', re.DOTALL)
# Text stays text, in the page's type; figures are laid out to fit, so nothing has to be cut off.
_OPTIONS: Any = {"svg.fonttype": "none", "svg.hashsalt": "predis-lab", "savefig.bbox": None}


def svg(figure: Figure) -> str:
    """The figure without anything that only files need, its colours replaced by the page's variables."""
    file = io.StringIO()
    with plt.rc_context(_OPTIONS):
        figure.savefig(file, format="svg", metadata=_NO_METADATA, transparent=True)
    text = file.getvalue()
    text = _OPENING.sub(r'<svg viewBox="\1">', text[text.index("<svg") :], count=1)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # several figures share a page
    text = re.sub(r'font-family: [^;"]*;?', "", text)
    for colour, name in _NAMES.items():
        text = re.sub(rf"(?<=: ){colour}\b", f"var(--{name})", text, flags=re.IGNORECASE)
    return text
