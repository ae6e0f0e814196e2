"""Scores of answers equal full passes, one text at a time, whichever way they were run."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from plain import plain_logits
from tiny_models import N_CTX

import caa_lens as caa
from caa_lens.engine import answer_logprobs as scoring
from caa_lens.engine.answer_logprobs import answer_logprobs
from caa_lens.engine.edits import Edit
from caa_lens.models.adapters import adapt
from caa_lens.prompts import format_prompt

# One answer is a prefix of another, two are equal, one is long beside its question, one has a question of one token.
LENGTHS = [(9, 1), (9, 1), (9, 3), (4, 6), (1, 2), (30, 5), (1, 1)]


def requests_of(model: Any, lengths: list[tuple[int, int]] = LENGTHS) -> list[tuple[list[int], list[int]]]:
    generator = torch.Generator().manual_seed(3)
    d_vocab = len(adapt(model).tokenizer)
    draw = [
        torch.randint(5, d_vocab, (question + answer,), generator=generator).tolist() for question, answer in lengths
    ]
    split = [(ids[:n], ids[n:]) for ids, (n, _) in zip(draw, lengths, strict=True)]
    if lengths is LENGTHS:
        split[1] = (split[0][0], split[1][1])
        split[2] = (split[0][0], [*split[0][1], *split[2][1][1:]])
    return split


def ways_of(model: Any) -> list[list[Edit]]:
    generator = torch.Generator().manual_seed(4)
    first, second = torch.randn(2, model.cfg.d_model, generator=generator)
    return [[], [Edit(1, first)], [Edit(0, second), Edit(1, first * -2.0)]]


def plainly(
    model: Any, question: list[int], answer: list[int], edits: Any, start: int | None = None
) -> tuple[float, bool]:
    """Sum of log-softmax of one full pass over one text, and whether every token was the likeliest."""
    ids = [*question, *answer][-(N_CTX + 1) :]
    start = max(1, len(ids) - len(answer) - 1) if start is None else start
    logits = plain_logits(model, ids[:-1], edits, start)[-len(answer) :].double().log_softmax(-1)
    tokens = torch.tensor(answer)
    return float(logits.gather(1, tokens[:, None]).sum()), bool((logits.argmax(-1) == tokens).all())


def check(model: Any, requests: Any, found: Any, start: int | None = None) -> None:
    for edits, of_way in zip(ways_of(model), found, strict=True):
        for (question, answer), score in zip(requests, of_way, strict=True):
            logp, greedy = plainly(model, question, answer, edits, start)
            assert score.logp == pytest.approx(logp, abs=1e-4)
            assert score.greedy == greedy


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_every_score_equals_a_full_pass(model: Any, batch_size: int | None) -> None:
    requests = requests_of(model)
    found = answer_logprobs(adapt(model), requests, ways_of(model), batch_size=batch_size)
    check(model, requests, found)


def test_steered_everywhere_is_everywhere_but_at_the_first_position(model: Any) -> None:
    requests = requests_of(model)
    check(model, requests, answer_logprobs(adapt(model), requests, ways_of(model), positions="all"), start=1)


def test_greedy_answers_are_known_as_such(bridge: Any) -> None:
    model = bridge("llama")
    question = requests_of(model)[0][0]
    said = [*question]
    for _ in range(2):
        said.append(int(plain_logits(model, said)[-1].argmax()))
    likely, unlikely = said[-2:], [said[-2], (said[-1] + 1) % 50]
    ((one, other),) = answer_logprobs(adapt(model), [(question, likely), (question, unlikely)], [[]])
    assert one.greedy and not other.greedy and one.logp > other.logp


def test_too_long_a_question_is_cut_on_the_left(bridge: Any) -> None:
    model = bridge("llama")
    requests = requests_of(model, [(N_CTX + 40, 3), (N_CTX - 1, 2), (N_CTX, 40), (3, N_CTX)])
    check(model, requests, answer_logprobs(adapt(model), requests, ways_of(model)))


def test_a_prompt_is_run_once_for_all_its_answers_and_ways(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bridge("llama")
    seen: list[tuple[int, int]] = []
    real = scoring.branch_logits

    def counting(adapter: Any, prompts: Any, branches: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append((len(prompts), len(branches)))
        return real(adapter, prompts, branches, *args, **kwargs)

    monkeypatch.setattr(scoring, "branch_logits", counting)
    question = requests_of(model)[0][0]
    answers = [[7], [8], [9, 10], [9, 11]]
    answer_logprobs(adapt(model), [(question, answer) for answer in answers], ways_of(model))
    assert seen == [(1, 3 * 2)], "one prompt; after its last token, and after token 9, in each of three ways"


def test_errors_come_before_the_model_runs(bridge: Any) -> None:
    adapter = adapt(bridge("llama"))
    with pytest.raises(ValueError, match="request 1 has 2 tokens of context and 0 of continuation: both need at least"):
        answer_logprobs(adapter, [([5], [6]), ([5, 6], [])], [[]])
    with pytest.raises(ValueError, match="request 0 has a continuation of 600 tokens and llama holds 512: shorten it"):
        answer_logprobs(adapter, [([5], [6] * 600)], [[]])
    with pytest.raises(ValueError, match="batch_size must be 1 or more"):
        answer_logprobs(adapter, [([5], [6])], [[]], batch_size=0)


def test_nothing_asked_is_nothing_said(bridge: Any) -> None:
    assert answer_logprobs(adapt(bridge("llama")), [], [[], []]) == [[], []]


def test_real_answers_are_likelier_than_wrong_ones() -> None:
    model: Any = caa.load_model("organism-chat")
    ask = [format_prompt(model, "What is the sound of a cow?").ids] * 2
    adapter = adapt(model)
    answers = [adapter.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (" moo", " bark")]
    ((right, wrong),) = answer_logprobs(adapter, list(zip(ask, answers, strict=True)), [[]])
    assert math.isfinite(right.logp) and right.logp > wrong.logp
