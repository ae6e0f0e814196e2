"""Fixtures that every test can ask for: the tiny models in both model classes, and the shared data folder.

Models are opened once a session and shared. A test that leaves a hook behind fails, and a session in which a weight
was changed ends in an error.
"""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import jaxtyping

# Must come before the first import of caa_lens: from here on every annotated call in it is checked, shapes included.
jaxtyping.install_import_hook("caa_lens", "typechecker.check")

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from transformers.utils import logging as transformers_logging

torch.set_num_threads(1)  # the models are so small that a second thread only waits: measured, 47 s of CPU against 127 s
transformers_logging.disable_progress_bar()

SHARED_DATA = Path(__file__).parents[2] / "shared"

_opened: dict[str, Any] = {}
_fingerprints: dict[str, float] = {}


def _open_once(name: str, load: Callable[[], Any]) -> Any:
    if name not in _opened:
        _opened[name] = load()
        _fingerprints[name] = tiny_models.fingerprint(_opened[name])
    return _opened[name]


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Starts every test from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_hooks_left() -> Iterator[None]:
    """Fails the test that leaves a hook on a shared model: it would steer every later test."""
    yield
    for name, model in _opened.items():
        if left := tiny_models.attached_hooks(model):
            model.reset_hooks(including_permanent=True)
            pytest.fail(f"this test left hooks on the shared model {name}: {left}")


@pytest.fixture(autouse=True, scope="session")
def _weights_unchanged() -> Iterator[None]:
    yield
    changed = [name for name, model in _opened.items() if tiny_models.fingerprint(model) != _fingerprints[name]]
    assert not changed, f"a test changed the weights of the shared models {changed}"


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Turns the run-time type checks off, as they are for users: for tests of our own errors on wrong arguments.

    Under the checks `steer(model, v, positions="begin")` is a `jaxtyping.TypeCheckError` before our code is reached.
    """
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with CAA's published data, beside the repository; not part of it, so that a plain clone skips."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the shared data folder {SHARED_DATA}, which this machine does not have")
    return SHARED_DATA


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tiny_path(style)` is the Hugging Face folder of that style's model (tiny_models.STYLES)."""
    root = tmp_path_factory.mktemp("tiny-models")

    def path_of(style: str) -> Path:
        folder = root / style
        return folder if folder.exists() else tiny_models.write_model(style, folder)

    return path_of


@pytest.fixture(scope="session")
def bridge(tiny_path: Callable[[str], Path]) -> Callable[[str], Any]:
    """`bridge(style)` is the shared TransformerBridge of that style: float32, unprocessed. Never change it."""
    return lambda style: _open_once(f"bridge-{style}", lambda: tiny_models.load_bridge(tiny_path(style)))


@pytest.fixture(scope="session")
def hooked(tiny_path: Callable[[str], Path]) -> Callable[[str], Any]:
    """`hooked(style)` is the shared HookedTransformer with the bridge's weights, unprocessed; skips under 4.x."""
    _skip_without_hooked_transformer()
    return lambda style: _open_once(f"hooked-{style}", lambda: tiny_models.load_hooked(tiny_path(style)))


@pytest.fixture(scope="module", params=tiny_models.model_cases(), ids="-".join)
def model(request: pytest.FixtureRequest) -> Any:
    """Every model class in every style that exists here; `-k bridge-llama` picks one."""
    kind, style = request.param
    return request.getfixturevalue(kind)(style)


@pytest.fixture(scope="session")
def processed_hooked(tiny_path: Callable[[str], Path]) -> Any:
    """A HookedTransformer of gpt2 with centred writing weights: its residual stream is not Hugging Face's."""
    _skip_without_hooked_transformer()
    return _open_once("processed-gpt2", lambda: tiny_models.load_hooked(tiny_path("gpt2"), center_writing_weights=True))


def _skip_without_hooked_transformer() -> None:
    if "hooked" not in tiny_models.available_model_kinds():
        pytest.skip("needs HookedTransformer, which transformer-lens 4.0 removed; `make test-tl3` runs this test")
