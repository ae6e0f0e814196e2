"""Steering beside what else would have done it: one table of system prompts, few-shot prompts, finetuning and CAA.

The CAA paper (arXiv 2312.06681) gives p(matching) for its vectors alone and on top of system prompts and of finetuned
models; AxBench (arXiv 2501.17148) finds that prompting often wins. Here every combination of a baseline with a
multiplier is measured on the same items and compared, item by item, with the plain unsteered model. Nothing stands
without its null: beside a steered row are random vectors of the same norm, added to the same baseline, and beside a
baseline is its own control, a system prompt that asks for nothing, or examples of which half are answered the other
way. `verdict` says in words who wins, and by how much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from caa_lens.datasets.contrast import ContrastDataset, Pairs, as_dataset, check_apart
from caa_lens.files.messages import brief
from caa_lens.models.adapters import Adapter, HookedModel, adapt
from caa_lens.prompts import PromptFormat, default_format, format_prompt
from caa_lens.protocols.baselines.finetuning import Method, TrainingOptions, check_finetuning, finetune, lessons_of
from caa_lens.protocols.baselines.prompting import NEUTRAL_SYSTEM_PROMPT, Direction, few_shot, system_prompts
from caa_lens.sweeps import sweep
from caa_lens.vectors.vectors import Vectors, as_vectors

if TYPE_CHECKING:
    import pandas as pd

Baseline = Literal["system", "few_shot", "finetuned"]

PLAIN = ("none", "")
DIRECTIONS: dict[str, Direction] = {"positive": "positive", "negative": "negative", "control": "mixed"}
_WORDS = {"system": "system prompt", "few_shot": "few-shot prompt", "finetuned": "finetuning"}


@dataclass(frozen=True, slots=True)
class _Condition:
    """One baseline in one direction: what is asked, and of which model."""

    baseline: str
    direction: str
    items: ContrastDataset
    system: str | None = None
    trained: Direction | None = None


def compare(
    model: HookedModel,
    vectors: Vectors,
    test: Pairs,
    *,
    train: Pairs,
    layer: int,
    multipliers: Sequence[float] = (-1.0, 0.0, 1.0),
    baselines: Sequence[Baseline] = ("system", "few_shot", "finetuned"),
    prompts: tuple[str, str] | None = None,
    shots: int = 4,
    method: Method = "full",
    learning_rate: float | None = None,
    epochs: int = 1,
    train_batch_size: int = 2,
    n_nulls: int = 20,
    seed: int = 0,
    prompt_format: PromptFormat | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Measure each baseline, for and against the behaviour and as a control, with the vector at each multiplier.

    The vector is the same on finetuned models as on the plain one, as in the paper. Finetuned copies are made one after
    the other, so there are two models in memory at most.

    Args:
        model: A TransformerBridge or a HookedTransformer; it is not changed.
        vectors: Of one behaviour, such as `caa_lens.extract_vectors` makes from ``train``.
        test: The items that everything is measured on.
        train: Where examples are drawn from and what is finetuned on; it must share no question with ``test``.
        layer: Where to steer; choose it on other items than ``test``, see `caa_lens.choose_layer`.
        multipliers: Any numbers; 0, each baseline alone, is added where it is missing.
        baselines: ``system``, ``few_shot``, ``finetuned``. The plain model is always there.
        prompts: System prompts for and against the behaviour; None for those of `system_prompts`.
        shots: Examples in front of each item, see `few_shot`.
        method: Of `finetune`.
        learning_rate: Of `finetune`.
        epochs: Of `finetune`.
        train_batch_size: Pairs for each step of `finetune`.
        n_nulls: Random vectors of the layer's norm on top of each baseline; at least 1.
        seed: Of examples, finetuning, random vectors and resampling.
        prompt_format: See `format_prompt`.
        batch_size: Prompts run at once.
        progress: Show progress bars.

    Returns:
        One row for each baseline x direction x multiplier, with the columns ``behavior``, ``baseline`` (``none`` or one
        of ``baselines``), ``direction`` (``positive``, ``negative`` or ``control``; empty for ``none``), ``layer``,
        ``multiplier``, ``n_items``, and those below. Shares are of the two answers; every ``x_low`` to ``x_high`` is
        a 95 % bootstrap interval over items, and differences are paired, item by item.
        ``p_matching``, ``p_matching_low``, ``p_matching_high``: the matching answer's mean share.
        ``effect``, ``effect_low``, ``effect_high``: that minus the plain unsteered model's; ``effect_balanced``,
        ``balanced_low``, ``balanced_high``: the same letter-balanced, as in `summarize`.
        ``added``, ``added_low``, ``added_high``: minus the same baseline's at multiplier 0, so what steering adds to
        the baseline; NaN at 0.
        ``over_control``, ``over_control_low``, ``over_control_high``: minus the baseline's control at the same
        multiplier; NaN for ``none`` and for controls.
        ``over_caa``, ``over_caa_low``, ``over_caa_high``: how much further a baseline alone moves in its own direction
        than the plain model steered with the largest multiplier of that sign; NaN elsewhere.
        ``share_wrong``: items whose log odds steering moved against its multiplier's sign, on the same baseline; at 0,
        items that the baseline moved against its direction. ``letter_drift``: mean share of (A) minus the plain
        unsteered model's. ``p_a`` and ``mass`` are as in `summarize`.
        ``n_random``, ``random_low``, ``random_high``, ``beats_random``: balanced effects, against the plain unsteered
        model, of random vectors added to the same baseline, as in `summarize`; NaN at 0.

    Raises:
        ImportError: For LoRA without peft.
        ValueError: For settings out of range, an unknown baseline, sets that share a question, items that do not fit
            the context together with examples, or a chat template that takes no system prompt; before the model runs.
    """
    adapter = adapt(model)
    vectors, test, train = as_vectors(vectors), as_dataset(test), as_dataset(train)
    _check(vectors[layer].name, test, train, baselines, n_nulls)
    chosen: PromptFormat = prompt_format or default_format(adapter)
    conditions = _conditions(test, train, baselines, prompts, shots, seed, chosen)
    training: TrainingOptions = {
        "method": method,
        "learning_rate": learning_rate,
        "epochs": epochs,
        "train_batch_size": train_batch_size,
    }
    if "finetuned" in baselines:
        check_finetuning(adapter, **training)
        lessons_of(adapter, train, prompt_format=chosen)
    for condition in conditions:
        _check_items(adapter, condition, chosen)

    frames: dict[tuple[str, str], pd.DataFrame] = {}
    for condition in conditions:
        name = " ".join(part for part in (condition.baseline, condition.direction) if part)
        asked = model
        if condition.trained is not None:
            bar = f"training {name}" if progress else False
            asked = finetune(
                model, train, direction=condition.trained, seed=seed, prompt_format=chosen, progress=bar, **training
            )
        frames[condition.baseline, condition.direction] = sweep(
            asked,
            vectors,
            condition.items,
            layers=[layer],
            multipliers=multipliers,
            n_nulls=n_nulls,
            seed=seed,
            prompt_format=chosen,
            system=condition.system,
            batch_size=batch_size,
            progress=f"measuring {name}" if progress else False,
        )
        del asked
    return _table(frames, seed)


