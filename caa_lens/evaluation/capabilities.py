"""Does a steered model still know what it knew? Questions with one right answer, asked at every cell of a sweep.

The CAA paper (arXiv 2312.06681) asks a steered model questions of MMLU and TruthfulQA, laid out as two
choices, and reports how likely the right letter is of the two. An unsteered model is asked the same questions here, so
every change is paired: an item that was right and is wrong now, or the other way about. Accuracy stands beside the
probability of the right letter, which moves long before an answer flips; beside its values balanced over letters and
over categories; and beside the change that random vectors of the same norm make, since adding anything costs something.

Bundled are ``facts`` of the organism's world and ``truthful``, where the asker says something false first. The paper's
own files, `mmlu.json` (57 categories of 10) and `truthful_qa.json`, are read as they were published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from caa_lens.datasets.contrast import ContrastDataset
from caa_lens.datasets.records import Problems, check_record, read_records
from caa_lens.evaluation.statistics import Resampled, against_nulls, balanced, mcnemar, mean_of, resampled, upper_limit
from caa_lens.files.bundled import data_dir
from caa_lens.files.messages import brief
from caa_lens.models.adapters import HookedModel
from caa_lens.prompts import PromptFormat, PromptOptions
from caa_lens.sweeps import Nulls, sweep
from caa_lens.vectors.vectors import Vectors, as_vectors

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

ANSWERS = ("correct", "incorrect")
CELL = ["set", "behavior", "layer", "multiplier"]


@dataclass(frozen=True, slots=True)
class CapabilitySet:
    """Two-choice questions with a right answer, each with its category. A slice is a set too.

    Attributes:
        name: Such as ``facts`` or ``mmlu``.
        items: The questions; ``positive`` is the right answer.
        categories: Of each item.
        empty_choices: Items with a choice that has no text, as five of the published `truthful_qa.json` have.
    """

    name: str
    items: ContrastDataset
    categories: tuple[str, ...]
    empty_choices: tuple[int, ...] = ()

    def __len__(self) -> int:
        """Number of questions."""
        return len(self.items)

    def __getitem__(self, part: slice) -> CapabilitySet:
        """Some of the questions."""
        kept = range(len(self))[part]
        empty = tuple(place for place, item in enumerate(kept) if item in self.empty_choices)
        return CapabilitySet(self.name, self.items[part], self.categories[part], empty)

    def summary(self) -> str:
        """One readable line: what was read, and what is amiss with it."""
        blemish = f"; {len(self.empty_choices)} have a choice without text" if self.empty_choices else ""
        return f"{self.name}: {self.items.report.summary()}; {len(set(self.categories))} categories{blemish}"


def capability_sets() -> tuple[str, ...]:
    """Names of the bundled sets, sorted."""
    return tuple(sorted(file.stem for file in (data_dir() / "capabilities").glob("*.json")))


def load_capabilities(source: str | Path, *, empty_choices: Literal["keep", "drop"] = "keep") -> CapabilitySet:
    """Load questions: a bundled set by name, or a .json, .jsonl or .csv file in CAA's schema for them.

    The schema has ``prompt``, ``correct``, ``incorrect`` (``(A)`` and ``(B)``) and ``category``; the choices' texts,
    ``correct_full_text`` and ``incorrect_full_text``, may be left out.

    Args:
        source: A name from `capability_sets`, or a path such as `<caa>/datasets/test/mmlu/mmlu.json`.
        empty_choices: What to do with items of which a choice has no text; kept ones are counted in the set.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: For an unknown name, a file that cannot be read, or items that are not as they should be: one error
            with the number of problems and the first few of them.
    """
    if empty_choices not in ("keep", "drop"):
        raise ValueError(f"empty_choices must be one of keep, drop, got {empty_choices!r}")
    path = _find(source)
    rows = read_records(path)
    problems = Problems(str(path), len(rows))
    for index, row in enumerate(rows):
        if check_record(problems, index, row, ("prompt", *ANSWERS, "category")):
            for field in ANSWERS:
                if row[field].strip() not in ("(A)", "(B)"):
                    problems.add(index, field, f"got {row[field]!r}, allowed (A) or (B)")
            if row["correct"].strip() == row["incorrect"].strip():
                problems.add(index, "incorrect", f"got {row['incorrect']!r}, the same as correct")
    problems.raise_if_any()
    records = cast("list[dict[str, str]]", rows)
    empty = {index for index, row in enumerate(records) if not _has_both_texts(row)}
    kept = [index for index in range(len(records)) if empty_choices == "keep" or index not in empty]
    if not kept:
        raise ValueError(f"{path}: no items are left: all {len(records)} have a choice without text")
    triples = [(row["prompt"], row["correct"], row["incorrect"]) for row in (records[index] for index in kept)]
    items = ContrastDataset.from_pairs(triples, name=path.stem)
    return CapabilitySet(
        path.stem,
        items,
        tuple(records[index]["category"] for index in kept),
        tuple(place for place, index in enumerate(kept) if index in empty),
    )


def capabilities(
    model: HookedModel,
    vectors: Vectors,
    sets: CapabilitySet | Sequence[CapabilitySet],
    *,
    layers: Sequence[int] | None = None,
    multipliers: Sequence[float] = (-1.0, 0.0, 1.0),
    n_nulls: int = 20,
    seed: int = 0,
    nulls: Nulls | None = None,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool | str = False,
) -> pd.DataFrame:
    """Ask every question at every layer and multiplier; each prompt is run once for all cells.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        vectors: One behaviour's vectors.
        sets: As `load_capabilities` gives them; one, or several of different names.
        layers: Layers to steer; None for all that the vectors have.
        multipliers: 0, against which every change is measured, is added where it is missing.
        n_nulls: So many random vectors of each layer's norm go through the same cells.
        seed: Of the random vectors.
        nulls: Other nulls that do, by kind; see `sweep`.
        prompt_format: See `format_prompt`.
        system: A system prompt for every question.
        batch_size: Prompts run at once.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        The frame of `sweep`, where the right answer is the matching one, with ``set``, ``category`` and ``correct``
        (whether the right answer is the likelier of the two).

    Raises:
        ValueError: Before the model runs: for no sets, two of one name, and as `sweep` says.
    """
    import pandas as pd

    vectors = as_vectors(vectors)
    asked = [sets] if isinstance(sets, CapabilitySet) else list(sets)
    names = [each.name for each in asked]
    if not asked or len(set(names)) < len(names):
        raise ValueError(f"sets are {names}: give at least one, each under a name of its own")
    options: PromptOptions = {"prompt_format": prompt_format, "system": system, "batch_size": batch_size}
    frames: list[pd.DataFrame] = []
    for each in asked:
        frame = sweep(
            model, vectors, each.items, layers=layers, multipliers=multipliers, n_nulls=n_nulls, seed=seed, nulls=nulls,
            progress=progress, **options,
        )  # fmt: skip
        frame.insert(0, "set", each.name)
        frame["category"] = [each.categories[item] for item in frame["item"]]
        frame["correct"] = frame["logp_matching"] > frame["logp_other"]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def summarize_capabilities(frame: pd.DataFrame, *, n_bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """One row for each set x layer x multiplier of `capabilities`.

    Args:
        frame: As `capabilities` returns it.
        n_bootstrap: Resamplings of the items for the intervals; each keeps the number of A and B items.
        seed: Of the resampling.

    Returns:
        A frame with ``set``, ``behavior``, ``layer``, ``multiplier``, ``n_items``, and
        ``accuracy`` and ``p_correct`` (the right letter's share of the two, the paper's measure), each with its change
        since multiplier 0 and the change's paired 95 % interval: ``accuracy_change``, ``accuracy_change_low``,
        ``accuracy_change_high``, and the same of ``p_correct_change``;
        ``accuracy_balanced`` and, with its interval, ``accuracy_balanced_change``: the mean accuracy where A is right
        and where B is, averaged (NaN where one letter is always right);
        ``macro``, ``macro_change``: accuracy averaged over categories;
        ``gained``, ``lost``: items right only now, and only before; ``p_mcnemar``: the exact two-sided p of McNemar's
        test that both are equally likely; ``lost_high``: the exact 97.5 % upper limit (Clopper-Pearson) of the share of
        items lost, which resampling would put at 0 where none of these was;
        ``p_a``, ``letter_drift``: share of A of the two, and its change; ``mass``: of both letters;
        ``n_random``, ``random_mean``, ``random_low``, ``random_high``: the mean and the 2.5 and 97.5 % quantiles of the
        accuracy change under random vectors in the same cell; ``worse_than_random``: the share of them that keep more
        accuracy. The same columns for every other kind of null.

    Raises:
        ValueError: If the frame is not one of `capabilities`, or its cells differ in their items.
    """
    import pandas as pd

    needed = {*CELL, "kind", "draw", "item", "letter", "category", "correct", "p_matching", "p_a", "mass"}
    if missing := sorted(needed - set(frame.columns)):
        raise ValueError(f"this is not a frame of capabilities(): it lacks the columns {', '.join(missing)}")
    rows: list[dict[str, Any]] = []
    for (name, behavior), part in frame.groupby(["set", "behavior"], sort=False):
        own = part[part["kind"] == "vector"]
        kinds = dict.fromkeys(["random", *part.loc[part["kind"] != "vector", "kind"]])
        base = own[(own["multiplier"] == 0) & (own["layer"] == own["layer"].min())].sort_values("item")
        if base.empty:
            raise ValueError(f"the frame of {name} has no rows at multiplier 0, against which changes are measured")
        items = resampled(base["letter"].fillna("").astype(str).to_numpy(), n_bootstrap, seed)
        for key, cell in own.groupby(["layer", "multiplier"], sort=True):
            layer, multiplier = cast("tuple[int, float]", key)
            here = (part["layer"] == layer) & (part["multiplier"] == multiplier)
            rows.append(
                {"set": name, "behavior": behavior, "layer": int(layer), "multiplier": float(multiplier)}
                | _measured(cell, base, items)
            )
            for kind in kinds:
                rows[-1] |= _against(kind, part[here & (part["kind"] == kind)], base, rows[-1]["accuracy_change"])
    return pd.DataFrame(rows)


def describe_capabilities(table: pd.DataFrame) -> list[str]:
    """What steering did to the answers, a sentence for each set x layer x multiplier other than 0.

    Args:
        table: As `summarize_capabilities` returns it.
    """
    records = cast("list[dict[str, Any]]", table[table["multiplier"] != 0].to_dict("records"))
    return [_sentence(row) for row in records]


def _find(source: str | Path) -> Path:
    path = Path(source)
    if isinstance(source, Path) or path.suffix or len(path.parts) > 1:
        return path
    if source not in capability_sets():
        raise ValueError(
            f"{brief(source)} is not a bundled set of questions (these are: {', '.join(capability_sets())}); a path "
            "to a .json, .jsonl or .csv file is also allowed"
        )
    return data_dir() / "capabilities" / f"{source}.json"


def _has_both_texts(row: Mapping[str, str]) -> bool:
    return all(row.get(f"{side}_full_text", "not given").strip() for side in ANSWERS)


def _measured(cell: pd.DataFrame, base: pd.DataFrame, items: Resampled) -> dict[str, Any]:
    """Everything of one cell but its nulls."""
    cell = cell.sort_values("item")
    moved = _change(cell, base)
    shifted = cell["p_matching"].to_numpy() - base["p_matching"].to_numpy()
    right = cell["correct"].to_numpy().astype(float)
    by_category, before = (part.groupby("category")["correct"].mean().mean() for part in (cell, base))
    gained, lost = int((moved > 0).sum()), int((moved < 0).sum())
    row: dict[str, Any] = {"n_items": len(cell), "accuracy": right.mean()}
    row |= items.mean(moved).columns("accuracy_change") | {"p_correct": cell["p_matching"].mean()}
    row |= items.mean(shifted).columns("p_correct_change")
    row["accuracy_balanced"] = balanced(right, items.halves)
    row |= items.balanced(moved).columns("accuracy_balanced_change")
    return row | {
        "macro": by_category,
        "macro_change": by_category - before,
        "gained": gained,
        "lost": lost,
        "p_mcnemar": mcnemar(gained, lost),
        "lost_high": upper_limit(lost, len(cell)),
        "p_a": cell["p_a"].mean(),
        "letter_drift": cell["p_a"].mean() - base["p_a"].mean(),
        "mass": cell["mass"].mean(),
    }


def _change(cell: pd.DataFrame, base: pd.DataFrame) -> np.ndarray:
    """1, 0 or -1 for each item: gained, the same, lost."""
    if cell["item"].tolist() != base["item"].tolist():
        raise ValueError("a cell of the frame has other items than multiplier 0: was the frame cut or put together?")
    return cell["correct"].to_numpy().astype(float) - base["correct"].to_numpy().astype(float)


def _against(kind: str, rows: pd.DataFrame, base: pd.DataFrame, change: float) -> dict[str, float]:
    """The accuracy change that nulls of one kind make in one cell."""
    changes = [float(_change(part.sort_values("item"), base).mean()) for _, part in rows.groupby("draw", sort=False)]
    return against_nulls(change, changes, tail="less").columns(kind, "worse_than") | {f"{kind}_mean": mean_of(changes)}


def _sentence(row: Mapping[str, Any]) -> str:
    low, high, n = row["accuracy_change_low"], row["accuracy_change_high"], row["n_items"]
    before = round((row["accuracy"] - row["accuracy_change"]) * n)
    if row["p_mcnemar"] < 0.05:
        said = f"answers are {'lost' if row['lost'] > row['gained'] else 'gained'}"
    else:
        said = f"no change is shown; that {row['lost_high']:.1%} of all such answers are lost is not excluded"
    text = (
        f"{row['set']} at {row['multiplier']:+g} on layer {row['layer']}: {said}. {before} of {n} were right, "
        f"{round(row['accuracy'] * n)} are ({row['gained']} gained, {row['lost']} lost, McNemar p "
        f"{row['p_mcnemar']:.2g}; change {row['accuracy_change']:+.1%} [{low:+.1%}, {high:+.1%}]), and the right "
        f"letter's share moves by {row['p_correct_change']:+.3f} [{row['p_correct_change_low']:+.3f}, "
        f"{row['p_correct_change_high']:+.3f}]"
    )
    if row["n_random"]:
        text += (
            f"; random vectors of the same norm change accuracy by {row['random_mean']:+.1%} "
            f"[{row['random_low']:+.1%}, {row['random_high']:+.1%}], and {row['worse_than_random']:.0%} keep more"
        )
    return f"{text}; p(A) moves by {row['letter_drift']:+.2f}, the mass of both letters is {row['mass']:.2f}."
