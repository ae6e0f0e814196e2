"""Every token has a name: formats, spans, exactly one BOS."""

from __future__ import annotations

from typing import Any

import pytest

import caa_lens as caa
from caa_lens.prompts import default_format, format_prompt

QUESTION = "Is it so?\n (A) yes\n (B) no"
FORMATS = ("chat", "llama2", "base", "plain")


def text_of(model: Any, prompt: Any, role: str) -> str:
    first, after = prompt.spans[role]
    return "".join(prompt.tokens[first:after])


def formats_of(model: Any) -> tuple[str, ...]:
    return FORMATS if model.tokenizer.chat_template else FORMATS[1:]


def test_the_papers_formats_are_exact(bridge: Any) -> None:
    model = bridge("llama")
    assert format_prompt(model, " q? ", "(A)", prompt_format="llama2").text == "[INST] q? [/INST] (A)"
    with_system = format_prompt(model, "q?", "(A)", prompt_format="llama2", system="Be kind.")
    assert with_system.text == "<<SYS>>\nBe kind.\n<</SYS>>\n\n[INST] q? [/INST] (A)"
    assert format_prompt(model, "q?", "(A)", prompt_format="base").text == "Input: q?\nResponse: (A)"
    assert format_prompt(model, "q?", prompt_format="base").text == "Input: q?\nResponse:"
    assert format_prompt(model, "once ", " upon", prompt_format="plain").text == "once  upon"


def test_the_chat_template_is_the_default_where_there_is_one(bridge: Any) -> None:
    assert default_format(bridge("llama")) == "chat" and default_format(bridge("gpt2")) == "base"
    assert format_prompt(bridge("llama"), "q?", "(A)").text == "<s>[INST] q? [/INST] (A)"
    chatml = format_prompt(bridge("qwen2"), "q?", "(A)").text
    assert chatml.endswith("assistant\n(A)") and "user\nq?" in chatml


def test_the_letter_is_read_and_not_the_bracket(model: Any) -> None:
    for prompt_format in formats_of(model):
        for answer in ("(A)", "(B)", " (B)"):
            prompt = format_prompt(model, QUESTION, answer, prompt_format=prompt_format)
            assert text_of(model, prompt, "answer_letter").strip() == answer.strip()[1]
            assert text_of(model, prompt, "answer").strip() == answer.strip()
            assert prompt.position("answer_letter") == prompt.position("answer_end") - 1
            assert prompt.spans["prompt_end"] == (prompt.spans["answer"][0] - 1, prompt.spans["answer"][0])


def test_the_prompt_alone_is_the_beginning_of_the_prompt_with_its_answer(model: Any) -> None:
    for prompt_format in formats_of(model):
        alone = format_prompt(model, QUESTION, prompt_format=prompt_format)
        answered = format_prompt(model, QUESTION, "(A)", prompt_format=prompt_format)
        assert answered.ids[: answered.spans["prompt"][1]] == alone.ids
        assert alone.position("prompt_end") == len(alone.ids) - 1


def test_exactly_one_bos_where_the_model_has_one(model: Any) -> None:
    bos = model.tokenizer.bos_token_id if model.cfg.default_prepend_bos else None
    for prompt_format in formats_of(model):
        ids = format_prompt(model, QUESTION, "(A)", prompt_format=prompt_format).ids
        if bos is not None:
            assert ids[0] == bos and ids.count(bos) == 1


def test_a_bos_that_is_already_there_is_not_doubled(bridge: Any) -> None:
    model = bridge("llama")
    assert (
        format_prompt(model, "<s>once", prompt_format="plain").ids
        == format_prompt(model, "once", prompt_format="plain").ids
    )


def test_a_model_without_bos_gets_none(bridge: Any) -> None:
    prompt = format_prompt(bridge("qwen2"), "hello", prompt_format="plain")
    assert "bos" not in prompt.spans and "".join(prompt.tokens) == "hello"


def test_system_prompts_have_their_span(bridge: Any) -> None:
    for style in ("llama", "qwen2"):
        prompt = format_prompt(bridge(style), QUESTION, "(A)", system="be kind")
        assert text_of(bridge(style), prompt, "system").strip() == "be kind"


def test_short_questions_are_not_found_in_the_template(model: Any) -> None:
    for prompt_format in formats_of(model):
        for question in ("I", "INST", "p", "s", "Input"):
            refused = prompt_format == "chat" and "System role not supported" in model.tokenizer.chat_template
            system = None if refused else "I"
            prompt = format_prompt(model, question, "(A)", prompt_format=prompt_format, system=system)
            assert text_of(model, prompt, "question").strip() == question
            first, after = prompt.spans["question"]
            assert after <= prompt.spans["answer"][0] and first > prompt.spans.get("system", (0, 0))[0] - 1


def test_tokens_are_readable_with_their_spaces(bridge: Any) -> None:
    prompt = format_prompt(bridge("gpt2"), "one two", prompt_format="plain")
    assert "".join(prompt.tokens[1:]) == "one two"


def test_positions_from_either_end_and_their_errors(bridge: Any) -> None:
    prompt = format_prompt(bridge("llama"), "q?", "(A)")
    assert prompt.position(-1) == len(prompt.ids) - 1 and prompt.position(0) == 0
    with pytest.raises(ValueError, match=r"position 99 is outside this prompt of \d+ tokens"):
        prompt.position(99)
    with pytest.raises(ValueError, match="no 'answr' in .*: the roles here are answer, answer_end, answer_letter, bos"):
        prompt.position("answr")


def test_tokens_read_and_steered(bridge: Any) -> None:
    rows = caa.describe_tokens(bridge("llama"), caa.ContrastPair("q?", "(A)", "(B)"), prompt_format="llama2")
    read = [row.token for row in rows if row.read]
    steered = [row.token for row in rows if row.steered]
    assert read == ["A"] and "".join(steered).endswith("] (A)") and rows[0].roles == ("prompt", "bos")
    generated = caa.describe_tokens(bridge("llama"), "q?", prompt_format="llama2")
    assert [row.index for row in generated if row.steered] == [len(generated) - 1] and not any(
        row.read for row in generated
    )


def test_errors_say_what_to_do(bridge: Any, unchecked: None) -> None:
    with pytest.raises(ValueError, match="prompt format 'alpaca' is not known: give one of chat, llama2, base, plain"):
        format_prompt(bridge("llama"), "q?", prompt_format="alpaca")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="this tokenizer has no chat template: give prompt_format='base'"):
        format_prompt(bridge("gpt2"), "q?", prompt_format="chat")
    with pytest.raises(ValueError, match="chat template refuses the prompt with a system prompt"):
        format_prompt(bridge("gemma2"), "q?", system="be kind", prompt_format="chat")
    with pytest.raises(ValueError, match="no token comes from the text ''"):
        format_prompt(bridge("qwen2"), "", prompt_format="plain")
