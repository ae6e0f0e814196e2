"""The run-time type checker of the tests (see conftest.py): beartype, and an int will do for a float (PEP 484).

For every function of the package jaxtyping hands it two functions without a body, which have the annotations only. A
function within a function is made anew at each call of the outer one, always with the same annotations: its checks are
built once. Building them again and again took a fifth of the tests' time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import frame_columns
import pytest
from beartype import BeartypeConf, FrozenDict, beartype
from pydantic import ValidationInfo

_beartype = beartype(
    conf=BeartypeConf(
        is_pep484_tower=True,
        # a protocol that cannot be checked at run time, and stands in the signature of pydantic's validators
        hint_overrides=FrozenDict({ValidationInfo: object}),
    )
)
_inner: dict[tuple[str, ...], Callable[..., Any]] = {}


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give back a function that checks its arguments and its result against the annotations."""
    if "<locals>" not in function.__qualname__:
        return _with_columns(function, _beartype(function))
    key = (function.__module__, function.__qualname__, repr(function.__annotations__))
    if key not in _inner:
        _inner[key] = _beartype(function)
    return _inner[key]


def _with_columns(function: Callable[..., Any], checked: Callable[..., Any]) -> Callable[..., Any]:
    """The same, which holds a frame that comes back against `docs/frames.md`.

    What is handed over for a result has no annotation that can be read here: pandas is imported for types only.
    """
    module, name = function.__module__, function.__qualname__
    if function.__annotations__.get("return") is not Any or not frame_columns.is_public(module, name):
        return checked

    @wraps(checked)
    def with_columns(*args: Any, **kwargs: Any) -> Any:
        result = checked(*args, **kwargs)
        if type(result).__name__ == "DataFrame" and (wrong := frame_columns.problems(result)):
            pytest.fail(f"the frame of {module}.{name}: {'; '.join(wrong)}: see docs/frames.md")
        return result

    return with_columns
