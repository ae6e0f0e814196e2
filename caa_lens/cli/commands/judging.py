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

Answers = Annotated[Path, typer.Argument(help="A file that `caa-lens answers` wrote.")]
Rubrics = Annotated[
    list[str] | None,
    typer.Option("--rubric", help="BEHAVIOR=FILE with the rubric's text; may be repeated. CAA's behaviours have one."),
]
Scored = Annotated[Path, typer.Option(help="Save the scored answers as .parquet or .csv.")]
Cache = Annotated[
    Path | None,
    typer.Option(help="Keeps every score as it comes, so that a run can go on; beside --out where left out."),
]


def answers(
    model: options.Model,
    vectors: Annotated[list[Path], typer.Argument(help="Vector files, one for each behaviour.")],
    layer: Annotated[int, typer.Option(help="Which layer's vector is added.")],
    out: Annotated[Path, typer.Option(help="Save the answers as .parquet or .csv.")],
    questions: Annotated[
        str | None,
        typer.Option(help="A bundled behaviour, or a file of questions; each behaviour's bundled ones if left out."),
    ] = None,
    multipliers: options.Multipliers = "-1,0,1",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="At most; an end-of-text token ends it earlier.")] = 100,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest tokens with this much probability.")] = 1.0,
    seed: options.Seed = 0,
    prompt_format: options.Format = None,
    system: options.System = None,
    batch_size: options.BatchSize = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Answer open questions at several multipliers, to be scored with `caa-lens judge`.

    For example:

        caa-lens answers organism-chat sycophancy.safetensors --layer 2 --out answers.parquet

        caa-lens answers ./my-model v.safetensors --layer 13 --questions mine.json --multipliers=-2,0,2 --out a.csv
    """
    from caa_lens.datasets.contrast import load_questions
    from caa_lens.vectors.vectors import SteeringVectors

    check_frame_path(out)
    steps = options.parse_multipliers(multipliers)
    inputs.check_files(vectors)
    names = [SteeringVectors.load(file)[layer].name for file in vectors]
    if len(set(names)) < len(names):
        raise ValueError(f"the vector files are for {', '.join(names)}: give one file for each behaviour")
    work = {name: load_questions(name if questions is None else questions) for name in names}
    loaded = options.open_model(model, dtype, device)
    from caa_lens.judging.answers import answers as answer

    named = {name: options.open_vectors(file, loaded)[layer] for name, file in zip(names, vectors, strict=True)}
    keywords: Any = {"temperature": temperature, "top_p": top_p, "seed": seed, "batch_size": batch_size}
    keywords |= {"max_new_tokens": max_new_tokens, "prompt_format": prompt_format, "system": system}
    frame = answer(loaded, named, work, multipliers=steps, progress=not quiet, **keywords)
    save_frame(frame, out)
    show_frame(frame if as_json else _first(frame), as_json=as_json)
    if not as_json:
        typer.echo(f"\n{len(frame)} answers written to {out}; score them with `caa-lens judge`")


@app.command()
def world(answers: Answers, out: Scored, as_json: options.Json = False) -> None:
    """Score answers of the bundled models by the grammar of their world: exact, free, at once.

    For example:

        caa-lens judge world answers.parquet --out scored.parquet
    """
    from caa_lens.judging.scores import score_answers
    from caa_lens.organism.judge import score

    frame = _read(answers, out)
    _finish(score_answers(frame, score), out, as_json)


@app.command()
def endpoint(
    answers: Answers,
    model: Annotated[str, typer.Option(help="The judge's name at the endpoint.")],
    out: Scored,
    base_url: sending.BaseUrl = None,
    key_from: sending.KeyFrom = "OPENAI_API_KEY",
    no_key: sending.NoKey = False,
    settings: sending.Settings = "{}",
    price_in: sending.PriceIn = None,
    price_out: sending.PriceOut = None,
    per_minute: sending.PerMinute = None,
    concurrency: sending.Concurrency = 4,
    timeout: sending.Timeout = 60.0,
    retries: sending.Retries = 6,
    rubric: Rubrics = None,
    cache: Cache = None,
    seed: options.Seed = 0,
    yes: sending.Yes = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score answers with a model behind an OpenAI-compatible API. What will be sent is shown before it is.

    For example:

        caa-lens judge endpoint answers.parquet --model gpt-4o --price-in 2.5 --price-out 10 --out scored.parquet

        caa-lens judge endpoint a.csv --model qwen3 --base-url http://localhost:8000/v1 --no-key --out s.csv --yes
    """
    from caa_lens.judging.endpoint import EndpointJudge, estimate
    from caa_lens.judging.scores import score_answers

    frame, rubrics = _read(answers, out), read_rubrics(rubric)
    kept = cache or out.with_suffix(".cache.jsonl")
    judge = EndpointJudge(
        model,
        base_url,
        None if no_key else key_from,
        sending.json_settings(settings),
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


@app.command()
def local(
    answers: Answers,
    model: Annotated[str, typer.Option(help="The judge: a bundled model, a local directory, or a Hugging Face id.")],
    out: Scored,
    least_mass: Annotated[float, typer.Option(help="Probability that must be on the scores for one to count.")] = 0.5,
    prompt_format: options.Format = None,
    rubric: Rubrics = None,
    cache: Cache = None,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score answers with a model on this machine: the mean of the scores it holds possible.

    For example:

        caa-lens judge local answers.parquet --model Qwen/Qwen3-4B --dtype bfloat16 --out scored.parquet
    """
    from caa_lens.judging.scores import score_answers

    frame, rubrics = _read(answers, out), read_rubrics(rubric)
    loaded = options.open_model(model, dtype, device)
    from caa_lens.judging.local import LocalJudge

    form: Any = {"prompt_format": prompt_format}
    judge = LocalJudge(loaded, least_mass=least_mass, batch_size=batch_size, **form)
    kept = cache or out.with_suffix(".cache.jsonl")
    scored = score_answers(frame, judge, rubrics=rubrics, seed=seed, cache=kept, progress=not quiet)
    _finish(scored, out, as_json)


@app.command()
def export(
    answers: Answers,
    sheet: Annotated[Path, typer.Option(help="The .csv file to write, for a spreadsheet program.")],
    rubric: Rubrics = None,
    seed: options.Seed = 0,
) -> None:
    """Write a blinded and shuffled sheet that people fill in.

    For example:

        caa-lens judge export answers.parquet --sheet to-rate.csv
    """
    from caa_lens.judging.answers import read_answers
    from caa_lens.judging.human import export_sheet

    n = export_sheet(read_answers(answers), sheet, rubrics=read_rubrics(rubric), seed=seed)
    typer.echo(f"{n} answers written to {sheet}: fill in the column score, from 0 to 10, and read it with `import`")


@app.command(name="import")
def import_(
    answers: Answers,
    sheet: Annotated[Path, typer.Option(help="The sheet that `export` wrote, filled in.")],
    out: Scored,
    rubric: Rubrics = None,
    rater: Annotated[str, typer.Option(help="Who rated.")] = "human",
    as_json: options.Json = False,
) -> None:
    """Read a sheet that was filled in, and check it against the answers.

    For example:

        caa-lens judge import answers.parquet --sheet rated.csv --out scored.parquet
    """
    from caa_lens.judging.human import import_sheet

    _finish(import_sheet(_read(answers, out), sheet, rubrics=read_rubrics(rubric), rater=rater), out, as_json)


@app.command()
def agreement(
    scored: Annotated[Path, typer.Argument(help="Answers scored by one judge.")],
    other: Annotated[Path, typer.Argument(help="The same answers scored by another.")],
    out: Annotated[Path | None, typer.Option(help="Save the table as .parquet or .csv.")] = None,
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


def read_rubrics(given: list[str] | None) -> dict[str, str]:
    """Rubrics by behaviour, from what ``--rubric`` gave."""
    rubrics: dict[str, str] = {}
    for text in given or []:
        behavior, equals, name = text.partition("=")
        if not (behavior and equals and name):
            raise ValueError(f"--rubric {text!r} cannot be read: give BEHAVIOR=FILE, such as kindness=kindness.txt")
        if not Path(name).is_file():
            raise FileNotFoundError(f"there is no file {name}")
        rubrics[behavior] = Path(name).read_text(encoding="utf-8")
    return rubrics


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
