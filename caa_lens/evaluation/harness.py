"""Any task of lm-evaluation-harness (`lm_eval`) with a steered model, beside the same model unsteered.

    frame = evaluate(model, ["arc_easy", "gsm8k"], {"+1": vectors[13], "-1": vectors[13] * -1.0}, limit=100)

Steering is CAA's: from the last token of the context on. Answers are scored for all ways of steering together, so that
a context is run once (`caa_lens.engine.answer_logprobs`). Text becomes tokens as everywhere in this package, with
exactly one BOS where the model's prompts begin with one. That is what lm_eval's own class for Hugging Face models does
too with most tokenizers; with others (GPT-2) it needs ``add_bos_token=True``, and along running text
(``loglikelihood_rolling``) ``add_bos_token=False``, where it puts a second BOS in front of the tokenizer's and counts
that one as text.

lm_eval is not installed with this package: ``pip install "caa_lens[evals]"``.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from caa_lens.engine.answer_logprobs import Where
from caa_lens.evaluation.harness_model import Ways, model_class
from caa_lens.interventions.interventions import Recipe
from caa_lens.models.adapters import HookedModel, adapt
from caa_lens.steering.steering import edits_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

UNSTEERED = "unsteered"
NOT_METRICS = ("name", "alias", "sample_len", "sample_count", " ")


def harness_model(
    model: HookedModel,
    steer: Recipe | None = None,
    *,
    positions: Where = "prompt_end",
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = False,
) -> Any:
    """A model as `lm_eval.simple_evaluate(model=...)` takes it: an `lm_eval.api.model.LM`, steered.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        steer: What is added; None for the unsteered model.
        positions: ``"prompt_end"`` steers from the last token of the context on, as in CAA; ``"all"`` everywhere but at
            the first position, for tasks that do not generate.
        seed: Of sampling, where a task samples.
        batch_size: Prompts, or whole texts, run at once; None chooses by their length and the free memory.
        progress: Show progress bars.

    Raises:
        ImportError: If lm_eval is not installed.
        ValueError: As `steer` does, for a layer that the model lacks or a vector of another width.
    """
    ways = {"steered": edits_of(adapt(model), steer)}
    return _made(model, ways, positions, batch_size, seed, progress)


def evaluate(
    model: HookedModel,
    tasks: str | Sequence[str],
    steer: Recipe | None | Mapping[str, Recipe | None] = None,
    *,
    limit: int | float | None = None,
    num_fewshot: int | None = None,
    include_path: str | Path | None = None,
    chat: bool = False,
    positions: Where = "prompt_end",
    n_bootstrap: int = 1000,
    seed: int = 0,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Run tasks with every way of steering, and unsteered, on the same documents.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        tasks: Names of lm_eval's tasks, groups or tags, or paths of task files.
        steer: What to add, or several ways of steering by name; ``unsteered`` is always there.
        limit: So many documents of each task, or below 1 that share of them; None for all.
        num_fewshot: Examples before each question; None for each task's own number.
        include_path: A folder with tasks of your own; where it has all ``tasks``, lm_eval's own are not looked at.
        chat: Put questions into the tokenizer's chat template.
        positions: See `harness_model`.
        n_bootstrap: Resamplings of the documents for metrics that are no mean over documents, such as perplexity.
        seed: Of few-shot examples, of sampling, and of the resampling.
        system: A system prompt for every question.
        batch_size: See `harness_model`.
        progress: Show progress bars; those of lm_eval itself are always shown.

    Returns:
        One row for each way of steering x task (or group) x metric x filter, with ``vector``, ``task``, ``metric``,
        ``filter``, ``value``, ``stderr`` (over documents), ``n_documents``, ``value_change`` (since unsteered) and
        ``value_change_stderr`` (paired: the same documents), and ``higher_is_better``. Standard errors are NaN for a
        group's metric that is no mean over its documents.

    Raises:
        ImportError: If lm_eval is not installed.
        ValueError: Before the model runs: for no tasks or unknown ones, a way of steering that is named ``unsteered``,
            a chat template that is not there, or ``positions="all"`` with a task that generates.
    """
    import pandas as pd

    evaluator = _lm_eval("evaluator")
    adapter = adapt(model)
    named: Mapping[str, Recipe | None] = steer if isinstance(steer, Mapping) else {"steered": steer} if steer else {}
    if UNSTEERED in named:
        raise ValueError(f"a way of steering is named {UNSTEERED!r}: it is always there, give another name")
    ways = {UNSTEERED: edits_of(adapter, None)} | {name: edits_of(adapter, recipe) for name, recipe in named.items()}
    if chat and not getattr(adapter.tokenizer, "chat_template", None):
        raise ValueError(f"the tokenizer of {adapter.name} has no chat template: leave out chat=True")
    loaded = _load([tasks] if isinstance(tasks, str) else list(tasks), include_path)
    _check_positions(loaded["tasks"], positions)
    lm = _made(model, ways, positions, batch_size, seed, progress)
    settings: dict[str, Any] = {"limit": limit, "bootstrap_iters": 0, "log_samples": True}
    settings |= {"system_instruction": system, "apply_chat_template": chat, "fewshot_as_multiturn": chat}
    tables: dict[str, list[dict[str, Any]]] = {}
    for way in ways:
        lm.way = way
        with _seeded(seed):
            for task in loaded["tasks"].values():
                _set_fewshot(task, num_fewshot, seed)
            results = evaluator.evaluate(lm=lm, task_dict=loaded, **settings)
        tables[way] = _measured(results, loaded["tasks"])
    rows = [
        row
        for way, table in tables.items()
        for row in _rows(way, table, tables[UNSTEERED], loaded["tasks"], n_bootstrap, seed)
    ]
    return pd.DataFrame(rows)


