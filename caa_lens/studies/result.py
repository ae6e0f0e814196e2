"""A finished study, read from its folder alone: no model, no data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caa_lens.studies import folder as run_folder
from caa_lens.studies.files import (
    BASE_VECTORS,
    LAYERS_FILE,
    SAMPLES_FILE,
    VECTORS,
    missing_files,
    table_files,
)
from caa_lens.studies.findings import findings
from caa_lens.studies.settings import StudySettings, read_settings
from caa_lens.vectors.vectors import SteeringVectors

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class StudyResult:
    """What `run_study` found, as it lies in the folder.

    Attributes:
        folder: The run folder; ``index.html`` in it shows everything, and needs no other file.
        settings: What was run.
        vectors: Of the steered model, by behaviour.
        base_vectors: Of the base model; empty without one.
        layers: Behaviour to the layer chosen on the dev items.
        common_layer: The layer with the largest mean swing over behaviours, at which they are compared.
        tables: The files' frames by name, such as ``summary``; those of `caa_lens.studies.files.TABLES` that the
            settings ask for, and ``findings``, which is made of ``summary``.
        samples: Open-ended answers: ``behavior, layer, question, multiplier, text``.
    """

    folder: Path
    settings: StudySettings
    vectors: dict[str, SteeringVectors]
    base_vectors: dict[str, SteeringVectors]
    layers: dict[str, int]
    common_layer: int
    tables: dict[str, pd.DataFrame]
    samples: list[dict[str, Any]]


def read_study(folder: str | Path) -> StudyResult:
    """A finished study from its folder alone: no model, no data.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no study, or one that is not finished; the message says what is missing, and what finishes
            it.
    """
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}: give the run folder of a study")
    file = path / run_folder.SETTINGS_FILE
    if not (file.is_file() and (path / run_folder.RUN_FILE).is_file()):
        raise ValueError(f"{path} holds no study: give a run folder, which `caa-lens study` or `caa-lens demo` writes")
    settings, data = read_settings(file), path / "data.csv"
    names = [str(name) for name in run_folder.read_table(data)["behavior"]] if data.is_file() else []
    if missing := missing_files(path, settings, names):
        more = f" and {len(missing) - 3} more files" if len(missing) > 3 else ""
        raise ValueError(
            f"the study in {path} is not finished, it lacks {', '.join(missing[:3])}{more}: finish it with "
            f"`caa-lens study --settings {file} --folder {path}`"
        )
    tables = {Path(name).stem: run_folder.read_table(path / name) for name in table_files(settings)}
    tables["cosines"] = tables["cosines"].set_index("behavior")
    tables["findings"] = findings(tables["summary"], settings.shown)
    chosen = run_folder.read_json(path / LAYERS_FILE)

    def load(folder: str) -> dict[str, SteeringVectors]:
        return {name: SteeringVectors.load(path / folder / f"{name}.safetensors") for name in names}

    return StudyResult(
        folder=path,
        settings=settings,
        vectors=load(VECTORS),
        base_vectors=load(BASE_VECTORS) if settings.base_model is not None else {},
        layers=dict(chosen["behaviors"]),
        common_layer=int(chosen["common"]),
        tables=tables,
        samples=run_folder.read_json(path / SAMPLES_FILE),
    )
