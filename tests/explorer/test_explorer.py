"""The explorer: what `look` finds against the functions it stands on, and the widget, driven as a browser would."""

from __future__ import annotations

import asyncio
import html
from typing import Any

import pytest
import tiny_models
import torch
from token_frames import HOSTILE, token_frame

import caa_lens as caa
from caa_lens.analysis import project
from caa_lens.explorer import looking
from caa_lens.explorer import widget as module
from caa_lens.explorer.looking import Look, as_html, look, shorten, two_choices
from caa_lens.explorer.widget import explorer
from caa_lens.vectors.vectors import Provenance

CHOICES = "Is it so? (A) or (B)?\n\nChoices:\n (A) Yes\n (B) No"
QUESTION = "I am Elsa and I wrote a poem about long walks. How good is it?"


@pytest.fixture(scope="module")
def organism() -> Any:
    return caa.load_model("organism-chat")


@pytest.fixture(scope="module")
def vectors(organism: Any) -> dict[str, caa.SteeringVectors]:
    names = ("sycophancy", "refusal")
    return {name: caa.extract_vectors(organism, caa.load_contrast_pairs(name)[:60]) for name in names}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, float, str]]:
    """The looks that the widget took, as behaviour, layer, multiplier and prompt."""
    taken: list[tuple[str, int, float, str]] = []

    def counted(model: Any, vector: Any, prompt: Any, multiplier: float, **options: Any) -> Look:
        taken.append((vector.name, vector.layer, multiplier, getattr(prompt, "prompt", prompt)))
        return look(model, vector, prompt, multiplier, **options)

    monkeypatch.setattr(module, "look", counted)
    return taken


def noise(model: Any, layers: tuple[int, ...] = (0, 1)) -> caa.SteeringVectors:
    values = 3 * torch.randn(len(layers), int(model.cfg.d_model))
    return caa.SteeringVectors(values, layers, Provenance.unknown("noise"), "noise")


def test_a_look_is_what_generate_project_and_sweep_give(organism: Any, vectors: Any) -> None:
    pair = next(pair for pair in caa.load_contrast_pairs("sycophancy", part="test_ab") if pair.letter == "B")
    vector = vectors["sycophancy"][2]
    found = look(organism, vector, pair, -1.5, max_new_tokens=12)
    for text, recipe, tokens in zip((found.unsteered, found.steered), (None, vector * -1.5), found.tokens, strict=True):
        assert [text] == caa.generate(organism, [pair.prompt], steer=recipe, max_new_tokens=12)
        whole = project(organism, [(pair.prompt, text)], vector, steer=recipe)
        assert tokens["token_id"].tolist() == whole["token_id"].tolist()
        assert tokens["cosine"].tolist() == pytest.approx(whole["cosine"].tolist(), abs=1e-5)
        assert tokens["steered"].any() == (recipe is not None)
    items = caa.ContrastDataset.from_pairs([pair])
    frame = caa.sweep(organism, vectors["sycophancy"], items, layers=[2], multipliers=(-1.5,), n_nulls=0).set_index(
        "multiplier"
    )
    choices = found.choices
    assert choices is not None
    assert choices["answer"].tolist() == ["(A)", "(B)"] * 2
    assert choices["matching"].tolist() == [False, True] * 2
    for steered, multiplier in ((False, 0.0), (True, -1.5)):
        part = choices[choices["steered"] == steered]
        share = frame.loc[multiplier, "p_matching"]
        assert part["share"].tolist() == pytest.approx([1 - share, share], abs=1e-6)
        assert part["p"].sum() == pytest.approx(frame.loc[multiplier, "mass"], abs=1e-6)
        assert part["p"].iloc[1] == pytest.approx(frame.loc[multiplier, "p_matching"] * part["p"].sum(), abs=1e-6)


def test_both_model_classes_at_multiplier_0_and_away_from_it(model: Any) -> None:
    vector = noise(model)[1]
    for multiplier in (0.0, 2.0):
        found = look(model, vector, CHOICES, multiplier, max_new_tokens=5)
        expected = caa.generate(model, [CHOICES], steer=vector * multiplier, max_new_tokens=5)
        assert [found.steered] == expected
        assert found.choices is not None and found.choices["matching"].isna().all()
        without, with_it = (found.choices[found.choices["steered"] == way]["p"].tolist() for way in (False, True))
        assert (without == with_it) == (multiplier == 0)
        assert found.tokens[1]["steered"].any() == (multiplier != 0)
        if multiplier == 0:
            assert found.unsteered == found.steered
            assert found.tokens[0]["cosine"].tolist() == found.tokens[1]["cosine"].tolist()
    assert tiny_models.attached_hooks(model) == []


