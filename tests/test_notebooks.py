"""The notebooks' form, without executing them: skeleton, parameters, short cells, nothing left behind.

Each rule is a function that yields what is wrong. It is asked of every notebook there is, and of one that breaks it.
"""

import ast
import io
import re
import tokenize
from pathlib import Path

import nbformat
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager

from predis_lab.report import runner

ROOT = Path(__file__).parents[1]
NOTEBOOKS, PARAMS = ROOT / "notebooks", ROOT / "params"
TEMPLATE = NOTEBOOKS / "template.ipynb"
PROFILES = ("smoke", "nightly", "deep")
MOST_LINES, MOST_HELPER_LINES = 20, 6
# What every notebook has, as words of its headings, in order; the numbered sections stand in between.
SKELETON = ("learn", "environment", "saw", "limit", "reference")

ALL = sorted(NOTEBOOKS.glob("*.ipynb"))
SERIES = sorted(NOTEBOOKS.glob(runner.NUMBERED))


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


def parsed(text):
    """A cell's syntax tree; magics and shell commands count as calls."""
    return ast.parse(TransformerManager().transform_cell(text))


def headings(notebook):
    """Second-level headings without a number, and lines in bold that serve as such."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    text = re.sub(r"(?ms)^```.*?^```", "", text)
    found = re.findall(r"^(?:## +|\*\*(?=[^*]+\*\*$))([^*\n]+)", text, re.MULTILINE)
    return [heading.strip() for heading in found if not re.match(r"\d", heading)]


# ---- Rules


def kernel_is_python3(notebook):
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernelspec is not python3"


def begins_with_a_title(notebook):
    first = notebook.cells[0]
    if first.cell_type != "markdown" or not re.match(r"# \S", first.source):
        yield "the first cell is no title"


def has_one_parameters_cell(notebook):
    count = sum("parameters" in tags(cell) for cell in notebook.cells)
    if count != 1:
        yield f"{count} cells are tagged parameters"


def parameters_are_literals_with_comments(notebook):
    cells = [cell for cell in code_cells(notebook) if "parameters" in tags(cell)]
    for cell in cells:
        lines = cell.source.splitlines()
        tokens = list(tokenize.generate_tokens(io.StringIO(cell.source).readline))
        comments = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
        names = set()
        for node in ast.parse(cell.source).body:
            text = lines[node.lineno - 1]
            target = target_of(node)
            if not isinstance(target, ast.Name):
                yield f"{text!r} sets no single name"
                continue
            names.add(target.id)
            value = literal(node.value)
            if not is_typed(value):
                yield f"{text!r} is no typed literal"
            before = lines[node.lineno - 2].lstrip() if node.lineno > 1 else ""
            own = comments & set(range(node.lineno, node.end_lineno + 1))
            if not own and not before.startswith("#"):
                yield f"{text!r} has no comment"
            if target.id == "run_dir" and value != "":
                yield f"{text!r} should be empty"
        if "run_dir" not in names:
            yield "there is no run_dir"


def target_of(node):
    """What a statement sets, where it is one thing."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return targets[0] if len(targets) == 1 else None


def literal(node):
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def parameters_of(notebook):
    """The defaults of a notebook's parameters by name."""
    (cell,) = [cell for cell in code_cells(notebook) if "parameters" in tags(cell)]
    return {target_of(node).id: literal(node.value) for node in ast.parse(cell.source).body}


def is_typed(value):
    if isinstance(value, list):
        return all(is_typed(item) and not isinstance(item, list) for item in value)
    return isinstance(value, (int, float, str, bool))


def cells_are_short(notebook):
    for cell in code_cells(notebook):
        lines = cell.source.rstrip().splitlines()
        if len(lines) > MOST_LINES:
            yield f"{len(lines)} lines: {lines[0]!r} ..."


