"""One meaning, one name: what many functions take has the same name, default and place in all of them.

The rules are in `ORDER` and `DEFAULTS`, and what is exempt, with its reason, in `EXCEPTIONS`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import caa_lens

INTERNAL = ("cli", "engine")
"""Folders without public functions: the commands are compared with these functions by a test of their own."""

ORDER = [
    *("layers", "multipliers", "n_nulls", "seed", "read", "site"),
    *("prompt_format", "system", "batch_size", "progress"),
]
"""In this order, keyword-only, with other parameters before and among them."""

DEFAULTS = {
    "layers": None,
    "n_nulls": 20,
    "seed": 0,
    "read": "answer_letter",
    "site": "resid_post",
    "prompt_format": None,
    "system": None,
    "batch_size": None,
    "progress": False,
}

OTHER_NAMES = {
    "n_random": "n_nulls",
    "n_null": "n_nulls",
    "n_controls": "n_nulls",
    "random_state": "seed",
    "read_position": "read",
    "read_at": "read",
    "hook_point": "site",
    "format": "prompt_format",
    "system_prompt": "system",
    "verbose": "progress",
    "show_progress": "progress",
}
"""What these could be called too, and are not."""

EXCEPTIONS = {
    ("sweeps.sweep", "site"): "None steers where the vectors were read, which they know",
    ("studies.run.run_study", "progress"): "a study takes minutes or hours in one call and says what it does",
    **{
        (f"evaluation.actadd.{name}", "prompt_format"): "ActAdd continues running text, which is in no template"
        for name in (
            *("knowledge.knowledge_kept", "knowledge.word_odds", "norms.norms_along"),
            *("written.continuations", "written.completion_loss"),
        )
    },
}
"""By function and parameter, why a rule does not hold there."""


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function of the public folders, by its dotted name below caa_lens."""
    for found in pkgutil.walk_packages(caa_lens.__path__, "caa_lens."):
        name = found.name.removeprefix("caa_lens.")
        if name.split(".")[0] in INTERNAL or name.endswith("__main__") or "._" in found.name:
            continue
        module = importlib.import_module(found.name)
        for attribute, value in vars(module).items():
            if attribute.startswith("_") or not callable(value) or getattr(value, "__module__", "") != found.name:
                continue
            if inspect.isfunction(value):
                yield f"{name}.{attribute}", inspect.unwrap(value)


FUNCTIONS = dict(functions())


def problems(function: Callable[..., Any]) -> list[tuple[str, str]]:
    """Where a signature breaks a rule: the parameter, and how."""
    parameters = inspect.signature(function).parameters
    found: list[tuple[str, str]] = []
    known = [each for each in parameters if each in ORDER]
    if known != sorted(known, key=ORDER.index):
        found.append(("order", ", ".join(known)))
    for each, parameter in parameters.items():
        if each in OTHER_NAMES:
            found.append((each, f"is called {OTHER_NAMES[each]} elsewhere"))
        if each not in DEFAULTS:
            continue
        if parameter.default is not inspect.Parameter.empty and parameter.default != DEFAULTS[each]:
            found.append((each, f"has the default {parameter.default!r}, elsewhere {DEFAULTS[each]!r}"))
        if "model" in parameters and parameter.default is not inspect.Parameter.empty:
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                found.append((each, "can be given by position"))
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_parameter_has_one_name_one_default_and_one_place(name: str) -> None:
    left = [problem for problem in problems(FUNCTIONS[name]) if (name, problem[0]) not in EXCEPTIONS]
    assert not left, f"{name}: " + "; ".join(" ".join(problem) for problem in left)


def test_every_exception_is_needed() -> None:
    broken = {(name, problem[0]) for name, function in FUNCTIONS.items() for problem in problems(function)}
    assert set(EXCEPTIONS) <= broken


def test_all_of_the_front_door_is_looked_at() -> None:
    looked = {name.rpartition(".")[2] for name in FUNCTIONS}
    front = {name for name in caa_lens.__all__ if inspect.isfunction(getattr(caa_lens, name))}
    assert front and front <= looked


def test_wrong_signatures_are_seen() -> None:
    def wrong(model: Any, n_random: int = 5, *, batch_size: int = 8, seed: int = 0, n_nulls: int = 100) -> None: ...

    assert problems(wrong) == [
        ("order", "batch_size, seed, n_nulls"),
        ("n_random", "is called n_nulls elsewhere"),
        ("batch_size", "has the default 8, elsewhere None"),
        ("n_nulls", "has the default 100, elsewhere 20"),
    ]

    def by_position(model: Any, seed: int = 0) -> None: ...

    assert problems(by_position) == [("seed", "can be given by position")]