def require_lm_eval() -> None:
    """Check that lm_eval is there.

    Raises:
        ImportError: With how to install it.
    """
    try:
        import_module("lm_eval")
    except ModuleNotFoundError as error:
        if error.name != "lm_eval":
            raise
        raise ImportError('lm_eval is not installed: pip install "caa_lens[evals]"') from error


def _lm_eval(part: str) -> Any:
    require_lm_eval()
    return import_module(f"lm_eval.{part}")


def _made(model: HookedModel, ways: Ways, positions: Where, batch_size: int | None, seed: int, progress: bool) -> Any:
    if positions not in ("prompt_end", "all"):
        raise ValueError(f"positions {positions!r} is not known: give 'prompt_end' or 'all'")
    made = model_class(_lm_eval("api.model").LM, _lm_eval("utils").get_rolling_token_windows)
    return made(adapt(model), ways, positions, batch_size, seed, progress)


def _load(names: Sequence[str], include_path: str | Path | None) -> Any:
    """Tasks and groups as lm_eval's task manager gives them; its own thousand files are read only where needed."""
    if not names:
        raise ValueError("no tasks were given: at least one is needed, such as 'arc_easy'")
    if include_path is not None and not Path(include_path).is_dir():
        raise ValueError(f"include_path {str(include_path)!r}: there is no such folder")
    manager_class = _lm_eval("tasks").TaskManager
    manager = manager_class(include_path=include_path, include_defaults=False)
    if any(name not in manager.all_tasks for name in names):
        manager = manager_class(include_path=include_path)
    for name in names:
        if name not in manager.all_tasks and not Path(name).is_file():
            raise unknown_task(name, manager.all_tasks)
    return manager.load(list(names))


