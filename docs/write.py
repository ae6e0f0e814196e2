"""What on these pages is made, not written: outputs of examples, figures, the page of commands, the map of the folders.

Every ``python`` block of a page is run, in order and in one namespace, in an empty folder. The ``text`` block right
after one shows what it prints; a ``bash`` block of `caa-lens` commands is run where it has one. A block with a title is
not run, and the title says why; one that "draws" a figure, or "needs the CAA repository", is run where that is asked
for.
`tests/test_docs.py` runs the same blocks and compares.

    python docs/write.py                             all pages, and commands.md
    python docs/write.py docs/quickstart.md          one page
    python docs/write.py docs/architecture.md        the map of the folders, after a change of docs/folders.py
    python docs/write.py --figures --caa CAA docs/limits.md    with its figures, for which a Chrome is needed, and with
                                                     what is read from a clone of github.com/nrimsky/CAA
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
FENCE = re.compile(r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
MADE_OF_FOLDERS = re.compile(r"(<!-- made from docs/folders.py -->\n).*?(<!-- up to here -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page; ``start`` and ``end`` are where its code lies in the page."""

    language: str
    title: str
    code: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Example:
    """A block that is run, and the block after it that shows what it prints (None where nothing is shown)."""

    block: Block
    shown: Block | None


def pages() -> list[Path]:
    """Every page."""
    return sorted(DOCS.rglob("*.md"))


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(found[1], found[2] or "", found[3], found.start(3), found.end(3)) for found in FENCE.finditer(text)]


def examples(text: str, also: tuple[str, ...] = ()) -> list[Example]:
    """The blocks of a page that are run: those without a title, and those whose title begins with one of ``also``."""
    found, all_blocks = [], blocks(text)
    for place, block in enumerate(all_blocks):
        wanted = not block.title or all(part.startswith(also) for part in block.title.split(", "))
        if block.language not in ("python", "bash") or not wanted:
            continue
        following = all_blocks[place + 1 : place + 2]
        gap = text[block.end : following[0].start] if following else ""
        shown = following[0] if following and re.fullmatch(r"```\s*```text\n", gap) else None
        if block.language == "python" or shown is not None:
            found.append(Example(block, shown))
    return found


def run(text: str, also: tuple[str, ...] = ()) -> Iterator[tuple[Example, str]]:
    """Run a page's examples in the folder one is in, and yield each with what it prints."""
    namespace: dict[str, Any] = {}
    for example in examples(text, also):
        if example.block.language == "bash":
            yield example, "".join(run_command(line) for line in commands(example.block.code))
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(example.block.code, "example", "exec"), namespace)
        yield example, printed.getvalue()


def commands(code: str) -> list[list[str]]:
    """The arguments of every `caa-lens` command in a block; lines that end in a backslash go on."""
    lines = code.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("caa-lens ")]


def run_command(arguments: list[str]) -> str:
    """What a command prints.

    Raises:
        RuntimeError: If it fails.
    """
    from typer.testing import CliRunner

    from caa_lens.cli import app as cli

    result = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "120"})
    if result.exit_code:
        raise RuntimeError(f"caa-lens {shlex.join(arguments)} failed: {result.output}")
    return "\n".join(line.rstrip() for line in result.stdout.strip("\n").splitlines()) + "\n"


def command_tree() -> dict[str, Any]:
    """Every command by its full name, such as ``judge world``; groups are there too."""
    import typer

    from caa_lens.cli import app as cli

    found: dict[str, Any] = {}

    def walk(command: Any, name: str) -> None:
        if name:
            found[name] = command
        for part, below in getattr(command, "commands", {}).items():
            walk(below, f"{name} {part}".strip())

    walk(typer.main.get_command(cli.app), "")
    return found


def commands_page() -> str:
    """The page of commands, from the commands themselves."""
    parts = [
        "# Command line\n",
        "Every command explains itself with examples: `caa-lens sweep --help`. This page says the same, and is made "
        "from the commands (`python docs/write.py`).\n",
        "Results go to the standard output, progress to the standard error. An error that can be expected (a wrong "
        "name, a missing file, settings that do not fit) is one line and exit code 1; `--debug`, anywhere on the line, "
        "shows the traceback. `--json` prints what a program can read.\n",
        "All commands have one grammar: `COMMAND MODEL [VECTORS...] --data ...`, the model first, vector files next, "
        "and everything else an option, named after the parameter of the Python function. An option has the same "
        "meaning and default in all commands, but for a few, such as what a paper used.\n",
    ]
    for name, command in command_tree().items():
        parts.append(f"{'###' if ' ' in name else '##'} caa-lens {name}\n")
        parts.append(_help(command.help or ""))
        if not hasattr(command, "commands"):
            parts.append(_parameters(command.params))
    return "\n".join(parts)


