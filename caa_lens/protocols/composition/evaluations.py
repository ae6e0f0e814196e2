"""The evaluations of a search: made once, kept in a file where there is one, and chosen from.

The file is written whole after every few evaluations, and a search that was stopped goes on from it. It notes the
hashes of what the evaluations are made from, so that it is not taken for those of another search.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from caa_lens.datasets.contrast import ContrastDataset
from caa_lens.files.whole import write_whole
from caa_lens.interventions.interventions import Intervention
from caa_lens.models.adapters import HookedModel
from caa_lens.models.loading import model_info
from caa_lens.prompts import PromptOptions
from caa_lens.protocols.composition.asking import ask, compared
from caa_lens.vectors.vectors import SteeringVector, SteeringVectors

if TYPE_CHECKING:
    import pandas as pd

Parts = dict[str, Intervention]
"""One candidate: by behaviour, its vector and how much of it."""

AT_ONCE = 32
"""Evaluations run together, over which each prompt is run once, and then saved."""


class Evaluations:
    """Evaluations on the dev items: made once, kept in a file where there is one, and chosen from."""

    def __init__(
        self,
        model: HookedModel,
        vectors: Mapping[str, SteeringVector] | Mapping[str, SteeringVectors],
        dev: Mapping[str, ContrastDataset],
        cells: Path | None,
        limits: tuple[float, float],
        options: PromptOptions,
    ) -> None:
        """Open the file and see that it is of this search."""
        self._model, self._dev, self._cells, self._limits, self._options = model, dev, cells, limits, options
        self._made_from = _fingerprint(model, vectors, dev, options)
        self._rows: dict[str, list[dict[str, Any]]] = _read(cells, self._made_from)
        self.order: list[str] = []

    def best(self, candidates: Sequence[Parts], bar: tqdm[Any]) -> Parts:
        """Evaluate what has not been evaluated, and give the permitted candidate with the largest score."""
        keys = [_key(parts) for parts in candidates]
        todo = [(key, parts) for key, parts in zip(keys, candidates, strict=True) if key not in self._rows]
        bar.update(len(candidates) - len(todo))
        for at in range(0, len(todo), AT_ONCE):
            self._evaluate(dict(todo[at : at + AT_ONCE]))
            bar.update(len(todo[at : at + AT_ONCE]))
        self.order += keys
        judged = [(self._score(key), parts) for key, parts in zip(keys, candidates, strict=True)]
        permitted = [(score, parts) for (score, allowed), parts in judged if allowed]
        if not permitted:
            of_each = [self._rows[key] for key in keys]
            least = min(max(row["share_outside"] for row in rows) for rows in of_each)
            most = max(min(row["mass"] for row in rows) for rows in of_each)
            raise ValueError(
                f"none of {len(keys)} candidates for {', '.join(candidates[0])} is permitted: at the best "
                f"one {least:.0%} of a behaviour's items are answered with neither answer (allowed "
                f"{self._limits[0]:.0%}), and the largest mass is {most:.2g} (at least {self._limits[1]:g}); give "
                "smaller coefficients, or weaker limits"
            )
        return max(permitted, key=lambda each: each[0])[1]

    def tried(self) -> pd.DataFrame:
        """All evaluations, in the order in which they were asked for."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for key in self.order:
            score, allowed = self._score(key)
            rows += [{"candidate": key, **row, "permitted": allowed, "objective": score} for row in self._rows[key]]
        return pd.DataFrame(rows)

    def effect(self, parts: Parts, behavior: str) -> float:
        """What a candidate did to a behaviour's dev items."""
        return next(row["effect_even"] for row in self._rows[_key(parts)] if row["behavior"] == behavior)

    def _score(self, key: str) -> tuple[float, bool]:
        rows, (max_outside, min_mass) = self._rows[key], self._limits
        score = sum(row["effect_even"] * math.copysign(1, row["multiplier"]) for row in rows) / len(rows)
        within = all(row["share_outside"] <= max_outside and row["mass"] >= min_mass for row in rows)
        return score, within and math.isfinite(score)  # a NaN, of logits that overflowed, is not permitted

    def _evaluate(self, candidates: Mapping[str, Parts]) -> None:
        new: dict[str, list[dict[str, Any]]] = {key: [] for key in candidates}
        for name, items in self._dev.items():
            ways = {key: [*parts.values()] for key, parts in candidates.items() if name in parts}
            if not ways:
                continue
            table = compared(ask(self._model, ways, items, **self._options), n_bootstrap=1).set_index("vector")
            for key in ways:
                part = candidates[key][name]
                row = {"behavior": name, "layer": part.layer, "multiplier": part.multiplier}
                new[key].append(
                    row | {column: float(table[column][key]) for column in ("effect_even", "mass", "share_outside")}
                )
        self._rows |= new
        if self._cells is not None:
            text = json.dumps({"made_from": self._made_from, "evaluations": self._rows}, indent=1)
            write_whole(self._cells, lambda to: to.write_text(text, encoding="utf-8"))


def _key(parts: Parts) -> str:
    return ", ".join(f"{name} layer {part.layer} x {part.multiplier!r}" for name, part in parts.items())


def _fingerprint(
    model: HookedModel,
    vectors: Mapping[str, SteeringVector] | Mapping[str, SteeringVectors],
    dev: Mapping[str, ContrastDataset],
    options: PromptOptions,
) -> dict[str, str]:
    """What an evaluation depends on beside the candidate."""

    def numbers(each: SteeringVector | SteeringVectors) -> str:
        return hashlib.sha256(each.values.numpy().tobytes()).hexdigest()

    found = {"model": model_info(model).fingerprint}
    found |= {f"vectors of {name}": numbers(each) for name, each in vectors.items()}
    found |= {f"dev items of {name}": each.hash for name, each in dev.items()}
    return found | {"prompt_format": str(options["prompt_format"]), "system": str(options["system"])}


def _read(cells: Path | None, made_from: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    if cells is None or not cells.exists():
        return {}
    try:
        held: Any = json.loads(cells.read_text(encoding="utf-8"))
        old, rows = held["made_from"], held["evaluations"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{cells} holds no evaluations of a search: give another file") from error
    if other := sorted(key for key in old.keys() | made_from.keys() if old.get(key) != made_from.get(key)):
        raise ValueError(f"{cells} is of another search, with other {', '.join(other)}: give another file")
    return rows
