"""A whole study as one folder: vectors, sweeps, analyses, figures and a report to read.

The stages follow the CAA paper (arXiv 2312.06681), with one rule added: the layer is chosen on dev items and reported
on test items, beside nulls of several kinds and beside prompting. Each stage writes its files whole and is skipped when
they are there, so a study that was killed goes on where it stopped, and running it twice computes nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caa_lens import analysis
from caa_lens.datasets.texts import load_texts
from caa_lens.evaluation.choices import choose_layer, choose_layers, summarize
from caa_lens.extraction.extraction import extract_vectors
from caa_lens.models.adapters import HookedModel, adapt
from caa_lens.models.loading import load_model, model_info
from caa_lens.prompts import PromptFormat
from caa_lens.studies import folder as run_folder
from caa_lens.studies.data import describe, load_study_data
from caa_lens.studies.files import (
    BASE_VECTORS,
    LAYERS_FILE,
    REPORT_FILE,
    VECTORS,
)
from caa_lens.studies.measures import assess_behaviors, compare_baselines, measure_damage
from caa_lens.studies.report import write_report
from caa_lens.studies.result import StudyResult, read_study
from caa_lens.studies.settings import StudySettings
from caa_lens.studies.stages import Run, shown, stage
from caa_lens.studies.texts import answer_questions, show_tokens
from caa_lens.sweeps import sweep
from caa_lens.vectors.vectors import SteeringVectors

if TYPE_CHECKING:
    import pandas as pd


def run_study(settings: StudySettings, folder: str | Path | None = None, *, progress: bool = True) -> StudyResult:
    """Run a study, or what is left of it.

    Args:
        settings: What to run.
        folder: Where; None is ``runs/<name>-<hash of the settings>`` in the working directory.
        progress: Show a bar for each stage.

    Raises:
        FileNotFoundError: A model or a dataset is not there.
        ValueError: The folder holds something else, the texts are none, or the settings do not fit the data or the
            model. Where this can be seen without running the model, nothing has been written yet.
    """
    path = Path(folder) if folder is not None else Path("runs") / f"{settings.name}-{settings.hash}"
    data = load_study_data(settings)
    if settings.texts is not None:
        load_texts(settings.texts)
    run_folder.open_run(path, settings.to_json())
    run_folder.note_versions(path)
    for name, items in data.items():
        run_folder.remember(path, f"the data of {name}", items.hash)
    run = Run(settings, path, data, progress)
    base_vectors: dict[str, SteeringVectors] = {}
    if settings.base_model is not None:
        base = cache(lambda: _open(run, str(settings.base_model)))
        base_vectors = _vectors(run, base, BASE_VECTORS, "base vectors", settings.base_prompt_format)
    model = cache(lambda: _open(run, settings.model, base_vectors))
    vectors = _vectors(run, model, VECTORS, "vectors", settings.prompt_format)
    run_folder.table(path / "data.csv", lambda: describe(data))
    layers, common = _choose(run, _dev(run, model, vectors))
    assess_behaviors(run, model, layers)
    if settings.baselines:
        compare_baselines(run, model, vectors, layers)
    if settings.texts is not None:
        measure_damage(run, model, vectors, layers)
    samples = answer_questions(run, model, vectors, layers)
    show_tokens(run, model, vectors, layers, samples)
    _analyses(run, vectors, base_vectors, common)
    result = read_study(path)
    if not (path / REPORT_FILE).is_file():
        for _ in shown("figures and report", [""], progress=progress):
            write_report(result)
    return result


def _open(run: Run, name: str, base_vectors: Mapping[str, SteeringVectors] | None = None) -> HookedModel:
    """Load a model, and check that it is the one that the folder was begun with."""
    settings = run.settings
    [model] = [
        load_model(name, dtype=settings.dtype, device=settings.device)
        for _ in stage(run, f"loading {Path(name).name}", [""])
    ]
    run_folder.remember(run.path, f"the model {name}", model_info(model).fingerprint)
    width = adapt(model).d_model
    for vectors in (base_vectors or {}).values():
        if vectors.d_model != width:
            raise ValueError(
                f"base_model {settings.base_model!r} has d_model {vectors.d_model} and model {name!r} has {width}: "
                "their vectors cannot be compared; give another base_model, or None"
            )
    return model


def _vectors(
    run: Run, model: Any, folder: str, title: str, prompt_format: PromptFormat | None
) -> dict[str, SteeringVectors]:
    settings = run.settings
    files = {name: run.path / folder / f"{name}.safetensors" for name in run.data}
    if not all(file.is_file() for file in files.values()):
        model()
    for name in stage(run, title, files, *files.values()):
        if files[name].is_file():
            continue
        extracted = extract_vectors(
            model(),
            run.data[name].train,
            layers=settings.layers,
            read=settings.read,
            site=settings.site,
            prompt_format=prompt_format,
            system=settings.system,
            batch_size=settings.batch_size,
        )
        replace(extracted, name=name).save(files[name])
    return {name: SteeringVectors.load(file) for name, file in files.items()}


def _dev(run: Run, model: Any, vectors: Mapping[str, SteeringVectors]) -> pd.DataFrame:
    """Sweep all layers and multipliers on the dev items."""
    import pandas as pd

    file = run.path / "dev.parquet"

    def measure() -> pd.DataFrame:
        model()
        frames = [
            sweep(
                model(),
                {name: vectors[name]},
                {name: run.data[name].dev},
                multipliers=run.settings.multipliers,
                n_nulls=0,
                seed=run.settings.seed,
                prompt_format=run.settings.prompt_format,
                system=run.settings.system,
                batch_size=run.settings.batch_size,
            )
            for name in stage(run, "dev sweep", vectors, file)
        ]
        return pd.concat(frames, ignore_index=True)

    run_folder.table(file, measure)
    seed = run.settings.seed
    return run_folder.table(run.path / "dev_summary.csv", lambda: summarize(pd.read_parquet(file), seed=seed))


def _choose(run: Run, dev_summary: pd.DataFrame) -> tuple[dict[str, int], int]:
    """The layer of each behaviour, and one for all: the largest swing of the balanced effect on the dev items."""

    def choose() -> dict[str, Any]:
        pooled = dev_summary.groupby(["layer", "multiplier"], as_index=False)[["effect", "effect_balanced"]].mean()
        common = choose_layer(pooled.assign(behavior="all"))
        return {"chosen_on": "dev", "behaviors": choose_layers(dev_summary), "common": common}

    chosen = run_folder.document(run.path / LAYERS_FILE, choose)
    return dict(chosen["behaviors"]), int(chosen["common"])


def _analyses(
    run: Run, vectors: Mapping[str, SteeringVectors], base: Mapping[str, SteeringVectors], common: int
) -> None:
    """Write cosines between behaviours, between layers and between models, and norms; nothing here runs a model."""
    import pandas as pd

    def compare(name: str) -> pd.DataFrame:
        frame = analysis.compare(vectors[name], base[name])
        frame.insert(0, "behavior", name)
        return frame.rename(columns={"norm_a": "norm_chat", "norm_b": "norm_base"})

    def norms() -> pd.DataFrame:
        models = {Path(run.settings.model).name: vectors}
        if base:
            other = Path(str(run.settings.base_model)).name
            models[other if other not in models else f"{other} (base)"] = base
        frames = [analysis.norms(each).assign(model=name) for name, each in models.items()]
        return pd.concat(frames, ignore_index=True)[["model", "behavior", "layer", "norm"]]

    def matrix() -> pd.DataFrame:
        return analysis.cosine_matrix(vectors, common).rename_axis("behavior").reset_index()

    make: dict[str, Any] = {
        "cosines": matrix,
        "cosines_by_layer": lambda: analysis.behavior_cosines(vectors),
        "cross_layer": lambda: analysis.cross_layer(vectors),
        "norms": norms,
    }
    if base:
        make["base_versus_chat"] = lambda: pd.concat([compare(name) for name in vectors], ignore_index=True)
    for name, function in make.items():
        run_folder.table(run.path / f"{name}.csv", function)
