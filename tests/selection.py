"""Which tests run where: on which architectures, and under which of `make quick`, `make test` and `make test-tl3`.

A law of a fast path (packed, branched, cached, steered, read at a site) is tested on every architecture; a procedure
that only calls such paths on three of them, whose folder says so in its conftest.py.

`make test` runs all but the documentation's examples. `make test-tl3` has another TransformerLens, 3.9, so it runs what
depends on the model classes: every test that is given a tiny model (by a fixture, or by a parameter that names the
class), and the files below, which show that the bundled models and the first example work there too. A test that waits
for HookedTransformer and is not among them fails `make test`.
"""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models

NEEDS_HOOKED = "needs HookedTransformer"
MODEL_FIXTURES = {"bridge", "hooked", "processed_hooked"}
MODEL_CLASSES = ("bridge", "hooked")
MODEL_FILES = (
    "tests/models/",
    "tests/organism/test_organism_models.py",
    "tests/organism/test_organism_planted.py",
    "tests/protocols/test_assessment.py",
    "tests/test_readme.py",
    "tests/test_tiny_models.py",
)
WHOLE = (
    "tests/cli/",
    "tests/evaluation/",
    "tests/explorer/",
    "tests/judging/test_conditioning.py",
    "tests/judging/test_endpoint.py",
    "tests/organism/",
    "tests/protocols/",
    "tests/steering/test_sites_everywhere.py",
    "tests/studies/",
    "tests/test_docs.py",
    "tests/test_notebooks_drawn.py",
    "tests/test_packaging.py",
    "tests/test_pairs_and_vectors.py",
    "tests/test_stories.py",
    "tests/viz/",
)
"""Procedures, commands, studies, browsers: not in `make quick`. `make pytest ARGS=tests/cli` runs one folder."""

QUICK_STYLE = "llama"
THREE_STYLES = ("llama", "gpt2", "gemma2")
"""They differ in norms, positions, biases, tied weights, attention windows, soft caps, tokenizers and templates."""


def model_fixture(styles: tuple[str, ...]) -> Any:
    """Make the fixture `model` of a conftest.py: every model class in each of these styles, shared by the session."""

    @pytest.fixture(scope="module", params=tiny_models.model_cases(styles), ids="-".join)
    def model(request: pytest.FixtureRequest) -> Any:
        kind, style = request.param
        return request.getfixturevalue(kind)(style)

    return model


def touches_a_model_class(item: pytest.Item) -> bool:
    """Whether a test is given a model, or lies in a file that shows TransformerLens's classes at work."""
    fixtures = MODEL_FIXTURES & set(getattr(item, "fixturenames", ()))
    named = any(_first(value) in MODEL_CLASSES for value in _parameters(item))
    return bool(fixtures) or named or item.nodeid.startswith(MODEL_FILES)


def is_quick(item: pytest.Item) -> bool:
    """Whether a test runs nothing whole, and its tiny model, if it says which, is of one style."""
    styles = [*_parameters(item, "style"), *(case[1] for case in models_of(item))]
    return not item.nodeid.startswith(WHOLE) and all(style == QUICK_STYLE for style in styles)


def models_of(item: pytest.Item) -> list[tuple[str, str]]:
    """The class and the style of the tiny model that a test is parametrized with, if it is."""
    return [value for value in _parameters(item, "model") if isinstance(value, tuple)]


def _parameters(item: pytest.Item, name: str | None = None) -> list[Any]:
    """What a test is parametrized with, or the value of one parameter."""
    given = item.callspec.params if hasattr(item, "callspec") else {}
    return [value for key, value in given.items() if name in (None, key)]


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) and value else value
