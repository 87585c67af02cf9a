"""Constants of machines on disk, a file for each GPU, driver and version of the project. Called by `measuring`.

A file that is damaged, or tells of something else, counts as none, and the next one to be written takes its place.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

from .stages import Machine

Identity = dict[str, str | int]  # all that constants depend on


def read(directory: Path, identity: Identity) -> Machine | None:
    """What was written for exactly this, or None."""
    try:
        told = json.loads(_file(directory, identity).read_text())
        return Machine.from_json(told["machine"]) if told["identity"] == identity else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write(directory: Path, identity: Identity, machine: Machine) -> bool:
    """Whether it could be written; another process sees all of it or nothing."""
    text = json.dumps({"identity": identity, "machine": asdict(machine)}, indent=1)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory) as passing:
            written = Path(passing) / "tuning"
            written.write_text(text + "\n")
            os.replace(written, _file(directory, identity))
    except OSError:
        return False
    return True


def _file(directory: Path, identity: Identity) -> Path:
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return directory / f"tuning-{digest[:16]}.json"
