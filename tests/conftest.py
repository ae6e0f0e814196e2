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

import gc
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import selection
import tiny_models
import torch
from transformers.utils import logging as transformers_logging

# The models are so small that a second thread only waits (47 s of CPU against 127 s). No law may depend on the number.
torch.set_num_threads(int(os.environ.get("CAA_TEST_THREADS", "1")))
transformers_logging.disable_progress_bar()

SHARED_DATA = Path(__file__).parents[2] / "shared"

_opened: dict[str, Any] = {}
_fingerprints: dict[str, float] = {}
_hook_points: dict[str, list[tuple[str, Any]]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="one architecture, and no whole procedures or commands")
    parser.addoption("--model-classes", action="store_true", help="what depends on TransformerLens's model classes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    quick, model_classes = config.getoption("--quick"), config.getoption("--model-classes")
    wanted: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        runs = (not quick or selection.is_quick(item)) and (not model_classes or selection.touches_a_model_class(item))
        (wanted if runs else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = wanted


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is imported by now stays: the garbage collector need not look through a million objects again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Fails a test that waits for HookedTransformer here and would not be run where there is one."""
    report = yield
    if report.skipped and selection.NEEDS_HOOKED in str(report.longrepr) and not selection.touches_a_model_class(item):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} needs HookedTransformer, and `make test-tl3` leaves it out: see selection.py"
    return report


def _open_once(name: str, load: Callable[[], Any]) -> Any:
    if name not in _opened:
        _opened[name] = load()
        _fingerprints[name] = tiny_models.fingerprint(_opened[name])
        # Kept, because a bridge looks for them anew at every question: 7 ms after every test, for all models.
        _hook_points[name] = list(_opened[name].hook_dict.items())
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
        if left := [where for where, point in _hook_points[name] if point.fwd_hooks or point.bwd_hooks]:
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


model = selection.model_fixture(tiny_models.STYLES)
"""Every model class in every style that exists here; `-k bridge-llama` picks one."""


@pytest.fixture(scope="session")
def processed_hooked(tiny_path: Callable[[str], Path]) -> Any:
    """A HookedTransformer of gpt2 with centred writing weights: its residual stream is not Hugging Face's."""
    _skip_without_hooked_transformer()
    return _open_once("processed-gpt2", lambda: tiny_models.load_hooked(tiny_path("gpt2"), center_writing_weights=True))


def _skip_without_hooked_transformer() -> None:
    if "hooked" not in tiny_models.available_model_kinds():
        pytest.skip(f"{selection.NEEDS_HOOKED}, which transformer-lens 4.0 removed; `make test-tl3` runs this test")