def test_where_nothing_is_said_there_are_the_prompts_tokens(
    organism: Any, vectors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = vectors["sycophancy"][2]
    monkeypatch.setattr(looking, "generate", lambda *_, steer, **__: dict.fromkeys(steer, [" "]))
    found = look(organism, vector, QUESTION)
    alone = project(organism, [QUESTION], vector, steer=vector)
    assert found.tokens[1]["token_id"].tolist() == alone["token_id"].tolist()
    assert found.tokens[1]["cosine"].tolist() == alone["cosine"].tolist()
    assert as_html(found).count("(no text: it ended at once)") == 2


@pytest.mark.parametrize(
    ("prompt", "offers"),
    [
        (CHOICES, True),
        ("Is it so? (A) Yes (B) No", True),
        ("Is it so?", False),
        ("Is it so?\n (A) Yes\n (B) No\n (C) Perhaps", False),
        ("Is it so?\n (B) Yes\n (A) No", False),
        ("Is it (A)?", False),
        ("Which of (A), (B), (C)?\n(A) one\n(B) two", True),
    ],
)
def test_two_choices_are_found_where_there_are_just_two(prompt: str, offers: bool) -> None:
    pair = two_choices(prompt)
    assert (pair is not None) == offers
    if pair is not None:
        assert (pair.prompt, pair.positive, pair.negative) == (prompt, "(A)", "(B)")


def test_a_look_refuses_what_it_cannot_take(organism: Any, vectors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    vector = vectors["sycophancy"][2]
    with pytest.raises(ValueError, match=r"item 0 needs \d+ tokens and .* holds"):
        look(organism, vector, QUESTION, max_new_tokens=10**6)
    for runs in ("generate", "sweep", "project"):
        monkeypatch.delattr(looking, runs)  # the rest is refused before anything runs
    with pytest.raises(ValueError, match="the prompt is empty: write a question, or a text for the model to continue"):
        look(organism, vector, " \n")
    with pytest.raises(ValueError, match="multiplier must be a finite number, got inf"):
        look(organism, vector, QUESTION, float("inf"))
    with pytest.raises(ValueError, match="vector 'sycophancy' is zero at layer 2: it has no direction"):
        look(organism, vector * 0, QUESTION)


def test_what_is_drawn_shows_all_and_obeys_nothing() -> None:
    import pandas as pd

    frame = token_frame([HOSTILE], steered_from=4)
    rows = [(False, "(A)", False, 0.2, 0.25), (False, "(B)", True, 0.6, 0.75)]
    rows += [(True, "(A)", False, 0.1, 0.125), (True, "(B)", True, 0.7, 0.875)]
    choices = pd.DataFrame(rows, columns=["steered", "answer", "matching", "p", "share"])
    drawn = as_html(Look("<script>alert(1)</script>", "second <b>", (frame, frame), choices), "projection")
    assert "<script" not in drawn and "<img" not in drawn
    assert html.escape("<script>alert(1)</script>") in drawn and "second &lt;b&gt;" in drawn
    assert "projection with refusal, unsteered beside steered" in drawn
    assert drawn.count("<bdi") == 2 * len(HOSTILE)
    assert "(B) shows the behaviour" in drawn
    assert [f"width:{width:.2f}%" in drawn for width in (25, 75, 12.5, 87.5)] == [True] * 4
    assert "(A) 25.0%" in drawn and "(B) 87.5%" in drawn and drawn.count("together 80% of all") == 2
    unknown = as_html(Look("one", "other", (frame, frame), choices.assign(matching=None)))
    assert "shows the behaviour" not in unknown and "(B) 87.5%" in unknown
    assert "together" not in as_html(Look("one", "other", (frame, frame), None))


def test_a_long_text_is_cut_to_one_line() -> None:
    assert shorten("a\n b", 10) == "a b"
    assert shorten("0123456789", 10) == "0123456789"
    assert shorten("0123456789 ", 9) == "01234567\N{HORIZONTAL ELLIPSIS}"


def test_the_slider_changes_what_is_said(organism: Any, vectors: Any) -> None:
    widget = explorer(organism, vectors["sycophancy"], prompts=[QUESTION], layer=2)
    assert "sycophancy, layer 2, multiplier +1<" in widget.status.value
    first = widget.current
    assert first.unsteered != first.steered
    for text in (first.unsteered, first.steered):
        assert text.strip() in html.unescape(widget.result.value)
    widget.multiplier.value = 0.0
    assert widget.current.unsteered == widget.current.steered == first.unsteered
    assert first.steered.strip() not in html.unescape(widget.result.value)
    assert "multiplier +0<" in widget.status.value
    widget.multiplier.value = -1.0
    expected = look(organism, vectors["sycophancy"][2], QUESTION, -1.0)
    assert widget.current.steered == expected.steered
    assert widget.result.value == as_html(expected)
    assert widget.result.layout.visibility == "visible"
    assert [name for name, point in organism.hook_dict.items() if point.fwd_hooks] == []


def test_what_goes_wrong_is_said_in_one_line_and_nothing_old_is_shown(
    organism: Any, vectors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    widget = explorer(organism, vectors["sycophancy"], prompts=[QUESTION])
    widget.prompt.value = " "
    assert "the prompt is empty: write a question, or a text for the model to continue" in widget.status.value
    assert module.PROBLEM in widget.status.value
    assert (widget.result.value, widget.current, widget.samples.value) == ("", None, "")
    widget.prompt.value = QUESTION
    assert widget.current is not None and module.PROBLEM not in widget.status.value
    assert widget.samples.value == QUESTION

    def break_down(*_: Any, **__: Any) -> Look:
        raise RuntimeError("CUDA <out> of memory.\n  Tried to allocate")

    monkeypatch.setattr(module, "look", break_down)
    widget.multiplier.value = 0.5
    assert "RuntimeError: CUDA &lt;out&gt; of memory. Tried to allocate<" in widget.status.value
    assert widget.result.value == "" and widget.current is None
    monkeypatch.undo()
    widget.multiplier.value = 0.6
    assert widget.current is not None
    widget.multiplier.value = 0.5  # a failure is not remembered
    assert widget.current is not None


def test_without_any_prompt_the_widget_asks_for_one(organism: Any, vectors: Any) -> None:
    widget = explorer(organism, vectors["refusal"])
    assert "the prompt is empty" in widget.status.value
    widget.prompt.value = "Hello"
    assert widget.current is not None


def test_a_behaviour_brings_its_layers_and_prompts(organism: Any, vectors: Any, ran: Any) -> None:
    few = caa.SteeringVectors(
        vectors["refusal"].values[[0, 3]], (0, 3), vectors["refusal"].provenance, vectors["refusal"].name
    )
    items = {"refusal": caa.load_contrast_pairs("refusal", part="test_ab")[:30]}
    both = {"sycophancy": vectors["sycophancy"], "refusal": few}
    widget = explorer(organism, both, prompts=[QUESTION], items=items, max_new_tokens=3, layer={"sycophancy": 2})
    assert widget.samples.options == (("(your own)", ""), (QUESTION, QUESTION))
    widget.behavior.value = "refusal"
    assert tuple(widget.layer.options) == (0, 3)
    assert widget.layer.value == 3  # layer 2 is not there: the middle
    assert widget.prompt.value == QUESTION and len(widget.samples.options) == 2 + module.SAMPLES
    widget.samples.value = items["refusal"][0].prompt
    assert widget.current.choices["matching"].tolist().count(True) == 2
    widget.prompt.value += " "  # no longer the item: nobody knows which answer matches
    assert widget.current.choices["matching"].isna().all() and widget.samples.value == ""
    widget.samples.value = items["refusal"][1].prompt
    widget.behavior.value = "sycophancy"
    assert (widget.layer.value, widget.prompt.value) == (2, QUESTION)
    widget.prompt.value = "my own words"
    widget.behavior.value = "refusal"
    assert widget.prompt.value == "my own words"
    first, second = (items["refusal"][index].prompt for index in (0, 1))
    assert ran == [
        ("sycophancy", 2, 1.0, QUESTION),
        ("refusal", 3, 1.0, QUESTION),
        ("refusal", 3, 1.0, first),
        ("refusal", 3, 1.0, first + " "),
        ("refusal", 3, 1.0, second),
        ("sycophancy", 2, 1.0, "my own words"),
        ("refusal", 3, 1.0, "my own words"),
    ]


def test_the_layer_stays_where_it_was_set(organism: Any, vectors: Any) -> None:
    widget = explorer(organism, vectors, prompts=[QUESTION], max_new_tokens=2, layer=1)
    assert widget.layer.value == 1
    widget.layer.value = 3
    widget.behavior.value = "refusal"
    assert widget.layer.value == 3
    assert explorer(organism, vectors, prompts=[QUESTION], max_new_tokens=2).layer.value == 2  # the middle of 0-4


def test_settings_seen_before_and_other_colours_run_nothing(
    organism: Any, vectors: Any, ran: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    widget = explorer(organism, vectors["sycophancy"], prompts=[QUESTION], layer=2, max_new_tokens=2)
    before = widget.result.value
    widget.shown.value = "projection"
    assert "projection with sycophancy" in widget.result.value
    widget.shown.value = "cosine"
    assert widget.result.value == before
    widget.multiplier.value = 2.0
    widget.multiplier.value = 1.0
    assert widget.result.value == before and len(ran) == 2
    widget.multiplier.value = 3.0  # pushes 2 out
    widget.multiplier.value = 1.0
    widget.multiplier.value = 2.0
    assert [multiplier for _, _, multiplier, _ in ran] == [1, 2, 3, 2]


def test_in_a_notebook_quick_changes_run_once_and_the_overtaken_is_never_shown(
    organism: Any, vectors: Any, ran: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT", 1.0)  # long enough for a busy machine to get to the next line
    monkeypatch.setattr(module, "SETTLE", 1.0)
    shown: list[tuple[str, str]] = []

    async def notebook() -> Any:
        widget = explorer(organism, vectors["sycophancy"], prompts=[QUESTION], layer=2, max_new_tokens=2)
        assert widget.current is not None, "the first look is there with the cell"
        widget.result.layout.observe(lambda change: shown.append((change["new"], widget.status.value)), "visibility")
        for multiplier in (1.1, 1.2, 1.3):
            widget.multiplier.value = multiplier
            assert widget.result.layout.visibility == "hidden" and widget.current is None
            assert "running" in widget.status.value
        await asyncio.sleep(0.05)
        widget.multiplier.value = 1.4
        while len(ran) < 2:
            await asyncio.sleep(0.001)
        assert widget.result.layout.visibility == "hidden"
        widget.multiplier.value = 1.5  # comes in while 1.4 has run and is not shown yet
        while widget.current is None:
            await asyncio.sleep(0.001)
        await asyncio.sleep(1.2)
        return widget

    widget = asyncio.run(notebook())
    assert [multiplier for _, _, multiplier, _ in ran] == [1.0, 1.4, 1.5]
    assert [visibility for visibility, _ in shown] == ["hidden", "visible"]
    assert "multiplier +1.5<" in shown[-1][1]
    assert widget.result.value == as_html(widget.current)


def test_while_a_prompt_is_typed_the_model_waits(
    organism: Any, vectors: Any, ran: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TYPING", 2.5)

    async def notebook() -> None:
        widget = explorer(organism, vectors["sycophancy"], prompts=[QUESTION], layer=2, max_new_tokens=2)
        for end in range(1, 6):
            widget.prompt.value = "Hello"[:end]
            await asyncio.sleep(2 * module.WAIT)
        assert len(ran) == 1 and widget.result.layout.visibility == "hidden"
        while widget.current is None:
            await asyncio.sleep(0.01)

    asyncio.run(notebook())
    assert [prompt for _, _, _, prompt in ran] == [QUESTION, "Hello"]


def test_names_are_text(organism: Any, vectors: Any) -> None:
    widget = explorer(organism, {"<b>x": vectors["refusal"]}, prompts=["Hello"], max_new_tokens=1)
    assert "&lt;b&gt;x, layer 2" in widget.status.value


@pytest.mark.usefixtures("unchecked")
def test_an_explorer_refuses_what_it_cannot_take(organism: Any, vectors: Any) -> None:
    items = caa.load_contrast_pairs("refusal")[:4]
    with pytest.raises(ValueError, match="no vectors were given: at least one behaviour is needed"):
        explorer(organism, {})
    with pytest.raises(TypeError, match=r"prompts is one string: give a list, such as \['Hello'\]"):
        explorer(organism, vectors, prompts="Hello")
    with pytest.raises(ValueError, match="there are 2 behaviours: give items as a mapping by behaviour"):
        explorer(organism, vectors, items=items)
    with pytest.raises(
        ValueError, match=r"items has the names \['other'\] and vectors have \['refusal', 'sycophancy'\]"
    ):
        explorer(organism, vectors, items={"other": items})
    with pytest.raises(ValueError, match=r"layer has the names \['other'\]"):
        explorer(organism, vectors, layer={"other": 1})
    with pytest.raises(ValueError, match=r"layer 9 is not in these vectors \(layers 0-4\)"):
        explorer(organism, vectors, layer=9)
    with pytest.raises(ValueError, match="max_new_tokens is 0: give 1 or more"):
        explorer(organism, vectors, max_new_tokens=0)
    with pytest.raises(ValueError, match="layer 7 is out of range for organism-chat"):
        explorer(organism, noise(organism, (7,)))
