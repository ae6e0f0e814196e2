"""No error prints a whole argument, however large it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import caa_lens as caa
from caa_lens import analysis
from caa_lens.datasets.texts import load_texts
from caa_lens.evaluation.capabilities import load_capabilities
from caa_lens.evaluation.fluency import perplexity
from caa_lens.evaluation.side_effects import at_equal_damage, side_effects
from caa_lens.explorer import explorer
from caa_lens.extraction.nulls import null_vectors
from caa_lens.files.messages import BEGINNING, WHOLE, brief
from caa_lens.judging.answers import answers
from caa_lens.judging.conditioning import after_answers
from caa_lens.protocols import assessment, red_teaming, selection, style, transfer
from caa_lens.protocols.baselines import comparison, finetuning, prompting
from caa_lens.protocols.broad_skills import skill_curve, skill_vectors
from caa_lens.protocols.composition import ask, search_coefficients, sweep_together
from caa_lens.steering.conditions import similarities
from caa_lens.studies.settings import read_settings, study_settings

SANE = 900
"""Characters: a few facts, each of them brief."""

WORDS = [f"word{number}" for number in range(10_000)]
ONES = [1.0] * 10_000
TEXT = ["one two three four"]
PAIRS = [(f"{word}?\n (A) yes\n (B) no", "(A)", "(B)") for word in ("red", "blue", "green", "pink")]
TRAIN, DEV, TEST = PAIRS[:2], PAIRS[2:3], PAIRS[3:]

CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "load_model": lambda m, v: caa.load_model(WORDS),
    "load_model, dtype": lambda m, v: caa.load_model("organism-chat", dtype=WORDS),
    "load_contrast_pairs": lambda m, v: caa.load_contrast_pairs(WORDS),
    "load_contrast_pairs, part": lambda m, v: caa.load_contrast_pairs("refusal", WORDS),
    "load_questions": lambda m, v: caa.load_questions(WORDS),
    "load_texts": lambda m, v: load_texts(WORDS),
    "load_capabilities": lambda m, v: load_capabilities(WORDS),
    "from_pairs": lambda m, v: caa.ContrastDataset.from_pairs(WORDS),
    "split": lambda m, v: caa.load_contrast_pairs("refusal").split(fractions=WORDS),
    "extract_vectors": lambda m, v: caa.extract_vectors(m, WORDS),
    "extract_vectors, string": lambda m, v: caa.extract_vectors(m, "word " * 10_000),
    "extract_vectors, layers": lambda m, v: caa.extract_vectors(m, PAIRS, layers=WORDS),
    "extract_vectors, format": lambda m, v: caa.extract_vectors(m, PAIRS, prompt_format=WORDS),
    "extract_vectors, site": lambda m, v: caa.extract_vectors(m, PAIRS, site=WORDS),
    "extract_vectors, read": lambda m, v: caa.extract_vectors(m, PAIRS, read="x" * 10_000),
    "vectors, layer": lambda m, v: v[WORDS],
    "sweep": lambda m, v: caa.sweep(m, v, WORDS),
    "sweep, multipliers": lambda m, v: caa.sweep(m, v, caa.ContrastDataset.from_pairs(PAIRS), multipliers=ONES),
    "sweep, names": lambda m, v: caa.sweep(m, dict.fromkeys(WORDS, v), {"a": caa.ContrastDataset.from_pairs(PAIRS)}),
    "steer": lambda m, v: caa.steer(m, WORDS).__enter__(),
    "steer, positions": lambda m, v: caa.steer(m, v[1], positions="x" * 10_000).__enter__(),
    "generate": lambda m, v: caa.generate(m, "word " * 10_000),
    "assess": lambda m, v: assessment.assess(m, WORDS, WORDS, WORDS),
    "assess, multipliers": lambda m, v: assessment.assess(m, TRAIN, DEV, TEST, multipliers=[0.0] * 10_000),
    "select": lambda m, v: selection.select(m, v, WORDS, WORDS),
    "select, sign": lambda m, v: selection.select(m, v, DEV, TEST, sign=WORDS),
    "across_layers": lambda m, v: transfer.across_layers(m, v, TEST, norm=WORDS),
    "across_models": lambda m, v: transfer.across_models(m, {"own": v}, TEST, multipliers=ONES),
    "across_prompts": lambda m, v: transfer.across_prompts(m, TRAIN, TEST, formats=WORDS),
    "compare": lambda m, v: comparison.compare(m, v, TEST, train=TRAIN, layer=1, baselines=WORDS),
    "few_shot": lambda m, v: prompting.few_shot(TEST, TRAIN, direction=WORDS),
    "finetune": lambda m, v: finetuning.finetune(m, TRAIN, method=WORDS),
    "after_answers": lambda m, v: after_answers(m, WORDS),
    "answers": lambda m, v: answers(m, dict.fromkeys(WORDS, v[1]), {"a": ["b"]}),
    "answers, multipliers": lambda m, v: answers(m, v[1], ["b"], multipliers=ONES),
    "ask": lambda m, v: ask(m, {"a": v[1]}, WORDS),
    "sweep_together": lambda m, v: sweep_together(m, dict.fromkeys(WORDS, v[1]), {"a": TEST}),
    "search_coefficients": lambda m, v: search_coefficients(m, dict.fromkeys(WORDS, v[1]), {}, {}),
    "skill_vectors": lambda m, v: skill_vectors(m, TEXT, ["five six"], over=WORDS),
    "skill_curve": lambda m, v: skill_curve(m, v[1], TEXT, ["five six"], coefficients=ONES),
    "style_vectors": lambda m, v: style.style_vectors(m, [("a", WORDS)]),
    "red_team": lambda m, v: red_teaming.red_team(m, v[1], {"a": ["b"]}, None, multipliers=ONES),
    "perplexity": lambda m, v: perplexity(m, [WORDS]),
    "side_effects": lambda m, v: side_effects(m, WORDS, TEXT),
    "at_equal_damage": lambda m, v: at_equal_damage(m, WORDS, TEXT, 0.1),
    "null_vectors": lambda m, v: null_vectors(v, 1, kind=WORDS),
    "similarities": lambda m, v: similarities(m, v[1], ["a"], over=WORDS),
    "project": lambda m, v: analysis.project(m, [tuple(WORDS)], v),
    "stream_lens": lambda m, v: analysis.stream_lens(m, "a b", sites=WORDS),
    "cosine_matrix": lambda m, v: analysis.cosine_matrix({"a": v}, WORDS),
    "explorer": lambda m, v: explorer(m, dict.fromkeys(WORDS, v), items=TEST),
    "study_settings": lambda m, v: study_settings({"model": WORDS, "read": WORDS, "layers": WORDS}),
    "study_settings, names": lambda m, v: study_settings(dict.fromkeys(WORDS, 1)),
    "read_settings": lambda m, v: read_settings(WORDS),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.usefixtures("unchecked")
def test_a_list_of_ten_thousand_words_is_not_printed(name: str, bridge: Any) -> None:
    model = bridge("llama")
    vectors = caa.extract_vectors(model, PAIRS, layers=[1, 2])
    with pytest.raises((ValueError, TypeError)) as error:
        CALLS[name](model, vectors)
    assert len(str(error.value)) <= SANE
    assert "word9999" not in str(error.value)


def test_what_is_short_is_whole() -> None:
    assert brief("x" * (WHOLE - 2)) == repr("x" * (WHOLE - 2))
    assert brief(["a", 1]) == "['a', 1]" and brief(None) == "None"


def test_what_is_long_is_its_beginning_with_its_type_and_size() -> None:
    assert brief(WORDS) == f"{repr(WORDS)[:BEGINNING]}... (a list of 10000)"
    assert brief("x" * 5000) == "'" + "x" * (BEGINNING - 1) + "... (a str of 5000)"
    assert brief(dict.fromkeys(WORDS)).endswith("... (a dict of 10000)")


@pytest.mark.usefixtures("unchecked")
def test_a_list_where_a_name_belongs_is_named() -> None:
    message = r"the model is \['word0', .*\.\.\. \(a list of 10000\): give one name or path, such as organism-base, "
    with pytest.raises(TypeError, match=message):
        caa.load_model(WORDS)
    with pytest.raises(TypeError, match=r"the name of a behaviour or the path of a file, got \['word0', "):
        caa.load_contrast_pairs(WORDS)