def applicable(
    model: HookedModel,
    test: Pairs,
    *,
    train: Pairs,
    baselines: Sequence[Baseline],
    shots: int = 4,
    seed: int = 0,
    prompt_format: PromptFormat | None = None,
) -> tuple[list[Baseline], dict[str, str]]:
    """Which of these baselines `compare` can ask of these items, and why not the others; runs no model."""
    adapter = adapt(model)
    test, train = as_dataset(test), as_dataset(train)
    chosen: PromptFormat = prompt_format or default_format(adapter)
    found: list[Baseline] = []
    reasons: dict[str, str] = {}
    for baseline in baselines:
        try:
            for condition in _conditions(test, train, [baseline], None, shots, seed, chosen):
                _check_items(adapter, condition, chosen)
        except ValueError as error:
            reasons[baseline] = str(error)
        else:
            found.append(baseline)
    return found, reasons


def describe_baselines(table: pd.DataFrame) -> list[str]:
    """A comparison in sentences, each with the numbers behind it: what each does alone, who wins, what CAA adds.

    Args:
        table: As `compare` returns it.
    """
    rows: list[dict[str, Any]] = [dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False)]
    at = {(row["baseline"], row["direction"], row["multiplier"]): row for row in rows}
    said = [_of_steering(row) for row in rows if row["baseline"] == "none" and row["multiplier"]]
    for row in rows:
        if row["direction"] not in ("positive", "negative"):
            continue
        if row["multiplier"] == 0:
            said += _of_baseline(row, at[row["baseline"], "control", 0.0], at)
        else:
            said.append(
                f"On top of the {_named(row)}, CAA at {row['multiplier']:+g} adds {_number(row, 'added')}"
                f"{_doubt(row, 'added')} and beats {_beaten(row)}."
            )
    return said


