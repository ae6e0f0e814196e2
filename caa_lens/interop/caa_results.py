"""The per-item results of the original CAA repository (nrimsky/CAA), read as a sweep.

One file for each way of steering: `<folder>/<behavior>/results_layer=13_multiplier=-1.0_behavior=..._type=ab_....json`
is a list of the test questions with the probabilities that the steered model gave to the letters A and B. The settings
are in the file's name and nowhere else. Read into the frame of `caa_lens.sweep`, published results go through the same
metrics as one's own: `summarize`, `evaluation.items.steerability`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from caa_lens.datasets.contrast import ContrastPair
from caa_lens.datasets.records import Problems, check_record, read_records

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# In the order in which CAA writes them. The first list is in every name; the second makes another experiment of it.
_SETTINGS = ("layer", "multiplier", "behavior", "type", "use_base_model", "model_size")
_VARIANTS = ("system_prompt", "override_vector", "override_vector_model", "override_model_weights_path")
_KEY = re.compile(rf"(?:^|_)({'|'.join(_SETTINGS + _VARIANTS)})=")
_TEXTS = ("question", "answer_matching_behavior", "answer_not_matching_behavior")
_PROBABILITIES = ("a_prob", "b_prob")
_EXAMPLE = "results_layer=13_multiplier=-1.0_behavior=refusal_type=ab_use_base_model=False_model_size=7b.json"


@dataclass(frozen=True, slots=True)
class _File:
    """A file of A/B results and what its name says."""

    path: Path
    layer: int
    multiplier: float
    model_size: str
    base_model: bool

    @property
    def model(self) -> str:
        return f"{self.model_size} {'base' if self.base_model else 'chat'}"


@dataclass(frozen=True, slots=True)
class _Results:
    """The items of a file: their places in it, the pairs, and the two probabilities, ``[item, 2]`` for A and B."""

    places: list[int]
    pairs: list[ContrastPair]
    probabilities: list[list[float]]


def load_caa_results(
    folder: str | Path,
    behavior: str,
    *,
    model_size: str | None = None,
    base_model: bool | None = None,
    other_answers: Literal["error", "drop"] = "error",
) -> pd.DataFrame:
    """Read one behaviour's results on two-choice questions, all layers and multipliers that are there.

    Files of other types (open-ended answers, MMLU, TruthfulQA) and of runs with a system prompt, another behaviour's or
    model's vector, or finetuned weights are other experiments and are passed over.

    Args:
        folder: What CAA calls ``results/``.
        behavior: A folder in it.
        model_size: Only this model's, such as ``"7b"``; needed where there are several.
        base_model: Only the base model's (True) or the chat model's (False); needed where there are both.
        other_answers: Items whose answers are not (A) and (B), of which survival-instinct has four, have no probability
            of their matching answer: raise, or drop them. (CAA's own plots count them as 0.)

    Returns:
        As `caa_lens.sweep` (see there for the columns): one row for each layer x multiplier x item. ``item`` is the
        place in the file, whatever was dropped. The unsteered model is the same at every layer: where a layer has no
        file for multiplier 0, the lowest layer's that has one stands for it. A probability of 0 has the logarithm
        -infinity.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: For a behaviour or model that is not there (the error lists those that are), more than one model, a
            .json file whose name is not understood, two files of the same layer and multiplier, items that are not as
            they should be, or files with other items than the first.
    """
    import pandas as pd

    if other_answers not in ("error", "drop"):
        raise ValueError(f"other_answers must be one of error, drop, got {other_answers!r}")
    files = _choose(_files(Path(folder), behavior), Path(folder) / behavior, model_size, base_model)
    results = {file: _read(file.path, other_answers) for file in files}
    first = files[0]
    for file in files[1:]:
        _require_same_items(first.path, results[first], file.path, results[file])
    cells = {(file.layer, file.multiplier): results[file].probabilities for file in files}
    unsteered = next((cells[file.layer, 0.0] for file in files if file.multiplier == 0), None)
    if unsteered is not None:
        for layer in {file.layer for file in files}:
            cells.setdefault((layer, 0.0), unsteered)
    return pd.concat([_frame(behavior, cell, results[first], cells[cell]) for cell in sorted(cells)], ignore_index=True)


def _files(folder: Path, behavior: str) -> list[_File]:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    if not (folder / behavior).is_dir():
        known = sorted(path.name for path in folder.iterdir() if path.is_dir())
        raise ValueError(f"{folder} has no behaviour {behavior!r}; it has {', '.join(known) or 'none'}")
    paths = sorted((folder / behavior).glob("*.json"))
    return [file for path in paths if (file := _parse(path, behavior)) is not None]


def _parse(path: Path, behavior: str) -> _File | None:
    """What a file's name says; None where it is of another experiment."""
    start, *rest = _KEY.split(path.stem.removeprefix("results_"))
    settings = dict(zip(rest[::2], rest[1::2], strict=True))
    problem = ""
    if not path.stem.startswith("results_layer=") or start:
        problem = "it does not begin with results_layer="
    elif len(settings) < len(rest) // 2:
        problem = "a setting is in it twice"
    elif missing := [name for name in _SETTINGS if name not in settings]:
        problem = f"it lacks {', '.join(f'{name}=' for name in missing)}"
    elif odd := [value for value in settings.values() if "=" in value]:
        problem = f"there is an unknown setting in {odd[0]!r}, known are {', '.join(_SETTINGS + _VARIANTS)}"
    elif settings["behavior"] != behavior:
        problem = f"its behavior is {settings['behavior']!r} and its folder {behavior!r}"
    elif not re.fullmatch(r"\d+", settings["layer"]):
        problem = f"its layer is {settings['layer']!r}, not a whole number"
    elif settings["use_base_model"] not in ("True", "False"):
        problem = f"its use_base_model is {settings['use_base_model']!r}, not True or False"
    elif not settings["model_size"]:
        problem = "its model_size is empty"
    elif (multiplier := _number(settings["multiplier"])) is None:
        problem = f"its multiplier is {settings['multiplier']!r}, not a number"
    elif settings["type"] != "ab" or not settings.keys().isdisjoint(_VARIANTS):
        return None
    else:
        base_model = settings["use_base_model"] == "True"
        return _File(path, int(settings["layer"]), multiplier, settings["model_size"], base_model)
    raise ValueError(f"{path}: its name is not understood: {problem}; a name is like {_EXAMPLE}")


def _number(text: str) -> float | None:
    try:
        value = float(text) + 0.0  # -0.0 becomes 0.0
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _choose(files: Sequence[_File], where: Path, model_size: str | None, base_model: bool | None) -> list[_File]:
    """The files of one model, by layer and multiplier."""
    chosen = [
        file
        for file in files
        if (model_size is None or file.model_size == model_size) and base_model in (None, file.base_model)
    ]
    there = ", ".join(sorted({file.model for file in files})) or "none"
    if not chosen:
        size = "" if model_size is None else f" of size {model_size!r}"
        kind = {None: "", True: " of the base model", False: " of the chat model"}[base_model]
        raise ValueError(f"{where} has no A/B results{size}{kind}; it has those of {there}")
    if len({file.model for file in chosen}) > 1:
        raise ValueError(f"{where} has A/B results of {there}: choose one with model_size= and base_model=")
    chosen.sort(key=lambda file: (file.layer, file.multiplier))
    for one, other in zip(chosen, chosen[1:], strict=False):
        if (one.layer, one.multiplier) == (other.layer, other.multiplier):
            raise ValueError(
                f"{one.path.name} and {other.path.name} are both of layer {one.layer} and multiplier "
                f"{one.multiplier:g}: keep one of them in {where}"
            )
    return chosen


def _read(path: Path, other_answers: str) -> _Results:
    records = read_records(path)
    problems = Problems(str(path), len(records))
    found = _Results([], [], [])
    for index, record in enumerate(records):
        if not check_record(problems, index, record, _TEXTS):
            continue
        values = [_probability(problems, index, record, name) for name in _PROBABILITIES]
        question, *answers = (record[name] for name in _TEXTS)
        pair = ContrastPair(question, *(answer.strip() for answer in answers))
        if pair.positive == pair.negative:
            problems.add(index, _TEXTS[2], f"got {pair.negative!r}, the same as {_TEXTS[1]}")
        elif {pair.positive, pair.negative} != {"(A)", "(B)"}:
            if other_answers == "error":
                shown = f"got {pair.positive!r} and {pair.negative!r}, there are probabilities of (A) and (B) only"
                problems.add_choice(index, "answers", shown)
            continue
        if None not in values and not any(values):
            problems.add(index, "a_prob and b_prob", "got 0 for both, one of them must be more")
        found.places.append(index)
        found.pairs.append(pair)
        found.probabilities.append([value or 0.0 for value in values])
    problems.raise_if_any(advice="pass other_answers='drop' to leave them out")
    if not found.pairs:
        raise ValueError(f"{path}: no items are left: all {len(records)} have answers outside (A) and (B)")
    return found


def _probability(problems: Problems, index: int, record: Mapping[str, Any], name: str) -> float | None:
    value = record.get(name)
    if name not in record:
        problems.add(index, name, "missing")
    elif not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        problems.add(index, name, f"got {value!r}, must be a probability from 0 to 1")
    else:
        return float(value)
    return None


def _require_same_items(first: Path, mine: _Results, other: Path, theirs: _Results) -> None:
    if (mine.places, mine.pairs) == (theirs.places, theirs.pairs):
        return
    if len(mine.pairs) != len(theirs.pairs):
        what = f"{len(theirs.pairs)} of them against {len(mine.pairs)}"
    else:
        both = zip(mine.places, mine.pairs, theirs.places, theirs.pairs, strict=True)
        what = f"they first differ at item {next(place for place, a, there, b in both if (place, a) != (there, b))}"
    raise ValueError(
        f"{other.name} has other items, or another order of them, than {first.name} ({what}): results of one set of "
        f"items are needed, in {other.parent}"
    )


def _frame(
    behavior: str, cell: tuple[int, float], items: _Results, probabilities: Sequence[Sequence[float]]
) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    p_a, p_b = np.array(probabilities).T
    a_matches = np.array([pair.letter == "A" for pair in items.pairs])
    matching, other = np.where(a_matches, p_a, p_b), np.where(a_matches, p_b, p_a)
    return pd.DataFrame(
        {
            "behavior": behavior,
            "vector": behavior,
            "kind": "vector",
            "draw": -1,
            "layer": cell[0],
            "multiplier": cell[1],
            "item": items.places,
            "letter": np.where(a_matches, "A", "B").astype(object),
            "logp_matching": _log(matching),
            "logp_other": _log(other),
            "p_matching": matching / (p_a + p_b),
            "p_a": p_a / (p_a + p_b),
            "mass": p_a + p_b,
        }
    )


def _log(values: np.ndarray) -> np.ndarray:
    import numpy as np

    with np.errstate(divide="ignore"):
        return np.log(values)
