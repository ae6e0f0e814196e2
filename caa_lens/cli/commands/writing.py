"""`caa-lens make-hallucinations`: questions that invite a model to make something up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from caa_lens.cli import options, sending
from caa_lens.cli.output import check_frame_path, check_path, save_frame, show_frame, show_json


def make_hallucinations(
    *,
    world: Annotated[bool, typer.Option("--world", help="From the bundled world's grammar: offline and free.")] = False,
    writer: Annotated[str | None, typer.Option(help="The name of the model that writes, at the endpoint.")] = None,
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
    cache: options.Cache = None,
    base_url: options.BaseUrl = None,
    key_from: options.KeyFrom = "OPENAI_API_KEY",
    no_key: options.NoKey = False,
    request: options.Request = "{}",
    price_in: options.PriceIn = None,
    price_out: options.PriceOut = None,
    per_minute: options.PerMinute = None,
    concurrency: options.Concurrency = 4,
    timeout: options.Timeout = 120.0,
    retries: options.Retries = 6,
    yes: options.Yes = False,
    refused: Annotated[
        Path | None,
        typer.Option(help="Save what was refused, and why, as .parquet or .csv.", rich_help_panel="Output"),
    ] = None,
    out: Annotated[Path, typer.Option(help="The .json file to write, in the CAA schema.", rich_help_panel="Output")],
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a set of questions, unprompted and triggered by their context, whose matching answer is made up.

    They are checked, rid of duplicates, and balanced. What will be sent is shown before it is. Read some: whether an
    answer is made up is what no check can see.

    For example:

        caa-lens make-hallucinations --world --n 80 --out mine.json

        caa-lens make-hallucinations --writer qwen3 --base-url http://localhost:8000/v1 --no-key --out mine.json
    """
    from caa_lens.protocols.hallucination import KINDS, estimate_pairs, from_world, generate_pairs
    from caa_lens.protocols.hallucination.writing import request_limit

    check_path(out, ".json")
    check_frame_path(refused)
    if world == (writer is not None) or (world and base_url is not None):
        raise ValueError("give either --world, or --writer with the name of a model at an endpoint")
    asked: Any = {"kinds": tuple(kinds or KINDS), "seed": seed}
    if writer is None:
        found = from_world(n, near=near, **asked)
    else:
        from caa_lens.judging.chat import EndpointWriter

        how: Any = {"timeout": timeout, "retries": retries, "per_minute": per_minute, "concurrency": concurrency}
        key, given = None if no_key else key_from, sending.json_request(request)
        asks = EndpointWriter(writer, base_url, key, given, **how)
        asks.check_key()
        asked |= {"per_request": per_request, "most_requests": most_requests, "near": near}
        asked["cache"] = cache or out.with_suffix(".cache.jsonl")
        cost = estimate_pairs(asks, n, price_in, price_out, **asked)
        most = len(asked["kinds"]) * request_limit(n, asked["kinds"], per_request, most_requests)
        if cost.n_requests:
            typer.echo(f"where much is refused, up to {most} requests in all are made (see --most-requests)", err=True)
        sending.confirm(asks.identity, cost, yes)
        found = generate_pairs(asks, n, progress=not quiet, **asked)
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
