"""An explorer for notebooks: turn a vector up and down, and watch what the model says.

`explorer` shows a prompt's text without and with steering, every token coloured by how much of the vector it has, and
for a question with two choices the probability of each. It only calls `caa_lens.explorer.look`, draws what
comes back, and remembers the last few settings.

What is drawn always belongs to the settings written above it: a change hides the last result before anything runs,
changes in quick succession are run once, and a result that was overtaken while it was made is never shown. The model
runs in the notebook's own thread, between cells, so that no cell can meet it while it is steered.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast

import ipywidgets

from caa_lens.datasets.contrast import ContrastDataset, ContrastPair, Pairs, as_dataset
from caa_lens.explorer.looking import Look, Shown, as_html, look, shorten
from caa_lens.files.messages import brief
from caa_lens.models.adapters import HookedModel, adapt
from caa_lens.prompts import PromptForm, PromptFormat
from caa_lens.steering.steering import edits_of
from caa_lens.vectors.vectors import Vectors, as_vectors

REMEMBERED = 32
"""So many settings' results are kept, the last ones."""

SAMPLES = 20
"""So many of a behaviour's items are offered as prompts."""

PROBLEM = "#c62828"
"""Red that can be read on white and on black."""

WAIT, TYPING, SETTLE = 0.08, 0.6, 0.03
"""Seconds to wait for a further change: before running, while a prompt is typed, and before showing, for one that came
in while the model ran."""


def explorer(
    model: HookedModel,
    vectors: Vectors | Mapping[str, Vectors],
    prompts: Sequence[str] | None = None,
    items: Pairs | Mapping[str, Pairs] | None = None,
    *,
    layer: int | Mapping[str, int] | None = None,
    max_new_tokens: int = 40,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
) -> Explorer:
    """A widget that shows a vector's effect, live: choose behaviour, layer, multiplier and prompt.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        vectors: One behaviour's vectors, or several by name.
        prompts: Texts to choose from, for every behaviour; others can be written in the box.
        items: Two-choice questions to choose from, the first `SAMPLES` of each: of the one behaviour, or by name.
        layer: The layer to begin with, or one for each behaviour as `choose_layer` gives them; None for the middle of
            those that the vectors have.
        max_new_tokens: As for `look`.
        prompt_format: As for `look`.
        system: As for `look`.

    Raises:
        TypeError: If ``prompts`` is one string.
        ValueError: For names that do not match, or vectors or layers that do not fit.

    Example:
        >>> import caa_lens as caa
        >>> model = caa.load_model("organism-chat")
        >>> pairs = caa.load_contrast_pairs("refusal")
        >>> widget = explorer(model, caa.extract_vectors(model, pairs[:40]), items=pairs[40:45], layer=2)
        >>> widget.multiplier.value = -1.0
        >>> widget.current.choices["answer"].tolist()
        ['(A)', '(B)', '(A)', '(B)']
    """
    given = vectors if isinstance(vectors, Mapping) else {vectors.name: vectors}
    named = {name: as_vectors(each) for name, each in given.items()}
    if not named:
        raise ValueError("no vectors were given: at least one behaviour is needed")
    if isinstance(prompts, str):
        raise TypeError(f"prompts is one string: give a list, such as [{prompts[:20]!r}]")
    if items is not None and not isinstance(items, Mapping):
        if len(named) > 1:
            raise ValueError(
                f"there are {len(named)} behaviours: give items as a mapping by behaviour, {brief(list(named))}"
            )
        items = {name: items for name in named}
    offered = {name: as_dataset(each) for name, each in (items or {}).items()}
    own = dict(layer) if isinstance(layer, Mapping) else {}
    for what, given in (("items", offered), ("layer", own)):
        if unknown := sorted(set(given) - set(named)):
            raise ValueError(
                f"{what} has the names {brief(unknown)} and vectors have {brief(sorted(named))}: give the same names"
            )
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}: give 1 or more")
    adapter = adapt(model)
    first = None if isinstance(layer, Mapping) else layer
    for name, each in named.items():
        for vector in each:
            edits_of(adapter, vector)  # refuses what does not fit the model
        if (wanted := own.get(name, first)) is not None:
            each[wanted]  # refuses a layer that is not there

    @lru_cache(maxsize=REMEMBERED)
    def looked(behavior: str, layer: int, multiplier: float, prompt: str | ContrastPair) -> Look:
        form: PromptForm = {"prompt_format": prompt_format, "system": system}
        return look(model, named[behavior][layer], prompt, multiplier, max_new_tokens=max_new_tokens, **form)

    layers = {name: each.layers for name, each in named.items()}
    return Explorer(looked, layers, list(prompts or ()), offered, own, first)


