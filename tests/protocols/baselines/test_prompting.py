"""System prompts and few-shot items: how they are laid out, that they are balanced, and what they do."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import caa_lens as caa
from caa_lens.datasets.contrast import ContrastDataset, behaviors
from caa_lens.prompts import format_prompt
from caa_lens.protocols.baselines.prompting import NEUTRAL_SYSTEM_PROMPT, answered, few_shot, system_prompts

LETTERS = {"A": ("(A)", "(B)"), "B": ("(B)", "(A)")}


def dataset(letters: str, name: str = "kind", word: str = "Item") -> ContrastDataset:
    return ContrastDataset.from_pairs([(f"{word} {i}?", *LETTERS[letter]) for i, letter in enumerate(letters)], name)


def shown(prompt: str) -> list[tuple[str, str]]:
    """Questions and answers in front of the last question."""
    return re.findall(r"(\w+ \d+\?)\nAnswer: \((\w)\)\n\n", prompt)


@settings(max_examples=40, deadline=None)
@given(
    letters=st.text("AB", min_size=8, max_size=20).filter(lambda text: min(text.count("A"), text.count("B")) >= 4),
    k=st.integers(1, 6),
    direction=st.sampled_from(["positive", "negative"]),
    seed=st.integers(0, 99),
)
def test_examples_are_answered_and_balanced(letters: str, k: int, direction: Any, seed: int) -> None:
    known = dataset(letters, word="Known")
    items = dataset("ABBA")
    made = few_shot(items, known, k=k, direction=direction, seed=seed)
    assert made.name == items.name and len(made) == len(items)
    right = {pair.prompt: pair.letter if direction == "positive" else pair.swapped().letter for pair in known}
    for item, pair in zip(items, made, strict=True):
        assert (pair.positive, pair.negative) == (item.positive, item.negative)
        assert pair.prompt.endswith(f"\n\n{item.prompt}")
        examples = shown(pair.prompt)
        assert len(examples) == k and len({question for question, _ in examples}) == k
        assert all(right[question] == letter for question, letter in examples)
        count = [letter for _, letter in examples].count("A")
        assert abs(count - (k - count)) == k % 2
    assert few_shot(items, known, k=k, direction=direction, seed=seed) == made


def test_every_item_has_a_draw_of_its_own_and_never_its_own_question() -> None:
    pairs = dataset("AB" * 6)
    made = few_shot(pairs, pairs, k=4)
    draws = [tuple(question for question, _ in shown(pair.prompt)) for pair in made]
    assert len(set(draws)) == len(pairs)
    assert not any(item.prompt in draw for item, draw in zip(pairs, draws, strict=True))
    assert any([letter for _, letter in shown(pair.prompt)] in (list("ABBA"), list("BABA")) for pair in made), (
        "shuffled"
    )
    assert few_shot(pairs, pairs, k=4, seed=1) != made


def test_mixed_examples_are_half_matching_and_balanced() -> None:
    known = dataset("A" * 10 + "B" * 10, word="Known")
    right = {pair.prompt: pair.letter for pair in known}
    for pair in few_shot(dataset("AB" * 5), known, k=4, direction="mixed"):
        matching = [right[question] == letter for question, letter in shown(pair.prompt)]
        assert sum(matching) == 2
        assert sorted(letter for _, letter in shown(pair.prompt)) == list("AABB")


def test_mixed_answers_do_not_follow_letters_that_alternate() -> None:
    turned = answered(dataset("AB" * 20).pairs, "mixed", random.Random(0))
    assert [pair.letter for pair in turned].count("A") == 20
    for letter, start in (("A", 0), ("B", 1)):
        assert [pair.letter for pair in turned[start::2]].count(letter) == 10


def test_odd_numbers_of_examples_favour_no_letter() -> None:
    made = few_shot(dataset("AB" * 100), dataset("AB" * 10, word="Known"), k=1)
    first = [shown(pair.prompt)[0][1] for pair in made]
    assert 60 < first.count("A") < 140


def test_the_base_format_is_continued(bridge: Callable[[str], Any]) -> None:
    model = bridge("gpt2")
    [pair] = few_shot(dataset("AB"), dataset("AB", word="Known"), k=2, prompt_format="base")[:1]
    text = format_prompt(model, pair.prompt, prompt_format="base").text.removeprefix("<|endoftext|>")
    turn = r"Input: Known \d\?\nResponse: \([AB]\)\n\n"
    assert re.fullmatch(rf"{turn}{turn}Input: Item 0\?\nResponse:", text)


def test_what_cannot_be_drawn_is_said() -> None:
    items = dataset("AB")
    with pytest.raises(ValueError, match=r"6 examples need 3 that match with \(B\), and 'kind' has 2 beside the item"):
        few_shot(items, dataset("AAAABB", word="Known"), k=6)
    with pytest.raises(ValueError, match=r"all examples of 'kind' match with \(A\), so they would teach that letter"):
        few_shot(items, dataset("AAAA", word="Known"), k=2)
    with pytest.raises(ValueError, match=r"k is 0: give at least 1 example"):
        few_shot(items, items, k=0)
    with pytest.raises(ValueError, match=r"'kind' has no examples beside the item itself"):
        few_shot(items[:1], items[:1])


def test_an_unknown_direction_is_refused(unchecked: None) -> None:
    wrong: Any = "up"
    with pytest.raises(ValueError, match=r"direction 'up' is not known: give one of positive, negative, mixed"):
        few_shot(dataset("AB"), dataset("AB"), direction=wrong)


def test_open_answers_are_examples_too() -> None:
    pairs = ContrastDataset.from_pairs([(f"Say {i}.", f" yes {i}", f" no {i}") for i in range(4)])
    assert few_shot(pairs[:1], pairs[1:2], k=1)[0].prompt == "Say 1.\nAnswer: yes 1\n\nSay 0."


def test_all_bundled_behaviours_have_system_prompts() -> None:
    for name in behaviors():
        pairs = caa.load_contrast_pairs(name)
        for_it, against = system_prompts(pairs.split(seed=0)[2])
        assert for_it != against and NEUTRAL_SYSTEM_PROMPT not in (for_it, against)


def test_names_without_system_prompts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there are no system prompts for 'kind' \(there are for coordinate.*: give"):
        system_prompts(dataset("AB"))
    file = tmp_path / "survival-instinct.json"
    caa.load_contrast_pairs("survival-instinct")[:4].to_json(file)
    with pytest.raises(ValueError, match=r"accept being shut down in CAA's published data, and these are from .*read"):
        system_prompts(caa.load_contrast_pairs(file))


@pytest.mark.parametrize("behavior", ["sycophancy", "survival-instinct"])
def test_system_prompts_move_the_bundled_model(behavior: str) -> None:
    model: Any = caa.load_model("organism-chat")
    items = caa.load_contrast_pairs(behavior)[:40]
    vectors = caa.extract_vectors(model, items[:2], layers=[2])
    texts = dict(zip(("for", "against"), system_prompts(items), strict=True)) | {"none": None}
    share = {
        name: caa.sweep(model, vectors, items, multipliers=[0], system=text)["p_matching"].mean()
        for name, text in texts.items()
    }
    assert share["for"] > share["none"] + 0.15
    assert share["against"] < share["none"] - 0.1
