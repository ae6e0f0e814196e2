"""Open answers under steering: every question, continued at every multiplier, as one tidy frame.

Two-choice items show what a vector does to one token. Whether the model's own words change is asked with open
questions, answered in up to 100 tokens, greedily (CAA, arXiv 2312.06681, section 4). All multipliers of a question are
continued together from one pass over its prompt. The frame says what was done to each answer; a judge
(`caa_lens.judging.scores`) is shown none of that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caa_lens.engine.branching import check_batch_size, check_context
from caa_lens.files.messages import brief
from caa_lens.models.adapters import Adapter, HookedModel, adapt
from caa_lens.prompts import PromptFormat, format_prompt
from caa_lens.steering.steering import edits_of, generate
from caa_lens.vectors.vectors import SteeringVector

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("id", "behavior", "layer", "multiplier", "question", "question_text", "text")


def answers(
    model: HookedModel,
    vectors: SteeringVector | Mapping[str, SteeringVector],
    questions: Sequence[str] | Mapping[str, Sequence[str]],
    *,
    multipliers: Sequence[float] = (-1.0, 0.0, 1.0),
    max_new_tokens: int = 100,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool | str = False,
) -> pd.DataFrame:
    """Answer every question at every multiplier.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        vectors: One behaviour's vector, or several by name; each is added at its own layer.
        questions: For all behaviours, or for each of them under the same names.
        multipliers: Any numbers; 0, against which every change is measured, is added where it is missing.
        max_new_tokens: At most; the paper's 100.
        temperature: 0, the paper's, takes the likeliest token each time.
        top_p: Sample from the smallest set of tokens whose probability reaches this.
        seed: Of the sampling; a question draws the same numbers at every multiplier.
        prompt_format: See `format_prompt`.
        system: A system prompt for every question.
        batch_size: Rows continued at once, one for each question and multiplier.
        progress: Show progress bars, under this text where it is one.

    Returns:
        One row for each behavior x multiplier x question: ``id`` (twelve hexadecimal digits, from which nothing can be
        read), ``behavior``, ``layer``, ``multiplier``, ``question`` (its place in the list), ``question_text`` and
        ``text`` (the answer, without special tokens).

    Raises:
        TypeError: If the questions are one string.
        ValueError: Before the model runs: for names that do not match, repeated multipliers, no questions, and as
            `generate` says.
    """
    import pandas as pd

    adapter = adapt(model)
    work = _by_behavior(vectors, questions)
    scale = sorted({0.0, *(float(multiplier) + 0.0 for multiplier in multipliers)})
    if len(set(multipliers)) < len(multipliers):
        raise ValueError(f"multipliers {brief(list(multipliers))}: give each once")
    check_batch_size(batch_size)
    form: Any = {"prompt_format": prompt_format, "system": system}
    for vector, asked in work.values():  # generate checks this too, but only when its turn comes
        for multiplier in scale:
            edits_of(adapter, vector, multiplier)
        check_context(adapter, [len(_ids(adapter, text, form)) + max_new_tokens for text in asked])
    sampling: Any = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
    rows: list[dict[str, Any]] = []
    for behavior, (vector, asked) in work.items():
        bar = f"{progress if isinstance(progress, str) else 'answering'} {behavior}" if progress else False
        ways = {multiplier: vector * multiplier for multiplier in scale}
        told = generate(model, asked, steer=ways, batch_size=batch_size, progress=bar, **form, **sampling)
        for multiplier, texts in told.items():
            for place, (question, text) in enumerate(zip(asked, texts, strict=True)):
                cell = (behavior, vector.layer, multiplier, place, question, text)
                rows.append(dict(zip(COLUMNS, (id_of(cell), *cell), strict=True)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def read_answers(path: Path) -> pd.DataFrame:
    """Read a frame of `answers`, scored or not, from .parquet or .csv; empty answers stay text.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: For another suffix, or a frame that lacks columns.
    """
    import pandas as pd

    if path.suffix not in (".parquet", ".csv"):
        raise ValueError(f"cannot read {path}: give a .parquet or .csv file that `answers` made")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
    else:
        words = ("id", "behavior", "question_text", "text", "note", "judge")
        frame = pd.read_csv(path, keep_default_na=False, dtype=dict.fromkeys(words, "str"))
        if "score" in frame.columns:
            frame["score"] = pd.to_numeric(frame["score"].replace("", None)).astype("float64")
    check_answers(frame)
    return frame


def check_answers(frame: pd.DataFrame, more: Sequence[str] = ()) -> None:
    """Refuse a frame that lacks columns of `answers`, or these others, or whose ids are not unique.

    Raises:
        ValueError: With what is missing or repeated.
    """
    if missing := [name for name in (*COLUMNS, *more) if name not in frame.columns]:
        what = "scored answers: score_answers() adds the scores" if more else "the frame of answers()"
        raise ValueError(f"this is not {what}; it lacks the columns {', '.join(missing)}")
    if repeated := sorted(set(frame.loc[frame["id"].duplicated(), "id"])):
        raise ValueError(
            f"{len(repeated)} ids are there twice, such as {repeated[0]}: was a frame put together with itself?"
        )


def _by_behavior(
    vectors: SteeringVector | Mapping[str, SteeringVector], questions: Sequence[str] | Mapping[str, Sequence[str]]
) -> dict[str, tuple[SteeringVector, list[str]]]:
    named = vectors if isinstance(vectors, Mapping) else {vectors.name: vectors}
    asked = questions if isinstance(questions, Mapping) else dict.fromkeys(named, questions)
    if not named:
        raise ValueError("no vectors were given: at least one is needed")
    if set(named) != set(asked):
        raise ValueError(
            f"vectors are named {brief(sorted(named))} and questions {brief(sorted(asked))}: give the same names"
        )
    for behavior, texts in asked.items():
        if isinstance(texts, str):
            raise TypeError(f"the questions are one string: give a list, such as [{texts[:20]!r}]")
        if not len(texts):
            raise ValueError(f"there are no questions for {behavior}: at least one is needed")
    return {behavior: (vector, list(asked[behavior])) for behavior, vector in named.items()}


def _ids(adapter: Adapter, question: str, form: Any) -> tuple[int, ...]:
    return format_prompt(adapter, question, **form).ids


def id_of(cell: tuple[Any, ...]) -> str:
    """Twelve hexadecimal digits for an answer and what was done to it."""
    return hashlib.sha256(json.dumps(cell).encode()).hexdigest()[:12]
