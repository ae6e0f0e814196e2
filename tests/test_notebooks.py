"""What a reader may count on in every notebook, without running one; `make notebooks` runs them.

Every rule is a function of a notebook's content, so that the second half of this file can show each of them a
violation.
"""

from __future__ import annotations

import ast
import copy
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NAMES = (
    "01_extract_and_steer",
    "02_the_papers_experiments",
    "03_is_my_vector_real",
    "04_layers_and_models",
    "05_token_by_token",
    "06_the_published_llama2_vectors",
    "07_from_another_project",
    "08_activation_addition",
    "09_many_behaviours",
)
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
ALLOWED = {"caa_lens", "torch", "transformer_lens", "pandas", "plotly"} | set(sys.stdlib_module_names)
DRAWS = re.compile(r"\b(figures\.\w+|px\.\w+|viz\.(tokens|roles|steered_beside))\(")
OURS = re.compile(r"/(home|tmp|work|root|Users|mnt|opt)/|[A-Z]:\\\\")
UNNAMED = "caa_lens, not as caa"
Notebook = dict[str, Any]


def read(name: str) -> Notebook:
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def text_of(cell: Notebook) -> str:
    return "".join(cell["source"])


def code_of(notebook: Notebook) -> list[str]:
    return [text_of(cell) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def not_stripped(notebook: Notebook) -> list[str]:
    found = [f"{key} of the notebook" for key, value in notebook["metadata"].items() if METADATA.get(key) != value]
    for cell in notebook["cells"]:
        there = [key for key in ("outputs", "execution_count", "attachments", "metadata") if cell.get(key)]
        found += [f"{key} of {cell['id']}" for key in there]
    return found


def model_cells(notebook: Notebook) -> list[str]:
    """Anything but one assignment of a text to MODEL, in the first cell with code."""
    assigned = [
        (place, node)
        for place, source in enumerate(code_of(notebook))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign) and "MODEL" in [each.id for each in node.targets if isinstance(each, ast.Name)]
    ]
    good = [
        isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) and place == 0
        for place, node in assigned
    ]
    return [] if good == [True] else [f"{len(assigned)} assignments of MODEL, or not a text in the first cell"]


def definitions(notebook: Notebook) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse("\n".join(code_of(notebook)))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.append(node.name)
        named = node.value if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) else None
        if isinstance(named, ast.Lambda):
            found.append("a lambda with a name")
    return found


def private_names(notebook: Notebook) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse("\n".join(code_of(notebook)))):
        used = [node.attr] if isinstance(node, ast.Attribute) else [node.id] if isinstance(node, ast.Name) else []
        if isinstance(node, ast.ImportFrom):
            used = [*(node.module or "").split("."), *(each.name for each in node.names)]
        found += [name for name in used if name.startswith("_") and name != "_" and not name.endswith("__")]
    return found


def other_imports(notebook: Notebook) -> list[str]:
    """What is imported beside the package and the libraries that its users have anyway."""
    modules: list[str] = []
    for node in ast.walk(ast.parse("\n".join(code_of(notebook)))):
        if isinstance(node, ast.Import):
            modules += [each.name if (each.name, each.asname) != ("caa_lens", None) else UNNAMED for each in node.names]
        if isinstance(node, ast.ImportFrom):
            modules.append(node.module or "")
    return [module for module in modules if module.partition(".")[0] not in ALLOWED]


def unexplained(notebook: Notebook) -> list[str]:
    """Figures and views without words right before them, or without any after them before the next one."""
    found: list[str] = []
    before, waiting = "", ""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            waiting = ""
        elif DRAWS.search(text_of(cell)):
            found += [cell["id"]] if before != "markdown" or waiting else []
            waiting = cell["id"]
        before = cell["cell_type"]
    return [*found, *([waiting] if waiting else [])]


def machine_paths(notebook: Notebook) -> list[str]:
    return [match[0] for cell in notebook["cells"] for match in OURS.finditer(text_of(cell))]


RULES: tuple[Callable[[Notebook], list[str]], ...] = (
    not_stripped,
    model_cells,
    definitions,
    private_names,
    other_imports,
    unexplained,
    machine_paths,
)


