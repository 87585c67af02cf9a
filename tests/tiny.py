"""Folders of tiny notebooks, and waiting for what they do, for tests of what executes notebooks."""

import contextlib
import time

import nbformat
import psutil


def notebook(*cells, parameters="size = 1  # of it\nrun_dir = ''  # where\n"):
    found = [nbformat.v4.new_markdown_cell("# A title")]
    if parameters is not None:
        found.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    found += [nbformat.v4.new_code_cell(text) for text in cells]
    spec = {"name": "python3", "language": "python", "display_name": "Python 3"}
    metadata = {"kernelspec": spec, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=found, metadata=metadata)


class Project:
    """Folders of notebooks and params; `add` puts a notebook and its parameters there."""

    def __init__(self, root):
        self.root = root
        self.notebooks, self.params = root / "notebooks", root / "params"
        self.notebooks.mkdir(parents=True)
        self.params.mkdir()

    def add(self, name, *cells, yaml="size: 2\n", profile="smoke", **options):
        nbformat.write(notebook(*cells, **options), self.notebooks / f"{name}.ipynb")
        if yaml is not None:
            (self.params / f"{name}.{profile}.yaml").write_text(yaml)


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def gone(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True
