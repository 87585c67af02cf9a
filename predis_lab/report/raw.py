"""The samples of a whole run in one file each, as Parquet and as JSON, for whoever has the report. Called by `html`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..bench.results import SCHEMA

PARQUET, JSON = "samples.parquet", "samples.json"  # not "samples.*.parquet", which notebooks write


def write_raw(directory: Path) -> None:
    """Writes both, row by row the same, from what the notebooks wrote; each sample also says which notebook that was."""
    found = sorted(directory.glob("samples.*.parquet"))
    tables = [
        pq.read_table(file, schema=SCHEMA).append_column(
            "notebook", pa.array([file.name.split(".")[1]] * pq.read_metadata(file).num_rows, pa.string())
        )
        for file in found
    ]  # fmt: skip
    table = pa.concat_tables(tables) if tables else SCHEMA.append(pa.field("notebook", pa.string())).empty_table()  # fmt: skip
    temporary = directory / f".{PARQUET}"
    pq.write_table(table, temporary, compression="zstd")
    os.replace(temporary, directory / PARQUET)
    rows = (json.dumps(row | {"params": json.loads(row["params"])}) for row in table.to_pylist())
    temporary = directory / f".{JSON}"
    temporary.write_text("[" + ",\n".join(rows) + "]\n")
    os.replace(temporary, directory / JSON)