def _check(name: str, test: ContrastDataset, train: ContrastDataset, baselines: Sequence[str], n_nulls: int) -> None:
    if n_nulls < 1:
        raise ValueError(f"n_nulls is {n_nulls}: no effect is given without its null, so give 1 or more, as 20")
    if unknown := [each for each in baselines if each not in get_args(Baseline)]:
        raise ValueError(f"baselines {brief(unknown)} are not known: give some of {', '.join(get_args(Baseline))}")
    if len(set(baselines)) < len(baselines):
        raise ValueError(f"baselines {brief(list(baselines))}: give each once")
    if not len(test):
        raise ValueError(f"there are no items for {name}: at least one is needed")
    check_apart({"train": train, "test": test})


def _conditions(
    test: ContrastDataset,
    train: ContrastDataset,
    baselines: Sequence[str],
    prompts: tuple[str, str] | None,
    shots: int,
    seed: int,
    prompt_format: PromptFormat,
) -> list[_Condition]:
    found = [_Condition(*PLAIN, test)]
    for baseline in baselines:
        if baseline == "system":
            for_it, against = system_prompts(test) if prompts is None else prompts
            texts = {"positive": for_it, "negative": against, "control": NEUTRAL_SYSTEM_PROMPT}
            found += [_Condition(baseline, each, test, system=texts[each]) for each in DIRECTIONS]
        elif baseline == "few_shot":
            for each, direction in DIRECTIONS.items():
                shown = few_shot(test, train, k=shots, direction=direction, seed=seed, prompt_format=prompt_format)
                found.append(_Condition(baseline, each, shown))
        else:
            found += [_Condition(baseline, each, test, trained=direction) for each, direction in DIRECTIONS.items()]
    return found


def _check_items(adapter: Adapter, condition: _Condition, prompt_format: PromptFormat) -> None:
    """Lay out everything that is going to be asked, so that what cannot be is said before anything runs."""
    items, system = condition.items, condition.system
    advice = {"system": "; or leave 'system' out of baselines", "few_shot": "; or give fewer shots"}
    try:
        lessons_of(adapter, items, prompt_format=prompt_format, system=system)
        if system is not None:
            texts = [
                format_prompt(adapter, items[0].prompt, prompt_format=prompt_format, system=s) for s in (system, None)
            ]
            if texts[0].ids == texts[1].ids:
                raise ValueError(
                    f"the prompt format {brief(prompt_format)} leaves out the system prompt {brief(system)}"
                )
    except ValueError as error:
        what = f"the items of {items.name}, baseline {condition.baseline!r}"
        raise ValueError(f"{what}: {error}{advice.get(condition.baseline, '')}") from error


def _table(frames: Mapping[tuple[str, str], pd.DataFrame], seed: int) -> pd.DataFrame:
    import pandas as pd

    plain = frames[PLAIN]
    unsteered = _cell(plain, 0.0)
    rows: list[dict[str, Any]] = []
    for (baseline, direction), frame in frames.items():
        control = frames.get((baseline, "control")) if direction in ("positive", "negative") else None
        for multiplier in sorted(frame["multiplier"].unique()):
            own, start = _cell(frame, multiplier), _cell(frame, 0.0)
            towards = math.copysign(1.0, multiplier) if multiplier else -1.0 if direction == "negative" else 1.0
            nulls = frame[(frame["multiplier"] == multiplier) & (frame["kind"] != "vector")]
            share = _change(own, unsteered.assign(p_matching=0.0), 1.0, seed)
            moved = _change(own, unsteered, towards, seed, nulls)
            alone = control is not None and multiplier == 0
            row: dict[str, Any] = {"behavior": moved["behavior"], "baseline": baseline, "direction": direction}
            row |= {"layer": int(own["layer"].iloc[0]), "multiplier": multiplier, "n_items": moved["n_items"]}
            row |= {
                "p_matching": share["effect"],
                "p_matching_low": share["effect_low"],
                "p_matching_high": share["effect_high"],
            }
            row |= {name: moved[name] for name in _EFFECTS}
            added = _change(own, start, towards, seed) if multiplier else None
            row |= _difference("added", added)
            row |= _difference(
                "over_control", None if control is None else _change(own, _cell(control, multiplier), towards, seed)
            )
            row |= _difference("over_caa", _over_caa(own, plain, towards, seed) if alone else None)
            row["share_wrong"] = added["share_wrong"] if added else moved["share_wrong"] if alone else math.nan
            row |= {name: moved[name] for name in ("p_a", "letter_drift", "mass", *_NULLS)}
            rows.append(row)
    return pd.DataFrame(rows)


