"""Who may import whom, how large a file may be, and what `import caa_lens` costs.

Every rule is a function of source text, so that the second half of this file can show each of them a violation.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "caa_lens"

FRONT_DOOR = ""  # the public names: it imports from every folder that has some, and no folder imports it
MAX_ENTRIES = 22


def _table() -> dict[str, tuple[str, ...]]:
    spec = importlib.util.spec_from_file_location("docs_folders", ROOT / "docs" / "folders.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.IMPORTS


IMPORTS = _table()

MODEL_CLASSES = {"HookedTransformer", "TransformerBridge"}
EMPTY_NAMES = re.compile(r"(^|_)(util|utils|helper|helpers|common|misc|shared)(_|$)")
HEAVY = ("transformer_lens", "transformers", "plotly", "circuitsvis", "pandas", "sklearn", "scipy")
MAX_LINES = 400
MAX_PUBLIC_NAMES = 18


def sources() -> dict[str, str]:
    """The package's source texts by dotted name below caa_lens ("" is its __init__)."""
    texts = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        texts[".".join(part for part in parts if part != "__init__")] = path.read_text(encoding="utf-8")
    return texts


def imported_names(text: str, module: str, *, for_types: bool = True) -> Iterator[str]:
    """Yields every dotted name that the text imports, also in functions and, for types, under TYPE_CHECKING."""
    tree = ast.parse(text)
    if not for_types:
        tree = _WithoutTypeChecking().visit(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # ruff's TID252 forbids these; were one to slip in, it should still count
                package = ["caa_lens", *module.split(".")][: -node.level]
                base = ".".join([*package, *base.split(".")] if base else package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


class _WithoutTypeChecking(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test).endswith("TYPE_CHECKING") else self.generic_visit(node)


def own_imports(text: str, module: str, modules: set[str], *, for_types: bool = True) -> Iterator[str]:
    """Yields the caa_lens modules that the text imports, by dotted name below caa_lens."""
    for name in imported_names(text, module, for_types=for_types):
        first, *rest = name.split(".")
        if first != "caa_lens" or rest == ["__version__"]:
            continue
        while rest and ".".join(rest) not in modules:
            rest.pop()  # a name inside a module
        yield ".".join(rest)


def folder_of(module: str) -> str:
    return module.split(".")[0]


def arrows(texts: Mapping[str, str]) -> set[tuple[str, str]]:
    """Which folder imports which, also in functions and for types; the front door's imports are left out."""
    found = {
        (folder_of(module), folder_of(target))
        for module, text in texts.items()
        for target in own_imports(text, module, set(texts))
    }
    return {(one, other) for one, other in found if one not in (other, FRONT_DOOR)}


def layer_violations(texts: Mapping[str, str], table: Mapping[str, tuple[str, ...]] = IMPORTS) -> list[str]:
    """What is in the code and not in the table."""
    new = [
        f"{folder} is not in docs/folders.py" for folder in sorted({folder_of(name) for name in texts} - {*table, ""})
    ]
    known = {(one, other) for one, targets in table.items() for other in targets}
    return new + [
        f"{one} imports {other or 'caa_lens'}" for one, other in sorted(arrows(texts) - known) if one in table
    ]


def upward(table: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Arrows of the table that point up, or to nothing: its order is from the top floor down."""
    place = {folder: number for number, folder in enumerate(table)}
    return [
        f"{one} -> {other}" for one, targets in table.items() for other in targets if place.get(other, -1) <= place[one]
    ]


def cycles(texts: Mapping[str, str]) -> list[str]:
    """Modules that import each other in a circle when the program runs; what only the type checker sees may."""
    modules = set(texts)
    graph = {name: set(own_imports(text, name, modules, for_types=False)) - {name} for name, text in texts.items()}
    while free := [module for module, targets in graph.items() if not targets & graph.keys()]:
        for module in free:
            del graph[module]
    return sorted(graph)


def knows_the_model_classes(texts: Mapping[str, str]) -> list[str]:
    """Modules outside the folder `models` that import transformer_lens or name one of its two classes in code."""
    found = []
    for module, text in texts.items():
        if folder_of(module) == "models":
            continue
        nodes = list(ast.walk(ast.parse(text)))
        imports = any(name.split(".")[0] == "transformer_lens" for name in imported_names(text, module))
        names = {node.id for node in nodes if isinstance(node, ast.Name)}
        names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        names |= {str(node.value) for node in nodes if isinstance(node, ast.Constant)}
        if imports or names & MODEL_CLASSES:
            found.append(module)
    return found


def heavy_imports(code: str) -> list[str]:
    """Runs the code in a new interpreter; returns the heavy packages that it loaded."""
    report = f"import sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    command = [sys.executable, "-c", f"{code}\n{report}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_imports_are_those_of_the_table():
    assert layer_violations(sources()) == []


def test_the_table_has_no_arrow_that_is_not_there():
    there = arrows(sources())
    assert [f"{one} -> {other}" for one, row in IMPORTS.items() for other in row if (one, other) not in there] == []


def test_every_arrow_points_down():
    assert upward(IMPORTS) == []


def test_the_root_has_few_entries_and_only_folders_hold_ideas():
    entries = sorted(path.name for path in PACKAGE.iterdir() if path.name not in ("__pycache__", "_data"))
    assert len(entries) <= MAX_ENTRIES, entries
    assert [name for name in entries if name.endswith(".py")] == ["__init__.py", "prompts.py", "sweeps.py"]


def test_a_folder_says_what_lives_there_who_imports_it_and_what_it_does_not_know():
    for folder in IMPORTS:
        if (PACKAGE / folder).is_dir():
            text = (PACKAGE / folder / "__init__.py").read_text(encoding="utf-8")
            said = ast.get_docstring(ast.parse(text)) or ""
            assert "import" in said and re.search(r"knows?\b", said), f"caa_lens/{folder}/__init__.py: {said}"


def test_no_module_imports_itself_through_others():
    assert cycles(sources()) == []


def test_only_models_knows_that_there_are_two_classes():
    assert knows_the_model_classes(sources()) == []


def test_no_file_holds_two_ideas():
    long = {name: text.count("\n") for name, text in sources().items() if text.count("\n") > MAX_LINES}
    assert long == {}


def test_every_file_is_named_for_what_it_does():
    assert [name for name in sources() if any(EMPTY_NAMES.search(part) for part in name.split("."))] == []


def test_the_front_door_is_small():
    import caa_lens

    assert caa_lens.__all__, "the public names are listed in __all__"
    assert len(caa_lens.__all__) <= MAX_PUBLIC_NAMES
    assert sorted(set(caa_lens.__all__)) == sorted(caa_lens.__all__)
    for name in caa_lens.__all__:
        assert getattr(caa_lens, name).__doc__


def test_importing_the_package_is_cheap():
    assert heavy_imports("import caa_lens") == []


def test_the_check_of_the_import_can_fail():
    assert heavy_imports("import caa_lens, pandas") == ["pandas"]


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("engine.branching", "from caa_lens.steering.steering import steer"),
        ("engine.branching", "from caa_lens.steering import steer"),
        ("engine.branching", "from caa_lens import steering"),
        ("engine.branching", "import caa_lens.steering"),
        ("engine.branching", "from ..steering import steer"),
        ("engine.branching", "def f():\n    from caa_lens.steering import steer"),
        ("engine.branching", "if TYPE_CHECKING:\n    from caa_lens.steering import steer"),
        ("engine.branching", "from caa_lens import load_model"),
        ("vectors", "from caa_lens.models import load_model"),
        ("evaluation.choices", "from caa_lens.cli import main"),
        ("evaluation.choices", "from ..cli import main"),
        ("viz.figures", "from caa_lens.vectors import SteeringVector"),
        ("organism.training", "from caa_lens.models import load_model"),
        ("surprise", ""),
    ],
)
def test_the_check_of_the_layers_can_fail(module, text):
    present = ("", "engine", "engine.branching", "cli", "models", "prompts", "steering", "sweeps", "vectors")
    assert len(layer_violations(dict.fromkeys(present, "") | {module: text})) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("steering.steering", "from caa_lens.engine.branching import branch"),
        ("vectors", "from caa_lens.vectors.provenance import Provenance"),
        ("viz.tokens", "from caa_lens.viz import figures"),
        ("cli.app", "from caa_lens.viz.figures import sweep_figure"),
        ("", "from caa_lens import steering"),
    ],
)
def test_the_check_of_the_layers_lets_the_permitted_pass(module, text):
    present = ("", "engine", "engine.branching", "vectors", "vectors.provenance", "viz", "viz.figures", "steering")
    assert layer_violations(dict.fromkeys(present, "") | {module: text}) == []


def test_the_check_for_upward_arrows_can_fail():
    assert upward({"cli": ("steering",), "steering": ()}) == []
    assert upward({"steering": (), "cli": ("steering",)}) == ["cli -> steering"]
    assert upward({"steering": ("engine",)}) == ["steering -> engine"]


def test_the_check_for_cycles_can_fail():
    texts = {"vectors": "from caa_lens import provenance", "provenance": "from caa_lens import vectors", "cli": ""}
    assert cycles(texts) == ["provenance", "vectors"]
    texts["vectors"] = "if TYPE_CHECKING:\n    from caa_lens import provenance"
    assert cycles(texts) == []


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    import transformer_lens.utils",
        "from transformer_lens import HookPoint",
        "if type(model).__name__ == 'HookedTransformer':\n    pass",
        "x = lens.TransformerBridge",
    ],
)
def test_the_check_for_model_classes_can_fail(text):
    assert knows_the_model_classes({"steering": text, "models": text}) == ["steering"]
