"""Running `caa-lens` within a test: what it prints, its exit code, and the one line of an expected error."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import torch
from typer.testing import CliRunner

import caa_lens.cli.options as options
from caa_lens.cli.app import app


def run(*arguments: str | Path, code: int = 0, typed: str | None = None) -> str:
    """Run a command; its standard output for code 0, its error output otherwise.

    A command quiets the libraries that it uses and may set torch's threads, for good: here both are left as they were.
    """
    threads = torch.get_num_threads()
    with mock.patch.object(options, "quiet_libraries", lambda: None):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=typed)
    torch.set_num_threads(threads)
    assert result.exit_code == code, f"exit code {result.exit_code}: {result.output}\n{result.exception!r}"
    return result.stdout if code == 0 else result.stderr


def error(*arguments: str | Path) -> str:
    """The one line that an expected error prints."""
    text = run(*arguments, code=1)
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: "), text
    return lines[0].removeprefix("error: ")
