"""What lm-evaluation-harness asks of a model, answered as full passes would; lm_eval itself is not needed here."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from plain import plain_greedy, plain_logits
from tiny_models import N_CTX

from caa_lens.engine.edits import Edit
from caa_lens.evaluation import harness_model
from caa_lens.evaluation.harness_model import model_class
from caa_lens.models.adapters import adapt
from caa_lens.prompts import format_prompt

PAIRS = [
    ("so it is", " the one"),
    ("so it is ", "the one"),  # the same, once the space has moved
    ("so it is", " the other"),
    ("", "the one"),
    ("  ", "x"),
    ("this is a longer question, with a colon:\n", "a"),
]


def windows(ids: list[int], prefix: int, most: int, context: int) -> Iterator[tuple[list[int], list[int]]]:
    """Every token once, in pieces of ``most``, each with as many before it as fit."""
    for at in range(0, len(ids), most):
        piece = ids[at : at + most]
        yield ([prefix, *ids][max(0, at + len(piece) - most) : at + len(piece)], piece)


def asked(*requests: tuple[Any, ...]) -> list[Any]:
    return [SimpleNamespace(args=request) for request in requests]


def edits_of(model: Any) -> list[Edit]:
    return [Edit(1, torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(4)) * 2)]


def made(model: Any, positions: str = "prompt_end", batch_size: int | None = None, seed: int = 0) -> Any:
    ways = {"unsteered": [], "steered": edits_of(model)}
    return model_class(object, windows)(adapt(model), ways, positions, batch_size, seed, False)


def ids_of(model: Any, text: str) -> list[int]:
    return list(format_prompt(model, text, prompt_format="plain").ids)


def plainly(model: Any, ids: list[int], n_answer: int, edits: Any, start: int) -> tuple[float, bool]:
    logits = plain_logits(model, ids[:-1], edits, start)[-n_answer:].double().log_softmax(-1)
    answer = torch.tensor(ids[-n_answer:])
    return float(logits.gather(1, answer[:, None]).sum()), bool((logits.argmax(-1) == answer).all())


def prefix_of(model: Any) -> int:
    tokenizer = model.tokenizer
    return tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id


def expected_pair(model: Any, context: str, continuation: str) -> tuple[list[int], int]:
    """All tokens, and how many of them are the continuation's."""
    whole = ids_of(model, context.rstrip() + context[len(context.rstrip()) :] + continuation)
    bos = model.tokenizer.bos_token_id
    if not context.rstrip():
        bare = whole[1:] if whole[0] == bos else whole
        return [prefix_of(model), *bare], len(bare)
    return whole, len(whole) - len(ids_of(model, context.rstrip()))


@pytest.mark.parametrize("positions", ["prompt_end", "all"])
def test_loglikelihoods_equal_full_passes(model: Any, positions: str) -> None:
    lm = made(model, positions)
    for way, edits in (("unsteered", []), ("steered", edits_of(model))):
        lm.way = way
        for (context, continuation), (logp, greedy) in zip(PAIRS, lm.loglikelihood(asked(*PAIRS)), strict=True):
            ids, n_answer = expected_pair(model, context, continuation)
            start = max(1, len(ids) - n_answer - 1) if positions == "prompt_end" else 1
            found = plainly(model, ids, n_answer, edits, start)
            assert logp == pytest.approx(found[0], abs=1e-4) and greedy == found[1]


def test_text_in_windows_equals_full_passes(model: Any) -> None:
    lm = made(model)
    long = "the other one, and " * 60
    texts = [("so it is the one",), (long,), ("",)]
    bos = model.tokenizer.bos_token_id
    assert len(ids_of(model, long)) > N_CTX
    for way, edits in (("unsteered", []), ("steered", edits_of(model))):
        lm.way = way
        found = lm.loglikelihood_rolling(asked(*texts))
        assert found[2] == 0
        for (text,), logp in zip(texts[:2], found, strict=False):
            ids = ids_of(model, text)
            ids = ids[1:] if ids[0] == bos else ids
            expected = 0.0
            for given, piece in windows(ids, prefix_of(model), N_CTX, 1):
                expected += plainly(model, [*given, piece[-1]], len(piece), edits, max(1, len(given) - len(piece)))[0]
            assert logp == pytest.approx(expected, abs=2e-3)


def test_contexts_are_continued_as_a_plain_loop_would(model: Any) -> None:
    lm, stops = made(model), adapt(model).stop_ids
    contexts = ["so it is", "this is a longer question, with a colon:", "the"]
    for way, edits in (("unsteered", []), ("steered", edits_of(model))):
        lm.way = way
        found = lm.generate_until(asked(*((context, {"max_gen_toks": 7}) for context in contexts)))
        for context, text in zip(contexts, found, strict=True):
            new = plain_greedy(model, ids_of(model, context), edits, 7, stops)
            assert text == model.tokenizer.decode(new, skip_special_tokens=True)


