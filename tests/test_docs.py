"""What the documentation says is there, and what its examples show is what comes out.

Every rule is a function of a page's text, so that the last part of this file can show each of them a violation. That
the site builds, and that pages fetch nothing from a network, is checked where mkdocs is installed.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import caa_lens as caa
import caa_lens.cli.options as options

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
COMMAND_LINE = ("cli", "commands")  # on the page of commands
FOLDERS = "caa_lens|data|docs|notebooks|tests"


def _writer() -> Any:
    spec = importlib.util.spec_from_file_location("docs_write", DOCS / "write.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


write = _writer()
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in write.pages()}
RUN = [name for name, text in PAGES.items() if write.examples(text)]


def with_included(text: str) -> str:
    """A page with the files that it includes."""
    return re.sub(r'^--8<-- "(.+?)"$', lambda found: (ROOT / found[1]).read_text("utf-8"), text, flags=re.MULTILINE)


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return write.FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as Python-Markdown makes them."""
    headings = re.findall(r"^#+ (.+?)$", prose(text), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", re.sub(r"\[(.+?)\][\[(].*?[\])]", r"\1", heading)) for heading in headings]
    return {re.sub(r"[-\s]+", "-", heading.strip().lower()) for heading in plain}


def broken_links(page: str, pages: dict[str, str]) -> Iterator[str]:
    """The links of a page, and its pictures, that lead nowhere in the documentation."""
    for target in re.findall(r"(?<!`)\]\(((?!https?:)[^)\s]+)\)", prose(pages[page])):
        path, _, anchor = target.partition("#")
        name = os.path.normpath(Path(page).parent / path).replace(os.sep, "/") if path else page
        there = name in pages or (not name.endswith(".md") and (DOCS / name).is_file())
        if not there or (anchor and anchor not in anchors(with_included(pages[name]))):
            yield target


def broken_references(text: str) -> Iterator[str]:
    """The references to code that there is not, such as ``[`sweep`][caa_lens.sweeps.swoop]``."""
    for target in re.findall(r"\]\[(caa_lens[\w.]*)\]", prose(text)):
        module, name = target, None
        if importlib.util.find_spec(module.rpartition(".")[0]) and not _is_module(module):
            module, _, name = target.rpartition(".")
        if not _is_module(module) or (name and not hasattr(importlib.import_module(module), name)):
            yield target


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def missing_names(text: str) -> Iterator[str]:
    """What a text calls, in code, a name of the package or a file of the repository, and what is none.

    ``NAME`` in a path stands for any name, and so does ``*``.
    """
    for code in re.findall(r"`([^`\n]+)`", prose(text)):
        if found := re.match(r"(?:caa_lens|caa)((?:\.[A-Za-z_]\w*)+)", code):
            name = "caa_lens" + found[1]
            if not _is_there(name):
                yield name
        elif found := re.fullmatch(rf"(?:{FOLDERS})/[\w./*-]+", code):
            if not any(ROOT.glob(code.rstrip("/").replace("NAME", "*"))):
                yield code


def _is_there(name: str) -> bool:
    """Whether a dotted name can be reached: a module, a name in it, or a field of a class in it."""
    parts = name.split(".")
    at = next(length for length in range(len(parts), 0, -1) if _is_module(".".join(parts[:length])))
    value: Any = importlib.import_module(".".join(parts[:at]))
    for part in parts[at:]:
        if not hasattr(value, part):
            return part in getattr(value, "__annotations__", {}) and part == parts[-1]
        value = getattr(value, part)
    return True


def documented(pages: dict[str, str]) -> list[str]:
    """The modules that the API pages show, below caa_lens."""
    return [name for text in pages.values() for name in re.findall(r"^::: caa_lens\.(\S+)$", text, re.MULTILINE)]


def modules() -> set[str]:
    """The package's modules, without those of the command line."""
    names = [path.relative_to(ROOT / "caa_lens").with_suffix("").parts for path in (ROOT / "caa_lens").rglob("*.py")]
    dotted = {".".join(part for part in parts if part != "__init__") for parts in names if parts[-1] != "__main__"}
    return {name for name in dotted if name and name.split(".")[0] not in COMMAND_LINE}


def unread(command: Any, arguments: list[str]) -> Iterator[str]:
    """What a command says to arguments that it cannot read: a needed one that is not there, one too many."""
    try:
        command.make_context("command", [*arguments])
    except Exception as error:
        yield str(error)


def wrong_commands(text: str, tree: dict[str, Any]) -> Iterator[str]:
    """What pages call commands and options of `caa-lens`, and what is none."""
    whole = [
        arguments
        for block in write.blocks(text)
        if block.language == "bash"
        for arguments in write.commands(block.code)
    ]
    called = whole + [found.split() for found in re.findall(r"`caa-lens ([^`]+)`", prose(text))]
    for arguments in called:
        name = " ".join(arguments[:2]) if " ".join(arguments[:2]) in tree else arguments[0]
        if name.startswith("-"):
            continue
        if name not in tree or (hasattr(tree[name], "commands") and [arg for arg in arguments if arg[0] != "-"][1:]):
            yield " ".join(arguments)
            continue
        known = {option for parameter in tree[name].params for option in (*parameter.opts, *parameter.secondary_opts)}
        given = {argument.partition("=")[0] for argument in arguments if re.match(r"--\w", argument)}
        unknown = given - known - {"--help", "--debug"}
        yield from sorted(f"{name} {option}" for option in unknown)
        if not unknown and arguments in whole:
            yield from unread(tree[name], arguments[len(name.split()) :])


def same(printed: str, shown: str) -> bool:
    """Whether two outputs agree: words exactly, numbers in what two machines may round differently."""
    pattern = r"[-+]?\d*\.?\d+(?:e[-+]?\d+)?"
    if re.sub(pattern, "0", printed).split() != re.sub(pattern, "0", shown).split():
        return False
    numbers = [[float(number) for number in re.findall(pattern, text)] for text in (printed, shown)]
    return all(math.isclose(a, b, rel_tol=0.02, abs_tol=0.011) for a, b in zip(*numbers, strict=True))


@pytest.fixture
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    monkeypatch.setattr(options, "quiet_libraries", lambda: None)
    yield
    torch.set_num_threads(threads)


def check_examples(page: str, also: tuple[str, ...] = ()) -> int:
    checked = 0
    for example, printed in write.run(PAGES[page], also):
        shown = example.shown.code if example.shown else ""
        assert same(printed, shown), f"{page} shows\n{shown}\nand this is printed:\n{printed}\n(python docs/write.py)"
        checked += 1
    return checked


@pytest.mark.examples
@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("page", RUN)
def test_examples_print_what_is_shown(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_examples(page)


@pytest.mark.examples
@pytest.mark.usefixtures("_quiet")
def test_published_results_are_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Path
) -> None:
    published = shared_data / "data" / "caa"
    if not published.is_dir():
        pytest.skip("there are no published results")
    (tmp_path / "CAA").symlink_to(published)
    monkeypatch.chdir(tmp_path)
    also = ("needs the CAA repository",)
    assert check_examples("limits.md", also) == len(write.examples(PAGES["limits.md"])) + 3


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    assert list(broken_links(page, PAGES)) == []
    assert list(broken_references(PAGES[page])) == []


@pytest.mark.parametrize("page", PAGES)
def test_python_compiles(page: str) -> None:
    for block in write.blocks(PAGES[page]):
        if block.language == "python":
            ast.parse(block.code)


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_are_there(page: str) -> None:
    assert list(wrong_commands(PAGES[page], write.command_tree())) == []


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    assert PAGES["commands.md"] == write.commands_page(), "run: python docs/write.py"


@pytest.mark.parametrize("page", [*PAGES, "../README.md"])
def test_names_and_files_in_code_are_there(page: str) -> None:
    assert list(missing_names(with_included(PAGES.get(page) or (DOCS / page).read_text(encoding="utf-8")))) == []


def test_names_in_docstrings_are_there() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / "caa_lens").rglob("*.py")}
    missing = {path.relative_to(ROOT).as_posix(): list(missing_names(text)) for path, text in texts.items()}
    assert {path: names for path, names in missing.items() if names} == {}