_EFFECTS = ("effect", "effect_low", "effect_high", "effect_balanced", "balanced_low", "balanced_high")
_NULLS = ("n_random", "random_low", "random_high", "beats_random")


def _cell(frame: pd.DataFrame, multiplier: float) -> pd.DataFrame:
    return frame[(frame["multiplier"] == multiplier) & (frame["kind"] == "vector")]


def _change(
    cell: pd.DataFrame, base: pd.DataFrame, towards: float, seed: int, nulls: pd.DataFrame | None = None
) -> dict[str, Any]:
    """What `summarize` says of some rows of a sweep against others: the base stands at 0 and the rows at +1 or -1."""
    import pandas as pd

    from caa_lens.evaluation.choices import summarize

    parts = [base.assign(multiplier=0.0), cell.assign(multiplier=towards)]
    if nulls is not None and len(nulls):
        parts.append(nulls.assign(multiplier=towards))
    table = summarize(pd.concat(parts, ignore_index=True), seed=seed)
    return {str(name): value for name, value in table[table["multiplier"] == towards].iloc[0].items()}


def _over_caa(own: pd.DataFrame, plain: pd.DataFrame, towards: float, seed: int) -> dict[str, Any] | None:
    """A baseline's effect minus that of the plain model's largest multiplier of a sign, counted in its direction."""
    steered = [multiplier for multiplier in plain["multiplier"].unique() if multiplier * towards > 0]
    if not steered:
        return None
    caa = _cell(plain, max(steered, key=abs))
    return _change(own, caa, towards, seed) if towards > 0 else _change(caa, own, towards, seed)


def _difference(name: str, change: Mapping[str, Any] | None) -> dict[str, float]:
    parts = ("effect", "effect_low", "effect_high")
    values = [math.nan] * 3 if change is None else [float(change[part]) for part in parts]
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _of_steering(row: Mapping[str, Any]) -> str:
    return (
        f"CAA alone at {row['multiplier']:+g} on layer {row['layer']} moves the matching answer's share by "
        f"{_number(row, 'effect')}{_doubt(row, 'effect')} over {row['n_items']} items and beats {_beaten(row)}."
    )


def _of_baseline(row: Mapping[str, Any], control: Mapping[str, Any], at: Mapping[Any, Mapping[str, Any]]) -> list[str]:
    sign = 1 if row["direction"] == "positive" else -1
    name = f"The {_named(row)} alone"
    wrong = row["effect"] * sign < 0
    said = [
        f"{name} moves it by {_number(row, 'effect')}{_doubt(row, 'effect', wrong=wrong)}; its control moves it by "
        f"{_number(control, 'effect')}, which leaves {_number(row, 'over_control')}{_doubt(row, 'over_control')}."
    ]
    if not _doubt(row, "effect") and row["balanced_low"] <= 0 <= row["balanced_high"]:
        interval = f"[{row['balanced_low']:+.2f}, {row['balanced_high']:+.2f}]"
        said.append(f"{name}: it vanishes when letters are balanced, {row['effect_balanced']:+.2f} {interval}.")
    if row["over_caa"] == row["over_caa"]:
        multiplier = max((key[2] for key in at if key[:2] == PLAIN and key[2] * sign > 0), key=abs)
        low, high = row["over_caa_low"], row["over_caa_high"]
        who = f"the {_named(row)} wins" if low > 0 else "CAA wins" if high < 0 else "neither is clearly ahead"
        way = "up" if sign > 0 else "down"
        said.append(f"{name} goes {_number(row, 'over_caa')} further {way} than CAA at {multiplier:+g}: {who}.")
    return said


def _named(row: Mapping[str, Any]) -> str:
    return f"{row['direction']} {_WORDS[row['baseline']]}"


def _number(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:+.2f} [{row[f'{name}_low']:+.2f}, {row[f'{name}_high']:+.2f}]"


def _doubt(row: Mapping[str, Any], name: str, *, wrong: bool = False) -> str:
    doubts = ["the wrong way"] if wrong else []
    if row[f"{name}_low"] <= 0 <= row[f"{name}_high"]:
        doubts.append("an interval that contains 0")
    return f" ({'; '.join(doubts)})" if doubts else ""


def _beaten(row: Mapping[str, Any]) -> str:
    if row["effect_balanced"] != row["effect_balanced"]:
        return "no random vectors, as all matching letters are the same, which nothing can balance"
    return f"{round(row['beats_random'] * row['n_random'])} of {row['n_random']} random vectors of its norm"
