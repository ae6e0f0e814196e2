"""What a study is made of, as one frozen value that reads from and writes to JSON.

Two studies with equal settings are the same study: the name of the run folder is made from them, a killed run goes on
under them, and other settings in the same folder are refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from caa_lens.datasets.contrast import OtherAnswers, behaviors
from caa_lens.files.bundled import data_dir
from caa_lens.files.messages import brief
from caa_lens.models.sites import Site
from caa_lens.prompts import PromptFormat
from caa_lens.studies.folder import HOW


class StudySettings(BaseModel):
    """Settings of `caa_lens.run_study`.

    Attributes:
        name: Of the study; letters, digits, dots, dashes and underscores.
        model: The model that is steered: a bundled name, a local directory, or a hub id.
        base_model: Another model whose vectors are compared with the first one's; None leaves the comparison out.
        behaviors: Bundled names; paths of files in the CAA schema; or folders with ``generate.json`` and, where they
            have them, ``test_ab.json`` and ``test_open_ended.json``.
        dev: Behaviour to a file of items to choose its layer on, in place of a share of its pairs.
        test: Behaviour to the file of its test items. Where a behaviour has neither this nor a ``test_ab.json``, a
            share of ``dev_fraction`` of its pairs is kept for the test.
        multipliers: What is swept; 0 is always measured too.
        layers: None for all.
        n_nulls: So many nulls of each kind in `caa_lens.extraction.nulls.KINDS`, on the test items at the chosen layer.
        baselines: What steering is compared with: ``system``, ``few_shot``, ``finetuned`` (which trains copies of the
            model); see `caa_lens.protocols.baselines.compare`. Empty for none.
        texts: Neutral running text that side effects are measured on: a bundled name (``neutral``), a file, or None.
        seed: Of the split, the nulls, the examples shown and the bootstrap.
        prompt_format: Of the steered model; None chooses by its tokenizer.
        base_prompt_format: Of the base model.
        system: A system prompt for every prompt.
        read: Where vectors are read: a role of the formatted prompt, or a position.
        site: Where in each block vectors are read and added: one of `caa_lens.models.SITES`.
        dev_fraction: Share of the pairs on which the layer is chosen, not used for the vectors.
        max_pairs: Use at most so many pairs of each behaviour, the first ones.
        other_answers: What to do with answers other than (A) and (B).
        n_questions: Open-ended questions shown for each behaviour.
        max_new_tokens: Length of the answers to them.
        dtype: Of the weights.
        device: None chooses CUDA where there is one.
        batch_size: Prompts run at once; None chooses by their length.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "demo"
    model: str = "organism-chat"
    base_model: str | None = "organism-base"
    behaviors: tuple[str, ...] = Field(default_factory=behaviors)
    dev: dict[str, str] = Field(default_factory=dict)
    test: dict[str, str] = Field(default_factory=dict)
    multipliers: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.5, 1.0)
    layers: tuple[int, ...] | None = None
    n_nulls: int = Field(default=20, ge=1)
    baselines: tuple[Literal["system", "few_shot", "finetuned"], ...] = ("system", "few_shot")
    texts: str | None = "neutral"
    seed: int = Field(default=0, ge=0)
    prompt_format: PromptFormat | None = None
    base_prompt_format: PromptFormat | None = None
    system: str | None = None
    read: int | str = "answer_letter"
    site: Site = "resid_post"
    dev_fraction: float = Field(default=0.2, gt=0, lt=0.5)
    max_pairs: int | None = Field(default=None, ge=3)
    other_answers: OtherAnswers = "error"
    n_questions: int = Field(default=3, ge=0)
    max_new_tokens: int = Field(default=40, ge=1)
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    device: str | None = None
    batch_size: int | None = Field(default=None, ge=1)

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError("use letters, digits, dots, dashes and underscores, with a letter or digit first")
        return name

    @field_validator("base_model")
    @classmethod
    def _check_base_model(cls, base_model: str | None, info: ValidationInfo) -> str | None:
        if base_model is not None and base_model == info.data.get("model"):
            raise ValueError("give another model than `model`, or null to leave the comparison out")
        return base_model

    @field_validator("behaviors")
    @classmethod
    def _check_behaviors(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or len(set(names)) < len(names):
            raise ValueError("give at least one behaviour, each once")
        return names

    @field_validator("baselines")
    @classmethod
    def _check_baselines(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("give each baseline once")
        return names

    @field_validator("multipliers")
    @classmethod
    def _check_multipliers(cls, multipliers: tuple[float, ...]) -> tuple[float, ...]:
        if not all(map(math.isfinite, multipliers)) or not any(multipliers):
            raise ValueError("give finite numbers, at least one of which is not 0")
        if len(set(multipliers)) < len(multipliers):
            raise ValueError("give each multiplier once")
        return tuple(sorted({0.0, *(multiplier + 0.0 for multiplier in multipliers)}))

    @field_validator("layers")
    @classmethod
    def _check_layers(cls, layers: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if layers is None:
            return None
        if not layers or min(layers) < 0 or len(set(layers)) < len(layers):
            raise ValueError("give layers from 0 on, at least one, each once")
        return tuple(sorted(layers))

    @field_validator("read")
    @classmethod
    def _check_read(cls, read: int | str) -> int | str:
        return int(read) if isinstance(read, str) and re.fullmatch(r"-?\d+", read) else read

    @property
    def shown(self) -> tuple[float, ...]:
        """The multipliers that tables and texts show: -1, 0 and +1, or the outermost ones where not swept."""
        low = -1.0 if -1.0 in self.multipliers else min(self.multipliers)
        high = 1.0 if 1.0 in self.multipliers else max(self.multipliers)
        return tuple(sorted({low, 0.0, high}))

    def to_json(self) -> str:
        """All fields, in order, as one indented JSON object."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"

    @property
    def hash(self) -> str:
        """8 hexadecimal digits that name what is studied; device and batch size, which only say how, are left out."""
        what = self.model_dump_json(exclude=set(HOW))
        return hashlib.sha256(what.encode()).hexdigest()[:8]


def study_settings(values: Mapping[str, Any]) -> StudySettings:
    """Settings from plain values, with errors in plain words.

    Raises:
        ValueError: Naming every field that is not as it should be, with what was given.
    """
    try:
        return StudySettings.model_validate(dict(values))
    except ValidationError as error:
        raise ValueError(_in_words(error)) from None


def read_settings(path: str | Path) -> StudySettings:
    """Settings from a JSON file, such as a run folder's ``settings.json``; fields left out have their defaults.

    Args:
        path: The file, or the name of a bundled one, such as ``refusal-scaling-7b``; see `bundled_studies`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no JSON object, or its fields are not as they should be.
    """
    path = Path(path)
    if str(path) in bundled_studies() and not path.is_file():
        path = data_dir() / "studies" / f"{path}.json"
    if not path.is_file():
        known = ", ".join(bundled_studies())
        raise FileNotFoundError(f"there is no settings file {path}, and no bundled one of that name: {known}")
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON object with settings, it holds a {type(values).__name__}")
    try:
        return study_settings(cast("dict[str, Any]", values))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def bundled_studies() -> tuple[str, ...]:
    """Names of the bundled settings files, sorted."""
    return tuple(sorted(file.stem for file in (data_dir() / "studies").glob("*.json")))


def _in_words(error: ValidationError) -> str:
    problems: dict[str, str] = {}
    for problem in error.errors():
        field = str(problem["loc"][0]) if problem["loc"] else "settings"
        message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
        if problem["type"] == "extra_forbidden":
            message = "there is no such setting"
        else:
            message = f"{message[:1].lower()}{message[1:]}, got {brief(problem['input'])}"
        problems.setdefault(field, message)
    told = [f"{field}: {message}" for field, message in problems.items()]
    more = [f"and {len(told) - 8} more"] if len(told) > 8 else []
    if "there is no such setting" in problems.values():
        more.append(f"there are {', '.join(StudySettings.model_fields)}")
    return "; ".join([*told[:8], *more])
