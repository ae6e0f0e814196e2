"""The command `caa-lens`.

Expected errors (a wrong name, a missing file, settings that do not fit) come as one line on stderr, with exit code 1;
``--debug``, anywhere on the line, shows the traceback. Wrong usage is 2, an interrupt 130. Progress goes to stderr,
results to stdout.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from caa_lens import __version__
from caa_lens.cli.commands import (
    activation_addition,
    analyze,
    assessing,
    attacking,
    baselines,
    capabilities,
    catalog,
    composing,
    conditioning,
    entanglement,
    harness,
    judging,
    report,
    scaling,
    selecting,
    side_effects,
    skills,
    steering,
    study,
    transfer,
    writing,
)

EXPECTED = (ValueError, TypeError, ImportError, OSError)
SETTINGS: dict[str, Any] = {"no_args_is_help": True}


class _Group(TyperGroup):
    """The commands, with errors turned into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; the exit code of an expected error is 1, of an interrupt 130."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("\ninterrupted", err=True)
            raise typer.Exit(130) from None
        except BrokenPipeError:  # such as `caa-lens behaviors | head -1`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except EXPECTED as error:
            if ctx.params.get("debug"):
                raise
            message = " ".join(str(error).split()) or type(error).__name__
            typer.echo(f"error: {message}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Group,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    **SETTINGS,
)


def _show_version(asked: bool) -> bool:
    if asked:
        typer.echo(f"caa-lens {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; anywhere on the line.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Contrastive Activation Addition on TransformerLens models: extract, steer, measure, compare.

    Start with `caa-lens demo`: the whole workflow on the bundled models, in a few minutes.
    """


app.command()(study.demo)
app.command(**SETTINGS)(steering.extract)
app.command(**SETTINGS)(steering.generate)
app.command(**SETTINGS)(steering.sweep)
app.command(**SETTINGS)(activation_addition.actadd)
app.command(**SETTINGS)(assessing.assess)
app.command(**SETTINGS)(baselines.baselines)
app.command(**SETTINGS)(capabilities.capabilities)
app.command(**SETTINGS)(harness.harness)
app.command(**SETTINGS)(selecting.select)
app.command(**SETTINGS)(side_effects.side_effects)
app.command(**SETTINGS)(entanglement.entanglement)
app.command(**SETTINGS)(composing.compose)
app.command(**SETTINGS)(skills.skills)
app.add_typer(transfer.app, name="transfer")
app.command(**SETTINGS)(judging.answers)
app.command(**SETTINGS)(conditioning.conditioning)
app.add_typer(judging.app, name="judge")
app.command(**SETTINGS)(steering.tokens)
app.add_typer(analyze.app, name="analyze")
app.command(**SETTINGS)(attacking.red_team)
app.command(**SETTINGS)(writing.make_hallucinations)
app.command(**SETTINGS)(study.study)
app.command(**SETTINGS)(report.report)
app.command(**SETTINGS)(scaling.scaling)
app.command()(catalog.behaviors)
app.command()(catalog.models)


def main() -> None:
    """The console script."""
    arguments = sys.argv[1:]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    ours = [argument for argument in arguments[:end] if argument != "--debug"]
    app((["--debug"] if len(ours) < end else []) + ours + arguments[end:], prog_name="caa-lens")


if __name__ == "__main__":
    main()