def _help(text: str) -> str:
    """A command's help; what is indented are commands to try."""
    lines = [line.rstrip() for line in text.replace("\b", "").splitlines()]
    said = [line for line in lines if not line.strip().startswith("caa-lens ")]
    tried = [line.strip() for line in lines if line.strip().startswith("caa-lens ")]
    paragraphs = _as_text(re.sub(r"\n{3,}", "\n\n", "\n".join(said)).strip())
    return paragraphs + "\n" + (f"\n```bash\n{chr(10).join(tried)}\n```\n" if tried else "")


def _as_text(text: str) -> str:
    """A text in which ``<name>`` is no markup; what stands in backticks is none anyway."""
    parts = text.split("`")
    return "`".join(part if place % 2 else part.replace("<", "&lt;") for place, part in enumerate(parts))


def _parameters(parameters: list[Any]) -> str:
    rows = ["| argument or option | default | |", "|---|---|---|"]
    for parameter in parameters:
        if "--help" in parameter.opts:
            continue
        names = parameter.opts if parameter.param_type_name == "option" else [parameter.name.upper()]
        names = [name.replace("_", "-") if name.startswith("--") else name for name in names]
        needed = "needed" if parameter.required else ""
        default = parameter.default
        empty = default is None or default is False or default == [] or callable(default)
        value = needed if empty or needed else f"`{default}`"
        said = _as_text(" ".join((parameter.help or "").split()).replace("|", "\\|"))
        rows.append(f"| {', '.join(f'`{name}`' for name in names)} | {value} | {said} |")
    return "\n".join(rows) + "\n"


def beside(name: str) -> Any:
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def folders_drawn() -> str:
    """The map of the folders, as an SVG image."""
    return beside("floors").drawing(beside("folders").IMPORTS)


def folders_table() -> str:
    """Who imports whom, as a table of Markdown."""
    return beside("floors").table(beside("folders").IMPORTS)


def with_folders(text: str) -> str:
    """A page with the table of who imports whom where it belongs."""
    return MADE_OF_FOLDERS.sub(lambda marks: f"{marks[1]}\n{folders_table()}\n{marks[2]}", text)


def rewrite_folders(page: Path) -> None:
    """Draw the map of the folders, and put the table of who imports whom into its page."""
    (DOCS / "architecture.svg").write_text(folders_drawn(), encoding="utf-8")
    page.write_text(with_folders(page.read_text(encoding="utf-8")), encoding="utf-8")


def rewrite(page: Path, also: tuple[str, ...] = (), caa: Path | None = None) -> None:
    """Put what a page's examples print where it is shown, and its figures into ``images``."""
    text = page.read_text(encoding="utf-8")
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        if caa is not None:
            (Path(folder) / "CAA").symlink_to(caa.resolve())
        os.chdir(folder)
        try:
            found = list(run(text, also))
        finally:
            os.chdir(before)
        for drawn in re.findall(r'^```python title="draws (\S+?)[",]', text, re.MULTILINE):
            if (Path(folder) / drawn).is_file():
                shutil.copy(Path(folder) / drawn, DOCS / "images" / drawn)
    for example, printed in reversed(found):
        if example.shown is not None:
            text = text[: example.shown.start] + printed.rstrip() + "\n" + text[example.shown.end :]
        elif printed:
            sys.stderr.write(f"{page}: printed and not shown: {printed}")
    page.write_text(text, encoding="utf-8")


def main() -> None:
    """Rewrite the pages named, or all of them."""
    parser = argparse.ArgumentParser(description="Rewrite what is made on the pages of the documentation.")
    parser.add_argument("pages", nargs="*", type=Path, help="All where none are named.")
    parser.add_argument("--figures", action="store_true", help="Draw the figures too.")
    parser.add_argument("--caa", type=Path, help="A clone of github.com/nrimsky/CAA.")
    asked = parser.parse_args()
    also = (*(("draws",) if asked.figures else ()), *(("needs the CAA repository",) if asked.caa else ()))
    if not asked.pages:
        (DOCS / "commands.md").write_text(commands_page(), encoding="utf-8")
    for page in asked.pages or [page for page in pages() if page.name != "commands.md"]:
        if page.name == "architecture.md":
            rewrite_folders(page)
        if examples(page.read_text(encoding="utf-8"), also):
            sys.stderr.write(f"{page}\n")
            rewrite(page, also, asked.caa)


if __name__ == "__main__":
    main()