def helpers_are_short(notebook):
    for cell in code_cells(notebook):
        for node in ast.walk(parsed(cell.source)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
                if node.end_lineno - first + 1 > MOST_HELPER_LINES:
                    yield f"{node.name} has {node.end_lineno - first + 1} lines"


def ignored_outputs_are_not_stored(notebook):
    for cell in code_cells(notebook):
        if "nbval-ignore-output" in tags(cell) and (cell.outputs or cell.execution_count):
            yield f"an output is stored: {cell.source[:40]!r}"


def headings_follow_the_skeleton(notebook):
    left = iter(headings(notebook))
    for word in SKELETON:
        if not any(word in heading.lower() for heading in left):
            yield f"no heading says {word!r}, or not in this order"


RULES = [
    kernel_is_python3,
    begins_with_a_title,
    has_one_parameters_cell,
    parameters_are_literals_with_comments,
    cells_are_short,
    helpers_are_short,
    ignored_outputs_are_not_stored,
    headings_follow_the_skeleton,
]


# ---- The notebooks


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_notebook_keeps_the_rules(path, rule):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert list(rule(notebook)) == []


@pytest.mark.parametrize("path", SERIES, ids=lambda path: path.stem)
def test_a_notebook_has_the_template_s_headings(path):
    left = iter([heading.lower() for heading in headings(nbformat.read(path, 4))])
    for heading in headings(nbformat.read(TEMPLATE, 4)):
        assert heading.lower() in left, f"{heading!r} is missing, or not in the template's order"


def test_there_is_a_template():
    assert TEMPLATE.exists() and TEMPLATE not in SERIES
    assert len(SERIES) >= 2


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("path", SERIES, ids=lambda path: path.stem)
def test_every_profile_has_parameters_that_the_notebook_has(path, profile):
    file = PARAMS / f"{path.stem}.{profile}.yaml"
    assert file.exists()
    parameters = yaml.safe_load(file.read_text()) or {}
    assert "run_dir" not in parameters
    runner.check_parameters(path, parameters, file)
    defaults = parameters_of(nbformat.read(path, 4))
    for name, value in parameters.items():
        kinds = (int, float) if type(defaults[name]) is float else type(defaults[name])
        assert isinstance(value, kinds), f"{name} is {value!r} instead of {defaults[name]!r}"


def test_every_parameters_file_belongs_to_a_notebook():
    expected = {f"{path.stem}.{profile}.yaml" for path in SERIES for profile in PROFILES}
    assert {file.name for file in PARAMS.glob("*")} <= expected


# ---- The rules

PARAMETERS = "size = 1  # of a batch\n# where results go\nrun_dir = ''"


def markdown(text):
    return nbformat.v4.new_markdown_cell(text)


def code(text, *names, **options):
    return nbformat.v4.new_code_cell(text, metadata={"tags": list(names)}, **options)


def notebook_of(*cells, title="# A title\nand a question", kernel="python3", parameters=PARAMETERS):
    """A notebook that keeps every rule but those that its arguments break."""
    sections = (
        "**What you will learn**\n## Environment\n## What we saw\n## Limits of it\n## References"
    )
    found = [markdown(title), code(parameters, "parameters"), *cells, markdown(sections)]
    metadata = {"kernelspec": {"name": kernel, "display_name": "", "language": "python"}}
    return nbformat.v4.new_notebook(cells=found, metadata=metadata)


def in_order(*sections):
    """A notebook with nothing but these headings."""
    return nbformat.v4.new_notebook(cells=[markdown(f"## {section}") for section in sections])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_notebook_passes(rule):
    helper = "def f():\n" + "    pass\n" * 5
    good = notebook_of(
        code("%matplotlib inline\n!ls\n" + helper),
        code("1\n" * 20),
        code("print(1)", "nbval-ignore-output"),
        code("1", outputs=[nbformat.v4.new_output("stream", text="kept")]),
        parameters=PARAMETERS
        + "\nkeys = [1, 2]  # a call\nlow: float = -0.5  # bound\non = True  # or not",
    )
    assert list(rule(good)) == []


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        (kernel_is_python3, notebook_of(kernel="my-env")),
        (begins_with_a_title, notebook_of(title="No title")),
        (begins_with_a_title, notebook_of(title="## Too deep")),
        (has_one_parameters_cell, notebook_of(code("a = 1", "parameters"))),
        (has_one_parameters_cell, nbformat.v4.new_notebook(cells=[code("a = 1")])),
        *[
            (parameters_are_literals_with_comments, notebook_of(parameters=text))
            for text in (
                "size = 1  # of a batch",
                PARAMETERS + "\nother = 2",
                PARAMETERS + "\nother = size * 2  # derived",
                PARAMETERS + "\nother = None  # of no type",
                PARAMETERS + "\nother = {'a': 1}  # not flat",
                PARAMETERS + "\nother = [[1]]  # not flat",
                PARAMETERS + "\na = b = 1  # two names",
                PARAMETERS + "\nimport os  # of all things",
                "run_dir = 'outputs/mine'  # where",
                "run_dir = '# no comment'",
            )
        ],
        (cells_are_short, notebook_of(code("1\n" * 21))),
        (helpers_are_short, notebook_of(code("def f():\n" + "    pass\n" * 6))),
        (helpers_are_short, notebook_of(code("%time\nclass A:\n" + "    a = 1\n" * 6))),
        (helpers_are_short, notebook_of(code("@g\ndef f():\n" + "    pass\n" * 5))),
        *[
            (ignored_outputs_are_not_stored, notebook_of(code("1", "nbval-ignore-output", **left)))
            for left in (
                {"outputs": [nbformat.v4.new_output("stream", text="left")]},
                {"execution_count": 3},
            )
        ],
        (headings_follow_the_skeleton, nbformat.v4.new_notebook(cells=[markdown("# A title")])),
        (headings_follow_the_skeleton, in_order("You learn", "Environment", "We saw", "Limits")),
        (
            headings_follow_the_skeleton,
            in_order("Learn", "Environment", "Saw", "References", "Limits"),
        ),
    ],
)
def test_a_bad_notebook_is_found(rule, bad):
    assert list(rule(bad)) != []


def test_numbered_and_fenced_headings_are_not_the_skeleton():
    text = (
        "# Title\n**Why?** So.\n**Learn**\n## 1 · Measure\n## We saw\n```\n## code\n```\n### deep"
    )
    assert headings(nbformat.v4.new_notebook(cells=[markdown(text)])) == ["Learn", "We saw"]
