"""Who may import whom, how large a file may be, and what `import caa_lens` costs.

Every rule is a function of source text, so that the second half of this file can show each of them a violation.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "caa_lens"

# A unit is one idea; a file that grew too long is split into several files of one unit, which may import each other.
# Imports point to a lower level.
LEVELS: dict[int, dict[str, tuple[str, ...]]] = {
    -1: {"whole_files": ("whole_files",)},
    0: {
        "contrast": ("contrast", "records", "texts"),
        "vectors": (
            *("vectors", "provenance", "vector_files"),
            *("interventions", "operations", "prompt_additions", "schedules"),
        ),
        "models": ("models", "adapters", "sites"),
    },
    1: {
        "prompts": ("prompts",),
        "branching": ("branching", "decoding", "edits", "hooking", "memory", "packing"),
    },
    2: {"extraction": ("extraction",), "steering": ("steering", "conditions", "entering", "positions")},
    3: {
        "sweeps": ("sweeps",),
        "analysis": ("analysis",),
        "estimators": ("estimators",),
        "evaluation": ("evaluation",),
        "interop": ("interop",),
        "activation_addition": ("activation_addition",),
        "nulls": ("nulls",),
    },
    4: {
        "viz": ("viz",),
        "organism": ("organism",),
        "assessment": ("assessment",),
        "broad_skills": ("broad_skills",),
        "capabilities": ("capabilities",),
        "composition": ("composition",),
        "baselines": ("baselines",),
        "hallucination": ("hallucination",),
        "red_teaming": ("red_teaming",),
        "style": ("style",),
        "transfer": ("transfer",),
        "selection": ("selection",),
    },
    5: {
        "experiment": (
            *("experiment", "findings", "run_folder", "scaling", "settings"),
            *("study_data", "study_files", "study_measures", "study_report", "study_run", "study_texts"),
        ),
        "cli": ("cli", "commands", "__main__"),
        "explorer": ("explorer", "looking"),
    },
    6: {"caa_lens": ("",)},  # the public names
}
# Narrower than "anything below": viz draws pandas and torch values; organism makes data, models and the vectors
# that were planted in them, not experiments.
ONLY: dict[str, set[str]] = {"viz": {"whole_files"}, "organism": {"contrast", "prompts", "vectors"}}
# Sideways or up, on purpose: load_model finds the bundled models with contrast.data_dir, questions that invite
# invention come from the bundled world where nobody writes them, the command line runs studies, and what is built on
# top of everything may use the public names.
ALSO: set[tuple[str, str]] = {
    ("models", "contrast"),
    ("hallucination", "organism"),
    ("cli", "experiment"),
    ("cli", "caa_lens"),
    ("experiment", "caa_lens"),
}

UNIT_OF = {part: unit for units in LEVELS.values() for unit, parts in units.items() for part in parts}
LEVEL_OF = {unit: level for level, units in LEVELS.items() for unit in units}

MODEL_CLASSES = {"HookedTransformer", "TransformerBridge"}
EMPTY_NAMES = re.compile(r"(^|_)(util|utils|helper|helpers|common|misc|shared)(_|$)")
HEAVY = ("transformer_lens", "transformers", "plotly", "circuitsvis", "pandas", "sklearn", "scipy")
MAX_LINES = 400
MAX_PUBLIC_NAMES = 16


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
        if first != "caa_lens":
            continue
        while rest and ".".join(rest) not in modules:
            rest.pop()  # a name inside a module
        yield ".".join(rest)


def unit_of(module: str) -> str | None:
    return UNIT_OF.get(module.split(".")[0])


def layer_violations(texts: Mapping[str, str]) -> list[str]:
    found = []
    for module, text in texts.items():
        unit = unit_of(module)
        if unit is None:
            found.append(f"{module} has no place in the table of levels (tests/test_layout.py and the README's map)")
            continue
        for target in own_imports(text, module, set(texts)):
            other = unit_of(target)
            if other is None or other == unit or (unit, other) in ALSO:
                continue
            if LEVEL_OF[other] >= LEVEL_OF[unit] or (unit in ONLY and other not in ONLY[unit]):
                found.append(f"{module} imports {target or 'caa_lens'}")
    return found


def cycles(texts: Mapping[str, str]) -> list[str]:
    """Modules that import each other in a circle when the program runs; what only the type checker sees may."""
    modules = set(texts)
    graph = {name: set(own_imports(text, name, modules, for_types=False)) - {name} for name, text in texts.items()}
    while free := [module for module, targets in graph.items() if not targets & graph.keys()]:
        for module in free:
            del graph[module]
    return sorted(graph)


def knows_the_model_classes(texts: Mapping[str, str]) -> list[str]:
    """Modules outside the unit `models` that import transformer_lens or name one of its two classes in code."""
    found = []
    for module, text in texts.items():
        if unit_of(module) == "models":
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


def test_imports_point_down():
    assert layer_violations(sources()) == []


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
        ("branching", "from caa_lens.steering import steer"),
        ("branching", "from caa_lens import steering"),
        ("branching", "import caa_lens.steering"),
        ("branching", "from .steering import steer"),
        ("branching", "def f():\n    from caa_lens.steering import steer"),
        ("branching", "if TYPE_CHECKING:\n    from caa_lens.steering import steer"),
        ("branching", "from caa_lens import load_model"),
        ("branching", "from caa_lens import prompts"),
        ("vectors", "from caa_lens.models import load_model"),
        ("evaluation.choices", "from caa_lens.sweeps import sweep"),
        ("evaluation.choices", "from ..cli import main"),
        ("viz.figures", "from caa_lens.vectors import SteeringVector"),
        ("organism.training", "from caa_lens.models import load_model"),
        ("surprise", ""),
    ],
)
def test_the_check_of_the_layers_can_fail(module, text):
    present = ("", "branching", "cli", "models", "prompts", "steering", "sweeps", "vectors")
    assert len(layer_violations(dict.fromkeys(present, "") | {module: text})) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("steering", "from caa_lens.branching import branch"),
        ("vectors", "from caa_lens.provenance import Provenance"),
        ("viz.tokens", "from caa_lens.viz import figures"),
        ("cli", "import caa_lens"),
        ("cli", "from caa_lens.viz.figures import sweep_figure"),
    ],
)
def test_the_check_of_the_layers_lets_the_permitted_pass(module, text):
    present = ("", "branching", "provenance", "viz", "viz.figures")
    assert layer_violations(dict.fromkeys(present, "") | {module: text}) == []


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
