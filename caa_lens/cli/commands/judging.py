"""`caa-lens answers` and `caa-lens judge`: open answers under steering, and scores for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caa_lens.cli import inputs, options, sending
from caa_lens.cli.output import check_frame_path, save_frame, show_frame

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(
    no_args_is_help=True,
    help="Score open answers from 0 to 10, blind to how they were steered: by the bundled world's grammar, a model "
    "behind an API, a local model, or people.",
)

Answers = Annotated[Path, typer.Argument(metavar="ANSWERS", help="A file that `caa-lens answers` wrote.")]


def answers(
    model: options.Model,
    vectors: options.Files,
    *,
    data: options.OwnData = None,
    layer: options.LayerOfEach,
    multipliers: options.Multipliers = "-1,0,1",
    prompt_format: options.Format = None,
    system: options.System = None,
    max_new_tokens: options.MaxNewTokens = 100,
    temperature: options.Temperature = 0.0,
    top_p: options.TopP = 1.0,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    out: options.Out,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Answer open questions at several multipliers, to be scored with `caa-lens judge`.

    There is one vector for each behaviour. --data is a bundled behaviour or a file of questions, for all vectors or
    NAME=FILE for one.

    For example:

        caa-lens answers organism-chat sycophancy.safetensors --layer 2 --out answers.parquet

        caa-lens answers ./my-model v.safetensors --layer 13 --data mine.json --multipliers=-2,0,2 --out a.csv
    """
    from caa_lens.datasets.contrast import load_questions
    from caa_lens.vectors.vectors import SteeringVectors

    check_frame_path(out)
    steps = options.parse_multipliers(multipliers)
    inputs.check_files(vectors)
    files = [SteeringVectors.load(file) for file in vectors]
    names = [each.name for each in files]
    if len(set(names)) < len(names):
        raise ValueError(f"the vector files are for {', '.join(names)}: give one file for each behaviour")
    layers = inputs.layer_of_each(layer, files)
    work = {name: load_questions(own) for name, own in inputs.of_each(data, names, shared=True).items()}
    loaded = options.open_model(model, dtype, device)
    from caa_lens.judging.answers import answers as answer

    named = {name: options.open_vectors(file, loaded)[layers[name]] for name, file in zip(names, vectors, strict=True)}
    keywords: Any = {"temperature": temperature, "top_p": top_p, "seed": seed, "batch_size": batch_size}
    keywords |= {"max_new_tokens": max_new_tokens, "prompt_format": prompt_format, "system": system}
    frame = answer(loaded, named, work, multipliers=steps, progress=not quiet, **keywords)
    save_frame(frame, out)
    show_frame(frame if as_json else _first(frame), as_json=as_json)
    if not as_json:
        typer.echo(f"\n{len(frame)} answers written to {out}; score them with `caa-lens judge`")


@app.command(no_args_is_help=True)
def world(
    answers: Answers,
    *,
    out: options.Out,
    as_json: options.Json = False,
) -> None:
    """Score answers of the bundled models by the grammar of their world: exact, free, at once.

    For example:

        caa-lens judge world answers.parquet --out scored.parquet
    """
    from caa_lens.judging.scores import score_answers
    from caa_lens.organism.judge import score

    frame = _read(answers, out)
    _finish(score_answers(frame, score), out, as_json)