def unknown_task(name: str, known: Sequence[str]) -> ValueError:
    """The error for a name that lm_eval does not know, with the nearest that it does."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return ValueError(f"lm_eval has no task {name!r}: {hint}tasks of your own are found with include_path")


def _check_positions(tasks: Mapping[str, Any], positions: Where) -> None:
    generating = [name for name, task in tasks.items() if str(task.OUTPUT_TYPE) == "generate_until"]
    if positions == "all" and generating:
        raise ValueError(
            f"positions='all' is for scoring answers, and {', '.join(generating)} generates: give 'prompt_end', or "
            "leave the task out"
        )


def _set_fewshot(task: Any, num_fewshot: int | None, seed: int) -> None:
    """As `lm_eval.simple_evaluate` does it: a task that sets 0 itself keeps it."""
    own = task.get_config("num_fewshot")
    if own is None or (num_fewshot is not None and own != 0):
        task.set_config(key="num_fewshot", value=num_fewshot or 0)
    task.set_fewshot_seed(seed=seed)


@contextmanager
def _seeded(seed: int) -> Generator[None]:
    """Tasks may draw from the global generators: the same numbers for every way of steering, and none are left."""
    import numpy as np

    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _measured(results: Mapping[str, Any], tasks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each metric of each task and group: its value, and what it is of each document."""
    found: list[dict[str, Any]] = []
    for name, metrics in results["results"].items():
        members = [name] if name in tasks else sorted(_leaves(name, results["group_subtasks"]))
        for key, value in metrics.items():
            metric, _, chosen = str(key).partition(",")
            if key in NOT_METRICS or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            better = results["higher_is_better"].get(name, {}).get(metric)
            of_documents = [
                sample[metric]
                for member in members
                for sample in sorted(results["samples"][member], key=lambda sample: int(sample["doc_id"]))
                if sample["filter"] == chosen and metric in sample
            ]
            found.append(
                {"task": name, "metric": metric, "filter": chosen, "value": float(value), "higher_is_better": better}
                | {"documents": of_documents}
            )
    return found


def _leaves(group: str, children: Mapping[str, Sequence[str]]) -> set[str]:
    """The tasks of a group, through the groups in it."""
    below = {leaf for child in children.get(group, ()) for leaf in _leaves(child, children)}
    return below or {group}


def _rows(
    way: str,
    table: Sequence[Mapping[str, Any]],
    unsteered: Sequence[Mapping[str, Any]],
    tasks: Mapping[str, Any],
    n_bootstrap: int,
    seed: int,
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for found, base in zip(table, unsteered, strict=True):
        names = ("task", "metric", "filter")
        if [found[name] for name in names] != [base[name] for name in names]:
            raise ValueError(f"{found['task']} has other metrics when it is steered: {found['metric']}")
        aggregate = tasks[found["task"]].aggregation().get(found["metric"]) if found["task"] in tasks else None
        spread, paired = standard_errors(found, base, aggregate, n_bootstrap, seed)
        rows.append(
            {"vector": way, **{name: found[name] for name in names}, "value": found["value"], "stderr": spread}
            | {"n_documents": len(found["documents"]), "value_change": found["value"] - base["value"]}
            | {"value_change_stderr": paired, "higher_is_better": found["higher_is_better"]}
        )
    return rows


def standard_errors(
    found: Mapping[str, Any],
    base: Mapping[str, Any],
    aggregate: Callable[[list[Any]], float] | None,
    n_bootstrap: int,
    seed: int,
) -> tuple[float, float]:
    """Standard errors of a metric and of its change: of the mean where it is one, else by paired bootstrap.

    Args:
        found: The metric's ``value``, and its ``documents``, one value or tuple each.
        base: The same of the unsteered model, of the same documents in the same order.
        aggregate: From documents to the metric; None where it is not known.
        n_bootstrap: Resamplings.
        seed: Of the resampling.
    """
    import numpy as np

    now, before = found["documents"], base["documents"]
    n = len(now)
    if n < 2 or len(before) != n:
        return float("nan"), float("nan")
    means = [_as_mean(now, found["value"]), _as_mean(before, base["value"])]
    if all(values is not None for values in means):
        own, reference = cast("list[np.ndarray]", means)
        return float(own.std(ddof=1) / n**0.5), float((own - reference).std(ddof=1) / n**0.5)
    if aggregate is None:
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).integers(0, n, (n_bootstrap, n)).tolist()
    resampled = np.array(
        [[aggregate([documents[place] for place in draw]) for documents in (now, before)] for draw in draws]
    )
    return float(resampled[:, 0].std(ddof=1)), float((resampled[:, 0] - resampled[:, 1]).std(ddof=1))


def _as_mean(documents: Sequence[Any], value: float) -> np.ndarray | None:
    """The documents' values where the metric is their mean."""
    import numpy as np

    if not all(isinstance(each, bool | int | float | np.number) for each in documents):
        return None
    values = np.array(documents, dtype=np.float64)
    return values if bool(np.isclose(values.mean(), value, rtol=1e-9, atol=1e-12)) else None
