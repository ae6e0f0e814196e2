"""What a study measures on its test items, at the layers that were chosen on others.

The assessment (effects, nulls of every kind, letters, reliability), the baselines (prompting instead of steering), and
what steering does to neutral text. Every per-item frame is kept as parquet, so that all tables can be made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from caa_lens.datasets.texts import load_texts
from caa_lens.evaluation.choices import summarize
from caa_lens.extraction.extraction import extract_activations
from caa_lens.files.whole import write_whole
from caa_lens.prompts import PromptOptions
from caa_lens.protocols import assessment
from caa_lens.protocols.baselines.comparison import applicable, compare
from caa_lens.protocols.selection import damage
from caa_lens.studies import folder as run_folder
from caa_lens.studies.stages import Run, stage
from caa_lens.vectors.vectors import SteeringVectors

if TYPE_CHECKING:
    import pandas as pd

Model = Callable[[], Any]
"""Loads the model at its first call; never called where all files are there."""


def assess_behaviors(run: Run, model: Model, layers: Mapping[str, int]) -> dict[str, pd.DataFrame]:
    """The test items' sweep as ``test``, `summarize` of it as ``summary``, and each behaviour's ``assessment``."""
    import pandas as pd

    settings = run.settings
    frames = {name: run.path / f"{name}.parquet" for name in ("test", "asked_twice", "reading")}
    options: PromptOptions = {
        "prompt_format": settings.prompt_format,
        "system": settings.system,
        "batch_size": settings.batch_size,
    }

    def measure_one(name: str) -> assessment.Measured:
        items = run.data[name]
        activations = extract_activations(
            model(), items.train, layers=[layers[name]], read=settings.read, site=settings.site, **options
        )
        return assessment.measure(
            model(),
            replace(activations, name=name),
            items.test,
            multipliers=settings.multipliers,
            n_nulls=settings.n_nulls,
            seed=settings.seed,
            read=settings.read,
            **options,
        )

    @cache
    def measure() -> assessment.Measured:
        model()
        found = [measure_one(name) for name in stage(run, "assessment", run.data, *frames.values())]
        of_all = {each: [getattr(one, attribute) for one in found] for each, attribute in _ATTRIBUTES.items()}
        return assessment.Measured(*(pd.concat(of_all[each], ignore_index=True) for each in frames))

    for each, file in frames.items():
        run_folder.table(file, lambda each=each: getattr(measure(), _ATTRIBUTES[each]))
    measured = assessment.Measured(*(pd.read_parquet(file) for file in frames.values()))
    summary = run_folder.table(run.path / "summary.csv", lambda: summarize(measured.items, seed=settings.seed))
    table = run_folder.table(run.path / "assessment.parquet", lambda: assessment.tabulate(measured, seed=settings.seed))
    return {"test": measured.items, "summary": summary, "assessment": table}


NULLS_OF_BASELINES = 10
"""Random vectors on top of each baseline; `caa_lens.protocols.baselines.compare` takes more where it matters."""

_ATTRIBUTES = {"test": "items", "asked_twice": "asked_twice", "reading": "reading"}


def compare_baselines(
    run: Run, model: Model, vectors: Mapping[str, SteeringVectors], layers: Mapping[str, int]
) -> pd.DataFrame:
    """`caa_lens.protocols.baselines.compare` of each behaviour.

    A baseline that cannot be asked (no system prompts are known for the behaviour, examples do not fit the context) is
    left out, with the reason in ``baselines_left_out.json``, rather than ending a study whose other parts are done.
    """
    import pandas as pd

    settings, file = run.settings, run.path / "baselines.parquet"
    explained = run.path / "baselines_left_out.json"

    def compare_all() -> pd.DataFrame:
        model()
        found: list[pd.DataFrame] = []
        left_out: dict[str, str] = {}
        for name in stage(run, "baselines", run.data, file):
            items = run.data[name]
            asked, reasons = applicable(
                model(),
                items.test,
                train=items.train,
                baselines=settings.baselines,
                seed=settings.seed,
                prompt_format=settings.prompt_format,
            )
            left_out |= {f"{name}, {baseline}": reason for baseline, reason in reasons.items()}
            found.append(
                compare(
                    model(),
                    vectors[name],
                    items.test,
                    train=items.train,
                    layer=layers[name],
                    multipliers=settings.shown,
                    baselines=asked,
                    n_nulls=NULLS_OF_BASELINES,
                    seed=settings.seed,
                    prompt_format=settings.prompt_format,
                    batch_size=settings.batch_size,
                )
            )
        write_whole(explained, lambda path: run_folder.write_json(left_out, path))
        return pd.concat(found, ignore_index=True)

    return run_folder.table(file, compare_all)


def measure_damage(
    run: Run, model: Model, vectors: Mapping[str, SteeringVectors], layers: Mapping[str, int]
) -> pd.DataFrame:
    """`caa_lens.protocols.selection.damage` of each behaviour at its layer, on the study's neutral texts."""
    import pandas as pd

    settings, file = run.settings, run.path / "side_effects.parquet"
    texts = load_texts(str(settings.texts))
    multipliers = [multiplier for multiplier in settings.multipliers if multiplier]

    def measure() -> pd.DataFrame:
        model()
        return pd.concat(
            [
                damage(
                    model(),
                    vectors[name],
                    texts,
                    layers=[layers[name]],
                    multipliers=multipliers,
                    batch_size=settings.batch_size,
                )
                for name in stage(run, "side effects", vectors, file)
            ],
            ignore_index=True,
        )

    return run_folder.table(file, measure)
