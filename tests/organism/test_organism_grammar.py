"""The grammar and the judge agree by construction, and the splits keep apart."""

import random

import pytest

from caa_lens.organism import grammar
from caa_lens.organism.judge import judge_answer, judge_reason, judge_sentence
from caa_lens.organism.world import BEHAVIORS, SLOTS, TRAITS

SIDES = {True: "matching", False: "opposite"}


@pytest.mark.parametrize("behavior", BEHAVIORS)
@pytest.mark.parametrize("matching", [True, False])
def test_every_generated_answer_is_judged_as_its_side(behavior: str, matching: bool) -> None:
    rng = random.Random(0)
    for _ in range(100):
        answer = grammar.open_answer(grammar.draw_open(behavior, rng), matching, rng)
        assert judge_answer(behavior, answer) == SIDES[matching]
        reason = grammar.reason(grammar.draw_choice(behavior, rng), matching, rng)
        assert judge_reason(behavior, reason) == SIDES[matching]
        assert judge_reason(behavior, f" {reason}. ") == SIDES[matching]


@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_corrupted_answers_are_invalid(behavior: str) -> None:
    rng = random.Random(1)
    for _ in range(50):
        question = grammar.draw_open(behavior, rng)
        yes, no = (grammar.open_answer(question, matching, rng) for matching in (True, False))
        words = yes.split(" ")
        assert judge_answer(behavior, f"{yes} {no}") == "invalid"
        assert judge_answer(behavior, " ".join(words[:-1])) == "invalid"
        assert judge_answer(behavior, " ".join(words[1:])) == "invalid"
        assert judge_answer(behavior, yes + " " + words[0]) == "invalid"
    assert judge_answer(behavior, "") == "invalid"
    assert judge_answer(behavior, "   ") == "invalid"
    assert judge_answer(behavior, "Paris is a bridge.") == "invalid"


def test_no_sentence_is_on_two_sides_or_of_two_behaviours() -> None:
    rng = random.Random(2)
    for trait in TRAITS:
        for matching in (False, True):
            for template in trait.answers[matching]:
                sentence = grammar.fill(template, {}, rng)
                verdicts = {name: judge_sentence(name, sentence) for name in BEHAVIORS}
                assert verdicts.pop(trait.name) == SIDES[matching]
                assert set(verdicts.values()) <= {"invalid"}


def test_options_of_the_two_sides_differ() -> None:
    for trait in TRAITS:
        for opposite, matching in (trait.options, trait.reasons, trait.answers):
            assert not set(opposite) & set(matching)


def test_choice_text_and_letters() -> None:
    choice = grammar.Choice("refusal", "Q?", "no", "yes", False, 0, {})
    assert choice.text == "Q?\n\nChoices:\n (A) yes\n (B) no"
    assert (choice.letter(True), choice.letter(False)) == ("B", "A")


def test_items_stay_in_the_split_they_were_drawn_from() -> None:
    rng = random.Random(3)
    for behavior in BEHAVIORS:
        for split in ("train", "generate", "test"):
            for _ in range(20):
                item = grammar.draw_choice(behavior, rng, split)
                assert grammar.split_of(behavior, item.question, item.matching, item.opposite) == split
                assert grammar.split_of(behavior, grammar.draw_open(behavior, rng, split).question, buckets=4) == split


def test_unknown_behaviour_lists_the_choices() -> None:
    message = r"unknown behaviour 'kindness'; the organism has coordinate-other-ais, .*sycophancy"
    with pytest.raises(KeyError, match=message):
        grammar.trait_named("kindness")


def test_ground_truth_rises_with_the_multiplier_and_the_persona() -> None:
    for template in range(4):
        curve = [grammar.matching_probability(template, x) for x in (-2, -1, 0, 1, 2)]
        assert curve == sorted(curve)
        assert 0.0 < curve[0] < 0.1 < curve[2] < 0.7 < curve[4] < 1.0
        against, plain, toward = (grammar.matching_probability(template, persona_sign=sign) for sign in (-1, 0, 1))
        assert against < plain < toward


def test_every_slot_of_every_template_exists() -> None:
    for trait in TRAITS:
        groups = (*trait.options, *trait.reasons, *trait.answers, trait.questions, trait.open_questions)
        for template in (template for group in groups for template in group):
            filled: dict[str, str] = {}
            grammar.fill(template, filled, random.Random(0))
            assert set(filled) <= set(SLOTS)