def test_the_map_of_the_folders_is_what_the_table_gives() -> None:
    drawn = (DOCS / "architecture.svg").read_text(encoding="utf-8")
    assert drawn == write.folders_drawn(), "run: python docs/write.py docs/architecture.md"
    page = PAGES["architecture.md"]
    assert page == write.with_folders(page), "run: python docs/write.py docs/architecture.md"
    assert write.folders_table() in page
    described = re.findall(r"^### (\w+)$", page, re.MULTILINE)
    assert sorted(described) == sorted(write.beside("folders").IMPORTS), "a paragraph for each"


def test_every_module_is_on_one_page() -> None:
    shown = documented(PAGES)
    assert sorted(shown) == sorted(modules()), "an API page needs ::: caa_lens.MODULE for each, once"


def test_every_public_name_is_listed() -> None:
    listed = re.findall(r"\[`caa\.(\w+)`\]", PAGES["api/index.md"])
    assert sorted(listed) == sorted({*dir(caa)} - {"__version__"})


def test_every_page_is_in_the_navigation() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def targets(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values() if isinstance(entry, dict) else entry:
                yield from targets(below)

    assert sorted(targets(config["nav"])) == sorted(PAGES)
    assert config["theme"]["font"] is False


def test_figures_are_small_and_shown() -> None:
    images = sorted((DOCS / "images").iterdir())
    assert images
    for image in images:
        assert image.stat().st_size < 150_000, image
        assert any(f"images/{image.name}" in text for text in PAGES.values()), f"no page shows {image.name}"


def test_a_run_folders_files_are_described() -> None:
    listing = next(example.shown for example in write.examples(PAGES["how-to/run-a-study.md"], ("draws",)))
    files = [name for name in listing.code.split() if re.search(r"[a-z]\.\w+$", name) or name == "figures"]
    table = PAGES["files.md"].split("## The run folder")[1].replace("*.safetensors", "sycophancy.safetensors")
    assert len(files) > 15
    assert [name for name in files if f"`{name}" not in table] == []


def test_the_site_builds_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed (the extra `docs`)")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    built = {path: path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")}
    assert len(built) > len(PAGES)
    for path, text in built.items():
        fetched = re.findall(r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=\"?(https?:[^\s\">]+)", text)
        assert fetched == [], f"{path.relative_to(tmp_path)} fetches {fetched}"


