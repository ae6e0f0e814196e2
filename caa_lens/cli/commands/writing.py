"""`caa-lens make-hallucinations`: questions that invite a model to make something up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from caa_lens.cli import options, sending
from caa_lens.cli.output import check_frame_path, check_path, save_frame, show_frame, show_json


def make_hallucinations(
    out: Annotated[Path, typer.Option(help="The .json file to write, in the CAA schema.")],
    world: Annotated[bool, typer.Option("--world", help="From the bundled world's grammar: offline and free.")] = False,
    model: Annotated[str | None, typer.Option(help="The writer's name at the endpoint.")] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Its address up to /v1; OPENAI_BASE_URL, or OpenAI's, where left out.")
    ] = None,
    n: Annotated[int, typer.Option(help="Questions; as many of each kind and letter.")] = 200,
    kinds: Annotated[
        list[str] | None, typer.Option(help="unprompted or contextual; once for each, both where left out.")
    ] = None,
    per_request: Annotated[int, typer.Option(min=1, help="Questions asked for in one request.")] = 5,
    most_requests: Annotated[
        int | None, typer.Option(min=1, help="For each kind at most; four times as many as are needed if left out.")
    ] = None,
    near: Annotated[
        float, typer.Option(help="Share of common words from which two questions are too much alike.")
    ] = 0.8,
    seed: options.Seed = 0,
    refused: Annotated[Path | None, typer.Option(help="Save what was refused, and why, as .parquet or .csv.")] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Keeps every reply as it comes, so that a run can go on; beside --out where left out."),
    ] = None,
    key_from: sending.KeyFrom = "OPENAI_API_KEY",
    no_key: sending.NoKey = False,
    settings: sending.Settings = "{}",
    price_in: sending.PriceIn = None,
    price_out: sending.PriceOut = None,
    per_minute: sending.PerMinute = None,
    concurrency: sending.Concurrency = 4,
    timeout: sending.Timeout = 120.0,
    retries: sending.Retries = 6,
    yes: sending.Yes = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a set of questions, unprompted and triggered by their context, whose matching answer is made up.

    They are checked, rid of duplicates, and balanced. What will be sent is shown before it is. Read some: whether an
    answer is made up is what no check can see.

    For example:

        caa-lens make-hallucinations --world --n 80 --out mine.json

        caa-lens make-hallucinations --endpoint http://localhost:8000/v1 --no-key --model qwen3 --out mine.json
    """
    from caa_lens.protocols.hallucination import KINDS, estimate_pairs, from_world, generate_pairs
    from caa_lens.protocols.hallucination.writing import request_limit

    check_path(out, ".json")
    check_frame_path(refused)
    if world == (model is not None) or (world and endpoint is not None):
        raise ValueError("give either --world, or --model with the name of a writer at an endpoint")
    asked: Any = {"kinds": tuple(kinds or KINDS), "seed": seed}
    if model is None:
        found = from_world(n, near=near, **asked)
    else:
        from caa_lens.judging.chat import EndpointWriter

        how: Any = {"timeout": timeout, "retries": retries, "per_minute": per_minute, "concurrency": concurrency}
        key, given = None if no_key else key_from, sending.json_settings(settings)
        writer = EndpointWriter(model, endpoint, key, given, **how)
        writer.check_key()
        asked |= {"per_request": per_request, "most_requests": most_requests, "near": near}
        asked["cache"] = cache or out.with_suffix(".cache.jsonl")
        cost = estimate_pairs(writer, n, price_in, price_out, **asked)
        most = len(asked["kinds"]) * request_limit(n, asked["kinds"], per_request, most_requests)
        if cost.n_requests:
            typer.echo(f"where much is refused, up to {most} requests in all are made (see --most-requests)", err=True)
        sending.confirm(writer.identity, cost, yes)
        found = generate_pairs(writer, n, progress=not quiet, **asked)
    found.save(out)
    table = found.refusals()
    if refused is not None:
        save_frame(table, refused)
    counts = table.groupby(["kind", "reason"], sort=False).size().reset_index(name="n")
    if as_json:
        show_json({"out": str(out), "n": len(found.questions), "wanted": n, "refused": counts.to_dict("records")})
    else:
        typer.echo(found.summary())
        if len(counts):
            show_frame(counts, as_json=False)
        typer.echo(f"\nwritten to {out}")
    if len(found.questions) < n:
        typer.echo(f"\nonly {len(found.questions)} of {n} questions: allow more with --most-requests", err=True)