@app.command(no_args_is_help=True)
def endpoint(
    answers: Answers,
    *,
    seed: options.Seed = 0,
    judge_model: options.JudgeModel,
    rubric: options.Rubrics = None,
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
    out: options.Out,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score answers with a model behind an OpenAI-compatible API. What will be sent is shown before it is.

    For example:

        caa-lens judge endpoint a.parquet --judge-model gpt-4o --price-in 2.5 --price-out 10 --out scored.parquet

        caa-lens judge endpoint a.csv --judge-model qwen3 --base-url http://localhost:8000/v1 --no-key --out s.csv --yes
    """
    from caa_lens.judging.endpoint import EndpointJudge, estimate
    from caa_lens.judging.scores import score_answers

    frame, rubrics = _read(answers, out), inputs.read_rubrics(rubric)
    kept = cache or out.with_suffix(".cache.jsonl")
    judge = EndpointJudge(
        judge_model,
        base_url,
        None if no_key else key_from,
        sending.json_request(request),
        timeout=timeout,
        retries=retries,
        per_minute=per_minute,
        concurrency=concurrency,
    )
    judge.check_key()
    cost = estimate(frame, judge, price_in, price_out, rubrics=rubrics, cache=kept)
    sending.confirm(judge.identity, cost, yes)
    scored = score_answers(frame, judge, rubrics=rubrics, seed=seed, cache=kept, progress=not quiet)
    _finish(scored, out, as_json)


@app.command(no_args_is_help=True)
def local(
    answers: Answers,
    *,
    prompt_format: options.Format = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    judge_model: options.JudgeModel,
    rubric: options.Rubrics = None,
    cache: options.Cache = None,
    least_mass: Annotated[
        float,
        typer.Option(help="Probability that must be on the scores for one to count.", rich_help_panel="Judge"),
    ] = 0.5,
    out: options.Out,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score answers with a model on this machine: the mean of the scores it holds possible.

    For example:

        caa-lens judge local answers.parquet --judge-model Qwen/Qwen3-4B --dtype bfloat16 --out scored.parquet
    """
    from caa_lens.judging.scores import score_answers

    frame, rubrics = _read(answers, out), inputs.read_rubrics(rubric)
    loaded = options.open_model(judge_model, dtype, device)
    from caa_lens.judging.local import LocalJudge

    form: Any = {"prompt_format": prompt_format}
    judge = LocalJudge(loaded, least_mass=least_mass, batch_size=batch_size, **form)
    kept = cache or out.with_suffix(".cache.jsonl")
    scored = score_answers(frame, judge, rubrics=rubrics, seed=seed, cache=kept, progress=not quiet)
    _finish(scored, out, as_json)


@app.command(no_args_is_help=True)
def export(
    answers: Answers,
    *,
    seed: options.Seed = 0,
    sheet: options.Sheet,
    rubric: options.Rubrics = None,
) -> None:
    """Write a blinded and shuffled sheet that people fill in.

    For example:

        caa-lens judge export answers.parquet --sheet to-rate.csv
    """
    from caa_lens.judging.answers import read_answers
    from caa_lens.judging.human import export_sheet

    n = export_sheet(read_answers(answers), sheet, rubrics=inputs.read_rubrics(rubric), seed=seed)
    typer.echo(f"{n} answers written to {sheet}: fill in the column score, from 0 to 10, and read it with `import`")


@app.command(name="import", no_args_is_help=True)
def import_(
    answers: Answers,
    *,
    sheet: options.Sheet,
    rubric: options.Rubrics = None,
    rater: Annotated[str, typer.Option(help="Who rated.", rich_help_panel="Judge")] = "human",
    out: options.Out,
    as_json: options.Json = False,
) -> None:
    """Read a sheet that was filled in, and check it against the answers.

    For example:

        caa-lens judge import answers.parquet --sheet rated.csv --out scored.parquet
    """
    from caa_lens.judging.human import import_sheet

    _finish(import_sheet(_read(answers, out), sheet, rubrics=inputs.read_rubrics(rubric), rater=rater), out, as_json)


@app.command(no_args_is_help=True)
def agreement(
    scored: Annotated[Path, typer.Argument(metavar="SCORED", help="Answers scored by one judge.")],
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="The same answers scored by another.")],
    *,
    out: options.SomeOut = None,
    as_json: options.Json = False,
) -> None:
    """How far two judges agree: correlations, mean difference, Cohen's kappa.

    For example:

        caa-lens judge agreement by-model.parquet by-people.parquet
    """
    from caa_lens.judging.answers import read_answers
    from caa_lens.judging.summary import agreement as agreement_of

    check_frame_path(out)
    show_frame(agreement_of(read_answers(scored), read_answers(other)), as_json=as_json, out=out)


def _read(answers: Path, out: Path) -> pd.DataFrame:
    from caa_lens.judging.answers import read_answers

    check_frame_path(out)
    return read_answers(answers)


def _finish(scored: pd.DataFrame, out: Path, as_json: bool) -> None:
    """Save the scored answers and show what they say."""
    from caa_lens.judging.conditioning import consistency
    from caa_lens.judging.summary import summarize_scores

    save_frame(scored, out)
    show_frame((consistency if "side" in scored.columns else summarize_scores)(scored), as_json=as_json)
    unscored = int(scored["score"].isna().sum())
    if unscored:
        first = scored.loc[scored["score"].isna(), "note"].iloc[0]
        typer.echo(f"\n{unscored} of {len(scored)} answers have no score, such as: {first}", err=True)
    if not as_json:
        typer.echo(f"\nwritten to {out}")


def _first(frame: pd.DataFrame) -> pd.DataFrame:
    """The answers to each behaviour's first question."""
    return frame.loc[frame["question"] == 0, ["behavior", "multiplier", "question_text", "text"]]