def test_a_text_ends_at_its_first_stop(bridge: Any) -> None:
    model = bridge("llama")
    lm = made(model)
    context = "so it is"
    (free,) = lm.generate_until(asked((context, {"max_gen_toks": 12})))
    stop = free[4:6]
    cut = free[: free.index(stop)]
    settings = [{"until": stop}, {"until": ["not there", stop, ""]}, {"until": [free[9], stop]}, {"until": ["no"]}]
    found = lm.generate_until(asked(*((context, {"max_gen_toks": 12, **how}) for how in settings)))
    assert found[:2] == [cut, cut] and len(found[2]) <= len(cut) and found[3] == free
    texts = lm.generate_until(asked(*((c, {"max_gen_toks": 12, "until": [stop]}) for c in (context, "the", "so"))))
    alone = [lm.generate_until(asked((c, {"max_gen_toks": 12, "until": [stop]})))[0] for c in (context, "the", "so")]
    assert texts == alone, "a row that has ended does not disturb the others"


def test_a_stop_saves_the_tokens_after_it(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, steps = bridge("llama"), []
    lm = made(model)
    (free,) = lm.generate_until(asked(("so it is", {"max_gen_toks": 12})))
    real = harness_model.Sampler.pick
    monkeypatch.setattr(harness_model.Sampler, "pick", lambda *given: steps.append(1) or real(*given))
    lm.generate_until(asked(("so it is", {"max_gen_toks": 12, "until": free[:1]})))
    assert len(steps) < 12


def test_sampling_takes_its_seed_and_repeats_differ(bridge: Any) -> None:
    model = bridge("llama")
    how = {"max_gen_toks": 8, "do_sample": True, "temperature": 1.5}
    requests = asked(*[("so it is", how)] * 3)
    one, again, other = (made(model, seed=seed).generate_until(requests) for seed in (0, 0, 1))
    assert one == again != other and len(set(one)) == 3
    greedy = made(model).generate_until(asked(("so it is", {"max_gen_toks": 8, "do_sample": False, "temperature": 2})))
    assert greedy == made(model).generate_until(asked(("so it is", {"max_new_tokens": 8})))


def test_too_long_a_context_is_cut_on_the_left(bridge: Any) -> None:
    model = bridge("llama")
    lm, long = made(model), "the other one, and " * 60
    (text,) = lm.generate_until(asked((long, {"max_gen_toks": 4})))
    kept = ids_of(model, long)[-(N_CTX - 4) :]
    new = plain_greedy(model, kept, [], 4, adapt(model).stop_ids)
    assert text == model.tokenizer.decode(new, skip_special_tokens=True)
    ((logp, _),) = lm.loglikelihood(asked((long, " so")))
    ids, n_answer = expected_pair(model, long, " so")
    assert logp == pytest.approx(plainly(model, ids[-(N_CTX + 1) :], n_answer, [], 1)[0], abs=1e-4)


def test_what_was_scored_is_remembered_for_the_next_way(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, asked_for = made(bridge("llama")), []
    real = harness_model.answer_logprobs

    def counting(adapter: Any, requests: Any, *args: Any, **kwargs: Any) -> Any:
        asked_for.append(len(requests))
        return real(adapter, requests, *args, **kwargs)

    monkeypatch.setattr(harness_model, "answer_logprobs", counting)
    first = lm.loglikelihood(asked(*PAIRS, *PAIRS))
    lm.way = "steered"
    second = lm.loglikelihood(asked(*PAIRS, ("new", " one")))
    assert asked_for == [len(PAIRS), 1] and first[: len(PAIRS)] == first[len(PAIRS) :] != second[: len(PAIRS)]


def test_a_chat_template_is_laid_out_by_the_tokenizer(bridge: Any) -> None:
    lm = made(bridge("qwen2"))
    turns = [{"role": "user", "content": "so"}, {"role": "assistant", "content": "it"}]
    assert lm.apply_chat_template(turns[:1]) == "<|im_start|>user\nso<|im_end|>\n<|im_start|>assistant\n"
    assert lm.apply_chat_template(turns, add_generation_prompt=False).endswith("<|im_start|>assistant\nit")
    assert lm.chat_template(True) == lm.tokenizer.chat_template and lm.chat_template() is None
    assert (lm.tokenizer_name, lm.max_length, lm.prefix_token_id) == ("qwen2", N_CTX, lm.tokenizer.eos_token_id)


def test_what_would_be_ignored_is_refused(bridge: Any) -> None:
    lm = made(bridge("llama"))
    with pytest.raises(ValueError, match="this task wants to generate with repetition_penalty, top_k: only until"):
        lm.generate_until(asked(("so", {"top_k": 3, "repetition_penalty": 1.1})))
    with pytest.raises(ValueError, match="this task wants to generate with num_beams: only until"):
        lm.generate_until(asked(("so", {"num_beams": 4})))
    with pytest.raises(ValueError, match="this task generates up to 600 tokens and llama holds 512: set a smaller"):
        lm.generate_until(asked(("so", {"max_gen_toks": 600})))
    with pytest.raises(ValueError, match="positions='all' is for scoring answers and this task generates"):
        made(bridge("llama"), "all").generate_until(asked(("so", {})))