class Explorer(ipywidgets.VBox):
    """The widget that `explorer` makes. Its parts are plain ipywidgets, whose ``value`` can be read and set.

    Attributes:
        behavior: Dropdown.
        layer: Slider over the layers that the behaviour's vectors have.
        multiplier: Slider from -3 to 3.
        shown: ``cosine`` or ``projection``.
        samples: Dropdown of prompts; ``""`` where the prompt is none of them.
        prompt: Text area; what is written runs when the typing pauses.
        status: In one line of HTML: which settings are shown, that the model is running, or what went wrong.
        result: What was found, as HTML; hidden while it belongs to other settings.
        current: The `Look` that is shown, or None.
    """

    def __init__(
        self,
        looked: Callable[[str, int, float, str | ContrastPair], Look],
        layers: Mapping[str, Sequence[int]],
        prompts: Sequence[str],
        items: Mapping[str, ContrastDataset],
        own_layers: Mapping[str, int],
        first_layer: int | None,
    ) -> None:
        """Draw the controls and take the first look; see `explorer`."""
        self._looked, self._layers, self._own_layers, self._prompts = looked, layers, own_layers, prompts
        self._pairs = {name: {pair.prompt: pair for pair in items.get(name, ())} for name in layers}
        self._offered: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._quiet = True
        self.current: Look | None = None
        style: Any = {"description_width": "72px"}
        half: Any = {"width": "auto", "flex": "1 1 320px"}
        full: Any = {"width": "auto"}
        slow: Any = {"style": style, "continuous_update": False}
        self.behavior = ipywidgets.Dropdown(options=list(layers), description="behaviour", style=style, layout=half)
        self.layer = ipywidgets.SelectionSlider(
            options=list(layers[next(iter(layers))]), description="layer", layout=half, **slow
        )
        self.multiplier = ipywidgets.FloatSlider(
            1.0, min=-3.0, max=3.0, step=0.1, readout_format="+.1f", description="multiplier", layout=half, **slow
        )
        self.shown = ipywidgets.Dropdown(
            options=["cosine", "projection"], description="colour by", style=style, layout=half
        )
        self.samples = ipywidgets.Dropdown(options=[""], description="samples", style=style, layout=full)
        self.prompt = ipywidgets.Textarea(
            description="prompt",
            placeholder="a question, or a text to continue",
            style=style,
            layout={**full, "height": "92px"},
        )
        self.status, self.result = ipywidgets.HTML(), ipywidgets.HTML()
        rows = [(self.behavior, self.layer), (self.multiplier, self.shown)]
        controls = [ipywidgets.HBox(row, layout={"flex_flow": "row wrap"}) for row in rows]
        super().__init__([*controls, self.samples, self.prompt, self.status, self.result])
        self._fit_behavior(first_layer)
        self._quiet = False
        self.behavior.observe(self._behavior_changed, "value")
        self.samples.observe(self._sample_chosen, "value")
        self.prompt.observe(self._prompt_changed, "value")
        self.layer.observe(self._changed, "value")
        self.multiplier.observe(self._changed, "value")
        self.shown.observe(self._draw, "value")
        self._show(*self._look())

    def _behavior_changed(self, _: Any) -> None:
        with self._as_one_change():
            self._fit_behavior(self.layer.value)

    def _sample_chosen(self, _: Any) -> None:
        if self.samples.value:
            with self._as_one_change():
                self.prompt.value = self.samples.value

    def _prompt_changed(self, _: Any) -> None:
        with self._as_one_change(TYPING):
            self._fit_samples()

    def _changed(self, _: Any = None, wait: float = WAIT) -> None:
        """Hide what is shown, and run once no further change comes in."""
        if not self._quiet:
            self.current = None
            self.result.layout.visibility = "hidden"  # keeps its place, so that the page does not jump
            self.status.value = _line("running \N{HORIZONTAL ELLIPSIS}")
            self._later(wait, self._run)

    @contextmanager
    def _as_one_change(self, wait: float = WAIT) -> Generator[None]:
        """Whatever controls are set inside, the model runs once, afterwards."""
        if self._quiet:
            yield
            return
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False
        self._changed(wait=wait)

    def _fit_behavior(self, layer: int | None) -> None:
        """Offer the behaviour's own layers and prompts; layer and prompt stay where they can."""
        name, text, before = str(self.behavior.value), str(self.prompt.value), self._offered
        layers = list(self._layers[name])
        wanted = self._own_layers.get(name, layer)
        self.layer.options = layers
        self.layer.value = wanted if wanted in layers else layers[len(layers) // 2]
        self._offered = list(dict.fromkeys([*self._prompts, *list(self._pairs[name])[:SAMPLES]]))
        self.samples.options = [("(your own)", ""), *((shorten(each, 110), each) for each in self._offered)]
        if self._offered and text not in self._offered and (text in before or not text):
            self.prompt.value = self._offered[0]
        self._fit_samples()

    def _fit_samples(self) -> None:
        text = str(self.prompt.value)
        self.samples.value = text if text in self._offered else ""

    def _later(self, seconds: float, function: Callable[..., None], *args: Any) -> None:
        """Call it when other messages of the notebook have been heard; at once where there is no event loop.

        At most one call is still to come: a change cancels what was to run, or to be shown, before it.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            function(*args)
        else:
            self._timer = loop.call_later(seconds, function, *args)

    def _run(self) -> None:
        self._later(SETTLE, self._show, *self._look())

    def _look(self) -> tuple[str, Look | str]:
        """The settings in words, and what was found or what went wrong."""
        name, text = str(self.behavior.value), str(self.prompt.value)
        layer, multiplier = int(self.layer.value), round(float(self.multiplier.value), 6) + 0.0
        words = f"{name}, layer {layer}, multiplier {multiplier:+g}"
        try:
            return words, self._looked(name, layer, multiplier, self._pairs[name].get(text, text))
        except Exception as error:
            kind = "" if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: "
            return words, kind + " ".join(str(error).split())

    def _show(self, words: str, found: Look | str) -> None:
        self.current = None if isinstance(found, str) else found
        self.status.value = _line(found, PROBLEM) if isinstance(found, str) else _line(words)
        self.result.value = ""
        self._draw()
        self.result.layout.visibility = "visible"

    def _draw(self, _: Any = None) -> None:
        if self.current is not None:
            self.result.value = as_html(self.current, cast(Shown, self.shown.value))


def _line(text: str, color: str = "inherit") -> str:
    style = f"color:{color};line-height:1.4;min-height:1.4em;overflow-wrap:anywhere"
    return f'<div style="{style}">{html.escape(text)}</div>'