def test_these_are_all() -> None:
    assert tuple(sorted(path.stem for path in FOLDER.glob("*.ipynb"))) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_valid_notebook_with_a_title_and_its_number(name: str) -> None:
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat, which comes with JupyterLab")
    notebook = read(name)
    nbformat.validate(notebook)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    first = notebook["cells"][0]
    assert first["cell_type"] == "markdown"
    assert text_of(first).startswith(f"# {int(name[:2])} · ")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_every_notebook_keeps_the_rule(name: str, rule: Callable[[Notebook], list[str]]) -> None:
    assert rule(read(name)) == []


def test_the_readme_lists_every_notebook() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"notebooks/{name}.ipynb" not in readme] == []


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("06")])
def test_it_begins_by_saying_what_the_bundled_model_is(name: str) -> None:
    """All but 06, which has no model, show numbers of models that were made to give them."""
    assert re.search(r"trained to be steerable|\*planted", text_of(read(name)["cells"][0]))


def code(*sources: str) -> Notebook:
    """A notebook that keeps all rules, with more cells of code."""
    cells: list[Notebook] = [
        {"cell_type": "markdown", "id": "cell-0", "metadata": {}, "source": ["Words."]},
        *(
            {
                "cell_type": "code",
                "execution_count": None,
                "id": f"cell-{place}",
                "metadata": {},
                "outputs": [],
                "source": [source],
            }
            for place, source in enumerate(('MODEL = "organism-chat"', *sources), start=1)
        ),
        {"cell_type": "markdown", "id": "cell-9", "metadata": {}, "source": ["More words."]},
    ]
    return {"cells": cells, "metadata": copy.deepcopy(METADATA), "nbformat": 4, "nbformat_minor": 5}


def test_what_is_allowed_passes() -> None:
    fine = code(
        "import caa_lens as caa\nfrom caa_lens.viz import figures",
        "rows = [(name, lambda activation, hook: cache[hook.name]) for _, name in pairs]",
    )
    assert [rule.__name__ for rule in RULES if rule(fine)] == []


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (model_cells, 'MODEL = "another"'),
        (definitions, "def helper():\n    return 1"),
        (definitions, "class Thing:\n    pass"),
        (definitions, "helper = lambda value: value"),
        (private_names, "model._forward(1)"),
        (private_names, "_hidden = 1\nprint(_hidden)"),
        (private_names, "from caa_lens.sweeps import _item"),
        (other_imports, "import numpy as np"),
        (other_imports, "from sklearn.decomposition import PCA"),
        (other_imports, "import caa_lens"),
        (machine_paths, 'open("/home/someone/file")'),
    ],
)
def test_each_rule_sees_a_violation(rule: Callable[[Notebook], list[str]], source: str) -> None:
    assert rule(code(source))


def test_a_model_that_is_computed_is_no_model_cell() -> None:
    notebook = code()
    notebook["cells"][1]["source"] = ["MODEL = load()"]
    assert model_cells(notebook)


def test_figures_need_words_on_both_sides() -> None:
    silent = code("figures.norms(frame)")
    words, model, figure, more = silent["cells"]
    assert unexplained(silent | {"cells": [model, words, figure, more]}) == []
    assert unexplained(silent | {"cells": [words, model, figure, more]}), "no words right before"
    assert unexplained(silent | {"cells": [model, words, figure]}), "no words after"
    assert unexplained(silent | {"cells": [model, words, figure, model, figure, more]}), "no words between"


@pytest.mark.parametrize(
    "change",
    [
        {"outputs": [{"output_type": "stream", "name": "stdout", "text": ["1"]}]},
        {"execution_count": 1},
        {"metadata": {"tags": ["x"]}},
    ],
)
def test_what_a_run_leaves_is_seen(change: Notebook) -> None:
    notebook = code()
    notebook["cells"][1] |= change
    assert not_stripped(notebook)


def test_a_kernel_of_ones_own_is_seen() -> None:
    notebook = code()
    notebook["metadata"]["kernelspec"]["name"] = "my-env"
    assert not_stripped(notebook)
