"""Options of commands that send something to a chat model behind an API, and the question before it is sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from caa_lens.judging.chat import Estimate

BaseUrl = Annotated[str | None, typer.Option(help="Up to /v1; OPENAI_BASE_URL, or OpenAI's, where left out.")]
KeyFrom = Annotated[str, typer.Option(help="Name of the environment variable that holds the key.")]
NoKey = Annotated[bool, typer.Option("--no-key", help="For a server that wants no key.")]
Settings = Annotated[str, typer.Option(help="JSON to put into each request, such as '{\"max_tokens\": null}'.")]
PriceIn = Annotated[float | None, typer.Option(help="For a million tokens sent; for the estimate.")]
PriceOut = Annotated[float | None, typer.Option(help="For a million tokens received.")]
PerMinute = Annotated[float | None, typer.Option(help="Requests a minute at most.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Requests under way at once.")]
Timeout = Annotated[float, typer.Option(help="Seconds for one request.")]
Retries = Annotated[int, typer.Option(min=0, help="More attempts after a failure that may pass.")]
Yes = Annotated[bool, typer.Option("--yes", help="Send without asking.")]


def json_settings(text: str) -> dict[str, Any]:
    """What ``--settings`` gives.

    Raises:
        ValueError: If it is no JSON object.
    """
    try:
        settings: Any = json.loads(text)
    except ValueError as error:
        raise ValueError(f"--settings {text!r} is not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"--settings {text!r} is no JSON object: give one such as '{{\"max_tokens\": null}}'")
    return settings  # pyright: ignore[reportUnknownVariableType]


def confirm(identity: str, cost: Estimate, yes: bool) -> None:
    """Show what will be sent, and ask where something will be and ``--yes`` was not given.

    Raises:
        ValueError: If the answer is no.
    """
    typer.echo(f"{identity}: {cost}", err=True)
    if cost.n_requests and not yes:
        try:
            typer.confirm("Send them?", abort=True, err=True)
        except typer.Abort:
            raise ValueError("nothing was sent: answer y, or give --yes") from None
