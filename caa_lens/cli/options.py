"""The arguments and options that commands share: each has one name, one help and one default, in one place.

A command is `caa-lens COMMAND MODEL [VECTORS...] --data ...`: the model first, vector files next, all else an option,
named after the Python parameter of the same meaning. What stands here several times differs in what it may hold (one
vector's layer or several vectors', a text that is needed or not); `tests/cli/test_grammar.py` lists these cases with
their reasons. `inputs` reads what is given.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

if TYPE_CHECKING:
    from caa_lens.prompts import PromptForm, PromptFormat, PromptOptions
    from caa_lens.vectors.vectors import SteeringVectors

_DATA, _STEERING, _PROMPT = "Data", "Steering", "Prompts"
_MODEL, _OUTPUT, _JUDGE, _ENDPOINT = "Model", "Output", "Judge", "Endpoint"


def _check_site(site: str | None) -> str | None:
    """Refuse an unknown site while the line is read, before a model is loaded."""
    if site not in (None, "resid_post"):
        from caa_lens.models.sites import SITES

        if site not in SITES:
            raise ValueError(f"the site {site!r} is not known: give one of {', '.join(SITES)}")
    return site


def check_format(prompt_format: str | None) -> str | None:
    """Refuse an unknown prompt format while the line is read, before a model is loaded."""
    if prompt_format is not None:
        from caa_lens.prompts import PromptFormat

        if prompt_format not in get_args(PromptFormat):
            known = ", ".join(get_args(PromptFormat))
            raise ValueError(f"prompt format {prompt_format!r} is not known: give one of {known}")
    return prompt_format


# The model, then vector files.
_MODEL_NAME = typer.Argument(metavar="MODEL", help="A bundled model, a local directory, or a Hugging Face id.")
_FILE = typer.Argument(metavar="VECTORS", help="A vector file, as `extract` writes it.")
Model = Annotated[str, _MODEL_NAME]
SetModel = Annotated[str | None, _MODEL_NAME]
File = Annotated[Path, _FILE]
SomeFile = Annotated[Path | None, _FILE]
Files = Annotated[list[Path], typer.Argument(metavar="VECTORS", help="Vector files, as `extract` writes them.")]
TwoFiles = Annotated[
    tuple[Path, Path], typer.Argument(metavar="VECTORS", help="Two vector files, such as the chat and base model's.")
]

# What is read and asked.
_ONE = typer.Option(
    "--data",
    help="A bundled behaviour, or a .json, .jsonl or .csv file in the CAA schema.",
    rich_help_panel=_DATA,
)
_SEVERAL = typer.Option(
    "--data", help="Bundled behaviours or files in the CAA schema; give it once for each.", rich_help_panel=_DATA
)
Data = Annotated[str, _ONE]
SomeData = Annotated[str | None, _ONE]
ManyData = Annotated[list[str], _SEVERAL]
SetData = Annotated[list[str] | None, _SEVERAL]
OwnData = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        help="NAME=DATA for one of several vectors, or DATA for one; the bundled data of a vector's name if left out.",
        rich_help_panel=_DATA,
    ),
]
Test = Annotated[
    str | None,
    typer.Option(
        help="Items to report on, in a file of their own; a split of --data where left out.", rich_help_panel=_DATA
    ),
]
Part = Annotated[
    str, typer.Option(help="Which file of a bundled behaviour: generate or test_ab.", rich_help_panel=_DATA)
]
_OTHER_ANSWERS = typer.Option(
    help="What to do with answers other than (A) and (B): error, keep or drop.", rich_help_panel=_DATA
)
OtherAnswers = Annotated[str, _OTHER_ANSWERS]
SetOtherAnswers = Annotated[str | None, _OTHER_ANSWERS]
_TEXTS = typer.Option(
    help="Running text: neutral, facts or opinions (bundled), a .txt with a text a line, or a .json.",
    rich_help_panel=_DATA,
)
Texts = Annotated[str, _TEXTS]
SetTexts = Annotated[str | None, _TEXTS]
_N_QUESTIONS = typer.Option(min=0, help="The first so many open questions of each behaviour.", rich_help_panel=_DATA)
Questions = Annotated[int | None, _N_QUESTIONS]

# Where vectors are made and added, how much, and beside what.
_LAYER = typer.Option(help="The layer whose vector is used.", rich_help_panel=_STEERING)
Layer = Annotated[int, _LAYER]
SomeLayer = Annotated[int | None, _LAYER]
_LAYER_OF_EACH = typer.Option(
    help="A layer for all vectors, or NAME=LAYER for one of them; once for each.", rich_help_panel=_STEERING
)
LayerOfEach = Annotated[list[str], _LAYER_OF_EACH]
SomeLayerOfEach = Annotated[list[str] | None, _LAYER_OF_EACH]
Layers = Annotated[
    str | None, typer.Option(help="Such as 3, 0-7 or 3,5,8-11; all where left out.", rich_help_panel=_STEERING)
]
Multiplier = Annotated[
    float, typer.Option(help="Times the vector; how much is done of another operation.", rich_help_panel=_STEERING)
]
_MULTIPLIERS = typer.Option(
    help="Comma-separated numbers; the unsteered model is always measured too.", rich_help_panel=_STEERING
)
Multipliers = Annotated[str, _MULTIPLIERS]
SetMultipliers = Annotated[str | None, _MULTIPLIERS]
_COEFFICIENTS = typer.Option(help="Comma-separated numbers to try.", rich_help_panel=_STEERING)
Coefficients = Annotated[str, _COEFFICIENTS]
SomeCoefficients = Annotated[str | None, _COEFFICIENTS]
Sign = Annotated[int, typer.Option(help="1 steers along the vectors, -1 against them.", rich_help_panel=_STEERING)]
Norm = Annotated[
    str,
    typer.Option(
        help="own: vectors as long as they are; target: as long as the one that is there.", rich_help_panel=_STEERING
    ),
]
Operation = Annotated[
    str,
    typer.Option(
        help="What is done with the vector: add, ablate, set:VALUE, clamp:LOW:HIGH or rotate:DEGREES.",
        rich_help_panel=_STEERING,
    ),
]
_NULLS = typer.Option(
    min=0,
    help="So many vectors of each kind that mean nothing, as long as the vector and in the same cells.",
    rich_help_panel=_STEERING,
)
Nulls = Annotated[int, _NULLS]
SetNulls = Annotated[int | None, _NULLS]
MinMass = Annotated[
    float,
    typer.Option(
        help="Out is what leaves the two answers together less probability than this.", rich_help_panel=_STEERING
    ),
]
Largest = Annotated[int, typer.Option("--k", min=1, help="So many, largest first.", rich_help_panel=_STEERING)]
_READ = typer.Option(
    help="Where vectors are read: a role of the prompt (see `tokens`), or a position such as -2.",
    rich_help_panel=_STEERING,
)
Read = Annotated[str, _READ]
SetRead = Annotated[str | None, _READ]
_SITE = typer.Option(
    callback=_check_site,
    help="Where in each block: resid_pre, attn_out, resid_mid, mlp_out or resid_post (CAA).",
    rich_help_panel=_STEERING,
)
Site = Annotated[str, _SITE]
SetSite = Annotated[str | None, _SITE]
_BASELINES = typer.Option(
    help="What steering is compared with: some of system,few_shot,finetuned.", rich_help_panel=_STEERING
)
Baselines = Annotated[str, _BASELINES]
SetBaselines = Annotated[str | None, _BASELINES]

# Prompts and what is written after them.
_A_PROMPT = typer.Option(help="A prompt, without any template.", rich_help_panel=_PROMPT)
Prompt = Annotated[str, _A_PROMPT]
SomePrompt = Annotated[str | None, _A_PROMPT]
_EACH_PROMPT = typer.Option(
    "--prompt", help="A prompt, without any template; give it once for each.", rich_help_panel=_PROMPT
)
EachPrompt = Annotated[list[str], _EACH_PROMPT]
SomePrompts = Annotated[list[str] | None, _EACH_PROMPT]
Answer = Annotated[str | None, typer.Option(help="The prompt's answer, such as '(A)'.", rich_help_panel=_PROMPT)]
Format = Annotated[
    str | None,
    typer.Option(
        callback=check_format,
        help="chat, llama2, base or plain; by the tokenizer where left out.",
        rich_help_panel=_PROMPT,
    ),
]
System = Annotated[str | None, typer.Option(help="A system prompt for every prompt.", rich_help_panel=_PROMPT)]
_MAX_NEW_TOKENS = typer.Option(
    min=1, help="Of an answer at most; an end-of-text token ends it earlier.", rich_help_panel=_PROMPT
)
MaxNewTokens = Annotated[int, _MAX_NEW_TOKENS]
SetMaxNewTokens = Annotated[int | None, _MAX_NEW_TOKENS]
_TEMPERATURE = typer.Option(help="0 takes the likeliest token.", rich_help_panel=_PROMPT)
Temperature = Annotated[float, _TEMPERATURE]
SomeTemperature = Annotated[float | None, _TEMPERATURE]
_TOP_P = typer.Option(help="Sample from the likeliest tokens with this much probability.", rich_help_panel=_PROMPT)
TopP = Annotated[float, _TOP_P]
SomeTopP = Annotated[float | None, _TOP_P]
_FREQUENCY_PENALTY = typer.Option(
    help="Taken from a token's logit for every time that it came before.", rich_help_panel=_PROMPT
)
FrequencyPenalty = Annotated[float, _FREQUENCY_PENALTY]
SomeFrequencyPenalty = Annotated[float | None, _FREQUENCY_PENALTY]

# How it runs.
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, help="Prompts run at once; chosen by length where left out.", rich_help_panel=_MODEL),
]
_DTYPE = typer.Option(help="float32, float16 or bfloat16.", rich_help_panel=_MODEL)
Dtype = Annotated[str, _DTYPE]
SetDtype = Annotated[str | None, _DTYPE]
Device = Annotated[
    str | None,
    typer.Option(help="Such as cpu or cuda; CUDA where there is one, if left out.", rich_help_panel=_MODEL),
]
_SEED = typer.Option(min=0, max=2**32 - 1, help="Of every random choice.", rich_help_panel=_MODEL)
Seed = Annotated[int, _SEED]
SetSeed = Annotated[int | None, _SEED]

# What comes out.
_OUT = typer.Option(help="Save the table as .parquet or .csv.", rich_help_panel=_OUTPUT)
Out = Annotated[Path, _OUT]
SomeOut = Annotated[Path | None, _OUT]
Folder = Annotated[
    Path | None,
    typer.Option(help="Run folder; runs/<name>-<hash of the settings> where left out.", rich_help_panel=_OUTPUT),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.", rich_help_panel=_OUTPUT)]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.", rich_help_panel=_OUTPUT)]

# Judges, and the chat model behind an API that some commands ask.
_JUDGE_MODEL = typer.Option(
    help="The judge: its name at the endpoint; or a bundled model, a local directory, a Hugging Face id.",
    rich_help_panel=_JUDGE,
)
JudgeModel = Annotated[str, _JUDGE_MODEL]
SomeJudgeModel = Annotated[str | None, _JUDGE_MODEL]
Rubrics = Annotated[
    list[str] | None,
    typer.Option(
        "--rubric",
        help="BEHAVIOR=FILE with the rubric's text; once for each. CAA's behaviours have one.",
        rich_help_panel=_JUDGE,
    ),
]
Sheet = Annotated[Path, typer.Option(help="The .csv file that people fill in.", rich_help_panel=_JUDGE)]
Cache = Annotated[
    Path | None,
    typer.Option(
        help="Keeps every reply as it comes, so that a run can go on; beside --out where left out.",
        rich_help_panel=_JUDGE,
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(help="Up to /v1; OPENAI_BASE_URL, or OpenAI's, where left out.", rich_help_panel=_ENDPOINT),
]
KeyFrom = Annotated[
    str, typer.Option(help="Name of the environment variable that holds the key.", rich_help_panel=_ENDPOINT)
]
NoKey = Annotated[bool, typer.Option("--no-key", help="For a server that wants no key.", rich_help_panel=_ENDPOINT)]
Request = Annotated[
    str,
    typer.Option(help="JSON to put into each request, such as '{\"max_tokens\": null}'.", rich_help_panel=_ENDPOINT),
]
PriceIn = Annotated[
    float | None, typer.Option(help="For a million tokens sent; for the estimate.", rich_help_panel=_ENDPOINT)
]
PriceOut = Annotated[float | None, typer.Option(help="For a million tokens received.", rich_help_panel=_ENDPOINT)]
PerMinute = Annotated[float | None, typer.Option(help="Requests a minute at most.", rich_help_panel=_ENDPOINT)]
Concurrency = Annotated[int, typer.Option(min=1, help="Requests under way at once.", rich_help_panel=_ENDPOINT)]
Timeout = Annotated[float, typer.Option(help="Seconds for one request.", rich_help_panel=_ENDPOINT)]
Retries = Annotated[
    int, typer.Option(min=0, help="More attempts after a failure that may pass.", rich_help_panel=_ENDPOINT)
]
Yes = Annotated[bool, typer.Option("--yes", help="Send without asking.", rich_help_panel=_ENDPOINT)]


def parse_layers(text: str | None) -> tuple[int, ...] | None:
    """``"3,5,8-11"`` as layers; None and ``"all"`` are None.

    Raises:
        ValueError: For anything else.
    """
    if text is None or text == "all":
        return None
    layers: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if not found:
            raise ValueError(f"layers {text!r} cannot be read: give numbers and ranges, such as 3 or 0-7 or 3,5,8-11")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise ValueError(f"layers {text!r}: {part.strip()} runs backwards, write {last}-{first}")
        layers += range(first, last + 1)
    if again := sorted({layer for layer in layers if layers.count(layer) > 1}):
        raise ValueError(f"layers {text!r}: {again[0]} is in it twice, give each layer once")
    return tuple(layers)


def parse_multipliers(text: str) -> tuple[float, ...]:
    """``"-1,0,1.5"`` as numbers.

    Raises:
        ValueError: For anything else.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"multipliers {text!r} cannot be read: give comma-separated numbers, such as -1,0,1") from None


