"""What the README shows is what comes out."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

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
