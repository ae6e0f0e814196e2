"""The files of a run folder: what they are called, what they hold, and whether a study has all of them.

The report and the reader of a folder go by this list, so that no table is left out of either.
"""

from __future__ import annotations

from pathlib import Path

from caa_lens.studies.folder import RUN_FILE, SETTINGS_FILE
from caa_lens.studies.settings import StudySettings

REPORT_FILE = "index.html"
LAYERS_FILE = "layers.json"
SAMPLES_FILE = "samples.json"
LEFT_OUT_FILE = "baselines_left_out.json"
VECTORS, BASE_VECTORS = "vectors", "vectors-base"

TABLES = {
    "data.csv": "How many items of each behaviour were used for what, the test items' letters, and how many of their "
    "prompts were seen before, which should be 0.",
    "summary.csv": "The test items, summarized for each multiplier: effects with intervals, letters, and nulls.",
    "assessment.parquet": "All numbers that the assessment in words is made of.",
    "reading.parquet": "Reliability of each vector, and how well it separates pairs that were held out.",
    "baselines.parquet": "Prompting alone, and steering on top of it, on the same test items.",
    "side_effects.parquet": "KL divergence from the unsteered model, and loss, on neutral text.",
    "dev_summary.csv": "The dev items, summarized for each layer and multiplier; the layers were chosen on these.",
    "cosines.csv": "Cosine between the behaviours' vectors at the layer chosen for all of them together.",
    "cosines_by_layer.csv": "The same at every layer, a row for each pair of behaviours.",
    "cross_layer.csv": "Cosine between one behaviour's vectors of two layers.",
    "base_versus_chat.csv": "Cosine between the steered model's vectors and the base model's, and their lengths.",
    "norms.csv": "Length of every vector.",
    "samples.csv": "The steered texts.",
    "read_tokens.parquet": "Token by token, what was read and what is steered in one training pair of each behaviour.",
    "sample_tokens.parquet": "Token by token, how much of its vector is in a text without steering and with it.",
    "test.parquet": "The test items one by one, with every null vector: summary.csv comes from this.",
    "asked_twice.parquet": "The test items with their answers under both letters.",
    "dev.parquet": "The dev items one by one: dev_summary.csv comes from this.",
}
"""Every table that a study may write, in the order of the report, with what it holds."""

_ASKED = {"baselines.parquet": "baselines", "side_effects.parquet": "texts", "base_versus_chat.csv": "base_model"}
"""Tables that are there only where a setting asks for them."""


def table_files(settings: StudySettings) -> list[str]:
    """The tables of a study with these settings."""
    return [file for file in TABLES if file not in _ASKED or getattr(settings, _ASKED[file])]


def missing_files(folder: Path, settings: StudySettings, behaviors: list[str]) -> list[str]:
    """What a folder lacks of a finished study, its report aside."""
    folders = [VECTORS, BASE_VECTORS] if settings.base_model is not None else [VECTORS]
    wanted = [SETTINGS_FILE, RUN_FILE, LAYERS_FILE, SAMPLES_FILE, *table_files(settings)]
    wanted += [f"{each}/{name}.safetensors" for each in folders for name in behaviors]
    return [name for name in wanted if not (folder / name).is_file()]
