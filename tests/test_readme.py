"""README's generated part: written from a run, between its markers, and nowhere else."""

import numpy as np
import pytest

from predis_lab.bench import results
from predis_lab.report import readme

TEXT = "before\n<!-- generated: begin -->\nold\n<!-- generated: end -->\nafter\n"


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A recorded run of some GPU, in a project of its own."""
    run = results.Run.open(tmp_path / "outputs" / "reference" / "some-gpu", notebook="t")
    generator = np.random.default_rng(2)
    for system, rate in (
        ("predis-cuda columns", 4e6),
        ("redis mget unix", 2e6),
        ("redis pipeline tcp", 1e6),
    ):
        for block in range(12):
            params = {"records": readme.RECORDS, "keys": 1000}
            value = rate * (1 + 0.001 * generator.random())
            run.add_sample(system, "get", params, block, "throughput", value, "1/s")
    run.add_figure("find_64v", 7.654e9, "1/s", low=7.6e9, high=7.7e9, n=6)
    run.save([{"name": "redis", "version": "8.2.3"}])
    environment = results.read_environment(run.directory) | {"gpu": {"name": "Some GPU"}}
    results._write_json(run.directory / "environment.json", environment)
    monkeypatch.setattr(readme, "reference_directory", lambda: run.directory)
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    return tmp_path


def test_the_part_between_the_markers_is_written_from_the_run(recorded):
    page = recorded / "README.md"
    page.write_text(TEXT)
    readme.update_readme(page)
    text = page.read_text()
    assert text.startswith("before\n<!--") and text.endswith("-->\nafter\n") and "old" not in text
    (row,) = [line for line in text.splitlines() if line.startswith("| 1,000 |")]
    assert "| columns | 2.00x [" in row and "| 4.00x [" in row and row.count("faster") == 2
    assert "7.65 [7.60, 7.70] G/s" in text and "insert of new keys" not in text
    assert "Some GPU" in text and "8.2.3" in text and "outputs/reference/some-gpu" in text
    assert (recorded / readme.FIGURE).read_text().lstrip().startswith("<?xml")
    readme.update_readme(page)
    assert page.read_text() == text


def test_without_markers_or_a_run_nothing_is_written(recorded, monkeypatch):
    page = recorded / "README.md"
    page.write_text("no markers\n")
    with pytest.raises(readme.ReadmeError, match="generated"):
        readme.update_readme(page)
    monkeypatch.setattr(readme, "reference_directory", lambda: None)
    with pytest.raises(readme.ReadmeError, match="no reference run"):
        readme.update_readme(page)
    assert page.read_text() == "no markers\n" and not (recorded / readme.FIGURE).exists()