def parse_read(text: str) -> str | int:
    """A role's name, or a position where it is a whole number."""
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def open_model(name: str, dtype: str, device: str | None) -> Any:
    """Load a model without the chatter of the libraries below."""
    quiet_libraries()
    from caa_lens.models.loading import load_model

    return load_model(name, dtype=dtype, device=device)


def open_vectors(path: Path, model: Any) -> SteeringVectors:
    """Read a vector file, and say on stderr where its vectors come from another model than this one."""
    from caa_lens.models.loading import model_info
    from caa_lens.vectors.vectors import SteeringVectors

    vectors = SteeringVectors.load(path)
    info = model_info(model)
    if vectors.provenance.model_fingerprint not in (info.fingerprint, "unknown"):
        typer.echo(f"note: {path} was made on {vectors.provenance.model}, and this is {info.name}", err=True)
    return vectors


def quiet_libraries() -> None:
    """Silence loading bars and warnings of transformers, transformer-lens and the hub."""
    import logging
    import os
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.simplefilter("ignore")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for name in ("transformer_lens", "huggingface_hub", "kaleido", "choreographer"):
        logging.getLogger(name).setLevel(logging.ERROR)


def check_nulls(nulls: int) -> None:
    """Refuse ``--nulls 0`` where no effect is given without its null, before a model is loaded.

    Raises:
        ValueError: For 0.
    """
    if nulls < 1:
        raise ValueError(f"--nulls is {nulls}: no effect is given without its null, so give 1 or more, as 20")


def prompt_form(prompt_format: str | None, system: str | None) -> PromptForm:
    """What `format_prompt` takes, from options that were checked when they were read."""
    return {"prompt_format": cast("PromptFormat | None", prompt_format), "system": system}


def prompt_options(prompt_format: str | None, system: str | None, batch_size: int | None) -> PromptOptions:
    """The same with how many prompts are run at once."""
    return {**prompt_form(prompt_format, system), "batch_size": batch_size}