# The rules above, shown what they are for.


def test_a_broken_link_is_found() -> None:
    page = "# A b\n[x](b.md) [x](#a-b) [x](c/d.md#e-f) ![x](idea.svg)\n"
    assert list(broken_links("a.md", {"a.md": page})) == ["b.md", "c/d.md#e-f"]
    assert list(broken_links("a.md", {"a.md": page, "b.md": "", "c/d.md": "## E f"})) == []
    assert list(broken_links("c/d.md", {"c/d.md": "[x](../a.md#no)", "a.md": page})) == ["../a.md#no"]
    assert list(broken_links("a.md", {"a.md": "![x](images/none.png) [x](#A)"})) == ["images/none.png", "#A"]


def test_a_broken_reference_is_found() -> None:
    good = "[`sweep`][caa_lens.sweeps.sweep] [m][caa_lens.judging.scores] [C][caa_lens.studies.settings.StudySettings]"
    assert list(broken_references(good)) == []
    bad = "[a][caa_lens.sweeps.swoop] [b][caa_lens.none] [c][caa_lens.none.more]"
    assert list(broken_references(bad)) == ["caa_lens.sweeps.swoop", "caa_lens.none", "caa_lens.none.more"]


def test_a_missing_name_is_found() -> None:
    good = "`caa.sweep(model)` `caa_lens.engine.packing.pack` `caa_lens.models.adapters.Adapter.packs` `caa_lens`"
    fields = "`caa_lens.vectors.Provenance.model` `caa_lens.studies.StudySettings.n_nulls` `caa_lens.cli`"
    files = "`tests/plain.py` `docs/decisions/` `caa_lens/cli/commands/NAME.py` `docs/images/*.png` `data/behaviors`"
    assert list(missing_names(good + fields + files + "\n```python\ncaa.swoop\n```\n")) == []
    bad = "`caa.swoop` `caa_lens.packing` `caa_lens.sweeps.sweep.fast` `tests/test_packing.py` `caa_lens/NAME.rs`"
    names = ["caa_lens.swoop", "caa_lens.packing", "caa_lens.sweeps.sweep.fast"]
    assert list(missing_names(bad)) == [*names, "tests/test_packing.py", "caa_lens/NAME.rs"]


