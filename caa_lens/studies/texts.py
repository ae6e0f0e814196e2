"""What a study shows of its model: steered answers, and which tokens were read, steered, and have the vector in them.

Nothing here is measured on; it is there so that a reader can see whether the study did what was meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from caa_lens.analysis import project
from caa_lens.models.adapters import adapt
from caa_lens.prompts import PromptForm, describe_tokens, format_prompt
from caa_lens.steering.steering import generate
from caa_lens.studies import folder as run_folder
from caa_lens.studies.files import SAMPLES_FILE
from caa_lens.studies.measures import Model
from caa_lens.studies.stages import Run, stage
from caa_lens.vectors.vectors import SteeringVector, SteeringVectors

if TYPE_CHECKING:
    import pandas as pd

_READ = ("behavior", "pos", "token_id", "token", "roles", "read", "steered")
_PROJECTED = (
    *("behavior", "multiplier", "document", "pos", "token_id", "token", "role", "layer", "vector"),
    *("read", "steered", "cosine", "projection", "dot"),
)


def answer_questions(
    run: Run, model: Model, vectors: Mapping[str, SteeringVectors], layers: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Answers to open-ended questions at the multipliers shown: ``behavior, layer, question, multiplier, text``."""
    import pandas as pd

    settings, file = run.settings, run.path / SAMPLES_FILE

    def answer(name: str) -> list[dict[str, Any]]:
        questions, vector = run.data[name].questions, vectors[name][layers[name]]
        texts = generate(
            model(),
            questions,
            steer={multiplier: vector * multiplier for multiplier in settings.shown},
            max_new_tokens=settings.max_new_tokens,
            prompt_format=settings.prompt_format,
            system=settings.system,
            batch_size=settings.batch_size,
            seed=settings.seed,
        )
        known = {"behavior": name, "layer": layers[name]}
        return [
            {**known, "question_text": question, "multiplier": multiplier, "text": text}
            for multiplier in settings.shown
            for question, text in zip(questions, texts[multiplier], strict=True)
        ]

    def answer_all() -> list[dict[str, Any]]:
        model()
        names = stage(run, "steered answers", vectors, file)
        return [row for name in names for row in answer(name)]

    samples = run_folder.document(file, answer_all)
    columns = ["behavior", "layer", "question_text", "multiplier", "text"]
    run_folder.table(run.path / "samples.csv", lambda: pd.DataFrame(samples, columns=columns))
    return samples


def show_tokens(
    run: Run,
    model: Model,
    vectors: Mapping[str, SteeringVectors],
    layers: Mapping[str, int],
    samples: Sequence[Mapping[str, Any]],
) -> None:
    """Write two tables of tokens, with ``behavior`` in front.

    ``read_tokens``: of the first training pair with its positive answer, as `describe_tokens` lists them, roles joined
    by commas. ``sample_tokens``: of the first question's texts, unsteered and at the largest multiplier shown, as
    `caa_lens.analysis.project` gives them, with ``multiplier``; empty where no question was asked.
    """
    import pandas as pd

    settings = run.settings
    form: PromptForm = {"prompt_format": settings.prompt_format, "system": settings.system}
    files = {name: run.path / f"{name}.parquet" for name in ("read_tokens", "sample_tokens")}

    def read(name: str) -> pd.DataFrame:
        rows = describe_tokens(model(), run.data[name].train[0], read=settings.read, **form)
        values = [(name, r.index, r.id, r.token, ", ".join(r.roles), r.read, r.steered) for r in rows]
        return pd.DataFrame(values, columns=list(_READ))

    def projected(name: str) -> list[pd.DataFrame]:
        texts = first_texts(samples, name)
        vector = vectors[name][layers[name]]
        frames = [_projected(model(), texts[multiplier], vector, multiplier, form) for multiplier in texts]
        if any(frame is None for frame in frames):
            return []
        return [frame.assign(behavior=name)[list(_PROJECTED)] for frame in frames if frame is not None]

    @cache
    def make() -> dict[str, pd.DataFrame]:
        model()
        found = [(read(name), projected(name)) for name in stage(run, "tokens", run.data, *files.values())]
        beside = [frame for _, both in found for frame in both]
        return {
            "read_tokens": pd.concat([frame for frame, _ in found], ignore_index=True),
            "sample_tokens": pd.concat(beside, ignore_index=True) if beside else pd.DataFrame(columns=list(_PROJECTED)),
        }

    for name, file in files.items():
        run_folder.table(file, lambda name=name: make()[name])


def first_texts(samples: Sequence[Mapping[str, Any]], behavior: str) -> dict[float, tuple[str, str]]:
    """The first question of a behaviour with its text, unsteered and at one multiplier; nothing without questions.

    The multiplier is the largest of the samples, or the smallest where none is above 0.
    """
    rows = [each for each in samples if each["behavior"] == behavior]
    first = {float(each["multiplier"]): each for each in rows if each["question_text"] == rows[0]["question_text"]}
    if not first:
        return {}
    chosen = max(first) if max(first) > 0 else min(first)
    return {multiplier: (first[multiplier]["question_text"], first[multiplier]["text"]) for multiplier in (0.0, chosen)}


def _projected(
    model: Any, text: tuple[str, str], vector: SteeringVector, multiplier: float, form: PromptForm
) -> pd.DataFrame | None:
    """A prompt and its text; None where they are longer, tokenized together, than what the model holds."""
    both = text if text[1].strip() else (text[0],)
    adapter = adapt(model)
    if len(format_prompt(adapter, *both, **form).ids) > adapter.n_ctx:
        return None
    steer = vector * multiplier if multiplier else None
    frame = project(model, [both if len(both) == 2 else both[0]], vector, steer=steer, **form)
    return frame.assign(multiplier=multiplier, read=False)  # no vector was made from what is read here
