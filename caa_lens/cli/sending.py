"""Before something is sent to a chat model behind an API: what goes into each request, and the question whether to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from caa_lens.judging.chat import Estimate


def json_request(text: str) -> dict[str, Any]:
    """What ``--request`` gives.

    Raises:
        ValueError: If it is no JSON object.
    """
    try:
        settings: Any = json.loads(text)
    except ValueError as error:
        raise ValueError(f"--request {text!r} is not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"--request {text!r} is no JSON object: give one such as '{{\"max_tokens\": null}}'")
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
