"""What `make quick` and `make test-tl3` leave out, and what they must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import selection
import tiny_models

ROOT = Path(__file__).parents[1]


class Asked:
    """A test as the selection sees it."""

    def __init__(self, nodeid: str, *fixtures: str, **params: Any) -> None:
        self.nodeid, self.fixturenames = nodeid, list(fixtures)
        if params:
            self.callspec = type("CallSpec", (), {"params": params})()


@pytest.mark.parametrize(
    ("asked", "runs"),
    [
        (Asked("tests/engine/test_a.py::test[bridge-llama]", "model", model=("bridge", "llama")), True),
        (Asked("tests/cli/test_a.py::test", "model", "tiny_path"), False),
        (Asked("tests/engine/test_a.py::test", "bridge", "tmp_path"), True),
        (Asked("tests/engine/test_a.py::test", "hooked"), True),
        (Asked("tests/engine/test_a.py::test", "processed_hooked"), True),
        (Asked("tests/protocols/test_a.py::test[hooked]", "request", kind="hooked"), True),
        (Asked("tests/models/test_a.py::test[case]", "request", case=("hooked", "llama")), True),
        (Asked("tests/models/test_models.py::test_any", "tiny_path"), True),
        (Asked("tests/viz/test_a.py::test[1]", "tmp_path", n=1), False),
    ],
)
def test_what_is_given_a_model_depends_on_its_class(asked: Any, runs: bool) -> None:
    assert selection.touches_a_model_class(asked) is runs


@pytest.mark.parametrize(
    ("asked", "runs"),
    [
        (Asked("tests/engine/test_a.py::test", model=("bridge", "llama")), True),
        (Asked("tests/engine/test_a.py::test", model=("bridge", "gpt2")), False),
        (Asked("tests/engine/test_a.py::test", style="gemma2"), False),
        (Asked("tests/engine/test_a.py::test"), True),
        (Asked("tests/cli/test_a.py::test"), False),
    ],
)
def test_quick_is_one_architecture_and_nothing_whole(asked: Any, runs: bool) -> None:
    assert selection.is_quick(asked) is runs


@pytest.mark.parametrize("path", [*selection.WHOLE, *selection.MODEL_FILES])
def test_the_lists_name_what_is_there(path: str) -> None:
    assert list(ROOT.glob(f"{path}*")) or (ROOT / path).is_dir()


def test_this_selection_holds_every_test_of_hooked_transformer(request: pytest.FixtureRequest) -> None:
    """Of the tests that are collected in this process; all of them, where all are run."""
    waiting = [item for item in request.session.items if {"hooked", "processed_hooked"} & set(_fixtures(item))]
    assert [item.nodeid for item in waiting if not selection.touches_a_model_class(item)] == []
    if "hooked" in tiny_models.available_model_kinds() and len(request.session.items) > 2000:
        styles = {
            value[1] for item in request.session.items for value in selection.models_of(item) if "hooked" in value
        }
        assert waiting and styles == set(tiny_models.HOOKED_STYLES)


def _fixtures(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])
