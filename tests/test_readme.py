"""What the README shows is what comes out."""

from __future__ import annotations

import contextlib
import io
import operator
import re
from pathlib import Path

import caa_lens as caa

README = Path(__file__).parents[1] / "README.md"


def test_the_six_line_example_prints_what_the_readme_says() -> None:
    section = README.read_text(encoding="utf-8").split("## Six lines")[1]
    code, output = re.findall(r"```(?:python)?\n(.*?)```", section, flags=re.DOTALL)[:2]
    assert len([line for line in code.splitlines() if line.strip()]) == 6
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue() == output


def test_files_that_the_readme_names_are_there() -> None:
    for target in re.findall(r"\]\(((?!http)[^)]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).exists(), target


def test_every_row_of_the_table_lives_in_the_folder_that_it_names() -> None:
    section = README.read_text(encoding="utf-8").split("| you want to | folder |")[1].split("\n\n")[0]
    rows = [row.strip("|").split(" | ") for row in section.splitlines()[2:]]
    assert len(rows) > 30
    for _, folder, code, *_ in rows:
        homes: list[str] = []
        before = ""
        for name in re.findall(r"\bcaa(?:\.\w+)+|(?<=`)\.\w+", code):
            name = before.rpartition(".")[0] + name if name.startswith(".") else name
            found = operator.attrgetter(name.removeprefix("caa."))(caa)
            homes.append(found.__name__ if not hasattr(found, "__module__") else found.__module__)
            before = name
        assert homes and homes[0].split(".")[1] == folder.strip("`"), code