def test_the_map_of_folders_leaves_out_what_follows() -> None:
    imports = {"top": ("middle", "low"), "middle": ("low",), "aside": ("low",), "low": ()}
    floors = write.beside("floors")
    assert floors.needed(imports) == {"top": ["middle"], "middle": ["low"], "aside": ["low"], "low": []}
    assert floors.floors(imports) == {"top": 2, "middle": 1, "aside": 1, "low": 0}
    assert "| **top** | middle, low | nothing |" in floors.table(imports)
    drawn = floors.drawing(imports)
    assert drawn.count('class="head"') == 3 and all(f">{folder}</text>" in drawn for folder in imports)


def test_boxes_of_the_map_stand_apart_and_within_it() -> None:
    drawn = write.folders_drawn()
    width = float(re.search(r'viewBox="0 0 (\d+)', drawn)[1])
    boxes = [
        tuple(map(float, box)) for box in re.findall(r'class="box" x="([\d.]+)" y="([\d.]+)" width="(\d+)"', drawn)
    ]
    assert all(x >= 0 and x + wide <= width for x, _, wide in boxes)
    assert all(abs(a[0] - b[0]) > a[2] for i, a in enumerate(boxes) for b in boxes[:i] if a[1] == b[1])


def test_a_wrong_command_is_found() -> None:
    tree = write.command_tree()
    good = "```bash\ncaa-lens judge world a.parquet --out b.parquet\ncaa-lens sweep m v \\\n    --data d\n```\n"
    assert list(wrong_commands(good + "`caa-lens judge` `caa-lens --help`", tree)) == []
    bad = (
        "```bash\ncaa-lens swoop m\ncaa-lens sweep m v --wrong 3 --data d\ncaa-lens judge nobody\n```\n`caa-lens asess`"
    )
    assert list(wrong_commands(bad, tree)) == ["swoop m", "sweep --wrong", "judge nobody", "asess"]
    unreadable = "```bash\ncaa-lens sweep m --data d\ncaa-lens extract m pairs --data d --out v.safetensors\n```\n"
    missing, extra = wrong_commands(unreadable, tree)
    assert "vectors" in missing.lower() and "unexpected extra argument" in extra


@pytest.mark.parametrize(
    ("printed", "shown", "agree"),
    [
        ("a 0.39 [+0.38]\n", "a   0.40 [+0.38]", True),
        ("a 0.39", "a 0.42", False),
        ("perplexity 1111.6", "perplexity 1120.0", True),
        ("30 of 30", "29 of 30", False),
        ("layer 2", "layer two", False),
        ("it stays: -0.24", "it vanishes: -0.24", False),
        ("x", "", False),
    ],
)
def test_outputs_are_compared(printed: str, shown: str, agree: bool) -> None:
    assert same(printed, shown) is agree


def test_examples_are_found_by_their_titles() -> None:
    page = '```python\na = 1\n```\n\n```python title="draws x.png, needs a file"\nb\n```\n\n```text\nout\n```\n'
    assert [example.block.code for example in write.examples(page)] == ["a = 1\n"]
    assert len(write.examples(page, ("draws",))) == 1
    both = write.examples(page, ("draws", "needs"))
    assert both[1].shown.code == "out\n" and both[0].shown is None
    with pytest.raises(ZeroDivisionError):
        list(write.run("```python\n1 / 0\n```\n"))
