"""A run beside the recorded one, and its samples as they are handed on."""

import json

import pandas as pd
import pytest
from made import RECORDS, Made

from predis_lab.bench import regressions, results
from predis_lab.report import raw, tables
from predis_lab.report.facts import Facts


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path / "run")


@pytest.fixture
def recorded(made, monkeypatch, tmp_path):
    """A run, and one of the same machine in the place of recorded runs, in which one cell was twice as fast."""
    monkeypatch.setattr(results, "REFERENCE", tmp_path / "reference")
    made.add("predis-host lists", 1e6)
    made.add("redis mget unix", 1e6)
    made.facts()
    name = regressions.default_baseline  # raises: there is none yet
    with pytest.raises(regressions.NoRunError) as told:
        name(made.run.directory)
    earlier = Made(tmp_path / "reference" / str(told.value).rpartition("/")[2])
    earlier.add("predis-host lists", 2e6)
    earlier.add("redis mget unix", 1e6)
    earlier.facts()
    return made.run.directory, earlier.run.directory


def test_what_became_slower_is_shown(recorded):
    directory, earlier = recorded
    sentence, table = tables.changes(Facts.of(directory))
    assert earlier.name in sentence and "1 regressed, 0 improved, 1 same" in sentence
    ((heading, (row,)),) = table.groups
    assert heading == "Slower: 1" and row[0] == "predis-host lists" and row[5].startswith("0.5")
    sentence, table = tables.changes(Facts.of(earlier))
    assert "this is the recorded run" in sentence and table is None


def test_without_a_recorded_run_it_says_so(made, monkeypatch, tmp_path):
    monkeypatch.setattr(results, "REFERENCE", tmp_path / "none")
    made.add("predis-host lists", 1e6)
    sentence, table = tables.changes(made.facts())
    assert "there is no recorded run" in sentence and table is None


# ---- Raw data


def test_raw_data_is_what_the_notebooks_wrote(tmp_path):
    for notebook, system in (("06_one", "predis-host lists"), ("07_two", "dict")):
        made = Made(tmp_path, notebook)
        made.add(system, 1e6)
        made.run.save()
    raw.write_raw(tmp_path)
    told = json.loads((tmp_path / raw.JSON).read_text())
    stored = pd.read_parquet(tmp_path / raw.PARQUET)
    samples = results.read_samples(tmp_path)  # does not read what was written just now
    assert len(told) == len(stored) == len(samples) == 24
    assert [row["value"] for row in told] == stored["value"].tolist() == samples["value"].tolist()
    assert told[0]["params"] == {"keys": 10, "records": RECORDS, "value_nbytes": 64}
    assert {(row["notebook"], row["system"]) for row in told} == {
        ("06_one", "predis-host lists"),
        ("07_two", "dict"),
    }


def test_an_empty_run_has_empty_raw_data(tmp_path):
    raw.write_raw(tmp_path)
    assert json.loads((tmp_path / raw.JSON).read_text()) == []
    assert len(pd.read_parquet(tmp_path / raw.PARQUET)) == 0
